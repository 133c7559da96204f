"""Connect with paho-mqtt, gmqtt or aiomqtt, and print what it says: one attempt a line of standard input, as JSON.

`measure_clients` runs it in an environment that has the client. It does what the client's own examples do: it makes
Python's default TLS context, connects, and prints what is raised, what the callbacks are told, and what is logged.
"""

import asyncio
import json
import logging
import os
import ssl
import sys
import time
import traceback
import warnings
from collections.abc import Coroutine
from typing import Any

SECONDS = 6.0  # then a client that has said nothing says no more


def say(error: BaseException) -> list[str]:
    """Return what a traceback ends with, of an error and of those that it came from."""
    lines = [line.strip() for line in traceback.format_exception_only(error)]
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return (say(before) if before else []) + lines


def context(attempt: dict[str, Any]) -> ssl.SSLContext | None:
    """Return the TLS context of an attempt."""
    if attempt.get("plain"):
        return None
    made = ssl.create_default_context(cafile=attempt["ca"])
    made.minimum_version = made.maximum_version = ssl.TLSVersion[attempt["tls"].replace(".", "_")]
    if attempt.get("cert"):
        password = {"password": attempt["passphrase"]} if attempt.get("passphrase") else {}
        made.load_cert_chain(attempt["cert"], attempt["key"], **password)
    return made


def with_paho(attempt: dict[str, Any], heard: list[str]) -> None:
    """Connect with callbacks that note what they are told."""
    from paho.mqtt import client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    def connected(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            heard.append(str(reason))
        else:
            heard.append("CONNECTED")
            if not attempt.get("stay"):
                client.disconnect()

    way: Any = {"transport": "websockets"} if attempt.get("websocket") else {}
    protocol = mqtt.MQTTv5 if attempt.get("mqtt5") else mqtt.MQTTv311
    api = CallbackAPIVersion.VERSION2
    client = mqtt.Client(api, attempt["id"], protocol=protocol, reconnect_on_failure=False, **way)
    client.on_log = lambda _client, _data, _level, text: heard.append(text)
    client.on_connect = connected
    client.on_disconnect = lambda _client, _data, _flags, reason, _properties: heard.append(str(reason))
    client.on_socket_open = lambda *_: time.sleep(attempt.get("wait", 0))
    if attempt.get("user"):
        client.username_pw_set(attempt["user"], attempt["password"])
    if made := context(attempt):
        client.tls_set_context(made)
    client.connect(attempt["host"], attempt["port"], int(SECONDS))  # 2.1 waits so long for a handshake
    client.loop_forever()


async def with_gmqtt(attempt: dict[str, Any], heard: list[str]) -> None:
    """Connect, without trying again."""
    import gmqtt  # type: ignore[import-untyped, unused-ignore]
    from gmqtt.mqtt.constants import MQTTv50, MQTTv311  # type: ignore[import-untyped, unused-ignore]

    client = gmqtt.Client(attempt["id"])
    client.set_config({"reconnect_retries": 0})
    if attempt.get("user"):
        client.set_auth_credentials(attempt["user"], attempt["password"])
    version = MQTTv50 if attempt.get("mqtt5") else MQTTv311
    await client.connect(attempt["host"], attempt["port"], ssl=context(attempt) or False, version=version)
    heard.append("CONNECTED")
    await client.disconnect()


async def with_aiomqtt(attempt: dict[str, Any], heard: list[str]) -> None:
    """Connect in aiomqtt's own way."""
    import aiomqtt  # type: ignore[import-not-found, unused-ignore]

    protocol = aiomqtt.ProtocolVersion.V5 if attempt.get("mqtt5") else aiomqtt.ProtocolVersion.V311
    login = {"username": attempt["user"], "password": attempt["password"]} if attempt.get("user") else {}
    way = {"transport": "websockets"} if attempt.get("websocket") else {}
    options = {
        "protocol": protocol,
        "tls_context": context(attempt),
        "timeout": SECONDS / 2,
        "keepalive": int(SECONDS),
        **login,
        **way,
    }
    async with aiomqtt.Client(attempt["host"], attempt["port"], identifier=attempt["id"] or None, **options):
        heard.append("CONNECTED")


class Notes(logging.Handler):
    """What the libraries log, as lines."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        """Note a message, and its exception without the traceback."""
        self.heard.append(record.getMessage())
        if record.exc_info and record.exc_info[1]:
            self.heard += say(record.exc_info[1])


async def limited(attempt: Coroutine[Any, Any, None]) -> None:
    """Wait for an attempt, but not for ever; what its end brings about is not heard."""
    task = asyncio.ensure_future(attempt)
    if (await asyncio.wait({task}, timeout=SECONDS))[0]:
        await task
    else:
        logging.getLogger().handlers = [logging.NullHandler()]
        task.cancel()


def connect(name: str, attempt: dict[str, Any]) -> list[str]:
    """Return the lines that a client says in one attempt."""
    heard: list[str] = []
    logging.getLogger().handlers = [Notes(heard)]
    try:
        if name == "paho-mqtt":
            with_paho(attempt, heard)
        else:
            way = {"gmqtt": with_gmqtt, "aiomqtt": with_aiomqtt}[name]
            asyncio.run(limited(way(attempt, heard)))
    except Exception as error:
        heard += say(error)
    return heard


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # they are about our examples, not about a refusal
    attempts = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # OpenSSL would read a passphrase from there
    for line in attempts:
        print(json.dumps(connect(sys.argv[1], json.loads(line))), flush=True)
