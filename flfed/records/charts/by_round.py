"""Charts by round, which a running run redraws with each round."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from flfed.records.charts.chart import (
    AXIS_NUMBERS,
    Chart,
    Spec,
    axis_title,
    in_lines,
    layer,
    legend_of,
    nominal,
    number_texts,
    plot,
    quantitative,
    tooltip,
)
from flfed.records.charts.colours import ARM_COLOURS, FAINT
from flfed.records.reports.round_totals import band_of
from flfed.records.statistics.verdict import decimals_of, metric_name, number
from flfed.records.store.entries import CurvePoint
from flfed.words import render

HEIGHT = 260
"""Height of the plot itself in pixels, without its legend."""
TICKS = 5
"""Approximate number of ticks on the axis of a figure; it ends at a tick, so that no line lies beyond the last."""
DRAWN_FROM = 0.02
"""A figure from counts by bin that may differ by more than this is drawn as a range."""
BEYOND = 0.5
"""Most of the figures' own range that a range reaches beyond them: one uncertain round would flatten all others."""
FEW_ROUNDS = 3
"""Below this number of rounds a curve is drawn with its points: a line through one point is invisible."""
STROKES = {"symbolType": "stroke", "symbolOpacity": 1, "symbolStrokeWidth": 3, "symbolSize": 200}
"""Symbols of a legend of lines, long and wide enough to show colour and dash."""
BAND: dict[str, Any] = {"fillOpacity": 0.2, "strokeWidth": 1, "strokeOpacity": 1}
"""Look of a band, with an edge, as its area is light."""
COLUMNS = ("round", "site", "value", "low", "high", "least", "most")
WIDE = dict.fromkeys(("round", "value", "low", "high", "least", "most"), "float64")
"""Kinds of the columns that may be empty, which the browser must take for numbers."""


def of_all_sites(points: Iterable[CurvePoint], metric: str) -> Chart | None:
    """Return the all-sites figure by round, None without figures.

    Where a point stands for several rounds, a band goes from the smallest of them to the largest. An AUC is computed
    from counts by bin: where the AUC of the rows may differ by more than `DRAWN_FROM`, a thin line has its range. A
    range ends in an arrow where it reaches far beyond the figures, by which the axis goes: see `are_cut`. Neither chart
    has the figure before training: on its scale the rounds would lie on one line.
    """
    rows = _rows((point for point in points if point.site is None), metric)
    if rows is None:
        return None
    colour = ARM_COLOURS["global"]
    rows = rows.assign(**dict(zip(("from", "to"), _drawn_ranges(rows), strict=True)))
    ends = {"y": quantitative("from"), "y2": {"field": "to"}}
    # A line for each round: an area would join rounds whose figure is uncertain over those where it is not.
    ranges = [layer("rule", ends, "isValid(datum.from)", color=colour)]
    for end, bound, shape in (("from", "low", "triangle-down"), ("to", "high", "triangle-up")):
        arrow = {"shape": shape, "size": 40, "filled": True, "opacity": 1, "color": colour}
        is_cut = f"isValid(datum.{end}) && datum.{end} != datum.{bound}"
        ranges.append(layer("point", {"y": quantitative(end)}, is_cut, **arrow))
    y = _y_axis(axis_title(metric), decimals_of(*rows["value"]))
    figures = {"y": y, "tooltip": [ROUND_TIP, *tooltip(*SHOWN)]}
    line = layer("line", figures, strokeWidth=2.5, color=colour, point=_are_few(rows))
    layers = [*ranges, _between("least", "most", colour, rows), line]
    return Chart(rows, plot(HEIGHT, transform=number_texts(*SHOWN), encoding={"x": X}, layer=layers))


def _drawn_ranges(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the ends of the ranges as they are drawn, missing where a figure is certain enough."""
    # The further end counts: the other may have been cut at 0 or 1.
    is_wide = (rows["high"] - rows["value"]).combine(rows["value"] - rows["low"], max) > DRAWN_FROM
    low, high = rows["low"].where(is_wide), rows["high"].where(is_wide)
    drawn = rows[["value", "least", "most"]].stack()
    reach = BEYOND * (drawn.max() - drawn.min())
    # Of a single figure the range alone gives the scale.
    if not reach:
        return low, high
    return low.clip(lower=drawn.min() - reach), high.clip(upper=drawn.max() + reach)


def are_cut(points: Iterable[CurvePoint], metric: str) -> bool:
    """Return whether a range in the chart of all sites together is longer than drawn."""
    rows = _rows((point for point in points if point.site is None), metric)
    if rows is None:
        return False
    low, high = _drawn_ranges(rows)
    return bool(((low > rows["low"]) | (high < rows["high"])).any())


def counted_in_bins(points: Sequence[CurvePoint], metric: str) -> str:
    """Return how far a curve from counts by bin may be off, "" of any other curve."""
    # The further end counts: the other may have been cut at 0 or 1.
    reaches = [
        max(p.high - p.value, p.value - p.low)
        for p in points
        if p.site is None and p.round and p.value is not None and p.low is not None and p.high is not None
    ]
    if not reaches:
        return ""
    most = number(math.ceil(max(reaches) * 1000 - 1e-9) / 1000)
    sentences = [render("pages.rounds.binned", metric=metric_name(metric), most=most)]
    if max(reaches) > DRAWN_FROM:
        sentences.append(render("pages.rounds.range", reach=number(DRAWN_FROM, 2)))
    if are_cut(points, metric):
        sentences.append(render("pages.rounds.cut"))
    return " ".join(sentences)


def of_each_site(
    points: Iterable[CurvePoint], metric: str, looks: Mapping[str, tuple[str, list[int]]], *, banded: str | None = None
) -> Chart | None:
    """Return the figure of each site by round, None without figures.

    Parameters
    ----------
    points : iterable of CurvePoint
    metric : str
    looks : mapping of site to colour and dash
        Sites that are `FAINT` are drawn first and are not in the legend.
    banded : str, optional
        The site whose intervals are drawn as a band: bands of several sites would cover each other.
    """
    rows = _rows((point for point in points if point.site is not None), metric)
    if rows is None:
        return None
    # Grey sites come first, so that coloured ones are drawn above them.
    names = sorted(set(rows["site"]), key=lambda name: (looks[name][0] != FAINT, name))
    faint = [name for name in names if looks[name][0] == FAINT]
    scales = line_scales("site", names, looks)
    thin = {"test": {"field": "site", "oneOf": faint}, "value": 1}
    figures = {
        "y": _y_axis(axis_title(metric), decimals_of(*rows["value"])),
        "strokeDash": scales["strokeDash"],
        "strokeWidth": {"condition": thin, "value": 3 if faint else 2},
        "tooltip": [nominal("site"), ROUND_TIP, *tooltip(*SHOWN)],
    }
    layers = [layer("line", figures, point=_are_few(rows))]
    if banded is not None:
        bands = [_between(*ends, looks[banded][0], rows) for ends in (("low", "high"), ("least", "most"))]
        for band in bands:
            band["transform"].append({"filter": {"field": "site", "equal": banded}})
        layers = [*bands, *layers]
    # Lines are drawn in the order of the rows.
    if faint:
        rows = rows.sort_values("site", key=lambda of: of.map(names.index), kind="stable")
    encoding = {"x": X, "color": scales["color"]}
    return Chart(rows, plot(HEIGHT, transform=number_texts(*SHOWN), encoding=encoding, layer=layers))


def line_scales(field: str, names: Sequence[str], looks: Mapping[str, tuple[str, list[int]]]) -> Spec:
    """Return the colours and dashes of lines; sites in grey all look alike, so the legend omits them."""
    coloured_names = [name for name in names if looks[name][0] != FAINT]
    named = nominal(field, legend=legend_of(coloured_names, values=coloured_names, **STROKES))
    scales = {}
    for place, channel in enumerate(("color", "strokeDash")):
        scales[channel] = named | {"scale": {"domain": list(names), "range": [looks[name][place] for name in names]}}
    return scales


def _between(low: str, high: str, colour: str, rows: pd.DataFrame) -> Spec:
    """Return the band between two columns, with an edge; nothing is drawn where they are equal.

    Of few rounds it is a line for each: their band would be a parallelogram.
    """
    ends = {"y": quantitative(low), "y2": {"field": high}, "color": {"value": colour}}
    mark, look = ("rule", {}) if _are_few(rows) else ("area", BAND)
    return layer(mark, ends, f"datum.{low} != null && datum.{low} < datum.{high}", stroke=colour, **look)


ROUND_AXIS = {"title": "round", "tickCount": 8, "tickMinStep": 1, "format": "d"}
X = quantitative("round", axis=ROUND_AXIS, scale={"nice": False, "zero": False})
ROUND_TIP = quantitative("round", format=".1~f")
"""Round in a tooltip; a point of several rounds stands in their middle."""
SHOWN = ("value", "low", "high")
"""Figures of a tooltip."""
AT_LEAST = "test(regexp('[.][0-9]{{{0}}}'), datum.label) ? datum.label : format(datum.value, '.{0}f')"
"""A number of an axis with at least so many decimals, and more where two ticks would read the same; Vega's language."""


def _y_axis(title: str, decimals: int) -> Spec:
    """Return the axis of a figure by round, with a tick at either end."""
    # Labels at the ends stay beside their ticks: moved, they would seem to belong to others.
    axis = {"title": in_lines(title), "labelExpr": AXIS_NUMBERS, "tickCount": TICKS, "labelFlush": False}
    if decimals:
        axis["labelExpr"] = AXIS_NUMBERS.replace("datum.label", AT_LEAST.format(decimals))
    return quantitative("value", axis=axis, scale={"zero": False, "nice": TICKS})


def _are_few(rows: pd.DataFrame) -> bool:
    """Return whether there are so few rounds that a curve is drawn with its points."""
    return rows["round"].nunique() < FEW_ROUNDS


def _rows(points: Iterable[CurvePoint], metric: str) -> pd.DataFrame | None:
    """Return the points of rounds with a value, and their bands; None where there is none.

    A point of several rounds stands in their middle.
    """
    rows = [
        (((p.first or p.round) + p.round) / 2, p.site, p.value, *band_of(p, metric), p.least, p.most)
        for p in points
        if p.value is not None and p.round
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(WIDE) if rows else None
