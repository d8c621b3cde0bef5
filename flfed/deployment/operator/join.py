"""Joining of a site, and its kit.

It reads the kit, makes its own key, and writes what the coordinator admits it by. A kit may be anybody's: two named
members are read and nothing else, and nothing of it is written to disk before it is checked.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import secrets
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w
from cryptography import x509

import flfed
from flfed import signatures
from flfed.callbacks import now_utc
from flfed.deployment.coordinator.certificates import certificate_text, certificates
from flfed.deployment.coordinator.kits import (
    FORMAT,
    MEMBERS,
    Kit,
    check_folder,
    flwr_version,
    kit_of,
    moment,
)
from flfed.deployment.site_state.trusted_files import is_elsewhere, make_signing_key
from flfed.errors import FlfedError, UsageError
from flfed.files import SHARED, locked, note, read_up_to, write_whole
from flfed.parsers import parse_toml
from flfed.paths import SiteFolder, home, private_folder
from flfed.registry import kebab_keys
from flfed.updates.messages.kinds import PROTOCOL
from flfed.words import flfed_error, usage_error


@dataclass(frozen=True)
class Joined:
    """What joining did.

    Parameters
    ----------
    site, coordinator, address : str
    admission : Path
        The file to send to the coordinator.
    key : str
        The node key's fingerprint, which `admit` shows too.
    gate_key : str
        The fingerprint of the gate's key; empty where the gate is in another user's folder.
    kit_sha256 : str
        The kit's SHA-256, which `invite` shows too.
    expires : str
        Until when the coordinator admits it.
    """

    site: str
    coordinator: str
    address: str
    admission: Path
    key: str
    kit_sha256: str
    expires: str
    gate_key: str


def log_file() -> Path:
    """Return the log of joining at this machine.

    It has what was joined and refused, for all sites.
    """
    folder = home() / "sites"
    private_folder(folder)
    return folder / "joining.jsonl"


def joined(folder: SiteFolder) -> dict[str, Any]:
    """Return the site's knowledge of its coordinator.

    It is what `join.toml` has.

    Raises
    ------
    UsageError
        If the site has not joined.
    """
    try:
        return parse_toml(folder.join.read_bytes(), str(folder.join))
    except FileNotFoundError:
        raise usage_error("join.site.unjoined", site=folder.site) from None
    except (OSError, UsageError):
        raise flfed_error("join.site.unread", file=folder.join) from None


def join(
    file: Path,
    *,
    to: Path,
    agrees: Callable[[str], bool] | None = None,
    replaces: Callable[[Read, str], bool] | None = None,
    now: datetime | None = None,
) -> Joined:
    """Join with a kit.

    Make the site's key, and its gate's where there is none; keep what the kit says, and write SITE.admission.

    Parameters
    ----------
    file : Path
        The kit.
    to : Path
        The folder of SITE.admission.
    agrees : callable, optional
        Returns whether a person agrees to join as the kit's site.
    replaces : callable, optional
        Returns whether a person agrees that the kit takes the place of the one that the site joined with, of this
        coordinator. The site then makes another key and must be admitted again; its ledger and its approvals stay.
    now : datetime, optional

    Raises
    ------
    UsageError
        If the kit is refused; why is in the log too.
    """
    now = now or now_utc()
    try:
        read = read_kit(file, now=now)
        if agrees is not None and not agrees(read.kit.site):
            raise usage_error("join.site.stranger", site=read.kit.site)
        folder = SiteFolder(read.kit.site)
        folder.make()
        if folder.network.stat().st_mode & 0o077:
            raise usage_error("join.site.open", folder=folder.network)
        before = _membership(folder, read)
        if before and (replaces is None or not replaces(read, before["coordinator"])):
            raise usage_error("join.site.present", **before, kit=file)
        # Under the lock, so that two commands cannot make two keys for one site.
        with locked(folder.network):
            if (meanwhile := _membership(folder, read)) != before:
                raise usage_error("join.site.present", **meanwhile, kit=file)
            membership = _written(folder, read, to, now)
    except FlfedError as error:
        # What was refused is logged as well: somebody may have sent a false kit.
        note(log_file(), now, "kit refused", file=file.name[:100], reason=str(error))
        raise
    facts = {"site": membership.site, "coordinator": membership.coordinator, "kit": membership.kit_sha256}
    note(log_file(), now, "joined", **facts, key=membership.key)
    return membership


def _membership(folder: SiteFolder, read: Read) -> dict[str, Any]:
    """Return what a site has of its coordinator, empty before it joined; refuse the kit that it joined with."""
    if not folder.join.exists():
        return {}
    facts = joined(folder)
    # A code is for one key: used twice, it would belong to the first one.
    if facts["invitation-sha256"] == read.kit.invitation_sha256:
        raise usage_error("join.site.used", **facts, admission=folder.admission)
    return facts


def _written(folder: SiteFolder, read: Read, to: Path, now: datetime) -> Joined:
    """Write all files of joining.

    `join.toml`, by which a site has joined, comes after everything it needs.
    """
    kit = read.kit
    key = signatures.new_node_key()
    gate_key = "" if is_elsewhere(folder) else make_signing_key(folder)[0]
    public = signatures.public_text(key.public_key())
    facts = {"format": FORMAT, "protocol": PROTOCOL, "site": kit.site, "public-key": public}
    facts["invitation"] = kit.invitation
    facts["flfed"] = flfed.__version__
    if gate_key:
        facts["gate-key"] = gate_key
    admission = signatures.canonical({**facts, "signature": signatures.sign_as_node(facts, key)}) + b"\n"
    # Checked before the key is written, so that a failed try leaves nothing behind. A site that joins anew replaces the
    # admission of its earlier key.
    out = to / folder.admission.name
    if out.exists() and not folder.join.exists():
        raise usage_error("join.site.out", file=out)
    check_folder(to)
    write_whole(folder.node_key, signatures.private_text(key))
    write_whole(folder.admission, admission)
    if not folder.secret.exists():
        write_whole(folder.secret, secrets.token_hex(32).encode(), mode=SHARED)
    print_of_key = signatures.fingerprint(public)
    own = {
        "site": kit.site,
        "expires": kit.expires,
        "joined": now.isoformat(timespec="seconds"),
        "invitation-sha256": kit.invitation_sha256,
        "node-key": print_of_key,
    }
    # The terms that the gate reads are for both users.
    for_gate = {
        "format": FORMAT,
        "site": folder.site,
        "coordinator": kit.terms.coordinator,
        "signing-key": kit.terms.signing_key,
    }
    write_whole(folder.terms, tomli_w.dumps(for_gate).encode(), mode=SHARED)
    write_whole(folder.authority, read.ca)
    facts = {"format": FORMAT, **kebab_keys(asdict(kit.terms)), **own}
    write_whole(folder.join, tomli_w.dumps(facts).encode())
    write_whole(out, admission)
    return Joined(
        kit.site, kit.terms.coordinator, kit.terms.address, out, print_of_key, read.sha256, kit.expires, gate_key
    )


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


def open_kit(path: Path) -> Read:
    """Return the kit in a file, which may have expired.

    Raises
    ------
    UsageError
        If it is not whole.
    """
    content = read_some(path)
    members = unpacked(content)
    try:
        facts = parse_toml(members["kit.toml"], "kit.toml")
    except UsageError:
        raise usage_error("join.kit.not-toml") from None
    kit = kit_of(facts)
    ca = members["ca.crt"]
    # The hash binds the certificates to the terms, so that neither can be exchanged alone.
    if hashlib.sha256(ca).hexdigest() != kit.terms.ca_sha256:
        raise usage_error("join.kit.other-authority")
    return Read(kit, ca, hashlib.sha256(content).hexdigest())


def read_kit(path: Path, *, now: datetime) -> Read:
    """Return the kit in a file.

    It must be whole and hold at this version of flfed and Flower.

    Raises
    ------
    UsageError
        With the first reason why it is refused.
    """
    read = open_kit(path)
    terms = read.kit.terms
    # Flower's messages differ between its minor versions; its patches do not matter.
    if terms.flwr != flwr_version():
        raise usage_error("join.kit.flower", theirs=terms.flwr, own=flwr_version(), flfed=terms.flfed)
    check_authority(read.ca, now=now)
    if now >= moment("expires", read.kit.expires):
        raise usage_error("join.kit.expired", expires=read.kit.expires)
    return read


def read_some(path: Path) -> bytes:
    """Return the content of a small plain file."""
    try:
        if not path.is_file():
            raise usage_error("join.kit.no-file", path=path)
        content = read_up_to(path, LARGEST_FILE)
    except OSError as error:
        raise usage_error("join.kit.unread", path=path, why=error.strerror) from None
    if content is None:
        raise usage_error("join.kit.large", path=path, most=LARGEST_FILE)
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
            entries = archive.infolist()
            # Only the first hundred are looked at: the number of members is checked below.
            for entry in entries[:100]:
                if defect := _refusal(entry):
                    raise usage_error("join.kit.foreign", name=entry.orig_filename[:60], defect=defect)
            names = sorted(entry.filename for entry in entries)
            if names != sorted(MEMBERS):
                problem = f"has {len(names)} members"
                if len(names) == len(MEMBERS):
                    problem = f"has {', '.join(map(repr, names))}"[:200]
                raise usage_error("join.kit.members", problem=problem, members=" and ".join(MEMBERS))
            return {entry.filename: _member(archive, entry) for entry in entries}
    except BROKEN:
        raise usage_error("join.kit.broken") from None


def _refusal(entry: zipfile.ZipInfo) -> str:
    """Return why a zip member is not allowed.

    An empty text where nothing speaks against it but its name.
    """
    # `filename` ends at a NUL and has the system's separators; `orig_filename` is what the zip says.
    name = entry.orig_filename
    mode = entry.external_attr >> 16
    largest = LARGEST_MEMBER.get(name, LARGEST_FILE)
    defects = {
        # Not `is_dir()`, which fails on an empty name.
        "is a folder": name.endswith("/") or stat.S_ISDIR(mode) or entry.external_attr & 0x10,
        "leads to another folder": name.startswith("/") or {"\\", ":"} & {*name} or ".." in name.split("/"),
        "is a link": stat.S_ISLNK(mode),
        "is not a plain file": stat.S_IFMT(mode) not in (0, stat.S_IFREG),
        "is encrypted": entry.flag_bits & ENCRYPTED,
        "is packed in a way that no kit is": entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
        "is too large": max(entry.file_size, entry.compress_size) > largest,
        "has an odd name": name != entry.filename,
    }
    return next((defect for defect, applies in defects.items() if applies), "")


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as stream:
        content = stream.read(entry.file_size + 1)
    # A member that unpacks to more than it declared was made to break its reader.
    if len(content) != entry.file_size:
        raise zipfile.BadZipFile
    return content


def check_authority(ca: bytes, *, now: datetime) -> None:
    """Refuse a certificate to trust that is no authority's, or does not hold now."""
    authorities = certificates(ca)
    # Nothing around it: what else stands in the file would be read by whoever trusts it.
    if len(authorities) != 1 or certificate_text(authorities[0]) != ca:
        raise usage_error("join.authority.number")
    (certificate,) = authorities
    if not _is_authority(certificate):
        raise usage_error("join.authority.other")
    until = certificate.not_valid_after_utc
    since = certificate.not_valid_before_utc
    if now >= until:
        raise usage_error("join.authority.expired", until=until.isoformat())
    if now < since:
        raise usage_error("join.authority.early", since=since.isoformat())


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return False
