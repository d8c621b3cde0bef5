"""Checks of the way from a site to its coordinator, step by step until the first fault.

The node's headers come last, over TLS with the coordinator alone. They go with a declared length that the server
refuses by its headers (413), so that the key is judged, nothing reaches Flower, and nothing changes.
"""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from cryptography.x509.oid import NameOID

from flfed.deployment.coordinator.certificates import certificates, days_left, host_and_port
from flfed.deployment.doctor.machine import Finding, check_ending, finding
from flfed.deployment.flower.transport import describe_clock, seconds_ahead, time_of
from flfed.deployment.operator.outbound_proxy import PASSWORD_REFUSED, OutboundProxy
from flfed.errors import FlfedError
from flfed.files import read_private
from flfed.flower_names import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flfed.paths import SiteFolder
from flfed.words import flfed_error

SECONDS = 10.0
IGNORE_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: the end of a certificate is judged by the server's clock."""
OTHER_HOST = (62, 64)
"""OpenSSL's codes of a certificate for another name, or another address."""
ROUTE = "/v1/fleet/get-run"
MOST_BYTES = 65_536
"""Of the head of a proxy's answer."""
LEAST_SECONDS = 0.001
"""Of a wait: a socket with none does not wait at all."""
STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b")
MOST_LETTERS = 200
"""Of an issuer's name, which a stranger chose."""
DECLARED = 1_000_000
"""More bytes than this route takes (`superlink.MOST_BYTES`), and fewer than Caddy's limit."""


class Fault(Exception):
    """The step that failed, as a finding."""

    def __init__(self, fault: Finding) -> None:
        super().__init__(fault.name)
        self.finding = fault


@dataclass(frozen=True)
class Answer:
    """Answer of the server: status, its time (None without one), and its certificate."""

    status: int
    at: datetime | None
    certificate: x509.Certificate


@dataclass(frozen=True)
class Way:
    """Way from a site to the coordinator.

    Parameters
    ----------
    address : str
        "host:port".
    authority : bytes
        The certificates that the site trusts, PEM.
    proxy : OutboundProxy, optional
        Through which the site's node connects.
    admission : Path
        The file by which the coordinator admits the site.
    expires : str
        Until when it does.
    """

    address: str
    authority: bytes
    proxy: OutboundProxy | None
    admission: Path
    expires: str

    def examine(self, key: EllipticCurvePrivateKey, now: datetime) -> Iterator[Finding]:
        """Yield findings, up to the first fault that hides the rest.

        Parameters
        ----------
        key : private key
            The node's.
        now : datetime
            By this machine's clock.
        """
        try:
            answer = self._request("GET", "/", {})
            at = answer.at or now
            if ahead := seconds_ahead(at, now):
                yield finding("clock", problem=describe_clock(ahead))
            yield from check_ending("server-ending", days_left(answer.certificate, at))
            for authority in certificates(self.authority):
                yield from check_ending("authority-ending", days_left(authority, at))
            # Signed with the server's time, so that a wrong clock is one finding and not two.
            status = self._request("POST", ROUTE, _signed(key, at)).status
            if status == http.HTTPStatus.UNAUTHORIZED:
                yield finding("key", **vars(self))
            elif status != http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                yield finding("server", address=self.address, status=status)
        except Fault as fault:
            yield fault.finding

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        host, port = host_and_port(self.address)
        with self._handshake(host) as wrapped:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = wrapped
            try:
                connection.putrequest(method, path)
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.endheaders()
                reply = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise Fault(finding("silent", address=self.address, why=type(error).__name__)) from None
            shown = wrapped.getpeercert(binary_form=True) or b""
            return Answer(reply.status, time_of(reply.getheader("Date", "")), x509.load_der_x509_certificate(shown))

    def _connect(self) -> socket.socket:
        """Return a connection with the coordinator, through the proxy where there is one."""
        if self.proxy is None:
            return _open(self.address)
        with ExitStack() as opened:
            try:
                bare = opened.enter_context(socket.create_connection(host_and_port(self.proxy.address), SECONDS))
                status = _tunnel(bare, self.address, self.proxy)
            except (OSError, http.client.HTTPException) as error:
                raise Fault(finding("proxy-silent", proxy=self.proxy.url, why=_reason(error))) from None
            if not 200 <= status < 300:
                name = "proxy-password" if status in PASSWORD_REFUSED else "proxy-closed"
                raise Fault(finding(name, proxy=self.proxy.url, address=self.address, status=status))
            opened.pop_all()
        return bare

    def _handshake(self, host: str) -> ssl.SSLSocket:
        """Return a TLS connection with the coordinator."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.authority.decode("ascii", "ignore"))
        context.verify_flags |= ssl.VerifyFlags(IGNORE_TIME)
        bare = self._connect()
        try:
            return context.wrap_socket(bare, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise Fault(self._stranger(host, error.verify_code)) from None
        except OSError as error:
            raise Fault(finding("silent", address=self.address, why=type(error).__name__)) from None
        finally:
            bare.close()  # without effect where TLS has taken the socket over

    def _stranger(self, host: str, code: int) -> Finding:
        """Return the finding about a certificate that the site does not trust."""
        # Nothing is sent over this connection: it is for the certificate alone.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with self._connect() as bare, context.wrap_socket(bare, server_hostname=host) as wrapped:
                shown = x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True) or b"")
            issuer = shown.issuer.rfc4514_string()
        except (OSError, ValueError) as error:
            return finding("silent", address=self.address, why=type(error).__name__)
        # A stranger wrote it: it must not begin a line of its own, or command the terminal.
        issuer = "".join(filter(str.isprintable, issuer[:MOST_LETTERS]))
        if code in OTHER_HOST:
            return finding("host", host=host)
        names = [str(name.value) for name in shown.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)]
        # Authorities that flfed makes are named so; a proxy signs with one of its own.
        if any(name.startswith("flfed authority ") for name in names):
            return finding("authority", issuer=issuer)
        return finding("opened", issuer=issuer)


def _open(address: str) -> socket.socket:
    host, port = host_and_port(address)
    try:
        return socket.create_connection((host, port), SECONDS)
    except socket.gaierror:
        raise Fault(finding("name", host=host)) from None
    except OSError as error:
        raise Fault(finding("port", host=host, port=port, why=_reason(error))) from None


def _reason(error: Exception) -> str:
    """Return the system's words for an error, or its type's name; nothing that the other end sent."""
    return getattr(error, "strerror", None) or type(error).__name__


def _tunnel(bare: socket.socket, address: str, proxy: OutboundProxy) -> int:
    """Ask a proxy for a tunnel to an address, and return its status."""
    lines = [f"CONNECT {address} HTTP/1.1", f"Host: {address}"]
    if proxy.user:
        credentials = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    bare.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    until = time.monotonic() + SECONDS
    # Nothing follows the head of a tunnel until the client begins TLS.
    while b"\r\n\r\n" not in head:
        # For the whole head: a byte now and then must not prolong it.
        bare.settimeout(max(until - time.monotonic(), LEAST_SECONDS))
        piece = bare.recv(MOST_BYTES)
        head += piece
        if not piece or len(head) > MOST_BYTES:
            raise http.client.BadStatusLine("")
    bare.settimeout(SECONDS)
    status = STATUS.match(head)
    if status is None:
        raise http.client.BadStatusLine("")
    return int(status[1])


def _signed(key: EllipticCurvePrivateKey, at: datetime) -> dict[str, str]:
    """Return the headers by which a node proves its identity."""
    moment = at.isoformat()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        PUBLIC_KEY_HEADER: base64.b64encode(public).decode("ascii"),
        TIMESTAMP_HEADER: moment,
        SIGNATURE_HEADER: base64.b64encode(key.sign(moment.encode(), ECDSA(SHA256()))).decode("ascii"),
        "Content-Type": "application/protobuf",
        "Content-Length": str(DECLARED),
    }


def unread(file: Path) -> FlfedError:
    """Return the error about a file of joining that cannot be read."""
    return flfed_error("join.site.unread", file=file)


def read_authority(folder: SiteFolder) -> bytes:
    """Return the certificates that a site trusts, PEM."""
    text = b""
    with suppress(OSError):
        text = folder.authority.read_bytes()
    if not certificates(text):
        raise unread(folder.authority)
    return text


def read_key(folder: SiteFolder) -> EllipticCurvePrivateKey:
    """Return the key of a site's node."""
    key = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_ssh_private_key(read_private(folder.node_key), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise unread(folder.node_key)
    return key
