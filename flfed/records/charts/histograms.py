"""Histograms of noised counts, the noise beside each bar.

It is in Vega-Lite's own words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from flfed.records.charts.by_round import HEIGHT
from flfed.records.charts.chart import AXIS_NUMBERS, PLOT_HEIGHT, Chart, Line, Spec, in_lines, legend_of
from flfed.records.charts.colours import BLUE, INK, ORANGE
from flfed.records.statistics.analysis import Number
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.noised_scores import FROM, NOISE, TO, WITH, WITHOUT
from flfed.records.statistics.verdict import as_given

ALIKE = 1e-6
"""Share by which bins of one width may differ, by rounding."""
TICK_APART = 0.11
"""Least distance of two ticks of a stretched axis, as a share of its length."""
SHORT = "datum.value < 1e3 ? '' + datum.value : datum.value < 1e6 ? datum.value / 1e3 + 'k' : datum.value / 1e6 + 'M'"
"""Numbers of a stretched axis, such as 10k, in Vega's language."""
LOW, HIGH = "95 % low (noise)", "95 % high (noise)"


def histogram_lines(column: Number, deviation: float) -> list[Line]:
    """Return a number's bins, each with its count and how far the noise on it may reach.

    Parameters
    ----------
    column : Number
        Of a recorded analysis.
    deviation : float
        Of the noise on each count.

    Examples
    --------
    >>> histogram_lines(Number(within=[0.0, 2.0], edges=[0.0, 1.0, 2.0], counts=[30.0, 0.0]), 5.0)[1]
    {'From': 1.0, 'To': 2.0, 'Count': 0.0, '95 % low (noise)': 0.0, '95 % high (noise)': 9.8}
    """
    reach = NORMAL_95 * deviation
    return [
        {
            "From": low,
            "To": high,
            "Count": round(count, 1),
            # No number of rows is below 0, whatever the noise.
            LOW: round(max(count - reach, 0.0), 1),
            HIGH: round(count + reach, 1),
        }
        for low, high, count in zip(column.edges, column.edges[1:], column.counts, strict=False)
    ]


def histogram_chart(lines: Sequence[Line], title: str, unit: str) -> Chart | None:
    """Return bars of bins with the reach of their noise, or None without bins.

    Bins that grow from left to right, as those of amounts do, are drawn equally wide on a stretched axis.

    Parameters
    ----------
    lines : sequence of mappings
        From `histogram_lines`.
    title : str
        Of the axis: the column and its unit.
    unit : str
        What is counted, such as "rows".
    """
    if not lines:
        return None
    keys = {"From": "from", "To": "to", "Count": "count", LOW: "low", HIGH: "high"}
    rows = pd.DataFrame(lines)[list(keys)].rename(columns=keys).astype("float64")
    first, last = float(rows["from"].iloc[0]), float(rows["to"].iloc[-1])
    widths = rows["to"] - rows["from"]
    stretched = bool(widths.max() - widths.min() > ALIKE * widths.max())
    rows["middle"] = _middles(rows["from"], rows["to"], stretched=stretched)
    x: Spec = {"field": "from", "type": "quantitative"}
    x["scale"] = {"domain": [first, last], "nice": False, "zero": False}
    x["axis"] = {"title": in_lines(title), "grid": False, "labelExpr": AXIS_NUMBERS, "labelFlush": False}
    if stretched:
        x["scale"] |= {"type": "symlog", "constant": 1}
        # Short words, such as 10k, have room on the narrowest screen.
        x["axis"] |= {"values": stretched_ticks(first, last), "labelOverlap": False, "labelExpr": SHORT}
    y: Spec = {"field": "count", "type": "quantitative", "scale": {"domainMin": 0}}
    y["axis"] = {"title": unit, "tickCount": 5, "labelFlush": False}
    told = {"from": "from", "to": "to", "count": unit, "low": LOW, "high": HIGH}
    tooltip = [{"field": field, "type": "quantitative", "title": name} for field, name in told.items()]
    bars: Spec = {"mark": {"type": "rect", "color": BLUE, "stroke": None}, "encoding": {"x": x, "x2": {"field": "to"}}}
    bars["encoding"] |= {"y": y, "y2": {"datum": 0}, "tooltip": tooltip}
    noise: Spec = {"mark": {"type": "rule", "color": ORANGE, "strokeWidth": 2 if len(rows) <= 64 else 1}}
    noise["encoding"] = {"x": x | {"field": "middle"}, "y": y | {"field": "low"}, "y2": {"field": "high"}}
    return Chart(rows, {"height": HEIGHT, "autosize": PLOT_HEIGHT, "layer": [bars, noise]})


def scores_chart(lines: Sequence[Line], unit: str) -> Chart | None:
    """Return bars of both classes by bin of the predicted probability, with the reach of their noise.

    Bins are drawn equally wide, as each has about as many rows; the axis has the probabilities at which they begin.

    Parameters
    ----------
    lines : sequence of mappings
        From `noised_scores.count_lines`.
    unit : str
        What is counted, such as "rows".
    """
    if not lines:
        return None
    drawn = []
    for place, line in enumerate(lines):
        for half, name in enumerate((WITHOUT, WITH)):
            start, count, reach = place + GAP + half * (0.5 - GAP), line[name], line[NOISE]
            # Of a count that the noise has brought below 0 nothing is drawn but the noise.
            row = {"class": name, "start": start, "end": start + 0.5 - GAP, "middle": start + 0.25 - GAP / 2}
            row["count"] = max(count, 0.0)
            row |= {"low": max(count - reach, 0.0), "high": max(count + reach, 0.0)}
            drawn.append(row | {"from": line[FROM], "to": line[TO], "told": count})
    rows, bins = pd.DataFrame(drawn), len(lines)
    ends = [as_given(end) for end in (*(line[FROM] for line in lines), lines[-1][TO])]
    x: Spec = {"field": "start", "type": "quantitative", "scale": {"domain": [0, bins], "nice": False}}
    x["axis"] = {"title": "predicted probability", "grid": False, "labelFlush": False, "labelOverlap": False}
    x["axis"] |= {"values": list(range(0, bins + 1, -(-bins // MOST_ENDS))), "labelExpr": f"{ends}[datum.value]"}
    y: Spec = {"field": "count", "type": "quantitative", "scale": {"domainMin": 0}}
    y["axis"] = {"title": unit, "tickCount": 5, "labelFlush": False}
    scale = {"domain": [WITHOUT, WITH], "range": [BLUE, ORANGE]}
    colour = {"field": "class", "type": "nominal", "scale": scale, "legend": legend_of([WITHOUT, WITH])}
    fields = {"from": FROM, "to": TO, "told": unit, "low": LOW, "high": HIGH}
    tooltip = [{"field": "class", "type": "nominal", "title": "class"}]
    tooltip += [{"field": field, "type": "quantitative", "title": name} for field, name in fields.items()]
    bars: Spec = {"mark": {"type": "rect", "stroke": None}, "encoding": {"x": x, "x2": {"field": "end"}, "y": y}}
    bars["encoding"] |= {"y2": {"datum": 0}, "color": colour, "tooltip": tooltip}
    noise: Spec = {"mark": {"type": "rule", "color": INK, "strokeWidth": 2}}
    noise["encoding"] = {"x": x | {"field": "middle"}, "y": y | {"field": "low"}, "y2": {"field": "high"}}
    return Chart(rows, {"height": HEIGHT, "autosize": PLOT_HEIGHT, "layer": [bars, noise]})


GAP = 0.06
"""Left of each pair of bars, as a share of a bin, and right of it."""
MOST_ENDS = 8
"""Ends of bins that the axis names, at most: of more they would run into each other on a phone."""


def stretched_ticks(low: float, high: float) -> list[float]:
    """Return round figures between two, none too near to the next one on an axis that goes by log(1 + x).

    Examples
    --------
    >>> stretched_ticks(0.0, 20_000.0), stretched_ticks(50.0, 1_000.0)
    ([0.0, 2.0, 10.0, 100.0, 1000.0, 10000.0], [50.0, 100.0, 200.0, 500.0, 1000.0])
    """
    length = math.log1p(high) - math.log1p(low)
    powers = range(math.floor(math.log10(max(high, 1.0))) + 1)
    # Powers of ten go before fives, and these before twos, where two lie too close.
    round_ones = [0.0, *(float(first * 10**power) for first in (1, 5, 2) for power in powers)]
    found: list[float] = []
    for value in round_ones:
        near = any(abs(math.log1p(value) - math.log1p(other)) < TICK_APART * length for other in found)
        if low <= value <= high and not near:
            found.append(value)
    return sorted(found)


def _middles(low: pd.Series[float], high: pd.Series[float], *, stretched: bool) -> list[float]:
    """Return the middle of each bin, as it is seen on the axis."""
    pairs = zip(low, high, strict=True)
    if stretched:
        return [math.expm1((math.log1p(a) + math.log1p(b)) / 2) for a, b in pairs]
    return [(a + b) / 2 for a, b in pairs]
