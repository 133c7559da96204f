"""What to type into an MQTT client of one's own, filled in with the learner's values, and never a password.

The fields' names are the clients' own: MQTT.fx 1.7 (the guide's), MQTTX 1.11, MQTT Explorer 0.4.
"""

import shlex
from pathlib import Path

from mciot_nb.connect.mqtt import PUBLISH_TOPIC
from mciot_nb.connect.tenant import Tenant
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.keystore import KEY_ALIAS, TRUST_ALIAS
from mciot_nb.pki.names import common_name, name_of

#: Name, value, and what it means (may be empty).
Setting = tuple[str, str, str]

_MESSAGE = "200,c8y_Temperature,T,21.5,C"


class ClientSettings:
    """The settings of other MQTT clients for the device whose files lie in ``device_folder``.

    ``trusted`` is the PEM file with the server's certificate, None for what the system trusts::

        settings = ClientSettings(tenant, workspace.device_file(""), workspace.trusted_file(tenant))
        card("MQTT.fx", settings.mqttfx)
        print(settings.mosquitto_pub)

    Raises: OnboardingError: if the device has no certificate.
    """

    def __init__(self, tenant: Tenant, device_folder: Path, trusted: Path | None) -> None:
        self.tenant = tenant
        self.folder, self.trusted = device_folder, trusted
        self.chain, self.key = device_folder / "deviceCertChain.pem", device_folder / "deviceKey.pem"
        self._unencrypted_key = device_folder / "deviceKeyOpen.pem"
        self.client_id = common_name(name_of(read_certificates(self.chain)[0])) or ""

    @property
    def mqtt(self) -> tuple[str, int]:
        """The server's host and port as they are now. Raises: OnboardingError: if the local platform does not run."""
        return self.tenant.now.mqtt

    @property
    def mqttfx(self) -> list[Setting]:
        """MQTT.fx's settings (guide: "Testing certificates with MQTT.fx client"): which password goes where."""
        here = "in this workspace, the workspace's passphrase"
        key = "here the same once more; a JKS that keytool converted keeps the PKCS12's. The guide's step 18 names "
        key += "the password of deviceKey.pem: that one opens the PEM file, and MQTT.fx never sees it"
        pkcs12 = "a .pkcs12 does as well from Java 8u301 and 11.0.12 on: "
        pkcs12 += "an older one calls its right password incorrect"
        return [
            ("Broker Address", self.mqtt[0], ""),
            ("Broker Port", str(self.mqtt[1]), ""),
            ("Client ID", self.client_id, "the common name of the device certificate"),
            ("Enable SSL/TLS", "on, protocol TLSv1.2", ""),
            ("Method", "Self signed certificates in keystores", ""),
            ("Keystore File", str(self.folder / "deviceTruststore.jks"), "the field's name misleads: the truststore"),
            ("Trusted Keystore Alias", TRUST_ALIAS, ""),
            ("Trusted Keystore Password", "the truststore's", here),
            ("Client Keystore", str(self.folder / "deviceKeystore.jks"), pkcs12),
            ("Client Keystore Password", "the keystore's", here),
            ("Client KeyPair Alias", KEY_ALIAS, ""),
            ("Client KeyPair Password", "that of the key in the keystore", key),
            ("PEM Formatted", "on", ""),
        ]

    @property
    def mqttx(self) -> list[Setting]:
        """The settings of MQTTX, and in the last lines those of MQTT Explorer where they have other names."""
        return [
            ("Host", f"mqtts://{self.mqtt[0]}", ""),
            ("Port", str(self.mqtt[1]), ""),
            ("Client ID", self.client_id, "without a timestamp behind it"),
            ("MQTT Version", "3.1.1", "the platform speaks no MQTT 5"),
            ("SSL/TLS, SSL Secure", "both on", "the second one checks the server's certificate"),
            ("Certificate", "CA or Self signed certificates", ""),
            ("CA File", str(self.trusted or "(leave it empty)"), ""),
            ("Client Certificate File", str(self.chain), "the whole chain, not deviceCert.pem"),
            ("Client key file", str(self._unencrypted_key), "the open copy of deviceKey.pem"),
            ("In MQTT Explorer", "Validate certificate and Encryption on", "the rest under Advanced, Certificates"),
            ("", "Server Certificate (CA), Client Certificate, Client Key", "for the three files, in this order"),
        ]

    @property
    def open_key(self) -> str:
        """The command that copies the device's key without its passphrase, for clients that can't ask for it.

        It asks for the passphrase, and OpenSSL makes the new file readable by its owner only.
        """
        return shlex.join(["openssl", "pkey", "-in", str(self.key), "-out", str(self._unencrypted_key)])

    @property
    def mosquitto_pub(self) -> str:
        """The command with which ``mosquitto_pub`` sends a measurement; it asks for the key's passphrase itself."""
        address = ["-h", self.mqtt[0], "-p", str(self.mqtt[1]), "-i", self.client_id]
        trust = ["--cafile", str(self.trusted)] if self.trusted else ["--tls-use-os-certs"]
        files = [*trust, "--cert", str(self.chain), "--key", str(self.key)]
        return shlex.join(["mosquitto_pub", *address, *files, "-q", "1", "-t", PUBLISH_TOPIC, "-m", _MESSAGE])

    @property
    def paho(self) -> str:
        """A Python program that sends a measurement with paho-mqtt alone; it asks for the key's passphrase."""
        return f"""\
from getpass import getpass

import paho.mqtt.client as mqtt

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id={self.client_id!r})
client.tls_set(
    ca_certs={str(self.trusted) if self.trusted else None!r},
    certfile={str(self.chain)!r},
    keyfile={str(self.key)!r},
    keyfile_password=getpass("Passphrase of deviceKey.pem: "),
)
client.on_connect = lambda client, userdata, flags, reason, properties: print("CONNACK:", reason)
client.connect({self.mqtt[0]!r}, {self.mqtt[1]})
client.loop_start()
sent = client.publish({PUBLISH_TOPIC!r}, {_MESSAGE!r}, qos=1)
sent.wait_for_publish(10)
print("acknowledged" if sent.is_published() else "not acknowledged")
client.disconnect()
"""
