"""Charts of privacy: ε against each site's budget, and the bytes that left it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from flfed.records.charts.axes import PLOT_HEIGHT, ROW_PIXELS, legend_of, ticks_of
from flfed.records.charts.by_site import ARMS_GAP, ARMS_PIXELS, Layers, figure_x, inline, layered, names_y
from flfed.records.charts.colours import AMBER, BLUE, FAINT, FIGURE, GREEN, GREY, ORANGE, PALE_BLUE, PINK, VIOLET
from flfed.records.reports.privacy import Private, epsilon_in_words, of_all_studies
from flfed.records.reports.privacy_tables import kind_in_words, kinds_of, size_in_words
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import CrossedEntry

THIS_RUN = "this run"
ALL_STUDIES = "all studies in the site's ledger"
BUDGET = "budget"
SPENT_COLOURS = {THIS_RUN: BLUE, ALL_STUDIES: PALE_BLUE, BUDGET: ORANGE}
BAR_PIXELS = 18
KIND_COLOURS = {
    "train": BLUE,
    "query.compare": PINK,
    "query.summarise": AMBER,
    "query.statistic": AMBER,
    "query.scores": PINK,
    "evaluate": PALE_BLUE,
    "query.enrol": GREY,
    "query.audit": GREEN,
    "query.unmask": VIOLET,
    "query.keys": FAINT,
}
OTHER_COLOUR = ORANGE


def spent_chart(spent: Mapping[str, Private]) -> Layers:
    """Return bars of ε by site with their budgets."""
    bars: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    for site, line in spent.items():
        total, in_all = of_all_studies(line)
        shown = epsilon_in_words(line["epsilon"])
        bars.append({"site": site, "what": THIS_RUN, "value": line["epsilon"], "shown": shown})
        if total is not None:
            bars.append({"site": site, "what": ALL_STUDIES, "value": total, "shown": in_all})
        if line["budget"] is not None:
            limits.append({"site": site, "what": BUDGET, "value": line["budget"], "shown": number(line["budget"], 2)})
    kinds = [kind for kind in SPENT_COLOURS if any(row["what"] == kind for row in [*bars, *limits])]
    # With one bar a site no room is left for a second.
    two = ALL_STUDIES in kinds
    scale = alt.Scale(domain=kinds, range=[SPENT_COLOURS[kind] for kind in kinds])
    colour = alt.Color("what:N", scale=scale, legend=alt.Legend(**legend_of(kinds)))
    end = 1.1 * max(row["value"] for row in [*bars, *limits])  # room for the figures, and for a line at the end
    x = figure_x("value", "ε", ticks_of([0.0, end]), grid=False)
    y = names_y("site", list(spent), paddingInner=ARMS_GAP, paddingOuter=0)
    offset = alt.YOffset("what:N", sort=[THIS_RUN, ALL_STUDIES])
    base = alt.Chart(inline(values=bars)).encode(x=x, y=y, color=colour)
    base = base.encode(yOffset=offset) if two else base
    tooltip = ["site:N", "what:N", "shown:N"]
    texts = base.mark_text(align="left", dx=6, fontSize=13, fontWeight="bold").encode(
        text="shown:N", color=alt.value(FIGURE)
    )
    ticks = alt.Chart(inline(values=limits)).mark_tick(opacity=1, thickness=4, size=ARMS_PIXELS * (1 - ARMS_GAP))
    layers = [base.mark_bar(cornerRadiusEnd=2).encode(tooltip=tooltip), texts]
    layers += [ticks.encode(x=x, y=y, color=colour, tooltip=tooltip)] if limits else []
    return layered(*layers, height=ARMS_PIXELS * len(spent))


def left_chart(out: Sequence[CrossedEntry], sites: Sequence[str]) -> alt.Chart:
    """Return stacked bars of bytes by site and kind."""
    shown, kinds = set(sites), kinds_of(out)
    rows = [
        {"site": e.site, "kind": kind_in_words(e.kind, kinds), "order": kinds.index(e.kind), "kB": e.bytes / 1e3}
        | {"shown": size_in_words(e.bytes)}
        for e in out
        if e.site in shown
    ]
    names = [kind_in_words(kind, kinds) for kind in kinds]
    colours = [KIND_COLOURS.get(kind, OTHER_COLOUR) for kind in kinds]
    legend = alt.Legend(**legend_of(names))
    drawn: alt.Chart = (
        alt.Chart(inline(values=rows))
        .mark_bar(size=BAR_PIXELS)
        .encode(
            x=alt.X("kB:Q", title="kB", axis=alt.Axis(tickCount=6, grid=False)),
            y=names_y("site", sites),
            color=alt.Color("kind:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
            order=alt.Order("order:O"),
            tooltip=["site:N", "kind:N", "shown:N"],
        )
        .properties(height=ROW_PIXELS * len(sites), autosize=alt.AutoSizeParams(**PLOT_HEIGHT))
    )
    return drawn
