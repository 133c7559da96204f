"""An issuer that was made for a signature: a fingerprint proves a server's certificate, and nothing behind it.

A TLS client that has the fingerprint of a server's certificate, signed by an RSA CA, and takes the certificate whose
key fits that signature for the CA's, can be deceived: for a modulus whose primes p have smooth p - 1 there is an
exponent e with signature ** e == the padded digest (Pohlig and Hellman), so anyone can make an RSA key that "has made"
a signature which they only know. What helps: the server signs its handshake with the chain in it, so only what is
shown in a finished handshake may be trusted (`ServerCertificate.issuer`).

Prints the server's certificate, its real CA's and the forged one, as tests/data/forged_issuer.pem has them. The
server's key is the P-256 key of the number 7.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

# Primes of which all factors of P - 1 and Q - 1 are small, and but for 2 no two are the same.
P = int(
    "ef59bbbfce06cf66fc43bb554a77c4c4c63ccde49573c85187192b2b7ebee0354e23f800ff3ece41f97cb2b720e4e7ddaa7b"
    "ca9b23efd0ac753b4d4caf8fc04b42a5a492019e6daadf9e20c4e92c8d04f5d3ccc05cfcf5339c96ae8e5272b389d855c19c"
    "65eba360ff71fff3756ae5986907fe9d18b31d5c6d5a42edd74ce48b",
    16,
)
Q = int(
    "e88e978a23878c354fd764bf27461eea831632008ecf0d7e2f2eeb73ca663a684554964ce6bbaa7c8995ec77620946e052b5"
    "c2a22ae1332f7e360614af00cab5f6bc918c03916654daf81a7965c027648a46d37ae836c580c20c053a69cc99e3e09852ee"
    "c6c6a076f37bef049b06f62ca8e8d6806091f0aed8f37abdc98881bb",
    16,
)


def exponent(base: int, power: int) -> int | None:
    """Find the odd e with ``base ** e == power`` modulo P * Q: Pohlig and Hellman's way, which small factors allow."""
    e, modulus = 1, 2
    for prime in (P, Q):
        if any(pow(number, (prime - 1) // 2, prime) == 1 for number in (base, power)):
            return None
        for factor in (
            f for f in range(3, 1 << 16, 2) if (prime - 1) % f == 0 and all(f % d for d in range(3, 256, 2))
        ):
            one, other = (pow(number, (prime - 1) // factor, prime) for number in (base, power))
            step, at, found = pow(one, 256, prime), 1, {}
            for high in range(257):
                found[at], at = high * 256, at * step % prime
            at = other
            for low in range(256):  # base ** (256 * high) == power * base ** low
                if at in found:
                    e += modulus * ((found[at] - low - e) * pow(modulus, -1, factor) % factor)
                    break
                at = at * one % prime
            modulus *= factor
    return e


def main() -> None:
    """Print the three certificates, valid for a hundred years."""
    ca_key, now = rsa.generate_private_key(65537, 2048), datetime(2026, 1, 1, tzinfo=UTC)
    name = x509.Name.from_rfc4514_string("CN=RSA CA")

    def certificate(subject: x509.Name, public: Any, signer: rsa.RSAPrivateKey, ca: bool) -> x509.Certificate:
        builder = x509.CertificateBuilder(name, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(now).not_valid_after(now + timedelta(36525))
        return builder.add_extension(x509.BasicConstraints(ca, None), True).sign(signer, hashes.SHA256())

    key, numbers = ec.derive_private_key(7, ec.SECP256R1()), ca_key.public_key().public_numbers()
    while True:
        leaf = certificate(x509.Name.from_rfc4514_string("CN=localhost"), key.public_key(), ca_key, False)
        signature = int.from_bytes(leaf.signature, "big")
        padded = pow(signature, numbers.e, numbers.n)
        e = exponent(signature, padded) if max(signature, padded) < P * Q else None
        if e and math.gcd(e, (P - 1) * (Q - 1)) == 1 and pow(signature, e, P * Q) == padded:
            break
    d = pow(e, -1, (P - 1) * (Q - 1))
    public = rsa.RSAPublicNumbers(e, P * Q)
    own = rsa.RSAPrivateNumbers(P, Q, d, d % (P - 1), d % (Q - 1), pow(Q, -1, P), public).private_key()
    forged, real = certificate(name, own.public_key(), own, True), certificate(name, ca_key.public_key(), ca_key, True)
    leaf.verify_directly_issued_by(forged)
    for one in (leaf, real, forged):
        print(one.public_bytes(Encoding.PEM).decode(), end="")


if __name__ == "__main__":
    main()
