"""Panel of operating points on the page Curves.

It shows who would be flagged at a threshold or an alert budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from flfed.records.dashboard.components.tables import table
from flfed.records.statistics.operating_points import RARE, OperatingPoint, at_budget, at_threshold, edges
from flfed.records.statistics.point_tables import (
    EXACT,
    FROM_BINS,
    HOW_FLAGGED,
    NET_BENEFIT_READ,
    asked_points,
    counts_line,
    exact_lines,
    figures_line,
    first_budget,
    first_in_words,
    first_threshold,
    point_in_words,
    probability,
    share_with_outcome,
)
from flfed.records.statistics.score_curves import ScoreCounts
from flfed.records.text import escape, heading

THRESHOLD, BUDGET = "a threshold", "an alert budget"
Found = Mapping[str, ScoreCounts]

HOW_TO_READ = """
**Threshold.** Every row with a predicted probability of at least so much is flagged. A choice for the same patients or
customers everywhere: sites then have different shares of alerts.

**Alert budget.** As many rows are flagged as people can look at, those of the highest predictions first. Each line has
a threshold of its own; all sites together are one list with one threshold.

**Sensitivity** is the share of those with the outcome that are flagged, **specificity** the share of those without it
that are not. **PPV** is the share of the flagged that have the outcome, **NPV** the share of the others that do not.

**Net benefit.** """


def operating_points(found: Found, chosen: Found, repeat: int | None = None) -> None:
    """Show the confusion tables at one threshold or alert budget.

    Thresholds on offer are the edges of the bins in which `found` counts rows: between two of them nobody knows more.

    Parameters
    ----------
    found, chosen : dict of name to ScoreCounts
        Those of the page, and those that the reader picked of them.
    repeat : int, optional
        The one of several that is shown.
    """
    st.markdown(heading("Who would be flagged", repeat))
    share = share_with_outcome(found)
    # Where the outcome is rare, hardly any probability is near a half.
    ways = [BUDGET, THRESHOLD] if share < RARE else [THRESHOLD, BUDGET]
    way = st.radio("Flag rows by", ways, horizontal=True, key=f"points-way-{ways[0]}")
    if way == BUDGET:
        budget = _budget(share)
        points = {name: at_budget(counts, budget) for name, counts in chosen.items()}
    else:
        threshold = _threshold(edges(found.values()), share)
        points = {name: at_threshold(counts, threshold) for name, counts in chosen.items()}
    _say_first(points)
    table([counts_line(name, point) for name, point in points.items()])
    table([figures_line(name, point) for name, point in points.items()])
    st.caption(FROM_BINS)
    with st.expander("How to read these tables"):
        st.markdown(HOW_TO_READ + NET_BENEFIT_READ)


def exact_counts(payload: Mapping[str, Any], repeat: int | None = None) -> None:
    """Show the counts at the thresholds and alert budgets that the study names.

    Parameters
    ----------
    payload : dict
        The object "operating-points" of a run.
    repeat : int, optional
        The one of several that is shown.
    """
    st.markdown(heading("At the study's own thresholds", repeat))
    points = asked_points(payload)
    labels = {point: point_in_words(*point) for point in points}
    picked = st.selectbox("Counted by the sites", points, format_func=labels.__getitem__, key="points-exact", width=320)
    lines, known = exact_lines(payload, *picked)
    _say_first(known)
    table(lines)
    if known:
        table([figures_line(name, point) for name, point in known.items()])
    st.caption(EXACT + HOW_FLAGGED.get(picked[0], ""))


def _say_first(points: Mapping[str, OperatingPoint]) -> None:
    """Say in words what the first table is, that of all sites where it is there."""
    if said := first_in_words(points):
        st.markdown(escape(said))


def _budget(share: float) -> float:
    """Return the share of rows to flag that the reader typed."""
    first = 100 * first_budget(share)
    typed = st.number_input(
        "Alert budget: rows to flag, in %", 0.01, 99.0, first, 0.5, format="%g", key=f"points-budget-{first}", width=320
    )
    return float(typed) / 100


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
