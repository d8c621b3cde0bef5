"""Panels of the page Curves: the sections on scores with the reader's choices.

They show discrimination, calibration, and flagged rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from flfed.records.charts.colours import MOST_COLOURED, Looks, one_in_colour
from flfed.records.dashboard import run_page, sections
from flfed.records.sections import scores
from flfed.records.statistics import Report
from flfed.records.statistics import operating_points as points
from flfed.records.statistics.noised_scores import NoisedScores, noised_scores
from flfed.records.statistics.score_curves import LEAST_ROWS, SITES_DRAWN, CountsByName, drawn_first, is_together
from flfed.records.text import heading
from flfed.words import render

MOST_DRAWN = 12
"""Sites that a reader can pick: readers cannot distinguish more colours and dashes."""
THRESHOLD = "a threshold"
BUDGET = "an alert budget"


def noised(report: Report, which: str) -> None:
    """Show noised counts by score, for the rows that the reader picks.

    `report` is of one repeat; `which` is which one, where there are several.
    """
    recorded = noised_scores(report) or NoisedScores()
    names = list(recorded.whose)
    whose = ""
    st.markdown(heading(scores.SCORED, which))
    if len(names) > 1:
        whose = str(st.selectbox("Rows of", names, key="noised-of", width=320))
    sections.show(scores.noised(report, whose), titled=False)


def choose(counts_by_name: CountsByName) -> CountsByName:
    """Return the score counts to draw: all sites together, and the sites that the reader picks."""
    sites = [name for name in counts_by_name if not is_together(name)]
    if len(sites) < 2:
        return counts_by_name
    first = drawn_first(counts_by_name)
    label = "Sites"
    if len(sites) > SITES_DRAWN:
        label = render("pages.curves.choice", sites=len(sites))
    key = f"curves-sites-{'-'.join(first)}"
    chosen = st.multiselect(label, sites, default=first, max_selections=MOST_DRAWN, key=key)
    return {name: counts for name, counts in counts_by_name.items() if is_together(name) or name in chosen}


def ranking(counts_by_name: CountsByName, looks: Looks, report: Report, which: str) -> None:
    """Show the ROC and precision-recall curves of sites with rows of both classes, and their areas."""
    shown, looks = _in_colour({name: counts for name, counts in counts_by_name.items() if counts.has_both}, looks)
    sections.show(scores.ranking(counts_by_name, shown, looks, report), which=which)


def _in_colour(counts_by_name: CountsByName, looks: Looks) -> tuple[CountsByName, Looks]:
    """Return curves and their looks; of more sites than colours, only the reader's pick is in colour."""
    sites = [name for name in counts_by_name if not is_together(name)]
    if len(sites) <= MOST_COLOURED:
        return counts_by_name, looks
    chosen = run_page.pick_site(sites, render("pages.curves.coloured", others=len(sites) - 1), "curves-colour")
    # The last curve is drawn above all others.
    order = sorted(counts_by_name, key=lambda name: (is_together(name), name == chosen))
    return {name: counts_by_name[name] for name in order}, looks | one_in_colour(sites, chosen)


def calibrated(counts_by_name: CountsByName, chosen: CountsByName, report: Report, looks: Looks, which: str) -> None:
    """Show observed against predicted probability: the chosen sites in words, one drawn with intervals."""
    st.markdown(heading(scores.CALIBRATED, which))
    sites = [name for name, counts in counts_by_name.items() if not is_together(name) and counts.rows >= LEAST_ROWS]
    drawn = [name for name in counts_by_name if is_together(name)]
    label = f"Draw {drawn[0]}, and this site" if drawn else "Draw this site"
    if sites:
        drawn.append(run_page.choose_site(sites, label=label))
    beside = chosen | {name: counts_by_name[name] for name in drawn}
    sections.show(scores.calibrated(beside, report, looks, [drawn]), titled=False)


def operating_points(counts_by_name: CountsByName, chosen: CountsByName, which: str) -> None:
    """Show the confusion tables at one threshold or alert budget.

    Thresholds on offer are the edges of the bins of `counts_by_name`: between two edges the counts do not change.

    Parameters
    ----------
    counts_by_name, chosen : dict of name to ScoreCounts
        Those of the page, and the reader's choice of them.
    which : str
        Which repeat is shown, of several.
    """
    st.markdown(heading(scores.FLAGGED, which))
    share = points.share_with_outcome(counts_by_name)
    # Where the outcome is rare, hardly any probability is near a half.
    ways = [BUDGET, THRESHOLD] if share < points.RARE else [THRESHOLD, BUDGET]
    if st.radio("Flag rows by", ways, horizontal=True, key=f"points-way-{ways[0]}") == BUDGET:
        first = 100 * points.first_budget(share)
        key = f"budget-{first}"
        typed = st.number_input(render("pages.flagged.budget"), 0.01, 99.0, first, 0.5, format="%g", key=key, width=320)
        section = scores.flagged_at_budget(chosen, float(typed) / 100)
    else:
        offered = points.edges(counts_by_name.values())
        # At first one near the share with the outcome.
        place = offered.index(points.first_threshold(offered, share))
        key = f"points-threshold-{len(offered)}-{offered[0]:.6g}"
        edge = st.selectbox(
            render("pages.flagged.least"), offered, place, format_func=points.probability, key=key, width=320
        )
        section = scores.flagged_at_threshold(chosen, float(edge))
    sections.show(section, titled=False)
    _explain("flagged", ("threshold", "alerts", "rates", "benefit"), benefit=render("report.points.benefit"))


def flagged_at_rates(payload: Mapping[str, Any], which: str) -> None:
    """Show the counts at one of the false positive rates that the study names.

    Parameters
    ----------
    payload : dict
        The object "operating-points" of a run.
    which : str
        Which repeat is shown, of several.
    """
    st.markdown(heading(render("pages.flagged.named"), which))
    rates = points.list_rates(payload)
    rate = st.selectbox("Operating point", rates, format_func=points.rate_in_words, key="points-rate", width=320)
    sections.show(scores.flagged_at_rates(payload, rate), titled=False)


def how_to_read() -> None:
    """Explain the curves, folded away."""
    keys = ("auc", "precision", "calibration", "bins", "limits")
    _explain("reading", keys, rows=LEAST_ROWS, limits=render("report.curves.limits"))


def _explain(part: str, keys: Sequence[str], **facts: object) -> None:
    """Explain a part of the page, folded away: title and sentences from its table of templates."""
    title, *sentences = (render(f"pages.{part}.{key}", **facts) for key in ("title", *keys))
    with st.expander(title):
        for sentence in sentences:
            st.markdown(sentence)
