"""Axes and legends of the charts.

Figures rise from left to right, end where a metric does, and no word is cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flfed.records.charts.colours import FIGURE
from flfed.records.statistics.intervals import possible
from flfed.records.statistics.verdict import better_of, metric_name

AXIS_NUMBERS = "datum.value == 0 ? '0' : replace(datum.label, regexp('^([\u2212-]?)0[.]'), '$1.')"
"""Numbers of an axis without a leading zero, as `verdict.number` writes them; Vega's language."""
PLOT_HEIGHT: dict[str, Any] = {"type": "fit-x", "contains": "padding"}
"""Vega-Lite's `autosize` where `height` is that of the plot itself, whatever legend and axis stand around it."""
ROW_PIXELS = 44
"""Height of a row of one mark with its name above it."""
NAME_PIXELS = 15
"""How far a name stands above the middle of its mark."""
NARROW_PIXELS = 250
"""Room for a legend, or for a row of names, on the narrowest screen, of 320 pixels."""
LETTER_PIXELS, SYMBOL_PIXELS = 6.5, 34
"""Of a legend: a letter's width, and that of a symbol and the gap behind its name."""
LONG_TITLE = 30
"""Characters of an axis' title that stand in one line."""
MOST_TICKS = 6
MOST_ARE_SMALL = 0.1
"""Where half of the predictions lie below this share of an axis, it is stretched towards 0."""
STRETCH = 3
"""A stretched axis goes by the root of this order, which has a 0, as a logarithm has not."""
TICK_APART = 0.06
"""Least distance of two ticks of a stretched axis, as a share of its length."""

Axis = dict[str, Any]


def axis_title(metric: str) -> str:
    """Return the title of a metric's axis.

    Such as "AUC (higher is better)".
    """
    return f"{metric_name(metric)} ({better_of(metric)} is better)"


def in_lines(title: str) -> str | list[str]:
    """Return a title in one or two lines.

    One that is longer than its axis would be cut off.

    Examples
    --------
    >>> in_lines("AUC (higher is better)"), in_lines("recall (share of all the outcomes found)")
    ('AUC (higher is better)', ['recall', '(share of all the outcomes found)'])
    """
    name, bracket, rest = title.rpartition(" (")
    return [name, f"({rest}"] if bracket and len(title) > LONG_TITLE else title


def ticks_of(values: Iterable[float | None], metric: str = "", *, difference: bool = False) -> list[float]:
    """Return round ticks around some values.

    They go from below the least value to above the largest. Ticks that the metric cannot have are left out.

    Examples
    --------
    >>> ticks_of([0.71, 0.985, None], "roc_auc_score"), ticks_of([1.0], "roc_auc_score"), ticks_of([-2.5, 9.0])
    ([0.7, 0.8, 0.9, 1.0], [0.995, 1.0], [-5.0, 0.0, 5.0, 10.0])
    """
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    raw = max(high - low, abs(high) / 50, 1e-9) / (MOST_TICKS - 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    # The step is the smallest round one that needs no more than the allowed ticks.
    step = next(unit * by for by in (1, 2, 5, 10) if unit * by >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Equal values on a tick would leave an axis of no length.
    if first >= last:
        first, last = first - 1, first + 1
    ticks = (round(place * step, 10) for place in range(first, last + 1))
    return [tick for tick in ticks if tick == possible(metric, tick, difference=difference)]


def figure_axis(title: str, ticks: Sequence[float], *, grid: bool = True) -> Axis:
    """Return scale and axis of a figure.

    The figure goes from the first to the last of some ticks.
    """
    step = ticks[1] - ticks[0]
    # As many decimals as the step has, so that no two ticks read the same.
    decimals = max(0, next(n for n in range(11) if abs(round(step, n) - step) < 1e-9 * max(step, 1e-9) or n == 10))
    axis: Axis = {"title": in_lines(title), "values": list(ticks), "format": f".{decimals}f", "labelExpr": AXIS_NUMBERS}
    axis |= {"labelFlush": False}
    scale = {"domain": [ticks[0], ticks[-1]], "nice": False, "zero": False}
    return {"axis": axis | {"grid": grid}, "scale": scale}


def names_axis(above: float = NAME_PIXELS) -> Axis:
    """Return the axis of names above their marks.

    There they take no room from the marks.

    Each is written: Streamlit's theme leaves some out, and moves the first.
    """
    where = {"labelAlign": "left", "labelBaseline": "middle", "labelOffset": -above, "labelPadding": 0}
    whole = {"labelOverlap": False, "labelFlush": False, "labelLimit": 2000, "labelFontSize": 13, "maxExtent": 0}
    return {"title": None, "ticks": False, "domain": False, "zindex": 1} | where | whole


def figures_above(above: float = NAME_PIXELS) -> Axis:
    """Return the text mark of a row's figure.

    It stands at the right end of its name's line.
    """
    return {"type": "text", "align": "right", "dy": -above, "fontSize": 13, "fontWeight": "bold", "color": FIGURE}


def columns_for(names: Sequence[str]) -> int:
    """Return how many columns a legend has.

    They are those that fit the names on the narrowest screen.

    Examples
    --------
    >>> columns_for(["east", "west", "north"]), columns_for(["site model", "shared model adjusted to the site"])
    (3, 1)
    """
    widest = max((len(name) for name in names), default=0) * LETTER_PIXELS + SYMBOL_PIXELS
    return max(1, min(len(names), int(NARROW_PIXELS // widest)))


def legend_of(names: Sequence[str], **more: Any) -> Axis:
    """Return a legend above the plot.

    No name in it is cut.
    """
    whole = {"columns": columns_for(names), "labelLimit": 2000, "labelFontSize": 12}
    return {"title": None, "orient": "top"} | whole | more


def stretched_ticks(top: float) -> list[float]:
    """Return round figures up to `top`.

    None is nearer to the next than `TICK_APART` on a stretched axis.

    Examples
    --------
    >>> stretched_ticks(0.7)
    [0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    """
    places = {0.0: 0.0}
    # Powers of ten go before fives, and these before twos, where two lie too close.
    for first in (1, 5, 2):
        for digits in range(7):
            value = round(first / 10**digits, digits)
            place = (value / top) ** (1 / STRETCH)
            if value <= top and min(abs(place - other) for other in places.values()) >= TICK_APART:
                places[value] = place
    return sorted(places)


def end_of_calibration(lines: Sequence[Mapping[str, Any]]) -> float:
    """Return where both axes end.

    It is a round figure beyond every point and interval, at most 1.

    Examples
    --------
    >>> end_of_calibration([{"Predicted, mean": 0.012, "95 % high": 0.031}])
    0.035
    >>> end_of_calibration([{"Predicted, mean": 0.4, "95 % high": 0.97}])
    1.0
    """
    largest = max(float(line[name]) for line in lines for name in ("Predicted, mean", "95 % high"))
    unit = 10.0 ** math.floor(math.log10(largest)) / 2
    return min(round(math.ceil(largest / unit) * unit, 9), 1.0)


def is_stretched(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the axes are to be stretched.

    They are where most predictions are so small that they would be one blot in the corner.
    """
    predicted = sorted(line["Predicted, mean"] for line in lines)
    return bool(predicted[len(predicted) // 2] < MOST_ARE_SMALL * end_of_calibration(lines))
