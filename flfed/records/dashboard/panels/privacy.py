"""Panels of guarantee, budget and bytes on page Privacy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt
import streamlit as st

from flfed.errors import counted
from flfed.records.charts.axes import PLOT_HEIGHT, ROW_PIXELS, legend_of, ticks_of
from flfed.records.charts.by_site import ARMS_GAP, ARMS_PIXELS, Layers, figure_x, inline, layered, names_y
from flfed.records.charts.colours import (
    AMBER,
    BLUE,
    FAINT,
    FIGURE,
    GREEN,
    GREY,
    ORANGE,
    PALE_BLUE,
    PINK,
    VIOLET,
)
from flfed.records.dashboard.components import figure
from flfed.records.dashboard.components.tables import SITES_SHOWN, table
from flfed.records.dashboard.components.text import escape, with_code
from flfed.records.reports import privacy as private
from flfed.records.reports.audit_headlines import not_promised, unpromised_in_words
from flfed.records.reports.privacy import Private, epsilon_in_words, power_of_ten
from flfed.records.reports.privacy_tables import (
    SHARES_READ,
    charged_lines,
    kind_in_words,
    kinds_of,
    left_lines,
    left_of_budget,
    mechanism_lines,
    share_of_budget,
    size_in_words,
    spent_line,
    told_in_words,
    why_nothing_spent,
    why_so_many,
)
from flfed.records.statistics.listed.noised_scores import COVERS
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import CrossedEntry, SiteEntry

THIS_RUN = "this run"
ALL_STUDIES = "all studies in the site's ledger"
BUDGET = "budget"
SPENT_COLOURS = {THIS_RUN: BLUE, ALL_STUDIES: PALE_BLUE, BUDGET: ORANGE}
STANDING_COLOURS: dict[str, Literal["green", "orange", "red"]] = {
    "within the promise": "green",
    "beyond the promise": "red",
}
"""Everything else is orange: that nothing is promised, or nothing measured, is no reason to be calm."""

STEPS_ASKED = (
    "ε of this run counts the steps that were asked of the site, an upper bound: where rounds were done again it is "
    "more than was planned."
)
ANSWERED = f"ε of this run is that of one answer, all numbers of it together. {private.SENT_AGAIN}"
TWO_ACCOUNTS = (
    "ε of this run is the larger of two accounts: that of rows trained on counts the steps that were asked of the "
    "site, an upper bound, and the counts before them; that of rows held out the counts of scores."
)
NO_LEDGER = (
    "The record has no budget and no ledger of these sites: research sites that a study cuts out of a table have none, "
    "the promise of whole sites is in none, and a site in sums only does not tell."
)


def promise(privacy: Private, audit: Sequence[Private], *, attackable: bool = True, only: str | None = None) -> None:
    """Show the guarantee, its first sentence unfolded.

    Only a guarantee that was measured at all sites is green.

    `only` is the one site whose people read it, and see the figures of no other.
    """
    code, sentence = private.standing(privacy, audit, attackable=attackable, only=only)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("### What is promised", width="content")
            st.badge(code, color=STANDING_COLOURS.get(code, "orange"))
        lines = private.promise_in_words(privacy)
        st.markdown(with_code(lines[0]))
        lines += [sentence] if privacy["mechanism"] not in (None, "none") or audit else []
        if more := lines[1:]:
            with st.expander("What this means"):
                st.markdown("\n".join(f"- {with_code(line)}" for line in more))
    for warning in privacy["warnings"]:
        st.warning(escape(warning))


def charged(privacy: Private) -> None:
    """Show what was charged for what, where all that leaves a site is; of another run nothing."""
    if lines := charged_lines(privacy):
        st.markdown("## What was charged for what")
        table(lines)
        st.caption(SHARES_READ)


def limits_of_promise(privacy: Private, audit: Sequence[Private], *, only: str | None = None) -> None:
    """Show what the guarantee leaves out."""
    with st.container(border=True):
        st.markdown("### What is not promised")
        # What an attack has shown to leak is red, what is merely not covered is not.
        colour = "red" if not_promised(audit) else "orange"
        said = unpromised_in_words(
            len(privacy["uncharged"]), audit, only=only, trained=privacy.get(private.TRAINED, True)
        )
        st.markdown("\n".join(f"- :{colour}[**{escape(line)}**]" for line in said))


def mechanisms(privacy: Private, sites: Sequence[SiteEntry], *, only: str | None = None) -> None:
    """Show which mechanisms are in force.

    Those that are not are listed too. `only` is the one site whose people read it.
    """
    st.markdown("## Mechanisms in force")
    table(mechanism_lines(privacy, sites, only=only))


def spending(privacy: Private) -> None:
    """Show each site's consumed ε against its budget."""
    st.markdown("## What was spent, against each site's budget")
    spent = {site: line for site, line in privacy["sites"].items() if line["epsilon"] is not None}
    if not spent:
        st.info(escape(why_nothing_spent(privacy)))
        return
    # Without a budget or a ledger a chart would compare ε with nothing.
    if all(line["budget"] is None and line["spent-before"] is None for line in spent.values()):
        said = [*private.spending_in_words(privacy), NO_LEDGER]
        st.markdown("\n".join(f"- {with_code(line)}" for line in said))
        return
    over = {site: -left for site, line in spent.items() if (left := left_of_budget(line)) is not None and left < 0}
    if over:
        named = private.listed(f"{site} by about {epsilon_in_words(most)}" for site, most in over.items())
        st.warning(escape(f"Overdrawn: {named}."))
    # Sites with the least left are the ones that need a look.
    most = sorted(spent, key=lambda site: (-share_of_budget(spent[site]), site))[:SITES_SHOWN]
    if len(most) < len(spent):
        st.caption(f"The chart shows the {len(most)} sites that have least left, or no budget, of {len(spent)}.")
    figure.figure(
        st,
        f"ε at δ = {power_of_ten(privacy['delta'])}: less is more private",
        _spent_chart({site: spent[site] for site in most}),
        [spent_line(site, line, privacy) for site, line in spent.items()],
        key="epsilon-spent",
        says="; ".join(private.spending_in_words(privacy)),
    )
    what = ANSWERED if privacy.get(private.ONE_ANSWER) else STEPS_ASKED
    what = TWO_ACCOUNTS if COVERS in privacy else what
    st.caption(
        f"{what} The sum over all studies is in the site's own ledger, and the site's to tell: "
        "`flfed site budget SITE`. Here the most that this run adds to it is added to what the site said was spent "
        f"before. {private.BOTH_SIDES + ' ' if COVERS in privacy else ''}A site under "
        "disclosure institution answers nothing that would overdraw its budget; an open one writes it down and answers."
    )


def _spent_chart(spent: dict[str, Private]) -> Layers:
    """Return bars of ε by site with their budgets."""
    bars: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    for site, line in spent.items():
        total, in_all = private.of_all_studies(line)
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


def uncharged(privacy: Private) -> None:
    """List outputs and controls outside the guarantee."""
    st.markdown("## Not covered by the promise")
    if not privacy["uncharged"]:
        st.caption(
            "The record lists nothing." if privacy["mechanism"] is not None else f"Not known: {privacy['reason']}."
        )
        return
    count = counted(len(privacy["uncharged"]), "thing")
    why = "Nothing was promised, so none of it is covered" if privacy["epsilon"] is None else "Not covered"
    with st.expander(f"{why}: {count}"):
        st.markdown("\n".join(f"- {escape(said)}" for said in privacy["uncharged"]))


def told(found: Mapping[str, Any]) -> None:
    """Show how many outcomes the sums of the first trees tell."""
    st.markdown("## Outcomes that the sums tell")
    st.markdown("\n".join(f"- {escape(said)}" for said in told_in_words(found)))


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


def left(crossed: Sequence[CrossedEntry], repeats: int = 1) -> None:
    """Show how many bytes left each site by kind."""
    st.markdown("## What left each site")
    out = [entry for entry in crossed if entry.direction == "to-server"]
    if not out:
        st.info("Nothing has left a site yet.")
        return
    kinds = kinds_of(out)
    totals: dict[str, int] = {}
    for entry in out:
        totals[entry.site] = totals.get(entry.site, 0) + entry.bytes
    most = sorted(totals, key=lambda site: (-totals[site], site))[:SITES_SHOWN]
    says = "; ".join(f"{site} {size_in_words(totals[site])}" for site in most)
    title = "Bytes that left, by kind of message"
    figure.figure(st, title, _left_chart(out, most, kinds), left_lines(crossed), key="bytes", says=says)
    if len(most) < len(totals):
        st.caption(f"The chart shows the {len(most)} sites that sent most, of {len(totals)}.")
    # Repeats send everything again, so that the sum is not that of one run.
    together = f" of all {repeats} repeats together" if repeats > 1 else ""
    over = ", added up over all rounds" if "train" in kinds else ""
    st.caption(
        f"Bytes of the messages' content{over}{together}. Who may see what of it stands "
        'in docs/security.md ("Who may see what"); the site\'s own ledger has every message.'
    )
    if said := why_so_many(out):
        st.caption(said)


def _left_chart(out: Sequence[CrossedEntry], sites: Sequence[str], kinds: Sequence[str]) -> alt.Chart:
    """Return stacked bars of bytes by site and kind."""
    shown = set(sites)
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
