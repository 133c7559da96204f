"""What to type into an MQTT client of one's own, filled in with the learner's values."""

from pathlib import Path

from mciot_nb.connect.tenant import Tenant
from mciot_nb.pki.chain import read_certificates
from mciot_nb.pki.keystore import KEY_ALIAS, TRUST_ALIAS
from mciot_nb.pki.names import common_name

#: Name, value, and what it means (may be empty).
Setting = tuple[str, str, str]


def mqttfx_settings(tenant: Tenant, device_folder: Path) -> list[Setting]:
    """Give MQTT.fx's settings for the device in ``device_folder`` (guide: "Testing certificates with MQTT.fx client").

    No password stands in them, only which one goes where. Raises OnboardingError where the device has no certificate.
    """
    certificate = read_certificates(device_folder / "deviceCertChain.pem")[0]
    host, port = tenant.mqtt
    store_password = "the passphrase of this workspace (the practice one is in workspace/passphrase)"
    return [
        ("Broker address", host, ""),
        ("Broker port", str(port), ""),
        ("Client ID", common_name(certificate.subject) or "", "the common name of the device certificate"),
        ("Enable SSL/TLS", "on, protocol TLSv1.2", ""),
        ("Method", "Self signed certificates in keystores", ""),
        ("Keystore File", str(device_folder / "deviceTruststore.pkcs12"), "the field's name misleads: the truststore"),
        ("Trusted Keystore Alias", TRUST_ALIAS, ""),
        ("Trusted Keystore Password", store_password, ""),
        ("Client Keystore", str(device_folder / "deviceKeystore.pkcs12"), ""),
        ("Client Keystore Password", store_password, ""),
        ("Client KeyPair Alias", KEY_ALIAS, ""),
        (
            "Client KeyPair Password",
            "the Client Keystore Password once more",
            "the guide names the password of deviceKey.pem here, which opens the PEM file only",
        ),
        ("PEM Formatted", "on", ""),
    ]
