"""Panels of the page Curves, and of a study's statistic: what a reader picks of the sections on scores.

They show how well the shared model ranks, whether its probabilities hold, and who would be flagged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from flfed.records.charts.colours import MOST_COLOURED, Looks, one_in_colour
from flfed.records.dashboard import run_page, sections
from flfed.records.objects import read
from flfed.records.reports.faults import missing_in_words
from flfed.records.sections import data, scores
from flfed.records.statistics import Report
from flfed.records.statistics.analysis import Analysis, RowsAnalysed, tables_of
from flfed.records.statistics.noised_scores import NoisedScores, noised_scores
from flfed.records.statistics.operating_points import (
    RARE,
    edges,
    first_budget,
    first_threshold,
    list_operating_points,
    point_in_words,
    probability,
    share_with_outcome,
)
from flfed.records.statistics.recorded_statistic import ANALYSIS, statistic_in_words, statistic_tables
from flfed.records.statistics.score_curves import (
    LEAST_ROWS,
    SITES_DRAWN,
    CountsByName,
    drawn_first,
    is_together,
)
from flfed.records.text import escape, heading
from flfed.words import render

MOST_DRAWN = 12
"""Sites that a reader can pick: more colours and dashes are not told apart."""
THRESHOLD, BUDGET = "a threshold", "an alert budget"
HOW_TO_READ = f"""
**ROC and AUC.** Take one row with the outcome and one without. AUC is how often the model gives the one with the
outcome the higher probability: 0.5 is the toss of a coin (the dashed line), 1 is always. Each point of the curve is one
place to draw the line between yes and no: how many of those with the outcome are found (up), at the price of how many
false alarms among those without it (to the right).

**Precision and recall.** Of all alarms, how many are right (up), when so many of the outcomes are found (to the right).
The thin dashed line in a site's colour is what chance alone would reach: the share of its rows with the outcome. Sites
can be compared by these curves only where these shares are alike. Average precision is the area below.

**Calibration.** Rows are put into groups of like predictions, of {LEAST_ROWS} or more. On the dashed line a prediction
holds: of rows with a predicted probability of 0.3, three in ten have the outcome. A point above it means that the model
says too little, below it too much. Where an interval misses the line, chance is no likely reason; but of twenty groups
of a model that holds, about one misses it by chance. A miss that the width of the bins (below) may explain is not
counted. Few rows make wide intervals, in which a prediction holds easily: so the mean over all rows is held against the
share of all that have the outcome, too.

**Why two figures of each kind.** Sites do not send the predictions of their rows, only how many rows of each class
fall into each of 256 bins of predictions. The curves are drawn from these counts, in which two rows of one bin cannot
be told apart: what that can change at most stands behind the figure as ±. The figure "from rows" was computed by the
site itself, before anything left it; that over all sites is computed from rows where one machine holds all tables, and
from these same counts where the sites are apart.

**What is not shown.** """


HOW_FLAGGED_READ = """
**Threshold.** Every row with a predicted probability of at least so much is flagged. A choice for the same patients or
customers everywhere: sites then have different shares of alerts.

**Alert budget.** As many rows are flagged as people can look at, those of the highest predictions first. Each line has
a threshold of its own; all sites together are one list with one threshold.

**Sensitivity** is the share of those with the outcome that are flagged, **specificity** the share of those without it
that are not. **PPV** is the share of the flagged that have the outcome, **NPV** the share of the others that do not.

**Net benefit.** """


def noised(report: Report, repeat: int | None = None) -> None:
    """Show noised counts by score, of those whose rows the reader picks.

    `report` is of one repeat; `repeat` is its number where there are several.
    """
    recorded = noised_scores(report) or NoisedScores()
    names = list(recorded.whose)
    whose = ""
    st.markdown(heading(scores.SCORED, repeat))
    if len(names) > 1:
        whose = str(st.selectbox("Rows of", names, key="noised-of", width=320))
    sections.show(scores.noised(report, whose), titled=False)


def choose(counts_by_name: CountsByName) -> CountsByName:
    """Return the score counts to draw.

    They are all sites together, and the sites that the reader picks, at first those of most rows.
    """
    sites = [name for name in counts_by_name if not is_together(name)]
    if len(sites) < 2:
        return counts_by_name
    first = drawn_first(counts_by_name)
    more = f" (of {len(sites)}; at first those with most test rows)" if len(sites) > SITES_DRAWN else ""
    chosen = st.multiselect(
        f"Sites{more}", sites, default=first, max_selections=MOST_DRAWN, key=f"curves-sites-{'-'.join(first)}"
    )
    return {name: counts for name, counts in counts_by_name.items() if is_together(name) or name in chosen}


def ranking(counts_by_name: CountsByName, looks: Looks, report: Report, repeat: int | None = None) -> None:
    """Show the ROC and precision-recall curves with their areas.

    Curves are of those that have rows of both classes.
    """
    shown, looks = _in_colour({name: counts for name, counts in counts_by_name.items() if counts.has_both}, looks)
    sections.show(scores.ranking(counts_by_name, shown, looks, report), repeat=repeat)


def _in_colour(counts_by_name: CountsByName, looks: Looks) -> tuple[CountsByName, Looks]:
    """Return curves and their looks.

    Of more sites than colours, one that the reader picks is last and in colour.
    """
    sites = [name for name in counts_by_name if not is_together(name)]
    if len(sites) <= MOST_COLOURED:
        return counts_by_name, looks
    label = f"Show in colour, with the other {len(sites) - 1} sites in grey"
    chosen = run_page.pick_site(sites, label, "curves-colour")
    # What comes last is drawn above all others.
    order = sorted(counts_by_name, key=lambda name: (is_together(name), name == chosen))
    return {name: counts_by_name[name] for name in order}, looks | one_in_colour(sites, chosen)


def calibrated(
    counts_by_name: CountsByName, chosen: CountsByName, report: Report, looks: Looks, repeat: int | None = None
) -> None:
    """Show what was predicted against what happened.

    The chosen ones are told in words, and one site is drawn with intervals.
    """
    st.markdown(heading(scores.CALIBRATED, repeat))
    sites = [name for name, counts in counts_by_name.items() if not is_together(name) and counts.rows >= LEAST_ROWS]
    drawn = [name for name in counts_by_name if is_together(name)]
    label = f"Draw {drawn[0]}, and this site" if drawn else "Draw this site"
    if sites:
        drawn.append(run_page.choose_site(sites, label=label))
    beside = chosen | {name: counts_by_name[name] for name in drawn}
    sections.show(scores.calibrated(beside, report, looks, [drawn]), titled=False)


def operating_points(counts_by_name: CountsByName, chosen: CountsByName, repeat: int | None = None) -> None:
    """Show the confusion tables at one threshold or alert budget.

    Thresholds on offer are the edges of the bins of `counts_by_name`: between two of them nobody knows more.

    Parameters
    ----------
    counts_by_name, chosen : dict of name to ScoreCounts
        Those of the page, and those that the reader picked of them.
    repeat : int, optional
        The one of several that is shown.
    """
    st.markdown(heading("Who would be flagged", repeat))
    share = share_with_outcome(counts_by_name)
    # Where the outcome is rare, hardly any probability is near a half.
    ways = [BUDGET, THRESHOLD] if share < RARE else [THRESHOLD, BUDGET]
    way = st.radio("Flag rows by", ways, horizontal=True, key=f"points-way-{ways[0]}")
    if way == BUDGET:
        first = 100 * first_budget(share)
        label = "Alert budget: rows to flag, in %"
        key = f"points-budget-{first}"
        typed = st.number_input(label, 0.01, 99.0, first, 0.5, format="%g", key=key, width=320)
        point = ("alert-budget", float(typed) / 100)
    else:
        point = ("threshold", _threshold(edges(counts_by_name.values()), share))
    sections.show(scores.flagged(chosen, point), titled=False)
    with st.expander("How to read these tables"):
        st.markdown(HOW_FLAGGED_READ + render("report.points.benefit"))


def exact_counts(payload: Mapping[str, Any], repeat: int | None = None) -> None:
    """Show the counts at one of the thresholds and alert budgets that the study names.

    Parameters
    ----------
    payload : dict
        The object "operating-points" of a run.
    repeat : int, optional
        The one of several that is shown.
    """
    st.markdown(heading(scores.EXACTLY_FLAGGED, repeat))
    labels = {point: point_in_words(*point) for point in list_operating_points(payload)}
    picked = st.selectbox("Counted by the sites", labels, format_func=labels.__getitem__, key="points-exact", width=320)
    sections.show(scores.exactly_flagged(payload, picked), titled=False)


def _threshold(offered: Sequence[float], share: float) -> float:
    """Return the edge that the reader picked, at first one near the share with the outcome."""
    first = first_threshold(offered, share)
    return float(
        st.selectbox(
            "Flag a predicted probability of at least",
            offered,
            offered.index(first),
            format_func=probability,
            key=f"points-threshold-{len(offered)}-{offered[0]:.6g}",
            width=320,
        )
    )


def how_to_read() -> None:
    """Explain the curves in plain words, folded away."""
    with st.expander("How to read these curves"):
        st.markdown(HOW_TO_READ + render("report.curves.limits"))


def statistic(report: Report) -> None:
    """Show the figures of a study without a model, the first one with who took no part in it."""
    figures = report["statistics"]
    first, *others = statistic_in_words(figures, report["repeats"])
    st.markdown(f"**{escape(first)}**")
    if missing := missing_in_words(report):
        st.warning(sections.bullets(map(escape, missing)))
    tables = statistic_tables(figures)
    if figures["name"] == ANALYSIS:
        tables = tables_of(_chosen_rows(read(Analysis, figures)))
    for one in tables:
        if one.title:
            st.markdown(f"### {escape(one.title)}")
        sections.table(one.lines)
    st.markdown(sections.bullets(map(escape, others)))


def _chosen_rows(analysis: Analysis) -> RowsAnalysed:
    """Return the rows of an analysis that the reader picks, of all sites or of one, and show a histogram of them."""
    sites = analysis.by_site
    of: RowsAnalysed = analysis
    whose = ""
    with st.container(horizontal=True):
        if sites:
            whose = _pick("Rows of", [f"all {analysis.sites} sites", *sites], "analysis-rows")
            of = sites.get(whose, analysis)
        numbers = list(of.numbers)
        if not numbers:
            return of
        name = _pick("Number", numbers, "analysis-number")
        group = next(iter(of.parts))
        if len(of.parts) > 1:
            group = _pick("Group", list(of.parts), "analysis-group")
    sections.show(data.histogram(of, name, group, whose=whose, counts_each=analysis.counts_each), titled=False)
    return of


def _pick(label: str, options: Sequence[str], key: str) -> str:
    return str(st.selectbox(label, options, key=key, width=220))
