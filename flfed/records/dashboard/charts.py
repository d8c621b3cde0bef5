"""The charts of the pages: colours that stay, shapes beside colours, axes that say what is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import altair as alt

from flfed.records.reports import REFERENCES, Report, arms_shown, best_gain, site_verdict
from flfed.records.verdicts import (
    ARM_NAMES,
    CANNOT_BE_TOLD,
    DO_NOT_USE,
    NO_CLEAR_GAIN,
    PAYS,
    better_of,
    decimals_of,
    interval,
    metric_name,
    number,
)

ARM_COLOURS = {
    "global": "#0072B2",
    "personalised": "#3C97CF",
    "local-only": "#7a7a7a",
    "local-only-same": "#7a7a7a",
    "sites-mean": "#3C97CF",
    "personalised-sites-mean": "#3C97CF",
    "pooled": "#8a6bbe",
    "pooled-same": "#8a6bbe",
    "own-model-everywhere": "#C3699B",
}
ARM_SHAPES = {"global": "circle", "personalised": "diamond", "local-only": "square"}
VERDICT_COLOURS = {
    PAYS: "#009E73",
    NO_CLEAR_GAIN: "#7a7a7a",
    DO_NOT_USE: "#D55E00",
    CANNOT_BE_TOLD: "#8a8a8a",
}
SITE_COLOURS = ("#0072B2", "#e37407", "#809677", "#940ef4", "#d21a2d", "#745f73", "#009E73", "#C3699B")
"""Found by search: each seen on the light and the dark background (contrast 3 and more), and the first six as far apart
as can be to readers with any kind of colour blindness."""
NEUTRAL = "#808080"
"""Of lines and marks that stand for no site, model or verdict; as far from white as from black."""
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2])
SITE_DASHES = (0, 1, 2, 3, 0, 2, 3, 1)
"""Which of `DASHES` goes with each of `SITE_COLOURS`: two colours that some eyes take for one have different dashes,
and none is solid that they take for the grey of all sites together."""
NAMES_AXIS: dict[str, Any] = {"labelLimit": 180, "labelOverlap": False, "labelFlush": False}
"""Of an axis of names: each is written, beside its own row. Streamlit's theme leaves some out and moves the first."""
PLOT_HEIGHT = {"type": "fit-x", "contains": "padding"}
"""Vega-Lite's `autosize` where `height` is that of the plot itself, whatever legend and axis stand around it."""
ROW_PIXELS, FRAME_PIXELS = 14, 140
"""Height of one interval in a chart of sites, and of legend and axis around them."""
LABEL_PIXELS = 56
"""Room to the right of a chart for figures, where no grid line crosses them."""
LONG_TITLE = 40
"""Characters of an axis' title that stand in one line."""
AXIS_NUMBERS = "datum.value == 0 ? '0' : replace(datum.label, regexp('^([\u2212-]?)0[.]'), '$1.')"
"""Numbers of an axis without a leading zero, as `verdicts.number` writes them; Vega's language."""

Rows = list[dict[str, Any]]
Layers = alt.LayerChart | alt.FacetChart

_inline: Callable[..., alt.Data] = alt.Data  # Altair leaves its schema classes without types


def site_looks(sites: Iterable[str]) -> dict[str, tuple[str, list[int]]]:
    """Return colour and dash of each site of a run, by its place in the alphabet, the same in every chart.

    Examples
    --------
    >>> site_looks(["b", "a"])["a"]
    ('#0072B2', [1, 0])
    """
    looks = {}
    for place, site in enumerate(sorted(sites)):
        turn, colour = divmod(place, len(SITE_COLOURS))
        looks[site] = (SITE_COLOURS[colour], DASHES[(SITE_DASHES[colour] + turn) % len(DASHES)])
    return looks


def axis_title(metric: str) -> str:
    """Return the title of a metric's axis, "AUC (higher is better)"."""
    return f"{metric_name(metric)} ({better_of(metric)} is better)"


def _in_lines(title: str) -> str | list[str]:
    """Return a title, a long one in two lines: an axis cuts off what is longer than it."""
    name, bracket, better = title.rpartition(" (")
    return [name, f"({better}"] if bracket and len(title) > LONG_TITLE else title


def order_of_sites(found: Report, metric: str) -> list[str]:
    """Return the sites by gain, the largest first; those without figures last."""
    gains = {name: best_gain(site, metric) for name, site in found["sites"].items()}
    return sorted(gains, key=lambda name: -(gain.value or 0.0) if (gain := gains[name]) else float("inf"))


def _chart(rows: Rows, height: int) -> alt.Chart:
    return alt.Chart(_inline(values=rows)).properties(height=height)


def _metric_axis(metric: str, title: str | None = None, *, padding: int = 44, grid: bool = True) -> alt.X:
    return alt.X(
        "value:Q",
        title=title or _in_lines(axis_title(metric)),
        scale=alt.Scale(zero=False, nice=False, padding=padding),
        axis=alt.Axis(tickCount=6, labelExpr=AXIS_NUMBERS, grid=grid),
    )


def _y_sites(order: Sequence[str]) -> alt.Y:
    return alt.Y("site:N", sort=list(order), title=None, axis=alt.Axis(labelFontSize=13, **NAMES_AXIS))


def _labels(base: alt.Chart) -> alt.Chart:
    """Return figures written to the right of their interval, where they cover nothing."""
    ends = base.transform_calculate(end="datum.high == null ? datum.value : datum.high")
    texts: alt.Chart = ends.mark_text(align="left", dx=9, fontSize=13, fontWeight="bold")
    return texts


def references(found: Report, metric: str) -> Layers | None:
    """Return the shared model beside pooled, the sites' mean and one site's own model everywhere."""
    rows: Rows = []
    for arm in REFERENCES:
        entry = (found[arm] or {}).get(metric)
        if entry and entry["value"] is not None:
            label = ARM_NAMES[arm] if arm != "global" else "shared model, all holdouts"
            rows.append({"name": label, "arm": arm, **entry, "shown": number(entry["value"])})
    if not rows:
        return None
    names = [row["name"] for row in rows]
    base = _chart(rows, 40 * len(rows) + 60)
    y = alt.Y("name:N", sort=names, title=None, axis=alt.Axis(labelFontSize=12, **NAMES_AXIS | {"labelLimit": 240}))
    arms = list(ARM_COLOURS)
    colour = alt.Color("arm:N", scale=alt.Scale(domain=arms, range=[ARM_COLOURS[a] for a in arms]), legend=None)
    spans = base.transform_filter("datum.low != null").mark_rule(strokeWidth=3, opacity=0.6)
    dots = base.mark_point(filled=True, size=130, opacity=1)
    texts = _labels(base)
    return alt.layer(
        spans.encode(x="low:Q", x2="high:Q", y=y, color=colour),
        dots.encode(x=_metric_axis(metric, grid=False), y=y, color=colour, tooltip=["name:N", "shown:N"]),
        texts.encode(x="end:Q", y=y, text="shown:N", color=colour),
    )


def sites_by_arm(found: Report, metric: str, sites: Sequence[str]) -> Layers | None:
    """Return each arm's figure and interval at each site, one line an arm."""
    rows: Rows = []
    arms = arms_shown(found, metric)
    for name in sites:
        for arm in arms:
            entry = found["sites"][name][arm].get(metric)
            if entry and entry["value"] is not None:
                shown = f"{number(entry['value'])} ({interval(entry['low'], entry['high'])})"
                rows.append({"site": name, "arm": ARM_NAMES[arm], **entry, "shown": shown})
    if not rows:
        return None
    names = [ARM_NAMES[arm] for arm in arms]
    colours = alt.Scale(domain=names, range=[ARM_COLOURS[arm] for arm in arms])
    shapes = alt.Scale(domain=names, range=[ARM_SHAPES[arm] for arm in arms])
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=300, labelFontSize=12)
    y, offset = _y_sites(sites), alt.YOffset("arm:N", sort=names)
    colour = alt.Color("arm:N", scale=colours, legend=legend)
    base = _chart(rows, 3 * ROW_PIXELS * len(sites) + FRAME_PIXELS + 45)  # a longer legend
    spans = base.transform_filter("datum.low != null").mark_rule(strokeWidth=2.5, opacity=0.65)
    dots = base.mark_point(filled=True, size=90, opacity=1)
    return alt.layer(
        spans.encode(x="low:Q", x2="high:Q", y=y, yOffset=offset, color=colour),
        dots.encode(
            x=_metric_axis(metric),
            y=y,
            yOffset=offset,
            color=colour,
            shape=alt.Shape("arm:N", scale=shapes, legend=legend),
            tooltip=["site:N", "arm:N", "shown:N"],
        ),
    )


def gains(found: Report, metric: str, sites: Sequence[str]) -> Layers | None:
    """Return each site's gain over its own model alone, with a line at no gain.

    Thick is its unadjusted interval, thin the one that the verdict goes by.
    """
    rows: Rows = []
    for name in sites:
        gain, site = best_gain(found["sites"][name], metric), found["sites"][name]
        if gain is not None:
            row = {"site": name, "value": gain.value, "low": gain.low, "high": gain.high}
            row |= {"wide_low": gain.deciding.low, "wide_high": gain.deciding.high}
            row |= {"verdict": site_verdict(site, metric)[0]}
            rows.append(row)
    if not rows:
        return None
    digits = decimals_of(*(row["value"] for row in rows))
    rows = [row | {"shown": number(row["value"], digits, signed=True)} for row in rows]
    colours = alt.Scale(domain=list(VERDICT_COLOURS), range=list(VERDICT_COLOURS.values()))
    there = [verdict for verdict in VERDICT_COLOURS if any(row["verdict"] == verdict for row in rows)]
    legend = alt.Legend(title=None, orient="top", columns=2, values=there, labelFontSize=12)
    colour = alt.Color("verdict:N", scale=colours, legend=legend)
    base, y = _chart(rows, 3 * ROW_PIXELS * len(sites) + FRAME_PIXELS), _y_sites(sites)
    zero = alt.Chart(_inline(values=[{"at": 0}])).mark_rule(strokeDash=[5, 4], color=NEUTRAL)
    title = f"gain in {metric_name(metric)} (right of 0: it helps)"
    return alt.layer(
        zero.encode(x="at:Q"),
        base.transform_filter("datum.wide_low != null")
        .mark_rule(strokeWidth=1.5)
        .encode(x="wide_low:Q", x2="wide_high:Q", y=y, color=colour),
        base.transform_filter("datum.low != null")
        .mark_rule(strokeWidth=4, opacity=0.6)
        .encode(x="low:Q", x2="high:Q", y=y, color=colour),
        base.mark_point(filled=True, size=140, opacity=1).encode(
            x=_metric_axis(metric, title, padding=16), y=y, color=colour, tooltip=["site:N", "shown:N", "verdict:N"]
        ),
        base.mark_text(align="left", dx=6, fontSize=13, fontWeight="bold").encode(
            x=alt.value("width"), y=y, text="shown:N", color=colour
        ),
    ).properties(padding={"left": 5, "top": 5, "right": LABEL_PIXELS, "bottom": 20})
