"""Page of the privacy budget: spending of all studies, the rest, and releases that no budget counts."""

from __future__ import annotations

import math
from typing import Any

import streamlit as st

from flfed.deployment.operator.budget import describe_account, shown_or
from flfed.deployment.site_app import page_frame, reads
from flfed.deployment.site_app.page_frame import Opened, kind_of_line
from flfed.records.charts.chart import Line
from flfed.records.dashboard.sections import contained, download, table
from flfed.records.reports.audit_headlines import share_in_words
from flfed.records.reports.privacy import describe_encoder_condition
from flfed.records.statistics.verdict import format_as_written
from flfed.records.text import escape
from flfed.words import render

Facts = dict[str, Any]  # from `flfed site budget --json`
CARD_PIXELS = 172
"""Width of a card: two side by side on a screen of 390 pixels."""


def parts(opened: Opened) -> None:
    """Show the site's account."""
    facts = reads.budget(opened.name, opened.mark)
    contained(above, facts)
    contained(runs, facts)
    contained(uncharged, facts)
    with st.container():
        st.caption(escape(render("site_app.budget.composed")))
        st.caption(escape(render("site_app.budget.covered")))
        st.caption(escape(render("site_app.budget.unprotected")))


def above(facts: Facts) -> None:
    """Show the spent budget, whether it is enforced, and a gap in the account."""
    if facts["restarted"]:
        st.warning(render("site_app.budget.restarted", day=facts["restarted"][:10]))
    if facts["budget"] is None:
        st.info(render("site_app.budget.unset"))
    else:
        st.markdown(render("site_app.budget.enforced" if facts["enforced"] else "site_app.budget.open"))
        cards(facts)
    st.markdown(escape(describe_account(facts)))
    if any(run["excludes-encoder"] for run in facts["runs"]):
        st.caption(escape(describe_encoder_condition("person")))


def card(label: str, value: str, below: str) -> None:
    """Show one figure as a card, a short label above it and its meaning below."""
    with st.container(border=True, width=CARD_PIXELS, height="stretch", gap="xxsmall"):
        st.metric(escape(label), value)
        st.caption(escape(below))


def cards(facts: Facts) -> None:
    """Show the spent budget as figures and a bar."""
    spent, whole = facts["spent"], facts["budget"]
    with st.container(horizontal=True, gap="xsmall"):
        card("ε spent", shown_or("no bound", spent), f"at δ {facts['delta']:g}")
        card("Budget", format_as_written(whole), "all studies together")
        card("ε left", format_as_written(math.floor(facts["remaining"] * 1000) / 1000), "rounded down")
    # A sum without bound fills the bar.
    share = 1.0 if spent is None else min(spent / whole, 1.0)
    st.progress(share, render("site_app.budget.spent", share=share_in_words(share)))


def runs(facts: Facts) -> None:
    """Show each run's spending."""
    if not facts["runs"]:
        st.caption(render("site_app.budget.unspent"))
        return
    st.markdown(f"**{render('commands.budget.runs')}**")
    lines: list[Line] = [
        {
            "Study": run["study"], "Run": run["run"], "Repeat": run["repeat"], "Dataset": run["dataset"],
            "Protects": f"each {run['unit']}", "Charged": run["at"][:10], "ε": shown_or("no bound", run["epsilon"]),
        }
        for run in facts["runs"]
    ]  # fmt: skip
    table(lines)
    download(lines, key="spent")


def uncharged(facts: Facts) -> None:
    """Show the messages without noise."""
    if not facts["uncharged"]:
        return
    st.markdown(f"**{render('site_app.budget.uncharged')}**")
    table([
        {"What": kind_of_line(left["kind"]), "Messages": f"{left['lines']:,}", "Bytes": f"{left['bytes']:,}"}
        for left in facts["uncharged"]
    ])  # fmt: skip


if __name__ == "__main__":
    page_frame.show(render("site_app.budget.title"), parts)
