"""The charts by round, which a running run draws anew with each of its rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from flfed.records.dashboard.charts import ARM_COLOURS, AXIS_NUMBERS, PLOT_HEIGHT, axis_title
from flfed.records.entries import CurvePoint
from flfed.records.rounds import band_of

HEIGHT = 260
"""Of the plot itself, in pixels, whatever legend stands above it."""
LEGEND_COLUMNS = 3
TICKS = 5
"""About so many ticks has the axis of a figure; it ends at one, so that no line lies beyond the last."""
ROUND_NUMBERS = {"tickMinStep": 1, "format": "d"}
"""Of an axis of rounds, which are whole numbers."""
DRAWN_FROM = 0.02
"""A figure made of counts by bin that may be further off than this is drawn as a range."""
FEW_ROUNDS = 3
"""Below so many rounds a curve is drawn with its points: a line through one of them is not seen."""
STROKES = {"symbolType": "stroke", "symbolOpacity": 1, "symbolStrokeWidth": 3, "symbolSize": 200}
"""Of a legend of lines: so long and wide that colour and dash are seen."""
COLUMNS = ("round", "site", "value", "low", "high")
WIDE = {"value": "float64", "low": "float64", "high": "float64"}
"""Kinds of the columns that may have nothing but gaps, which the browser must take for numbers."""
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


def of_all_sites(points: Iterable[CurvePoint], metric: str) -> Curves | None:
    """Return the figure of all sites together by round; None without figures.

    An AUC is made of counts by bin: where that of the rows may be further than `DRAWN_FROM` away, a point is
    drawn as the range that is left open. Not the figure before training, in either chart: on its scale the
    rounds would lie on one line.
    """
    rows = _rows((point for point in points if point.site is None), metric)
    if rows is None:
        return None
    colour = ARM_COLOURS["global"]
    # Of two ends the further one: the other may have been cut at 0 or 1.
    further = f"max(datum.high - datum.value, datum.value - datum.low) > {DRAWN_FROM}"
    open_from = {"filter": f"datum.low != null && {further}"}
    ranges = _band(0.5) | {"transform": [open_from], "mark": {"type": "rule", "strokeWidth": 5, "opacity": 0.5}}
    ranges["encoding"]["color"] = {"value": colour}
    line = {
        "mark": {"type": "line", "strokeWidth": 2.5, "color": colour, "point": _are_few(rows)},
        "encoding": {"y": y_axis(axis_title(metric)), "tooltip": _tooltip("round", "value", "low", "high")},
    }
    spec = {"height": HEIGHT, "autosize": PLOT_HEIGHT, "encoding": {"x": X}, "layer": [ranges, line]}
    return Curves(rows, spec)


def of_each_site(
    points: Iterable[CurvePoint],
    metric: str,
    looks: Mapping[str, tuple[str, list[int]]],
    *,
    banded: str | None = None,
) -> Curves | None:
    """Return the figure of each site by round, in its colour and dash; None without figures.

    Parameters
    ----------
    points : iterable of CurvePoint
    metric : str
    looks : mapping of site to colour and dash
    banded : str, optional
        The site whose intervals are drawn as a band: those of several lie on each other and are not told apart.
    """
    rows = _rows((point for point in points if point.site is not None), metric)
    if rows is None:
        return None
    names = sorted(set(rows["site"]))
    legend = {"title": None, "orient": "top", "columns": LEGEND_COLUMNS, "labelLimit": 220, **STROKES}
    site = {"field": "site", "type": "nominal", "legend": legend}
    colours, dashes = [looks[name][0] for name in names], [looks[name][1] for name in names]
    line = {
        "mark": {"type": "line", "strokeWidth": 2, "point": _are_few(rows)},
        "encoding": {
            "y": y_axis(axis_title(metric)),
            "strokeDash": site | {"scale": {"domain": names, "range": dashes}},
            "tooltip": [{"field": "site", "type": "nominal"}, *_tooltip("round", "value", "low", "high")],
        },
    }
    band = _band(0.25)
    band["transform"].append({"filter": {"field": "site", "equal": banded}})
    spec = {
        "height": HEIGHT,
        "autosize": PLOT_HEIGHT,
        "encoding": {"x": X, "color": site | {"scale": {"domain": names, "range": colours}}},
        "layer": [line] if banded is None else [band, line],
    }
    return Curves(rows, spec)


def _band(opacity: float) -> Spec:
    """Return the layer of the intervals; of points without one nothing is drawn."""
    return {
        "transform": [{"filter": "datum.low != null"}],
        "mark": {"type": "area", "opacity": opacity},
        "encoding": {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}},
    }


X: Spec = {
    "field": "round",
    "type": "quantitative",
    "axis": {"title": "round", "tickCount": 8, **ROUND_NUMBERS},
    "scale": {"nice": False},
}


def y_axis(title: str, *, zero: bool = False) -> Spec:
    """Return the axis of a figure by round, from 0 where `zero`; a tick stands at either end."""
    axis = {"title": title, "labelExpr": AXIS_NUMBERS, "tickCount": TICKS}
    return {"field": "value", "type": "quantitative", "axis": axis, "scale": {"zero": zero, "nice": TICKS}}


def _tooltip(*fields: str) -> list[Spec]:
    return [{"field": field, "type": "quantitative"} for field in fields]


def _are_few(rows: pd.DataFrame) -> bool:
    return rows["round"].nunique() < FEW_ROUNDS


def _rows(points: Iterable[CurvePoint], metric: str) -> pd.DataFrame | None:
    """Return the points after a round that have a value, with their bands, or None where there is none."""
    known = [(p.round, p.site, p.value, *band_of(p, metric)) for p in points if p.value is not None and p.round]
    return pd.DataFrame(known, columns=list(COLUMNS)).astype(WIDE) if known else None
