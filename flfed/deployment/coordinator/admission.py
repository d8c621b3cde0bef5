"""Registry of invited, admitted and revoked sites.

Only admitted ones may connect. Each site is a JSON file in the coordinator's folder.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import flfed
from flfed.callbacks import now_utc
from flfed.errors import FlfedError, UsageError, nearest
from flfed.files import locked, note, read_up_to, write_whole
from flfed.parsers import parse_json
from flfed.paths import NAME, CoordinatorFolder
from flfed.registry import kebab_keys, snake
from flfed.signatures import (
    fingerprint,
    node_public_key,
    node_signed,
    public_text,
    read_gate_fingerprint,
    read_node_fingerprint,
    spoken_fingerprint,
)
from flfed.updates.messages.kinds import PROTOCOL
from flfed.words import flfed_error, usage_error

FORMAT = 1
LARGEST = 16_384
"""Bytes of an admission file; a real one has about 750."""
OPTIONAL = {"gate-key": str}
"""Keys that an admission may lack: that of a site whose gate is another user's has no key of the gate."""
VERSION = re.compile(r"[0-9A-Za-z.+!-]{1,40}")
ADMISSION = {
    "format": int,
    "protocol": int,
    "site": str,
    "public-key": str,
    "invitation": str,
    "flfed": str,
    "signature": str,
}


@dataclass(frozen=True)
class Membership:
    """Membership of one site.

    Times are ISO 8601, empty where the event did not happen.

    `earlier_keys` are those of earlier admissions that were revoked; none of them is admitted again.

    `public_key` is the node's: EC P-384, in OpenSSH's text form, without a comment. `node_id` is Flower's number of the
    node, and None until it was registered.

    `gate_key` is the fingerprint of the site's gate, as the site reported it. Other sites accept it from that site
    alone.
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


def members(folder: CoordinatorFolder) -> dict[str, Membership]:
    """Return every site ever invited, in name order.

    Raises
    ------
    FlfedError
        If a file is damaged: its key and its status are unknown then.
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


def admitted(folder: CoordinatorFolder) -> dict[str, Membership]:
    """Return the sites whose nodes may connect, by name.

    A site whose file is damaged is not among them.
    """
    return {name: member for name, member in readable(folder)[0].items() if member.status == "admitted"}


def revoked_keys(folder: CoordinatorFolder) -> tuple[str, ...]:
    """Return the nodes' public keys that must not connect.

    They come from the files that can be read.
    """
    keys: list[str] = []
    # Keys of earlier admissions stay cut off, also where the site was admitted again with another key.
    for member in readable(folder)[0].values():
        keys += [str(key["public-key"]) for key in member.earlier_keys]
        if member.status == "revoked" and member.public_key:
            keys.append(member.public_key)
    return tuple(keys)


def note_node(folder: CoordinatorFolder, site: str, node_id: int) -> None:
    """Record Flower's node number of an admitted site."""
    with locked(folder.sites):
        member = _member(folder, site)
        if member.status != "admitted":
            raise flfed_error("coordinator.admission.nodeless", site=site)
        # Written only on a change: each write makes every reader of the folder read it again.
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
        Random, 256 bits; this folder has its SHA-256 alone.
    expires : str

    Raises
    ------
    UsageError
        If the site's name is malformed, or the site is admitted already.
    """
    now = now or now_utc()
    if not NAME.fullmatch(site):
        raise usage_error("coordinator.admission.name", site=site)
    check_days(days)
    code = secrets.token_hex(32)
    expires = (now + timedelta(days=days)).isoformat(timespec="seconds")
    # Under the lock, so that two commands cannot invite the same name with two codes.
    with locked(folder.sites):
        before = members(folder).get(site)
        if before is not None and before.status == "admitted":
            raise usage_error("coordinator.admission.present", site=site, admitted=before.admitted)
        earlier = () if before is None else _earlier_keys(before)
        at = now.isoformat(timespec="seconds")
        _write(folder, Membership(site, "invited", _hash(code), at, expires, earlier_keys=earlier))
    return code, expires


def check_days(days: int) -> None:
    """Refuse an invitation of fewer than 1 or more than 90 days."""
    if not 1 <= days <= 90:
        raise usage_error("coordinator.admission.days", days=days)


@dataclass(frozen=True)
class Admission:
    """Result of an admission.

    `already` is true where the same file admitted the site before. `gate_key` is the fingerprint of its gate.
    """

    site: str
    fingerprint: str
    already: bool
    gate_key: str

    def matches(self, typed: str) -> bool:
        """Return whether a fingerprint, as the site's people read it out, is that of its key.

        Raises
        ------
        UsageError
            If it is no fingerprint, or has a wrong character.
        """
        return read_node_fingerprint(typed) in (self.fingerprint, spoken_fingerprint(self.fingerprint))


def admit(
    folder: CoordinatorFolder,
    file: Path,
    *,
    typed: str | None = None,
    replacing: bool = False,
    now: datetime | None = None,
) -> Admission:
    """Admit the site of an admission file.

    Its signature, invitation and key must be right.

    Parameters
    ----------
    folder : CoordinatorFolder
    file : Path
    typed : str, optional
        Fingerprint of the site's key, as its people read it out. None where nobody compares it.
    replacing : bool
        Whether the file takes the place of another one of the same invitation. The key admitted before is cut off,
        and never admitted again.
    now : datetime, optional

    Raises
    ------
    UsageError
        If one of them is wrong; the log records the refusal.
    """
    now = now or now_utc()
    with _noting_refusal(folder, file, now), locked(folder.sites):
        member, already = _admitted_by(folder, read_admission(file), now, replacing)
        admission = Admission(member.site, fingerprint(member.public_key), already, member.gate_key)
        # The refusal does not show the right fingerprint.
        if typed is not None and not admission.matches(typed):
            kind = "gate" if read_node_fingerprint(typed) == member.gate_key else "key"
            raise usage_error(f"coordinator.other-fingerprint.{kind}", site=member.site)
        if not already:
            _write(folder, member)
    event = "admitted"
    if already:
        event = "already admitted"
    elif replacing and member.earlier_keys:
        event = "admitted by replacement"
    note(folder.log, now, event, site=admission.site, key=admission.fingerprint)
    return admission


def check_admission(
    folder: CoordinatorFolder, file: Path, *, replacing: bool, now: datetime | None = None
) -> Admission:
    """Return what `admit` would do with a file, and change nothing; a refusal is logged."""
    now = now or now_utc()
    with _noting_refusal(folder, file, now):
        member, already = _admitted_by(folder, read_admission(file), now, replacing)
    return Admission(member.site, fingerprint(member.public_key), already, member.gate_key)


@contextmanager
def _noting_refusal(folder: CoordinatorFolder, file: Path, now: datetime) -> Iterator[None]:
    try:
        yield
    except FlfedError as error:
        # A refused file is logged too: it may be an attempt of somebody else.
        note(folder.log, now, "admission refused", file=file.name[:100], reason=str(error))
        raise


def _admitted_by(
    folder: CoordinatorFolder, content: dict[str, Any], now: datetime, replacing: bool
) -> tuple[Membership, bool]:
    """Return an admission's membership and whether it exists already."""
    site = content["site"]
    public = _signing_key(content)
    everyone = members(folder)
    member = everyone.get(site)
    if member is None:
        raise usage_error("coordinator.admission.uninvited", site=site)
    invited = hmac.compare_digest(_hash(content["invitation"]), member.invitation_sha256)
    # The same file again changes nothing: a person may repeat the command.
    if member.status == "admitted" and invited and public == member.public_key:
        return member, True
    if refusal := _refusal(member, now, invited=invited, replacing=replacing):
        facts = {"site": site, "admitted": member.admitted, "revoked": member.revoked, "expires": member.expires}
        raise usage_error(f"coordinator.not-admitted.{refusal}", **facts)
    # A key names one site for good: with it in two places, a revoked site could return under another name.
    for other in everyone.values():
        if public in other.every_key():
            raise usage_error("coordinator.admission.reused", other=other.site)
    gate_key = content.get("gate-key", "")
    _check_gate(folder, site, gate_key)
    at = now.isoformat(timespec="seconds")
    earlier = _earlier_keys(replace(member, revoked=at))
    changes = {"admitted": at, "public_key": public, "gate_key": gate_key, "node_id": None, "earlier_keys": earlier}
    return replace(member, status="admitted", **changes), False


def _check_gate(folder: CoordinatorFolder, site: str, gate_key: str) -> None:
    """Refuse the fingerprint of another admitted site's gate."""
    for other in admitted(folder).values():
        if gate_key and other.gate_key == gate_key and other.site != site:
            raise usage_error("coordinator.admission.shared", other=other.site)


def _refusal(member: Membership, now: datetime, *, invited: bool, replacing: bool) -> str:
    """Return the key of the sentence why a member is not admitted by a file now, or an empty text."""
    expired = now >= datetime.fromisoformat(member.expires)
    present = member.status == "admitted"
    refusals = {
        "replaced": present and (expired or not invited),
        "second": present and not replacing,
        "revoked": member.status == "revoked",
        "outdated": not invited,
        "expired": expired,
    }
    return next((refusal for refusal, applies in refusals.items() if applies), "")


def _earlier_keys(member: Membership) -> tuple[dict[str, Any], ...]:
    """Return the keys of a member that are never admitted again once it has another one."""
    if not member.public_key:
        return member.earlier_keys
    last = {"public-key": member.public_key, "node-id": member.node_id, "revoked": member.revoked}
    return (*member.earlier_keys, last)


def _signing_key(content: Mapping[str, Any]) -> str:
    """Return the public key by which an admission is signed.

    The signature proves that the file's author has the private key. The invitation code proves that the author was
    invited.
    """
    key = node_public_key(content["public-key"])
    if key is None:
        raise usage_error("coordinator.admission.kind")
    if not node_signed({k: v for k, v in content.items() if k != "signature"}, content["signature"], key):
        raise usage_error("coordinator.admission.unsigned")
    return public_text(key)


def note_gate_key(folder: CoordinatorFolder, site: str, fingerprint_text: str) -> tuple[str, str]:
    """Record the fingerprint of a site's gate, as the site read it out; "none" removes it.

    It is for people to look up, and no run uses it. Each site gets the fingerprints of the others from those sites.

    Returns
    -------
    fingerprint, before : str
        The fingerprint before; empty where there was none.

    Raises
    ------
    UsageError
        If it is no fingerprint, the site is not admitted, or another site has this gate.
    """
    fingerprint = "" if fingerprint_text == "none" else read_gate_fingerprint(fingerprint_text)
    with locked(folder.sites):
        member = _member(folder, site)
        if member.status != "admitted":
            raise usage_error("coordinator.admission.early", site=site, status=member.status)
        _check_gate(folder, site, fingerprint)
        if member.gate_key != fingerprint:
            _write(folder, replace(member, gate_key=fingerprint))
    note(folder.log, now_utc(), "gate key", site=site, key=fingerprint, before=member.gate_key)
    return fingerprint, member.gate_key


def read_admission(file: Path) -> dict[str, Any]:
    """Return an admission file's content, checked for form.

    Each key is present and has its type. Nothing of the content is trusted yet.
    """
    content = _parsed(file)
    if isinstance(content, dict) and "format" in content:
        check_protocol(content, "admission")
    # Exactly these keys: an unknown one could mean something to another version.
    right = isinstance(content, dict) and content.keys() - OPTIONAL.keys() == ADMISSION.keys()
    kinds = ADMISSION | OPTIONAL
    if not right or not all(type(value) is kinds[key] for key, value in content.items()):
        raise usage_error("coordinator.admission.form")
    if content["format"] != FORMAT:
        raise usage_error("coordinator.admission.format", format=content["format"])
    if not NAME.fullmatch(content["site"]):
        raise usage_error("coordinator.admission.inner")
    # In the form that the site shows, else the two could not be compared.
    if "gate-key" in content and read_gate_fingerprint(content["gate-key"]) != content["gate-key"]:
        raise usage_error("coordinator.admission.gate")
    return dict(content)


def check_protocol(facts: Mapping[str, Any], file: str) -> None:
    """Refuse a kit or an admission of another protocol of the messages, with both and what to do."""
    # Protocol 1 named itself in messages only.
    theirs = facts.get("protocol", 1)
    if type(theirs) is int and theirs == PROTOCOL:
        return
    version = str(facts.get("flfed"))
    made_by = version if VERSION.fullmatch(version) else "unknown"
    versions = {"theirs": repr(theirs)[:20], "ours": PROTOCOL, "made_by": made_by, "own": flfed.__version__}
    raise usage_error(f"coordinator.protocol.{file}", **versions)


def _parsed(file: Path) -> Any:
    """Return the JSON of an admission file.

    It is None where it is invalid or too large.
    """
    try:
        content = read_up_to(file, LARGEST)
    except OSError as error:
        raise usage_error("coordinator.files.unread", file=file, why=error.strerror) from None
    if content is None:
        return None
    try:
        return parse_json(content, "admission")
    except UsageError:
        return None


def revoke(folder: CoordinatorFolder, site: str, *, now: datetime | None = None) -> bool:
    """Revoke a site's invitation or admission.

    Return whether it was revoked already.

    The serving coordinator unregisters the node. Run records keep the earlier replies of the site.
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
        invited_names = ", ".join(invited_sites) or "none"
        hint = nearest(site, invited_sites)
        raise usage_error("coordinator.admission.never", site=site, hint=hint, invited=invited_names)


def _files(folder: CoordinatorFolder) -> list[Path]:
    return sorted(folder.sites.glob("*.json"))


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
        raise flfed_error("coordinator.admission.damaged", file=file) from None


def _write(folder: CoordinatorFolder, member: Membership) -> None:
    content = json.dumps(kebab_keys(asdict(member)), indent=2)
    write_whole(folder.sites / f"{member.site}.json", f"{content}\n".encode())
