"""Page Before you join: the gain that a study could show at a site of so many rows, before anybody trains."""

from __future__ import annotations

import streamlit as st

from flfed.records.charts.by_site import chart_of_gains
from flfed.records.dashboard import sections
from flfed.records.statistics.power import Design, least_gain, least_gain_lines, measured_gains
from flfed.records.statistics.verdict import interval, number
from flfed.records.text import escape
from flfed.study.tables import HOLDOUT_SHARE
from flfed.words import render


def show() -> None:
    """Show the numbers, the answer for a site of that size, and the chart of all sizes."""
    sections.close_up()
    st.title("Before you join")
    st.markdown(escape(render("pages.prospect.lead")))
    left, right = st.columns(2)
    rows = left.number_input(render("pages.prospect.rows"), 10, 50_000, 500)
    share = right.number_input(render("pages.prospect.share"), 1, 50, 20) / 100
    with st.expander(render("pages.prospect.more")):
        auc = st.number_input(render("pages.prospect.auc"), 0.55, 0.95, 0.75, step=0.01)
        sites = st.number_input(render("pages.prospect.sites"), 2, 1000, 5)
        repeats = st.number_input(render("pages.prospect.repeats"), 1, 100, 10)
    design = Design(auc=auc, sites=sites, repeats=repeats)
    least = least_gain(rows, share * rows, design)
    answer = render("pages.prospect.none")
    if least is not None:
        ends = interval(least.low, least.high, 3)
        answer = render("pages.prospect.least", gain=number(least.value, 3), interval=ends)
    st.markdown(f"**{escape(answer)}**")
    lines = least_gain_lines(share, design)
    drawn = chart_of_gains(lines, measured_gains())
    says = render("pages.prospect.says", rows=lines[-1]["Rows"], gain=number(lines[-1]["least gain shown"], 3))
    sections.figure(st, render("pages.prospect.title"), drawn, lines, key="prospect", says=says)
    st.caption(escape(render("pages.prospect.legend", share=100 * HOLDOUT_SHARE)))


if __name__ == "__main__":
    show()
