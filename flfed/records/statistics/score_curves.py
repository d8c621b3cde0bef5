"""ROC, precision-recall and calibration from rows counted by class and predicted probability.

Here are their tables and sentences, too, and the reason why a run has no curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from flfed.records.objects import figure_of, read, run_of, site_of
from flfed.records.statistics import Report
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.noised_scores import name_sites, released
from flfed.records.statistics.verdict import ABSENT, Figure, number, with_interval
from flfed.records.store.entries import RunEntry, SiteEntry
from flfed.records.text import percent_of
from flfed.summaries.score_bins import ScoreBins, auc_bound, dense
from flfed.words import render

GROUPS = 10
"""Groups of calibration, of about as many rows each."""
LEAST_ROWS = 10
"""Fewest rows of such a group."""
MOST_POINTS = 200
"""Most points of a drawn curve; the others lie next to it."""
Line = tuple[np.ndarray, np.ndarray]
"""The points of a curve, x and y."""


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Rows of both classes by predicted probability, from low to high, without empty bins.

    Attributes
    ----------
    probability : array [bins]
        Middle of each bin.
    negative, positive : array [bins]
        Rows without and with the outcome.
    low, high : array [bins]
        Ends of each bin: the predictions of its rows lie between.
    """

    probability: np.ndarray
    negative: np.ndarray
    positive: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def read(cls, counts: Mapping[str, Any], bins: ScoreBins) -> Self:
        """Return the counts of a record, which has pairs of bin and rows for each class."""
        both = dense(counts, bins.bins)
        there = both.sum(axis=0) > 0
        with np.errstate(over="ignore"):  # at the ends: a probability of 0
            # The bins are of log-odds, whose ends and middles become probabilities here.
            halves = 1 / (1 + np.exp(-bins.points()))  # edge, middle, edge, middle, ..., edge
        return cls(halves[1::2][there], both[0][there], both[1][there], halves[:-2:2][there], halves[2::2][there])

    @property
    def rows(self) -> int:
        """Rows in all."""
        return int(self.negative.sum() + self.positive.sum())

    @property
    def events(self) -> int:
        """Rows with the outcome."""
        return int(self.positive.sum())

    @property
    def predicted(self) -> tuple[float, float, float]:
        """Mean predicted probability, by the middles of the bins, with its least and largest possible value."""
        share = (self.negative + self.positive) / self.rows
        return float(share @ self.probability), float(share @ self.low), float(share @ self.high)

    @property
    def has_both(self) -> bool:
        """Whether there are rows of both classes, without which no curve is defined."""
        return bool(self.negative.sum() and self.positive.sum())


def roc(counts: ScoreCounts) -> Line:
    """Return false and true positive rates, from the highest threshold to the lowest.

    Points on a straight line between their neighbours are left out, which changes neither curve nor area.
    """
    false = np.concatenate([[0.0], np.cumsum(counts.negative[::-1])])
    true = np.concatenate([[0.0], np.cumsum(counts.positive[::-1])])
    corners = _turns(false, true) != 0  # of whole numbers, so that straight is straight
    return false[corners] / false[-1], true[corners] / true[-1]


def roc_auc(counts: ScoreCounts) -> float:
    """Return the area under the ROC curve; ties within a bin count half (Hanley & McNeil 1982)."""
    false, true = roc(counts)
    return float(np.trapezoid(true, false))


def roc_auc_hidden(counts: ScoreCounts) -> float:
    """Return the largest error of `roc_auc` against the area of the rows themselves."""
    return auc_bound(counts.negative, counts.positive)


def precision_recall(counts: ScoreCounts) -> Line:
    """Return recall and precision, from the highest threshold to the lowest.

    The first point has recall 0 and the precision of the highest bin, as there is no row above it.
    """
    positive = np.cumsum(counts.positive[::-1])
    all_rows = np.cumsum((counts.negative + counts.positive)[::-1])
    precision = positive / all_rows
    recall = positive / positive[-1]
    return np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])


def average_precision(counts: ScoreCounts) -> float:
    """Return the average precision of scikit-learn, the sum of `(recall - recall before) * precision`."""
    recall, precision = precision_recall(counts)
    return float(np.diff(recall) @ precision[1:])


def average_precision_hidden(counts: ScoreCounts) -> float:
    """Return the largest error of `average_precision` against the value of the rows themselves.

    The value is lowest where within each bin all rows without the outcome rank above those with it, and these one
    above the other. It is highest where those with the outcome rank above, all with the same score.
    """
    negative = counts.negative[::-1]
    positive = counts.positive[::-1].astype(int)
    below = np.cumsum(negative)
    above = below - negative
    true_positives = np.cumsum(positive)
    place = np.arange(1, positive.sum() + 1)
    # The worst order within a bin: its rows without the outcome rank above all others.
    low = (place / (place + np.repeat(below, positive))).mean()
    there = positive > 0
    # The best order: the rows with the outcome count only those of higher bins against them.
    high = positive[there] @ (true_positives[there] / (true_positives[there] + above[there])) / positive.sum()
    value = average_precision(counts)
    return float(max(value - low, high - value))


def steps(x: np.ndarray, y: np.ndarray) -> Line:
    """Return a curve as steps of straight lines, with the later point's height between two points.

    So the area under a drawn curve of precision and recall is the average precision.
    """
    return np.repeat(x, 2)[:-1], np.concatenate([y[:1], np.repeat(y[1:], 2)])


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> Line:
    """Return at most `most` points of a curve, which draw the same picture as straight lines.

    Points on a line between their neighbours are left out first, then those of the smallest triangle with them.

    Source: Visvalingam & Whyatt 1993, "Line generalisation by repeated elimination of points".
    """
    # Of equal points one stays, else the two corners that they make would both seem straight.
    x, y = (axis[np.r_[True, (np.diff(x) != 0) | (np.diff(y) != 0)]] for axis in (x, y))
    corners = np.abs(_turns(x, y)) > 1e-12
    x, y = x[corners], y[corners]
    while len(x) > most:
        least = int(np.argmin(np.abs(_turns(x, y))))
        x, y = np.delete(x, least), np.delete(y, least)
    return x, y


def _turns(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return twice the signed area of each point's triangle with its neighbours; both ends are infinite."""
    inner = np.diff(x[:-1]) * np.diff(y[1:]) - np.diff(y[:-1]) * np.diff(x[1:])
    return np.concatenate([[np.inf], inner, [np.inf]])


@dataclass(frozen=True)
class Group:
    """Group of rows of like predictions, with mean prediction and share with the outcome.

    Attributes
    ----------
    predicted, observed : float
        Mean predicted probability, by the middles of the bins, and share with the outcome.
    low, high : float
        95 % interval of `observed`.
    rows : int
    least, most : float
        Bounds of the mean prediction of the rows themselves.
    """

    predicted: float
    observed: float
    low: float
    high: float
    rows: int
    least: float
    most: float

    @property
    def too_high(self) -> bool:
        """Whether the prediction is too high, by more than chance and the width of the bins explain."""
        return self.least > self.high

    @property
    def too_low(self) -> bool:
        """Whether the prediction is too low, by more than chance and the width of the bins explain."""
        return self.most < self.low


def calibration(counts: ScoreCounts) -> list[Group]:
    """Return calibration groups of about equally many rows, from low to high predictions.

    No group has fewer than `LEAST_ROWS` rows. A bin is never divided, so groups may be larger, and fewer than `GROUPS`.
    The mean prediction of a group is that of the middles of its bins.
    """
    if counts.rows < LEAST_ROWS:
        return []
    least = max(LEAST_ROWS, counts.rows / GROUPS)
    groups: list[list[int]] = [[]]
    rows = counts.negative + counts.positive
    for place in range(len(rows)):
        groups[-1].append(place)
        # A last group that would be too small stays part of the one before.
        if rows[groups[-1]].sum() >= least and rows[place + 1 :].sum() >= LEAST_ROWS:
            groups.append([])
    return [_group(counts, np.array(places)) for places in groups if places]


def _group(counts: ScoreCounts, places: np.ndarray) -> Group:
    parts = (counts.probability, counts.negative, counts.positive, counts.low, counts.high)
    there = ScoreCounts(*(part[places] for part in parts))
    low, high = wilson(there.events, there.rows)
    predicted, least, most = there.predicted
    return Group(predicted, there.events / there.rows, low, high, there.rows, least, most)


def wilson(events: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a share, by Wilson 1927.

    Examples
    --------
    >>> [round(bound, 4) for bound in wilson(5, 10)]
    [0.2366, 0.7634]
    """
    share = events / n
    z = NORMAL_95
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


TOGETHER = "sites together"
ALL = f"all {TOGETHER}"
SITES_DRAWN = 6
"""Sites drawn by default, beside all together."""
ONE_CLASS = "not defined: one class only"
NOT_COMPARABLE = "– (not comparable)"
CountsByName = dict[str, ScoreCounts]
APART = "intervals do not meet"


def is_together(name: str) -> bool:
    """Return whether a curve is of several sites; no site has a name of several words.

    Examples
    --------
    >>> is_together("2 of 4 sites together"), is_together("long-beach")
    (True, False)
    """
    return name.endswith(f" {TOGETHER}")


@dataclass(frozen=True, kw_only=True)
class ScoreHistograms:
    """The object "score-histograms" of a run; `ScoreCounts.read` reads counts, by the bins that the object names.

    Attributes
    ----------
    combined_sites, requested_sites : int
        Sites whose counts may be added up, and sites with a request.
    all_ : object or None
        Counts of those added up.
    sites : dict of name to object
        Counts of each site.
    """

    combined_sites: int
    requested_sites: int
    all_: Any = None
    sites: dict[str, Any] = field(default_factory=dict)

    @property
    def whole(self) -> str:
        """Name of the sites whose counts are added up."""
        if self.combined_sites >= self.requested_sites:
            return ALL
        return f"{self.combined_sites} of {self.requested_sites} {TOGETHER}"


def read_score_counts(payload: Mapping[str, Any]) -> CountsByName:
    """Return the score counts of a record: all sites together where these are several, then each by name."""
    recorded = read(ScoreHistograms, payload)
    bins = ScoreBins.of(payload)
    counts_by_name = {}
    # One site's counts alone would be drawn twice: as its own and as those of all together.
    if recorded.all_ and recorded.combined_sites > 1:
        counts_by_name[recorded.whole] = ScoreCounts.read(recorded.all_, bins)
    for site in sorted(recorded.sites):
        counts_by_name[site] = ScoreCounts.read(recorded.sites[site], bins)
    return counts_by_name


def drawn_first(counts_by_name: CountsByName) -> list[str]:
    """Return the sites to draw, those with most rows, by name."""
    sites = [name for name in counts_by_name if not is_together(name)]
    return sorted(sorted(sites, key=lambda site: -counts_by_name[site].rows)[:SITES_DRAWN])


def says_whose(payload: Mapping[str, Any], sites: Sequence[SiteEntry]) -> list[str]:
    """Return the sites whose rows the curves show, and why others have none.

    Parameters
    ----------
    payload : dict
        The object "score-histograms" of a run.
    sites : sequence of SiteEntry
        Of the run; refused ones do not count.
    """
    recorded = read(ScoreHistograms, payload)
    first = render("report.curves.whose")
    if not recorded.all_:
        first = render("report.curves.each")
    elif recorded.combined_sites < recorded.requested_sites:
        first = render("report.curves.some", sites=recorded.combined_sites, of=recorded.requested_sites)
    lines = [first]
    silent = [site.site for site in sites if site.status != "refused" and site.site not in recorded.sites]
    if silent:
        lines.append(render("report.curves.uncounted", sites=name_sites(silent)))
    return lines


def area_line(name: str, counts: ScoreCounts, report: Report) -> dict[str, str]:
    """Return the areas under the curves of some rows, for a table."""
    return {
        "Rows of": name,
        "Test rows": f"{counts.rows}",
        "With the outcome": f"{counts.events} ({percent_of(counts.events, counts.rows)} %)",
        "AUC, from rows": _of_rows(name, report, "roc_auc_score"),
        "AUC, of the curve": _of_curve(counts, roc_auc, roc_auc_hidden),
        "Average precision, from rows": _of_rows(name, report, "average_precision_score"),
        "Average precision, of the curve": _of_curve(counts, average_precision, average_precision_hidden),
    }


def _of_rows(name: str, report: Report, metric: str) -> str:
    """Return the recorded figure of a line's rows with its interval; some sites together have none."""
    if is_together(name) and name != ALL:
        return NOT_COMPARABLE
    run = run_of(report)
    arm = run.global_ if name == ALL else site_of(run.sites.get(name, {})).global_
    return with_interval(figure_of(arm, metric))


def _of_curve(
    counts: ScoreCounts, value: Callable[[ScoreCounts], float], hidden: Callable[[ScoreCounts], float]
) -> str:
    """Return a curve's figure with its largest error against the figure of the rows, rounded up."""
    if not counts.has_both:
        return ONE_CLASS
    return f"{number(value(counts))} ± {_rounded_up(hidden(counts))}"


def _rounded_up(reach: float) -> str:
    return number(math.ceil(reach * 1000 - 1e-9) / 1000)


def calibration_line(name: str, counts: ScoreCounts, report: Report) -> dict[str, str]:
    """Return how well predictions hold on some rows, for a table."""
    groups = calibration(counts)
    predicted = observed = ABSENT
    if counts.rows:
        mean, least, most = counts.predicted
        low, high = wilson(counts.events, counts.rows)
        # Groups of few rows each may hide what all rows together show.
        predicted = f"{number(mean)} ± {_rounded_up(max(mean - least, most - mean))}"
        if least > high:
            predicted += ", too high"
        elif most < low:
            predicted += ", too low"
        observed = with_interval(Figure(counts.events / counts.rows, low, high))
    agreement = f"fewer than {LEAST_ROWS} rows"
    if groups:
        agreement = describe_calibration(groups)
    line = {"Rows of": name, "Predicted, mean": predicted, "Observed share": observed, "Predictions hold in": agreement}
    return line | {"Brier score (lower is better)": _of_rows(name, report, "brier_score_loss")}


def describe_calibration(groups: Sequence[Group]) -> str:
    """Return in how many groups predictions hold, within the interval of the observed share."""
    high = sum(group.too_high for group in groups)
    low = sum(group.too_low for group in groups)
    parts = [f"{len(groups) - high - low} of {len(groups)} groups"]
    if high:
        parts.append(f"too high in {high}")
    if low:
        parts.append(f"too low in {low}")
    return "; ".join(parts)


def group_lines(groups: Mapping[str, Sequence[Group]]) -> list[dict[str, Any]]:
    """Return the calibration groups of a chart, a line each."""
    lines = []
    for name, of in groups.items():
        for one in of:
            line = {"Rows of": name, "Predicted, mean": one.predicted}
            line |= {"Predicted, at least": one.least, "Predicted, at most": one.most}
            line |= {"Observed share": one.observed, "95 % low": one.low, "95 % high": one.high}
            lines.append(line | {"Rows": one.rows})
    return lines


def no_curves_in_words(run: RunEntry, run_report: Report) -> str:
    """Return why a run has no curves, and the remedy.

    Parameters
    ----------
    run : RunEntry
        The first repeat.
    run_report : dict
        The report in the reader's view: of all sites together, or of one site.
    """
    if run.task != "binary":
        kinds = {"regression": "a number", "multi-class": "one of several classes"}
        return render("report.curves.task", outcome=kinds.get(run.task, run.task.replace("-", " ")))
    status = "running" if run.status == "running" else "ended"
    if not released(run_report).is_exact:
        return render(f"report.no-scores.{status}")
    report = run_of(run_report)
    if not (report.global_ or any(site_of(site).global_ for site in report.sites.values())):
        return render(f"report.no-curves.{status}")
    return render("report.curves.nobody")


@dataclass(frozen=True)
class GroupFigure:
    """Area under the ROC curve within a group; None where undefined or withheld, with the reason in `method`."""

    column: str
    group: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = ""


@dataclass(frozen=True)
class Subgroups:
    """The object "subgroups" of a run: the figures of each site, and the number of sites with a request."""

    sites: dict[str, list[GroupFigure]]
    requested_sites: int = 0

    @property
    def every(self) -> list[GroupFigure]:
        """The figures of all sites."""
        return [of for groups in self.sites.values() for of in groups]


def grouped_columns(subgroups: Subgroups) -> list[str]:
    """Return the columns of a run's groups."""
    return list(dict.fromkeys(of.column for of in subgroups.every))


def grouped_lines(subgroups: Subgroups, column: str) -> list[dict[str, str]]:
    """Return the AUC within the groups of a column, a line a site.

    Parameters
    ----------
    subgroups : Subgroups
    column : str
        One of `grouped_columns`.
    """
    lines = []
    for site, groups in sorted(subgroups.sites.items()):
        own = [of for of in groups if of.column == column]
        bounds = [(of.low, of.high) for of in own if of.low is not None and of.high is not None]
        lowest = min((high for _, high in bounds), default=0.0)
        clear = "none" if len(bounds) > 1 else ABSENT
        if any(low > lowest for low, _ in bounds):
            clear = APART
        lines.append({"Rows of": site} | {of.group: _of_group(of) for of in own} | {"Clear difference": clear})
    return lines


def _of_group(of: GroupFigure) -> str:
    if of.value is None:
        return of.method or ABSENT
    return with_interval(of)
