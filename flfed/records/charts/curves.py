"""Charts of scores: discrimination, calibration, and net benefit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from flfed.records.charts.by_round import STROKES, line_scales
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
    stretched_ticks,
    ticks_of,
    tooltip,
)
from flfed.records.charts.colours import FAINT, NEUTRAL, Looks, site_looks
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
from flfed.words import render

PLOT_PIXELS = 320
DASHED: Spec = {"strokeDash": [5, 4], "strokeWidth": 1}
ROC_TITLES = ("false positive rate (1 − specificity)", "true positive rate (sensitivity)")
PRECISION_TITLES = ("recall (share of outcomes detected)", "precision (share of correct alarms)")
NOBODY, EVERYBODY, MODEL, COUNTED = "flag nobody", "flag everybody", "the model", "exact counts"
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
        axis |= {"labelExpr": "'' + datum.value", "values": values, "tickCount": len(values), "labelOverlap": False}
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
    x = _axis("x", render("charts.axes.predicted"), top, stretched=stretched)
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
    exact: Sequence[OperatingPoint],
    beside: Sequence[Sequence[OperatingPoint]],
    looks: Looks,
) -> Chart:
    """Return net benefit by threshold: of the model, of flagging everybody, and of flagging nobody.

    Parameters
    ----------
    name : str
        A site, or several together.
    points : sequence of OperatingPoint
        By rising threshold. Without other points no line is drawn between exact counts.
    exact : sequence of OperatingPoint
        Exact counts, drawn as marks.
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
    if [*points] != [*exact]:
        drawn += _pieces(MODEL, net_benefits(points), ticks[0])
    drawn += [{"way": COUNTED, "piece": COUNTED, "x": x, "y": y} for x, y in net_benefits(exact) if y >= ticks[0]]
    layers = _decision_layers(ticks, colour, stretched=stretched)
    return Chart(pd.DataFrame(drawn), plot(PLOT_PIXELS, layer=layers))


def _pieces(way: str, line: Sequence[tuple[float, float]], bottom: float) -> list[dict[str, Any]]:
    """Return the points of a line above an axis' lower end, by piece."""
    drawn = []
    for place, piece in enumerate(cut_below(line, bottom)):
        drawn += [{"way": way, "piece": f"{way} {place}", "x": x, "y": y} for x, y in piece]
    return drawn


def _decision_layers(ticks: Sequence[float], colour: str, *, stretched: bool) -> list[Spec]:
    """Return lines and marks of a decision chart."""
    title = render("charts.axes.stretched") if stretched else "threshold"
    x = _axis("x", title, stretched=stretched)
    y = quantitative("y", **figure_axis(render("charts.axes.benefit"), ticks))
    ways = [MODEL, EVERYBODY, NOBODY, COUNTED]
    of = nominal("way", legend=legend_of(ways[:3], values=ways[:3], **STROKES))
    width = {"condition": {"test": {"field": "way", "equal": MODEL}, "value": 2}, "value": 1}
    lines = {
        "x": x,
        "y": y,
        "color": of | {"scale": {"domain": ways, "range": [colour, NEUTRAL, NEUTRAL, colour]}},
        "strokeDash": of | {"scale": {"domain": ways, "range": [[1, 0], [5, 4], [1, 0], [1, 0]]}},
        "strokeWidth": width,
        "detail": {"field": "piece"},
        "order": {"field": "x"},
    }
    counted = {"filled": True, "size": 50, "opacity": 1, "color": colour}
    return [
        layer("line", lines, f"datum.way != '{COUNTED}'"),
        layer("point", {"x": x, "y": y}, f"datum.way == '{COUNTED}'", **counted),
    ]


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
    drawn: Spec = {"interpolate": "linear" if is_smooth else "step-after"}
    shown = ("time", "without the event", "low", "high")
    colours = _colours(names, site_looks(names))
    x = quantitative("time", **figure_axis(title, ticks_of([0.0, rows["time"].max()])))
    ends = {"y": quantitative("low"), "y2": {"field": "high"}, "color": colours["color"]}
    encoding = {"y": _axis("without the event", render("charts.survival.share")), **colours}
    layers = [
        layer("area", ends, "isValid(datum.low)", fillOpacity=0.2, strokeOpacity=0, **drawn),
        layer("line", encoding | {"tooltip": [nominal("of"), *tooltip(*shown)]}, strokeWidth=2, **drawn),
    ]
    return Chart(rows, plot(PLOT_PIXELS, transform=number_texts(*shown), encoding={"x": x}, layer=layers))
