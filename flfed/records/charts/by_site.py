"""Charts of sites and models, each with its own colour and shape, and names above marks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import altair as alt
import pandas as pd

from flfed.records.charts.chart import (
    PLOT_HEIGHT,
    ROW_PIXELS,
    Chart,
    Line,
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
from flfed.records.charts.colours import ARM_COLOURS, FIGURE, NEUTRAL, VERDICT_COLOURS, VERDICT_SHAPES
from flfed.records.objects import read_figure, run_of
from flfed.records.reports.narrative import MARK, ForestLine, forest_lines
from flfed.records.reports.report import arms_shown
from flfed.records.statistics import Report, verdict
from flfed.words import render

ARM_SHAPES = {"global": "circle", "personalised": "diamond", "local-only": "square"}
ARMS_PIXELS, ARMS_GAP = 62, 0.36
"""Height of a site's row with a mark for each model, and the share of it that its name takes."""
FIGURE_PIXELS = 52
"""Width of the figures beside the marks of a site's models."""
NARROW = "width < 880"
"""Condition in Vega's language under which a forest plot has no columns: each mark has two lines of text above it."""
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
    "verdict": ("verdict", "width", "right"),
}
"""Title, place in Vega's language and side of a forest plot's columns."""
VERDICT_LIMIT = 145
"""Pixels of a verdict in its column; the legend has it whole."""
NAME_LIMIT, ALONE_LIMIT = 125, 260
"""Pixels of a site's name in its column, with columns of test rows and site models beside it, and without; the table
has the whole name."""
REACH = 4
"""Reach of a forest plot, in multiples of the median site's interval."""

ENDS = ("value", "low", "high")
Rows = list[dict[str, Any]]
Layers = alt.LayerChart | alt.FacetChart

inline: Callable[..., alt.Data] = alt.Data  # Altair leaves its schema classes without types


def layered(*layers: alt.Chart, height: int) -> Layers:
    """Return layers as one chart whose plot has the given height in pixels."""
    drawn: Layers = alt.layer(*layers).properties(height=height, autosize=alt.AutoSizeParams(**PLOT_HEIGHT))
    return drawn


def figure_x(title: str, ticks: Sequence[float], *, grid: bool = True, signed: bool = False) -> alt.X:
    """Return the x axis of a figure, from `chart.figure_axis`."""
    parts = figure_axis(title, ticks, grid=grid, signed=signed)
    return alt.X("value:Q", axis=alt.Axis(**parts["axis"]), scale=alt.Scale(**parts["scale"]))


def colour_of(field: str, colours: Mapping[str, str], shown: Sequence[str] | None = None) -> alt.Color:
    """Return the colours of a field's names, and the legend of `shown` of them, by default all."""
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(f"{field}:N", scale=scale, legend=_legend(list(colours) if shown is None else shown))


def _legend(names: Sequence[str]) -> alt.Legend | None:
    """Return the legend of several names; one name stands in the words beside its chart."""
    return alt.Legend(**legend_of(names, values=names)) if len(names) > 1 else None


def names_y(field: str, names: Sequence[str], **scale: Any) -> alt.Y:
    """Return the y axis of names in their order, each above its row."""
    axis = names_axis()
    if "paddingInner" in scale:
        axis = names_axis(ARMS_PIXELS * (1 - scale["paddingInner"]) / 2 + 9)
    return alt.Y(f"{field}:N", sort=list(names), axis=alt.Axis(**axis), scale=alt.Scale(**scale))


def _spread(rows: Iterable[Line]) -> list[float]:
    """Return the known figures and ends of intervals."""
    return [row[key] for row in rows for key in ENDS if row[key] is not None]


def sites_by_arm(report: Report, metric: str, sites: Sequence[str]) -> Layers | None:
    """Return the chart of each arm's figure at each site, with its interval as a line."""
    run = run_of(report)
    rows: Rows = []
    arms = arms_shown(report, metric)
    for name in sites:
        for arm in arms:
            entry = run.sites[name][arm].get(metric)
            figure = read_figure(entry)
            if figure.value is not None:
                text = verdict.number(figure.value)
                shown = f"{text} ({verdict.interval(figure.low, figure.high)})"
                rows.append({"site": name, "arm": verdict.ARM_NAMES[arm], **entry, "text": text, "shown": shown})
    if not rows:
        return None
    colours = {verdict.ARM_NAMES[arm]: ARM_COLOURS[arm] for arm in arms}
    names = list(colours)
    # Only sites with a figure get a row, in the order of `sites`.
    there = list(dict.fromkeys(row["site"] for row in rows))
    shapes = alt.Scale(domain=names, range=[ARM_SHAPES[arm] for arm in arms])
    y = names_y("site", there, paddingInner=ARMS_GAP, paddingOuter=0)
    offset = alt.YOffset("arm:N", sort=names)
    colour = colour_of("arm", colours)
    x = figure_x(axis_title(metric), ticks_of(_spread(rows), metric))
    x["scale"]["range"] = [0, alt.ExprRef(f"width - {FIGURE_PIXELS}")]
    base = alt.Chart(inline(values=rows))
    # Arms without an interval are drawn as a mark alone.
    return layered(
        base.transform_filter("datum.low != null")
        .mark_rule(strokeWidth=2)
        .encode(x="low:Q", x2="high:Q", y=y, yOffset=offset, color=colour),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            x=x,
            y=y,
            yOffset=offset,
            color=colour,
            shape=alt.Shape("arm:N", scale=shapes, legend=alt.Legend(**legend_of(names))),
            tooltip=["site:N", "arm:N", "shown:N"],
        ),
        base.mark_text(align="right", fontSize=13, color=FIGURE).encode(
            x=alt.value("width"), y=y, yOffset=offset, text="text:N"
        ),
        height=ARMS_PIXELS * len(there),
    )


def forest_plot(report: Report, metric: str, sites: Sequence[str]) -> Layers | None:
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
    colour = colour_of("verdict", colours, there)
    base = alt.Chart(inline(values=rows))
    y = alt.Y("name:N", sort=[line.name for line in lines], axis=None)
    # The axis always has 0, which separates gain from loss.
    reach = plot_reach(lines)
    ends = [0.0, *(max(-reach, min(reach, end)) for end in _spread(rows))]
    title = render("charts.axes.gain", metric=verdict.metric_name(metric))
    x = figure_x(title, ticks_of(ends, metric, difference=True), signed=True)
    ends_at = (("0", str(BEFORE_PLOT)), ("width", f"width - {BEHIND_PLOT}"))
    x["scale"]["clamp"] = True
    x["scale"]["range"] = [alt.ExprRef(f"{NARROW} ? {narrow} : {wide}") for narrow, wide in ends_at]
    zero = alt.Chart(inline(values=[{"at": 0}])).mark_rule(strokeDash=[5, 4], color=NEUTRAL)
    drawn = base.transform_filter("datum.value != null")
    marks = drawn.encode(x=x, y=y, color=colour, tooltip=["name:N", "gain:N", "verdict:N"])
    shapes = alt.Scale(domain=list(colours), range=list(VERDICT_SHAPES.values()))
    down = alt.ExprRef(f"{NARROW} ? {MARK_PIXELS} : 0")
    titles = {}
    if any(line.events for line in lines):
        titles["rows"] = "rows (events)"
    if run.rule.sites > 1:
        titles["gain"] = "gain (95 % CI, widened)"
    return layered(
        zero.encode(x="at:Q"),
        drawn.transform_filter("datum.low != null")
        .mark_rule(strokeWidth=3, yOffset=down)
        .encode(x="low:Q", x2="high:Q", y=y, color=colour),
        marks.transform_filter("!datum.mean")
        .mark_point(filled=True, opacity=1, size=140, yOffset=down)
        .encode(shape=alt.Shape("verdict:N", scale=shapes, legend=_legend(there))),
        marks.transform_filter("datum.mean").mark_point(
            filled=True, opacity=1, size=260, shape="diamond", yOffset=down
        ),
        *_forest_columns(base, y, rows, titles),
        height=ROW_PIXELS * len(rows),
    )


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
        counts = f"{line.rows} rows"
        if line.events is not None:
            cells["rows"] += f" ({line.events})"
            counts += f" ({line.events} events)"
        named.insert(0, counts)
    gain = verdict.gain_in_brackets(line.gain, worthwhile)
    if line.model == "personalised":
        gain += MARK
    drawn = {name: getattr(line, name) for name in ("name", *ENDS)}
    texts = {"gain": gain, "verdict": conclusion, "in line": ", ".join(named) or conclusion}
    return {**drawn, **cells, **texts, "mean": line.site is None}


def _forest_columns(base: alt.Chart, y: alt.Y, rows: Rows, other_titles: Mapping[str, str]) -> list[alt.Chart]:
    """Return the texts of a forest plot, in columns under their titles, without columns that all sites lack.

    On a narrow screen name and gain stand above the row's mark, and between them and it the others in one line.
    """
    titles = alt.Chart(inline(values=[{}]))
    drawn = []
    columns = {field: column for field, column in FOREST_COLUMNS.items() if any(row[field] for row in rows)}
    limits = {"name": ALONE_LIMIT, "verdict": VERDICT_LIMIT}
    if {"rows", "own"} & columns.keys():
        limits["name"] = NAME_LIMIT
    wide_only = alt.ExprRef(f"{NARROW} ? 0 : 1")
    at_top = alt.ExprRef(f"{NARROW} ? {ROW_PIXELS} : -10")
    narrow = {"name": "0", "gain": "width"}
    above = alt.ExprRef(f"{NARROW} ? {MARK_PIXELS - 2 * LINE_PIXELS} : 0")
    for field, (title, x, side) in columns.items():
        # Invisible texts stand in the middle, where they take no room from the marks.
        look: dict[str, Any] = {"x": alt.ExprRef(f"{NARROW} ? {narrow.get(field, 'width / 2')} : {x}")}
        look |= {"align": side, "color": FIGURE}
        own: dict[str, Any] = {"fontWeight": "normal", "fontSize": 13}
        own["opacity"] = 1 if field in narrow else wide_only
        if field == "gain":
            look["align"] = alt.ExprRef(f"{NARROW} ? 'right' : 'left'")
            own |= {"fontWeight": "bold", "fontSize": alt.ExprRef(f"{SMALL} ? 11 : 13")}
        limit = alt.ExprRef(f"{NARROW} ? 0 : {limits.get(field, 0)}")
        drawn.append(base.mark_text(**look, **own, dy=above, limit=limit).encode(y=y, text=f"{field}:N"))
        look |= {"fontSize": 13, "opacity": wide_only, "y": at_top}
        drawn.append(titles.mark_text(**look, text=other_titles.get(field, title)))
    between: dict[str, Any] = {"x": 0, "dy": MARK_PIXELS - LINE_PIXELS, "align": "left", "color": FIGURE}
    between |= {"fontSize": alt.ExprRef(f"{SMALL} ? 10 : 11"), "limit": alt.ExprRef("width")}
    drawn.append(base.mark_text(**between, opacity=alt.ExprRef(f"{NARROW} ? 1 : 0")).encode(y=y, text="in line:N"))
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
    colour = nominal("arm", legend=None, scale=scale)
    ends = {"x": x | {"field": "low"}, "x2": {"field": "high"}, "color": colour}
    dots = {"x": x, "color": colour, "tooltip": [nominal("name"), *tooltip(*ENDS)]}
    layers = [
        layer("rule", ends, "isValid(datum.low)", strokeWidth=3),
        layer("point", dots, filled=True, size=130, opacity=1),
        {"mark": figures_above(), "encoding": {"x": {"value": "width"}, "text": {"field": "shown"}}},
    ]
    spec = plot(ROW_PIXELS * len(rows), transform=number_texts(*ENDS), encoding={"y": y}, layer=layers)
    return Chart(rows, spec, is_by_row=True)
