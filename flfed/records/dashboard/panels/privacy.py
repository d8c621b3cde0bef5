"""Panels of guarantee, budget and bytes on page Privacy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import altair as alt
import streamlit as st

from flfed.errors import counted
from flfed.records.dashboard.components import figure
from flfed.records.dashboard.components.axes import PLOT_HEIGHT, ROW_PIXELS, legend_of, ticks_of
from flfed.records.dashboard.components.charts import ARMS_GAP, ARMS_PIXELS, Layers, figure_x, inline, layered, names_y
from flfed.records.dashboard.components.colours import AMBER, BLUE, FIGURE, GREEN, GREY, ORANGE, PALE_BLUE, PINK
from flfed.records.dashboard.components.tables import SITES_SHOWN, table
from flfed.records.dashboard.components.text import escape, with_code
from flfed.records.reports import privacy as private
from flfed.records.reports.audit_headlines import not_promised, unpromised_in_words
from flfed.records.reports.privacy import Private, epsilon_in_words, power_of_ten
from flfed.records.statistics.verdict import ABSENT, number
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


def limits_of_promise(privacy: Private, audit: Sequence[Private], *, only: str | None = None) -> None:
    """Show what the guarantee leaves out."""
    with st.container(border=True):
        st.markdown("### What is not promised")
        # What an attack has shown to leak is red, what is merely not covered is not.
        colour = "red" if not_promised(audit) else "orange"
        said = unpromised_in_words(len(privacy["uncharged"]), audit, only=only)
        st.markdown("\n".join(f"- :{colour}[**{escape(line)}**]" for line in said))


def mechanisms(privacy: Private, sites: Sequence[SiteEntry], *, only: str | None = None) -> None:
    """Show which mechanisms are in force.

    Those that are not are listed too. `only` is the one site whose people read it.
    """
    st.markdown("## Mechanisms in force")
    there = [site for site in sites if site.status != "refused"]
    table([_noise(privacy), *_of_sites(there, only)])


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
        bound = f"each {privacy['unit']}: {private.bound_in_words(privacy)}"
    return {"Mechanism": "differential privacy", "Is": name, "How": said, "Promises": bound}


def _of_sites(sites: Sequence[SiteEntry], only: str | None) -> list[dict[str, str]]:
    """Return lines on the sites' policies and this version."""
    closed = sum(site.disclosure == "institution" for site in sites)
    shared = {how: sum(site.shared_as == how for site in sites) for how in ("named", "pseudonym", "aggregate-only")}
    ways = ", ".join(f"{how} at {count if only is None else 'your site'}" for how, count in shared.items() if count)
    small = "no small count leaves there, but for what updates tell" if closed else "nothing: exact sums leave"
    at = f"at {closed} of {len(sites)} sites"
    if only is not None:
        at = f"{'on' if closed else 'off'}, at your site"
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
    over = {site: -left for site, line in spent.items() if (left := _left(line)) is not None and left < 0}
    if over:
        named = private.listed(f"{site} by about {epsilon_in_words(most)}" for site, most in over.items())
        st.warning(escape(f"Overdrawn: {named}."))
    # Sites with the least left are the ones that need a look.
    most = sorted(spent, key=lambda site: (-_share(spent[site]), site))[:SITES_SHOWN]
    if len(most) < len(spent):
        st.caption(f"The chart shows the {len(most)} sites that have least left, or no budget, of {len(spent)}.")
    figure.figure(
        st,
        f"ε at δ = {power_of_ten(privacy['delta'])}: less is more private",
        _spent_chart({site: spent[site] for site in most}),
        [_spent_line(site, line, privacy) for site, line in spent.items()],
        key="epsilon-spent",
        says="; ".join(private.spending_in_words(privacy)),
    )
    st.caption(
        "ε of this run counts the steps that were asked of the site, an upper bound: where rounds were done again it "
        "is more than was planned. The sum over all studies is in the site's own ledger, and the site's to tell: "
        "`flfed site budget SITE`. Here this run's ε is added to what the site said was spent before. A site under "
        "disclosure institution answers nothing that would overdraw its budget; an open one writes it down and answers."
    )


def why_nothing_spent(privacy: Private) -> str:
    """Return why no ε is counted and what would be."""
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
    """Return the consumed share of a budget, else infinity."""
    total = private.of_all_studies(line)[0] or line["epsilon"]
    return float("inf") if line["budget"] is None else total / max(line["budget"], 1e-12)


def _left(line: Private) -> float | None:
    """Return about how much ε is left of a budget.

    It is below 0 where the budget is overdrawn, and None where it is not known.
    """
    total = private.of_all_studies(line)[0]
    return None if total is None or line["budget"] is None else line["budget"] - total


def _spent_line(site: str, line: Private, privacy: Private) -> dict[str, Any]:
    """Return one site's line of the table.

    The consumed ε is rounded up, what is left is rounded down.
    """
    before = line["spent-before"]
    budget = line["budget"]
    left = _left(line)
    total = private.of_all_studies(line)[0]
    counted = private.counted(privacy)
    return {
        "Site": site,
        f"{counted.capitalize()} asked": line["steps"],
        f"{counted.capitalize()} planned": privacy["steps"],
        "ε of this run": epsilon_in_words(line["epsilon"]),
        "δ": power_of_ten(line["delta"]),
        "ε in its ledger before": epsilon_in_words(before) if before is not None else "not known",
        "ε of all its studies, about": epsilon_in_words(total) if total is not None else "not known",
        "Budget (ε)": number(budget, 2) if budget is not None else "none",
        "Left of it, about": None if left is None else math.floor(round(left * 100, 6)) / 100,
    }


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


BAR_PIXELS = 18
KIND_LOOKS = {
    "train": ("updates of training", BLUE),
    "query.compare": ("comparison on test rows", PINK),
    "query.summarise": ("sums over rows", AMBER),
    "evaluate": ("figures of a round", PALE_BLUE),
    "query.enrol": ("enrolment", GREY),
    "query.audit": ("figures of an audit", GREEN),
}
"""What people call a kind of message, and its colour."""
OTHER_COLOUR = ORANGE


def left(crossed: Sequence[CrossedEntry], repeats: int = 1) -> None:
    """Show how many bytes left each site by kind."""
    st.markdown("## What left each site")
    out = [entry for entry in crossed if entry.direction == "to-server"]
    if not out:
        st.info("Nothing has left a site yet.")
        return
    kinds = _kinds(out)
    totals: dict[str, int] = {}
    for entry in out:
        totals[entry.site] = totals.get(entry.site, 0) + entry.bytes
    most = sorted(totals, key=lambda site: (-totals[site], site))[:SITES_SHOWN]
    says = "; ".join(f"{site} {size_in_words(totals[site])}" for site in most)
    title = "Bytes that left, by kind of message"
    figure.figure(st, title, _left_chart(out, most, kinds), _left_lines(crossed, kinds), key="bytes", says=says)
    if len(most) < len(totals):
        st.caption(f"The chart shows the {len(most)} sites that sent most, of {len(totals)}.")
    # Repeats send everything again, so that the sum is not that of one run.
    together = f" of all {repeats} repeats together" if repeats > 1 else ""
    st.caption(
        f"Bytes of the messages' content, added up over all rounds{together}. Who may see what of it stands "
        'in docs/security.md ("Who may see what"); the site\'s own ledger has every message.'
    )
    if said := why_so_many(out):
        st.caption(said)


def _kinds(out: Iterable[CrossedEntry]) -> list[str]:
    """Return the kinds of message, known ones first."""
    found = dict.fromkeys(entry.kind for entry in out)
    return [kind for kind in KIND_LOOKS if kind in found] + sorted(kind for kind in found if kind not in KIND_LOOKS)


def why_so_many(out: Sequence[CrossedEntry]) -> str:
    """Return how many of the bytes are updates.

    It says in how many messages of what size. An empty text where nothing was trained.

    Parameters
    ----------
    out : sequence of CrossedEntry
        What left sites.

    Examples
    --------
    >>> sent = [("train", 75_000, 15), ("evaluate", 25_000, 1)]
    >>> why_so_many([CrossedEntry("a", "to-server", *of) for of in sent]).partition(".")[0]
    'About 75 % of the bytes are updates of training, one a round: 15 from a site, of about 5'
    """
    trained = [entry for entry in out if entry.kind == "train"]
    if not trained:
        return ""
    share = sum(entry.bytes for entry in trained) / sum(entry.bytes for entry in out)
    number = _span([entry.messages for entry in trained], str)
    size = _span([round(entry.bytes / entry.messages) for entry in trained], size_in_words)
    return (
        f"About {100 * share:.0f} % of the bytes are {kind_in_words('train')}, one a round: {number} from a site, of "
        f"about {size} each. Such an update holds what training changed in the model, and figures of how the model did "
        "on the site's rows; where the site allows it, counts of predictions, too. Its size follows from the model and "
        "these figures, not from how many rows a site has: more bytes than the site's file do not mean that the file "
        "left, nor few bytes that little can be learnt from them."
    )


def _span(values: Sequence[int], said: Callable[[int], str]) -> str:
    """Return the range of figures, or their one value."""
    ends = dict.fromkeys((said(min(values)), said(max(values))))
    return " to ".join(ends)


def kind_in_words(kind: str) -> str:
    """Return what people call a kind of message.

    Examples
    --------
    >>> kind_in_words("train"), kind_in_words("query.new")
    ('updates of training', 'query.new')
    """
    return KIND_LOOKS[kind][0] if kind in KIND_LOOKS else kind


def size_in_words(count: int) -> str:
    """Return bytes in words with three significant digits.

    Examples
    --------
    >>> size_in_words(0), size_in_words(999), size_in_words(48_000), size_in_words(1_234_567)
    ('0 B', '999 B', '48.0 kB', '1.23 MB')
    """
    size, unit = next(
        ((count / by, name) for by, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= by), (0, "")
    )
    return f"{size:.{2 if size < 10 else 1 if size < 100 else 0}f} {unit}" if unit else f"{count} B"


def _left_lines(crossed: Sequence[CrossedEntry], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Return each site's bytes sent by kind and received."""
    by_place: dict[tuple[str, str], int] = {}
    back: dict[str, int] = {}
    for entry in crossed:
        if entry.direction == "to-server":
            by_place[entry.site, entry.kind] = entry.bytes
        else:
            back[entry.site] = back.get(entry.site, 0) + entry.bytes
    lines = []
    for site in dict.fromkeys(entry.site for entry in crossed):
        sizes = {kind: by_place.get((site, kind), 0) for kind in kinds}
        cells: dict[str, Any] = {f"{kind_in_words(kind).capitalize()}, bytes": size for kind, size in sizes.items()}
        ends: dict[str, Any] = {"Left in all, bytes": sum(sizes.values()), "Came to the site, bytes": back.get(site, 0)}
        lines.append({"Site": site} | cells | ends)
    return lines


def _left_chart(out: Sequence[CrossedEntry], sites: Sequence[str], kinds: Sequence[str]) -> alt.Chart:
    """Return stacked bars of bytes by site and kind."""
    shown = set(sites)
    rows = [
        {"site": e.site, "kind": kind_in_words(e.kind), "order": kinds.index(e.kind), "kB": e.bytes / 1e3}
        | {"shown": size_in_words(e.bytes)}
        for e in out
        if e.site in shown
    ]
    names = [kind_in_words(kind) for kind in kinds]
    colours = [KIND_LOOKS[kind][1] if kind in KIND_LOOKS else OTHER_COLOUR for kind in kinds]
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
