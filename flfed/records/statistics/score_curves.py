"""ROC, precision-recall and calibration from rows that are counted by class and predicted probability.

With their tables and sentences, and why a run has no curve.
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
from flfed.records.statistics.verdict import ABSENT, interval, number, with_interval
from flfed.records.store.entries import RunEntry, SiteEntry
from flfed.study.tables import in_sums_only
from flfed.summaries.score_bins import ScoreBins, auc_bound, dense

GROUPS = 10
"""Groups of calibration, of about as many rows each."""
LEAST_ROWS = 10
"""Fewest rows of such a group."""
MOST_POINTS = 200
"""Points that a drawn curve has at most: of 256 bins the others lie within a thousandth of it."""
Line = tuple[np.ndarray, np.ndarray]
"""The points of a curve, x and y."""


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Rows of both classes by predicted probability.

    They are ordered from low to high. Bins without rows are left out.

    Attributes
    ----------
    probability : array [bins]
        Middle of each bin.
    negative, positive : array [bins]
        Rows without and with the outcome.
    low, high : array [bins]
        Where each bin begins and ends: the predictions of its rows lie between.
    """

    probability: np.ndarray
    negative: np.ndarray
    positive: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def read(cls, counts: Mapping[str, Any], bins: ScoreBins) -> Self:
        """Return the counts that a record has.

        The record has pairs of bin and rows for each class.
        """
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
        """Mean predicted probability with its bounds.

        The mean is by the middles of the rows' bins. The bounds are the least and the most that it may be.
        """
        share = (self.negative + self.positive) / self.rows
        return float(share @ self.probability), float(share @ self.low), float(share @ self.high)

    @property
    def has_both(self) -> bool:
        """Whether there are rows of both classes.

        Without rows with and without the outcome no curve is defined.
        """
        return bool(self.negative.sum() and self.positive.sum())


def roc(counts: ScoreCounts) -> Line:
    """Return false and true positive rates.

    They go from the highest threshold to the lowest, from (0, 0) to (1, 1).

    Points on a straight line between their neighbours are left out, which changes neither curve nor area.
    """
    false = np.concatenate([[0.0], np.cumsum(counts.negative[::-1])])
    true = np.concatenate([[0.0], np.cumsum(counts.positive[::-1])])
    corners = _turns(false, true) != 0  # of whole numbers, so that straight is straight
    return false[corners] / false[-1], true[corners] / true[-1]


def roc_auc(counts: ScoreCounts) -> float:
    """Return the area under the ROC curve.

    Ties within a bin count half (Hanley & McNeil 1982).
    """
    false, true = roc(counts)
    return float(np.trapezoid(true, false))


def roc_auc_hidden(counts: ScoreCounts) -> float:
    """Return the largest error of `roc_auc`.

    It is how far the area from the rows themselves may lie from it, at most.
    """
    return auc_bound(counts.negative, counts.positive)


def precision_recall(counts: ScoreCounts) -> Line:
    """Return recall and precision by threshold.

    They go from the highest threshold to the lowest. The first point has recall 0.

    Its precision is that of the highest bin, as there is no row above it.
    """
    positive, all_rows = np.cumsum(counts.positive[::-1]), np.cumsum((counts.negative + counts.positive)[::-1])
    precision, recall = positive / all_rows, positive / positive[-1]
    return np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])


def average_precision(counts: ScoreCounts) -> float:
    """Return the average precision, as scikit-learn does.

    It is the sum over thresholds of `(recall - recall before) * precision`.
    """
    recall, precision = precision_recall(counts)
    return float(np.diff(recall) @ precision[1:])


def average_precision_hidden(counts: ScoreCounts) -> float:
    """Return the largest error of `average_precision`.

    It is how far the value of the rows themselves may lie from it, at most.

    Lowest where within each bin all rows without the outcome stand above those with it, and these one
    above the other; highest where those with the outcome stand above, all with the same score.
    """
    negative, positive = counts.negative[::-1], counts.positive[::-1].astype(int)
    below, above = np.cumsum(negative), np.cumsum(negative) - negative
    true_positives, place = np.cumsum(positive), np.arange(1, positive.sum() + 1)
    # The worst order within a bin: its rows without the outcome stand above all others.
    low = (place / (place + np.repeat(below, positive))).mean()
    there = positive > 0
    # The best order: the rows with the outcome count only those of higher bins against them.
    high = positive[there] @ (true_positives[there] / (true_positives[there] + above[there])) / positive.sum()
    value = average_precision(counts)
    return float(max(value - low, high - value))


def steps(x: np.ndarray, y: np.ndarray) -> Line:
    """Return a curve as steps of straight lines.

    Its height between two points is that of the later one.

    So the area under a drawn curve of precision and recall is the average precision.
    """
    return np.repeat(x, 2)[:-1], np.concatenate([y[:1], np.repeat(y[1:], 2)])


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> Line:
    """Return at most `most` points of a curve.

    As straight lines they draw the same picture.

    Left out are first those on a line between their neighbours, then those of the smallest triangle with
    them.

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
    """Return twice each point's signed triangle area.

    The triangle is that with its neighbours. Both ends are infinite.
    """
    inner = np.diff(x[:-1]) * np.diff(y[1:]) - np.diff(y[:-1]) * np.diff(x[1:])
    return np.concatenate([[np.inf], inner, [np.inf]])


@dataclass(frozen=True)
class Group:
    """Group of rows of like predictions.

    It has what was predicted for them, on average, and what happened.

    Attributes
    ----------
    predicted, observed : float
        Mean predicted probability, by the middles of the bins, and share with the outcome.
    low, high : float
        95 % interval of `observed`.
    rows : int
    least, most : float
        Between which the mean prediction of the rows themselves lies: the bins say no more.
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
        """Whether clearly more was predicted than happened.

        The difference is more than chance and the width of the bins leave open.
        """
        return self.least > self.high

    @property
    def too_low(self) -> bool:
        """Whether clearly less was predicted than happened.

        The difference is more than chance and the width of the bins leave open.
        """
        return self.most < self.low


def calibration(counts: ScoreCounts) -> list[Group]:
    """Return calibration groups of about equally many rows.

    They are ordered from low to high predictions. None has fewer than `LEAST_ROWS` rows.

    A bin is never divided, so that groups may be larger, and fewer than `GROUPS`; of fewer rows in all there
    is none. The mean prediction of a group is that of the middles of its bins.
    """
    if counts.rows < LEAST_ROWS:
        return []
    least = max(LEAST_ROWS, counts.rows / GROUPS)
    groups: list[list[int]] = [[]]
    rows = counts.negative + counts.positive
    for place in range(len(rows)):
        groups[-1].append(place)
        left = rows[place + 1 :].sum()
        # A last group that would be too small stays part of the one before.
        if rows[groups[-1]].sum() >= least and left >= LEAST_ROWS:
            groups.append([])
    return [_group(counts, np.array(places)) for places in groups if places]


def _group(counts: ScoreCounts, places: np.ndarray) -> Group:
    parts = (counts.probability, counts.negative, counts.positive, counts.low, counts.high)
    there = ScoreCounts(*(part[places] for part in parts))
    low, high = wilson(there.events, there.rows)
    predicted, least, most = there.predicted
    return Group(predicted, there.events / there.rows, low, high, there.rows, least, most)


def wilson(events: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a share.

    It is that of Wilson 1927.

    Examples
    --------
    >>> [round(bound, 4) for bound in wilson(5, 10)]
    [0.2366, 0.7634]
    """
    share, z = events / n, NORMAL_95
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


TOGETHER = "sites together"
ALL = f"all {TOGETHER}"
SITES_DRAWN = 6
"""Sites drawn unless the reader picks others, beside all together."""
ONE_CLASS = "not defined: one class only"
NOT_COMPARABLE = "– (not comparable)"
KEY = 'outputs = ["score-histogram"]'
CountsByName = dict[str, ScoreCounts]
NOT_SHOWN = (
    "Whether acting on a prediction helps anybody, where to draw the line between yes and no, and how the model will "
    "do next year or elsewhere. With few rows of a class a curve has few, large steps, and would look different with "
    "other rows: see the 95 % CIs."
)
"""What no curve shows."""
AREAS_READ = "Higher is better for both. In brackets: the 95 % CI. Behind ±: what the counting can hide."
CALIBRATION_READ = (
    "On the dashed line the predictions hold; above it the model says too little, below it too much. "
    f"Each point is a group of at least {LEAST_ROWS} rows, and a larger one of more rows."
)
STRETCHED = " Both axes are stretched towards 0 (by the cube root), where most predictions lie."
APART = "intervals do not meet"
GROUPS_READ = (
    "Within a group the AUC compares its rows with one another only. Small groups have wide intervals: of many "
    "groups some differ by chance. A group that a site's policy holds back has its reason in place of the figure."
)


NOT_SCORED_YET = "Test rows are counted by score after the last round, with noise."
NOT_SCORED = "This run ended before its test rows were counted by score."
"""Where all that leaves is charged."""


def is_together(name: str) -> bool:
    """Tell whether a curve is of several sites.

    No site has a name of several words.

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
        Sites whose counts may be added up, and sites that were asked.
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
        """Whose rows those added up are."""
        if self.combined_sites >= self.requested_sites:
            return ALL
        return f"{self.combined_sites} of {self.requested_sites} {TOGETHER}"


def read_score_counts(payload: Mapping[str, Any]) -> CountsByName:
    """Return the score counts of a record.

    All sites together come first where these are several, then each site by name.
    """
    recorded = read(ScoreHistograms, payload)
    bins = ScoreBins.of(payload)
    counts_by_name: CountsByName = {}
    # One site's counts alone would be drawn twice: as its own and as those of all together.
    if recorded.all_ and recorded.combined_sites > 1:
        counts_by_name[recorded.whole] = ScoreCounts.read(recorded.all_, bins)
    for site in sorted(recorded.sites):
        counts_by_name[site] = ScoreCounts.read(recorded.sites[site], bins)
    return counts_by_name


def drawn_first(counts_by_name: CountsByName) -> list[str]:
    """Return the sites to draw, those of most rows, by name."""
    sites = [name for name in counts_by_name if not is_together(name)]
    return sorted(sorted(sites, key=lambda site: -counts_by_name[site].rows)[:SITES_DRAWN])


def says_whose(payload: Mapping[str, Any], sites: Sequence[SiteEntry], *, only: str | None = None) -> list[str]:
    """Return whose rows the curves are of.

    It also says why a site has none.

    Parameters
    ----------
    payload : dict
        The object "score-histograms" of a run.
    sites : sequence of SiteEntry
        Of the run; those that refused are passed over.
    only : str, optional
        The one site that the reader sees.
    """
    recorded = read(ScoreHistograms, payload)
    lines = ["The shared model on test rows, which nobody trained on."]
    if only:
        lines[0] += " Those of your site."
    elif not recorded.all_:
        lines[0] += " Over all sites together no curve may be shown."
    elif recorded.combined_sites < recorded.requested_sites:
        lines[0] += f" The counts of {recorded.combined_sites} of {recorded.requested_sites} sites may be added up."
    without = [site for site in sites if site.status != "refused" and site.site not in recorded.sites]
    # A site in sums only would get no curve of its own by naming the key.
    hidden = [site.site for site in without if in_sums_only(site.shared_as)]
    silent = [site.site for site in without if not in_sums_only(site.shared_as)]
    if silent:
        lines.append(
            f"No curve of {name_sites(silent)}: no counts of predictions came. Its policy.toml has to name {KEY}."
        )
    if hidden:
        lines.append(f"No curve of {name_sites(hidden)}, as figures of its own are not shared.")
    return lines


def one_repeat_alone(repeat: int, repeats: int) -> str:
    """Return which repeat curves are of, and why they are of one alone."""
    return (
        f"**Repeat {repeat} of {repeats} alone**: the holdouts of repeats have rows in common, so their curves are not "
        "added up."
    )


def says_which_repeat(repeat: int, repeats: int) -> str:
    """Return which repeat the page's figures are of.

    The record has several, and the sentence says why one alone is shown.
    """
    return f"**Repeat {repeat} of {repeats} alone**; others: in the margin. Overview and Sites show means."


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


def percent_of(events: int, rows: int) -> str:
    """Return a share in percent.

    It has a decimal where it is small, and is "under 0.1" where even that says nothing.

    Examples
    --------
    >>> percent_of(14, 3675), percent_of(85, 156), percent_of(1, 3675), percent_of(0, 40)
    ('0.4', '54', 'under 0.1', '0')
    """
    share = 100 * events / max(rows, 1)
    if 0 < share < 0.05:
        return "under 0.1"
    decimals = int(0 < share < 10)
    return f"{share:.{decimals}f}"


def _of_rows(name: str, report: Report, metric: str) -> str:
    """Return the figure computed from rows.

    They are the rows of whom a line is about. The figure comes with its interval.

    There is none of some of the sites together: that of the record is of all.
    """
    if is_together(name) and name != ALL:
        return NOT_COMPARABLE
    run = run_of(report)
    arm = run.global_ if name == ALL else site_of(run.sites.get(name, {})).global_
    figure = figure_of(arm, metric)
    return with_interval(figure.value, figure.low, figure.high)


def _of_curve(
    counts: ScoreCounts, value: Callable[[ScoreCounts], float], hidden: Callable[[ScoreCounts], float]
) -> str:
    """Return a curve's figure with its largest error.

    The error is how far the figure of the rows may lie from it, rounded up.
    """
    if not counts.has_both:
        return ONE_CLASS
    return f"{number(value(counts))} ± {_rounded_up(hidden(counts))}"


def _rounded_up(reach: float) -> str:
    return number(math.ceil(reach * 1000 - 1e-9) / 1000)


def calibration_line(name: str, counts: ScoreCounts, report: Report) -> dict[str, str]:
    """Return how far predictions hold on some rows, for a table."""
    groups = calibration(counts)
    predicted = observed = ABSENT
    if counts.rows:
        (mean, least, most), (low, high) = counts.predicted, wilson(counts.events, counts.rows)
        # Groups of few rows each may hide what all rows together show.
        predicted = f"{number(mean)} ± {_rounded_up(max(mean - least, most - mean))}"
        if least > high:
            predicted += ", too high"
        elif most < low:
            predicted += ", too low"
        observed = f"{number(counts.events / counts.rows)} ({interval(low, high)})"
    agreement = f"fewer than {LEAST_ROWS} rows"
    if groups:
        agreement = describe_calibration(groups)
    return {
        "Rows of": name,
        "Predicted, mean": predicted,
        "Observed share": observed,
        "Predictions hold in": agreement,
        "Brier score (lower is better)": _of_rows(name, report, "brier_score_loss"),
    }


def describe_calibration(groups: Sequence[Group]) -> str:
    """Return in how many groups predictions hold.

    They hold where the prediction may be within the interval of what happened.
    """
    high, low = sum(group.too_high for group in groups), sum(group.too_low for group in groups)
    agreement = f"{len(groups) - high - low} of {len(groups)} groups"
    off = [f"too {how} in {many}" for how, many in (("high", high), ("low", low)) if many]
    return "; ".join([agreement, *off])


def group_lines(groups: Mapping[str, Sequence[Group]]) -> list[dict[str, Any]]:
    """Return the calibration groups of a chart, a line each."""
    return [
        {
            "Rows of": name,
            "Predicted, mean": group.predicted,
            "Predicted, at least": group.least,
            "Predicted, at most": group.most,
            "Observed share": group.observed,
            "95 % low": group.low,
            "95 % high": group.high,
            "Rows": group.rows,
        }
        for name, of in groups.items()
        for group in of
    ]


def no_curves_in_words(run: RunEntry, run_report: Report, sites: Sequence[SiteEntry]) -> str:
    """Return why a run has no curves, and what to do.

    Parameters
    ----------
    run : RunEntry
        The first repeat.
    run_report : dict
        The report as the reader may see it: of all sites together, or of one site.
    sites : sequence of SiteEntry
        Of the run.
    """
    if run.task != "binary":
        kind = {"regression": "a number", "multi-class": "one of several classes"}
        return (
            "Curves of this kind are for outcomes that are yes or no; that of this study is "
            f"{kind.get(run.task, run.task.replace('-', ' '))}."
        )
    if not released(run_report).is_exact:
        return NOT_SCORED_YET if run.status == "running" else NOT_SCORED
    report = run_of(run_report)
    if not (report.global_ or any(site_of(site).global_ for site in report.sites.values())):
        if run.status == "running":
            return "The curves come with the comparison on test rows, after the last round."
        return "This run ended before its model was compared on test rows, so there are no curves."
    return (
        "No site gave the counts of its predictions by class, from which curves are drawn. A site that agrees to "
        f"give them says so in its policy.toml: `{KEY}`; then run the study again."
    )


@dataclass(frozen=True)
class GroupFigure:
    """Area under the ROC curve within a group; None where it is undefined or withheld, as `method` says."""

    column: str
    group: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = ""


@dataclass(frozen=True)
class Subgroups:
    """The object "subgroups" of a run: the figures of each site, and how many sites were asked."""

    sites: dict[str, list[GroupFigure]]
    requested_sites: int = 0

    @property
    def every(self) -> list[GroupFigure]:
        """The figures of all sites."""
        return [of for groups in self.sites.values() for of in groups]


def grouped_columns(subgroups: Subgroups) -> list[str]:
    """Return the columns by which a run was looked at group by group."""
    return list(dict.fromkeys(of.column for of in subgroups.every))


def grouped_lines(subgroups: Subgroups, column: str) -> list[dict[str, str]]:
    """Return the AUC within the groups of a column, a line a site.

    Parameters
    ----------
    subgroups : Subgroups
    column : str
        One of `grouped_columns`.
    """
    return [_grouped_line(site, column, subgroups.sites[site]) for site in sorted(subgroups.sites)]


def _grouped_line(site: str, column: str, groups: Sequence[GroupFigure]) -> dict[str, str]:
    own = [of for of in groups if of.column == column]
    bounds = [(of.low, of.high) for of in own if of.low is not None and of.high is not None]
    lowest = min((high for _, high in bounds), default=0.0)
    apart = any(low > lowest for low, _ in bounds)
    line = {"Rows of": site} | {of.group: _of_group(of) for of in own}
    # Said in words, since a reader compares many cells otherwise.
    clear = "none" if len(bounds) > 1 else ABSENT
    if apart:
        clear = APART
    return line | {"Clear difference": clear}


def _of_group(of: GroupFigure) -> str:
    if of.value is None:
        return of.method or ABSENT
    return with_interval(of.value, of.low, of.high)


def ranks_in_words(report: Report) -> list[str]:
    """Return how well the shared model puts rows of one date in order, where the study asks for it.

    Examples
    --------
    >>> [sentence] = ranks_in_words({"global": {"rank_correlation": {"value": 0.02, "low": -0.06, "high": 0.11}}})
    >>> sentence.endswith(f" 0.020 with what came (95 % CI {chr(8722)}0.060 to +0.110): no skill is shown.")
    True
    >>> ranks_in_words({"global": {}})
    []
    """
    order = figure_of(run_of(report).global_, "rank_correlation")
    if order.value is None:
        return []
    start = f"Among rows of one date its order has a mean rank correlation of {number(order.value)} with what came"
    if order.low is None or order.high is None:
        return [f"{start}."]
    conclusion = "no skill is shown"
    if order.low > 0:
        conclusion = "better than chance would"
    elif order.high < 0:
        conclusion = "worse than chance would"
    return [f"{start} (95 % CI {interval(order.low, order.high, signed=True)}): {conclusion}."]
