"""Chart of the gain from joining by a site's number of rows: as expected, as could be shown, and as sites had it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from flfed.records.charts.chart import (
    Chart,
    Line,
    figure_axis,
    layer,
    number_texts,
    plot,
    quantitative,
    ticks_of,
    tooltip,
)
from flfed.records.charts.colours import BLUE, FAINT, NEUTRAL, ORANGE

PLOT_PIXELS = 300
ROWS = "Rows"
GAIN = "Gain in AUC"
EXPECTED = "expected gain"
LEAST = "least gain shown"
LARGEST = 0.5


def chart_of_gains(curve: Sequence[Line], sites: Sequence[Line] = ()) -> Chart | None:
    """Return the chart: a point a site, the expected gain, and the region in which no gain could be shown.

    Parameters
    ----------
    curve : sequence of mappings
        "Rows", "expected gain", and "least gain shown" or None.
    sites : sequence of mappings
        "Site", "Rows" and "Gain in AUC".
    """
    if not curve and not sites:
        return None
    lines = [{**line, "kind": "curve"} for line in curve]
    lines += [{**line, "kind": "site"} for line in sites]
    rows = pd.DataFrame(lines, columns=["kind", "Site", ROWS, EXPECTED, LEAST, GAIN])
    # Where no gain can be shown at all, the whole height is such a region.
    rows["shaded"] = rows[LEAST].astype(float).fillna(LARGEST).clip(upper=LARGEST)
    gains = rows[[EXPECTED, LEAST, GAIN]].astype(float).clip(upper=LARGEST).to_numpy().ravel()
    ticks = ticks_of([0.0, *gains[~np.isnan(gains)]])
    y = figure_axis(GAIN, ticks, signed=True)
    x = quantitative(ROWS, axis={"title": "rows of the site", "format": ",d"}, scale={"type": "log", "nice": False})
    of_curve = "datum.kind == 'curve'"
    shaded = {"x": x, "y": quantitative("shaded", **y)}
    expected = {"x": x, "y": quantitative(EXPECTED, **y), "tooltip": tooltip(ROWS, EXPECTED, LEAST)}
    points = {"x": x, "y": quantitative(GAIN, **y), "tooltip": tooltip(ROWS, GAIN)}
    layers = [
        layer("area", shaded | {"y2": {"datum": 0}}, of_curve, color=NEUTRAL, opacity=0.18, clip=True),
        layer("line", {"x": x, "y": quantitative(LEAST, **y)}, of_curve, color=ORANGE, strokeDash=[5, 4], clip=True),
        layer("line", expected, of_curve, color=BLUE, strokeWidth=2.5, clip=True),
        layer("point", points, "datum.kind == 'site'", color=FAINT, filled=True, size=40, clip=True),
    ]
    return Chart(rows, plot(PLOT_PIXELS, layer=layers, transform=number_texts(ROWS, EXPECTED, LEAST, GAIN)))
