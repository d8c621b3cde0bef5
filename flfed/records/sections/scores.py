"""Sections on the scores of test rows: discrimination, calibration, flagged rows, and net benefit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from flfed.records.charts.by_round import counted_in_bins, of_all_sites, of_each_site
from flfed.records.charts.chart import is_stretched
from flfed.records.charts.colours import Looks
from flfed.records.charts.curves import calibration_chart, decision_chart, precision_chart, roc_chart, scores_chart
from flfed.records.objects import read
from flfed.records.reports.round_totals import ON_ROWS
from flfed.records.section import Drawing, Section, Table
from flfed.records.statistics import Report, score_curves
from flfed.records.statistics import noised_scores as with_noise
from flfed.records.statistics import operating_points as flagging
from flfed.records.statistics.score_curves import CountsByName
from flfed.records.statistics.verdict import metric_name, number, sentence_case
from flfed.records.store.entries import CurvePoint
from flfed.words import render

Payload = Mapping[str, Any]
SCORED = "Predicted scores"
RANKS = "Discrimination"
COURSE = "Training by round"
CALIBRATED = "Calibration"
FLAGGED = "Flagged rows"
DRAWN_BESIDE = 6
"""Most charts of calibration, or of net benefit: all sites together, and those with most rows."""


def course(points: Sequence[CurvePoint], metric: str, arm: str, looks: Looks, *, repeated: bool) -> Section | None:
    """Return a figure by round, of all sites together and of each; None where no round has one.

    `arm` names the rows, `repeated` is whether the points are means over repeats.
    """
    drawn_points = [point for point in points if point.value is not None and point.round]
    if not drawn_points:
        return None
    name = metric_name(metric)
    last = max(point.round for point in drawn_points)
    note = [render("pages.rounds.measured", rows=ON_ROWS.get(arm, arm))]
    if repeated:
        note.append(render("pages.rounds.repeats"))
    reach = counted_in_bins(drawn_points, metric)
    charts = {
        f"{name} by round, all sites together": partial(of_all_sites, drawn_points, metric),
        f"{name} by round, each site": partial(of_each_site, drawn_points, metric, looks),
    }
    drawings = []
    for title, draw in charts.items():
        drawings.append(
            Drawing(title=title, draw=draw, key=title, says=f"{title}, up to round {last}. {reach}".strip())
        )
    return Section(title=COURSE, charts=drawings, note=[*note, *filter(None, [reach])])


def ranking(
    counts_by_name: CountsByName, shown: CountsByName, looks: Looks, report: Report, *, lead: Sequence[str] = ()
) -> Section:
    """Return the shared model's discrimination: curves and the areas below them.

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
    areas = "; ".join(f"{name}: AUC {number(score_curves.roc_auc(counts))}" for name, counts in shown.items())
    precisions = {name: number(score_curves.average_precision(counts)) for name, counts in shown.items()}
    means = "; ".join(f"{name}: average precision {precision}" for name, precision in precisions.items())

    def thinned_roc(counts: score_curves.ScoreCounts) -> score_curves.Line:
        return score_curves.thinned(*score_curves.roc(counts))

    title = render("pages.scores.roc")
    points = _curve_lines(shown, thinned_roc, "False positive rate", "True positive rate")
    draw = partial(roc_chart, shown, looks)
    curve = Drawing(title=title, draw=draw, key="roc", says=f"ROC curve. {areas}", lines=points)
    title = render("pages.scores.precision")
    # The table has every threshold, the chart only visible points.
    points = _curve_lines(shown, score_curves.precision_recall, "Recall", "Precision")
    draw = partial(precision_chart, shown, looks)
    says = f"Precision and recall. {means}"
    charts = (curve, Drawing(title=title, draw=draw, key="precision-recall", says=says, lines=points))
    lines = [score_curves.area_line(name, counts, report) for name, counts in counts_by_name.items()]
    note = (render("report.curves.areas"), *_about_areas(counts_by_name))
    return Section(title=RANKS, lead=lead, charts=charts if shown else (), tables=(Table(lines=lines),), note=note)


def _curve_lines(
    counts_by_name: CountsByName, curve: Callable[[score_curves.ScoreCounts], tuple[Any, Any]], x: str, y: str
) -> list[dict[str, Any]]:
    """Return the points of curves as lines of a table."""
    lines = []
    for name, counts in counts_by_name.items():
        for across, up in zip(*curve(counts), strict=True):
            lines.append({"Rows of": name, x: float(across), y: float(up)})
    return lines


def _about_areas(counts_by_name: CountsByName) -> list[str]:
    """Return which curves are not drawn, cover only some sites, or are uncertain."""
    sentences = []
    one_class = sorted(name for name, counts in counts_by_name.items() if not counts.has_both)
    if one_class:
        sentences.append(render("pages.scores.single", sites=", ".join(one_class)))
    # The record's figure over all sites covers other rows than a curve of some of them.
    part = [name for name in counts_by_name if score_curves.is_together(name) and name != score_curves.ALL]
    if part:
        sentences.append(render("pages.scores.part", sites=part[0]))
    # Few rows of the rarer class make a rough curve.
    rarer = {name: min(counts.events, counts.rows - counts.events) for name, counts in counts_by_name.items()}
    few = ", ".join(f"{name} ({rows})" for name, rows in rarer.items() if rows < score_curves.LEAST_ROWS)
    if few:
        sentences.append(render("pages.scores.few", rows=score_curves.LEAST_ROWS, sites=few))
    return sentences


def noised(report: Report, name: str = "", *, lead: Sequence[str] = ()) -> Section:
    """Return noised counts by score with the figures that follow from them, in place of curves.

    Parameters
    ----------
    report : dict
        Of one repeat, or the first one's counts beside the figures of all.
    name : str
        Name of the counts to draw, one of `NoisedScores.whose`; the first by default.
    lead : sequence of str
    """
    recorded = with_noise.noised_scores(report) or with_noise.NoisedScores()
    counts = recorded.whose
    if not counts:
        why = render("pages.scores.none", reason=recorded.reason or "none came")
        return Section(title=SCORED, lead=(*lead, render("report.noised.curves"), why))
    name = name or next(iter(counts))
    lines = with_noise.count_lines(counts[name])
    site = name if name in recorded.sites else ""
    sentences = with_noise.scores_in_words(report, site)
    title = render("pages.scores.counts", rows=name)
    draw = partial(scores_chart, lines, f"{report['privacy']['unit']}s")
    says = f"{title}. {'; '.join(sentences)}"
    drawing = Drawing(title=title, draw=draw, key="noised-counts", says=says, lines=lines)
    lead = (*lead, render("report.noised.curves"), *with_noise.lost_in_words(report, "roc_auc_score"))
    figures = Table(lines=with_noise.figure_lines(report))
    table = Table(title=title, lines=with_noise.shown_counts(counts[name]), is_drawn=True)
    note = (render("pages.noise.scores"), f"{with_noise.NOISE}: {number(lines[0][with_noise.NOISE], 1)}.")
    charts = (drawing,)
    return Section(title=SCORED, lead=lead, charts=charts, tables=(figures, table), says=sentences, note=note)


def calibrated(
    counts_by_name: CountsByName, report: Report, looks: Looks, drawn: Sequence[Sequence[str]], *, named: bool = False
) -> Section:
    """Return observed against predicted probabilities.

    Parameters
    ----------
    counts_by_name : dict of name to ScoreCounts
        Those of the table.
    report : dict
        Of the repeat that the counts are of.
    looks : mapping of site to colour and dash
    drawn : sequence of sequences of str
        Names in each chart, of those with enough rows; all charts have the same axes.
    named : bool
        Whether each chart has one name, which is its title.
    """
    groups = {name: score_curves.calibration(counts_by_name[name]) for name in chain.from_iterable(drawn)}
    every = score_curves.group_lines(groups)
    charts = []
    for names in drawn:
        shown = [name for name in names if groups[name]]
        if shown:
            charts.append(_calibration(shown, groups, every, looks, named=named))
    note = [render("report.curves.calibration", least=score_curves.LEAST_ROWS)]
    if every and is_stretched(every):
        note.append(render("report.curves.stretched"))
    lines = [score_curves.calibration_line(name, counts, report) for name, counts in counts_by_name.items()]
    return Section(title=CALIBRATED, charts=charts, tables=(Table(lines=lines),), note=(" ".join(note),))


def _calibration(
    names: Sequence[str],
    groups: Mapping[str, Sequence[score_curves.Group]],
    every: Sequence[Payload],
    looks: Looks,
    *,
    named: bool,
) -> Drawing:
    """Return one of several charts of calibration; `every` are the groups of all of them."""
    lines = [line for line in every if line["Rows of"] in names]
    text = "; ".join(f"{name}: predictions hold in {score_curves.describe_calibration(groups[name])}" for name in names)
    title = render("pages.scores.calibration")
    says = f"Calibration. {text}"
    if named:
        title = _title(names[0])
        says = title
    draw = partial(calibration_chart, lines, names, looks, beside=every)
    return Drawing(title=title, draw=draw, key="calibration", says=says, lines=lines)


def _title(name: str) -> str:
    """Return the title of a chart of one site, or of several together."""
    return sentence_case(name) if score_curves.is_together(name) else name


def flagged(counts_by_name: CountsByName) -> Section:
    """Return the rows flagged at a usual threshold and usual alert budgets, by the stored score counts."""
    share = flagging.share_with_outcome(counts_by_name)
    at_budgets = [flagged_at_budget(counts_by_name, budget) for budget in sorted({0.05, flagging.first_budget(share)})]
    threshold = flagging.first_threshold(flagging.edges(counts_by_name.values()), share)
    at_threshold = flagged_at_threshold(counts_by_name, threshold)
    # Where the outcome is rare, hardly any probability is near a half.
    sections = [*at_budgets, at_threshold] if share < flagging.RARE else [at_threshold, *at_budgets]
    tables = [table for section in sections for table in section.tables]
    return replace(at_threshold, tables=tables)


def flagged_at_threshold(counts_by_name: CountsByName, threshold: float) -> Section:
    """Return the rows flagged at a threshold, by the stored score counts."""
    points = {name: flagging.at_threshold(counts, threshold) for name, counts in counts_by_name.items()}
    return _from_bins(points, flagging.threshold_in_words(threshold))


def flagged_at_budget(counts_by_name: CountsByName, budget: float) -> Section:
    """Return the rows flagged at an alert budget, a share of the rows, by the stored score counts."""
    points = {name: flagging.at_budget(counts, budget) for name, counts in counts_by_name.items()}
    return _from_bins(points, flagging.budget_in_words(budget))


def _from_bins(points: Mapping[str, flagging.OperatingPoint], rule: str) -> Section:
    lines = [flagging.counts_line(name, point) for name, point in points.items()]
    return Section(title=FLAGGED, tables=_points(points, rule, lines), note=(render("report.points.bins"),))


def flagged_at_rates(payload: Payload | None, *rates: float, note: Sequence[str] = ()) -> Section | None:
    """Return the counts at false positive rates that the study names, None where it names none.

    Parameters
    ----------
    payload : dict or None
        The object "operating-points" of a run.
    *rates : float
        Some of its `list_rates`, all by default.
    note : sequence of str
        Sentences before how to read it.
    """
    if not payload:
        return None
    tables = []
    counts = read(flagging.RatePoints, payload)
    for rate in rates or flagging.list_rates(counts):
        lines, points = flagging.rate_lines(counts, rate)
        tables += _points(points, flagging.rate_in_words(rate), lines)
    return Section(title=render("pages.flagged.named"), tables=tables, note=(*note, render("report.points.own")))


def _points(
    points: Mapping[str, flagging.OperatingPoint], rule: str, lines: Sequence[Mapping[str, str]]
) -> list[Table]:
    """Return the lines of confusion tables of a rule that flags rows, and their figures."""
    counts = Table(title=f"At {rule}", lead=flagging.first_in_words(points), lines=lines)
    if not points:
        return [counts]
    return [counts, Table(lines=[flagging.figures_line(name, point) for name, point in points.items()])]


def decision_curves(counts_by_name: CountsByName, looks: Looks) -> Section | None:
    """Return net benefit by threshold: of the model, of flagging everybody, and of flagging nobody."""
    counts_by_name = {name: counts for name, counts in counts_by_name.items() if counts.has_both}
    curves = {name: flagging.decision_curve(counts) for name, counts in counts_by_name.items()}
    if not curves:
        return None
    shown = list(curves)[:DRAWN_BESIDE]
    beside = [curves[name] for name in shown]
    title = render("pages.scores.decision")
    charts = []
    for name in shown:
        draw = partial(decision_chart, name, curves[name], beside, looks)
        says = f"{title} of {name} by threshold, against flagging everybody and nobody"
        charts.append(Drawing(title=_title(name), draw=draw, key=f"decision-{name}", says=says))
    ahead = [flagging.ahead_line(name, points) for name, points in curves.items()]
    name = next(iter(curves))
    thresholds = flagging.choose_thresholds(counts_by_name)
    benefits = [flagging.net_benefit_line(name, flagging.at_threshold(counts_by_name[name], at)) for at in thresholds]
    lead = (render("report.points.benefit"),)
    note = (render("report.points.decision"),)
    return Section(title=title, lead=lead, charts=charts, tables=(Table(lines=ahead), Table(lines=benefits)), note=note)


def within_groups(payload: Payload | None, *, note: Sequence[str] = ()) -> Section | None:
    """Return the shared model's discrimination within the groups that a study names, None where it names none.

    Parameters
    ----------
    payload : dict or None
        The object "subgroups" of a run.
    note : sequence of str
        Sentences before how to read it.
    """
    if payload is None:
        return None
    subgroups = read(score_curves.Subgroups, payload)
    if not subgroups.sites:
        return None
    tables = []
    for column in score_curves.grouped_columns(subgroups):
        title = render("pages.scores.group", column=column)
        tables.append(Table(title=title, lines=score_curves.grouped_lines(subgroups, column), stays=1))
    count = sum(of.value is None for of in subgroups.every)
    verb = "is" if count == 1 else "are"
    sentences = [render("pages.scores.suppressed", figures=len(subgroups.every), count=count, verb=verb)]
    silent = subgroups.requested_sites - len(subgroups.sites)
    if silent > 0:
        sentences.append(render("pages.scores.silent", asked=subgroups.requested_sites, sites=silent))
    note = (*note, *sentences, render("report.curves.groups"))
    return Section(title="Discrimination within groups", tables=tables, note=note)
