"""Panel of a study's statistic: its figures, and the rows of an analysis that the reader picks."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from flfed.records.dashboard import sections
from flfed.records.objects import read
from flfed.records.reports.faults import missing_in_words
from flfed.records.sections import data
from flfed.records.sections.statistic import estimates, survival
from flfed.records.statistics import Report
from flfed.records.statistics.analysis import Analysis, RowsAnalysed, tables_of
from flfed.records.statistics.recorded_statistic import ANALYSIS, statistic_in_words, statistic_tables
from flfed.records.text import escape


def statistic(report: Report) -> None:
    """Show the figures of a study without a model, and which sites are missing from them."""
    figures = report["statistics"]
    first, *others = statistic_in_words(figures, report["repeats"])
    st.markdown(f"**{escape(first)}**")
    if missing := missing_in_words(report):
        st.warning(sections.bullets(map(escape, missing)))
    tables = statistic_tables(figures)
    if figures["name"] == ANALYSIS:
        tables = tables_of(_chosen_rows(read(Analysis, figures)))
    sections.show(survival(figures))
    for one in tables:
        if one.title:
            st.markdown(f"### {escape(one.title)}")
        sections.table(one.lines)
    # The title of its chart is enough.
    sections.show(estimates(figures), titled=False)
    st.markdown(sections.bullets(map(escape, others)))


def _chosen_rows(analysis: Analysis) -> RowsAnalysed:
    """Return the rows of an analysis that the reader picks, and show their histogram above the choices."""
    first = st.container()
    sites = analysis.by_site
    of: RowsAnalysed = analysis
    whose = ""
    with st.container(horizontal=True):
        if sites:
            whose = _pick("Rows of", [f"all {analysis.sites} sites", *sites], "analysis-rows")
            of = sites.get(whose, analysis)
        numbers = list(of.numbers)
        if not numbers:
            return of
        name = _pick("Number", numbers, "analysis-number")
        group = next(iter(of.parts))
        if len(of.parts) > 1:
            group = _pick("Group", list(of.parts), "analysis-group")
    with first:
        sections.show(data.histogram(of, name, group, whose=whose, counts_each=analysis.counts_each), titled=False)
    return of


def _pick(label: str, options: Sequence[str], key: str) -> str:
    return str(st.selectbox(label, options, key=key, width=220))
