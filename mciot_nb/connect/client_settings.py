"""What to type into an MQTT client of one's own, filled in with the learner's values, and never a password.

The fields' names are the clients' own: MQTT.fx 1.7 (the guide's), MQTTX 1.11, MQTT Explorer 0.4.
They are in ``data/client_settings.csv``, where a word in braces is replaced by the learner's value.
"""

import shlex
from pathlib import Path

from mciot_nb.connect.mqtt import PUBLISH_TOPIC
from mciot_nb.connect.tenant import Tenant
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.files import DATA, data_table
from mciot_nb.pki.keystore import KEY_ALIAS, TRUST_ALIAS
from mciot_nb.pki.names import common_name, name_of

_MESSAGE = "200,c8y_Temperature,T,21.5,C"


class ClientSettings:
    """The settings of other MQTT clients for the device whose files are in ``device_folder``.

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
        self.unencrypted_key = device_folder / "deviceKeyOpen.pem"
        self.client_id = common_name(name_of(read_certificates(self.chain)[0])) or ""

    def _settings(self, client: str) -> list[tuple[str, str, str]]:
        (host, port), trusted = self.mqtt, self.trusted or "(leave it empty)"
        values = vars(self) | {"host": host, "port": port, "trusted": trusted}
        values |= {"keystore": self.folder / "deviceKeystore.jks", "key_alias": KEY_ALIAS}
        values |= {"truststore": self.folder / "deviceTruststore.jks", "trust_alias": TRUST_ALIAS}
        rows = [row for row in data_table("client_settings.csv") if row["client"] == client]
        return [(row["setting"], row["value"].format_map(values), row["meaning"]) for row in rows]

    @property
    def mqtt(self) -> tuple[str, int]:
        """The server's host and port as they are now. Raises: OnboardingError: if the local platform is not running."""
        return self.tenant.now.mqtt

    @property
    def mqttfx(self) -> list[tuple[str, str, str]]:
        """MQTT.fx's settings (guide: "Testing certificates with MQTT.fx client"): which password goes where."""
        return self._settings("MQTT.fx")

    @property
    def mqttx(self) -> list[tuple[str, str, str]]:
        """The settings of MQTTX, and in the last lines those of MQTT Explorer where they have other names."""
        return self._settings("MQTTX")

    @property
    def open_key(self) -> str:
        """The command that copies the device's key without its passphrase, for clients that can't ask for it.

        It asks for the passphrase, and OpenSSL makes the new file readable by its owner only.
        """
        return shlex.join(["openssl", "pkey", "-in", str(self.key), "-out", str(self.unencrypted_key)])

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
        (host, port), trusted = self.mqtt, self.trusted and str(self.trusted)
        values = {"host": host, "port": port, "client_id": self.client_id, "topic": PUBLISH_TOPIC, "message": _MESSAGE}
        values |= {"chain": str(self.chain), "key": str(self.key), "trusted": trusted}
        return (DATA / "paho_client.txt").read_text(encoding="utf-8").format_map(values)
