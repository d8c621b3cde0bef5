"""The parts of the page Curves: how well the shared model ranks, and whether its probabilities hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from flfed.records.dashboard.by_round import Curves, Spec
from flfed.records.dashboard.charts import AXIS_NUMBERS, NEUTRAL, site_looks
from flfed.records.dashboard.panels import escape, table
from flfed.records.dashboard.showing import Line, figure
from flfed.records.reports import Report
from flfed.records.score_curves import (
    ScoreCounts,
    average_precision,
    calibration,
    precision_recall,
    roc,
    roc_auc,
)
from flfed.records.verdicts import interval, number

ALL = "all sites together"
SITES_DRAWN = 5
"""Sites drawn unless the reader picks others, beside all together."""
HEIGHT = 360
RESOLUTION = 0.004
"""How far an area from counts may lie from the exact one: the most that was seen in the shipped studies."""
Found = dict[str, ScoreCounts]


def found_in(payload: Mapping[str, Any]) -> Found:
    """Return the counts of a record: all sites together where there are, then each site by name."""
    given = {ALL: payload["all"]} if payload["all"] else {}
    given |= {site: payload["sites"][site] for site in sorted(payload["sites"])}
    return {name: ScoreCounts.read(of, bins=payload["bins"], limit=payload["limit"]) for name, of in given.items()}


def choose(found: Found) -> Found:
    """Return those to draw: all sites together, and the sites that the reader picked."""
    sites = [name for name in found if name != ALL]
    chosen = sites
    if len(sites) > SITES_DRAWN:
        first = sorted(sites, key=lambda site: -found[site].rows)[:SITES_DRAWN]
        st.caption("At first the sites with most holdout rows are drawn.")
        chosen = st.multiselect("Sites", sites, default=sorted(first), max_selections=12, key="curves-sites")
    return {name: counts for name, counts in found.items() if name == ALL or name in chosen}


def says_whose(payload: Mapping[str, Any], sites: Sequence[str]) -> str:
    """Return on which rows, and of how many sites, the curves are."""
    said = "The shared model on holdout rows, which nobody trained on."
    without = sorted(set(sites) - set(payload["sites"]))
    if payload["in-all"] < payload["asked"]:
        said += f" All together are {payload['in-all']} of {payload['asked']} sites."
    if without:
        named = ", ".join(without) if len(without) <= 6 else f"{len(without)} sites"
        said += f" Of {named} there are no counts: the policy of a site has to name them (`score-histogram`)."
    return said


def areas(found: Found, report: Report) -> None:
    """Show each curve's area, beside the exact figure that the site computed from its rows."""
    st.markdown("## How well it ranks")
    table([_area(name, counts, report) for name, counts in found.items()])
    st.caption(
        "AUC: how often a row with the outcome has the higher prediction of two rows, one with and one without; "
        ".5 is chance, higher is better. The curves are drawn from counts in 256 classes of predictions, so their area "
        f"may differ from the exact one by about {number(RESOLUTION)}; the exact one has the 95 % interval."
    )


def _area(name: str, counts: ScoreCounts, report: Report) -> dict[str, str]:
    arm = report["global"] if name == ALL else report["sites"].get(name, {}).get("global", {})
    exact = arm.get("roc_auc_score", {})
    span = f" ({interval(exact.get('low'), exact.get('high'))})" if exact.get("low") is not None else ""
    one_class = "not defined: one class only"
    return {
        "Rows of": name,
        "Holdout rows": f"{counts.rows}",
        "With the outcome": f"{counts.events}",
        "AUC of the curve": number(roc_auc(counts)) if counts.has_both else one_class,
        "AUC, exact": number(exact.get("value")) + span,
        "Average precision of the curve": number(average_precision(counts)) if counts.has_both else one_class,
    }


def ranking(found: Found, looks_of: Sequence[str]) -> None:
    """Show ROC and precision-recall of those that have rows of both classes."""
    there = {name: counts for name, counts in found.items() if counts.has_both}
    left, right = st.columns(2)
    points = [(name, *pair) for name, counts in there.items() for pair in zip(*roc(counts), strict=True)]
    lines = [{"Rows of": name, "False positive rate": x, "True positive rate": y} for name, x, y in points]
    titles = ("false positive rate (1 − specificity)", "true positive rate (sensitivity)")
    says = "; ".join(f"{name}: AUC {number(roc_auc(counts))}" for name, counts in there.items())
    drawn = _chart(points, titles, there, looks_of, diagonal=True)
    figure(left, "ROC curve (up and to the left is better)", drawn, lines, key="roc", says=f"ROC. {says}")
    points = [(name, *pair) for name, counts in there.items() for pair in zip(*precision_recall(counts), strict=True)]
    lines = [{"Rows of": name, "Recall": x, "Precision": y} for name, x, y in points]
    titles = ("recall (share of outcomes found)", "precision (share of alarms that are right)")
    says = "; ".join(f"{name}: average precision {number(average_precision(c))}" for name, c in there.items())
    drawn = _chart(points, titles, there, looks_of, diagonal=False)
    figure(right, "Precision and recall (up and right is better)", drawn, lines, key="pr", says=says)
    shares = "; ".join(f"{name} {100 * c.events / c.rows:.0f} %" for name, c in there.items())
    if shares:
        st.caption(
            f"By chance alone precision would be the share of rows with the outcome: {escape(shares)}. "
            "So curves of precision compare sites only where these shares are alike."
        )


def calibrated(found: Found, looks_of: Sequence[str]) -> None:
    """Show what was predicted against what happened, in groups of like predictions, with intervals."""
    st.markdown("## Whether its probabilities hold")
    groups = {name: calibration(counts) for name, counts in found.items() if counts.rows}
    lines: list[Line] = [
        {
            "Rows of": name,
            "Predicted, mean": group.predicted,
            "Observed share": group.observed,
            "95 % low": group.low,
            "95 % high": group.high,
            "Rows": group.rows,
        }
        for name, of in groups.items()
        for group in of
    ]
    said = "; ".join(f"{name}: {_held(of)}" for name, of in groups.items())
    drawn = _calibration_chart(lines, list(groups), looks_of)
    figure(
        st,
        "Observed share against predicted probability, with 95 % interval",
        drawn,
        lines,
        key="calibration",
        says=said,
    )
    st.caption(
        "On the dashed line the predictions hold: of rows with a predicted probability of .3, three in ten have the "
        "outcome. Above it the model says too little, below it too much. Each point is a group of at least 10 rows; "
        "an interval that misses the line is a difference that chance brings about once in twenty groups."
    )
    for name, of in groups.items():
        st.markdown(f"- {escape(name)}: {_held(of)}")


def _held(groups: Sequence[Any]) -> str:
    """Return in how many groups the predictions hold, within the interval."""
    off = [group for group in groups if not group.low <= group.predicted <= group.high]
    much = sum(group.predicted > group.high for group in off)
    held = f"predictions hold in {len(groups) - len(off)} of {len(groups)} groups"
    return held if not off else f"{held}; too high in {much}, too low in {len(off) - much}"


def _colours(names: Sequence[str], looks_of: Sequence[str]) -> Spec:
    looks = site_looks(looks_of)
    named = {"field": "of", "type": "nominal", "legend": LEGEND}
    ranges = [NEUTRAL if name == ALL else looks[name][0] for name in names]
    dashes = [[1, 0] if name == ALL else looks[name][1] for name in names]
    return {
        "color": named | {"scale": {"domain": list(names), "range": ranges}},
        "strokeDash": named | {"scale": {"domain": list(names), "range": dashes}},
    }


LEGEND: Spec = {"title": None, "orient": "top", "columns": 2, "labelLimit": 180, "symbolType": "stroke"}
LEGEND |= {"symbolOpacity": 1, "symbolStrokeWidth": 3}
WIDER = {"condition": {"test": f"datum.of == '{ALL}'", "value": 4}, "value": 2}
TOOLTIP = (("of", "nominal"), ("x", "quantitative"), ("y", "quantitative"))
Points = Sequence[tuple[str, float, float]]
UNIT = {"domain": [0, 1], "nice": False}


def _axis(field: str, title: str) -> Spec:
    axis = {"title": title, "labelExpr": AXIS_NUMBERS, "tickCount": 5}
    return {"field": field, "type": "quantitative", "axis": axis, "scale": UNIT}


def _chart(
    points: Sequence[tuple[str, float, float]],
    titles: tuple[str, str],
    found: Found,
    looks_of: Sequence[str],
    *,
    diagonal: bool,
) -> Curves | None:
    """Return curves in the unit square, in the order of their points."""
    if not points:
        return None
    rows = pd.DataFrame(points, columns=["of", "x", "y"]).round(5)
    rows["place"] = range(len(rows))
    encoding = {
        "x": _axis("x", titles[0]),
        "y": _axis("y", titles[1]),
        "order": {"field": "place", "type": "quantitative"},
        "strokeWidth": WIDER,
        "tooltip": [
            {"field": name, "type": kind}
            for name, kind in (("of", "nominal"), ("x", "quantitative"), ("y", "quantitative"))
        ],
        **_colours(list(found), looks_of),
    }
    layers: list[Spec] = [{"mark": {"type": "line", "interpolate": "linear"}, "encoding": encoding}]
    return Curves(rows, {"height": HEIGHT, "layer": [*([DIAGONAL] if diagonal else []), *layers]})


DIAGONAL: Spec = {
    "data": {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]},
    "mark": {"type": "line", "strokeDash": [5, 4], "color": NEUTRAL, "strokeWidth": 1},
    "encoding": {"x": {"field": "x", "type": "quantitative"}, "y": {"field": "y", "type": "quantitative"}},
}


def _calibration_chart(lines: Sequence[Line], names: Sequence[str], looks_of: Sequence[str]) -> Curves | None:
    if not lines:
        return None
    keys = {"Rows of": "of", "Predicted, mean": "x", "Observed share": "y", "95 % low": "low", "95 % high": "high"}
    rows = pd.DataFrame(lines).rename(columns=keys | {"Rows": "rows"}).round(5)
    colour = _colours(names, looks_of)
    x, y = _axis("x", "predicted probability (mean of the group)"), _axis("y", "observed share")
    tooltip = [{"field": "of", "type": "nominal"}]
    tooltip += [{"field": name, "type": "quantitative"} for name in ("x", "y", "low", "high", "rows")]
    spans = {"mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6}}
    spans["encoding"] = {"x": x, "y": _axis("low", "observed share"), "y2": {"field": "high"}, "color": colour["color"]}
    lined = {"mark": {"type": "line", "point": {"size": 60, "filled": True}, "opacity": 0.9}}
    lined["encoding"] = {"x": x, "y": y, "strokeWidth": WIDER, "tooltip": tooltip, **colour}
    return Curves(rows, {"height": HEIGHT + 40, "layer": [DIAGONAL, spans, lined]})
