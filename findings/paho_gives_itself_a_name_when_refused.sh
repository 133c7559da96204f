#!/usr/bin/env bash
# A device that the broker refuses because it has no ClientId comes back under a random one, and says "Success".
#
# What: a broker may insist on a ClientId (mosquitto: allow_zero_length_clientid false). A device whose name was left empty,
# by a missing setting, is answered CONNACK 2, "identifier rejected". paho-mqtt does not tell: by default it makes up 22
# random characters, connects again under them, and on_connect gets the broker's second
# answer, Success. Each start brings another name. With reconnect_on_failure=False nothing is made up; then on_connect is
# not called at all, and on_disconnect says "Protocol error", where MQTT.js and mosquitto_pub say "identifier rejected".
# Seen with: paho-mqtt 2.2.0 and mosquitto 2.0.
# Why it matters: brokers are set so because devices are told apart by their ClientId. A fleet with one empty setting
# shows up as new devices, one more at each restart, with queues and sessions of their own that nobody reads, while each
# device's log says that all is well. Whoever looks for the reason finds no refusal, neither in the device nor, except as
# one line among its connections, at the broker.
set -euo pipefail
command -v mosquitto >/dev/null || PATH=$PATH:/usr/sbin
work=$(mktemp -d)
broker=
trap '[ -z "$broker" ] || kill "$broker" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check paho-mqtt==2.2.0 2>/dev/null
mosquitto -h | sed -n 1p || true
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > broker.conf <<CONF
user $(id -un)
listener $port 127.0.0.1
allow_anonymous true
allow_zero_length_clientid false
CONF
mosquitto -v -c broker.conf > broker.log 2>&1 &
broker=$!
for _ in $(seq 40); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    sleep 0.5
done

cat > device.py <<'PY'
import sys

import paho.mqtt.client as mqtt

told, again = [], sys.argv[2] == "default"
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="", reconnect_on_failure=again)


def connected(client, data, flags, reason, properties):
    told.append(f"on_connect: {reason}")
    client.disconnect()


client.on_connect = connected
client.on_disconnect = lambda client, data, flags, reason, properties: told.append(f"on_disconnect: {reason}")
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
print("; ".join(told))
PY
for start in first second; do
    said=$(venv/bin/python device.py "$port" default)
    echo "$start start, as by default:   $said"
    [[ $said == *"on_connect: Success"* ]] || { echo "NO LONGER: the device is told"; exit 1; }
done
said=$(venv/bin/python device.py "$port" never)
echo "reconnect_on_failure=False: $said"
[[ $said != *on_connect* && $said == *"Protocol error"* ]] || { echo "NO LONGER: on_connect is called"; exit 1; }
names=$(grep -o "as [A-Za-z0-9]\{22\} " broker.log | sort -u | wc -l)
refused=$(grep -c "Sending CONNACK to .*(0, 2)" broker.log)
echo "the broker refused $refused times, and let in devices of $names names"
[ "$names" = 2 ] && [ "$refused" = 3 ]
echo "AS DESCRIBED: refused, renamed, and told Success"
