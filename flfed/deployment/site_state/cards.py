"""The list of cards at a site: its own card in it, and who read the list's fingerprint out.

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

from flfed.callbacks import now_utc
from flfed.deployment.cards import CardList, read_cards
from flfed.deployment.site_state.trusted_files import coordinator_of, own_fingerprint
from flfed.files import locked, read_private, write_whole
from flfed.paths import SiteFolder
from flfed.signatures import read_cards_fingerprint
from flfed.words import flfed_error, usage_error


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


def note_comparison(
    folder: SiteFolder,
    cards: CardList,
    reading: str,
    readers: str,
    *,
    by: str,
) -> None:
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
