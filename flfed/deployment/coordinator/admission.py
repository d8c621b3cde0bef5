"""Registry of invited, admitted and revoked sites.

Only admitted ones may connect. Each site is a JSON file in the coordinator's folder.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flfed.callbacks import now_utc
from flfed.errors import FlfedError, UsageError, nearest
from flfed.files import locked, note, write_whole
from flfed.parsers import parse_json
from flfed.paths import NAME, CoordinatorFolder
from flfed.registry import kebab_keys, snake
from flfed.signatures import fingerprint, node_public_key, node_signed, public_text, read_gate_fingerprint

FORMAT = 1
LARGEST = 16_384
"""Bytes of an admission file; a real one has about 750."""
OPTIONAL = {"gate-key": str}
"""What admissions of earlier versions lack, and those of sites whose gate is another user's."""
ADMISSION = {"format": int, "site": str, "public-key": str, "invitation": str, "flfed": str, "signature": str}


@dataclass(frozen=True)
class Admitted:
    """An admitted site and its node's public key.

    Parameters
    ----------
    site : str
    public_key_openssh : str
        EC P-384, in OpenSSH's text form, without a comment.
    node_id : int or None
        Flower's number of the node; `None` until it was registered.
    """

    site: str
    public_key_openssh: str
    node_id: int | None


@dataclass(frozen=True)
class Membership:
    """Membership of one site.

    Times are ISO 8601, empty where the event did not happen.

    `earlier_keys` are those of earlier admissions that were revoked; none of them is admitted again.

    `gate_key` is the fingerprint of the site's gate, as the site told it; other sites take it from nobody but the site.
    """

    site: str
    status: str
    invitation_sha256: str = ""
    invited: str = ""
    expires: str = ""
    admitted: str = ""
    revoked: str = ""
    public_key: str = ""
    node_id: int | None = None
    earlier_keys: tuple[dict[str, Any], ...] = field(default=())
    gate_key: str = ""

    def every_key(self) -> set[str]:
        """Return all present and earlier public keys."""
        return {self.public_key, *(str(key["public-key"]) for key in self.earlier_keys)} - {""}

    def node(self) -> Admitted:
        """Return the site's key and node."""
        return Admitted(self.site, self.public_key, self.node_id)


def members(folder: CoordinatorFolder) -> dict[str, Membership]:
    """Return every site ever invited, in name order.

    Raises
    ------
    FlfedError
        If a file is damaged: whose key it had, and whether that was revoked, nobody knows.
    """
    return {member.site: member for member in map(_read, _files(folder))}


def readable(folder: CoordinatorFolder) -> tuple[dict[str, Membership], tuple[str, ...]]:
    """Return the readable memberships, and the damaged files.

    Sites are as `members` returns them; a sentence stands for each damaged file.
    """
    memberships = {}
    damaged = []
    for file in _files(folder):
        try:
            memberships[file.stem] = _read(file)
        except FlfedError as error:
            damaged.append(str(error))
    return memberships, tuple(damaged)


def admitted(folder: CoordinatorFolder) -> dict[str, Admitted]:
    """Return the sites whose nodes may connect, by name.

    A site whose file is damaged is not among them.
    """
    return {name: member.node() for name, member in readable(folder)[0].items() if member.status == "admitted"}


def revoked(folder: CoordinatorFolder) -> tuple[Admitted, ...]:
    """Return the keys and nodes that must not connect.

    They come from the files that can be read; a name may occur several times.
    """
    revocations = []
    # Keys of earlier admissions stay cut off, also where the site was admitted again with another key.
    for member in readable(folder)[0].values():
        revocations += [Admitted(member.site, str(k["public-key"]), k["node-id"]) for k in member.earlier_keys]
        if member.status == "revoked" and member.public_key:
            revocations.append(member.node())
    return tuple(revocations)


def note_node(folder: CoordinatorFolder, site: str, node_id: int) -> None:
    """Record Flower's node number of an admitted site."""
    with locked(folder.sites):
        member = _member(folder, site)
        if member.status != "admitted":
            raise FlfedError(f"site {site!r} is not admitted, so it has no node")
        # Written only on a change: each writing makes every reader of the folder read it anew.
        if member.node_id != node_id:
            _write(folder, replace(member, node_id=node_id))


def new_invitation(folder: CoordinatorFolder, site: str, *, days: int, now: datetime | None = None) -> tuple[str, str]:
    """Invite a site and return its invitation code.

    The new invitation replaces one that was not used yet, or a revoked admission.

    Parameters
    ----------
    folder : CoordinatorFolder
    site : str
    days : int, 1 to 90
        How long the invitation holds.
    now : datetime, optional

    Returns
    -------
    code : str
        Random, 256 bits; only its SHA-256 is kept here.
    expires : str

    Raises
    ------
    UsageError
        If the name is not one, or admitted already.
    """
    now = now or now_utc()
    if not NAME.fullmatch(site):
        raise UsageError(f"site name {site!r} must be of a-z, 0-9 and single hyphens")
    if not 1 <= days <= 90:
        raise UsageError(f"days={days} must be 1 to 90: a kit lies about until it expires")
    code = secrets.token_hex(32)
    expires = (now + timedelta(days=days)).isoformat(timespec="seconds")
    # Under the lock, so that two commands cannot invite the same name with two codes.
    with locked(folder.sites):
        before = members(folder).get(site)
        if before is not None and before.status == "admitted":
            raise UsageError(
                f"site {site!r} was admitted on {before.admitted}; "
                f"to invite it anew, with another key, first: flfed coordinator revoke {site}"
            )
        earlier = () if before is None else before.earlier_keys
        if before is not None and before.public_key:
            last = {"public-key": before.public_key, "node-id": before.node_id, "revoked": before.revoked}
            earlier = (*earlier, last)
        at = now.isoformat(timespec="seconds")
        _write(folder, Membership(site, "invited", _hash(code), at, expires, earlier_keys=earlier))
    return code, expires


@dataclass(frozen=True)
class Admission:
    """Result of an admission.

    `already` tells that the same file had admitted the site before; `gate_key` is the fingerprint of its gate.
    """

    site: str
    fingerprint: str
    already: bool
    gate_key: str = ""


def admit(folder: CoordinatorFolder, file: Path, *, now: datetime | None = None) -> Admission:
    """Admit the site of an admission file.

    Its signature, invitation and key must be right.

    Raises
    ------
    UsageError
        If anything of it is not; the refusal is in the log.
    """
    now = now or now_utc()
    try:
        with locked(folder.sites):
            member, already = _admitted_by(folder, read_admission(file), now)
            if not already:
                _write(folder, member)
    except FlfedError as error:
        # A refused file is logged too: it may be somebody else's try.
        note(folder.log, now, "admission refused", file=file.name[:100], reason=str(error))
        raise
    admission = Admission(member.site, fingerprint(member.public_key), already, member.gate_key)
    event = "already admitted" if already else "admitted"
    note(folder.log, now, event, site=admission.site, key=admission.fingerprint)
    return admission


def _admitted_by(folder: CoordinatorFolder, content: dict[str, Any], now: datetime) -> tuple[Membership, bool]:
    """Return an admission's membership and whether it exists already."""
    site = content["site"]
    again = f"flfed coordinator invite {site}"
    public = _signing_key(content)
    everyone = members(folder)
    member = everyone.get(site)
    if member is None:
        raise UsageError(f"admission: site {site!r} was not invited; to invite it: {again}")
    invited = hmac.compare_digest(_hash(content["invitation"]), member.invitation_sha256)
    # The same file again changes nothing: a person may repeat the command.
    if member.status == "admitted" and invited and public == member.public_key:
        return member, True
    if member.status == "admitted":
        raise UsageError(
            f"admission: site {site!r} was admitted on {member.admitted} with another key or invitation; "
            f"if this file is to replace it: flfed coordinator revoke {site}, then: {again}"
        )
    if member.status == "revoked":
        raise UsageError(f"admission: site {site!r} was revoked on {member.revoked}; to invite it anew: {again}")
    if not invited:
        raise UsageError(f"admission: not by the last invitation of site {site!r}; send it its last kit, or: {again}")
    if now >= datetime.fromisoformat(member.expires):
        raise UsageError(
            f"admission: the invitation of site {site!r} expired on {member.expires}; to invite it anew: {again}"
        )
    # A key names one site for good: with it in two places, a revoked site could return under another name.
    for other in everyone.values():
        if public in other.every_key():
            raise UsageError(
                f"admission: its key is or was in use as site {other.site!r}; "
                "the site makes another one with a kit that was not used"
            )
    admitted_at = now.isoformat(timespec="seconds")
    return replace(
        member, status="admitted", admitted=admitted_at, public_key=public, gate_key=content.get("gate-key", "")
    ), False


def _signing_key(content: Mapping[str, Any]) -> str:
    """Return the public key of an admission that it signed.

    The signature proves that who wrote the file has the key's private half; the code, that it was invited.
    """
    key = node_public_key(content["public-key"])
    if key is None:
        raise UsageError("admission: the key in it is not of the kind EC P-384; make it with: flfed site join")
    if not node_signed({k: v for k, v in content.items() if k != "signature"}, content["signature"], key):
        raise UsageError("admission: the signature is not that of the key in it; ask the site for the file anew")
    return public_text(key)


def note_gate_key(folder: CoordinatorFolder, site: str, fingerprint_text: str) -> tuple[str, str]:
    """Take in the fingerprint of a site's gate, as the site read it out.

    It is for people to look up. No run goes by it: each site takes the fingerprints of the others from these.

    Returns
    -------
    fingerprint, before : str
        What was known before; empty where nothing was.

    Raises
    ------
    UsageError
        If it is no fingerprint, or the site is not admitted.
    """
    fingerprint = read_gate_fingerprint(fingerprint_text)
    with locked(folder.sites):
        member = _member(folder, site)
        if member.status != "admitted":
            raise UsageError(f"site {site!r} is {member.status}, not admitted; its gate's key is taken in after that")
        if member.gate_key != fingerprint:
            _write(folder, replace(member, gate_key=fingerprint))
    note(folder.log, now_utc(), "gate key", site=site, key=fingerprint, before=member.gate_key)
    return fingerprint, member.gate_key


def read_admission(file: Path) -> dict[str, Any]:
    """Return an admission file's content, checked for form.

    Each key is there and of its type. Nothing of it is believed yet.
    """
    content = _parsed(file)
    # Exactly these keys: what is not known here could mean something to another version.
    right = isinstance(content, dict) and content.keys() - OPTIONAL.keys() == ADMISSION.keys()
    kinds = ADMISSION | OPTIONAL
    if not right or not all(type(value) is kinds[key] for key, value in content.items()):
        raise UsageError("admission: not an admission file; the site's `flfed site join` writes it, SITE.admission")
    if content["format"] != FORMAT:
        raise UsageError(f"admission: format {content['format']} is not known here; use the same flfed as the site")
    if not NAME.fullmatch(content["site"]):
        raise UsageError("admission: the site's name in it must be of a-z, 0-9 and single hyphens")
    # Written as the site shows it, or it could not be compared.
    if "gate-key" in content and read_gate_fingerprint(content["gate-key"]) != content["gate-key"]:
        raise UsageError(
            "admission: the fingerprint of the gate in it is not of its form; ask the site for the file anew"
        )
    return dict(content)


def _parsed(file: Path) -> Any:
    """Return the JSON of an admission file; None where it is none, or too large."""
    try:
        # One byte more than allowed is enough to see that a file is too large.
        with file.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None
    if len(content) > LARGEST:
        return None
    try:
        return parse_json(content, "admission")
    except UsageError:
        return None


def revoke(folder: CoordinatorFolder, site: str, *, now: datetime | None = None) -> bool:
    """Revoke a site's invitation or admission.

    Return whether it was revoked already.

    The serving coordinator unregisters the node; what the site sent before stays in the run records.
    """
    now = now or now_utc()
    with locked(folder.sites):
        member = _member(folder, site)
        if member.status == "revoked":
            return True
        _write(folder, replace(member, status="revoked", revoked=now.isoformat(timespec="seconds")))
    note(folder.log, now, "revoked", site=site, was=member.status)
    return False


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()


def _member(folder: CoordinatorFolder, site: str) -> Membership:
    """Return one site's membership; raises `UsageError` where it was never invited."""
    check_invited(folder, site)
    return _read(folder.sites / f"{site}.json")


def check_invited(folder: CoordinatorFolder, site: str) -> None:
    """Raise `UsageError` where a site was never invited, such as a misspelt one."""
    invited_sites = [file.stem for file in _files(folder)]
    if site not in invited_sites:
        raise UsageError(
            f"site {site!r} was never invited{nearest(site, invited_sites)} Known: {', '.join(invited_sites) or 'none'}"
        )


def _files(folder: CoordinatorFolder) -> list[Path]:
    if folder.sites.is_dir():
        return sorted(folder.sites.glob("*.json"))
    return []


def _read(file: Path) -> Membership:
    try:
        facts = parse_json(file.read_bytes(), str(file))
        member = Membership(**{snake(key): value for key, value in facts.items()})
        # An admitted site without a key, or with a damaged one, could be neither let in nor cut off.
        keyless = member.status == "admitted" and not member.public_key
        if keyless or not isinstance(member.gate_key, str) or not all(map(node_public_key, member.every_key())):
            raise ValueError
        if member.site != file.stem or member.status not in ("invited", "admitted", "revoked"):
            raise ValueError
        return replace(member, earlier_keys=tuple(member.earlier_keys))
    except (OSError, UsageError, ValueError, TypeError, AttributeError, KeyError):
        raise FlfedError(f"{file}: is damaged; bring it back from a backup, or remove it and invite anew") from None


def _write(folder: CoordinatorFolder, member: Membership) -> None:
    facts = kebab_keys(asdict(member))
    # Left out where it is empty, so that an earlier version reads the file.
    if not member.gate_key:
        del facts["gate-key"]
    text = json.dumps(facts, indent=2)
    write_whole(folder.sites / f"{member.site}.json", f"{text}\n".encode())
