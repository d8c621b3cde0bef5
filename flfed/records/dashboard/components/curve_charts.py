"""Vega-Lite charts of the page Curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from flfed.records.dashboard.components.axes import (
    AXIS_NUMBERS,
    PLOT_HEIGHT,
    STRETCH,
    end_of_calibration,
    in_lines,
    is_stretched,
    legend_of,
    stretched_ticks,
)
from flfed.records.dashboard.components.colours import FAINT, NEUTRAL, Looks
from flfed.records.dashboard.components.figure import Line
from flfed.records.dashboard.components.round_chart import STROKES, Curves, Spec
from flfed.records.statistics.score_curves import LEAST_ROWS, ScoreCounts
from flfed.records.statistics.score_tables import TOGETHER, is_together

PLOT_PIXELS = 320
Points = list[tuple[str, float, float]]
"""Of a drawn curve: whose it is, x and y."""


def _colours(names: Sequence[str], looks: Looks) -> Spec:
    of = {name: (NEUTRAL, [1, 0]) if is_together(name) else looks[name] for name in names}
    # Sites in grey all look alike, so that the legend leaves them out.
    told = [name for name in names if of[name][0] != FAINT]
    named = {"field": "of", "type": "nominal", "legend": legend_of(told, values=told, **STROKES)}
    return {
        "color": named | {"scale": {"domain": list(names), "range": [of[name][0] for name in names]}},
        "strokeDash": named | {"scale": {"domain": list(names), "range": [of[name][1] for name in names]}},
    }


def _widths(names: Sequence[str], looks: Looks) -> Spec:
    """Return the width of each curve.

    Those of several sites together are the widest, those beside a chosen one the narrowest.
    """
    faint = [name for name in names if not is_together(name) and looks[name][0] == FAINT]
    wide = {"test": f"indexof(datum.of, ' {TOGETHER}') > 0", "value": 4}
    return {"condition": [wide, {"test": {"field": "of", "oneOf": faint}, "value": 1}], "value": 3 if faint else 2}


ROOM: Spec = {"height": PLOT_PIXELS, "autosize": PLOT_HEIGHT}


def diagonal(top: float = 1.0) -> Spec:
    """Return the dashed line of equal figures.

    On it both axes, which end at `top`, have the same figure.
    """
    return {
        "data": {"values": [{"x": 0, "y": 0}, {"x": top, "y": top}]},
        "mark": {"type": "line", "strokeDash": [5, 4], "color": NEUTRAL, "strokeWidth": 1},
        "encoding": {"x": {"field": "x", "type": "quantitative"}, "y": {"field": "y", "type": "quantitative"}},
    }


def _axis(field: str, title: str, top: float = 1.0, *, stretched: bool = False) -> Spec:
    scale: Spec = {"domain": [0, top], "nice": False}
    axis: Spec = {"title": in_lines(title), "labelExpr": AXIS_NUMBERS, "tickCount": 5}
    if stretched:
        scale |= {"type": "pow", "exponent": 1 / STRETCH}
        values, said = stretched_ticks(top), "datum.value == 0 ? '0' : replace('' + datum.value, /^0/, '')"
        # Of more values than the count of ticks Vega leaves out every other one.
        axis |= {"labelExpr": said, "values": values, "tickCount": len(values), "labelOverlap": False}
    return {"field": field, "type": "quantitative", "axis": axis, "scale": scale}


def _tooltip(*fields: str) -> list[Spec]:
    return [{"field": "of", "type": "nominal"}, *({"field": name, "type": "quantitative"} for name in fields)]


def by_chance(found: Mapping[str, ScoreCounts], looks: Looks) -> Spec:
    """Return the lines of precision by chance.

    Each is its site's share of rows with the outcome.
    """
    shares = [{"of": name, "y": round(counts.events / counts.rows, 5)} for name, counts in found.items()]
    colour = _colours(list(found), looks)["color"]
    return {
        "data": {"values": shares},
        "mark": {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1},
        "encoding": {"y": {"field": "y", "type": "quantitative"}, "color": colour},
    }


def unit_square(
    points: Points, titles: tuple[str, str], names: Sequence[str], looks: Looks, below: list[Spec]
) -> Curves | None:
    """Return curves in the unit square.

    They are in the order of their points, above the layers of `below`. None without points.
    """
    if not points:
        return None
    rows = pd.DataFrame(points, columns=["of", "x", "y"]).round(5)
    # A step upwards has one x twice: only the place keeps its points in order.
    rows["place"] = range(len(rows))
    encoding = {
        "x": _axis("x", titles[0]),
        "y": _axis("y", titles[1]),
        "order": {"field": "place", "type": "quantitative"},
        "strokeWidth": _widths(names, looks),
        "tooltip": _tooltip("x", "y"),
        **_colours(names, looks),
    }
    return Curves(rows, ROOM | {"layer": [*below, {"mark": {"type": "line"}, "encoding": encoding}]})


def calibration_chart(lines: Sequence[Line], names: Sequence[str], looks: Looks) -> Curves | None:
    """Return the chart of calibration groups.

    Groups are points, larger with more rows, with their intervals, and a line from each to the next.
    """
    if not lines:
        return None
    keys = {"Rows of": "of", "Predicted, mean": "x", "Observed share": "y", "95 % low": "low", "95 % high": "high"}
    keys |= {"Rows": "rows"}
    rows = pd.DataFrame(lines)[list(keys)].rename(columns=keys).round(7)
    colours = _colours(names, looks)
    # Both axes end and stretch alike, so that the diagonal is where predictions hold.
    top, stretched = end_of_calibration(lines), is_stretched(lines)
    x = _axis("x", "predicted probability (mean of the group)", top, stretched=stretched)
    y, low = (_axis(field, "observed share", top, stretched=stretched) for field in ("y", "low"))
    spans = {"mark": {"type": "rule", "strokeWidth": 1.5}}
    spans["encoding"] = {"x": x, "y": low, "y2": {"field": "high"}, "color": colours["color"]}
    lined = {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"x": x, "y": y, **colours}}
    dots = {"mark": {"type": "point", "filled": True, "opacity": 1}}
    dots["encoding"] = {"x": x, "y": y, "color": colours["color"], "tooltip": _tooltip("x", "y", "low", "high", "rows")}
    size = {"domain": [LEAST_ROWS, max(int(rows["rows"].max()), LEAST_ROWS + 1)], "range": [50, 200]}
    dots["encoding"]["size"] = {"field": "rows", "type": "quantitative", "scale": size, "legend": None}
    return Curves(rows, ROOM | {"layer": [diagonal(top), spans, lined, dots]})
