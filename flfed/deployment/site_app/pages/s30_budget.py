"""Page of the privacy budget: spending of all studies, the rest, and releases that no budget counts."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from flfed.deployment.operator.budget import COMPOSED, PEOPLE, describe_account, shown_or, times_in_words
from flfed.deployment.site_app import page_frame, reads
from flfed.deployment.site_app.page_frame import Opened, kind_of_line
from flfed.records.charts.chart import Line
from flfed.records.dashboard.sections import contained, download, table
from flfed.records.reports.audit_headlines import share_in_words
from flfed.records.reports.privacy import describe_encoder_condition
from flfed.records.statistics.verdict import format_as_written, number
from flfed.records.text import escape
from flfed.words import render

Facts = dict[str, Any]  # from `flfed site budget --json`
CARD_PIXELS = 172
"""Width of a card: two side by side on a screen of 390 pixels."""


def parts(opened: Opened) -> None:
    """Show the account of each dataset in the current ledger."""
    accounts = reads.budget(opened.name, opened.mark)
    contained(above, accounts)
    for one in accounts["datasets"]:
        contained(dataset, one, accounts)
    with st.container():
        st.caption(escape(render("site_app.budget.composed")))
        st.caption(escape(render("site_app.budget.covered")))
        st.caption(escape(render("site_app.budget.unprotected")))


def above(facts: Facts) -> None:
    """Show whether the budget is enforced, and a gap in the account."""
    if facts["restarted"]:
        st.warning(render("site_app.budget.restarted", day=facts["restarted"][:10]))
    if facts["enforced"]:
        st.markdown(render("site_app.budget.enforced"))
    elif any(one["budget"] is not None for one in facts["datasets"]):
        st.markdown(render("site_app.budget.open"))
    else:
        st.info(render("site_app.budget.unset"))


def dataset(one: Facts, facts: Facts) -> None:
    """Show the account of one dataset: spending by run, and releases without a charge."""
    name = one["dataset"] or render("site_app.budget.unnamed")
    st.markdown(f"### {escape(name)}")
    if one["dataset"]:
        if one["budget"] is not None:
            cards(one, facts["delta"])
        st.markdown(escape(describe_account(one, facts["delta"], enforced=facts["enforced"])))
    # An ε that excludes the encoder has a note on it.
    if one["excludes-encoder"]:
        units = sorted({run["unit"] for run in one["runs"] if run["excludes-encoder"]})
        st.caption(escape(describe_encoder_condition(" or ".join(units))))
    runs(one)
    uncharged(one)


def card(label: str, value: str, below: str) -> None:
    """Show one figure as a card, a short label above it and its meaning below."""
    with st.container(border=True, width=CARD_PIXELS, height="stretch", gap="xxsmall"):
        st.metric(escape(label), value)
        st.caption(escape(below))


def cards(one: Facts, delta: float) -> None:
    """Show the spent budget as figures and a bar."""
    spent = one["spent"]
    whole = one["budget"]
    rounds = one["rounds-remaining"]
    with st.container(horizontal=True, gap="xsmall"):
        card("ε spent", shown_or("no bound", spent), f"at δ {delta:g}")
        card("Budget", format_as_written(whole), "all studies together")
        card("ε left", format_as_written(math.floor(one["remaining"] * 1000) / 1000), "rounded down")
        if rounds is not None:
            card(f"{(one['last'] or 'round').capitalize()}s like the last", f"{rounds:,}", "about so many fit")
    # A sum without bound fills the bar.
    share = 1.0 if spent is None else min(spent / whole, 1.0)
    st.progress(share, render("site_app.budget.spent", share=share_in_words(share)))


def runs(one: Facts) -> None:
    """Show each run's spending."""
    if not one["runs"]:
        if one["dataset"]:
            st.caption(render("site_app.budget.unspent"))
        return
    st.markdown(f"**{COMPOSED}**")
    # These columns matter only where datasets share one account, or a run was charged to only one side.
    several = len(one["account"]) > 1
    apart = any("side" in run for run in one["runs"])
    lines: list[Line] = []
    for run in one["runs"]:
        line: Facts = {"Study": run["study"], "Run": run["run"]}
        if several:
            line["Dataset"] = run["dataset"]
        if apart:
            line["People"] = PEOPLE[run.get("side", "both")]
        line |= {
            "Protects": f"each {run['unit']}", "Since": run["first"][:10],
            "Requests": times_in_words(run), "Steps": run["steps"], "Noise": run["noise"], "Sampling": run["sampling"],
            "ε": shown_or("no bound", run["epsilon"]),
            "ε of its run": shown_or("no bound", run["run-epsilon"]),
        }  # fmt: skip
        lines.append(line)
    table([{**line, "Noise": number(line["Noise"], 3), "Sampling": number(line["Sampling"], 3)} for line in lines])
    download(lines, key=f"spent-{one['dataset'] or 'unnamed'}")


def uncharged(one: Facts) -> None:
    """Show the messages without noise."""
    if not one["uncharged"]:
        return
    st.markdown(f"**{render('site_app.budget.uncharged')}**")
    table([
        {"What": kind_of_line(left["kind"]), "Messages": f"{left['lines']:,}", "Bytes": f"{left['bytes']:,}"}
        for left in one["uncharged"]
    ])  # fmt: skip


if __name__ == "__main__":
    page_frame.show(render("site_app.budget.title"), parts)
