"""Mean gain of joining over sites.

The shared model is held against each site's own, with an interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple

from flfed.records.statistics import Report
from flfed.records.statistics.intervals import mean_of, mean_over_sites, possible, standard_error
from flfed.records.statistics.verdict import (
    CANNOT_BE_TOLD,
    DO_NOT_USE,
    PAYS,
    TOO_SMALL,
    Difference,
    better_of,
    code_of,
    decimals_for,
    gain_of,
    has_interval,
    metric_name,
    number,
    size_and_span,
    worthwhile_of,
)
from flfed.records.store.entries import DifferenceRow

FEW_SITES = 4
"""Up to so many sites a mean can hardly be clear: Student's t of two or three degrees of freedom reaches far."""
COVERAGE = (
    "simulated, a 95 % interval of such a mean holds the true one in 94 to 100 of 100 cases where all sites are known "
    "about equally well, in 86 to 93 where some are known ten times as well as others, and at worst in about 80, where "
    "sites that gain more are known less well (eight sites; of more, fewer)"
)
"""How often the interval holds (tests/records/test_mean_gain.py measures it)."""
LEAST_SITES = 3
"""Of fewer, no interval of a mean says anything: of two its reach is nine times their distance."""
METHOD = (
    "random effects over sites: Paule-Mandel variance between sites, Hartung-Knapp interval, given this shared model; "
    "each site's error from its paired interval, under repeats as Nadeau and Bengio's"
)
ASSUMES = "sites like these that train it together"
UNLIKE = 0.05
"""Below this p-value of Cochran's test sites are said to gain differently."""
Pairs = Sequence[tuple[DifferenceRow, float | None]]
"""Differences at a site, one a repeat, each with its holdout rows per training row where the repeat drew a holdout."""


def mean_gain(rows: Mapping[str, Pairs], metric: str, of: int) -> Report:
    """Return the mean gain over sites as report keys.

    It is what the shared model gains on each site's own. Above 0 is better.

    Parameters
    ----------
    rows : mapping of site to pairs
        The shared model minus the site's own, one a repeat, and its holdout rows per training row.
    metric : str
    of : int
        Sites that took part.

    Returns
    -------
    dict
        `value`, `low`, `high`, `between-sites-sd` (of the sites' own gains about the mean, beyond what
        each one's uncertainty explains), `between-sites-p` (of Cochran's test that all gain the same),
        `sites` (in the mean), `of`, `arm`, `method`, `coverage` (how often the interval
        holds); where fewer than `LEAST_SITES` have figures from
        which an error follows, all null, with a `reason`.
    """
    known = {site: found for site, given in rows.items() if (found := _gain(given, metric)) is not None}
    facts: Report = {"arm": "global", "sites": len(known), "of": of, "method": METHOD, "coverage": COVERAGE}
    names = ("value", "low", "high", "between-sites-sd", "between-sites-p")
    # An interval over two sites would reach too far to say anything.
    if len(known) < LEAST_SITES:
        why = f"only {len(known)} of {of} sites have figures from which an error follows, and {LEAST_SITES} are needed"
        return dict.fromkeys(names) | {"reason": why} | facts
    # Sites whose error is unknown have no weight in the mean and are left out.
    mean = mean_over_sites(*zip(*known.values(), strict=True))
    told = dict(zip(names, astuple(mean), strict=True))
    return told | {key: possible(metric, told[key], difference=True) for key in ("low", "high")} | facts


def _gain(pairs: Pairs, metric: str) -> tuple[float, float] | None:
    """Return a site's gain and its standard error.

    The gain is the mean of its repeats. None where one of the two is unknown.

    Where each of R repeats drew a holdout, with `ratio` holdout rows per training row, two of them
    correlate by `ratio / (1 + ratio)`, and the error of their mean follows from that of one.

    Source: Nadeau and Bengio 2003, equations 7 and 8.
    """
    told = [row for row, _ in pairs if row.value is not None]
    errors = [error for row in told if (error := standard_error(metric, row.value, row.low, row.high)) is not None]
    error, ratio = mean_of(errors), mean_of([ratio for _, ratio in pairs])
    # Less than half of the repeats would no longer stand for the site.
    if error is None or 2 * len(told) < len(pairs) or 2 * len(errors) < len(told):
        return None
    # Repeats that keep their holdout share its error in full: more of them do not make it smaller.
    if ratio is not None and all(ratio is not None for _, ratio in pairs):
        shared = ratio / (1 + ratio)
        error *= math.sqrt(shared + (1 - shared) / len(told))
    gain = gain_of(Difference(mean_of([row.value for row in told])), better_of(metric)).value
    return None if gain is None else (gain, error)


def code_of_mean(entry: Report, worthwhile: float) -> str:
    """Return the verdict on a mean gain: a loss of a model that was not trained enough says nothing of joining."""
    code = code_of(Difference(entry["value"], entry["low"], entry["high"]), worthwhile)
    return CANNOT_BE_TOLD if code == DO_NOT_USE and entry.get("undertrained") else code


def mean_gain_in_words(entry: Report | None, metric: str, *, adjusts: bool = True) -> str:
    """Return the mean gain over sites as a sentence.

    It says what the mean assumes. An empty text where the mean is not known. `adjusts` tells whether the run has models
    that are adjusted to a site, too.

    Examples
    --------
    >>> known = {"value": 0.024, "low": 0.017, "high": 0.031, "sites": 9, "of": 10}
    >>> mean_gain_in_words(known, "roc_auc_score").partition(": ")[0]
    "On average over 9 of 10 sites, the shared model, before adjustment, against each one's own"
    >>> mean_gain_in_words(known, "roc_auc_score").partition(": ")[2]
    'gain +.024 in AUC (95 % CI +.017 to +.031 for sites like these that train it together), which is clear.'
    >>> few = {"value": 0.02, "low": -0.04, "high": 0.08, "sites": 3, "of": 3}
    >>> mean_gain_in_words(few, "roc_auc_score").rpartition("together), ")[2]
    'which may be chance; of 3 sites, such a mean can hardly be clear.'
    """
    if not entry or entry["value"] is None:
        return ""
    gain = Difference(entry["value"], entry["low"], entry["high"])
    least = entry.get("worthwhile", worthwhile_of(metric))
    size, span = size_and_span(gain, least)
    says = _how_sure(gain, code_of_mean(entry, least), least, entry["sites"])
    sites = f"{entry['sites']} sites" if entry["sites"] == entry["of"] else f"{entry['sites']} of {entry['of']} sites"
    start = (
        f"On average over {sites}, the shared model{', before adjustment,' if adjusts else ''} against each one's own"
    )
    return f"{start}: gain {size} in {metric_name(metric)} (95 % CI {span} for {ASSUMES}), {says}."


def _how_sure(gain: Difference, code: str, worthwhile: float, sites: int) -> str:
    """Return whether a mean gain is clear, in words.

    The rule is that of a site's gain. Of few sites it says that a mean can hardly be clear.
    """
    low = gain.low or 0.0
    high = gain.high or 0.0
    if code == PAYS:
        return "which is clear"
    if code == DO_NOT_USE:
        return "a clear loss"
    if code == CANNOT_BE_TOLD and has_interval(gain):
        return "which says nothing of joining: the shared model was not trained enough"
    # A gain may be beyond chance and yet not worth joining for.
    if not low <= 0 <= high:
        may = "is" if abs(gain.value or 0.0) < worthwhile else "may be"
        return f"which lies {'above' if low > 0 else 'below'} 0, but {may} {TOO_SMALL}"
    hardly = f"; of {sites} sites, such a mean can hardly be clear" if sites <= FEW_SITES else ""
    return f"which may be chance{hardly}"


def apart_in_words(entry: Report | None, *, adjusts: bool = True) -> str:
    """Return how far the sites' gains differ, in words.

    The sentence says whether they differ beyond chance. An empty text where that is not known.
    """
    which = ", before adjustment," if adjusts else ""
    if not entry or entry["value"] is None:
        return ""
    between = entry["between-sites-sd"]
    if entry["between-sites-p"] < UNLIKE:
        size = number(between, decimals_for(Difference(between, between)))
        return f"The sites' gains{which} differ more than chance lets expect: by about {size} (SD)."
    sites = f"these {entry['sites']} sites"
    return f"The gains of {sites}{which} differ no more than chance alone may make them."
