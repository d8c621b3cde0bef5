"""The list of cards: each site with its gate's fingerprint, which people of all sites compare.

The coordinator writes the list. A dishonest one may hand each site another list, so a list proves
nothing by itself: people of all its sites compare its fingerprint. The file has one form only, and
nothing in it is normalised. Two lists that differ in a case, a blank, an order or a letter that
looks like another are therefore two fingerprints, or no list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import flfed
from flfed.errors import UsageError
from flfed.files import read_up_to
from flfed.paths import NAME
from flfed.signatures import cards_fingerprint, read_gate_fingerprint
from flfed.words import usage_error

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
