"""Page Methods: each method's gain over plain averaging, on the same random splits as the run."""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import run_page
from flfed.records.dashboard.panels import compare, overview
from flfed.records.dashboard.refresh import Opened, read_methods, where
from flfed.records.statistics.own_models import PARTIES
from flfed.words import render


def parts(opened: Opened) -> None:
    """Show the table of methods."""
    if overview.trains_nothing(opened):
        return
    if opened.only:
        st.info(render("pages.methods.hidden"))
        return
    if PARTIES in opened.report:
        st.info(render("pages.methods.parties"))
        return
    compare.methods(read_methods(where(), opened.name, opened.mark), opened.runs[0].primary)


if __name__ == "__main__":
    run_page.show("Methods", parts)
