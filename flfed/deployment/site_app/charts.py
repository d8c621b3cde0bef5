"""Charts of a site's own app.

They are in Vega-Lite's own words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

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
from flfed.records.dashboard.components.colours import ARM_COLOURS, FIGURE, NEUTRAL
from flfed.records.dashboard.components.figure import Line
from flfed.records.dashboard.components.round_chart import Curves
from flfed.records.dashboard.panels.privacy import KIND_LOOKS, OTHER_COLOUR, size_in_words
from flfed.records.ledger.totals import Total
from flfed.records.statistics.verdict import number

KINDS = {kind.rpartition(".")[2]: looks for kind, looks in KIND_LOOKS.items()}
"""Name and colour of a kind of line that is a message, as on the coordinator's page Privacy."""
OTHERS = {
    "seal": "head of this ledger",
    "sealed": "receipt kept",
    "refused": "refusals, in our words",
    "error": "errors, in our words",
    "withheld": "replies held back",
    "spent": "privacy spent",
    "released": "rows counted as released",
}
MOST_DAYS = 60
HEIGHT = 320


def kind_of_line(kind: str) -> str:
    """Return the name of a kind of line.

    Examples
    --------
    >>> kind_of_line("compare"), kind_of_line("spent"), kind_of_line("new")
    ('comparison on the holdout', 'privacy spent', 'new')
    """
    return KINDS[kind][0] if kind in KINDS else OTHERS.get(kind, kind)


def by_day(kept: Mapping[tuple[str, str, str], Total]) -> tuple[Curves | None, list[Line], str]:
    """Return bars of the outbound kB by day.

    They are by kind, with their table and what they say in words.

    Parameters
    ----------
    kept : mapping of (day, study, kind) to Total
    """
    found: dict[tuple[str, str], Total] = {}
    for (day, _, kind), total in kept.items():
        into = found.setdefault((day, kind_of_line(kind) if kind in KINDS else "other"), Total())
        into.lines, into.bytes = into.lines + total.lines, into.bytes + total.bytes
    lines: list[Line] = [
        {"Day (UTC)": day, "What": kind, "Lines": total.lines, "Bytes": total.bytes}
        for (day, kind), total in sorted(found.items())
    ]
    # Older days would make the bars too thin to read; the table has them all.
    days = sorted({day for day, _ in found})[-MOST_DAYS:]
    bars = [
        {"day": day, "kind": kind, "kB": total.bytes / 1e3, "size": size_in_words(total.bytes)}
        for (day, kind), total in sorted(found.items())
        if day in days and total.bytes
    ]
    if not bars:
        return None, lines, ""
    # A kind without bytes gets no entry in the legend.
    names = [name for name, _ in KINDS.values() if any(bar["kind"] == name for bar in bars)]
    colours = dict(KINDS.values()) | {"other": OTHER_COLOUR}
    names += ["other"] if any(bar["kind"] == "other" for bar in bars) else []
    spec = {
        "height": HEIGHT,
        "autosize": PLOT_HEIGHT,
        "mark": {"type": "bar", "width": {"band": 0.7} if len(days) > 6 else 48},
        "encoding": {
            "x": {"field": "day", "type": "ordinal",
                  "axis": {"title": "day (UTC)", "labelAngle": 0, "labelOverlap": True}},
            "y": {"field": "kB", "type": "quantitative", "axis": {"title": "kB", "tickCount": 5}},
            "color": {"field": "kind", "type": "nominal", "legend": legend_of(names),
                      "scale": {"domain": names, "range": [colours[name] for name in names]}},
            "tooltip": [{"field": name, "type": "nominal"} for name in ("day", "kind", "size")],
        },
    }  # fmt: skip
    all_of = {day: sum(total.bytes for (when, _), total in found.items() if when == day) for day in days}
    says = "; ".join(f"{day}: {size_in_words(count)}" for day, count in all_of.items())
    return Curves(pd.DataFrame(bars), spec), lines, says


def arms(lines: Sequence[Mapping[str, Any]], metric: str) -> Curves | None:
    """Return each model's figure with its interval.

    It is on the site's holdout.

    Parameters
    ----------
    lines : sequence of mappings with arm, name, value, low, high
    metric : str
    """
    rows = pd.DataFrame([line for line in lines if line["value"] is not None])
    if rows.empty:
        return None
    # Known arms in their usual order, and whatever else there is behind them.
    known = [arm for arm in ARM_COLOURS if arm in set(rows["arm"])] + sorted(set(rows["arm"]) - set(ARM_COLOURS))
    scale = {"domain": known, "range": [ARM_COLOURS.get(arm, NEUTRAL) for arm in known]}
    colour = {"field": "arm", "type": "nominal", "legend": None, "scale": scale}
    # The axis has to hold the intervals as well as the figures.
    ends = [line[key] for line in lines if line["value"] is not None for key in ("value", "low", "high")]
    x = {"type": "quantitative"} | figure_axis(axis_title(metric), ticks_of(ends, metric))
    y = {"field": "name", "type": "nominal", "sort": list(rows["name"]), "axis": names_axis()}
    rows["shown"] = [number(value) for value in rows["value"]]
    span = {
        "transform": [{"filter": "datum.low != null"}],
        "mark": {"type": "rule", "strokeWidth": 3},
        "encoding": {"x": x | {"field": "low"}, "x2": {"field": "high"}},
    }
    dot = {
        "mark": {"type": "point", "filled": True, "size": 130, "opacity": 1},
        "encoding": {"x": x | {"field": "value"}, "tooltip": [{"field": "name"}, {"field": "value"}]},
    }
    figures = {
        "mark": figures_above(),
        "encoding": {"x": {"value": "width"}, "text": {"field": "shown"}, "color": {"value": FIGURE}},
    }
    height = {"height": ROW_PIXELS * len(rows), "autosize": PLOT_HEIGHT}
    spec = height | {"encoding": {"y": y, "color": colour}, "layer": [span, dot, figures]}
    return Curves(rows.astype({"value": "float64", "low": "float64", "high": "float64"}), spec)
