"""Names of sites and datasets, from titles of files and values of columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from flfed.errors import UsageError
from flfed.rows.data.partition import site_name
from flfed.rows.proposals.cutting import OwnTable

UMLAUTS = {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "ø": "o", "æ": "ae", "ł": "l"}
"""Letters that are no a-z with a mark, or that a name writes as two."""
LONGEST_NAME = 60
"""Signs of a site's name: what stands in messages, folders and records has no more."""


def slug(text: str) -> str:
    """Return a text as a name of a-z, 0-9 and single hyphens.

    Examples
    --------
    >>> slug("St. Mary's (2024)"), slug("Klinik Köln")
    ('st-mary-s-2024', 'klinik-koeln')
    """
    made = _signs(text)
    if not made:
        raise UsageError(f"{text!r} gives no name of a-z and 0-9: give another one with --name")
    return made


def _signs(text: str) -> str:
    """Return what of a text a name can have, maybe nothing."""
    plain = text.translate({ord(sign): pair for sign, pair in UMLAUTS.items()})
    return site_name(unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode())


def names_of_sites(parts: Sequence[OwnTable]) -> list[str]:
    """Return a name for the site of each table.

    Raises
    ------
    UsageError
        If one has no letters, or two would be alike.
    """
    for part in parts:
        if not 0 < len(_signs(part.title)) <= LONGEST_NAME:
            many = f"1 to {LONGEST_NAME} letters a-z and digits"
            raise UsageError(f"site {part.title[:40]!r}: its name must have {many}: rename it")
    names = [slug(part.title) for part in parts]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        titles = " and ".join(repr(part.title) for part, name in zip(parts, names, strict=True) if name == twice)
        raise UsageError(
            f"two sites would be called {twice!r} ({titles}): rename one (a file, or a value of the column of sites)"
        )
    return names
