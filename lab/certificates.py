"""Issues what a first trial of the API over the network needs: certificates for one server and one client.

python -m lab.certificates DIRECTORY NAME...

NAME is an address or host name by which clients call the server. DIRECTORY, which must not be there yet, gets

server/  ca.pem cert.pem key.pem, for docker_daemon_tls
client/  ca.pem cert.pem key.pem, for DOCKER_CERT_PATH

It is no substitute for an authority of yours. The key of the one that signs both is thrown away at once, so
nobody, you included, can issue another certificate that the server would take; nothing can be revoked;
and all of it ends after a month. For hosts that matter use what you have for certificates elsewhere.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
import pathlib

# It comes with ansible-core.
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

DAYS = 30


class Authority:
    """An authority that lives as long as this program does."""

    def __init__(self, days: int) -> None:
        # Clocks of others may be a little behind.
        self._begin = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=5)
        self._end = self._begin + datetime.timedelta(days=days)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("Bulkhead trial authority")
        builder = (
            self._begun(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
        )
        self.certificate = builder.sign(self._key, hashes.SHA256())

    def _begun(self, name: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._begin)
            .not_valid_after(self._end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )

    def issue(self, directory: pathlib.Path, purpose: ObjectIdentifier, names: list[str]) -> None:
        """Write certificate, key and authority of one side into a directory that it makes."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._begun(_named(directory.name), key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if names:
            others = x509.SubjectAlternativeName([_alternative(name) for name in names])
            builder = builder.add_extension(others, critical=False)
        issued = builder.sign(self._key, hashes.SHA256())
        directory.mkdir(mode=0o700)
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(directory / "ca.pem", self.certificate.public_bytes(pem), 0o444)
        _write(directory / "cert.pem", issued.public_bytes(pem), 0o444)
        _write(directory / "key.pem", private, 0o400)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: pathlib.Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(content)


def issue(directory: pathlib.Path, names: list[str], days: int = DAYS) -> None:
    """Issue both sides' certificates, see above.

    :raises FileExistsError: the directory is there already.
    """
    directory.mkdir(mode=0o700, parents=True)
    authority = Authority(days)
    authority.issue(directory / "server", ExtendedKeyUsageOID.SERVER_AUTH, names)
    authority.issue(directory / "client", ExtendedKeyUsageOID.CLIENT_AUTH, [])


def main() -> None:
    """Issue what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.certificates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("name", nargs="+")
    arguments = parser.parse_args()
    try:
        issue(arguments.directory, arguments.name)
    except FileExistsError:
        parser.error(
            f"{arguments.directory} is there already; name another directory, or remove it"
        )
    except ValueError as exc:
        parser.error(str(exc))
    print(
        f"{arguments.directory}: certificates for {', '.join(arguments.name)}, valid for {DAYS} days"
    )


if __name__ == "__main__":
    main()
