"""Page Methods: each method's gain over plain averaging, on the same random splits as the run."""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import run_page
from flfed.records.dashboard.panels import overview
from flfed.records.dashboard.refresh import Opened, read_methods, where
from flfed.records.dashboard.sections import table
from flfed.records.objects import read_all
from flfed.records.reports.recorded_run import Method, method_lines
from flfed.records.sections.answer import is_of_frames, rerun_command
from flfed.words import render


def parts(opened: Opened) -> None:
    """Show the table of methods."""
    if overview.trains_nothing(opened):
        return
    if opened.only:
        st.info(render("pages.methods.hidden"))
        return
    if opened.shown.run.is_of_parties:
        st.info(render("pages.methods.parties"))
        return
    methods = read_all(Method, read_methods(where(), opened.name, opened.mark))
    if not methods:
        if is_of_frames(opened.shown):
            st.info(render("pages.methods.frames"))
        else:
            st.info(render("pages.methods.alone", command=rerun_command(opened.shown)))
        return
    # Without plain averaging the run's own method is the reference.
    if not methods[0].plain:
        st.info(render("pages.methods.reference", method=methods[0].method))
    table(method_lines(methods, opened.runs[0].primary))
    st.caption(render("pages.methods.read"))


if __name__ == "__main__":
    run_page.show("Methods", parts)
