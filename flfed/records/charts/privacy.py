"""Charts of privacy: ε and each site's budget, bytes sent, and attacks' figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import altair as alt

from flfed.records.charts import colours
from flfed.records.charts.by_site import ARMS_GAP, ARMS_PIXELS, Layers, colour_of, figure_x, inline, layered, names_y
from flfed.records.charts.chart import PLOT_HEIGHT, ROW_PIXELS, legend_of, ticks_of
from flfed.records.objects import read
from flfed.records.reports import audit_headlines as audits
from flfed.records.reports.privacy import SiteSpending, SpentLine, epsilon_in_words, of_all_studies
from flfed.records.reports.privacy_tables import kind_in_words, kinds_of, size_in_words
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import CrossedEntry

THIS_RUN = "this run"
ALL_STUDIES = "all studies"
BUDGET = "budget"
SPENT_COLOURS = {THIS_RUN: colours.BLUE, ALL_STUDIES: colours.PALE_BLUE, BUDGET: colours.ORANGE}
BAR_PIXELS = 18
KIND_COLOURS = {
    "train": colours.BLUE,
    "query.compare": colours.PINK,
    "query.summarise": colours.AMBER,
    "query.statistic": colours.AMBER,
    "query.scores": colours.PINK,
    "evaluate": colours.PALE_BLUE,
    "query.enrol": colours.GREY,
    "query.audit": colours.GREEN,
    "query.unmask": colours.VIOLET,
    "query.keys": colours.FAINT,
}
OTHER_COLOUR = colours.ORANGE
ATTACK_SUCCEEDED = "attack succeeded, no promise"
LOOKS = {
    audits.BEYOND: (colours.ORANGE, "cross"),
    ATTACK_SUCCEEDED: (colours.ORANGE, "triangle-right"),
    audits.UNKNOWN_VERDICT: (colours.AMBER, "diamond"),
    audits.WITHIN: (colours.GREEN, "circle"),
    audits.NO_PROMISE: (colours.NEUTRAL, "square"),
}
"""Colour and shape of a figure by its verdict, so that shapes distinguish verdicts, too.

A successful attack is emphasised, whether it breaks a guarantee or there is none."""
PROMISE_COLOUR = colours.GREY
MARK_PIXELS = 18
"""Height of a bar, and of the line of a promise."""
SITES_SHOWN = 24
"""Most figures of an attack in its chart."""


def spent_chart(spent: Mapping[str, SpentLine]) -> Layers:
    """Return bars of ε by site with their budgets."""
    bars: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    for site, of in spent.items():
        line = read(SiteSpending, of)
        total, in_all = of_all_studies(line)
        bars.append({"site": site, "what": THIS_RUN, "value": line.epsilon, "shown": epsilon_in_words(line.epsilon)})
        if total is not None:
            bars.append({"site": site, "what": ALL_STUDIES, "value": total, "shown": in_all})
        if line.budget is not None:
            limits.append({"site": site, "what": BUDGET, "value": line.budget, "shown": number(line.budget, 2)})
    there = {row["what"] for row in (*bars, *limits)}
    kinds = [kind for kind in SPENT_COLOURS if kind in there]
    most = max(row["value"] or 0.0 for row in (*bars, *limits))
    colour = colour_of("what", {kind: SPENT_COLOURS[kind] for kind in kinds})
    end = 1.1 * most  # room for the figures, and for a line at the end
    x = figure_x("ε", ticks_of([0.0, end]), grid=False)
    y = names_y("site", list(spent), paddingInner=ARMS_GAP, paddingOuter=0)
    offset = alt.YOffset("what:N", sort=[THIS_RUN, ALL_STUDIES])
    base = alt.Chart(inline(values=bars)).encode(x=x, y=y, color=colour)
    # With one bar a site there is no room for a second.
    if ALL_STUDIES in kinds:
        base = base.encode(yOffset=offset)
    tooltip = ["site:N", "what:N", "shown:N"]
    texts = base.mark_text(align="left", dx=6, fontSize=13, fontWeight="bold").encode(
        text="shown:N", color=alt.value(colours.FIGURE)
    )
    ticks = alt.Chart(inline(values=limits)).mark_tick(opacity=1, thickness=4, size=ARMS_PIXELS * (1 - ARMS_GAP))
    layers = [base.mark_bar(cornerRadiusEnd=2).encode(tooltip=tooltip), texts]
    if limits:
        layers.append(ticks.encode(x=x, y=y, color=colour, tooltip=tooltip))
    return layered(*layers, height=ARMS_PIXELS * len(spent))


def left_chart(out: Sequence[CrossedEntry], sites: Sequence[str]) -> alt.Chart:
    """Return stacked bars of bytes by site and kind."""
    kinds = kinds_of(out)
    names = [kind_in_words(kind, kinds) for kind in kinds]
    rows = []
    for entry in out:
        if entry.site in sites:
            order = kinds.index(entry.kind)
            row = {"site": entry.site, "kind": names[order], "order": order, "kB": entry.bytes / 1e3}
            rows.append(row | {"shown": size_in_words(entry.bytes)})
    kind_colours = [KIND_COLOURS.get(kind, OTHER_COLOUR) for kind in kinds]
    drawn: alt.Chart = (
        alt.Chart(inline(values=rows))
        .mark_bar(size=BAR_PIXELS)
        .encode(
            x=alt.X("kB:Q", title="kB, in the order of the legend", axis=alt.Axis(tickCount=6, grid=False)),
            y=names_y("site", sites),
            color=colour_of("kind", dict(zip(names, kind_colours, strict=True))),
            order=alt.Order("order:O"),
            tooltip=["site:N", "kind:N", "shown:N"],
        )
        .properties(height=ROW_PIXELS * len(sites), autosize=alt.AutoSizeParams(**PLOT_HEIGHT))
    )
    return drawn


def attack_chart(lines: audits.Audit) -> Layers | None:
    """Return the chart of one attack, None without figures.

    Figures are dots with intervals, the guarantee is a line. The axis has the figure's whole range, 0 to 1 for shares
    and AUCs.
    """
    alone = len({line.metric for line in lines}) == 1
    rows = [_attack_row(line, alone) for line in lines[:SITES_SHOWN]]
    if not rows:
        return None
    names = list(dict.fromkeys(row["name"] for row in rows))
    # The legend has only the looks that occur, with colour and shape together.
    there = [look for look in LOOKS if any(row["look"] == look for row in rows)]
    colour = colour_of("look", {look: LOOKS[look][0] for look in there})
    shapes = alt.Scale(domain=there, range=[LOOKS[look][1] for look in there])
    shape = alt.Shape("look:N", scale=shapes, legend=alt.Legend(**legend_of(there)))
    title = audits.figure_name(lines[0].metric) if alone else "figure"
    x = figure_x(title, ticks_of(_domain(lines)), grid=False)
    y = names_y("name", names)
    base = alt.Chart(inline(values=rows))
    spans = base.transform_filter("datum.low != null && datum.high != null").mark_rule(strokeWidth=3)
    # A complete disclosure without a guarantee fills the chart.
    disclosures = base.transform_filter(f"datum.look == '{ATTACK_SUCCEEDED}'").transform_calculate(start="0")
    bars = disclosures.mark_bar(
        size=MARK_PIXELS, fillOpacity=0.3, color=LOOKS[ATTACK_SUCCEEDED][0], stroke=LOOKS[ATTACK_SUCCEEDED][0]
    )
    dots = base.mark_point(filled=True, size=120, opacity=1)
    limits = base.transform_filter("datum.promise != null").mark_tick(
        opacity=1, thickness=4, size=MARK_PIXELS, color=PROMISE_COLOUR
    )
    return layered(
        bars.encode(x="start:Q", x2="value:Q", y=y),
        limits.encode(x="promise:Q", y=y),
        spans.encode(x="low:Q", x2="high:Q", y=y, color=colour),
        dots.encode(x=x, y=y, color=colour, shape=shape, tooltip=["name:N", "shown:N", "look:N"]),
        height=ROW_PIXELS * len(names),
    )


def _domain(lines: audits.Audit) -> list[float]:
    """Return the ends of the figures' axis: the figures' range where they have one, else 0 and the largest."""
    scales = [audits.scale_of(line.metric) for line in lines]
    ends = [0.0, *chain.from_iterable(filter(None, scales))]
    if None in scales:
        for line in lines:
            ends += [end for end in _ends_of(line).values() if end is not None]
    return [min(ends), max(ends)]


def _attack_row(line: audits.AuditFigure, alone: bool) -> dict[str, Any]:
    look = ATTACK_SUCCEEDED if audits.gave_away(line) else line.verdict
    name = line.site or "all sites"
    if not alone:
        name = f"{audits.figure_name(line.metric)}, {name}"
    return _ends_of(line) | {"name": name, "shown": audits.reached(line), "look": look}


def _ends_of(line: audits.AuditFigure) -> dict[str, float | None]:
    return {"value": line.value, "low": line.low, "high": line.high, "promise": line.promise}
