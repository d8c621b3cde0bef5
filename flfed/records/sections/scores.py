"""Sections on the scores of test rows.

They say how well the shared model ranks, whether its probabilities hold, who would be flagged, and whether that is of
use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from flfed.records.charts.by_round import of_all_sites, of_each_site
from flfed.records.charts.chart import is_stretched
from flfed.records.charts.colours import Looks
from flfed.records.charts.curves import calibration_chart, decision_chart, precision_chart, roc_chart
from flfed.records.charts.histograms import scores_chart
from flfed.records.objects import read
from flfed.records.reports.round_totals import ON_ROWS
from flfed.records.section import Drawing, Section, Table
from flfed.records.statistics import Report
from flfed.records.statistics.noised_scores import (
    NO_CURVES,
    NOISE,
    NoisedScores,
    count_lines,
    figure_lines,
    lost_in_words,
    noised_scores,
    scores_in_words,
    shown_counts,
)
from flfed.records.statistics.operating_points import (
    DECISION_READ,
    EXACT,
    FROM_BINS,
    HOW_FLAGGED,
    MARKS_READ,
    NET_BENEFIT_READ,
    RARE,
    ExactPoints,
    OperatingPoint,
    ahead_line,
    at_budget,
    at_threshold,
    choose_thresholds,
    counts_line,
    decision_curve,
    edges,
    exact_at_thresholds,
    exact_lines,
    figures_line,
    first_budget,
    first_in_words,
    first_threshold,
    list_operating_points,
    net_benefit_line,
    point_in_words,
    share_with_outcome,
)
from flfed.records.statistics.score_curves import (
    ALL,
    AREAS_READ,
    CALIBRATION_READ,
    GROUPS_READ,
    LEAST_ROWS,
    STRETCHED,
    CountsByName,
    Group,
    ScoreCounts,
    Subgroups,
    area_line,
    average_precision,
    calibration,
    calibration_line,
    describe_calibration,
    group_lines,
    grouped_columns,
    grouped_lines,
    is_together,
    precision_recall,
    roc,
    roc_auc,
    thinned,
)
from flfed.records.statistics.verdict import metric_name, number, sentence_case
from flfed.records.store.entries import CurvePoint

Payload = Mapping[str, Any]
SCORED = "How the scores lie"
RANKS = "How well it ranks"
COURSE = "Course of the training"
CALIBRATED = "Whether its probabilities hold (calibration)"
EXACTLY_FLAGGED = "Who would be flagged, at the study's own thresholds"
DRAWN_BESIDE = 6
"""Charts of calibration, or of net benefit, at most: all sites together, and those with most rows."""
AS_THEY_CAME = (
    "Each line is how far the noise on its bar may reach, 95 % of the time; where it comes down to 0 there may be "
    "nobody at all. In the table the counts are as they came, which may be below 0, and so they go into the figures."
)


def course(points: Sequence[CurvePoint], metric: str, arm: str, looks: Looks, *, repeated: bool) -> Section | None:
    """Return a figure by round, of all sites together and of each; None where no round has one.

    `arm` is of which rows it is, `repeated` whether of several repeats.
    """
    drawn_points = [point for point in points if point.value is not None and point.round]
    if not drawn_points:
        return None
    name = metric_name(metric)
    last = max(point.round for point in drawn_points)
    rows = f"These curves are {ON_ROWS.get(arm, arm)}."
    if repeated:
        rows += " They are means over the repeats."
    charts = {
        "all sites together": partial(of_all_sites, drawn_points, metric),
        "each site": partial(of_each_site, drawn_points, metric, looks),
    }
    drawings = []
    for whose, draw in charts.items():
        title = f"{name} by round, {whose}"
        drawings.append(Drawing(title=title, draw=draw, key=title, says=f"{title}, up to round {last}"))
    return Section(title=COURSE, charts=tuple(drawings), note=(rows,))


def ranking(
    counts_by_name: CountsByName, shown: CountsByName, looks: Looks, report: Report, *, lead: Sequence[str] = ()
) -> Section:
    """Return how well the shared model ranks: curves and the areas below them.

    Parameters
    ----------
    counts_by_name : dict of name to ScoreCounts
        Those of the table.
    shown : dict of name to ScoreCounts
        Those of the charts, drawn in this order.
    looks : mapping of site to colour and dash
    report : dict
        Of the repeat that the counts are of.
    lead : sequence of str
    """
    areas = "; ".join(f"{name}: AUC {number(roc_auc(counts))}" for name, counts in shown.items())
    means = "; ".join(f"{name}: average precision {number(average_precision(of))}" for name, of in shown.items())

    charts = [
        Drawing(
            title="ROC curve (up and to the left is better)",
            draw=lambda: roc_chart(shown, looks),
            key="roc",
            says=f"ROC curve. {areas}",
            lines=_curve_lines(shown, lambda of: thinned(*roc(of)), "False positive rate", "True positive rate"),
        ),
        Drawing(
            title="Precision and recall (up and right is better)",
            draw=lambda: precision_chart(shown, looks),
            key="precision-recall",
            says=f"Precision and recall. {means}",
            # The table has every threshold, the chart only the points that change its picture.
            lines=_curve_lines(shown, precision_recall, "Recall", "Precision"),
        ),
    ]
    return Section(
        title=RANKS,
        lead=tuple(lead),
        charts=tuple(charts) if shown else (),
        tables=(Table(lines=[area_line(name, counts, report) for name, counts in counts_by_name.items()]),),
        note=(AREAS_READ, *_about_areas(counts_by_name)),
    )


def _curve_lines(
    counts_by_name: CountsByName, curve: Callable[[ScoreCounts], tuple[Any, Any]], x: str, y: str
) -> list[dict[str, Any]]:
    """Return the points of curves as lines of a table."""
    lines = []
    for name, counts in counts_by_name.items():
        for across, up in zip(*curve(counts), strict=True):
            lines.append({"Rows of": name, x: float(across), y: float(up)})
    return lines


def _about_areas(counts_by_name: CountsByName) -> list[str]:
    """Return which curves are not drawn, are of some sites, or say little."""
    sentences = []
    one_class = sorted(name for name, counts in counts_by_name.items() if not counts.has_both)
    if one_class:
        sentences.append(f"Not drawn, as all rows are of one class: {', '.join(one_class)}.")
    # The record's figure over all sites is of other rows than a curve of some of them.
    part = [name for name in counts_by_name if is_together(name) and name != ALL]
    if part:
        sentences.append(
            f"The figures from rows are of all sites together, not of {part[0]}: they do not stand beside these."
        )
    # A curve is as rough as the rows of its rarer class are few.
    rarer = {name: min(counts.events, counts.rows - counts.events) for name, counts in counts_by_name.items()}
    few = ", ".join(f"{name} ({rows})" for name, rows in rarer.items() if rows < LEAST_ROWS)
    if few:
        sentences.append(f"Curves that say little, of fewer than {LEAST_ROWS} rows of the rarer class: {few}.")
    return sentences


def noised(report: Report, name: str = "", *, lead: Sequence[str] = ()) -> Section:
    """Return noised counts by score with the figures that follow from them, in place of curves.

    Parameters
    ----------
    report : dict
        Of one repeat, or the first one's counts beside the figures of all.
    name : str
        Whose counts are drawn, one of `NoisedScores.whose`; the first by default.
    lead : sequence of str
    """
    recorded = noised_scores(report) or NoisedScores()
    counts = recorded.whose
    if not counts:
        why = recorded.reason or "none came"
        return Section(title=SCORED, lead=(*lead, NO_CURVES, f"There are no counts by score to show: {why}."))
    name = name or next(iter(counts))
    lines = count_lines(counts[name])
    site = name if name in recorded.sites else ""
    sentences = scores_in_words(report, site)
    title = f"Test rows by class and predicted probability ({name})"
    drawing = Drawing(
        title=title,
        draw=lambda: scores_chart(lines, f"{report['privacy']['unit']}s"),
        key="noised-counts",
        says=f"{title}. {'; '.join(sentences)}",
        lines=lines,
    )
    return Section(
        title=SCORED,
        lead=(*lead, NO_CURVES, *lost_in_words(report, "roc_auc_score")),
        charts=(drawing,),
        tables=(
            Table(lines=figure_lines(report)),
            Table(title=title, lines=shown_counts(counts[name]), is_drawn=True),
        ),
        says=tuple(sentences),
        note=(f"{AS_THEY_CAME} {NOISE}: {number(lines[0][NOISE], 1)}.",),
    )


def calibrated(
    counts_by_name: CountsByName, report: Report, looks: Looks, drawn: Sequence[Sequence[str]], *, named: bool = False
) -> Section:
    """Return what was predicted against what happened.

    Parameters
    ----------
    counts_by_name : dict of name to ScoreCounts
        Those of the table.
    report : dict
        Of the repeat that the counts are of.
    looks : mapping of site to colour and dash
    drawn : sequence of sequences of str
        Whose groups each chart has, of those that have enough rows; all charts have the same axes.
    named : bool
        Whether each chart is of one, whose name is its title.
    """
    groups = {name: calibration(counts_by_name[name]) for name in chain.from_iterable(drawn)}
    every = group_lines(groups)
    charts = []
    for names in drawn:
        shown = [name for name in names if groups[name]]
        if shown:
            charts.append(_calibration(shown, groups, every, looks, named=named))
    read_so = CALIBRATION_READ
    if every and is_stretched(every):
        read_so += STRETCHED
    lines = [calibration_line(name, counts, report) for name, counts in counts_by_name.items()]
    return Section(title=CALIBRATED, charts=tuple(charts), tables=(Table(lines=lines),), note=(read_so,))


def _calibration(
    names: Sequence[str],
    groups: Mapping[str, Sequence[Group]],
    every: Sequence[Payload],
    looks: Looks,
    *,
    named: bool,
) -> Drawing:
    """Return one of several charts of calibration; `every` are the groups of all of them."""
    lines = [line for line in every if line["Rows of"] in names]
    text = "; ".join(f"{name}: predictions hold in {describe_calibration(groups[name])}" for name in names)
    title = "Observed share against predicted probability, with 95 % CI"
    says = f"Calibration. {text}"
    if named:
        title = _title(names[0])
        says = title
    return Drawing(
        title=title,
        draw=lambda: calibration_chart(lines, names, looks, beside=every),
        key="calibration",
        says=says,
        lines=lines,
    )


def _title(name: str) -> str:
    """Return the title of a chart of one site, or of several together."""
    return sentence_case(name) if is_together(name) else name


def flagged(counts_by_name: CountsByName, *ways: tuple[str, float]) -> Section:
    """Return who would be flagged at some thresholds and alert budgets, by the stored score counts.

    Parameters
    ----------
    counts_by_name : dict of name to ScoreCounts
    *ways : (str, float)
        What flags rows, "threshold" or "alert-budget", and at what; usual ones by default.
    """
    tables = []
    for by, at in ways or _usual_ways(counts_by_name):
        flag = at_threshold if by == "threshold" else at_budget
        points = {name: flag(counts, at) for name, counts in counts_by_name.items()}
        tables += _points(points, by, at)
    return Section(title="Who would be flagged", tables=tuple(tables), note=(FROM_BINS,))


def _usual_ways(counts_by_name: CountsByName) -> list[tuple[str, float]]:
    share = share_with_outcome(counts_by_name)
    ways = [("alert-budget", budget) for budget in sorted({0.05, first_budget(share)})]
    threshold = ("threshold", first_threshold(edges(counts_by_name.values()), share))
    # Where the outcome is rare, hardly any probability is near a half.
    return [*ways, threshold] if share < RARE else [threshold, *ways]


def exactly_flagged(payload: Payload | None, *ways: tuple[str, float], note: Sequence[str] = ()) -> Section | None:
    """Return the exact counts at operating points that the study names, None where it names none.

    Parameters
    ----------
    payload : dict or None
        The object "operating-points" of a run.
    *ways : (str, float)
        Some of its `list_operating_points`, all by default.
    note : sequence of str
        What is said before how to read it.
    """
    if not payload:
        return None
    ways = ways or tuple(list_operating_points(payload))
    if not ways:
        return None
    tables = []
    exact = read(ExactPoints, payload)
    for by, at in ways:
        lines, points = exact_lines(exact, by, at)
        tables += _points(points, by, at, lines)
    kinds = dict.fromkeys(by for by, _ in ways)
    read_so = EXACT + "".join(HOW_FLAGGED.get(kind, "") for kind in kinds)
    return Section(title=EXACTLY_FLAGGED, tables=tuple(tables), note=(*note, read_so))


def _points(
    points: Mapping[str, OperatingPoint], by: str, at: float, lines: Sequence[Mapping[str, str]] = ()
) -> list[Table]:
    """Return confusion tables under what flags rows, and their figures; `lines` are those with what is withheld."""
    lines = lines or [counts_line(name, point) for name, point in points.items()]
    counts = Table(title=f"At {point_in_words(by, at)}", lead=first_in_words(points), lines=lines)
    if not points:
        return [counts]
    return [counts, Table(lines=[figures_line(name, point) for name, point in points.items()])]


def decision_curves(counts_by_name: CountsByName, payload: Payload | None, looks: Looks) -> Section | None:
    """Return net benefit by threshold: of the model, of flagging everybody, and of flagging nobody.

    Parameters
    ----------
    counts_by_name : dict of name to ScoreCounts
    payload : dict or None
        The object "operating-points" of a run: without `counts_by_name` its exact counts are drawn alone.
    looks : mapping of site to colour and dash
    """
    counts_by_name = {name: counts for name, counts in counts_by_name.items() if counts.has_both}
    exact = {name: points for name, points in exact_at_thresholds(payload).items() if points[0].events}
    curves = {name: decision_curve(counts) for name, counts in counts_by_name.items()} or exact
    if not curves:
        return None
    # Exact points of other sites together are of another curve.
    dots: dict[str, list[OperatingPoint]] = {}
    for name, points in curves.items():
        dots[name] = [point for point in exact.get(name, ()) if point.of_same_rows(points[0])]
    shown = list(curves)[:DRAWN_BESIDE]
    beside = [curves[name] for name in shown]

    def drawing(name: str) -> Drawing:
        draw = partial(decision_chart, name, curves[name], dots[name], beside, looks)
        return Drawing(title=_title(name), draw=draw, key=f"decision-{name}")

    # Between a few exact thresholds nobody knows where the model is ahead.
    ahead = [ahead_line(name, points) for name, points in curves.items()] if counts_by_name else []
    first = next(iter(curves))
    return Section(
        title="Whether acting on it is of use (decision curves)",
        lead=(NET_BENEFIT_READ,),
        charts=tuple(map(drawing, shown)),
        tables=(Table(lines=ahead), Table(lines=_net_benefits(first, counts_by_name, dots[first]))),
        note=(DECISION_READ if counts_by_name else MARKS_READ,),
    )


def _net_benefits(name: str, counts_by_name: CountsByName, exact: Sequence[OperatingPoint]) -> list[dict[str, str]]:
    """Return net benefit in figures, by rising threshold; at one threshold that of bins before the exact one."""
    points = [(point, True) for point in exact]
    if counts_by_name:
        points = [(at_threshold(counts_by_name[name], at), False) for at in choose_thresholds(counts_by_name)] + points
    points.sort(key=lambda one: one[0].threshold or 0)
    return [net_benefit_line(name, point, exact=is_exact) for point, is_exact in points]


def within_groups(payload: Payload | None, *, only: str | None = None, note: Sequence[str] = ()) -> Section | None:
    """Return how well the shared model ranks within the groups that a study names, None where it names none.

    Parameters
    ----------
    payload : dict or None
        The object "subgroups" of a run.
    only : str, optional
        The one site whose people read it.
    note : sequence of str
        What is said before how to read it.
    """
    if payload is None:
        return None
    subgroups = read(Subgroups, payload)
    if not subgroups.sites:
        return None
    tables = [
        Table(
            title=f"By {column}: AUC of the shared model (95 % CI)",
            lines=grouped_lines(subgroups, column),
            stays=1,
        )
        for column in grouped_columns(subgroups)
    ]
    return Section(
        title="How well it ranks within groups",
        tables=tuple(tables),
        note=(*note, *_describe_suppression(subgroups, only), GROUPS_READ),
    )


def _describe_suppression(subgroups: Subgroups, only: str | None) -> list[str]:
    """Return how many figures are held back, and how many sites gave none."""
    suppressed_count = sum(of.value is None for of in subgroups.every)
    verb = "is" if suppressed_count == 1 else "are"
    sentences = [
        f"Of {len(subgroups.every)} figures {suppressed_count} {verb} held back or undefined, as the cell says."
    ]
    silent = subgroups.requested_sites - len(subgroups.sites)
    if silent > 0 and only is None:
        sentences.append(f"Of {subgroups.requested_sites} sites {silent} gave no figures of their own by group.")
    return sentences
