"""Charts of privacy: ε and each site's budget, bytes sent, and attacks' figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import pandas as pd

from flfed.records.charts import colours
from flfed.records.charts.by_site import ARMS_GAP, ARMS_PIXELS, INTERVAL, arms_y, looks_of
from flfed.records.charts.chart import (
    ROW_PIXELS,
    Chart,
    figure_axis,
    layer,
    legend_of,
    names_axis,
    nominal,
    plot,
    quantitative,
    ticks_of,
)
from flfed.records.objects import read
from flfed.records.reports import audit_headlines as audits
from flfed.records.reports.privacy import SiteSpending, SpentLine, epsilon_in_words, of_all_studies
from flfed.records.reports.privacy_tables import kind_in_words, kinds_of
from flfed.records.statistics.verdict import format_as_written
from flfed.records.store.entries import CrossedEntry
from flfed.records.text import size_in_words

THIS_RUN = "this run"
ALL_STUDIES = "all studies"
BUDGET = "budget"
SPENT_COLOURS = {THIS_RUN: colours.BLUE, ALL_STUDIES: colours.PALE_BLUE, BUDGET: colours.ORANGE}
IS_BUDGET = f"datum.what == '{BUDGET}'"
IS_SPENT = f"datum.what != '{BUDGET}'"
"""Conditions of rows, in Vega's language."""
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
    "query.keys": colours.FAINT,
    "query.align": colours.AMBER,
    "query.partial": colours.BLUE,
}
OTHER_COLOUR = colours.ORANGE
ATTACK_SUCCEEDED = "attack succeeded, no promise"
IS_DISCLOSED = f"datum.look == '{ATTACK_SUCCEEDED}'"
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


def spent_chart(spent: Mapping[str, SpentLine]) -> Chart:
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
            limits.append({"site": site, "what": BUDGET, "value": line.budget, "shown": format_as_written(line.budget)})
    drawn = [*bars, *limits]
    there = {row["what"] for row in drawn}
    kinds = [kind for kind in SPENT_COLOURS if kind in there]
    # With room for the figures, and for a line at the end.
    end = 1.1 * max(row["value"] or 0.0 for row in drawn)
    base = {
        "x": quantitative("value", **figure_axis("ε", ticks_of([0.0, end]), grid=False)),
        "y": arms_y(list(spent)),
        "color": looks_of("what", {kind: SPENT_COLOURS[kind] for kind in kinds}),
    }
    hover = {"tooltip": [nominal("site"), nominal("what"), nominal("shown")]}
    place = dict(base)
    # With one bar a site there is no room for a second.
    if ALL_STUDIES in kinds:
        place["yOffset"] = nominal("what", sort=[THIS_RUN, ALL_STUDIES])
    texts = {"text": nominal("shown"), "color": {"value": colours.FIGURE}}
    layers = [
        layer("bar", place | hover, IS_SPENT, cornerRadiusEnd=2),
        layer("text", place | texts, IS_SPENT, align="left", dx=6, fontSize=13, fontWeight="bold"),
    ]
    if limits:
        size = ARMS_PIXELS * (1 - ARMS_GAP)
        layers.append(layer("tick", base | hover, IS_BUDGET, opacity=1, thickness=4, size=size))
    return Chart(pd.DataFrame(drawn), plot(ARMS_PIXELS * len(spent), layer=layers), is_by_row=True)


def left_chart(out: Sequence[CrossedEntry], sites: Sequence[str]) -> Chart:
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
    axis = {"tickCount": 6, "grid": False}
    encoding = {
        "x": quantitative("kB", title="kB, in the order of the legend", axis=axis),
        "y": nominal("site", sort=list(sites), axis=names_axis()),
        "color": looks_of("kind", dict(zip(names, kind_colours, strict=True))),
        "order": {"field": "order", "type": "ordinal"},
        "tooltip": [nominal("site"), nominal("kind"), nominal("shown")],
    }
    bars = layer("bar", encoding, size=BAR_PIXELS)
    return Chart(pd.DataFrame(rows), plot(ROW_PIXELS * len(sites), **bars), is_by_row=True)


def attack_chart(lines: audits.Audit) -> Chart | None:
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
    scale = {"domain": there, "range": [LOOKS[look][1] for look in there]}
    title = audits.figure_name(lines[0].metric) if alone else "figure"
    y = {"y": nominal("name", sort=names, axis=names_axis())}
    marks = y | {"color": looks_of("look", {look: LOOKS[look][0] for look in there})}
    dots = {
        "x": quantitative("value", **figure_axis(title, ticks_of(_domain(lines)), grid=False)),
        "shape": nominal("look", scale=scale, legend=legend_of(there)),
        "tooltip": [nominal("name"), nominal("shown"), nominal("look")],
    }
    # A complete disclosure without a guarantee fills the chart.
    succeeded = LOOKS[ATTACK_SUCCEEDED][0]
    disclosed = {"size": MARK_PIXELS, "fillOpacity": 0.3, "color": succeeded, "stroke": succeeded}
    bars = layer("bar", y | {"x": quantitative("start"), "x2": {"field": "value"}}, IS_DISCLOSED, **disclosed)
    bars["transform"].append({"calculate": "0", "as": "start"})
    limit = {"opacity": 1, "thickness": 4, "size": MARK_PIXELS, "color": PROMISE_COLOUR}
    layers = [
        bars,
        layer("tick", y | {"x": quantitative("promise")}, "datum.promise != null", **limit),
        layer("rule", marks | INTERVAL, "datum.low != null && datum.high != null", strokeWidth=3),
        layer("point", marks | dots, filled=True, size=120, opacity=1),
    ]
    return Chart(pd.DataFrame(rows), plot(ROW_PIXELS * len(names), layer=layers), is_by_row=True)


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
