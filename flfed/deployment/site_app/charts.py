"""Charts of a site's own app.

They are in Vega-Lite's own words.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from flfed.records.dashboard.components.axes import PLOT_HEIGHT, legend_of
from flfed.records.dashboard.components.figure import Line
from flfed.records.dashboard.components.round_chart import Curves
from flfed.records.dashboard.panels.privacy import KIND_COLOURS, OTHER_COLOUR
from flfed.records.ledger.totals import Total
from flfed.records.reports.privacy_tables import KINDS as NAMES
from flfed.records.reports.privacy_tables import size_in_words

KINDS = {kind.rpartition(".")[2]: (name, KIND_COLOURS.get(kind, OTHER_COLOUR)) for kind, name in NAMES.items()}
"""Name and colour of a kind of line that is a message, as on the coordinator's page Privacy."""
OTHERS = {
    "seal": "head of this ledger",
    "sealed": "receipt kept",
    "refused": "refusals, in our words",
    "error": "errors, in our words",
    "withheld": "replies held back",
    "spent": "privacy spent",
    "released": "rows counted as released",
    "compared-added": "comparisons added by a person",
}
MOST_DAYS = 60
HEIGHT = 320


def kind_of_line(kind: str) -> str:
    """Return the name of a kind of line.

    Examples
    --------
    >>> kind_of_line("compare"), kind_of_line("spent"), kind_of_line("new")
    ('comparison on test rows', 'privacy spent', 'new')
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
