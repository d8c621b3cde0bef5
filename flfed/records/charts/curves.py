"""Charts of scores: discrimination, calibration and net benefit, and histograms of counts with noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from flfed.records.charts.by_round import HEIGHT, STROKES, line_scales
from flfed.records.charts.chart import (
    AXIS_NUMBERS,
    STRETCH,
    Chart,
    Line,
    Spec,
    end_of_calibration,
    figure_axis,
    in_lines,
    is_stretched,
    layer,
    legend_of,
    nominal,
    number_texts,
    plot,
    quantitative,
    spaced,
    stretched_ticks,
    ticks_of,
    tooltip,
)
from flfed.records.charts.colours import BLUE, FAINT, INK, NEUTRAL, ORANGE, Looks, site_looks
from flfed.records.statistics.analysis import Number
from flfed.records.statistics.intervals import NORMAL_95
from flfed.records.statistics.noised_scores import FROM, NOISE, TO, WITH, WITHOUT
from flfed.records.statistics.operating_points import RARE, OperatingPoint
from flfed.records.statistics.score_curves import (
    LEAST_ROWS,
    TOGETHER,
    ScoreCounts,
    is_together,
    precision_recall,
    roc,
    steps,
    thinned,
)
from flfed.records.statistics.verdict import format_as_written

PLOT_PIXELS = 320
DASHED: Spec = {"strokeDash": [5, 4], "strokeWidth": 1}
ROC_TITLES = ("false positive rate (1 − specificity)", "true positive rate (sensitivity)")
PRECISION_TITLES = ("recall (share of outcomes detected)", "precision (share of correct alarms)")
NOBODY, EVERYBODY, MODEL = "flag nobody", "flag everybody", "the model"
Points = list[tuple[str, float, float]]
"""Points of curves: the curve's name, x and y."""


def _colours(names: Sequence[str], looks: Looks) -> Spec:
    of = {name: (NEUTRAL, [1, 0]) if is_together(name) else looks[name] for name in names}
    return line_scales("of", names, of)


def diagonal(top: float = 1.0) -> Spec:
    """Return the dashed line on which both axes, which end at `top`, have the same figure."""
    ends = {"data": {"values": [{"x": 0, "y": 0}, {"x": top, "y": top}]}}
    return ends | layer("line", {"x": quantitative("x"), "y": quantitative("y")}, color=NEUTRAL, **DASHED)


def _axis(field: str, title: str, top: float = 1.0, *, stretched: bool = False) -> Spec:
    scale: Spec = {"domain": [0, top], "nice": False}
    axis: Spec = {"title": in_lines(title), "labelExpr": AXIS_NUMBERS, "tickCount": 5}
    if stretched:
        scale |= {"type": "pow", "exponent": 1 / STRETCH}
        values = stretched_ticks(top)
        # Vega omits every other one of more values than the count of ticks.
        axis |= {"labelExpr": "'' + datum.value", "values": values, "tickCount": len(values), "labelOverlap": "greedy"}
    return quantitative(field, axis=axis, scale=scale)


def by_chance(counts_by_name: Mapping[str, ScoreCounts], looks: Looks) -> Spec:
    """Return the lines of precision by chance, which is a site's share of rows with the outcome."""
    shares = [{"of": name, "y": round(counts.events / counts.rows, 5)} for name, counts in counts_by_name.items()]
    encoding = {"y": quantitative("y"), "color": _colours(list(counts_by_name), looks)["color"]}
    return {"data": {"values": shares}} | layer("rule", encoding, **DASHED)


def unit_square(
    points: Points, titles: tuple[str, str], names: Sequence[str], looks: Looks, below: list[Spec]
) -> Chart | None:
    """Return curves in the unit square above the layers of `below`, None without points."""
    if not points:
        return None
    rows = pd.DataFrame(points, columns=["of", "x", "y"]).round(5)
    # A step upwards has one x twice, so the place keeps its points in order.
    rows["place"] = range(len(rows))
    # Several sites together are widest, and sites beside a chosen one are narrowest.
    faint = [name for name in names if not is_together(name) and looks[name][0] == FAINT]
    wide = {"test": f"indexof(datum.of, ' {TOGETHER}') > 0", "value": 4}
    thin = {"test": {"field": "of", "oneOf": faint}, "value": 1}
    encoding = {
        "x": _axis("x", titles[0]),
        "y": _axis("y", titles[1]),
        "order": quantitative("place"),
        "strokeWidth": {"condition": [wide, thin], "value": 3 if faint else 2},
        "tooltip": [nominal("of"), *tooltip("x", "y")],
        **_colours(names, looks),
    }
    layers = [*below, layer("line", encoding)]
    return Chart(rows, plot(PLOT_PIXELS, transform=number_texts("x", "y"), layer=layers))


def roc_chart(counts_by_name: Mapping[str, ScoreCounts], looks: Looks) -> Chart | None:
    """Return the ROC curves, the diagonal below them; None without rows."""
    points = points_of({name: thinned(*roc(counts)) for name, counts in counts_by_name.items()})
    return unit_square(points, ROC_TITLES, list(counts_by_name), looks, [diagonal()])


def precision_chart(counts_by_name: Mapping[str, ScoreCounts], looks: Looks) -> Chart | None:
    """Return the curves of precision and recall, with precision by chance; None without rows."""
    points = points_of({name: thinned(*steps(*precision_recall(counts))) for name, counts in counts_by_name.items()})
    return unit_square(points, PRECISION_TITLES, list(counts_by_name), looks, [by_chance(counts_by_name, looks)])


def points_of(curves: Mapping[str, tuple[Any, Any]]) -> Points:
    """Return the points of some curves in one list."""
    points = []
    for name, (x, y) in curves.items():
        points += [(name, float(across), float(up)) for across, up in zip(x, y, strict=True)]
    return points


def calibration_chart(
    lines: Sequence[Line], names: Sequence[str], looks: Looks, *, beside: Sequence[Line] = ()
) -> Chart | None:
    """Return the chart of calibration groups as points with their intervals, larger with more rows.

    Parameters
    ----------
    lines : sequence of mappings
        From `score_curves.group_lines`.
    names : sequence of str
        Whose lines these are.
    looks : mapping of site to colour and dash
    beside : sequence of mappings
        Lines of other charts beside this one, with which it shares its axes.
    """
    if not lines:
        return None
    keys = {"Rows of": "of", "Predicted, mean": "x", "Observed share": "y", "95 % low": "low", "95 % high": "high"}
    keys |= {"Rows": "rows"}
    rows = pd.DataFrame(lines)[list(keys)].rename(columns=keys).round(7)
    colours = _colours(names, looks)
    # Both axes end and stretch alike, so that predictions are right on the diagonal.
    shared = [*lines, *beside]
    top, stretched = end_of_calibration(shared), is_stretched(shared)
    x = _axis("x", "predicted probability (mean of the group)", top, stretched=stretched)
    y, low = (_axis(field, "observed share", top, stretched=stretched) for field in ("y", "low"))
    colour = {"color": colours["color"]}
    figures = ("x", "y", "low", "high")
    size = {"domain": [LEAST_ROWS, max(int(rows["rows"].max()), LEAST_ROWS + 1)], "range": [50, 200]}
    sized = {"size": quantitative("rows", scale=size, legend=None)}
    tooltips = {"tooltip": [nominal("of"), *tooltip(*figures), quantitative("rows", format="d")]}
    layers = [
        diagonal(top),
        layer("rule", {"x": x, "y": low, "y2": {"field": "high"}, **colour}, strokeWidth=1.5),
        layer("line", {"x": x, "y": y, **colours}, strokeWidth=1.5),
        layer("point", {"x": x, "y": y, **colour, **tooltips, **sized}, filled=True, opacity=1),
    ]
    return Chart(rows, plot(PLOT_PIXELS, transform=number_texts(*figures), layer=layers))


def decision_chart(
    name: str,
    points: Sequence[OperatingPoint],
    beside: Sequence[Sequence[OperatingPoint]],
    looks: Looks,
) -> Chart:
    """Return net benefit by threshold: of the model, of flagging everybody, and of flagging nobody.

    Parameters
    ----------
    name : str
        A site, or several together.
    points : sequence of OperatingPoint
        By rising threshold.
    beside : sequence of sequences of OperatingPoint
        Points of all charts beside each other, which share their axes.
    looks : mapping of site to colour and dash
    """
    top = max(line[0].events / line[0].rows for line in beside)
    ticks = ticks_of([0.0, top])
    ticks = [-ticks[1], *ticks]
    # Where the outcome is rare, relevant thresholds lie near 0.
    stretched = top < RARE
    colour = NEUTRAL if is_together(name) else looks[name][0]
    rows, events = points[0].rows, points[0].events
    thresholds = [(place / 200) ** (STRETCH if stretched else 1) for place in range(200)]
    everybody = [OperatingPoint(at, events, rows - events, 0, 0) for at in thresholds]
    drawn = _pieces(NOBODY, [(0.0, 0.0), (1.0, 0.0)], ticks[0])
    drawn += _pieces(EVERYBODY, net_benefits(everybody), ticks[0])
    drawn += _pieces(MODEL, net_benefits(points), ticks[0])
    line = _decision_line(ticks, colour, stretched=stretched)
    return Chart(pd.DataFrame(drawn), plot(PLOT_PIXELS, layer=[line]))


def _pieces(way: str, line: Sequence[tuple[float, float]], bottom: float) -> list[dict[str, Any]]:
    """Return the points of a line above an axis' lower end, by piece."""
    drawn = []
    for place, piece in enumerate(cut_below(line, bottom)):
        drawn += [{"way": way, "piece": f"{way} {place}", "x": x, "y": y} for x, y in piece]
    return drawn


def _decision_line(ticks: Sequence[float], colour: str, *, stretched: bool) -> Spec:
    """Return the lines of a decision chart."""
    title = "threshold (stretched towards 0)" if stretched else "threshold"
    x = _axis("x", title, stretched=stretched)
    y = quantitative("y", **figure_axis("net benefit (share of rows)", ticks))
    ways = [MODEL, EVERYBODY, NOBODY]
    of = nominal("way", legend=legend_of(ways, values=ways, **STROKES))
    width = {"condition": {"test": {"field": "way", "equal": MODEL}, "value": 2}, "value": 1}
    lines = {
        "x": x,
        "y": y,
        "color": of | {"scale": {"domain": ways, "range": [colour, NEUTRAL, NEUTRAL]}},
        "strokeDash": of | {"scale": {"domain": ways, "range": [[1, 0], [5, 4], [1, 0]]}},
        "strokeWidth": width,
        "detail": {"field": "piece"},
        "order": {"field": "x"},
    }
    return layer("line", lines)


def net_benefits(points: Sequence[OperatingPoint]) -> list[tuple[float, float]]:
    """Return threshold and net benefit of the operating points that have one."""
    return [(float(point.threshold or 0), point.net_benefit) for point in points if point.net_benefit is not None]


def cut_below(points: Sequence[tuple[float, float]], bottom: float) -> list[list[tuple[float, float]]]:
    """Return the pieces of a line above an axis' lower end.

    Examples
    --------
    >>> cut_below([(0.0, 1.0), (1.0, -1.0), (2.0, 0.0)], -0.5)
    [[(0.0, 1.0), (0.75, -0.5)], [(1.5, -0.5), (2.0, 0.0)]]
    """
    pieces: list[list[tuple[float, float]]] = [[]]
    if points and points[0][1] >= bottom:
        pieces[0].append(points[0])
    for (x, y), (to_x, to_y) in zip(points, points[1:], strict=False):
        if (y < bottom) != (to_y < bottom):
            pieces[-1].append((x + (to_x - x) * (bottom - y) / (to_y - y), bottom))
        if y >= bottom > to_y:
            pieces.append([])
        if to_y >= bottom:
            pieces[-1].append((to_x, to_y))
    return [piece for piece in pieces if piece]


def survival_chart(lines: Sequence[Line], title: str, *, is_smooth: bool) -> Chart | None:
    """Return survival curves with their intervals, None without points.

    Parameters
    ----------
    lines : sequence of mappings
        `group`, `time`, `without the event`, `low` and `high`, each group's in the order of time.
    title : str
        Of the axis of times.
    is_smooth : bool
        Whether lines join the points, as of a life table; else the curves are steps.
    """
    if not lines:
        return None
    rows = pd.DataFrame(list(lines)).rename(columns={"group": "of"})
    names = list(dict.fromkeys(rows["of"]))
    joined = "linear" if is_smooth else "step-after"
    drawn: Spec = {"interpolate": joined}
    shown = ("time", "without the event", "low", "high")
    colours = _colours(names, site_looks(names))
    x = quantitative("time", **figure_axis(title, ticks_of([0.0, rows["time"].max()])))
    ends = {"y": quantitative("low"), "y2": {"field": "high"}, "color": colours["color"]}
    encoding = {"y": _axis("without the event", "share without the event (95 % CI)"), **colours}
    layers = [
        layer("area", ends, "isValid(datum.low)", fillOpacity=0.2, strokeOpacity=0, **drawn),
        layer("line", encoding | {"tooltip": [nominal("of"), *tooltip(*shown)]}, strokeWidth=2, **drawn),
    ]
    return Chart(rows, plot(PLOT_PIXELS, transform=number_texts(*shown), encoding={"x": x}, layer=layers))


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
        axis |= {"values": log_ticks(first, last), "labelOverlap": False, "labelExpr": SHORT}
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
    axis = {"title": "predicted probability", "grid": False, "labelFlush": False, "labelExpr": f"{places}[datum.value]"}
    axis |= {"labelOverlap": "greedy", "labelSeparation": 6, "values": list(range(0, bins + 1, -(-bins // MOST_ENDS)))}
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
"""Most ends of bins that the axis names; a phone omits those that would overlap."""


def log_ticks(low: float, high: float) -> list[float]:
    """Return round figures between two ends, well apart from each other on a log(1 + x) axis.

    Examples
    --------
    >>> log_ticks(0.0, 20_000.0), log_ticks(50.0, 1_000.0)
    ([0.0, 2.0, 10.0, 100.0, 1000.0, 10000.0], [50.0, 100.0, 200.0, 500.0, 1000.0])
    """
    powers = range(math.floor(math.log10(max(high, 1.0))) + 1)
    # Powers of ten go before fives, and these before twos, where two lie too close.
    values = [0.0, *(float(first * 10**power) for first in (1, 5, 2) for power in powers)]
    apart = TICK_APART * (math.log1p(high) - math.log1p(low))
    return spaced((value for value in values if low <= value <= high), math.log1p, apart)
