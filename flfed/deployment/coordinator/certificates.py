"""Keys and certificates of the coordinator.

They are its certificate authority, the server's certificate, and the signing key. Sites trust `ca.crt`. Of a stolen
key there is no way back: another coordinator is initialised, which invites all sites again.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flfed.callbacks import now_utc
from flfed.errors import UsageError
from flfed.files import locked, note, read_private, write_whole
from flfed.parsers import parse_toml
from flfed.paths import CoordinatorFolder
from flfed.signatures import private_text, signing_key_of, signing_public
from flfed.words import flfed_error, usage_error

FORMAT = 1
AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
"""Most that public authorities grant."""
RENEWED_DAYS = 30
"""A serving process renews the server's certificate where fewer days are left."""
EARLIER = timedelta(hours=1)
"""Certificates are valid from an hour before they are made: clocks differ."""
ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[1-9][0-9]{0,4})")
LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


def host_and_port(address: str) -> tuple[str, int]:
    """Return the host and port of "host:port".

    An IPv6 address is returned without its brackets.

    Examples
    --------
    >>> host_and_port("fl.example.org:443"), host_and_port("[::1]:8443")
    (('fl.example.org', 443), ('::1', 8443))
    """
    try:
        match = ADDRESS.fullmatch(address)
        if match is None or int(match["port"]) > 65535:
            raise ValueError
        host = match["host"].strip("[]")
        # A name that ends in a number is a mistyped IPv4 address.
        if ":" in host or host.rpartition(".")[2].isdigit():
            ipaddress.ip_address(host)
        elif not all(LABEL.fullmatch(label) for label in host.split(".")):
            raise ValueError
        return host, int(match["port"])
    except ValueError:
        raise usage_error("coordinator.certificates.address", address=address[:100]) from None


@dataclass(frozen=True)
class Settings:
    """Settings of a coordinator, as given to `init`.

    They are a title that people read, and the public address "host:port".
    """

    title: str
    address: str

    def __post_init__(self) -> None:
        """Refuse a title or an address that is none."""
        if not 1 <= len(self.title.strip()) <= 100 or not self.title.isprintable():
            raise usage_error("coordinator.certificates.title", title=self.title[:120])
        host_and_port(self.address)

    @property
    def host(self) -> str:
        """The public host, a name or an IP address."""
        return host_and_port(self.address)[0]

    @property
    def port(self) -> int:
        """The public port."""
        return host_and_port(self.address)[1]


def settings(folder: CoordinatorFolder) -> Settings:
    """Return the settings of a coordinator that was initialised."""
    try:
        content = parse_toml(folder.settings.read_bytes(), str(folder.settings))
        return Settings(str(content["title"]), str(content["address"]))
    except FileNotFoundError:
        raise usage_error("coordinator.certificates.absent", folder=folder.root) from None
    except (OSError, UsageError, KeyError):
        raise flfed_error("coordinator.certificates.settings", file=folder.settings) from None


def initialise(folder: CoordinatorFolder, coordinator_settings: Settings, *, now: datetime | None = None) -> None:
    """Create a coordinator's authority, certificate, signing key and settings.

    Raises
    ------
    UsageError
        If any of these files exists: keys are never overwritten.
    """
    now = now or now_utc()
    # Any single key is enough to refuse: sites may trust it already.
    if folder.settings.exists() or any(folder.keys.glob("*")):
        raise usage_error("coordinator.certificates.present", folder=folder.root)
    folder.make()
    # The folder's mode is checked before the first private key is written into it.
    if folder.root.stat().st_mode & 0o077:
        raise usage_error("coordinator.certificates.open", folder=folder.root)
    key, certificate = new_authority(coordinator_settings.title, now)
    write_whole(folder.keys / "ca.key", _pem(key))
    write_whole(folder.keys / "ca.crt", certificate_text(certificate))
    _write_server(folder, coordinator_settings.host, key, certificate, now)
    signer = Ed25519PrivateKey.generate()
    write_whole(folder.keys / "signing.pub", (signing_public(signer) + "\n").encode())
    write_whole(folder.keys / "signing.key", private_text(signer))
    # Last: a folder with settings is complete.
    made = now.isoformat(timespec="seconds")
    facts = {"format": FORMAT, **asdict(coordinator_settings), "made": made}
    write_whole(folder.settings, tomli_w.dumps(facts).encode())
    note(folder.log, now, "initialised", **asdict(coordinator_settings))


def new_authority(title: str, now: datetime) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
    """Return a new authority's key and self-signed certificate.

    It may issue certificates of servers, and none of further authorities.
    """
    key = generate_private_key(SECP384R1())
    # Two authorities of one coordinator must not bear one name: a chain is looked up by name.
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, title[:64])
    name = x509.Name([organisation, _common_name(f"flfed authority {secrets.token_hex(4)}")])
    built = (
        _certificate(name, name, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return key, built.sign(key, hashes.SHA384())


def _write_server(
    folder: CoordinatorFolder, host: str, key: EllipticCurvePrivateKey, authority: x509.Certificate, now: datetime
) -> None:
    """Issue the server's key and certificate.

    They are valid for the public host and for this machine, since the proxy reaches the server by loopback.
    """
    own = generate_private_key(SECP256R1())
    # A dict keeps the order and drops a host that is one of this machine's names.
    names = dict.fromkeys([host, "localhost", "127.0.0.1", "::1"])
    subject = x509.Name([_common_name(host[:64])])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    built = (
        _certificate(subject, authority.subject, own.public_key(), now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
    )
    write_whole(folder.keys / "server.key", _pem(own))
    write_whole(folder.keys / "server.crt", certificate_text(built.sign(key, hashes.SHA384())))


def _common_name(text: str) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.COMMON_NAME, text)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.lower())


def new_loopback(now: datetime) -> tuple[bytes, bytes]:
    """Return the key and the certificate of the loopback, which signs itself.

    They are valid from a day before, should this machine's clock be set back.
    """
    key = generate_private_key(SECP256R1())
    name = x509.Name([_common_name("flfed coordinator, loopback")])
    names = x509.SubjectAlternativeName([_alternative("localhost"), _alternative("127.0.0.1")])
    built = _certificate(name, name, key.public_key(), now, AUTHORITY_DAYS, timedelta(days=1))
    return _pem(key), certificate_text(built.add_extension(names, critical=False).sign(key, hashes.SHA256()))


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: EllipticCurvePublicKey,
    now: datetime,
    days: int,
    earlier: timedelta = EARLIER,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
        .not_valid_before(now - earlier)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def _usage(*usages: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in usages for name in _USAGES})


def certificates(text: bytes) -> list[x509.Certificate]:
    """Return the certificates of a PEM text.

    The list is empty where the text is not PEM.
    """
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError:
        return []


def certificate_text(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def trusted(folder: CoordinatorFolder) -> bytes:
    """Return the authority's certificate, which sites shall trust, as PEM."""
    return read_private(folder.keys / "ca.crt")


def days_left(certificate: x509.Certificate, now: datetime) -> int:
    """Return the whole days until a certificate expires; negative when it has expired."""
    return (certificate.not_valid_after_utc - now).days


def server_days_left(folder: CoordinatorFolder, *, now: datetime | None = None) -> int:
    """Return the whole days until the server's certificate expires.

    The number is negative when it has expired.
    """
    chain = certificates(read_private(folder.keys / "server.crt"))
    if not chain:
        raise flfed_error("coordinator.certificates.server", file=folder.keys / "server.crt")
    return days_left(chain[0], now or now_utc())


def signing_key(folder: CoordinatorFolder) -> Ed25519PrivateKey:
    """Return the key that signs models."""
    file = folder.keys / "signing.key"
    key = signing_key_of(read_private(file))
    if key is None:
        raise flfed_error("coordinator.files.damaged", file=file)
    return key


def renew_server(folder: CoordinatorFolder, *, now: datetime | None = None) -> None:
    """Renew the server's key and certificate.

    The authority is unchanged, so that no site needs to know.
    """
    now = now or now_utc()
    host = settings(folder).host
    with locked(folder.keys):
        key, certificate = key_pair(folder, "ca.key")
        _write_server(folder, host, key, certificate, now)
    note(folder.log, now, "server certificate renewed")


def key_pair(
    folder: CoordinatorFolder, name: str, among: str = "ca.crt"
) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
    """Return a private key and its certificate.

    The certificate is in a file, by default the trusted one.

    Raises
    ------
    FlfedError
        If one is absent or damaged, or the two do not belong together.
    """
    file = folder.keys / name
    trusted_file = folder.keys / among
    try:
        key = serialization.load_pem_private_key(read_private(file), None)
    except (ValueError, TypeError):
        raise flfed_error("coordinator.files.damaged", file=file) from None
    # A certificate belongs to the key whose public half it has.
    own = [c for c in certificates(read_private(trusted_file)) if c.public_key() == key.public_key()]
    if not own or not isinstance(key, EllipticCurvePrivateKey):
        raise flfed_error("coordinator.certificates.unpaired", trusted=trusted_file, key=file.name)
    return key, own[0]


def _pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
