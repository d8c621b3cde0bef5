"""Panels of attacks on the page Privacy.

They hold what attacks on a run's model reached against its guarantee.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import streamlit as st

from flfed.records.charts.axes import ROW_PIXELS, legend_of, ticks_of
from flfed.records.charts.by_site import Layers, figure_x, layered, names_y
from flfed.records.charts.colours import AMBER, GREEN, GREY, NEUTRAL, ORANGE
from flfed.records.dashboard.components import figure
from flfed.records.dashboard.components.tables import SITES_SHOWN, table
from flfed.records.reports import audit_headlines
from flfed.records.reports.audit_headlines import (
    BEYOND,
    NO_PROMISE,
    NOT_KNOWN,
    VERDICTS_READ,
    WITHIN,
    Audit,
    AuditFigure,
    audit_in_words,
    figure_name,
    gave_away,
    reached,
)
from flfed.records.reports.privacy import Private
from flfed.records.reports.privacy_tables import has_model
from flfed.records.statistics.listed.noised_scores import COVERS
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import RunEntry
from flfed.records.text import escape

GIVEN_AWAY = "no promise, and the attack got somewhere"
LOOKS = {
    BEYOND: (ORANGE, "cross"),
    GIVEN_AWAY: (ORANGE, "triangle-right"),
    NOT_KNOWN: (AMBER, "diamond"),
    WITHIN: (GREEN, "circle"),
    NO_PROMISE: (NEUTRAL, "square"),
}
"""Colour and shape of what is to be made of a figure, told apart without colours too.

That an attack got somewhere is emphasised, whether a guarantee is broken by it or there is none."""
PROMISE_COLOUR = GREY
MARK_PIXELS = 18
"""Height of a bar, and of the line of a promise."""
LINES_SHOWN = 150
"""Lines of the table of all figures that are shown without a scroll bar of its own."""


ENDS = ("value", "low", "high", "promise")
KEPT = ("run", "attack", "site", "metric", "value", "low", "high", "promise", "verdict", "rows", "at")
"""Columns of the file of all figures."""


def attacks(privacy: Private, audit: Audit, run: RunEntry, *, only: str | None = None) -> None:
    """Show each attack's result against the guarantee.

    Where there is none, it says how to have one.

    `only` is the one site whose people read it, and see the figures of no other.
    """
    st.markdown("## Attacks on the model, against the promise")
    if not audit:
        st.info(_why_none(privacy, run, only))
        return
    first = audit_headlines.headlines(audit)
    several = len({line.run for line in audit}) > 1
    st.caption(
        "Each attack's main figure, with 95 % CIs. An upright line is what was promised at most; without it "
        "nothing is promised."
    )
    names = list(dict.fromkeys(line.attack for line in first))
    # Two attacks stand side by side, each with its own axis.
    for place in range(0, len(names), 2):
        for column, attack in zip(st.columns(2 if len(names) > 1 else 1), names[place : place + 2], strict=False):
            told = [line for line in first if line.attack == attack]
            drawn, says = _attack_chart([line for line in told if line.value is not None])
            lines = [_line(line, several) for line in told]
            figure.figure(column, escape(attack), drawn, lines, key=f"attack-{attack}", says=says)
    table([_summary_line(lines, only) for lines in audit_headlines.by_figure(first)])
    st.caption(VERDICTS_READ)
    with st.expander("What each of these figures means"):
        _sentences([lines[0] for lines in audit_headlines.by_figure(first)])
    # Every figure stays within reach, but the main ones are what a reader needs first.
    with st.expander(f"All {len(audit)} figures{', site by site' if only is None else ' of your site'}"):
        _all_figures(audit, first, several)
        figure.download([{key: getattr(line, key) for key in KEPT} for line in audit], key="attacks")


def _why_none(privacy: Private, run: RunEntry, only: str | None) -> str:
    """Return why no attack has a figure.

    It says what to do too, but nothing that would be refused.
    """
    why = "A promise without a measurement is not shown as green. " if privacy["epsilon"] is not None else ""
    if run.status == "running":
        return f"{why}The run's model can be attacked once it has ended."
    if not has_model(run):
        return f"{why}The run has no final model that could be attacked."
    if privacy.get(COVERS) == "study":
        return f"{why}No attack is tried on this run: what one reaches would leave beside what is charged to its ε."
    if only is not None:
        return f"{why}No attack at your site is in the record. The coordinator can have one tried."
    return f"{why}This run's model was not attacked yet: `flfed audit {run.run}` does it and writes it down."


def _summary_line(lines: Audit, only: str | None) -> dict[str, str]:
    """Return one line for an attack's figure.

    The figure is over its sites, of which the worst stands first.
    """
    worst, several = lines[0], len({line.run for line in lines}) > 1
    values = [line.value for line in lines if line.value is not None]
    site = str(worst.site or "all")
    # Figures without a value are counted too: the range is that of the others.
    counted = "1 figure" if len(lines) == 1 else f"{len(lines)} figures"
    over = f"{audit_headlines.range_of(values) if values else number(None)}, of {counted}"
    return {
        "Attack": str(worst.attack),
        "Main figure": figure_name(worst.metric),
        "Most at": f"{site}, run {worst.run}" if several else site,
        "Reached there (95 %)": reached(worst),
        **({"Lowest to highest": over} if only is None else {}),
        "Promised, at most": number(worst.promise) if worst.promise is not None else "nothing",
        "Verdict": _verdict(lines),
    }


def _verdict(lines: Audit) -> str:
    """Return the verdict that figures share.

    Where nothing is guaranteed it also says whether the attack got somewhere.
    """
    verdict, count = str(lines[0].verdict), sum(gave_away(line) for line in lines)
    return f"{verdict}, and it got somewhere at {count} of {len(lines)}" if count else verdict


def _all_figures(audit: Audit, first: Audit, several: bool) -> None:
    """Show every figure and its meaning.

    What needs a look comes first. Meanings that were told above are left out.
    """
    table([_line(line, several) for line in audit_headlines.ordered(audit)], most=LINES_SHOWN)
    told = [lines[0] for lines in audit_headlines.by_figure(first)]
    _sentences([line for line in audit if line not in told])


def _sentences(lines: Audit) -> None:
    """Show the figures' meanings, each sentence once."""
    said = dict.fromkeys(f"**{escape(line.attack)}** {escape(line.says)}" for line in lines)
    st.markdown("\n".join(f"- {sentence}" for sentence in said))


def _line(line: AuditFigure, several: bool) -> dict[str, str]:
    return {
        **({"Run": str(line.run)} if several else {}),
        "Attack": str(line.attack),
        "Site": str(line.site or "all"),
        "Figure": figure_name(line.metric),
        "Reached (95 %)": reached(line),
        "Promised": number(line.promise) if line.promise is not None else "nothing",
        "Its verdict": str(line.verdict),
    }


def _attack_chart(lines: Audit) -> tuple[Layers | None, str]:
    """Return the chart of one attack and its words.

    Figures are dots with intervals, the guarantee is a line.

    The axis is that of the figure: 0 to 1 for shares and AUCs, so that all of something looks like all.
    """
    alone = len({line.metric for line in lines}) == 1
    rows = [
        {key: getattr(line, key) for key in ENDS}
        | {
            "name": _named(line, alone),
            "shown": reached(line),
            "look": GIVEN_AWAY if gave_away(line) else line.verdict,
        }
        for line in lines[:SITES_SHOWN]
    ]
    if not rows:
        return None, ""
    names = list(dict.fromkeys(row["name"] for row in rows))
    # The legend has only the looks that occur, with colour and shape together.
    there = [look for look in LOOKS if any(row["look"] == look for row in rows)]
    legend = alt.Legend(**legend_of(there))
    scale = alt.Scale(domain=there, range=[LOOKS[look][0] for look in there])
    colour = alt.Color("look:N", scale=scale, legend=legend)
    shapes = alt.Scale(domain=there, range=[LOOKS[look][1] for look in there])
    shape = alt.Shape("look:N", scale=shapes, legend=legend)
    title = figure_name(lines[0].metric) if alone else "the attack's figure"
    x = figure_x("value", title, ticks_of(_domain(lines)), grid=False)
    y = names_y("name", names)
    data: Any = alt.Data  # Altair leaves its schema classes without types
    base = alt.Chart(data(values=rows))
    spans = base.transform_filter("datum.low != null && datum.high != null").mark_rule(strokeWidth=3)
    # All of something that no guarantee covers fills the chart.
    given = base.transform_filter(f"datum.look == '{GIVEN_AWAY}'").transform_calculate(start="0")
    bars = given.mark_bar(size=MARK_PIXELS, fillOpacity=0.3, color=LOOKS[GIVEN_AWAY][0], stroke=LOOKS[GIVEN_AWAY][0])
    dots = base.mark_point(filled=True, size=120, opacity=1)
    limits = base.transform_filter("datum.promise != null").mark_tick(
        opacity=1, thickness=4, size=MARK_PIXELS, color=PROMISE_COLOUR
    )
    drawn = layered(
        bars.encode(x="start:Q", x2="value:Q", y=y),
        limits.encode(x="promise:Q", y=y),
        spans.encode(x="low:Q", x2="high:Q", y=y, color=colour),
        dots.encode(x=x, y=y, color=colour, shape=shape, tooltip=["name:N", "shown:N", "look:N"]),
        height=ROW_PIXELS * len(names),
    )
    return drawn, " ".join(audit_in_words(lines))


def _domain(lines: Audit) -> list[float]:
    """Return the ends of the figures' axis.

    They are the figures' range where they have one, else 0 and the largest.
    """
    scales = [audit_headlines.scale_of(line.metric) for line in lines]
    known = [scale for scale in scales if scale is not None]
    found: list[float] = []
    if len(known) < len(scales):
        for line in lines:
            found += [end for key in ENDS if (end := getattr(line, key)) is not None]
    low = min([0.0, *found, *(scale[0] for scale in known)])
    return [low, max([*found, *(scale[1] for scale in known)])]


def _named(line: AuditFigure, alone: bool) -> str:
    site = str(line.site or "all sites")
    return site if alone else f"{figure_name(line.metric)}, {site}"
