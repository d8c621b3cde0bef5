"""Reader of kits.

A kit may be anybody's: two named members are read and nothing else, and nothing is written to disk.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from flfed.deployment.coordinator.certificates import certificate_text, certificates
from flfed.deployment.coordinator.kits import MEMBERS, Kit, Terms, flwr_version, kit_of, moment
from flfed.errors import UsageError
from flfed.parsers import parse_toml

LARGEST_FILE = 65_536
"""Bytes of a kit; a real one has about 2,000."""
LARGEST_MEMBER = {"kit.toml": 16_384, "ca.crt": 16_384}
ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flags of a member whose content, or whose name, is encrypted."""
BROKEN = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, OverflowError,
    struct.error, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What Python's zip reader raises over a file that was made to break it."""


@dataclass(frozen=True)
class Read:
    """A kit as read.

    It has what the kit says, the certificates that came with it (PEM), and the file's SHA-256.
    """

    kit: Kit
    ca: bytes
    sha256: str


def read_kit(path: Path, *, now: datetime) -> Read:
    """Return the kit in a file.

    It must be whole and hold at this version of flfed and Flower.

    Raises
    ------
    UsageError
        With the first reason why it is refused.
    """
    content = read_some(path)
    members = unpacked(content)
    try:
        facts = parse_toml(members["kit.toml"], "kit.toml")
    except UsageError:
        raise UsageError("kit: kit.toml is not TOML; ask the coordinator for another kit") from None
    kit, ca = kit_of(facts), members["ca.crt"]
    # The hash binds the certificates to the terms, so that neither can be exchanged alone.
    if hashlib.sha256(ca).hexdigest() != kit.terms.ca_sha256:
        raise UsageError("kit: its ca.crt is not the one that kit.toml names; ask the coordinator for another kit")
    check_authority(ca, now=now)
    if now >= moment("expires", kit.expires):
        raise UsageError(f"kit: it expired on {kit.expires}; ask the coordinator for another kit")
    return Read(kit, ca, hashlib.sha256(content).hexdigest())


def read_some(path: Path) -> bytes:
    """Return the content of a small plain file."""
    try:
        if not path.is_file():
            raise UsageError(f"{path}: is not a file; give the kit or the renewal that the coordinator sent")
        # One byte more than allowed is enough to see that it is too large.
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > LARGEST_FILE:
        raise UsageError(f"{path}: has more than {LARGEST_FILE} bytes, which no kit has; ask the coordinator for it")
    return content


def unpacked(content: bytes) -> Mapping[str, bytes]:
    """Return the two members of a kit, by name.

    They are read from the bytes of its zip.

    Raises
    ------
    UsageError
        If it has other members, or one that is no plain file, is encrypted, too large or damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = archive.infolist()
            _check_members(found)
            return {entry.filename: _member(archive, entry) for entry in found}
    except BROKEN:
        raise UsageError("kit: it is not a zip, or a damaged one; ask the coordinator for another kit") from None


def _check_members(found: list[zipfile.ZipInfo]) -> None:
    # Only the first hundred are looked at: the number of members is checked below.
    for entry in found[:100]:
        reason = _refusal(entry)
        if reason:
            raise UsageError(f"kit: {entry.orig_filename[:60]!r} {reason}; it is not from flfed, do not use it")
    names = sorted(entry.filename for entry in found)
    if names != sorted(MEMBERS):
        said = f"has {len(names)} members" if len(names) != len(MEMBERS) else f"has {', '.join(map(repr, names))}"
        raise UsageError(
            f"kit: {said[:200]}, and must have exactly {' and '.join(MEMBERS)}; it is not from flfed, do not use it"
        )


def _refusal(entry: zipfile.ZipInfo) -> str:
    """Return why a zip member is not allowed.

    An empty text where nothing speaks against it but its name.
    """
    # `filename` ends at a NUL and has the system's separators; `orig_filename` is what the zip says.
    name, mode = entry.orig_filename, entry.external_attr >> 16
    # Not `is_dir()`, which fails on an empty name.
    if name.endswith("/") or stat.S_ISDIR(mode) or entry.external_attr & 0x10:
        return "is a folder"
    if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
        return "leads to another folder"
    if stat.S_ISLNK(mode):
        return "is a link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is not a plain file"
    if entry.flag_bits & ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in a way that no kit is"
    if max(entry.file_size, entry.compress_size) > LARGEST_MEMBER.get(name, LARGEST_FILE):
        return "is too large"
    return "" if name == entry.filename else "has an odd name"


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as stream:
        content = stream.read(entry.file_size + 1)
    # A member that unpacks to more than it declared was made to break its reader.
    if len(content) != entry.file_size:
        raise zipfile.BadZipFile
    return content


def check_authority(ca: bytes, *, now: datetime) -> None:
    """Refuse unsuitable certificates.

    Certificates to trust must be authorities, one or two, and hold now.
    """
    found = certificates(ca)
    # Nothing around them: what else stands in the file would be read by whoever trusts it.
    if not 1 <= len(found) <= 2 or b"".join(map(certificate_text, found)) != ca:
        raise UsageError(
            "ca.crt: must hold one certificate (two during a change), and nothing else; ask the coordinator for another"
        )
    for certificate in found:
        if not _is_authority(certificate):
            raise UsageError("ca.crt: holds a certificate that is no authority's; ask the coordinator for another")
        if now >= certificate.not_valid_after_utc:
            until = certificate.not_valid_after_utc.isoformat()
            raise UsageError(f"ca.crt: the authority's certificate expired on {until}; ask the coordinator for another")
        if now < certificate.not_valid_before_utc:
            since = certificate.not_valid_before_utc.isoformat()
            raise UsageError(f"ca.crt: the authority's certificate holds from {since}; is this machine's clock right?")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return False


def check_versions(terms: Terms, what: str, *, own_bundle: str, own_flfed: str) -> None:
    """Refuse terms that need another version.

    This machine's flfed or Flower could not take part under them.

    Parameters
    ----------
    terms : Terms
    what : str
        "kit" or "renewal".
    own_bundle : str
        Hash of the bundle of the flfed installed here.
    own_flfed : str
        Its version.
    """
    # Flower's messages differ between its minor versions; its patches do not matter.
    if terms.flwr != flwr_version():
        raise UsageError(
            f"{what}: the coordinator has Flower {terms.flwr}, here is {flwr_version()}, and they must be one; "
            f"install flfed=={terms.flfed} here"
        )
    if terms.bundle_sha256 != own_bundle and terms.flfed != own_flfed:
        raise UsageError(
            f"{what}: the coordinator has flfed {terms.flfed}, here is {own_flfed}; install flfed=={terms.flfed} here"
        )
    # The same version with another hash: one of the two installations is not as it was released.
    if terms.bundle_sha256 != own_bundle:
        raise UsageError(
            f"{what}: its bundle is not that of flfed {own_flfed} as installed here; "
            "one of the two installations was changed: install flfed anew at both"
        )
