"""Cards of gates: the list of a consortium, and its comparison at a site.

The list has each site with its gate's fingerprint, which people of all sites compare.

The coordinator writes the list. A dishonest one may hand each site another list, so a list proves
nothing by itself: people of all its sites compare its fingerprint. The file has one form only, and
nothing in it is normalised. Two lists that differ in a case, a blank, an order or a letter that
looks like another are therefore two fingerprints, or no list.

People compare a list once. The gate's folder keeps its fingerprint with the sites whose people read
it out, and approvals pin the gates of these sites alone. A site that nobody heard stays open: the
coordinator could have invented its gate in all lists alike.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

import flfed
from flfed.callbacks import now_utc
from flfed.deployment.site_state.trusted_files import coordinator_of, own_fingerprint
from flfed.errors import UsageError
from flfed.files import locked, read_private, read_up_to, write_whole
from flfed.paths import NAME, SiteFolder
from flfed.signatures import cards_fingerprint, read_cards_fingerprint, read_gate_fingerprint
from flfed.words import flfed_error, usage_error

FORMAT = 1
LARGEST = 65_536
"""Bytes of a list: 400 sites with names of 100 letters."""
LEAST = 2
"""Sites of a list."""
_FIRST = re.compile(rb"flfed cards, format ([0-9]{1,6})\n")
_TITLE = "consortium: "
_CARD = ": "
HEAD = 2
"""Lines before the first card."""


@dataclass(frozen=True)
class CardList:
    """The cards of a consortium's sites.

    Attributes
    ----------
    consortium : str
        The coordinator's title.
    gates : dict of site to fingerprint
        Of each site's gate.
    """

    consortium: str
    gates: dict[str, str]

    def content(self) -> bytes:
        """Return the file's content, in the only form that `parse_cards` reads.

        Examples
        --------
        >>> cards = CardList("Heart", {"lyon": "d255-…", "basel": "k7qa-…"})
        >>> cards.content().decode().splitlines()
        ['flfed cards, format 1', 'consortium: Heart', 'basel: k7qa-…', 'lyon: d255-…']
        """
        lines = [f"flfed cards, format {FORMAT}", _TITLE + self.consortium]
        lines += [site + _CARD + self.gates[site] for site in sorted(self.gates)]
        return "".join(f"{line}\n" for line in lines).encode()

    def fingerprint(self) -> str:
        """Return the fingerprint of the list, which people of all its sites compare."""
        return cards_fingerprint(self.content())


def read_cards(file: Path) -> CardList:
    """Return the list of cards in a file.

    Raises
    ------
    UsageError
        If it cannot be read, is too large, or `parse_cards` refuses it.
    """
    try:
        content = read_up_to(file, LARGEST)
    except OSError as error:
        raise usage_error("operator.cards.unread", file=file, why=error.strerror) from None
    if content is None:
        raise usage_error("operator.cards.large", file=file, most=f"{LARGEST:,}")
    return parse_cards(content, file)


def parse_cards(content: bytes, file: Path) -> CardList:
    """Return the list of cards of a file's content.

    Raises
    ------
    UsageError
        If it is no list, is of a newer format, has a damaged card, two cards of a site or two sites
        with one gate, or has not the form in which `CardList.content` writes it.
    """
    first = _FIRST.match(content)
    if first is None:
        raise usage_error("operator.cards.none", file=file)
    if int(first[1]) != FORMAT:
        facts = {"file": file, "format": int(first[1]), "version": flfed.__version__}
        raise usage_error("operator.cards.format", **facts)
    try:
        # Only \n ends a line: other characters that break lines on a screen are part of one here.
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        raise usage_error("operator.cards.none", file=file) from None
    title = lines[1].removeprefix(_TITLE)
    if title == lines[1] or not title.strip() or not title.isprintable():
        raise usage_error("operator.cards.title", file=file)
    gates: dict[str, str] = {}
    for number, line in enumerate(lines[HEAD:-1], start=HEAD + 1):
        site, fingerprint = _parse_card(line, f"{file}, line {number}")
        if site in gates:
            raise usage_error("operator.cards.twice", file=file, site=site)
        gates[site] = fingerprint
    cards = CardList(title, gates)
    check_gates(cards)
    # Every byte counts in the fingerprint: a second form of the same cards would be another list.
    if cards.content() != content:
        raise usage_error("operator.cards.order", file=file)
    return cards


def _parse_card(line: str, where: str) -> tuple[str, str]:
    """Return site and fingerprint of a line."""
    site, _, fingerprint = line.partition(_CARD)
    if not NAME.fullmatch(site):
        raise usage_error("operator.cards.line", where=where)
    damaged = usage_error("operator.cards.damaged", where=where, site=site)
    try:
        read = read_gate_fingerprint(fingerprint)
    except UsageError:
        raise damaged from None
    # Capitals and blanks, which a person may type, would be a second form.
    if read != fingerprint:
        raise damaged
    return site, fingerprint


def check_gates(cards: CardList) -> None:
    """Raise `UsageError` where a list has too few sites, or one gate under two names."""
    if len(cards.gates) < LEAST:
        raise usage_error("operator.cards.few", least=LEAST, n=len(cards.gates))
    sites_by_gate: dict[str, str] = {}
    for site, fingerprint in cards.gates.items():
        if fingerprint in sites_by_gate:
            names = f"{sites_by_gate[fingerprint]} and {site}"
            raise usage_error("operator.with.same", names=names)
        sites_by_gate[fingerprint] = site


@dataclass(frozen=True)
class Comparison:
    """A list of cards that people of a site compared with people of other sites.

    Attributes
    ----------
    fingerprint : str
        Of the list.
    sites : tuple of str
        Other sites whose people read it out, in name order.
    by, at : str
        Who heard the last of them, and when (UTC, ISO 8601).
    """

    # A file may have been changed: each value must have its type, or the whole is invalid.
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    fingerprint: str
    sites: tuple[str, ...]
    by: str
    at: str


_READER = TypeAdapter(Comparison)


def is_list(text: str) -> bool:
    """Return whether the text of --with names a file: by a dot or a slash, or since there is one of this name.

    Examples
    --------
    >>> [is_list(text) for text in ("basel,lyon", "consortium.cards", "/tmp/cards")]
    [False, True, True]
    >>> is_list(",".join(["a-long-name"] * 99))
    False
    """
    return "=" not in text and ("." in text or "/" in text or os.path.isfile(text))


def read_own_cards(folder: SiteFolder, file: Path) -> CardList:
    """Return the list of cards in a file, in which this site's card is unchanged.

    Raises
    ------
    UsageError
        If it is no list, is another consortium's, or the card of this site is absent or altered.
    """
    cards = read_cards(file)
    own = own_fingerprint(folder)
    if not own:
        raise usage_error("operator.with.keyless", site=folder.site)
    title = coordinator_of(folder)
    if cards.consortium != title:
        facts = {"consortium": cards.consortium, "own": title or "none"}
        raise usage_error("operator.cards.other", file=file, site=folder.site, **facts)
    card = cards.gates.get(folder.site)
    if card is None:
        raise usage_error("operator.cards.absent", file=file, site=folder.site, own=own)
    if card != own:
        raise usage_error("operator.cards.altered", file=file, site=folder.site, card=card, own=own)
    return cards


def open_sites(folder: SiteFolder, cards: CardList) -> tuple[str, ...]:
    """Return the other sites of a list whose people have not read its fingerprint out here.

    Raises
    ------
    FlfedError
        If the record of the comparison is damaged, or others can read or write it.
    """
    compared = _compared_sites(folder, cards)
    return tuple(site for site in sorted(cards.gates) if site not in (*compared, folder.site))


def _compared_sites(folder: SiteFolder, cards: CardList) -> tuple[str, ...]:
    """Return the other sites whose people read the fingerprint of this list out."""
    path = folder.compared_cards
    if not path.is_file():
        return ()
    try:
        comparison: Comparison = _READER.validate_json(read_private(path))
    except ValueError:
        raise flfed_error("operator.cards.record", file=path) from None
    # The record is of one list: of another one, nothing was read out.
    if comparison.fingerprint != cards.fingerprint():
        return ()
    return comparison.sites


def check_reading(cards: CardList, reading: str) -> None:
    """Raise `UsageError` where another site read out another fingerprint than this list's."""
    if read_cards_fingerprint(reading) != cards.fingerprint():
        raise usage_error("operator.cards.differs", reading=reading[:80], own=cards.fingerprint())


def note_comparison(folder: SiteFolder, cards: CardList, reading: str, readers: str, *, by: str) -> None:
    """Record which sites read the fingerprint of a list out; those of earlier calls remain.

    A record of another list is replaced.

    Parameters
    ----------
    folder : SiteFolder
    cards : CardList
    reading : str
        The fingerprint as they read it.
    readers : str
        The sites, with commas or blanks: each by its name, so that one that nobody heard is not
        among them.
    by : str
        Who heard them.

    Raises
    ------
    UsageError
        If it is not the fingerprint of this list, a site has no card in it, or none is named.
    FlfedError
        As `open_sites`.
    """
    check_reading(cards, reading)
    named = _parse_readers(folder, cards, readers)
    folder.make()
    # Under the lock, so that of two commands none loses what the other one has heard.
    with locked(folder.gate):
        sites = tuple(sorted({*_compared_sites(folder, cards), *named}))
        at = now_utc().isoformat(timespec="seconds")
        facts = asdict(Comparison(cards.fingerprint(), sites, by, at))
        write_whole(folder.compared_cards, f"{json.dumps(facts, indent=2)}\n".encode())


def _parse_readers(folder: SiteFolder, cards: CardList, readers: str) -> set[str]:
    """Return the other sites that a person names."""
    others = cards.gates.keys() - {folder.site}
    named = set(re.split(r"[\s,]+", readers)) - {"", folder.site}
    if strangers := sorted(named - others):
        other_sites = ", ".join(sorted(others))
        raise usage_error("operator.cards.stranger", site=strangers[0], sites=other_sites)
    if not named:
        raise usage_error("operator.cards.nobody")
    return named


def pins_of_cards(folder: SiteFolder, file: Path, names: Collection[str]) -> dict[str, str]:
    """Return the sites that a study names, or all of a list, with the fingerprints of their gates.

    Parameters
    ----------
    folder : SiteFolder
    file : Path
        The list of cards.
    names : collection of str
        Sites of a study; empty where it names none.

    Raises
    ------
    UsageError
        If the list is refused, was not compared, or has no card of a site; or if a site did not
        read it out.
    """
    cards = read_own_cards(folder, file)
    sites = sorted(names or cards.gates)
    if cardless := [site for site in sites if site not in cards.gates]:
        raise usage_error("operator.cards.cardless", file=file, sites=", ".join(cardless))
    still_open = open_sites(folder, cards)
    if silent := [site for site in sites if site in still_open]:
        names = ", ".join(silent)
        raise usage_error("operator.cards.silent", file=file, site=folder.site, sites=names)
    return {site: cards.gates[site] for site in sites}
