"""Kits for sites.

A site joins with a kit. It must reach the site by a way that both trust, for the site believes it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import tomli_w

import flfed
from flfed.callbacks import now_utc
from flfed.deployment.cards import CardList, check_gates
from flfed.deployment.coordinator.admission import (
    VERSION,
    Membership,
    check_days,
    check_protocol,
    members,
    new_invitation,
)
from flfed.deployment.coordinator.certificates import Settings, settings, signing_key, trusted
from flfed.files import note, write_whole
from flfed.parsers import parse_toml, read_text
from flfed.paths import NAME, CoordinatorFolder
from flfed.registry import kebab, kebab_keys, snake
from flfed.signatures import HASH, signing_public
from flfed.updates.messages.kinds import PROTOCOL
from flfed.words import usage_error

FORMAT = 1
MEMBERS = ("kit.toml", "ca.crt")
MAJOR_MINOR = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}")


@dataclass(frozen=True)
class Terms:
    """Terms of a coordinator in its kits.

    Parameters
    ----------
    coordinator, address : str
        Its title, and "host:port".
    ca_sha256, signing_key : str, 64 hex digits
        Hash of the certificate to trust, public Ed25519 key.
    flfed, flwr : str
        Its version, and Flower's "major.minor".
    """

    coordinator: str
    address: str
    ca_sha256: str
    signing_key: str
    flfed: str
    flwr: str

    def __post_init__(self) -> None:
        """Refuse malformed values."""
        Settings(self.coordinator, self.address)
        for name in ("ca_sha256", "signing_key"):
            _match(name, getattr(self, name), HASH)
        _match("flfed", self.flfed, VERSION)
        _match("flwr", self.flwr, MAJOR_MINOR)


@dataclass(frozen=True)
class Kit:
    """Content of `kit.toml`.

    It has the terms, the site, the invitation's code, and the time when it expires.
    """

    terms: Terms
    site: str
    invitation: str
    expires: str

    def __post_init__(self) -> None:
        """Refuse values of a wrong form.

        The refusal never shows the code.
        """
        _match("site", self.site, NAME)
        if not HASH.fullmatch(self.invitation):
            raise usage_error("coordinator.kits.invitation")
        moment("expires", self.expires)

    @property
    def invitation_sha256(self) -> str:
        """Hash by which the coordinator recognises the code."""
        return hashlib.sha256(self.invitation.encode()).hexdigest()

    def as_toml(self) -> str:
        """Return the text of `kit.toml`."""
        own = {"site": self.site, "invitation": self.invitation, "expires": self.expires}
        return tomli_w.dumps({"format": FORMAT, "protocol": PROTOCOL, **kebab_keys(asdict(self.terms)), **own})


def kit_of(facts: Mapping[str, object]) -> Kit:
    """Return the kit that a `kit.toml` describes.

    Raises
    ------
    UsageError
        If it is of another protocol, or a key is missing, unknown, or malformed.
    """
    check_protocol(facts, "kit")
    if type(facts.get("format")) is not int or facts["format"] != FORMAT:
        raise usage_error("coordinator.kits.format")
    names = [kebab(name) for name in Terms.__dataclass_fields__]
    expected = {*names, "site", "invitation", "expires"}
    # Missing and unknown keys are both refused: a newer version may mean something by an unknown one.
    if odd := facts.keys() ^ {*expected, "format", "protocol"}:
        raise usage_error("coordinator.kits.keys", keys=", ".join(repr(name[:40]) for name in sorted(odd)[:3]))
    if not all(isinstance(facts[name], str) for name in expected):
        raise usage_error("coordinator.kits.text")
    terms = Terms(**{snake(name): str(facts[name]) for name in names})
    return Kit(terms, str(facts["site"]), str(facts["invitation"]), str(facts["expires"]))


def moment(name: str, text: str) -> datetime:
    """Return an ISO 8601 time that names its zone."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.utcoffset() is None:
        raise usage_error("coordinator.kits.time", name=name, value=text[:40])
    return instant


def _match(name: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value):
        raise usage_error("coordinator.kits.value", name=name, value=value[:80])


def flwr_version() -> str:
    """Return Flower's "major.minor" version here.

    It must be the same at all institutions.
    """
    return ".".join(importlib.metadata.version("flwr").split(".")[:2])


@dataclass(frozen=True)
class Invited:
    """Result of an invitation.

    It has the kit's file, its expiry, and its SHA-256, which two people can compare.
    """

    site: str
    file: Path
    expires: str
    sha256: str


def invite(folder: CoordinatorFolder, site: str, *, to: Path, days: int = 14, now: datetime | None = None) -> Invited:
    """Invite a site and write its kit.

    `SITE.kit.zip` replaces an earlier one.

    Parameters
    ----------
    folder : CoordinatorFolder
    site : str
    to : Path
        The folder of the kit.
    days : int, 1 to 90
        How long it is valid.
    now : datetime, optional
    """
    now = now or now_utc()
    # The folder is checked before the invitation: else a code would be spent on a kit that no site gets.
    check_folder(to)
    coordinator_settings = settings(folder)
    ca = trusted(folder)
    terms = Terms(
        coordinator_settings.title,
        coordinator_settings.address,
        hashlib.sha256(ca).hexdigest(),
        signing_public(signing_key(folder)),
        flfed.__version__,
        flwr_version(),
    )
    code, expires = new_invitation(folder, site, days=days, now=now)
    content = packed(Kit(terms, site, code, expires).as_toml().encode(), ca)
    file = to / f"{site}.kit.zip"
    write_whole(file, content)
    made = Invited(site, file, expires, hashlib.sha256(content).hexdigest())
    note(folder.log, now, "invited", site=site, expires=expires, kit=made.sha256)
    return made


def write_cards(folder: CoordinatorFolder, file: Path) -> tuple[CardList, tuple[str, ...]]:
    """Write the list of all admitted sites' cards; return it, and the sites whose gate is not on record.

    Raises
    ------
    UsageError
        If fewer than two sites have a card, or two have the same gate.
    FlfedError
        If a site's file is damaged, or the list cannot be written; an earlier one remains.
    """
    admitted = [member for member in members(folder).values() if member.status == "admitted"]
    gates = {member.site: member.gate_key for member in admitted if member.gate_key}
    cards = CardList(settings(folder).title, gates)
    check_gates(cards)
    write_whole(file, cards.content(), mode=0o644)  # which is no secret
    return cards, tuple(member.site for member in admitted if not member.gate_key)


def read_site_list(file: Path) -> tuple[list[str], int | None]:
    """Return the names of a file of sites, and the days of its invitations where it has them.

    Raises
    ------
    UsageError
        If the file is not of this form, or a name in it is malformed or stands there twice.
    """
    content = parse_toml(read_text(file), str(file))
    sites = content.get("sites")
    days = content.get("days")
    if not isinstance(sites, list) or not sites or content.keys() - {"sites", "days"}:
        raise usage_error("coordinator.list.form", file=file)
    if type(days) not in (int, type(None)):
        raise usage_error("coordinator.list.form", file=file)
    # All are checked before the first kit is written.
    malformed = [site for site in sites if not isinstance(site, str) or not NAME.fullmatch(site)]
    if malformed:
        shown = ", ".join(repr(site)[:80] for site in malformed[:3])
        raise usage_error("coordinator.list.names", file=file, names=shown)
    twice = [site for site, times in Counter(sites).items() if times > 1]
    if twice:
        raise usage_error("coordinator.list.twice", file=file, names=", ".join(twice))
    return sites, days


def invite_all(
    folder: CoordinatorFolder, sites: Sequence[str], *, to: Path, days: int
) -> tuple[list[Invited], list[Membership]]:
    """Invite every site that has no invitation, or one that expired unused.

    Kits that are valid remain so, and a revoked site is not invited.

    Parameters
    ----------
    folder : CoordinatorFolder
    sites : sequence of str
        As `read_site_list` returns them.
    to : Path
        The folder of the kits.
    days : int, 1 to 90
        How long they are valid.

    Returns
    -------
    invited : list of Invited
    skipped : list of Membership
        Sites that are admitted, revoked, or have a valid kit.
    """
    now = now_utc()
    check_folder(to)
    check_days(days)
    everyone = members(folder)
    earlier = [everyone[site] for site in sites if site in everyone]
    # An invitation that expired unused is renewed.
    skipped = [one for one in earlier if one.status != "invited" or now < moment("expires", one.expires)]
    names = {member.site for member in skipped}
    invited = [invite(folder, site, to=to, days=days, now=now) for site in sites if site not in names]
    return invited, skipped


def check_folder(to: Path) -> None:
    """Refuse a folder that cannot be written into.

    It is checked before any change for the file that would be written there.
    """
    if not to.is_dir() or not os.access(to, os.W_OK | os.X_OK):
        raise usage_error("coordinator.kits.folder", folder=to)


def packed(toml: bytes, ca: bytes) -> bytes:
    """Return a kit's zip archive.

    The same content gives the same bytes.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in zip(MEMBERS, (toml, ca), strict=True):
            # No time of today and a fixed mode: the hash that two people compare depends on the content alone.
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100600 << 16
            archive.writestr(entry, content)
    return stream.getvalue()
