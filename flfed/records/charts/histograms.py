"""Histograms of counts with noise, the reach of the noise on each bar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from flfed.records.charts.by_round import HEIGHT
from flfed.records.charts.chart import (
    AXIS_NUMBERS,
    Chart,
    Line,
    Spec,
    in_lines,
    layer,
    legend_of,
    nominal,
    plot,
    quantitative,
    spaced,
)
from flfed.records.charts.colours import BLUE, INK, ORANGE
from flfed.records.statistics.analysis import Number
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.noised_scores import FROM, NOISE, TO, WITH, WITHOUT
from flfed.records.statistics.verdict import format_as_written

ALIKE = 1e-6
"""Share by which bins of equal width may differ through rounding."""
TICK_APART = 0.11
"""Least distance of two ticks of a stretched axis, as a share of its length."""
SHORT = "datum.value < 1e3 ? '' + datum.value : datum.value < 1e6 ? datum.value / 1e3 + 'k' : datum.value / 1e6 + 'M'"
"""Numbers of a stretched axis, such as 10k, in Vega's language."""
LOW, HIGH = "95 % low (noise)", "95 % high (noise)"


def histogram_lines(column: Number, deviation: float) -> list[Line]:
    """Return a number's bins, each with its count and the reach of its noise.

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
    lines: list[Line] = []
    for low, high, count in zip(column.edges, column.edges[1:], column.counts, strict=False):
        # A number of rows is never below 0.
        ends = {LOW: round(max(count - reach, 0.0), 1), HIGH: round(count + reach, 1)}
        lines.append({"From": low, "To": high, "Count": round(count, 1), **ends})
    return lines


def histogram_chart(lines: Sequence[Line], title: str, unit: str) -> Chart | None:
    """Return bars of bins with the reach of their noise, or None without bins.

    Bins that widen from left to right, as those of amounts do, are drawn equally wide on a stretched axis.

    Parameters
    ----------
    lines : sequence of mappings
        From `histogram_lines`.
    title : str
        Of the axis: the column and its unit.
    unit : str
        Unit of the counts, such as "rows".
    """
    if not lines:
        return None
    keys = {"From": "from", "To": "to", "Count": "count", LOW: "low", HIGH: "high"}
    rows = pd.DataFrame(lines)[list(keys)].rename(columns=keys).astype("float64")
    first, last = float(rows["from"].iloc[0]), float(rows["to"].iloc[-1])
    widths = rows["to"] - rows["from"]
    scale: Spec = {"domain": [first, last], "nice": False, "zero": False}
    axis: Spec = {"title": in_lines(title), "grid": False, "labelExpr": AXIS_NUMBERS, "labelFlush": False}
    rows["middle"] = (rows["from"] + rows["to"]) / 2
    if widths.max() - widths.min() > ALIKE * widths.max():
        rows["middle"] = np.expm1((np.log1p(rows["from"]) + np.log1p(rows["to"])) / 2)
        scale |= {"type": "symlog", "constant": 1}
        # Short labels, such as 10k, fit the narrowest screen.
        axis |= {"values": stretched_ticks(first, last), "labelOverlap": False, "labelExpr": SHORT}
    title_by_column = {"from": "from", "to": "to", "count": unit, "low": LOW, "high": HIGH}
    ends = {"x": quantitative("from", scale=scale, axis=axis), "x2": {"field": "to"}}
    look = {"color": ORANGE, "strokeWidth": 2 if len(rows) <= 64 else 1}
    return _with_noise(rows, unit, ends, [], title_by_column, {"color": BLUE}, look)


def _with_noise(
    rows: pd.DataFrame,
    unit: str,
    ends: Spec,
    tooltip: Sequence[Spec],
    title_by_column: Mapping[str, str],
    colour: Spec,
    noise: Spec,
) -> Chart:
    """Return bars of counts from 0, each with a line for the reach of its noise.

    Parameters
    ----------
    rows : DataFrame
        With columns count, middle, low and high.
    unit : str
    ends : dict
        Encodings of a bar's ends, and of its colour where bars differ in it.
    tooltip : sequence of dict
    title_by_column : mapping of column to title
        Further columns of tooltips.
    colour, noise : dict
        Looks of bars and lines.
    """
    axis = {"title": unit, "tickCount": 5, "labelFlush": False}
    y = quantitative("count", scale={"domainMin": 0}, axis=axis)
    tips = [*tooltip, *(quantitative(field, title=name) for field, name in title_by_column.items())]
    bars = layer("rect", {**ends, "y": y, "y2": {"datum": 0}, "tooltip": tips}, stroke=None, **colour)
    reach = {"x": ends["x"] | {"field": "middle"}, "y": y | {"field": "low"}, "y2": {"field": "high"}}
    return Chart(rows, plot(HEIGHT, layer=[bars, layer("rule", reach, **noise)]))


def scores_chart(lines: Sequence[Line], unit: str) -> Chart | None:
    """Return bars of both classes by bin of the predicted probability, with the reach of their noise.

    Bins are drawn equally wide, as each has about as many rows; the axis has the probabilities at which they begin.

    Parameters
    ----------
    lines : sequence of mappings
        From `noised_scores.count_lines`.
    unit : str
        Unit of the counts, such as "rows".
    """
    if not lines:
        return None
    drawn = []
    for place, line in enumerate(lines):
        for half, name in enumerate((WITHOUT, WITH)):
            start, count, reach = place + GAP + half * (0.5 - GAP), line[name], line[NOISE]
            # A count that the noise has made negative has no bar.
            row = {"class": name, "start": start, "end": start + 0.5 - GAP, "middle": start + 0.25 - GAP / 2}
            row["count"] = max(count, 0.0)
            row |= {"low": max(count - reach, 0.0), "high": max(count + reach, 0.0)}
            drawn.append(row | {"from": line[FROM], "to": line[TO], "recorded": count})
    bins = len(lines)
    places = [format_as_written(end) for end in (*(line[FROM] for line in lines), lines[-1][TO])]
    axis = {"title": "predicted probability", "grid": False, "labelFlush": False, "labelOverlap": False}
    axis |= {"values": list(range(0, bins + 1, -(-bins // MOST_ENDS))), "labelExpr": f"{places}[datum.value]"}
    scale = {"domain": [WITHOUT, WITH], "range": [BLUE, ORANGE]}
    ends = {
        "x": quantitative("start", scale={"domain": [0, bins], "nice": False}, axis=axis),
        "x2": {"field": "end"},
        "color": nominal("class", scale=scale, legend=legend_of([WITHOUT, WITH])),
    }
    title_by_column = {"from": FROM, "to": TO, "recorded": unit, "low": LOW, "high": HIGH}
    tooltip = [nominal("class", title="class")]
    return _with_noise(pd.DataFrame(drawn), unit, ends, tooltip, title_by_column, {}, {"color": INK, "strokeWidth": 2})


GAP = 0.06
"""Gap left and right of each pair of bars, as a share of a bin."""
MOST_ENDS = 8
"""Most ends of bins that the axis names: more would overlap on a phone."""


def stretched_ticks(low: float, high: float) -> list[float]:
    """Return round figures between two ends, well apart from each other on a log(1 + x) axis.

    Examples
    --------
    >>> stretched_ticks(0.0, 20_000.0), stretched_ticks(50.0, 1_000.0)
    ([0.0, 2.0, 10.0, 100.0, 1000.0, 10000.0], [50.0, 100.0, 200.0, 500.0, 1000.0])
    """
    powers = range(math.floor(math.log10(max(high, 1.0))) + 1)
    # Powers of ten go before fives, and these before twos, where two lie too close.
    values = [0.0, *(float(first * 10**power) for first in (1, 5, 2) for power in powers)]
    apart = TICK_APART * (math.log1p(high) - math.log1p(low))
    return spaced((value for value in values if low <= value <= high), math.log1p, apart)
