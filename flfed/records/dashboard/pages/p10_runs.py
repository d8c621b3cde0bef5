"""Page Runs: all runs, the newest first, with a search."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import streamlit as st

from flfed.errors import FlfedError
from flfed.records.dashboard import access, page_style, refresh, run_page
from flfed.records.dashboard.panels import compare
from flfed.records.dashboard.panels.overview import how_to_go_on
from flfed.records.reports.faults import STATUS_WORDS, SiteAttendance, absence_in_words, missing_of
from flfed.records.section import group
from flfed.records.statistics.intervals import mean_of
from flfed.records.statistics.verdict import metric_name, number
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.text import escape, moment, with_code
from flfed.words import render

WIDTHS = (3, 2, 2, 1.5, 1.5, 2)
TITLES = ("Started (UTC)", "Status", "Rounds", "Repeats", "Shared model")
HEADER, LINE = "runs-titles", "runs-line"  # keys in `style.css`
LISTED = 200  # runs that can be compared
MISSING_SOUGHT = 600  # runs whose missing sites are shown: those of the newest series
SHOWN = 50  # series listed at once; a docstring here would be shown on the page (Streamlit's "magic")


def show() -> None:
    """Show the list of runs: a line for a series of repeats, running ones first, then the newest."""
    page_style.close_up()
    page_style.titles_on_a_phone(LINE, TITLES)
    st.title("Runs")
    if "run" in st.query_params:  # the pages of a run then open this one
        run_page.keep("run", st.query_params["run"])
    only = access.viewer().site
    if only:
        st.caption(escape(render("pages.run.own", site=only)))
    try:
        listing = _read(only)
    except FlfedError as error:
        st.error(with_code(str(error)))
        return
    _list(listing, only)
    if listing.listed:
        _compare(listing.listed, only)
    elif listing.search:
        st.info(escape(render("pages.runs.unmatched", search=repr(listing.search))))
    else:
        st.info(render("pages.runs.none"))


@dataclass(frozen=True)
class _RunListing:
    """Runs of a search by series, the newest first, with each run's figure and missing sites."""

    search: str
    listed: dict[str, list[RunEntry]]
    figures: dict[str, float | None]
    absent: dict[str, SiteAttendance]
    course: refresh.BatchPlan


def _read(only: str | None) -> _RunListing:
    """Show the search field and return the matching runs, from one look at the store."""
    with RunReader.open(only=only) as reader:
        # The search covers the whole store, not only the lines shown.
        search = st.text_input("Search", placeholder="study, run or status", key="search")
        runs = reader.runs(search=search, limit=2000)
        names = [run.run for run in runs]
        listed = group((run.series, run) for run in runs)
        absent = missing_of(reader, names[:MISSING_SOUGHT])
        return _RunListing(search, listed, reader.headlines(names), absent, refresh.course_of_list(reader))


def _list(listing: _RunListing, only: str | None) -> None:
    """Show a line for each series, running ones first."""
    if listing.listed:
        figure = "Shared model" if only is None else f"Shared model at {only}"
        with st.container(key=HEADER):
            for column, title in zip(st.columns(WIDTHS), ("Study", *TITLES[:-1], figure), strict=True):
                column.markdown(f"**{escape(title)}**")
    # A fragment shows running series, so that the others are not read again.
    going = [series for series, runs in listing.listed.items() if any(run.status == "running" for run in runs)]
    st.fragment(_going, run_every=listing.course[0])(going, listing.course)
    others = [series for series in listing.listed if series not in going]
    for series in others[:SHOWN]:
        _line(listing.listed[series], listing.figures, listing.absent)
    if len(others) > SHOWN:
        st.caption(render("pages.runs.newest", shown=SHOWN, runs=len(others)))


def _compare(listed: dict[str, list[RunEntry]], only: str | None) -> None:
    """Show the runs that the reader picks side by side, at first those of the address (`?compare=A,B`)."""
    if len(listed) < 2:
        return

    def label(series: str) -> str:
        run = listed[series][-1]
        return f"{run.study}, {moment(run.started)} ({series[-4:]})"

    options = list(listed)[:LISTED]
    addressed_names = dict.fromkeys(st.query_params.get("compare", "").split(","))  # a run is not compared with itself
    chosen = st.multiselect(
        "Compare side by side",
        options,
        default=[name for name in addressed_names if name in options][: compare.MOST],
        format_func=label,
        max_selections=compare.MOST,
        key="compare",
        placeholder="Two or more runs",
    )
    if len(chosen) < 2:
        st.query_params.pop("compare", None)
        return
    st.query_params["compare"] = ",".join(chosen)
    try:
        compare.side_by_side(chosen, only)
    except FlfedError as error:
        st.error(with_code(str(error)))


def _going(listed: list[str], course: refresh.BatchPlan) -> None:
    """Show the current state of running series, and reload the page when a run begins or ends."""
    only = access.viewer().site
    with suppress(FlfedError), RunReader.open(only=only) as reader:  # a busy store is read at the next refresh
        # Only a reload moves a series from the running ones to the others.
        if refresh.course_of_list(reader) != course:
            st.rerun()
        for series in listed:
            runs = reader.runs_of(series)
            names = [run.run for run in runs]
            _line(runs[::-1], reader.headlines(names), missing_of(reader, names))


def _line(runs: list[RunEntry], figures: dict[str, float | None], absent: dict[str, SiteAttendance]) -> None:
    """Show one series in the list: a link to its page, its status, missing sites and figure."""
    first = runs[-1]
    with st.container(key=f"{LINE}-{first.series}"):
        columns = st.columns(WIDTHS, vertical_alignment="center")
    with columns[0]:
        run_page.link("overview", f":blue[**{escape(first.study)}**]", first.series)
        st.caption(first.series)
    repeats = f"{len(runs)} of {first.repeats}" if first.repeats > 1 else "1"
    cells = (
        moment(first.started),
        ", ".join(sorted({STATUS_WORDS[run.status] for run in runs})),
        f"{min(run.rounds for run in runs)} of {first.rounds_planned}",
        repeats,
        _figure_in_words(runs, figures),
    )
    for column, cell in zip(columns[1:], cells, strict=True):
        column.text(cell)
    absences = [absent[run.run] for run in runs if run.run in absent]
    # Absences of a site are counted over the repeats.
    gone = Counter(chain.from_iterable(of_run.missing for of_run in absences))
    site_count = max((len(of_run.sites) for of_run in absences), default=0)
    for sentence in absence_in_words(site_count, dict(sorted(gone.items())), len(absences)):
        columns[2].caption(escape(sentence))
    died = [run for run in runs if run.status == "interrupted"]
    # One site's people cannot resume a run.
    if died and access.viewer().site is None:
        columns[2].caption(how_to_go_on(died))


def _figure_in_words(runs: list[RunEntry], figures: dict[str, float | None]) -> str:
    """Return the mean of a series' primary metric, or the reason why there is none."""
    figure = mean_of([figures.get(run.run) for run in runs])
    if figure is not None:
        return f"{metric_name(runs[-1].primary)} {number(figure)}"
    if any(run.run in figures for run in runs):
        return "suppressed or undefined"
    return "not compared yet" if any(run.status == "running" for run in runs) else "not compared"


if __name__ == "__main__":
    show()
