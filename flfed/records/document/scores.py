"""Sections of a document on the scores of test rows.

They say how well the shared model ranks, whether its probabilities hold, who would be flagged, and whether that is of
use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flfed.records.charts.axes import is_stretched
from flfed.records.charts.colours import Looks, site_looks
from flfed.records.charts.curves import calibration_chart, decision_chart
from flfed.records.document import charts, sections
from flfed.records.document.content import Content
from flfed.records.document.markup import Markup, element, paragraphs, section, table
from flfed.records.sections.scores import ranking, within_groups
from flfed.records.statistics import point_tables, score_tables
from flfed.records.statistics.listed.noised_scores import (
    NO_CURVES,
    SCORES,
    figure_lines,
    is_covered,
    lost_in_words,
    scores_in_words,
    shown_counts,
    whose_scores,
)
from flfed.records.statistics.operating_points import (
    RARE,
    OperatingPoint,
    at_budget,
    at_threshold,
    decision_curve,
    edges,
)
from flfed.records.statistics.score_curves import (
    calibration,
)
from flfed.records.statistics.verdict import sentence_case

Lines = list[dict[str, Any]]
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
CALIBRATED = 6
"""Charts of calibration, or of net benefit, at most: all sites together, and those with most rows."""
SCORED = "How the scores lie"
FIRST_ALONE = "Of one repeat alone, the first that has these figures."


def curves(content: Content) -> Markup:
    """Return ROC, precision and recall, with the areas below them."""
    title, counted = "How well it ranks", content.counted
    if is_covered(content.found) and SCORES in content.found:
        return _noised(content)
    if counted is None:
        why = score_tables.no_curves_in_words(content.runs[0], content.found, content.sites)
        return section(title, paragraphs([why]))
    found = _drawn(counted.payload)
    whose = score_tables.says_whose(counted.payload, content.sites, only=content.only)
    which = [score_tables.one_repeat_alone(counted.run.repeat + 1, len(content.runs))] if len(content.runs) > 1 else []
    there = {name: counts for name, counts in found.items() if counts.has_both}
    looks = site_looks(site.site for site in content.sites)
    lead = [*which, " ".join(whose)]
    return sections.written(ranking(found, there, looks, counted.found, lead=lead))


def _noised(content: Content) -> Markup:
    """Return figures and counts of scores as their noise leaves them, in place of curves."""
    found = content.found
    counts = whose_scores(found[SCORES])
    if not counts:
        why = found[SCORES]["reason"] or "none came"
        return section(SCORED, paragraphs([f"There are no counts by score to show: {why}."]))
    name = next(iter(counts))
    alone = [FIRST_ALONE] if len(content.runs) > 1 else []
    whose = name if name in found[SCORES]["sites"] else ""
    return section(
        SCORED,
        paragraphs([*alone, NO_CURVES], class_="lead"),
        table(figure_lines(found)),
        paragraphs(lost_in_words(found, "roc_auc_score"), class_="note"),
        element("h3", f"Test rows by class and predicted probability ({name})"),
        table(shown_counts(counts[name]), class_="dense"),
        paragraphs(scores_in_words(found, whose), class_="note"),
    )


def _drawn(payload: Mapping[str, Any]) -> score_tables.Found:
    """Return the score counts of all sites together, and of those with most rows."""
    found = score_tables.found_in(payload)
    first = set(score_tables.drawn_first(found))
    return {name: counts for name, counts in found.items() if name in first or score_tables.is_together(name)}


def calibrated(content: Content) -> Markup:
    """Return what was predicted against what happened, a chart for each of some sites."""
    counted = content.counted
    if counted is None:
        return Markup()
    found, looks = _drawn(counted.payload), site_looks(site.site for site in content.sites)
    groups = {name: of for name, counts in found.items() if (of := calibration(counts))}
    grouped = score_tables.group_lines(groups)
    pictures = [_calibration(name, grouped, looks) for name in list(groups)[:CALIBRATED]]
    lines = [score_tables.calibration_line(name, counts, counted.found) for name, counts in found.items()]
    read = score_tables.CALIBRATION_READ
    if grouped and is_stretched(grouped):
        read += score_tables.STRETCHED
    pictured = element("div", *pictures, class_="charts") if pictures else ""
    return section(
        "Whether its probabilities hold (calibration)", pictured, table(lines), paragraphs([read], class_="note")
    )


def _calibration(name: str, lines: Lines, looks: Looks) -> Markup:
    """Return the chart of one of several, all of which have the same axes."""
    mine = [line for line in lines if line["Rows of"] == name]
    return charts.chart(_title(name), calibration_chart(mine, [name], looks, beside=lines))


def _title(name: str) -> str:
    """Return the title of a chart of one site, or of several together."""
    return sentence_case(name) if score_tables.is_together(name) else name


def flagged(content: Content) -> Markup:
    """Return who would be flagged at a threshold and at an alert budget, by the stored score counts."""
    counted = content.counted
    found = _drawn(counted.payload) if counted else {}
    if not found:
        return Markup()
    share = point_tables.share_with_outcome(found)
    threshold = point_tables.first_threshold(edges(found.values()), share)
    budgets = [("alert-budget", budget) for budget in sorted({0.05, point_tables.first_budget(share)})]
    # Where the outcome is rare, hardly any probability is near a half.
    ways = [*budgets, ("threshold", threshold)] if share < RARE else [("threshold", threshold), *budgets]
    parts = []
    for by, at in ways:
        flag = at_threshold if by == "threshold" else at_budget
        points = {name: flag(counts, at) for name, counts in found.items()}
        parts += _points(points, point_tables.point_in_words(by, at))
    return section("Who would be flagged", *parts, paragraphs([point_tables.FROM_BINS], class_="note"))


def _points(points: Mapping[str, OperatingPoint], title: str, lines: Lines | None = None) -> list[Markup]:
    """Return confusion tables with their figures, under what flags rows."""
    said = point_tables.first_in_words(points)
    return [
        element("h3", f"At {title}"),
        paragraphs([said] if said else [], class_="lead"),
        table(lines or [point_tables.counts_line(name, point) for name, point in points.items()], class_="dense"),
        table([point_tables.figures_line(name, point) for name, point in points.items()], class_="dense"),
    ]


def exactly_flagged(content: Content) -> Markup:
    """Return the exact counts at the thresholds and alert budgets that the study names."""
    payload = content.found.get("operating-points")
    asked = point_tables.asked_points(payload) if payload else []
    if payload is None or not asked:
        return Markup()
    parts = []
    for by, at in asked:
        lines, known = point_tables.exact_lines(payload, by, at)
        parts += _points(known, point_tables.point_in_words(by, at), lines)
    kinds = dict.fromkeys(by for by, _ in asked)
    read = point_tables.EXACT + "".join(point_tables.HOW_FLAGGED.get(kind, "") for kind in kinds)
    alone = [FIRST_ALONE] if len(content.runs) > 1 else []
    title = "Who would be flagged, at the study's own thresholds"
    return section(title, *parts, paragraphs([*alone, read], class_="note"))


def decision_curves(content: Content) -> Markup:
    """Return net benefit by threshold: of the model, of flagging everybody, and of flagging nobody."""
    counted = content.counted
    found = {name: of for name, of in (_drawn(counted.payload) if counted else {}).items() if of.has_both}
    payload = (counted.found if counted else content.found).get("operating-points")
    exact = {name: of for name, of in point_tables.exact_at_thresholds(payload).items() if of[0].events}
    lines = {name: decision_curve(counts) for name, counts in found.items()} or exact
    if not lines:
        return Markup()
    # Exact counts of other sites together are those of another curve.
    dots = {
        name: [point for point in points if name in lines and point.of_same_rows(lines[name][0])]
        for name, points in exact.items()
    }
    first = next(iter(lines))
    told = [(at_threshold(found[first], at), False) for at in point_tables.told_thresholds(found)] if found else []
    told += [(point, True) for point in dots.get(first, ())]
    told.sort(key=lambda one: one[0].threshold or 0)
    figures = [point_tables.net_benefit_line(first, point, exact=counts) for point, counts in told]
    looks = site_looks(site.site for site in content.sites)
    drawn = {name: lines[name] for name in list(lines)[:CALIBRATED]}
    pictures = [
        charts.chart(_title(name), decision_chart(name, points, dots.get(name, ()), list(drawn.values()), looks))
        for name, points in drawn.items()
    ]
    return section(
        "Whether acting on it is of use (decision curves)",
        paragraphs([point_tables.NET_BENEFIT_READ], class_="lead"),
        element("div", *pictures, class_="charts"),
        # Between a few exact thresholds nobody knows where the model is ahead.
        table([point_tables.ahead_line(name, points) for name, points in lines.items()] if found else []),
        table(figures, class_="dense"),
        paragraphs([point_tables.DECISION_READ if found else point_tables.MARKS_READ], class_="note"),
    )


def by_group(content: Content) -> Markup:
    """Return how well the model ranks within the groups that the study names, a few groups a table."""
    alone = [FIRST_ALONE] if len(content.runs) > 1 else []
    return sections.written(within_groups(content.found.get("subgroups"), only=content.only, note=alone))
