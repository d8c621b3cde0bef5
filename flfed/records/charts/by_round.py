"""Charts by round.

A running run draws them anew with each of its rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from flfed.records.charts.axes import AXIS_NUMBERS, PLOT_HEIGHT, axis_title, in_lines, legend_of
from flfed.records.charts.chart import Chart, Spec
from flfed.records.charts.colours import ARM_COLOURS, FAINT
from flfed.records.reports.round_totals import band_of
from flfed.records.store.entries import CurvePoint

HEIGHT = 260
"""Of the plot itself, in pixels, whatever legend stands above it."""
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
BAND: dict[str, Any] = {"fillOpacity": 0.2, "strokeWidth": 1, "strokeOpacity": 1}
"""Of a band: its edge is seen where its area is too light."""
COLUMNS = ("round", "site", "value", "low", "high", "least", "most")
WIDE = dict.fromkeys(("round", "value", "low", "high", "least", "most"), "float64")
"""Kinds of the columns that may have nothing but gaps, which the browser must take for numbers."""


def of_all_sites(points: Iterable[CurvePoint], metric: str) -> Chart | None:
    """Return the all-sites figure by round.

    None without figures.

    Where a point stands for several rounds, a band goes from the least of them to the largest. An AUC is made
    of counts by bin: where that of the rows may be further than `DRAWN_FROM` away, a point is drawn as the
    range that is left open. Not the figure before training, in either chart: on its scale the rounds would
    lie on one line.
    """
    rows = _rows((point for point in points if point.site is None), metric)
    if rows is None:
        return None
    colour = ARM_COLOURS["global"]
    # Of two ends the further one: the other may have been cut at 0 or 1.
    further = f"max(datum.high - datum.value, datum.value - datum.low) > {DRAWN_FROM}"
    open_from = {"filter": f"datum.low != null && {further}"}
    ranges = _between("low", "high", colour) | {"transform": [open_from]}
    ranges["mark"] = {"type": "rule", "strokeWidth": 5, "color": colour, "opacity": 0.75}
    line = {
        "mark": {"type": "line", "strokeWidth": 2.5, "color": colour, "point": _are_few(rows)},
        "encoding": {"y": y_axis(axis_title(metric)), "tooltip": _tooltip("round", "value", "low", "high")},
    }
    spec = {
        "height": HEIGHT,
        "autosize": PLOT_HEIGHT,
        "encoding": {"x": X},
        "layer": [ranges, _between("least", "most", colour), line],
    }
    return Chart(rows, spec)


def of_each_site(
    points: Iterable[CurvePoint],
    metric: str,
    looks: Mapping[str, tuple[str, list[int]]],
    *,
    banded: str | None = None,
) -> Chart | None:
    """Return the figure of each site by round.

    Each site has its colour and dash. None without figures.

    Parameters
    ----------
    points : iterable of CurvePoint
    metric : str
    looks : mapping of site to colour and dash
        Sites that are `FAINT` are drawn first and are not in the legend.
    banded : str, optional
        The site whose intervals are drawn as a band: those of several lie on each other and are not told apart.
    """
    rows = _rows((point for point in points if point.site is not None), metric)
    if rows is None:
        return None
    # Grey sites come first, so that the coloured ones are drawn above them.
    names = sorted(set(rows["site"]), key=lambda name: (looks[name][0] != FAINT, name))
    told = [name for name in names if looks[name][0] != FAINT]
    faint = names[: len(names) - len(told)]
    site = {"field": "site", "type": "nominal", "legend": legend_of(told, values=told, **STROKES)}
    colours, dashes = [looks[name][0] for name in names], [looks[name][1] for name in names]
    line = {
        "mark": {"type": "line", "point": _are_few(rows)},
        "encoding": {
            "y": y_axis(axis_title(metric)),
            "strokeDash": site | {"scale": {"domain": names, "range": dashes}},
            "strokeWidth": {
                "condition": {"test": {"field": "site", "oneOf": faint}, "value": 1},
                "value": 3 if faint else 2,
            },
            "tooltip": [{"field": "site", "type": "nominal"}, *_tooltip("round", "value", "low", "high")],
        },
    }
    # Bands of several sites would lie on each other and could not be told apart.
    bands = []
    if banded is not None:
        bands = [_between(*ends, looks[banded][0]) for ends in (("low", "high"), ("least", "most"))]
        for band in bands:
            band["transform"].append({"filter": {"field": "site", "equal": banded}})
    spec = {
        "height": HEIGHT,
        "autosize": PLOT_HEIGHT,
        "encoding": {"x": X, "color": site | {"scale": {"domain": names, "range": colours}}},
        "layer": [*bands, line],
    }
    place = {name: number for number, name in enumerate(names)}
    # The rows follow the same order, in which the lines are drawn.
    rows = rows.sort_values("site", key=lambda of: of.map(place), kind="stable") if faint else rows
    return Chart(rows, spec)


def _between(low: str, high: str, colour: str) -> Spec:
    """Return the band between two columns.

    Its edge is seen. Where the two are alike nothing is drawn.
    """
    return {
        "transform": [{"filter": f"datum.{low} != null && datum.{low} < datum.{high}"}],
        "mark": {"type": "area", "stroke": colour, **BAND},
        "encoding": {
            "y": {"field": low, "type": "quantitative"},
            "y2": {"field": high},
            "color": {"value": colour},
        },
    }


X: Spec = {
    "field": "round",
    "type": "quantitative",
    "axis": {"title": "round", "tickCount": 8, **ROUND_NUMBERS},
    "scale": {"nice": False},
}


def y_axis(title: str, *, zero: bool = False) -> Spec:
    """Return the axis of a figure by round.

    It begins at 0 where `zero`. A tick stands at either end.
    """
    # Words at the ends stay beside their ticks: moved, they would seem to be of others.
    axis = {"title": in_lines(title), "labelExpr": AXIS_NUMBERS, "tickCount": TICKS, "labelFlush": False}
    return {"field": "value", "type": "quantitative", "axis": axis, "scale": {"zero": zero, "nice": TICKS}}


def _tooltip(*fields: str) -> list[Spec]:
    return [{"field": field, "type": "quantitative"} for field in fields]


def _are_few(rows: pd.DataFrame) -> bool:
    return rows["round"].nunique() < FEW_ROUNDS


def _rows(points: Iterable[CurvePoint], metric: str) -> pd.DataFrame | None:
    """Return the known points after a round.

    They have a value and come with their bands. None where there is no such point.

    A point of several rounds stands in their middle.
    """
    known = [
        (((p.first or p.round) + p.round) / 2, p.site, p.value, *band_of(p, metric), p.least, p.most)
        for p in points
        if p.value is not None and p.round
    ]
    return pd.DataFrame(known, columns=list(COLUMNS)).astype(WIDE) if known else None
