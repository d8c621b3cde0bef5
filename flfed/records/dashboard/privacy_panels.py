"""The parts of the page Privacy: the promise, what is spent of it, what attacks reached, and what left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import streamlit as st

from flfed.records import privacy as private
from flfed.records.dashboard import panels, showing
from flfed.records.dashboard.charts import AXIS_NUMBERS, Layers
from flfed.records.dashboard.crossing import FRAME_PIXELS, ROW_PIXELS, y_names
from flfed.records.entries import SiteEntry
from flfed.records.headlines import not_promised, unpromised_in_words
from flfed.records.privacy import Private, epsilon_in_words, power_of_ten
from flfed.records.verdicts import ABSENT, number

THIS_RUN, ALL_STUDIES, BUDGET = "this run", "all studies in the site's ledger", "budget"
SPENT_COLOURS = {THIS_RUN: "#0072B2", ALL_STUDIES: "#3C97CF", BUDGET: "#D55E00"}
GREY = alt.value("#7a7a7a")  # as far from white as from black
STANDING_COLOURS: dict[str, Literal["green", "orange", "red"]] = {
    "within the promise": "green",
    "beyond the promise": "red",
}
"""Everything else is orange: that nothing is promised, or nothing measured, is no reason to be calm."""

NO_LEDGER = (
    "The record has no budget and no ledger of these sites: research sites that a study cuts out of a table have none, "
    "the promise of whole sites is in none, and a site in sums only does not tell."
)

_inline: Any = alt.Data  # Altair leaves its schema classes without types


def promise(privacy: Private, audit: Sequence[Private], *, attackable: bool = True) -> None:
    """Show how the promise stands, in words, and what is not promised; only a measured promise is green."""
    code, sentence = private.standing(privacy, audit, attackable=attackable)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("### What is promised", width="content")
            st.badge(code, color=STANDING_COLOURS.get(code, "orange"))
        lines = private.promise_in_words(privacy)
        lines += [sentence] if privacy["mechanism"] not in (None, "none") or audit else []
        st.markdown("\n".join(f"- {_with_code(line)}" for line in lines))
        st.markdown("### What is not promised")
        colour = "red" if not_promised(audit) else "orange"
        said = unpromised_in_words(len(privacy["uncharged"]), audit)
        st.markdown("\n".join(f"- :{colour}[**{panels.escape(line)}**]" for line in said))
    for warning in privacy["warnings"]:
        st.warning(panels.escape(warning))


def _with_code(text: str) -> str:
    """Return text for Markdown in which only what stands between backticks is taken as such."""
    parts = text.split("`")
    return "".join(f"`{part}`" if place % 2 else panels.escape(part) for place, part in enumerate(parts))


def mechanisms(privacy: Private, sites: Sequence[SiteEntry]) -> None:
    """Show which mechanisms are in force, and which are not."""
    st.markdown("## Mechanisms in force")
    there = [site for site in sites if site.status != "refused"]
    panels.table([_noise(privacy), *_of_sites(there)])


def _noise(privacy: Private) -> dict[str, str]:
    name = "not recorded" if privacy["mechanism"] is None else str(privacy["mechanism"])
    said = "nothing is added to updates"
    if privacy["mechanism"] is None:
        said = "not known"
    elif privacy["mechanism"] != "none":
        known = {
            "noise multiplier": number(privacy["noise"], 3) if privacy["noise"] is not None else "",
            "sampling": number(privacy["sampling"]) if privacy["sampling"] is not None else "",
            "clip": f"{privacy['clip']:g}" if privacy["clip"] is not None else "",
            private.counted(privacy): f"{privacy['steps']}" if privacy["steps"] is not None else "",
        }
        said = ", ".join(f"{key} {value}" for key, value in known.items() if value)
    bound = "not known" if privacy["mechanism"] is None else "nothing"
    if privacy["epsilon"] is not None:
        unit = f"each {privacy['unit']}"
        bound = f"{unit}: ε = {epsilon_in_words(privacy['epsilon'])} at δ = {power_of_ten(privacy['delta'])}"
    return {"Mechanism": "differential privacy", "Is": name, "How": said, "Promises": bound}


def _of_sites(sites: Sequence[SiteEntry]) -> list[dict[str, str]]:
    """Return the lines on what does not follow from the study, but from the sites' policies and from this version."""
    closed = sum(site.disclosure == "institution" for site in sites)
    shared = {how: sum(site.shared_as == how for site in sites) for how in ("named", "pseudonym", "aggregate-only")}
    ways = ", ".join(f"{how} at {count}" for how, count in shared.items() if count)
    small = "no small count leaves there, but for what updates tell" if closed else "nothing: exact sums leave"
    at = f"at {closed} of {len(sites)} sites"
    lines = (
        ("suppression of small cells", at, "where the site's policy says disclosure institution", small),
        (
            "how sites' figures are written down",
            ways or ABSENT,
            "the stricter of policy and study",
            "nothing of updates",
        ),
        ("secure aggregation", "off", "not in this version: the server sees each site's own update", "nothing"),
    )
    return [{"Mechanism": what, "Is": is_, "How": how, "Promises": bound} for what, is_, how, bound in lines]


def spending(privacy: Private) -> None:
    """Show the ε spent at each site against its budget: as bars with the budget as a line, and as a table."""
    st.markdown("## What was spent, against each site's budget")
    spent = {site: line for site, line in privacy["sites"].items() if line["epsilon"] is not None}
    if not spent:
        st.info(panels.escape(why_nothing_spent(privacy)))
        return
    if all(line["budget"] is None and line["spent-before"] is None for line in spent.values()):
        st.markdown("\n".join(f"- {_with_code(line)}" for line in [*private.spending_in_words(privacy), NO_LEDGER]))
        return
    most = sorted(spent, key=lambda site: (-_share(spent[site]), site))[: panels.SITES_SHOWN]
    if len(most) < len(spent):
        st.caption(f"The chart shows the {len(most)} sites that have least left, or no budget, of {len(spent)}.")
    says = "; ".join(private.spending_in_words(privacy))
    title = f"ε at δ = {power_of_ten(privacy['delta'])}: less is more private"
    panels.chart(st, title, _spent_chart({site: spent[site] for site in most}), says=says)
    panels.table([_spent_line(site, line, privacy) for site, line in spent.items()])
    showing.download([{"site": site} | line for site, line in spent.items()], key="epsilon-spent")
    st.caption(
        "ε of this run counts the steps that were asked of the site, an upper bound: where rounds were done again it "
        "is more than was planned. The sum over all studies is in the site's own ledger, and the site's to tell: "
        "`flfed site budget SITE`. Here this run's ε is added to what the site said was spent before. A site under "
        "disclosure institution answers nothing that would overdraw its budget; an open one writes it down and answers."
    )


def why_nothing_spent(privacy: Private) -> str:
    """Return why no site has spent anything that is counted, and what would."""
    if privacy["mechanism"] is None:
        return f"Not known: {privacy['reason']}."
    if privacy["epsilon"] is not None:
        whose = "is the whole run's, not a site's own" if privacy["unit"] == "site" else "was not spent at any site yet"
        return f"The promise of ε = {epsilon_in_words(privacy['epsilon'])} {whose}: no site's ledger counts it."
    return (
        'No ε is counted: nothing was promised. With [privacy] name = "record-dp", and [plan] steps, in the study '
        "each site counts what it spends."
    )


def _share(line: Private) -> float:
    """Return how much of a site's budget is spent; without a budget as if it all were."""
    total = private.of_all_studies(line)[0] or line["epsilon"]
    return float("inf") if line["budget"] is None else total / max(line["budget"], 1e-12)


def _spent_line(site: str, line: Private, privacy: Private) -> dict[str, str]:
    planned, before, budget = privacy["steps"], line["spent-before"], line["budget"]
    after, in_all = private.of_all_studies(line)
    left = ABSENT if after is None or budget is None else epsilon_left(budget - after)
    return {
        "Site": site,
        f"{private.counted(privacy).capitalize()} asked": f"{line['steps']}"
        + (f" of {planned}" if planned is not None else ""),
        "ε of this run": epsilon_in_words(line["epsilon"]),
        "δ": power_of_ten(line["delta"]),
        "ε in its ledger before": epsilon_in_words(before) if before is not None else "not known",
        "ε of all its studies": in_all,
        "Budget": number(budget, 2) if budget is not None else "none",
        "Left": left,
    }


def epsilon_left(value: float) -> str:
    """Return about what is left of a budget, rounded down; in words where it is overdrawn.

    Examples
    --------
    >>> epsilon_left(1.509), epsilon_left(-0.25)
    ('about 1.50', 'overdrawn by about .25')
    """
    least = math.floor(round(value * 100, 6)) / 100
    return f"about {number(least, 2)}" if least >= 0 else f"overdrawn by about {number(-least, 2)}"


def _spent_chart(spent: dict[str, Private]) -> Layers:
    """Return bars of ε by site, of this run and of its whole ledger, with each budget as a line across them."""
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
    two = ALL_STUDIES in kinds
    scale = alt.Scale(domain=kinds, range=[SPENT_COLOURS[kind] for kind in kinds])
    colour = alt.Color("what:N", scale=scale, legend=alt.Legend(title=None, orient="top", labelLimit=320))
    axis = alt.Axis(labelExpr=AXIS_NUMBERS, tickCount=6, grid=False)
    end = 1.1 * max(row["value"] for row in [*bars, *limits])  # room for the figures, and for a line at the end
    x = alt.X("value:Q", title="ε", scale=alt.Scale(domain=[0, end], nice=False), axis=axis)
    y = y_names("site", list(spent))
    offset = alt.YOffset("what:N", sort=[THIS_RUN, ALL_STUDIES])
    height = (1.7 if two else 1) * ROW_PIXELS * len(spent) + FRAME_PIXELS
    base = alt.Chart(_inline(values=bars)).encode(x=x, y=y, color=colour)
    base = base.encode(yOffset=offset) if two else base
    tooltip = ["site:N", "what:N", "shown:N"]
    texts = base.mark_text(align="left", dx=6, fontSize=13, fontWeight="bold").encode(text="shown:N", color=GREY)
    ticks = alt.Chart(_inline(values=limits)).mark_tick(opacity=1, thickness=4, size=ROW_PIXELS * (1.5 if two else 0.9))
    layers = [base.mark_bar(cornerRadiusEnd=2).encode(tooltip=tooltip), texts]
    layers += [ticks.encode(x=x, y=y, color=colour, tooltip=tooltip)] if limits else []
    return alt.layer(*layers).properties(height=height)


def uncharged(privacy: Private) -> None:
    """List what leaves the sites, or steers the run, without being part of the promise."""
    st.markdown("## Not covered by the promise")
    if not privacy["uncharged"]:
        st.caption(
            "The record lists nothing." if privacy["mechanism"] is not None else f"Not known: {privacy['reason']}."
        )
        return
    if privacy["epsilon"] is None:
        st.markdown("Nothing was promised, so none of this is covered:")
    st.markdown("\n".join(f"- {panels.escape(said)}" for said in privacy["uncharged"]))
