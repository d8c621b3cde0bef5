"""Families of the sites' own and pooled models.

Each is the best of several families, by repeat. The pooled model is that of all rows together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flfed.records.objects import figure_of, read, run_of, site_of
from flfed.records.statistics import Report
from flfed.records.statistics.verdict import metric_name, number
from flfed.study.tables import NAIVE_FAMILIES

SAME = "same"
"""The family of a model of the shared one's own kind."""
BETTER_OF = "the better, on training rows kept apart, of logistic (or ridge) regression and boosted trees"
BEST_BY_TIME = "the best, on its latest training rows, of ridge regression, boosted trees and forecasts without a model"
FAMILY_NAMES = {
    "logistic-regression": "logistic regression",
    "ridge-regression": "ridge regression",
    "boosted-trees": "boosted decision trees",
    "site-mean": "the mean of the training rows",
    "last-value": "the last training value",
    "named-column": "a column that the study names",
}
"""What people call what a site's own model is, where it is the best of several."""


def families(taken: Sequence[str | None]) -> dict[str, int]:
    """Return in how many repeats each family was taken.

    The most frequent comes first. Repeats that do not tell their family are left out.

    Examples
    --------
    >>> families(["logistic-regression", "boosted-trees", None, "boosted-trees"])
    {'boosted-trees': 2, 'logistic-regression': 1}
    """
    counted = Counter(family for family in taken if family is not None)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def family_keys(arm: str, taken: Sequence[str | None], *, other: Report | None) -> Report:
    """Return the report keys of an arm's model family.

    Parameters
    ----------
    arm : str
        "local-only" or "pooled".
    taken : sequence of str or None
        Its family, by repeat.
    other : dict or None
        Figures of the model of the shared one's own kind that stands beside it; without it, it is that one.

    Returns
    -------
    dict
        ARM-family: the most frequent one, "same" for a model of the shared one's own kind, null where it is not told;
        ARM-families: the number of repeats of each; ARM-same: `other`.
    """
    counted = families(taken)
    family = next(iter(counted), None if other else SAME)
    return {f"{arm}-same": other, f"{arm}-family": family, f"{arm}-families": counted}


def family_in_words(counted: Mapping[str, int], repeats: int = 1) -> str:
    """Return the family of a model in words.

    An empty text for a model of the shared one's own kind, or where the family is not told.

    Examples
    --------
    >>> family_in_words({"boosted-trees": 1}), family_in_words({})
    ('boosted decision trees', '')
    >>> family_in_words({"boosted-trees": 7, "logistic-regression": 3}, 10)
    'boosted decision trees in 7 of 10 repeats, logistic regression in 3'
    """
    names = [FAMILY_NAMES.get(family, family) for family in counted]
    if len(names) < 2:
        return "".join(names)
    parts = [f"{name} in {count}" for name, count in zip(names, counted.values(), strict=True)]
    # Only the first family names the number of repeats: the others are of the same.
    parts[0] += f" of {repeats} repeats"
    return ", ".join(parts)


def own_models_in_words(report: Report) -> str:
    """Return a sentence on the sites' own models.

    An empty text where they are of the shared one's own kind.
    """
    run = run_of(report)
    taken = []
    for site in run.sites.values():
        family = site_of(site).local_only_family
        if family != SAME:
            taken.append(family)
    if not taken:
        return ""
    # A site whose record does not name the family is not counted.
    count_by_family = families(taken)
    most = "most often " if run.repeats > 1 else ""
    sites = ", ".join(f"{FAMILY_NAMES.get(family, family)} at {count}" for family, count in count_by_family.items())
    which = f": {most}{sites} of {len(run.sites)} sites" if count_by_family else ""
    return f"A site's own model is {rival_in_words(run.sites.values())}{which}."


def rival_in_words(sites: Iterable[Report]) -> str:
    """Return of what the sites' own models are the best."""
    by_time = any(site.get(arm) for site in sites for arm in NAIVE_FAMILIES)
    return BEST_BY_TIME if by_time else BETTER_OF


def naive_in_words(sites: Sequence[Report], metric: str) -> str:
    """Return what forecasts without a model reach, on all test rows or on average over the sites; "" without any.

    Examples
    --------
    >>> one = {"site-mean": {"mean_absolute_error": {"value": 3.68}}, "holdout-rows": 20}
    >>> two = {"site-mean": {"mean_absolute_error": {"value": 1.68}}, "holdout-rows": 60}
    >>> naive_in_words([one, two], "mean_absolute_error")
    'Without a model: mean absolute error 2.18 by the mean of the training rows (on all test rows).'
    """
    rows = [site_of(site).holdout_rows for site in sites]
    # An error that is a mean over rows is one over all sites' rows, too; other figures are not.
    together = metric == "mean_absolute_error" and None not in rows
    weights = [float(count or 0) if together else 1.0 for count in rows]
    forecasts = []
    for arm in NAIVE_FAMILIES:
        mean = _mean([figure_of(site.get(arm), metric).value for site in sites], weights)
        if mean is not None:
            forecasts.append(f"{number(mean)} by {FAMILY_NAMES[arm]}")
    if not forecasts:
        return ""
    where = f" (means over {len(sites)} sites)"
    if together:
        where = " (on all test rows)"
    if len(sites) == 1:
        where = ""
    return f"Without a model: {metric_name(metric)} {', '.join(forecasts)}{where}."


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Return the weighted mean of the values that are known, None where these have no weight."""
    weighted_values = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in weighted_values)
    return sum(value * weight for value, weight in weighted_values) / total if total else None


def pooled_in_words(report: Report) -> str:
    """Return the family of the pooled reference in words.

    It is "" where that is of the shared model's own kind.
    """
    counted = run_of(report).pooled_families
    return family_in_words(counted, sum(counted.values()))


@dataclass(frozen=True, kw_only=True)
class OwnParts:
    """The object "own-parts" of a run: which arrays are each site's own, or whether a whole model beside the shared."""

    arrays: list[str] = field(default_factory=list)
    beside: bool = False


def own_parts_in_words(report: Report) -> str:
    """Return whose figures the shared and the adjusted model's are, where a part of the model is each site's own.

    Examples
    --------
    >>> own_parts_in_words({"own-parts": {"arrays": ["weight", "bias"], "beside": True}})[:61]
    'Each site trained a model of its own beside the shared one. I'
    """
    run = run_of(report)
    if run.own_parts is None:
        return ""
    own = read(OwnParts, run.own_parts)
    if own.beside:
        return (
            "Each site trained a model of its own beside the shared one. It stays there, and is what is called "
            "adjusted to the site here."
        )
    return (
        f"Of the model each site has its own {', '.join(own.arrays)}, which stays there: what is told of the shared "
        "model at a site is told of the shared rest with the site's own. The coordinator's copy has what was drawn in "
        "its place, and is nobody's model."
    )
