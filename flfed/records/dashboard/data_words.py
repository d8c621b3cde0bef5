"""What the page Data says in words: where most is missing, and which sites lie apart in what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flfed.drift import BINNING, LARGE
from flfed.records.verdicts import number
from flfed.table_one import percent

Payload = Mapping[str, Any]
LEAST_GAP = 5.0
"""Percentage points by which a site's share of missing rows has to be above that of the others to be named."""
NAMED = 3
"""Sentences at most."""


def gaps_in_words(payload: Payload, *, sites: int) -> list[str]:
    """Return where most is missing beside the other sites, the largest gap first: a sentence a column, three at most.

    Parameters
    ----------
    payload : dict
        The object "columns" of a run.
    sites : int
        How many sites the run has, those too that are not in `payload`.

    Returns
    -------
    list of str
        One sentence where no gap is large; none where no site can be set beside another.
    """
    known = [(gap, column) for column in payload["columns"] if (gap := widest_gap(column)) is not None]
    large = sorted((one for one in known if one[0][0] >= LEAST_GAP), key=lambda one: -one[0][0])
    sentences = []
    for (_, site, others), column in large[:NAMED]:
        own, rest = column["sites"][site], [column["sites"][other] for other in others]
        elsewhere = _share_in_words(sum(one["missing"] for one in rest), sum(one["rows"] for one in rest))
        where = f"at the {'other site' if sites == 2 else 'other sites'}"
        if len(others) < sites - 1:
            where = f"at {_those_that_tell(len(others))}"
        share = _share_in_words(own["missing"], own["rows"])
        sentences.append(
            f"{column['column']} is missing at {share} of {site}'s rows and at {elsewhere} of the rows {where}."
        )
    if known and not sentences:
        return [
            "No site stands out: in no column is the share of missing rows "
            f"{LEAST_GAP:.0f} percentage points or more above that of the other sites that tell."
        ]
    return sentences


def widest_gap(column: Payload) -> tuple[float, str, list[str]] | None:
    """Return how far a site's share of missing rows is above that of the others that tell, most of all sites.

    Returns
    -------
    tuple or None
        Percentage points, the site, and the others; None where fewer than two sites tell.
    """
    told = {site: entry for site, entry in column["sites"].items() if entry["missing"] is not None and entry["rows"]}
    if len(told) < 2:
        return None
    missing, rows = (sum(entry[key] for entry in told.values()) for key in ("missing", "rows"))
    gaps = {
        site: 100 * (entry["missing"] / entry["rows"] - (missing - entry["missing"]) / (rows - entry["rows"]))
        for site, entry in told.items()
    }
    site = max(gaps, key=lambda name: gaps[name])
    return gaps[site], site, [name for name in told if name != site]


def drift_in_words(payload: Payload, *, sites: int) -> list[str]:
    """Return which sites differ most from the others, and in what: the largest first, three at most.

    What is told beside all the others goes before what only some of them tell.

    Parameters
    ----------
    payload : dict
        The object "columns" of a run.
    sites : int
        How many sites the run has, those too that are not in `payload`.
    """
    entries = [(column, site, entry) for column in payload["columns"] for site, entry in column["sites"].items()]
    # What is told beside fewer sites comes after what is told beside all.
    order = sorted(entries, key=lambda one: (_told_by(one[2], sites) < sites - 1, -size(one[2])))
    worst: dict[str, tuple[Payload, Payload]] = {}
    for column, site, entry in order:
        if stands_out(entry):
            worst.setdefault(site, (column, entry))
    if not worst:
        about = any(entry.get("about") for _, _, entry in entries)
        also = f" (of figures from groups of bins: {number(LARGE + BINNING, 2)})" if about else ""
        return [
            f"No site stands out: none differs from the others by more than {number(LARGE, 2)} standard "
            f"deviations{also} and by more than chance would."
        ]
    sentences = []
    for site, (column, entry) in list(worst.items())[:NAMED]:
        where = "from" if column["towards"] is None else "above" if entry["difference"] > 0 else "below"
        told = _told_by(entry, sites)
        whom = _those_that_tell(told)
        if told >= sites - 1:
            whom = "the other site" if sites == 2 else "the other sites"
        far = f"about {number(size(entry), 1)}" if entry.get("about") else number(size(entry), 2)
        rough = " (from groups of bins)" if entry.get("about") else ""
        sentences.append(f"{site} differs most in {named(column)}: {far} standard deviations {where} {whom}{rough}.")
    return sentences


def stands_out(entry: Payload) -> bool:
    """Tell whether a difference is large, and more than chance, or than what groups of bins may add to it."""
    if entry.get("about"):
        return size(entry) > LARGE + BINNING
    return size(entry) > LARGE and not by_chance(entry)


def by_chance(entry: Payload) -> bool:
    """Tell whether a difference is no larger than what chance alone brings about; never where that is not known."""
    return entry["difference"] is not None and entry["chance"] is not None and size(entry) <= entry["chance"]


def size(entry: Payload) -> float:
    """Return how large a difference is, 0 where there is none."""
    return abs(float(entry["difference"])) if entry["difference"] is not None else 0.0


def named(column: Payload) -> str:
    """Return a column's name, with the value whose share is compared."""
    return f"{column['column']} (share of {column['towards']})" if column["towards"] else str(column["column"])


def reasons_of(columns: Sequence[Payload]) -> list[str]:
    """Return why sites have no difference, each reason once."""
    return sorted({str(entry["reason"]) for column in columns for entry in column["sites"].values() if entry["reason"]})


def _told_by(entry: Payload, sites: int) -> int:
    """Return with how many other sites one is compared; earlier versions of flfed did not keep it."""
    return int(entry.get("compared-with") or sites - 1)


def _those_that_tell(others: int) -> str:
    return "the one other site that tells" if others == 1 else f"the {others} other sites that tell"


def _share_in_words(count: float, rows: float) -> str:
    """Return a share in whole percent, as it stands in a sentence.

    Examples
    --------
    >>> _share_in_words(190, 294), _share_in_words(2, 30000)
    ('65 %', 'less than 1 %')
    """
    return f"{percent(count, rows)} %".replace("<", "less than ").replace(">", "more than ")
