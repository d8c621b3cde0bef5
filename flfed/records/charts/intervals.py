"""Chart of one figure of several models or runs, each with its interval.

It is in Vega-Lite's own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from flfed.records.charts.axes import (
    PLOT_HEIGHT,
    ROW_PIXELS,
    axis_title,
    figure_axis,
    figures_above,
    names_axis,
    ticks_of,
)
from flfed.records.charts.chart import Chart, Spec
from flfed.records.charts.colours import ARM_COLOURS, NEUTRAL
from flfed.records.statistics.verdict import number

ENDS = ("value", "low", "high")


def interval_chart(lines: Sequence[Mapping[str, Any]], metric: str, *, grid: bool = True) -> Chart | None:
    """Return each line's figure with its interval, or None where there is no figure.

    Parameters
    ----------
    lines : sequence of mappings with name, arm (which the colour follows), value, low, high
    metric : str
    """
    known = [line for line in lines if line["value"] is not None]
    if not known:
        return None
    rows = pd.DataFrame(known)[["name", "arm", *ENDS]].astype(dict.fromkeys(ENDS, "float64"))
    rows["shown"] = [number(value) for value in rows["value"]]
    # The axis has to hold the intervals as well as the figures.
    ticks = ticks_of([line[end] for line in known for end in ENDS], metric)
    x = {"field": "value", "type": "quantitative"} | figure_axis(axis_title(metric), ticks, grid=grid)
    y = {"field": "name", "type": "nominal", "sort": list(rows["name"]), "axis": names_axis()}
    arms = list(dict.fromkeys(rows["arm"]))
    scale = {"domain": arms, "range": [ARM_COLOURS.get(arm, NEUTRAL) for arm in arms]}
    colour = {"field": "arm", "type": "nominal", "legend": None, "scale": scale}
    span: Spec = {"transform": [{"filter": "isValid(datum.low)"}], "mark": {"type": "rule", "strokeWidth": 3}}
    span["encoding"] = {"x": x | {"field": "low"}, "x2": {"field": "high"}, "color": colour}
    dot: Spec = {"mark": {"type": "point", "filled": True, "size": 130, "opacity": 1}}
    dot["encoding"] = {"x": x, "color": colour, "tooltip": [{"field": field} for field in ("name", *ENDS)]}
    figures = {"mark": figures_above(), "encoding": {"x": {"value": "width"}, "text": {"field": "shown"}}}
    height = {"height": ROW_PIXELS * len(rows), "autosize": PLOT_HEIGHT}
    return Chart(rows, height | {"encoding": {"y": y}, "layer": [span, dot, figures]}, is_by_row=True)
