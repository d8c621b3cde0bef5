"""The parts of the page Privacy: the promise, what is spent of it, what attacks reached, and what left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import streamlit as st

from flfed.records import privacy as private
from flfed.records.dashboard import panels
from flfed.records.dashboard.charts import AXIS_NUMBERS, Layers
from flfed.records.dashboard.crossing import FRAME_PIXELS, ROW_PIXELS, y_names
from flfed.records.entries import SiteEntry
from flfed.records.privacy import BEYOND, NO_PROMISE, WITHIN, Private, epsilon_in_words, power_of_ten
from flfed.records.verdicts import ABSENT, number

THIS_RUN, ALL_STUDIES, BUDGET = "this run", "all studies in the site's ledger", "budget"
SPENT_COLOURS = {THIS_RUN: "#0072B2", ALL_STUDIES: "#56B4E9", BUDGET: "#D55E00"}
VERDICT_LOOKS = {WITHIN: ("#009E73", "circle"), BEYOND: ("#D55E00", "cross"), NO_PROMISE: ("#8a8a8a", "square")}
"""Colour and shape of a verdict, told apart without colours too."""
GREY = alt.value("#7a7a7a")  # as far from white as from black
STANDING_COLOURS: dict[str, Literal["green", "orange", "red", "gray"]] = {
    "within the promise": "green",
    "beyond the promise": "red",
    "promised, not measured": "orange",
    "measured in part": "orange",
}

_inline: Any = alt.Data  # Altair leaves its schema classes without types


def promise(privacy: Private, audit: Sequence[Private]) -> None:
    """Show how the promise stands, in words; only a measured one is green."""
    code, sentence = private.standing(privacy, audit)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("#### What is promised", width="content")
            st.badge(code, color=STANDING_COLOURS.get(code, "gray"))
        lines = private.promise_in_words(privacy)
        lines += [sentence] if privacy["mechanism"] not in (None, "none") or audit else []
        st.markdown("\n".join(f"- {_with_code(line)}" for line in lines))
    for warning in privacy["warnings"]:
        st.warning(panels.escape(warning))


def _with_code(text: str) -> str:
    """Return text for Markdown in which only what stands between backticks is taken as such."""
    parts = text.split("`")
    return "".join(f"`{part}`" if place % 2 else panels.escape(part) for place, part in enumerate(parts))


def mechanisms(privacy: Private, sites: Sequence[SiteEntry]) -> None:
    """Show which mechanisms are in force, and which are not."""
    st.markdown("### Mechanisms in force")
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
            "steps": f"{privacy['steps']}" if privacy["steps"] is not None else "",
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
    st.markdown("### What was spent, against each site's budget")
    spent = {site: line for site, line in privacy["sites"].items() if line["epsilon"] is not None}
    if not spent:
        st.info(panels.escape(why_nothing_spent(privacy)))
        return
    most = sorted(spent, key=lambda site: (-_share(spent[site]), site))[: panels.SITES_SHOWN]
    if len(most) < len(spent):
        st.caption(f"The chart shows the {len(most)} sites that have least left, or no budget, of {len(spent)}.")
    says = "; ".join(private.spending_in_words(privacy))
    title = f"ε at δ = {power_of_ten(privacy['delta'])}: less is more private"
    panels.chart(st, title, _spent_chart({site: spent[site] for site in most}), says=says)
    panels.table([_spent_line(site, line, privacy["steps"]) for site, line in spent.items()])
    st.caption(
        "ε of this run counts the steps that were asked of the site, an upper bound. All studies in a site's ledger "
        "are composed by its accountant; where the record has only what was spent before, this run's ε is added, and "
        "the exact figure is the site's own: `flfed site budget SITE`. A site under disclosure institution answers "
        "nothing that would overdraw its budget; an open one writes it down and answers."
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


def _spent_line(site: str, line: Private, planned: int | None) -> dict[str, str]:
    before, budget = line["spent-before"], line["budget"]
    after, in_all = private.of_all_studies(line)
    left = ABSENT if after is None or budget is None else epsilon_left(budget - after, exact=line["spent"] is not None)
    return {
        "Site": site,
        "Steps asked": f"{line['steps']}" + (f" of {planned}" if planned is not None else ""),
        "ε of this run": epsilon_in_words(line["epsilon"]),
        "δ": power_of_ten(line["delta"]),
        "ε in its ledger before": epsilon_in_words(before) if before is not None else "not known",
        "ε of all its studies": in_all,
        "Budget": number(budget, 2) if budget is not None else "none",
        "Left": left,
    }


def epsilon_left(value: float, *, exact: bool) -> str:
    """Return what is left of a budget, rounded down; in words where it is overdrawn, or not known exactly.

    Examples
    --------
    >>> epsilon_left(1.509, exact=True), epsilon_left(1.5, exact=False), epsilon_left(-0.25, exact=True)
    ('1.50', 'about 1.50', 'overdrawn by .25')
    """
    least = math.floor(round(value * 100, 6)) / 100
    said = number(least, 2) if least >= 0 else f"overdrawn by {number(-least, 2)}"
    return said if exact else f"about {said}"


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


def attacks(privacy: Private, audit: Sequence[Private], run: str) -> None:
    """Show what each attack reached against what was promised; how to have one where there is none."""
    st.markdown("### Attacks on the model, against the promise")
    if not audit:
        why = "A promise without a measurement is not shown as green." if privacy["epsilon"] is not None else ""
        st.info(f"{why} This run's model was not attacked yet: `flfed audit {run}` does it and writes it down.".strip())
        return
    drawn = []
    for attack in dict.fromkeys(line["attack"] for line in audit):
        chart, says = _attack_chart(_telling([line for line in audit if line["attack"] == attack]))
        drawn.append((attack, chart, says))
    st.caption("Figures with 95 % intervals. An upright line is what was promised at most; without it nothing is.")
    for place in range(0, len(drawn), 2):
        panels.side_by_side(drawn[place : place + 2])
    several = len({line["run"] for line in audit}) > 1
    order = (BEYOND, WITHIN, NO_PROMISE)
    panels.table([_attack_line(line, several) for line in sorted(audit, key=lambda line: order.index(line["verdict"]))])
    st.caption(
        "The figure of an attack is a lower bound of what can be learned: a better attack may reach more. An interval "
        "that does not reach the promise is no proof of it; one that lies beyond it is a reason not to rely on it."
    )
    with st.expander("What each figure is, and what it means"):
        said = dict.fromkeys(f"**{panels.escape(line['attack'])}** {panels.escape(line['says'])}" for line in audit)
        st.markdown("\n".join(f"- {sentence}" for sentence in said))


def _telling(lines: Sequence[Private]) -> list[Private]:
    """Return the figures of an attack that are drawn: those that a promise bounds, all of them where none is."""
    known = [line for line in lines if line["value"] is not None]
    return [line for line in known if line["promise"] is not None] or known


def _attack_line(line: Private, several: bool) -> dict[str, str]:
    span = private.span_in_words(line).replace("95 % interval ", "")
    return {
        **({"Run": str(line["run"])} if several else {}),
        "Attack": str(line["attack"]),
        "Site": str(line["site"] or "all"),
        "Figure": private.figure_name(line["metric"]),
        "Reached (95 %)": number(line["value"]) + span,
        "Promised, at most": number(line["promise"]) if line["promise"] is not None else "nothing",
        "Verdict": str(line["verdict"]),
    }


def _attack_chart(lines: Sequence[Private]) -> tuple[Layers | None, str]:
    """Return the figures of one attack as dots with intervals, the promise as a line, and what they say."""
    alone = len({line["metric"] for line in lines}) == 1
    rows = [
        {key: line[key] for key in ("value", "low", "high", "promise", "verdict")}
        | {"name": _named(line, alone), "shown": number(line["value"]) + private.span_in_words(line)}
        for line in lines[: panels.SITES_SHOWN]
    ]
    if not rows:
        return None, ""
    names = list(dict.fromkeys(row["name"] for row in rows))
    there = [verdict for verdict in VERDICT_LOOKS if any(row["verdict"] == verdict for row in rows)]
    legend = alt.Legend(title=None, orient="top", labelLimit=260)
    scale = alt.Scale(domain=there, range=[VERDICT_LOOKS[verdict][0] for verdict in there])
    shapes = alt.Scale(domain=there, range=[VERDICT_LOOKS[verdict][1] for verdict in there])
    colour = alt.Color("verdict:N", scale=scale, legend=legend)
    shape = alt.Shape("verdict:N", scale=shapes, legend=legend)
    title = private.figure_name(lines[0]["metric"]) if alone else "the attack's figure"
    axis = alt.Axis(labelExpr=AXIS_NUMBERS, tickCount=6, grid=False)
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, nice=True, padding=20), axis=axis)
    y = y_names("name", names)
    base = alt.Chart(_inline(values=rows)).properties(height=ROW_PIXELS * len(names) + FRAME_PIXELS)
    spans = base.transform_filter("datum.low != null && datum.high != null").mark_rule(strokeWidth=3, opacity=0.85)
    dots = base.mark_point(filled=True, size=120, opacity=1)
    limits = base.transform_filter("datum.promise != null").mark_tick(
        opacity=1, thickness=4, size=ROW_PIXELS * 0.9, color=SPENT_COLOURS[BUDGET]
    )
    drawn = alt.layer(
        limits.encode(x="promise:Q", y=y),
        spans.encode(x="low:Q", x2="high:Q", y=y, color=colour),
        dots.encode(x=x, y=y, color=colour, shape=shape, tooltip=["name:N", "shown:N", "verdict:N"]),
    )
    return drawn, " ".join(private.audit_in_words(lines))


def _named(line: Private, alone: bool) -> str:
    site = str(line["site"] or "all sites")
    return site if alone else f"{private.figure_name(line['metric'])}, {site}"


def uncharged(privacy: Private) -> None:
    """List what leaves the sites, or steers the run, without being part of the promise."""
    st.markdown("### Not covered by the promise")
    if not privacy["uncharged"]:
        st.caption(
            "The record lists nothing." if privacy["mechanism"] is not None else f"Not known: {privacy['reason']}."
        )
        return
    if privacy["epsilon"] is None:
        st.markdown("Nothing was promised, so none of this is covered:")
    st.markdown("\n".join(f"- {panels.escape(said)}" for said in privacy["uncharged"]))
