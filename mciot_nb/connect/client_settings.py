"""What to type into an MQTT client of one's own, filled in with the learner's values, and never a password.

The fields' names are the clients' own: MQTT.fx 1.7 (the guide's), MQTTX 1.11, MQTT Explorer 0.4.
"""

import shlex
from pathlib import Path

from mciot_nb.connect.mqtt import PUBLISH_TOPIC
from mciot_nb.connect.tenant import Tenant
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.keystore import KEY_ALIAS, TRUST_ALIAS
from mciot_nb.pki.names import common_name

#: Name, value, and what it means (may be empty).
Setting = tuple[str, str, str]

_MESSAGE = "200,c8y_Temperature,T,21.5,C"
_OPEN_KEY = "deviceKeyOpen.pem"


def mqttfx_settings(tenant: Tenant, device_folder: Path) -> list[Setting]:
    """Give MQTT.fx's settings for the device in ``device_folder`` (guide: "Testing certificates with MQTT.fx client").

    No password stands in them, only which one goes where. Raises OnboardingError where the device has no certificate.
    """
    host, port = tenant.mqtt
    here = "in this workspace, the workspace's passphrase"
    return [
        ("Broker Address", host, ""),
        ("Broker Port", str(port), ""),
        ("Client ID", _client_id(device_folder), "the common name of the device certificate"),
        ("Enable SSL/TLS", "on, protocol TLSv1.2", ""),
        ("Method", "Self signed certificates in keystores", ""),
        ("Keystore File", str(device_folder / "deviceTruststore.jks"), "the field's name misleads: the truststore"),
        ("Trusted Keystore Alias", TRUST_ALIAS, ""),
        ("Trusted Keystore Password", "the truststore's", here),
        ("Client Keystore", str(device_folder / "deviceKeystore.jks"), "a .pkcs12 does as well from Java 8u301 on"),
        ("Client Keystore Password", "the keystore's", here),
        ("Client KeyPair Alias", KEY_ALIAS, ""),
        (
            "Client KeyPair Password",
            "that of the key in the keystore",
            "here the same once more; a JKS that keytool converted keeps the PKCS12's. The guide's step 18 names the "
            "password of deviceKey.pem: that one opens the PEM file, and MQTT.fx never sees it",
        ),
        ("PEM Formatted", "on", ""),
    ]


def mqttx_settings(tenant: Tenant, device_folder: Path, trusted: Path | None) -> list[Setting]:
    """Give the settings of MQTTX, and in its last lines those of MQTT Explorer where they have other names.

    Both take PEM files; ``trusted`` is the one to believe, None for what the system trusts. Raises OnboardingError
    where the device has no certificate.
    """
    host, port = tenant.mqtt
    return [
        ("Host", f"mqtts://{host}", ""),
        ("Port", str(port), ""),
        ("Client ID", _client_id(device_folder), "without a timestamp behind it"),
        ("MQTT Version", "3.1.1", "the platform speaks no MQTT 5"),
        ("SSL/TLS, SSL Secure", "both on", "the second one checks the server's certificate"),
        ("Certificate", "CA or Self signed certificates", ""),
        ("CA File", str(trusted or "(leave it empty)"), ""),
        ("Client Certificate File", str(device_folder / "deviceCertChain.pem"), "the whole chain, not deviceCert.pem"),
        ("Client key file", str(device_folder / _OPEN_KEY), "the open copy of deviceKey.pem"),
        ("In MQTT Explorer", "Validate certificate and Encryption on", "the rest under Advanced, Certificates"),
        ("", "Server Certificate (CA), Client Certificate, Client Key", "for the three files, in this order"),
    ]


def open_key_command(device_folder: Path) -> str:
    """Give the command that copies the device's key without its passphrase, for clients that can't ask for it.

    It asks for the passphrase, and OpenSSL lets nobody but its owner read a new file. Whoever has it *is* the device.
    """
    return f"openssl pkey -in {_quoted(device_folder / 'deviceKey.pem')} -out {_quoted(device_folder / _OPEN_KEY)}"


def mosquitto_command(tenant: Tenant, device_folder: Path, trusted: Path | None) -> str:
    """Give the command with which ``mosquitto_pub`` sends a measurement; it asks for the key's passphrase itself.

    ``trusted`` is as in `mqttx_settings`. Raises OnboardingError where the device has no certificate.
    """
    host, port = tenant.mqtt
    trust = ["--cafile", str(trusted)] if trusted else ["--tls-use-os-certs"]
    own = [("--cert", "deviceCertChain.pem"), ("--key", "deviceKey.pem")]
    files = [part for option, name in own for part in (option, str(device_folder / name))]
    address = ["-h", host, "-p", str(port), "-i", _client_id(device_folder)]
    return shlex.join(["mosquitto_pub", *address, *trust, *files, "-q", "1", "-t", PUBLISH_TOPIC, "-m", _MESSAGE])


def paho_snippet(tenant: Tenant, device_folder: Path, trusted: Path | None) -> str:
    """Give a Python program that sends a measurement with paho-mqtt alone; it asks for the key's passphrase.

    ``trusted`` is as in `mqttx_settings`. Raises OnboardingError where the device has no certificate.
    """
    host, port = tenant.mqtt
    return f"""\
from getpass import getpass

import paho.mqtt.client as mqtt

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id={_client_id(device_folder)!r})
client.tls_set(
    ca_certs={str(trusted) if trusted else None!r},
    certfile={str(device_folder / "deviceCertChain.pem")!r},
    keyfile={str(device_folder / "deviceKey.pem")!r},
    keyfile_password=getpass("Passphrase of deviceKey.pem: "),
)
client.on_connect = lambda client, userdata, flags, reason, properties: print("CONNACK:", reason)
client.connect({host!r}, {port})
client.loop_start()
sent = client.publish({PUBLISH_TOPIC!r}, {_MESSAGE!r}, qos=1)
sent.wait_for_publish(10)
print("acknowledged" if sent.is_published() else "not acknowledged")
client.disconnect()
"""


def _client_id(device_folder: Path) -> str:
    return common_name(read_certificates(device_folder / "deviceCertChain.pem")[0].subject) or ""


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
