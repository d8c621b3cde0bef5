"""Gain from joining by classes of sites that a study names beforehand, by their number of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from flfed.records.objects import FigureReport, figure_of, read_all, run_of, site_of, write
from flfed.records.reports.recorded_run import LOSS, Recorded
from flfed.records.reports.site_verdict import code_of_mean
from flfed.records.statistics import Report, verdict
from flfed.records.statistics.intervals import (
    LEAST_CLASS_SITES,
    LEAST_FREEDOM,
    ClassGain,
    WeightedGain,
    class_gain,
    possible,
    weigh_auc,
)
from flfed.records.statistics.odd_sites import AUC
from flfed.records.statistics.verdict import Difference
from flfed.words import counted, render

KEY = "size-classes"
Counts = Mapping[str, Mapping[str, int]]
"""Test rows of a repeat by site and outcome; without the sites that give no counts."""


@dataclass(frozen=True)
class SizeClass:
    """A class of sites in a report.

    Attributes
    ----------
    rows : [int, int or None]
        Fewest and most rows of its sites, all rows counted; None without an upper end.
    sites : int
        Sites of this size.
    not_shared : int
        Those of them whose figures or numbers of test rows are not known, and which are in no gain.
    constant : int
        Those whose own model ranks no two rows: their training rows are too few, or of one class.
    gains, gains_adjusted : dict of metric to object
        Mean gain of the shared model, and of the one adjusted to a site, over each site's own.
    """

    rows: Any = (0, None)
    sites: int = 0
    not_shared: int = 0
    constant: int = 0
    gains: dict[str, Any] = field(default_factory=dict)
    gains_adjusted: dict[str, Any] = field(default_factory=dict)


def size_classes(
    recorded: Recorded,
    counts: Sequence[Counts],
    sites: Mapping[str, Report],
    bounds: Sequence[int],
    minimum_gain: Mapping[str, float],
) -> list[Report]:
    """Return the classes of a report, smallest sites first.

    Parameters
    ----------
    recorded : Recorded
    counts : sequence, one a repeat
    sites : dict of name to a report's site
        A site of unknown size is in no class.
    bounds : sequence of int
        Numbers of rows at which a class begins.
    minimum_gain : dict of metric to float
        The primary metric first. A class has gains in that and in log loss.
    """
    primary, *others = minimum_gain
    metrics = [primary, *(metric for metric in others if metric == LOSS)]
    classes = []
    for low, most in size_ranges(bounds):
        members = [name for name, site in sites.items() if is_within(site_of(site).rows, low, most)]
        shared = [name for name in members if _weighted_gain(recorded, counts, name, "global", primary)]
        entry = SizeClass(
            rows=[low, most],
            sites=len(members),
            not_shared=len(members) - len(shared),
            constant=sum(_is_constant(recorded, name) for name in shared),
        )
        for metric in metrics:
            for arm, gains in (("global", entry.gains), ("personalised", entry.gains_adjusted)):
                of_sites = [_weighted_gain(recorded, counts, name, arm, metric) for name in shared]
                mean = class_gain(list(filter(None, of_sites)), len(bounds) + 1)
                gains[metric] = _as_object(mean, metric) | {"minimum-gain": minimum_gain[metric]}
        classes.append(write(entry))
    return classes


def size_ranges(bounds: Sequence[int]) -> list[tuple[int, int | None]]:
    """Return the fewest and most rows of each class; the last has no upper end.

    Examples
    --------
    >>> size_ranges([20, 50])
    [(0, 19), (20, 49), (50, None)]
    """
    return list(zip([0, *bounds], [*(bound - 1 for bound in bounds), None], strict=True))


def is_within(rows: int | None, low: int, most: int | None) -> bool:
    """Return whether a site's rows are known, and those of a class."""
    return rows is not None and low <= rows and (most is None or rows <= most)


def _is_constant(recorded: Recorded, site: str) -> bool:
    """Return whether a site's own model ranks no two of its test rows in most repeats."""
    aucs = [value for value in recorded.values((site, "local-only", AUC)) if value is not None]
    return 2 * aucs.count(0.5) > len(aucs)


def _weighted_gain(
    recorded: Recorded, counts: Sequence[Counts], site: str, arm: str, metric: str
) -> WeightedGain | None:
    """Return a site's gain with its weight over all repeats, None where figures or weights are not known."""
    pairs = iter(recorded.differences.get((site, arm, metric), []))
    weights = []
    products = []
    for (_, entries), of_repeat in zip(recorded.runs, counts, strict=True):
        entry = entries.get(site)
        # A repeat that leaves a site no row to train on or to test has no pair, as one with a single outcome.
        if entry is None or entry.status == "refused":
            weights.append(0.0)
            continue
        row, _ = next(pairs, (None, None))
        weight = _weight(of_repeat.get(site), entry.holdout_rows, metric)
        if row is None or weight is None:
            return None
        gain = verdict.gain_of(Difference(row.value), verdict.better_of(metric)).value
        if gain is None:
            weight = 0.0
        weights.append(weight)
        products.append(weight * (gain or 0.0))
    return WeightedGain(fmean(weights), math.fsum(products) / len(weights))


def _weight(classes: Mapping[str, int] | None, rows: int | None, metric: str) -> float | None:
    """Return the weight of a repeat: of an AUC, the product of both classes' test rows over all; else the rows."""
    if metric != AUC:
        return rows
    if classes is None:
        return None
    return weigh_auc(*classes.values())


def _as_object(gain: ClassGain, metric: str) -> Report:
    """Return a class's gain as a report has it, with the reason where there is none."""
    figure: Report = {"value": gain.value, "freedom": gain.freedom, "sites": gain.sites}
    for key in ("low", "high"):
        figure[key] = possible(metric, getattr(gain, key), difference=True)
    if gain.value is None and gain.sites < LEAST_CLASS_SITES:
        figure["reason"] = render("report.size-classes.few", sites=gain.sites, least=LEAST_CLASS_SITES)
    elif gain.value is None:
        figure["reason"] = render("report.size-classes.freedom", least=f"{LEAST_FREEDOM + 1:g}")
    return figure


def rows_in_words(rows: Sequence[int | None]) -> str:
    """Return the size of a class's sites.

    Examples
    --------
    >>> rows_in_words([0, 19]), rows_in_words([20, 49]), rows_in_words([1000, None])
    ('fewer than 20 rows', '20 to 49 rows', '1,000 rows or more')
    """
    low, high = rows
    if high is None:
        return f"{low:,} rows or more"
    if not low:
        return f"fewer than {high + 1:,} rows"
    return f"{low:,} to {high:,} rows"


def classes_of(report: Report) -> list[SizeClass]:
    """Return the classes of a report; none where its study names none."""
    return read_all(SizeClass, report.get(KEY) or [])


def class_lines(report: Report, metric: str) -> list[dict[str, str]]:
    """Return the table of a report's classes, a line each; none by a metric in which classes have no gain."""
    classes = [of for of in classes_of(report) if metric in of.gains]
    adjusts = any(figure_of(of.gains_adjusted, LOSS).value is not None for of in classes)
    lines = []
    for of in classes:
        gain = figure_of(of.gains, metric)
        line = {"Sites with": rows_in_words(of.rows), "Sites": str(of.sites), "Judged": str(gain.sites)}
        line[f"Gain in {verdict.metric_name(metric)}"] = _gain_in_words(gain)
        if metric != LOSS and LOSS in of.gains:
            line["Gain in log loss"] = _gain_in_words(figure_of(of.gains, LOSS))
        if adjusts:
            line["Log loss, adjusted to the site"] = _gain_in_words(figure_of(of.gains_adjusted, LOSS))
        line["Verdict"] = verdict.describe_verdict(code_of_mean(gain), metric)
        lines.append(line)
    return lines


def _gain_in_words(gain: FigureReport) -> str:
    return verdict.gain_in_brackets(Difference.of(gain), gain.minimum_gain or 0.0)


def classes_in_words(report: Report, metric: str) -> list[str]:
    """Return the gain of each class as a sentence, then what the gains do not include."""
    sentences = []
    classes = [of for of in classes_of(report) if metric in of.gains]
    for of in classes:
        gain = figure_of(of.gains, metric)
        facts = vars(gain) | {"rows": rows_in_words(of.rows), "metric": verdict.metric_name(metric)}
        if gain.value is None:
            sentences.append(render("report.size-classes.absent", **facts))
        else:
            sentences.append(render("report.size-classes.gain", gain=_gain_in_words(gain), **facts))
    if constant := sum(of.constant for of in classes):
        sentences.append(render("report.size-classes.constant", sites=counted(constant, "site")))
    # A site of unknown size is in no class.
    unknown = sum(site_of(site).rows is None for site in run_of(report).sites.values())
    if absent := unknown + sum(of.not_shared for of in classes):
        sentences.append(render("report.size-classes.not-shared", sites=counted(absent, "site")))
    return sentences
