"""Joining and renewal of a site.

It reads the kit, makes its own key, and writes what the coordinator admits it by; later it takes renewals.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import tomli_w

import flfed
from flfed.callbacks import now_utc
from flfed.deployment.bundle import bundle_sha256
from flfed.deployment.coordinator.kits import FORMAT, Terms, check_folder, moment, renewal_of
from flfed.deployment.operator.kit import Read, check_authority, check_versions, read_kit, read_some
from flfed.deployment.site_state.trusted_files import is_elsewhere, make_signing_key
from flfed.errors import FlfedError, UsageError
from flfed.files import SHARED, locked, note, write_whole
from flfed.folders import SiteFolder
from flfed.parsers import parse_json, parse_toml
from flfed.paths import home, private_folder
from flfed.registry import kebab, kebab_keys
from flfed.signatures import canonical, fingerprint, new_node_key, private_text, public_text, sign_as_node

AHEAD = timedelta(days=1)
"""By which two clocks may differ."""


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
    gate_key: str = ""


@dataclass(frozen=True)
class Renewed:
    """Changes that a renewal made at a site.

    They are names of terms. `joined` is set where it was a new kit, with a new key.
    """

    site: str
    changed: tuple[str, ...]
    joined: Joined | None = None


def log_file() -> Path:
    """Return the log of joining at this machine.

    It has what was joined, renewed and refused, for all sites.
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
        raise UsageError(f"site {folder.site!r} has not joined; ask for a kit, then: flfed site join KIT") from None
    except (OSError, UsageError):
        raise FlfedError(f"{folder.join}: cannot be read; as the user of the network, or from a backup") from None


def join(file: Path, *, to: Path, now: datetime | None = None) -> Joined:
    """Join with a kit.

    Make the site's key, and its gate's where there is none; keep what the kit says, and write SITE.admission.

    Parameters
    ----------
    file : Path
        The kit.
    to : Path
        The folder of SITE.admission.
    now : datetime, optional

    Raises
    ------
    UsageError
        If the kit is refused; why is in the log too.
    """
    now = now or now_utc()
    try:
        read = _readable(file, now)
        folder = _made(read.kit.site)
        # Under the lock, so that two commands cannot make two keys for one site.
        with locked(folder.network):
            _check_unused(folder, read)
            if folder.join.exists():
                raise UsageError(
                    f"site {folder.site!r} has joined {joined(folder)['coordinator']!r} already; "
                    "to join anew with this kit, with another key: flfed site join --renew KIT"
                )
            found = _written(folder, read, to, now, earlier=())
    except FlfedError as error:
        # What was refused is logged as well: somebody may have sent a false kit.
        note(log_file(), now, "kit refused", file=file.name[:100], reason=str(error))
        raise
    note(log_file(), now, "joined", site=found.site, coordinator=found.coordinator, kit=found.kit_sha256, key=found.key)
    return found


def _readable(file: Path, now: datetime) -> Read:
    read = read_kit(file, now=now)
    _check_not_ahead(read.kit.terms, "kit", now)
    check_versions(read.kit.terms, "kit", own_bundle=bundle_sha256(), own_flfed=flfed.__version__)
    return read


def _made(site: str) -> SiteFolder:
    folder = SiteFolder(site)
    folder.make()
    if folder.network.stat().st_mode & 0o077:
        raise UsageError(f"{folder.network}: others may enter it; first: chmod 700 {folder.network}")
    return folder


def _check_unused(folder: SiteFolder, read: Read) -> None:
    # A code is for one key: used twice, it would belong to the first one.
    if folder.join.exists() and joined(folder)["invitation-sha256"] == read.kit.invitation_sha256:
        raise UsageError(
            f"this kit was used here on {joined(folder)['joined']}: if the coordinator has not admitted "
            f"{folder.site!r} yet, send {folder.admission} (again); else ask for another kit"
        )


def _written(folder: SiteFolder, read: Read, to: Path, now: datetime, *, earlier: tuple[str, ...]) -> Joined:
    """Write all files of joining.

    `join.toml`, by which a site has joined, comes after everything it needs.
    """
    kit, key = read.kit, new_node_key()
    gate_key = "" if is_elsewhere(folder) else make_signing_key(folder)[0]
    facts = {
        "format": FORMAT,
        "site": kit.site,
        "public-key": public_text(key.public_key()),
        "invitation": kit.invitation,
        "flfed": flfed.__version__,
        **({"gate-key": gate_key} if gate_key else {}),
    }
    admission = canonical({**facts, "signature": sign_as_node(facts, key)}) + b"\n"
    # Checked before the key is written, so that a failed try leaves nothing behind.
    out = to / folder.admission.name
    if out.exists():
        raise UsageError(f"{out}: is there already and not replaced; move it away, or join in another folder")
    check_folder(to)
    write_whole(folder.node_key, private_text(key))
    write_whole(folder.admission, admission)
    if not folder.secret.exists():
        write_whole(folder.secret, secrets.token_hex(32).encode(), mode=SHARED)
    print_of_key = fingerprint(str(facts["public-key"]))
    own = {
        "site": kit.site,
        "expires": kit.expires,
        "joined": now.isoformat(timespec="seconds"),
        "invitation-sha256": kit.invitation_sha256,
        "node-key": print_of_key,
    }
    _keep(folder, kit.terms, read.ca, own, earlier)
    write_whole(out, admission)
    return Joined(
        kit.site, kit.terms.coordinator, kit.terms.address, out, print_of_key, read.sha256, kit.expires, gate_key
    )


def _keep(folder: SiteFolder, terms: Terms, ca: bytes, own: Mapping[str, object], earlier: tuple[str, ...]) -> None:
    """Write the coordinator's terms and certificates.

    The terms are for both users; `join.toml` is written last.
    """
    for_gate = {
        "format": FORMAT,
        "site": folder.site,
        "coordinator": terms.coordinator,
        "bundle-sha256": terms.bundle_sha256,
        "signing-key": terms.signing_key,
        # What the coordinator signed before it changed its key stays verifiable.
        "earlier-signing-keys": list(earlier),
    }
    write_whole(folder.terms, tomli_w.dumps(for_gate).encode(), mode=SHARED)
    write_whole(folder.authority, ca)
    facts = {"format": FORMAT, **kebab_keys(asdict(terms)), **own, "earlier-signing-keys": list(earlier)}
    write_whole(folder.join, tomli_w.dumps(facts).encode())


def renew(file: Path, *, to: Path, site: str = "", now: datetime | None = None) -> Renewed:
    """Take a renewal, or a new kit.

    A new kit takes the place of the one that the site joined with.

    A renewal must be signed by the signing key that the site knows, and keeps the site's own key. A
    new kit is believed as the first one was; the site makes another key and must be admitted again.
    Neither may be older than what the site has.

    Parameters
    ----------
    file : Path
    to : Path
        The folder of SITE.admission, if it is a kit.
    site : str
        Which site renews; needed where several sites of this machine have joined.
    now : datetime, optional

    Raises
    ------
    UsageError
        If it is refused; why is in the log too.
    """
    now = now or now_utc()
    try:
        content = read_some(file)
        # A kit is a zip and begins with these letters; a renewal is JSON.
        if content.startswith(b"PK"):
            found = _renewed_by_kit(file, to, site, now)
        else:
            found = _renewed(content, site or _only_site(), now)
    except FlfedError as error:
        note(log_file(), now, "renewal refused", file=file.name[:100], reason=str(error))
        raise
    note(log_file(), now, "renewed", site=found.site, changed=list(found.changed), anew=found.joined is not None)
    return found


def _renewed_by_kit(file: Path, to: Path, site: str, now: datetime) -> Renewed:
    read = _readable(file, now)
    if site not in ("", read.kit.site):
        raise UsageError(f"kit: it is for site {read.kit.site!r}, not {site!r}; ask the coordinator for another kit")
    folder = SiteFolder(read.kit.site)
    # Asked before the lock as well: without a folder there is nothing to lock.
    joined(folder)
    with locked(folder.network):
        before = joined(folder)
        _check_unused(folder, read)
        _check_later(read.kit.terms, before, "kit", now)
        earlier = _earlier(before, read.kit.terms)
        found = _written(_made(folder.site), read, to, now, earlier=earlier)
    return Renewed(folder.site, _changed(before, read.kit.terms), found)


def _renewed(content: bytes, site: str, now: datetime) -> Renewed:
    folder = SiteFolder(site)
    try:
        facts = parse_json(content, "renewal")
    except UsageError:
        facts = None
    if not isinstance(facts, dict):
        raise UsageError("renewal: neither a renewal nor a kit; ask the coordinator for it again")
    given, signature = renewal_of(facts)
    terms, ca = given.terms, given.ca.encode()
    joined(folder)
    with locked(folder.network):
        before = joined(folder)
        # Only the key that the site knows counts: the renewal names the next one.
        if not given.is_signed(signature, before["signing-key"]):
            raise UsageError(
                f"renewal: not signed by the key of {before['coordinator']!r} that site {site!r} knows; take "
                "renewals in the order in which they were made, or ask the coordinator for a new kit"
            )
        _check_not_ahead(terms, "renewal", now)
        _check_later(terms, before, "renewal", now)
        check_authority(ca, now=now)
        check_versions(terms, "renewal", own_bundle=bundle_sha256(), own_flfed=flfed.__version__)
        # What is the site's own stays; all that the coordinator says is replaced.
        shared = {kebab(field.name) for field in fields(Terms)} | {"format", "earlier-signing-keys"}
        own = {name: value for name, value in before.items() if name not in shared}
        _keep(folder, terms, ca, own, _earlier(before, terms))
    return Renewed(site, _changed(before, terms))


def _only_site() -> str:
    found = sorted(file.parent.parent.name for file in (home() / "sites").glob("*/network/join.toml"))
    if len(found) != 1:
        said = f"{len(found)} sites have joined here ({', '.join(found)})" if found else "no site has joined here"
        raise UsageError(f"renewal: {said}; name the one to renew with --site")
    return found[0]


def _check_not_ahead(terms: Terms, what: str, now: datetime) -> None:
    """Refuse terms from the future.

    After them nothing would count as newer.
    """
    if moment("issued", terms.issued) > now + AHEAD:
        raise UsageError(
            f"{what}: it was made on {terms.issued}, and here it is {now.isoformat(timespec='minutes')}: "
            "set the clock that is wrong, and ask for another one"
        )


def _check_later(terms: Terms, before: Mapping[str, Any], what: str, now: datetime) -> None:
    if moment("issued", before["issued"]) > now + AHEAD:
        return  # what the site has came from the future itself: everything else is newer
    if moment("issued", terms.issued) <= moment("issued", before["issued"]):
        raise UsageError(
            f"{what}: it was made on {terms.issued}, not after what the site has ({before['issued']}); "
            "there is nothing to renew, or a newer one to ask for"
        )


def _earlier(before: Mapping[str, Any], terms: Terms) -> tuple[str, ...]:
    # All keys that ever signed stay known, without the present one and without repetition.
    known = [*before["earlier-signing-keys"], before["signing-key"]]
    return tuple(key for key in dict.fromkeys(known) if key != terms.signing_key)


def _changed(before: Mapping[str, Any], terms: Terms) -> tuple[str, ...]:
    now = kebab_keys(asdict(terms))
    return tuple(name for name, value in now.items() if before[name] != value and name != "issued")
