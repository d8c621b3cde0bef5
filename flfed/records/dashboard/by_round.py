"""The curves by round, which a running run draws anew with each of its rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from flfed.records.dashboard.charts import ARM_COLOURS, AXIS_NUMBERS, axis_title, site_looks
from flfed.records.dashboard.live import Shown, mark_of, read_curves, where
from flfed.records.entries import CurvePoint, RunEntry
from flfed.records.verdicts import metric_name

CURVES_SHOWN = 8
POINTS = 200
"""Most rounds drawn in a curve; more cannot be told apart on a screen."""
HEIGHT = 260
LEGEND_COLUMNS, LEGEND_PIXELS = 3, 20
FEW_ROUNDS = 3
"""Below so many rounds a curve is drawn with its points: a line through one of them is not seen."""
ON_ROWS = {
    "training": "measured on the rows the model was trained on, so they look better than they are",
    "validation": "measured on validation rows that were kept out of training",
    "holdout": "measured on the holdout, for reporting only",
}

COLUMNS = ("round", "site", "value", "low", "high")
Spec = dict[str, Any]
"""A chart in Vega-Lite's own words, without its data."""


@dataclass(frozen=True)
class Curves:
    """A chart by round. While only `rows` change, the browser moves the lines and leaves the chart standing.

    It is written in Vega-Lite's own words, not by Altair, whose checks took two thirds of the time
    of each look at a running run (measured: 75 of 120 ms).
    """

    rows: pd.DataFrame
    spec: Spec


def curves(shown: Shown, runs: Sequence[RunEntry]) -> None:
    """Show the curves by round, of all sites together and of each, and say on which rows."""
    if not shown.curve_names:
        return
    arm, choices = next(iter(shown.curve_names.items()))
    st.markdown("### Round by round")
    primary = runs[0].primary
    first = choices.index(primary) if primary in choices else 0
    metric = choices[first]
    if len(choices) > 1:
        metric = st.radio("Figure", choices, index=first, format_func=metric_name, horizontal=True, key="curve-metric")
    sites = sorted(shown.found["sites"])
    if len(sites) > CURVES_SHOWN:
        sites = st.multiselect("Sites", sites, default=sites[:CURVES_SHOWN], max_selections=20, key="curve-sites")
    every = max(1, -(-max(run.rounds for run in runs) // POINTS))
    points = read_curves(where(), mark_of(runs), arm=arm, metric=metric, sites=sites, every=every)
    st.caption(f"These curves are {ON_ROWS.get(arm, arm)}.")
    looks = site_looks(site.site for site in shown.sites)
    drawn = {"All sites together": of_all_sites(points, metric), "Each site": of_each_site(points, metric, looks)}
    there = {title: chart for title, chart in drawn.items() if chart is not None}
    if not there:
        st.caption("No round has this figure yet.")
    for column, (title, chart) in zip(st.columns(len(there) or 1), there.items(), strict=False):
        column.markdown(f"**{title}**")
        column.vega_lite_chart(chart.rows, chart.spec, width="stretch", alt=f"{metric_name(metric)} by round: {title}")


def of_all_sites(points: Iterable[CurvePoint], metric: str) -> Curves | None:
    """Return the figure of all sites together by round, with its interval as a band; None without figures."""
    rows = _rows(point for point in points if point.site is None)
    if rows is None:
        return None
    colour = ARM_COLOURS["global"]
    band = {
        "transform": [{"filter": "datum.low != null"}],
        "mark": {"type": "area", "opacity": 0.15, "color": colour},
        "encoding": {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}},
    }
    line = {
        "mark": {"type": "line", "strokeWidth": 2.5, "color": colour, "point": _are_few(rows)},
        "encoding": {"y": _y(metric), "tooltip": _tooltip("round", "value")},
    }
    return Curves(rows, {"height": HEIGHT, "encoding": {"x": X}, "layer": [band, line]})


def of_each_site(
    points: Iterable[CurvePoint], metric: str, looks: Mapping[str, tuple[str, list[int]]]
) -> Curves | None:
    """Return the figure of each site by round, in the site's colour and dash; None without figures."""
    rows = _rows(point for point in points if point.site is not None)
    if rows is None:
        return None
    names = sorted(set(rows["site"]))
    legend = {"title": None, "orient": "top", "columns": LEGEND_COLUMNS, "labelLimit": 160, "symbolSize": 200}
    site = {"field": "site", "type": "nominal", "legend": legend}
    colours, dashes = [looks[name][0] for name in names], [looks[name][1] for name in names]
    spec = {
        "height": HEIGHT + LEGEND_PIXELS * -(-len(names) // LEGEND_COLUMNS),
        "mark": {"type": "line", "strokeWidth": 2, "point": _are_few(rows)},
        "encoding": {
            "x": X,
            "y": _y(metric),
            "color": site | {"scale": {"domain": names, "range": colours}},
            "strokeDash": site | {"scale": {"domain": names, "range": dashes}},
            "tooltip": [{"field": "site", "type": "nominal"}, *_tooltip("round", "value")],
        },
    }
    return Curves(rows, spec)


X: Spec = {
    "field": "round",
    "type": "quantitative",
    "axis": {"title": "round", "tickMinStep": 1, "tickCount": 8},
    "scale": {"nice": False},
}


def _y(metric: str) -> Spec:
    axis = {"title": axis_title(metric), "labelExpr": AXIS_NUMBERS}
    return {"field": "value", "type": "quantitative", "axis": axis, "scale": {"zero": False, "nice": True}}


def _tooltip(*fields: str) -> list[Spec]:
    return [{"field": field, "type": "quantitative"} for field in fields]


def _are_few(rows: pd.DataFrame) -> bool:
    return rows["round"].nunique() < FEW_ROUNDS


def _rows(points: Iterable[CurvePoint]) -> pd.DataFrame | None:
    """Return the points that have a value, or None where there is none."""
    known = [point for point in points if point.value is not None]
    return pd.DataFrame({name: [getattr(p, name) for p in known] for name in COLUMNS}) if known else None
