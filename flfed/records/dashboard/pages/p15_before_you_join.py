"""Page Before you join: the gain that a study could show at a site of so many rows, before anybody trains."""

from __future__ import annotations

from typing import TypeVar

import streamlit as st

from flfed.records.charts.by_site import chart_of_gains
from flfed.records.dashboard import sections
from flfed.records.sections.prospect import LEAST_AUC, MOST_AUC, curve_lines, in_words
from flfed.records.statistics.power import Curve, Design
from flfed.records.text import escape
from flfed.words import render

Number = TypeVar("Number", int, float)


def _read_number(key: str, default: Number, least: Number = 1, most: Number = 50_000) -> Number:
    """Return a number of the page's address, as a link from a run has it; the default where there is none."""
    try:
        number = type(default)(st.query_params.get(key, default))
    except ValueError:
        return default
    return min(max(number, least), most)


def show() -> None:
    """Show the numbers, the answer for a site of that size, and the chart of all sizes."""
    sections.close_up()
    st.title("Before you join")
    st.markdown(escape(render("pages.prospect.lead")))
    left, right = st.columns(2)
    rows = left.number_input(render("pages.prospect.rows"), 10, 50_000, _read_number("rows", 500, 10))
    share = right.slider(render("pages.prospect.share"), 1, 50, _read_number("share", 20, 1, 50), format="%d %%")
    with st.expander(render("pages.prospect.more")):
        assumed = _read_number("auc", 0.75, LEAST_AUC, MOST_AUC)
        auc = st.slider(render("pages.prospect.auc"), LEAST_AUC, MOST_AUC, assumed, step=0.01)
        columns = st.number_input(render("pages.prospect.columns"), 1, 1000, 20)
        sites = st.number_input(render("pages.prospect.sites"), 2, 1000, _read_number("sites", 5, 2, 1000))
        repeats = st.number_input(render("pages.prospect.repeats"), 1, 100, _read_number("repeats", 10, 1, 100))
    design = Design(auc=auc, sites=sites, repeats=repeats)
    curve = Curve.of_columns(columns)
    for line in in_words(rows, share / 100, design, curve):
        st.markdown(f"**{escape(line)}**")
    lines = curve_lines(share / 100, design, curve)
    title = render("pages.prospect.title")
    sections.figure(st, title, chart_of_gains(lines), lines, key="prospect", says=render("pages.prospect.says"))
    st.caption(escape(render("pages.prospect.legend", share=100 * design.test_share)))


if __name__ == "__main__":
    show()
