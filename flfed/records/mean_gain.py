"""What joining gains on average over sites: the shared model against each site's own, with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flfed.records.entries import DifferenceRow
from flfed.records.spread import mean_of, mean_over_sites, standard_error
from flfed.records.verdicts import Difference, better_of, gain_of, gain_with_interval, metric_name, number

Report = dict[str, Any]

LEAST_SITES = 3
"""Of fewer, no interval of a mean says anything: of two its reach is nine times their distance."""
METHOD = (
    "random effects over sites: Paule-Mandel variance between sites, Hartung-Knapp interval; each site's error from "
    "its paired interval, under repeats that of one split"
)
ASSUMES = "sites like these, independent of each other"


def mean_gain(rows: Mapping[str, Sequence[DifferenceRow]], metric: str, of: int) -> Report:
    """Return the mean over sites of what the shared model gains on each site's own (above 0 is better).

    Parameters
    ----------
    rows : mapping of site to sequence of DifferenceRow
        The shared model minus the site's own, one row a repeat.
    metric : str
    of : int
        Sites that took part.

    Returns
    -------
    dict
        `value`, `low`, `high`, `between-sites-sd` (of the sites' own gains about the mean, beyond what
        each one's uncertainty explains), `sites` (in the mean), `of`, `arm`, `method`; where fewer than
        `LEAST_SITES` have an interval, all figures null, with a `reason`.
    """
    known = {site: found for site, given in rows.items() if (found := _gain(given, metric)) is not None}
    facts: Report = {"arm": "global", "sites": len(known), "of": of, "method": METHOD}
    names = ("value", "low", "high", "between-sites-sd")
    if len(known) < LEAST_SITES:
        why = f"only {len(known)} of {of} sites have an interval of their own, and {LEAST_SITES} are needed"
        return dict.fromkeys(names) | {"reason": why} | facts
    mean = mean_over_sites(*zip(*known.values(), strict=True))
    return dict(zip(names, (mean.value, mean.low, mean.high, mean.between), strict=True)) | facts


def _gain(rows: Sequence[DifferenceRow], metric: str) -> tuple[float, float] | None:
    """Return a site's gain, the mean of its repeats, with the standard error of one; None where one is unknown."""
    told = [row for row in rows if row.value is not None]
    errors = [standard_error(metric, row.value, row.low, row.high) for row in told]
    if not told or 2 * len(told) < len(rows) or None in errors:
        return None
    gain = gain_of(Difference(mean_of([row.value for row in told])), better_of(metric)).value
    error = mean_of(errors)
    return None if gain is None or error is None else (gain, error)


def mean_gain_in_words(entry: Report | None, metric: str) -> str:
    """Return the mean gain over sites as a sentence, with what it assumes; "" where it is not known.

    Examples
    --------
    >>> known = {"value": 0.024, "low": 0.017, "high": 0.031, "sites": 9, "of": 10}
    >>> mean_gain_in_words(known, "roc_auc_score").partition(": ")[0]
    "On average over 9 of 10 sites, the shared model against each one's own"
    >>> mean_gain_in_words(known, "roc_auc_score").partition(": ")[2]
    'gain +.024 in AUC (95 % interval +.017 to +.031 for sites like these, independent of each other), which is clear.'
    """
    if not entry or entry["value"] is None:
        return ""
    gain = Difference(entry["value"], entry["low"], entry["high"])
    size, _, span = gain_with_interval(gain).partition(", ")
    says = "which is clear" if entry["low"] > 0 else "a clear loss" if entry["high"] < 0 else "which may be chance"
    sites = f"{entry['sites']} sites" if entry["sites"] == entry["of"] else f"{entry['sites']} of {entry['of']} sites"
    start = f"On average over {sites}, the shared model against each one's own: gain {size} in {metric_name(metric)}"
    return f"{start} ({span} for {ASSUMES}), {says}."


def apart_in_words(entry: Report | None) -> str:
    """Return how far the sites' gains lie from their mean beyond chance; "" where it is not known."""
    if not entry or entry["value"] is None:
        return ""
    between = entry["between-sites-sd"]
    if float(f"{between:.3f}"):
        return f"Beyond chance, the sites' own gains differ by about {number(between)} (standard deviation)."
    return "The sites' gains differ no more than chance lets expect: judge one site's with the mean beside it."
