"""Families of the site models and of the pooled model, each the best of several by repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flfed.records.objects import figure_of, read, run_of, site_of
from flfed.records.statistics import Report
from flfed.records.statistics.verdict import metric_name, number
from flfed.study.tables import NAIVE_FAMILIES
from flfed.words import render, sentences

SAME = "same"
"""The family of a model of the shared one's own kind."""


def families(taken: Sequence[str | None]) -> dict[str, int]:
    """Return in how many repeats each family was taken, the most frequent first.

    Repeats whose family is not known are left out.

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
        Figures of the model of the shared one's kind beside it; without it, the arm's model is of that kind.

    Returns
    -------
    dict
        ARM-family: the most frequent one, "same" for a model of the shared one's kind, null where not known;
        ARM-families: the number of repeats of each; ARM-same: `other`.
    """
    counted = families(taken)
    default = None if other else SAME
    family = next(iter(counted), default)
    return {f"{arm}-same": other, f"{arm}-family": family, f"{arm}-families": counted}


def family_in_words(counted: Mapping[str, int], repeats: int = 1) -> str:
    """Return the family of a model; "" for the shared one's kind, or where not known.

    Examples
    --------
    >>> family_in_words({"boosted-trees": 1}), family_in_words({})
    ('boosted decision trees', '')
    >>> family_in_words({"boosted-trees": 7, "logistic-regression": 3}, 10)
    'boosted decision trees in 7 of 10 repeats, logistic regression in 3'
    """
    names = [sentences("names", "families").get(family, family) for family in counted]
    if len(names) < 2:
        return "".join(names)
    parts = [f"{name} in {count}" for name, count in zip(names, counted.values(), strict=True)]
    # Only the first family names the number of repeats: the others are of the same.
    parts[0] += f" of {repeats} repeats"
    return ", ".join(parts)


def own_models_in_words(report: Report) -> str:
    """Return a sentence on the site models, "" where they are of the shared one's kind."""
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
    rival = rival_in_words(run.sites.values())
    if not count_by_family:
        return render("report.own.rival", rival=rival)
    names = sentences("names", "families")
    if run.is_of_parties:
        (family,) = count_by_family
        return render("report.own.family", rival=rival, family=names.get(family, family))
    listed = ", ".join(f"{names.get(family, family)} at {count}" for family, count in count_by_family.items())
    if run.repeats > 1:
        listed = f"most often {listed}"
    return render("report.own.families", rival=rival, families=listed, sites=len(run.sites))


def rival_in_words(sites: Iterable[Report]) -> str:
    """Return the choice of which the site models are the best."""
    by_time = any(site.get(arm) for site in sites for arm in NAIVE_FAMILIES)
    return render("report.own.latest") if by_time else render("report.own.better")


def naive_in_words(sites: Sequence[Report], metric: str) -> str:
    """Return the figures of forecasts without a model, on all test rows or averaged over the sites, or "".

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
            forecasts.append(f"{number(mean)} by {sentences('names', 'families')[arm]}")
    if not forecasts:
        return ""
    where = f" (means over {len(sites)} sites)"
    if together:
        where = " (on all test rows)"
    if len(sites) == 1:
        where = ""
    listed = ", ".join(forecasts)
    return render("report.own.naive", metric=metric_name(metric), forecasts=listed, where=where)


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Return the weighted mean of the values that are not None, or None without weight."""
    weighted_values = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in weighted_values)
    return sum(value * weight for value, weight in weighted_values) / total if total else None


def pooled_in_words(report: Report) -> str:
    """Return the family of the pooled model, "" for the shared model's kind."""
    counted = run_of(report).pooled_families
    return family_in_words(counted, sum(counted.values()))


@dataclass(frozen=True, kw_only=True)
class OwnParts:
    """The object "own-parts" of a run: the arrays of each site's own, or whether it has a whole model beside."""

    arrays: list[str] = field(default_factory=list)
    beside: bool = False


def own_parts_in_words(report: Report) -> str:
    """Return the meaning of the models' figures where a part of the model is each site's own, or "".

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
        return render("report.own.beside")
    return render("report.own.arrays", arrays=", ".join(own.arrays))


PARTIES = "parties"
"""Object of a run whose parties have different columns of the same people: what each has, by name."""


def without_outcome(report: Report) -> set[str]:
    """Return the parties without the outcome, which have no figures."""
    return {site for site, party in (report.get(PARTIES) or {}).items() if not party["label"]}


def parties_in_words(report: Report) -> str:
    """Return which party has what; "" of a run whose sites have rows of their own."""
    parties = report.get(PARTIES)
    if not parties:
        return ""
    label = next(site for site, party in parties.items() if party["label"])
    others = [
        render("report.parties.other", site=site, inputs=party["columns"], people=party["people"])
        for site, party in parties.items()
        if not party["label"]
    ]
    own = parties[label]
    # The intercept is no column.
    facts = {"site": label, "inputs": own["columns"] - 1, "people": own["people"]}
    return render("report.parties.all", others="; ".join(others), **facts)
