"""Charts of sites and models, each with its own colour and shape, and names above marks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from flfed.records.charts.chart import (
    ROW_PIXELS,
    Chart,
    Line,
    Spec,
    axis_title,
    figure_axis,
    figures_above,
    layer,
    legend_of,
    names_axis,
    nominal,
    number_texts,
    plot,
    quantitative,
    ticks_of,
    tooltip,
)
from flfed.records.charts.colours import (
    ARM_COLOURS,
    FIGURE,
    GREY,
    NEUTRAL,
    ORANGE,
    VERDICT_COLOURS,
    VERDICT_SHAPES,
)
from flfed.records.objects import read_figure, run_of
from flfed.records.reports.narrative import MARK, ForestLine, forest_lines
from flfed.records.reports.report import arms_shown
from flfed.records.statistics import Report, verdict

ARM_SHAPES = {"global": "circle", "personalised": "diamond", "local-only": "square"}
ARMS_PIXELS, ARMS_GAP = 62, 0.36
"""Height of a site's row with a mark for each model, and the share of it that its name takes."""
FIGURE_PIXELS = 52
"""Width of the figures beside the marks of a site's models."""
NARROW = "width < 880"
"""Condition in Vega's language under which a forest plot has no columns: each mark has two lines of text above it."""
CROWDED = "width >= 880 && width < 1000"
"""Condition under which the marks between the columns have too little room for labels of many ticks."""
SMALL = "width < 270"
"""Condition under which its texts are small, as on a screen of 320 pixels."""
LINE_PIXELS, MARK_PIXELS = 14, 12
"""On a narrow screen: distance of a row's two lines of text, and of its mark below the middle of the row."""
BEFORE_PLOT = 330
BEHIND_PLOT = 385
"""Pixels of a forest plot's columns on a wide screen, left and right of its marks."""
FOREST_COLUMNS = {
    "name": ("site", "0", "left"),
    "rows": ("test rows", "185", "right"),
    "own": ("site model", "258", "right"),
    "shared": ("shared", "312", "right"),
    "gain": ("gain (95 % CI)", "width - 370", "left"),
    "conclusion": ("verdict", "width", "right"),
}
"""Title, place in Vega's language and side of a forest plot's columns."""
VERDICT_LIMIT, VERDICT_LETTERS = 155, 25
"""Pixels and letters of a line of a verdict in its column."""
NAME_LIMIT, ALONE_LIMIT = 125, 260
"""Pixels of a site's name in its column, with columns of test rows and site models beside it, and without; the table
has the whole name."""
REACH = 4
"""Reach of a forest plot, in multiples of the median site's interval."""

ENDS = ("value", "low", "high")
INTERVAL: Spec = {"x": quantitative("low"), "x2": {"field": "high"}}
"""Ends of a row's interval."""
HAS_INTERVAL = "datum.low != null"
HAS_VALUE = "datum.value != null"
"""Conditions of rows, in Vega's language."""
PLOT_PIXELS = 300
ROWS = "Rows"
GAIN = "Gain in AUC"
LEAST = "least gain shown"
LARGEST = 0.5
"""Of the chart by number of rows: its height, its columns, and the largest gain drawn."""
Rows = list[dict[str, Any]]


def looks_of(field: str, looks: Mapping[str, str], shown: Sequence[str] | None = None) -> Spec:
    """Return the colours or shapes of a field's names, and the legend of `shown` of them, by default all.

    One name needs no legend: it stands in the words beside its chart.
    """
    names = list(looks) if shown is None else shown
    legend = legend_of(names, values=names) if len(names) > 1 else None
    return nominal(field, scale={"domain": list(looks), "range": list(looks.values())}, legend=legend)


def arms_y(names: Sequence[str]) -> Spec:
    """Return the y axis of sites with a mark for each model, in the order of `names`."""
    axis = names_axis(ARMS_PIXELS * (1 - ARMS_GAP) / 2 + 9)
    return nominal("site", sort=list(names), axis=axis, scale={"paddingInner": ARMS_GAP, "paddingOuter": 0})


def _spread(rows: Iterable[Line]) -> list[float]:
    """Return the known figures and ends of intervals."""
    return [row[key] for row in rows for key in ENDS if row[key] is not None]


def sites_by_arm(report: Report, metric: str, sites: Sequence[str]) -> Chart | None:
    """Return the chart of each arm's figure at each site, with its interval as a line."""
    run = run_of(report)
    rows = []
    arms = arms_shown(report, metric)
    for name in sites:
        for arm in arms:
            entry = run.sites[name][arm].get(metric)
            figure = read_figure(entry)
            if figure.value is not None:
                text = verdict.number(figure.value)
                shown = verdict.with_interval(figure)
                rows.append({"site": name, "arm": verdict.ARM_NAMES[arm], **entry, "text": text, "shown": shown})
    if not rows:
        return None
    colours = {verdict.ARM_NAMES[arm]: ARM_COLOURS[arm] for arm in arms}
    names = list(colours)
    # Only sites with a figure get a row, in the order of `sites`.
    there = list(dict.fromkeys(row["site"] for row in rows))
    place = {"y": arms_y(there), "yOffset": nominal("arm", sort=names)}
    base = place | {"color": looks_of("arm", colours)}
    x = quantitative("value", **figure_axis(axis_title(metric), ticks_of(_spread(rows), metric)))
    x["scale"]["range"] = [0, {"expr": f"width - {FIGURE_PIXELS}"}]
    scale = {"domain": names, "range": [ARM_SHAPES[arm] for arm in arms]}
    dots = {
        "x": x,
        "shape": nominal("arm", scale=scale, legend=legend_of(names)),
        "tooltip": [nominal("site"), nominal("arm"), nominal("shown")],
    }
    texts = {"x": {"value": "width"}, "text": nominal("text")}
    # Arms without an interval are drawn as a mark alone.
    layers = [
        layer("rule", base | INTERVAL, HAS_INTERVAL, strokeWidth=2),
        layer("point", base | dots, filled=True, size=90, opacity=1),
        layer("text", place | texts, align="right", fontSize=13, color=FIGURE),
    ]
    return Chart(pd.DataFrame(rows), plot(ARMS_PIXELS * len(there), layer=layers), is_by_row=True)


def forest_plot(report: Report, metric: str, sites: Sequence[str]) -> Chart | None:
    """Return the forest plot of the gains: a row a site, the mean last.

    A line is the interval that decides the verdict. On a wide screen each row has its figures beside it, on a narrow
    one above it, in two lines.
    """
    run = run_of(report)
    lines = forest_lines(report, metric, sites)
    if all(line.value is None for line in lines):
        return None
    words = {code: verdict.describe_verdict(code, metric) for code in VERDICT_COLOURS}
    rows = [_forest_row(line, words[line.verdict], run.rule.minimum_gain[metric]) for line in lines]
    colours = {words[code]: colour for code, colour in VERDICT_COLOURS.items()}
    # The legend names only the verdicts that occur.
    verdicts = {line.verdict for line in lines if line.value is not None}
    there = [words[code] for code in VERDICT_COLOURS if code in verdicts]
    y = nominal("name", sort=[line.name for line in lines], axis=None)
    base = {"y": y, "color": looks_of("verdict", colours, there)}
    # The axis always has 0, which separates gain from loss.
    reach = plot_reach(lines)
    ends = [0.0, *(max(-reach, min(reach, end)) for end in _spread(rows))]
    title = f"gain in {verdict.metric_name(metric)} (+ is better)"
    axis = figure_axis(title, ticks_of(ends, metric, difference=True), signed=True, crowded=CROWDED)
    x = quantitative("value", **axis)
    plot_ends = [by_width(0, BEFORE_PLOT), by_width("width", f"width - {BEHIND_PLOT}")]
    x["scale"] |= {"clamp": True, "range": plot_ends}
    marks = base | {"x": x, "tooltip": [nominal("name"), nominal("gain"), nominal("verdict")]}
    shapes = dict(zip(colours, VERDICT_SHAPES.values(), strict=True))
    shape = {"shape": looks_of("verdict", shapes, there)}
    look = {"filled": True, "opacity": 1, "yOffset": by_width(MARK_PIXELS, 0)}
    titles = {}
    if any(line.events for line in lines):
        titles["rows"] = "rows (events)"
    if run.rule.sites > 1:
        titles["gain"] = "gain (95 % CI, widened)"
    layers = [
        layer("rule", {"x": quantitative("at")}, strokeDash=[5, 4], color=NEUTRAL) | one_mark({"at": 0}),
        layer("rule", base | INTERVAL, HAS_VALUE, HAS_INTERVAL, strokeWidth=3, yOffset=look["yOffset"]),
        layer("point", marks | shape, HAS_VALUE, "!datum.mean", **look, size=140),
        layer("point", marks, HAS_VALUE, "datum.mean", **look, size=260, shape="diamond"),
        *_forest_columns(y, rows, titles),
    ]
    return Chart(pd.DataFrame(rows), plot(ROW_PIXELS * len(rows), layer=layers), is_by_row=True)


def by_width(narrow: object, wide: object) -> Spec:
    """Return one value for a narrow screen and one for a wide one, in Vega's language."""
    return {"expr": f"{NARROW} ? {narrow} : {wide}"}


def one_mark(row: Line) -> Spec:
    """Return the data of a layer with a single mark of its own."""
    return {"data": {"values": [row]}}


def plot_reach(lines: Sequence[ForestLine]) -> float:
    """Return the reach of a forest plot from 0.

    A single very uncertain site does not compress the others: its line ends at the plot's edge.

    Examples
    --------
    >>> from dataclasses import replace
    >>> line = ForestLine("a", "a", 0.02, -0.06, 0.1, "pays")
    >>> plot_reach([line, line, replace(line, low=-0.9, high=1.0)])
    0.4
    """
    widths = [_furthest(line.low, line.high) for line in lines if line.site is not None and line.low is not None]
    shown = [_furthest(line.value) for line in lines]
    shown += [_furthest(line.low, line.high) for line in lines if line.site is None]
    middle = float(median(widths)) if widths else 0.0
    return max(REACH * middle, *shown)


def _furthest(*ends: float | None) -> float:
    return max(abs(end or 0.0) for end in ends)


def _forest_row(line: ForestLine, conclusion: str, worthwhile: float) -> dict[str, Any]:
    """Return a line of the forest plot with its texts: its columns, and some of them as one line."""
    cells = {"rows": verdict.shown(line.rows, absent="")}
    cells |= {arm: verdict.shown(getattr(line, arm), verdict.number, "") for arm in ("own", "shared")}
    named = [f"{title} {cells[arm]}" for arm, title in (("own", "site"), ("shared", "shared")) if cells[arm]]
    if line.rows is not None:
        counts = f"{line.rows:,} rows"
        if line.events is not None:
            cells["rows"] += f" ({line.events:,})"
            counts += f" ({line.events:,} events)"
        named.insert(0, counts)
    gain = verdict.gain_in_brackets(line.gain, worthwhile)
    if line.model == "personalised":
        gain += MARK
    drawn = {name: getattr(line, name) for name in ("name", *ENDS)}
    # A picture keeps no line feed.
    in_lines = textwrap.fill(conclusion, VERDICT_LETTERS, max_lines=2, placeholder=" …").replace("\n", "¶")
    texts = {"gain": gain, "verdict": conclusion, "conclusion": in_lines, "in line": ", ".join(named) or conclusion}
    return drawn | cells | texts | {"mean": line.site is None}


def _forest_columns(y: Spec, rows: Rows, other_titles: Mapping[str, str]) -> list[Spec]:
    """Return the texts of a forest plot, in columns under their titles, without columns that all sites lack.

    On a narrow screen name and gain stand above the row's mark, and between them and it the others in one line.
    """
    drawn = []
    columns = {field: column for field, column in FOREST_COLUMNS.items() if any(row[field] for row in rows)}
    limits = {"name": ALONE_LIMIT, "conclusion": VERDICT_LIMIT}
    if {"rows", "own"} & columns.keys():
        limits["name"] = NAME_LIMIT
    wide_only = by_width(0, 1)
    at_top = by_width(ROW_PIXELS, -10)
    narrow = {"name": "0", "gain": "width"}
    above = by_width(MARK_PIXELS - 2 * LINE_PIXELS, 0)
    for field, (title, x, side) in columns.items():
        # Invisible texts stand in the middle, where they take no room from the marks.
        look: dict[str, Any] = {"x": by_width(narrow.get(field, "width / 2"), x), "align": side, "color": FIGURE}
        own: dict[str, Any] = {"fontWeight": "normal", "fontSize": 13, "opacity": 1 if field in narrow else wide_only}
        if field == "gain":
            look["align"] = by_width("'right'", "'left'")
            own |= {"fontWeight": "bold", "fontSize": {"expr": f"{SMALL} ? 11 : 13"}}
        own |= {"dy": above, "limit": by_width(0, limits.get(field, 0)), "lineBreak": "¶"}
        drawn.append(layer("text", {"y": y, "text": nominal(field)}, **look, **own))
        look |= {"fontSize": 13, "opacity": wide_only, "y": at_top}
        drawn.append(layer("text", {}, **look, text=other_titles.get(field, title)) | one_mark({}))
    between: dict[str, Any] = {"x": 0, "dy": MARK_PIXELS - LINE_PIXELS, "align": "left", "color": FIGURE}
    between |= {"fontSize": {"expr": f"{SMALL} ? 10 : 11"}, "limit": {"expr": "width"}}
    drawn.append(layer("text", {"y": y, "text": nominal("in line")}, **between, opacity=by_width(1, 0)))
    return drawn


def interval_chart(lines: Sequence[Line], metric: str, *, grid: bool = True) -> Chart | None:
    """Return each line's figure with its interval, or None where there is no figure.

    Parameters
    ----------
    lines : sequence of mappings with name, arm (which the colour follows), value, low, high
    metric : str
    """
    figure_lines = [line for line in lines if line["value"] is not None]
    if not figure_lines:
        return None
    rows = pd.DataFrame(figure_lines)[["name", "arm", *ENDS]].astype(dict.fromkeys(ENDS, "float64"))
    rows["shown"] = [verdict.number(value) for value in rows["value"]]
    # The axis has to hold the intervals as well as the figures.
    ticks = ticks_of(_spread(figure_lines), metric)
    x = quantitative("value", **figure_axis(axis_title(metric), ticks, grid=grid))
    y = nominal("name", sort=list(rows["name"]), axis=names_axis())
    arms = list(dict.fromkeys(rows["arm"]))
    scale = {"domain": arms, "range": [ARM_COLOURS.get(arm, NEUTRAL) for arm in arms]}
    layers = _intervals(x, {"color": nominal("arm", legend=None, scale=scale)})
    spec = plot(ROW_PIXELS * len(rows), transform=number_texts(*ENDS), encoding={"y": y}, layer=layers)
    return Chart(rows, spec, is_by_row=True)


def effect_chart(lines: Sequence[Line], title: str, *, is_ratio: bool) -> Chart:
    """Return each line's ratio or difference with its interval; ratios have a logarithmic axis.

    Parameters
    ----------
    lines : sequence of mappings with name, value, low, high, shown
        `shown` is the text of the value.
    title : str
        Of the axis.
    is_ratio : bool
        Whether 1 means no effect, else 0.
    """
    rows = pd.DataFrame(lines).astype(dict.fromkeys(ENDS, "float64"))
    x = quantitative("value", **figure_axis(title, ticks_of([0.0, *_spread(lines)])))
    if is_ratio:
        x |= {"axis": {"title": title}, "scale": {"type": "log"}}
    none = layer("rule", {"x": quantitative("at")}, strokeDash=[5, 4], color=NEUTRAL) | one_mark({"at": int(is_ratio)})
    layers = [none, *_intervals(x, {"color": {"value": ARM_COLOURS["global"]}})]
    y = nominal("name", sort=list(rows["name"]), axis=names_axis())
    for one in layers[1:]:
        one["encoding"] = {"y": y, **one["encoding"]}
    spec = plot(ROW_PIXELS * len(rows), transform=number_texts(*ENDS), layer=layers)
    return Chart(rows, spec, is_by_row=True)


def _intervals(x: Spec, look: Spec) -> list[Spec]:
    """Return the layers of figures with their intervals and texts."""
    ends = {"x": x | {"field": "low"}, "x2": {"field": "high"}, **look}
    dots = {"x": x, **look, "tooltip": [nominal("name"), *tooltip(*ENDS)]}
    return [
        layer("rule", ends, "isValid(datum.low)", strokeWidth=3),
        layer("point", dots, filled=True, size=130, opacity=1),
        {"mark": figures_above(), "encoding": {"x": {"value": "width"}, "text": {"field": "shown"}}},
    ]


def chart_of_gains(least: Sequence[Line], sites: Sequence[Line]) -> Chart:
    """Return the chart: a point a site, and the region in which no gain could be shown.

    Parameters
    ----------
    least : sequence of mappings
        "Rows" and "least gain shown", a number or None.
    sites : sequence of mappings
        "Rows" and "Gain in AUC".
    """
    lines = [{**line, "kind": "least"} for line in least] + [{**line, "kind": "site"} for line in sites]
    rows = pd.DataFrame(lines, columns=["kind", ROWS, LEAST, GAIN])
    # Where no gain can be shown at all, the whole height is such a region.
    rows["shaded"] = rows[LEAST].astype(float).fillna(LARGEST).clip(upper=LARGEST)
    gains = rows[[LEAST, GAIN]].astype(float).clip(upper=LARGEST).to_numpy().ravel()
    ticks = ticks_of([0.0, *gains[~np.isnan(gains)]])
    y = figure_axis(GAIN, ticks, signed=True)
    x = quantitative(ROWS, axis={"title": "rows of the site", "format": ",d"}, scale={"type": "log", "nice": False})
    of_least = "datum.kind == 'least'"
    shaded = {"x": x, "y": quantitative("shaded", **y), "y2": {"datum": 0}}
    line = {"x": x, "y": quantitative(LEAST, **y), "tooltip": tooltip(ROWS, LEAST)}
    points = {"x": x, "y": quantitative(GAIN, **y), "tooltip": tooltip(ROWS, GAIN)}
    layers = [
        layer("area", shaded, of_least, color=NEUTRAL, stroke=NEUTRAL, fillOpacity=0.18, strokeWidth=1, clip=True),
        layer("line", line, of_least, color=ORANGE, strokeDash=[5, 4], clip=True),
        layer("point", points, "datum.kind == 'site'", color=GREY, filled=True, opacity=1, size=40, clip=True),
    ]
    return Chart(rows, plot(PLOT_PIXELS, layer=layers, transform=number_texts(ROWS, LEAST, GAIN)))
