"""Charts of sites and models.

Colours stay, shapes stand beside colours, and names above marks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt

from flfed.records.dashboard.components.axes import (
    PLOT_HEIGHT,
    ROW_PIXELS,
    axis_title,
    figure_axis,
    figures_above,
    legend_of,
    names_axis,
    ticks_of,
)
from flfed.records.dashboard.components.colours import ARM_COLOURS, NEUTRAL, VERDICT_COLOURS
from flfed.records.dashboard.components.interval_chart import interval_chart
from flfed.records.dashboard.components.round_chart import Curves
from flfed.records.reports.report import REFERENCES, arms_shown, best_gain, site_verdict
from flfed.records.statistics import Report
from flfed.records.statistics.verdict import ARM_NAMES, decimals_of, interval, metric_name, number

ARM_SHAPES = {"global": "circle", "personalised": "diamond", "local-only": "square"}
ARMS_PIXELS, ARMS_GAP = 62, 0.36
"""Height of a site's row with a mark for each model, and which share of it is left for the name."""

Rows = list[dict[str, Any]]
Layers = alt.LayerChart | alt.FacetChart

inline: Callable[..., alt.Data] = alt.Data  # Altair leaves its schema classes without types


def order_of_sites(found: Report, metric: str) -> list[str]:
    """Return the sites by gain.

    The largest gain comes first. Sites without figures come last.
    """
    gains = {name: best_gain(site, metric) for name, site in found["sites"].items()}
    return sorted(gains, key=lambda name: -(gain.value or 0.0) if (gain := gains[name]) else float("inf"))


def layered(*layers: alt.Chart, height: int) -> Layers:
    """Return layers as one chart.

    Its plot has the given height in pixels.
    """
    drawn: Layers = alt.layer(*layers).properties(height=height, autosize=alt.AutoSizeParams(**PLOT_HEIGHT))
    return drawn


def figure_x(field: str, title: str, ticks: Sequence[float], *, grid: bool = True) -> alt.X:
    """Return the x axis of a figure.

    It is as `axes.figure_axis` has it.
    """
    parts = figure_axis(title, ticks, grid=grid)
    return alt.X(f"{field}:Q", axis=alt.Axis(**parts["axis"]), scale=alt.Scale(**parts["scale"]))


def names_y(field: str, names: Sequence[str], **scale: Any) -> alt.Y:
    """Return the y axis of names.

    They keep their order, each above its row.
    """
    gap = scale.get("paddingInner")
    above = {} if gap is None else {"above": ARMS_PIXELS * (1 - gap) / 2 + 9}
    return alt.Y(f"{field}:N", sort=list(names), axis=alt.Axis(**names_axis(**above)), scale=alt.Scale(**scale))


def figures(base: alt.Chart, y: alt.Y) -> alt.Chart:
    """Return figures at their names' right ends.

    They are written on the names' lines, where they cover nothing.
    """
    written: alt.Chart = base.mark_text(**{key: value for key, value in figures_above().items() if key != "type"})
    return written.encode(x=alt.value("width"), y=y, text="shown:N")


def _spread(rows: Rows, *keys: str) -> list[float | None]:
    return [row[key] for row in rows for key in keys]


def references(found: Report, metric: str) -> Curves | None:
    """Return the chart of the shared model's references.

    They are pooled, the sites' mean and one site's own model everywhere.
    """
    lines: Rows = []
    for arm in REFERENCES:
        label = ARM_NAMES[arm] if arm != "global" else "shared model, all holdouts"
        if entry := (found[arm] or {}).get(metric):
            lines.append({"name": label, "arm": arm, **entry})
    return interval_chart(lines, metric, grid=False)


def sites_by_arm(found: Report, metric: str, sites: Sequence[str]) -> Layers | None:
    """Return each arm's figure at each site.

    Every arm has a line with its interval.
    """
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
    # Only sites with a figure get a row, in the order that was asked for.
    there = [name for name in sites if any(row["site"] == name for row in rows)]
    colours = alt.Scale(domain=names, range=[ARM_COLOURS[arm] for arm in arms])
    shapes = alt.Scale(domain=names, range=[ARM_SHAPES[arm] for arm in arms])
    legend = alt.Legend(**legend_of(names))
    y = names_y("site", there, paddingInner=ARMS_GAP, paddingOuter=0)
    offset = alt.YOffset("arm:N", sort=names)
    colour = alt.Color("arm:N", scale=colours, legend=legend)
    x = figure_x("value", axis_title(metric), ticks_of(_spread(rows, "value", "low", "high"), metric))
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
            shape=alt.Shape("arm:N", scale=shapes, legend=legend),
            tooltip=["site:N", "arm:N", "shown:N"],
        ),
        height=ARMS_PIXELS * len(there),
    )


def gains(found: Report, metric: str, sites: Sequence[str]) -> Layers | None:
    """Return the chart of each site's gain.

    The gain is over its own model alone, with a line at no gain.

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
    # All gains are written with equally many decimals, so that they can be compared.
    digits = decimals_of(*(row["value"] for row in rows))
    rows = [row | {"shown": number(row["value"], digits, signed=True)} for row in rows]
    colours = alt.Scale(domain=list(VERDICT_COLOURS), range=list(VERDICT_COLOURS.values()))
    # The colours are of all verdicts, but the legend names only those that occur.
    there = [verdict for verdict in VERDICT_COLOURS if any(row["verdict"] == verdict for row in rows)]
    colour = alt.Color("verdict:N", scale=colours, legend=alt.Legend(**legend_of(there, values=there)))
    base, y = alt.Chart(inline(values=rows)), names_y("site", [row["site"] for row in rows])
    zero = alt.Chart(inline(values=[{"at": 0}])).mark_rule(strokeDash=[5, 4], color=NEUTRAL)
    # 0 is always on the axis, for it parts gain from loss.
    ends = [0.0, *_spread(rows, "value", "low", "high", "wide_low", "wide_high")]
    title = f"gain in {metric_name(metric)} (right of 0: it helps)"
    x = figure_x("value", title, ticks_of(ends, metric, difference=True))
    return layered(
        zero.encode(x="at:Q"),
        base.transform_filter("datum.wide_low != null")
        .mark_rule(strokeWidth=1.5)
        .encode(x="wide_low:Q", x2="wide_high:Q", y=y, color=colour),
        base.transform_filter("datum.low != null")
        .mark_rule(strokeWidth=4.5)
        .encode(x="low:Q", x2="high:Q", y=y, color=colour),
        base.mark_point(filled=True, size=140, opacity=1).encode(
            x=x, y=y, color=colour, tooltip=["site:N", "shown:N", "verdict:N"]
        ),
        figures(base, y),
        height=ROW_PIXELS * len(rows),
    )
