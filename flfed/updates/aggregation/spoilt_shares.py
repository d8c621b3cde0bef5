"""Sites whose shares are none for others: which list is left without them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from flfed.refusals import Refusal
from flfed.updates.aggregation.sum_store import ListedVectors
from flfed.updates.masking.protocol import NAMED
from flfed.updates.masking.rules import Sites

CODES = frozenset({"share-unreadable", "shares-unreadable"})
"""Codes of sites that opened nothing, since shares were none for them."""
Named = Mapping[str, Sites]
"""By site that opened nothing, the sites that it named."""


def named_sites(listed: Sites, faults: Mapping[str, Refusal]) -> Named:
    """Return whose shares were none, by the site that says so.

    Parameters
    ----------
    listed : frozenset of str
        Only its sites are looked at: a site may name whom it likes.
    faults : mapping of site to Refusal
    """
    found: dict[str, Sites] = {}
    for site in sorted(listed & faults.keys()):
        cause = faults[site].cause
        if cause.code in CODES:
            text = cause.facts.get("site") or cause.facts["sites"]
            found[site] = listed.intersection(text.split(", "))
    return found


def list_without(listed: Sites, named: Named) -> Sites:
    """Return the sites of a list of which none names another, most of those of the list.

    A site whose keys are wrong names all others, and they name it: it goes, and they stay. So who has to do with most
    pairs goes first; of two, who is named more often.

    Parameters
    ----------
    listed : frozenset of str
    named : mapping of site to frozenset of str

    Examples
    --------
    >>> others = frozenset("abc")
    >>> sorted(list_without(frozenset("abcd"), {"a": frozenset("d"), "b": frozenset("d"), "d": others}))
    ['a', 'b', 'c']
    """
    left = set(listed)
    while pairs := _pairs(left, named):
        left.remove(max(sorted(left), key=lambda site: _weight(site, pairs)))
    return frozenset(left)


def _pairs(left: set[str], named: Named) -> list[tuple[str, str]]:
    """Return the pairs of sites of which the first names the other."""
    pairs: list[tuple[str, str]] = []
    for site in left & named.keys():
        pairs += [(site, other) for other in named[site] & left]
    return pairs


def smaller_list(kept: ListedVectors, named: Named, *, cohort: Collection[str], least: int) -> Sites | None:
    """Return the list that is asked for in place of one that was not opened, None where none may be.

    A site that opened the larger list refuses a smaller one, and those that did not would be bound to it: so each of
    the others must have said that it opened nothing. Who did not answer may have.

    Parameters
    ----------
    kept : ListedVectors
    named : mapping of site to frozenset of str
    cohort : collection of str
        Of less than the cohort the others have confirmed the list already.
    least : int
    """
    rest = list_without(kept.listed, named)
    if kept.listed != set(cohort) or rest == kept.listed or len(rest) < least:
        return None
    opened_none = all(site in named and not kept.vectors[site].opened for site in rest)
    return rest if opened_none else None


def left_out_faults(sites: Sites, named: Named, *, excluded: Sites) -> dict[str, Refusal]:
    """Return what is recorded of sites that are left out: who named them, and whether further sums are without them."""
    found = {}
    for site in sorted(sites):
        at = ", ".join([other for other in sorted(named) if site in named[other]][:NAMED])
        if site in excluded:
            found[site] = Refusal("shares-spoilt-again", sites=at)
        else:
            found[site] = Refusal("shares-spoilt", sites=at)
    return found


def _weight(site: str, pairs: Collection[tuple[str, str]]) -> tuple[int, int]:
    """Return in how many pairs a site is, and in how many it is named."""
    return sum(site in pair for pair in pairs), sum(site == other for _, other in pairs)
