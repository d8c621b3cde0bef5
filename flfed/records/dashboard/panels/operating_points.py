"""Panel of operating points on the page Curves.

It shows who would be flagged at a threshold or an alert budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from flfed.records.dashboard.components.tables import table
from flfed.records.dashboard.components.text import escape
from flfed.records.reports.score_tables import ALL, TOGETHER, is_together
from flfed.records.statistics.operating_points import RARE, OperatingPoint, at_budget, at_threshold, edges, in_words
from flfed.records.statistics.score_curves import ScoreCounts
from flfed.records.statistics.verdict import ABSENT, number

THRESHOLD, BUDGET = "a threshold", "an alert budget"
CELLS = (
    "of them with the outcome (TP)", "without it (FP)", "Not flagged, with the outcome (FN)", "without it (TN)",
)  # fmt: skip
FEW_EVENTS = 0.01
"""Share of rows with the outcome below which the first budget is a hundredth of the rows."""
Found = Mapping[str, ScoreCounts]

HOW_TO_READ = """
**Threshold.** Every row with a predicted probability of at least so much is flagged. A choice for the same patients or
customers everywhere: sites then have different shares of alerts.

**Alert budget.** As many rows are flagged as people can look at, those of the highest predictions first. Each line has
a threshold of its own; all sites together are one list with one threshold.

**Sensitivity** is the share of those with the outcome that are flagged, **specificity** the share of those without it
that are not. **PPV** is the share of the flagged that have the outcome, **NPV** the share of the others that do not.

**Net benefit** counts each outcome that is found as 1, and takes off each false alarm at the price that the threshold
sets: who acts at .2 takes four false alarms for one found outcome, so each costs a quarter. It is a share of all rows
(Vickers and Elkin 2006). A model is of use at a threshold only where its net benefit is above 0, which is what flagging
nobody has, and above that of flagging everybody.
"""


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
    st.markdown("## Who would be flagged" + ("" if repeat is None else f", in repeat {repeat}"))
    most = max(found.values(), key=lambda counts: counts.rows)
    share = most.events / max(most.rows, 1)
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
    table([_counts(name, point) for name, point in points.items()])
    table([_figures(name, point) for name, point in points.items()])
    st.caption(
        "From the counts that draw the curves, so a threshold is the edge of a bin. "
        "Counts are of test rows that nobody trained on; with few of them the shares are uncertain."
    )
    with st.expander("How to read these tables"):
        st.markdown(HOW_TO_READ)


def exact_counts(payload: Mapping[str, Any], repeat: int | None = None) -> None:
    """Show the counts at the thresholds and alert budgets that the study names.

    Parameters
    ----------
    payload : dict
        The object "operating-points" of a run.
    repeat : int, optional
        The one of several that is shown.
    """
    st.markdown("## At the study's own thresholds" + ("" if repeat is None else f", in repeat {repeat}"))
    lists = [payload["all"], *payload["sites"].values()]
    points = list(dict.fromkeys((of["by"], of["at"]) for one in lists for of in one))
    labels = {point: _label(*point) for point in points}
    picked = st.selectbox("Counted by the sites", points, format_func=labels.__getitem__, key="points-exact", width=320)
    lines, known = {}, {}
    for name, one in _named(payload).items():
        of = next((of for of in one if (of["by"], of["at"]) == picked), None)
        if of is None or of["tp"] is None:
            why = "not told" if of is None else of.get("why") or "withheld"
            lines[name] = {"Rows of": name, "Flagged from": ABSENT, "Flagged": why} | dict.fromkeys(CELLS, ABSENT)
        else:
            threshold = of["at"] if of["by"] == "threshold" else None
            known[name] = OperatingPoint(threshold, of["tp"], of["fp"], of["fn"], of["tn"])
            lines[name] = _counts(name, known[name])
    _say_first(known)
    table(list(lines.values()))
    if known:
        table([_figures(name, point) for name, point in known.items()])
    st.caption(
        "Each site counted its test rows exactly; a count that its policy holds back is not there, nor is one from "
        "which such a count would follow."
        + (" At an alert budget each site flags that share of its own rows." if picked[0] == "alert-budget" else "")
    )


def _say_first(points: Mapping[str, OperatingPoint]) -> None:
    """Say in words what the first table is, that of all sites where it is there."""
    name, said = next(((name, in_words(point)) for name, point in points.items()), ("", ""))
    if said:
        st.markdown(escape(f"{name[0].upper()}{name[1:]}: {said}" if is_together(name) else f"{name}: {said}"))


def _named(payload: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the points of all sites together, where these are several, and of each site."""
    inside = max((of["sites"] for of in payload["all"]), default=0)
    name = ALL if inside >= payload["asked"] else f"{inside} of {payload['asked']} {TOGETHER}"
    together = {name: [of for of in payload["all"] if of["sites"] == inside]} if inside > 1 else {}
    return together | {site: payload["sites"][site] for site in sorted(payload["sites"])}


def _label(by: str, at: float) -> str:
    return (
        f"a probability of at least {_probability(at)}" if by == "threshold" else f"an alert budget of {100 * at:g} %"
    )


def _budget(share: float) -> float:
    """Return the share of rows to flag that the reader typed."""
    first = 1.0 if share < FEW_EVENTS else 5.0
    typed = st.number_input(
        "Alert budget: rows to flag, in %", 0.01, 99.0, first, 0.5, format="%g", key=f"points-budget-{first}", width=320
    )
    return float(typed) / 100


def _threshold(offered: Sequence[float], share: float) -> float:
    """Return the edge that the reader picked, at first one near the share with the outcome."""
    first = min(offered[:-1], key=lambda edge: abs(edge - share))
    return float(
        st.select_slider(
            "Threshold: flag a predicted probability of at least",
            offered,
            first,
            format_func=_probability,
            key=f"points-threshold-{len(offered)}-{offered[0]:.6g}",
        )
    )


def _probability(value: float) -> str:
    """Return a probability with three digits that count.

    Examples
    --------
    >>> _probability(0.0), _probability(0.00012345), _probability(0.5), _probability(1.0)
    ('0', '.000123', '.5', '1')
    """
    return f"{float(f'{value:.3g}'):f}".rstrip("0").rstrip(".").removeprefix("0") or "0"


def _counts(name: str, point: OperatingPoint) -> dict[str, str]:
    return {
        "Rows of": name,
        "Flagged from": ABSENT if point.threshold is None else _probability(point.threshold),
        "Flagged": f"{point.alerts} of {point.rows}",
        **dict(zip(CELLS, map(str, (point.tp, point.fp, point.fn, point.tn)), strict=True)),
    }


def _figures(name: str, point: OperatingPoint) -> dict[str, str]:
    per_1000 = point.alerts_per_1000
    return {
        "Rows of": name,
        "Sensitivity": number(point.sensitivity),
        "Specificity": number(point.specificity),
        "PPV": number(point.ppv),
        "NPV": number(point.npv),
        "Alerts per 1,000": ABSENT if per_1000 is None else f"{per_1000:.1f}",
        "Net benefit": number(point.net_benefit),
        "Net benefit of flagging everybody": number(point.net_benefit_of_all),
    }
