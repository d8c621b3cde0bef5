"""Page Overview of one run.

Its verdict comes first, then the figures behind it and what went wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from flfed.records.dashboard import page_files, run_page, sections
from flfed.records.dashboard.panels import overview, rounds, sites
from flfed.records.dashboard.refresh import Opened
from flfed.records.dashboard.sections import bullets, table
from flfed.records.objects import read
from flfed.records.reports.faults import missing_in_words
from flfed.records.reports.report import purpose_of
from flfed.records.reports.round_totals import bytes_in_words
from flfed.records.section import Table
from flfed.records.sections import data
from flfed.records.sections.gains import at_the_ends
from flfed.records.statistics import Report
from flfed.records.statistics.analysis import Analysis, RowsAnalysed, tables_of
from flfed.records.statistics.noised_scores import is_uncompared, noised_scores, wording
from flfed.records.statistics.odd_sites import odd_sites_in_words
from flfed.records.statistics.recorded_statistic import ANALYSIS, statistic_in_words, statistic_tables
from flfed.records.text import escape

FURTHER = {
    "sites": "Should a site join?",
    "curves": "How the scores lie",
    "rounds": "Each round",
    "data": "The data",
    "privacy": "Its privacy",
}
SCORED_ALONE = FURTHER | {"sites": "Each site"}
"""The same where no comparison leaves a site."""
WITHOUT_MODEL = {"sites": "Who takes part", "privacy": "Its privacy"}
"""Pages that say something of a study which trains nothing."""


def show() -> None:
    """Show the run of the address or the newest.

    The page keeps up with it while it runs.
    """
    run_page.show("", parts)


def parts(opened: Opened) -> None:
    """Show each panel in a place of its own.

    So one that comes later moves no other into a new element.
    """
    with st.container():
        purpose = purpose_of(opened.shown.study_text)
        if purpose:
            st.markdown(f"{escape(purpose)}.")
    # Figures over all sites would tell one site's people of the others.
    if opened.only:
        _own(opened, opened.only)
    else:
        _all_sites(opened)
    with st.container():
        overview.set_aside(opened)
    with st.container():
        _further(opened)
    with st.container():
        _report_file(opened)
    overview.words(opened)
    _facts(opened)


def _own(opened: Opened, site: str) -> None:
    """Show one site's people whether joining paid."""
    found = opened.found
    first = st.container()
    with st.container():
        metric = sites.choose_metric(found)
    with first:
        if "statistics" in found:
            _statistic(found)
        elif metric is None:
            sites.why_not_told(opened, site)
        else:
            sites.answer(found, site, metric)
            overview.warn(odd_sites_in_words(found))


def _all_sites(opened: Opened) -> None:
    """Show whether joining pays on average, each site's gain, and what to know of it."""
    found = opened.found
    first = st.container()  # what the figure chosen below says comes before the choice
    with st.container():
        metric = sites.choose_metric(found)
    with first:
        if "statistics" in found:
            _statistic(found)
        elif metric is None:
            overview.not_compared(opened)
        else:
            warnings = overview.warnings_of(opened.shown)
            overview.answer(found, metric, len(warnings))
            sites.who_gains(found, metric)
            overview.warn(warnings)
            overview.cards(found, metric, opened.planned)
    with st.container():
        # A table of noised figures is as wide as the page.
        noised = metric is not None and noised_scores(found) is not None
        left, right = (st.container(), st.container()) if noised else st.columns(2)
        with left:
            if metric is not None:
                sites.figures_of_all(found, metric)
        with right:
            # A statistic is told in words above, and has no rounds to tell of.
            if "statistics" not in found:
                overview.in_words(found, metric, opened.planned)
    with st.container():
        if metric is not None:
            _links(found, metric, opened.name)
    with st.container():
        if opened.shown.curve_names or (found["status"] == "running" and not wording(found).no_rounds):
            rounds.together(opened)


def _further(opened: Opened) -> None:
    """Show links to other pages of the run."""
    pages = WITHOUT_MODEL
    if opened.trains:
        pages = SCORED_ALONE if is_uncompared(opened.found) else FURTHER
    st.markdown("### More of this run")
    with st.container(horizontal=True):
        for page, label in pages.items():
            run_page.link(page, label, opened.name)


def _links(found: Report, metric: str, name: str) -> None:
    """Show a link to each site, of many to those at the ends of the forest plot."""
    st.markdown("### One site at a time")
    with st.container(horizontal=True, gap="xsmall"):
        for site in at_the_ends(found, metric, sites.FEW_SITES):
            st.page_link(page_files()["sites"], label=escape(site), query_params={"run": name, "site": site})


def _statistic(found: Report) -> None:
    """Show the figures of a study without a model, the first one with who took no part in it."""
    told = found["statistics"]
    first, *others = statistic_in_words(told, found["repeats"])
    st.markdown(f"**{escape(first)}**")
    overview.warn(missing_in_words(found))
    tables = statistic_tables(told)
    if told["name"] == ANALYSIS:
        tables = _of_chosen_rows(read(Analysis, told))
    for one in tables:
        if one.title:
            st.markdown(f"### {escape(one.title)}")
        table(one.lines)
    st.markdown(bullets(map(escape, others)))


def _of_chosen_rows(found: Analysis) -> list[Table]:
    """Show the histogram of an analysis, and return its tables, over all sites or at the one that is chosen."""
    sites = found.by_site
    of: RowsAnalysed = found
    whose = ""
    with st.container(horizontal=True):
        if sites:
            whose = _pick("Rows of", [f"all {found.sites} sites", *sites], "analysis-rows")
            of = sites.get(whose, found)
        numbers = list(of.numbers)
        if not numbers:
            return tables_of(of)
        name = _pick("Number", numbers, "analysis-number")
        group = next(iter(of.parts))
        if len(of.parts) > 1:
            group = _pick("Group", list(of.parts), "analysis-group")
    sections.show(data.histogram(of, name, group, whose=whose, counts_each=found.counts_each), titled=False)
    return tables_of(of)


def _pick(label: str, options: Sequence[str], key: str) -> str:
    return str(st.selectbox(label, options, key=key, width=220))


def _report_file(opened: Opened) -> None:
    """Show a button for the run's report as a file, folded away.

    The people of one site get that of their site. It is made once it is unfolded, and by the roles of that moment.
    """
    folded = st.expander("A report to print or hand on", key="report", on_change="rerun")
    if not folded.open:
        return
    with folded:
        whose = f", with the figures of {opened.only} only" if opened.only else ""
        st.caption(escape(f"One file that opens without a network, and prints on A4{whose}."))
        text = opened.document()
        file = f"{opened.name}.html"
        st.download_button("Download the report", text, file, "text/html", on_click="ignore", key="report.html")


def _facts(opened: Opened) -> None:
    """Show sites, bytes and the study, folded away; to the coordinator, also what program and machine made the run."""
    made_by = opened.viewer.role == "coordinator"
    title = "Sites, versions, hashes and the study" if made_by else "Sites and the study"
    folded = st.expander(title, key="facts", on_change="rerun")
    # Nothing is read from the store for a part that nobody unfolds.
    if not folded.open:
        return
    with folded:
        table(overview.facts_of_sites(opened.shown))
        if sent := opened.bytes_sent():
            ways = (f"{count / 1e6:.2f} MB {way.replace('-', ' ')}" for way, count in sorted(sent.items()))
            each = bytes_in_words(opened.found["round-bytes"])
            st.markdown(" ".join(filter(None, [f"Crossed in all: {', '.join(ways)}.", each])))
        if made_by:
            run = opened.runs[0]
            facts = {"engine": run.engine, "path": run.path, "seed": run.seed, "arrays-sha256": run.arrays_sha256}
            st.json({**facts, "versions": dict(run.versions), "hashes": dict(run.hashes)}, expanded=2)
        if opened.only:
            st.caption("The study, without its comments, names of other sites and the figures that it expects:")
        st.code(opened.shown.study_text, language="toml")


if __name__ == "__main__":
    show()
