"""Chart in Vega-Lite, its axes and legends, and its picture, which needs no script.

Figures rise from left to right, axes end where a metric ends, and no word is cut.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from flfed.records.charts.colours import FIGURE, GRID, INK, NEUTRAL, WORDS
from flfed.records.statistics.intervals import possible
from flfed.records.statistics.verdict import ABSENT, better_of, decimals_of, metric_name
from flfed.records.text import BREAKS

if TYPE_CHECKING:
    import altair as alt

Spec = dict[str, Any]
"""A chart's Vega-Lite specification, without its data."""
Line = Mapping[str, Any]
"""One line of a table: figures as numbers, None where there is none."""
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
PRINTED: Spec = {
    "aria": False,
    "font": FONT,
    "axis": {"labelColor": WORDS[0], "titleColor": WORDS[0], "titleFontWeight": "normal", "gridColor": GRID,
             "domainColor": NEUTRAL, "tickColor": NEUTRAL, "labelFontSize": 11, "titleFontSize": 11},
    "legend": {"labelColor": WORDS[0]},
    "view": {"stroke": None},
}  # fmt: skip
"""Vega's configuration of a picture on white paper."""
SCAFFOLD = re.compile(
    r' (?:xmlns(?::xlink)?|version|aria-\w+|role|pointer-events|font-family)="[^"]*"| opacity="1"'
    r'| stroke-dasharray="1,0"|<path class="foreground" d="" display="none"/>'
)
"""Invisible parts of a picture by Vega."""
UNUSED = re.compile(r'<path class="(?:foreground|background)"[^>]*d="(?:|M0,0h0v0h0Z)"[^>]*/>')
DECIMALS = re.compile(r"(\.\d\d)\d+")
"""Digits beyond hundredths of a pixel, which are invisible."""
TAG = re.compile("<[^>]*>")


@dataclass(frozen=True)
class Chart:
    """Chart of rows in a fixed form: while only `rows` change, the browser moves its lines and keeps the chart.

    It is a plain Vega-Lite specification: Altair's checks would take most of the time of each refresh.

    Attributes
    ----------
    rows : DataFrame
    spec : dict
    is_by_row : bool
        Whether its height follows from the number of its rows.
    """

    rows: pd.DataFrame
    spec: Spec
    is_by_row: bool = False

    def to_dict(self) -> Spec:
        """Return the chart with its rows in it."""
        values = json.loads(self.rows.to_json(orient="records", double_precision=10))
        return {"data": {"values": values}, **self.spec}

    def altair(self) -> alt.LayerChart:
        """Return the chart as one of Altair's, for a notebook."""
        import altair

        return altair.LayerChart.from_dict(self.to_dict())


def picture(drawn: Chart, width: int, height: int | None = None) -> str:
    """Return a chart as SVG that loads nothing and runs no script.

    Parameters
    ----------
    drawn : Chart
    width : int, pixels
    height : int, pixels, optional
        Of the plot itself; the chart's own by default.
    """
    # It contains Vega, which a command without charts does not need.
    import vl_convert

    spec = plain_texts(drawn.to_dict())
    spec |= {"width": width, "background": None, "config": PRINTED}
    if height is not None:
        spec["height"] = height
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    svg = UNUSED.sub("", SCAFFOLD.sub("", svg)).replace(FIGURE, INK)
    svg = svg.replace("<svg ", f'<svg font-family="{FONT}" ', 1)
    return TAG.sub(lambda tag: DECIMALS.sub(r"\1", tag[0]), svg)


def plain_texts(value: Any) -> Any:
    r"""Return a specification whose texts have no signs that reverse the direction of writing.

    Examples
    --------
    >>> plain_texts({"site": ["a\u202eb", 1.5]})
    {'site': ['a b', 1.5]}
    """
    if isinstance(value, str):
        return BREAKS.sub(" ", value)
    if isinstance(value, dict):
        return {key: plain_texts(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_texts(one) for one in value]
    return value


AXIS_NUMBERS = "datum.value == 0 ? '0' : datum.label"
"""Numbers of an axis as `verdict.number` writes them, and 0 without decimals; Vega's language."""
NUMBER = (
    "abs({0}) >= 1e9 ? format({0}, '.1e') : abs({0}) >= 100 ? format({0}, '.0f') : abs({0}) >= 10 ? format({0}, '.1f')"
    " : abs({0}) >= 1.5 ? format({0}, '.2f') : format({0}, '.3f')"
)
"""A figure as `verdict.number` writes it; Vega's language."""
PLOT_HEIGHT: dict[str, Any] = {"type": "fit-x", "contains": "padding"}
"""Vega-Lite's `autosize` where `height` is that of the plot itself, without legend and axis."""
ROW_PIXELS = 44
"""Height of a row of one mark with its name above it."""
NAME_PIXELS = 15
"""Distance of a name above the middle of its mark."""
NARROW_PIXELS = 250
"""Room for a legend, or for a row of names, on the narrowest screen, of 320 pixels."""
LETTER_PIXELS, SYMBOL_PIXELS = 6.5, 34
"""Widths in a legend: of a letter, and of a symbol with the gap behind its name."""
LONG_TITLE = 30
"""Characters of an axis' title that fit in one line."""
MOST_TICKS = 6
MOST_ARE_SMALL = 0.1
"""Where half of the predictions lie below this share of an axis, it is stretched towards 0."""
STRETCH = 3
"""Order of the root of a stretched axis; unlike a logarithm, a root has a 0."""
TICK_APART = 0.06
"""Least distance of two ticks of a stretched axis, as a share of its length."""

Axis = dict[str, Any]


def quantitative(field: str, **more: Any) -> Spec:
    """Return the encoding of a number."""
    return {"field": field, "type": "quantitative", **more}


def nominal(field: str, **more: Any) -> Spec:
    """Return the encoding of a name."""
    return {"field": field, "type": "nominal", **more}


def tooltip(*fields: str) -> list[Spec]:
    """Return the figures of a tooltip, as `number_texts` writes them."""
    return [nominal(f"{field} shown", title=field) for field in fields]


def number_texts(*fields: str) -> list[Spec]:
    """Return the transforms of a chart that write the figures of its tooltips as `verdict.number` does."""
    transforms = []
    for field in fields:
        value = f"datum['{field}']"
        text = f"isValid({value}) ? {NUMBER.format(value)} : '{ABSENT}'"
        transforms.append({"calculate": text, "as": f"{field} shown"})
    return transforms


def layer(mark: str, encoding: Spec, *only: str, **look: Any) -> Spec:
    """Return a layer of marks, of the rows for which all of `only` hold, in Vega's language."""
    drawn: Spec = {"mark": {"type": mark, **look}, "encoding": encoding}
    if only:
        drawn["transform"] = [{"filter": test} for test in only]
    return drawn


def plot(height: float, **more: Any) -> Spec:
    """Return a chart whose plot itself, without legend and axis, has a height in pixels."""
    return {"height": height, "autosize": PLOT_HEIGHT, **more}


def axis_title(metric: str) -> str:
    """Return the title of a metric's axis, such as "AUC (higher is better)"."""
    return f"{metric_name(metric)} ({better_of(metric)} is better)"


def in_lines(title: str) -> str | list[str]:
    """Return a title in one line, or in two where it is long, as an axis cuts a longer title off.

    Examples
    --------
    >>> in_lines("AUC (higher is better)"), in_lines("recall (share of all the outcomes found)")
    ('AUC (higher is better)', ['recall', '(share of all the outcomes found)'])
    """
    name, bracket, rest = title.rpartition(" (")
    return [name, f"({rest}"] if bracket and len(title) > LONG_TITLE else title


def ticks_of(values: Iterable[float | None], metric: str = "", *, difference: bool = False) -> list[float]:
    """Return round ticks from below the least value to above the largest, of those that the metric can have.

    Examples
    --------
    >>> ticks_of([0.71, 0.985, None], "roc_auc_score"), ticks_of([1.0], "roc_auc_score"), ticks_of([-2.5, 9.0])
    ([0.7, 0.8, 0.9, 1.0], [0.995, 1.0], [-5.0, 0.0, 5.0, 10.0])
    """
    numbers = [value for value in values if value is not None]
    low, high = min(numbers), max(numbers)
    raw = max(high - low, abs(high) / 50, 1e-9) / (MOST_TICKS - 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    # The step is the smallest round one within the number of ticks.
    step = next(unit * by for by in (1, 2, 5, 10) if unit * by >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Equal values on a tick would leave an axis of no length.
    if first >= last:
        first, last = first - 1, first + 1
    ticks = (round(place * step, 10) for place in range(first, last + 1))
    return [tick for tick in ticks if tick == possible(metric, tick, difference=difference)]


def figure_axis(
    title: str, ticks: Sequence[float], *, grid: bool = True, signed: bool = False, crowded: str = "false"
) -> Axis:
    """Return scale and axis of a figure, from the first to the last of some ticks.

    Where it is `crowded`, a condition in Vega's language, every other of many ticks has a label, 0 among them.
    """
    step = ticks[1] - ticks[0]
    # The labels have the decimals of the figure, and more where two ticks would read the same.
    of_step = next(n for n in range(11) if abs(round(step, n) - step) < 1e-9 * max(step, 1e-9) or n == 10)
    sign = "+" if signed else ""
    form = f"{sign}.{max(decimals_of(*ticks), of_step)}f"
    label = f"{crowded} && {len(ticks)} > 4 && round(datum.value / {step}) % 2 ? '' : {AXIS_NUMBERS}"
    axis: Axis = {"title": in_lines(title), "values": list(ticks), "format": form, "labelExpr": label}
    # Where labels would overlap, some are left out, and 0 stays.
    axis |= {"labelFlush": False, "labelOverlap": "greedy"}
    scale = {"domain": [ticks[0], ticks[-1]], "nice": False, "zero": False}
    return {"axis": axis | {"grid": grid}, "scale": scale}


def names_axis(above: float = NAME_PIXELS) -> Axis:
    """Return the axis of names above their marks, where they take no room from the marks.

    Every name is shown: Streamlit's theme omits some, and moves the first.
    """
    where = {"labelAlign": "left", "labelBaseline": "middle", "labelOffset": -above, "labelPadding": 0}
    whole = {"labelOverlap": False, "labelFlush": False, "labelLimit": 2000, "labelFontSize": 13, "maxExtent": 0}
    return {"title": None, "ticks": False, "domain": False, "zindex": 1} | where | whole


def figures_above() -> Axis:
    """Return the text mark of a row's figure, at the right end of its name's line."""
    return {"type": "text", "align": "right", "dy": -NAME_PIXELS, "fontSize": 13, "fontWeight": "bold", "color": FIGURE}


def columns_for(names: Sequence[str]) -> int:
    """Return the number of columns with which a legend of names fits the narrowest screen.

    Examples
    --------
    >>> columns_for(["east", "west", "north"]), columns_for(["site model", "shared model adjusted to the site"])
    (3, 1)
    """
    widest = max((len(name) for name in names), default=0) * LETTER_PIXELS + SYMBOL_PIXELS
    return max(1, min(len(names), int(NARROW_PIXELS // widest)))


def legend_of(names: Sequence[str], **more: Any) -> Axis:
    """Return a legend above the plot, with whole names."""
    whole = {"columns": columns_for(names), "labelLimit": 2000, "labelFontSize": 12}
    return {"title": None, "orient": "top"} | whole | more


def stretched_ticks(top: float) -> list[float]:
    """Return round figures up to `top`, at least `TICK_APART` from each other on a stretched axis.

    Powers of ten go before fives, and these before twos.

    Examples
    --------
    >>> stretched_ticks(0.7)
    [0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    """
    values = [0.0, *(round(first / 10**digits, digits) for first in (1, 5, 2) for digits in range(7))]
    return spaced((value for value in values if value <= top), lambda value: (value / top) ** (1 / STRETCH), TICK_APART)


def spaced(values: Iterable[float], place: Callable[[float], float], apart: float) -> list[float]:
    """Return the values, sorted, that are at least `apart` on an axis; earlier ones go before later ones."""
    places: dict[float, float] = {}
    for value in values:
        at = place(value)
        if all(abs(at - other) >= apart for other in places.values()):
            places[value] = at
    return sorted(places)


def end_of_calibration(lines: Sequence[Line]) -> float:
    """Return the end of both axes: a round figure beyond every point and interval, at most 1.

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


def is_stretched(lines: Sequence[Line]) -> bool:
    """Return whether axes are to be stretched, because most predictions are small and would lie in one corner."""
    predicted = sorted(line["Predicted, mean"] for line in lines)
    return bool(predicted[len(predicted) // 2] < MOST_ARE_SMALL * end_of_calibration(lines))
