"""Runs: what was run, newest first, with a search."""

from __future__ import annotations

import streamlit as st

from flfed.errors import FlfedError
from flfed.records.dashboard import page_files
from flfed.records.dashboard.panels import STATUS_WORDS, close_up, escape, moment, no_runs
from flfed.records.entries import RunEntry
from flfed.records.reading import RunReader
from flfed.records.spread import mean_of
from flfed.records.verdicts import metric_name, number

WIDTHS = (3, 2, 2, 1.5, 1.5, 2)
SHOWN = 50  # series listed at once; a docstring here would be shown on the page (Streamlit's "magic")


def show() -> None:
    """Show the list of runs, one line a series of repeats."""
    close_up()
    st.title("Runs")
    try:
        with RunReader.open() as reader:
            search = st.text_input("Search", placeholder="study, run or status", key="search")
            runs = reader.runs(search=search, limit=2000)
            figures = reader.headlines([run.run for run in runs])
    except FlfedError as error:
        st.error(escape(str(error)))
        return
    if not runs:
        if search:
            st.info(escape(f"No run matches {search!r}."))
        else:
            no_runs()
        return
    listed: dict[str, list[RunEntry]] = {}
    for run in runs:
        listed.setdefault(run.series, []).append(run)
    _header()
    for series in list(listed)[:SHOWN]:
        _line(listed[series], figures)
    if len(listed) > SHOWN:
        st.caption(f"The newest {SHOWN} of {len(listed)} are listed; search for older ones.")


def _header() -> None:
    titles = ("Study (click to open)", "Started (UTC)", "Status", "Rounds", "Repeats", "Shared model")
    for column, title in zip(st.columns(WIDTHS), titles, strict=True):
        column.markdown(f"**{title}**")


def _line(runs: list[RunEntry], figures: dict[str, float | None]) -> None:
    """Show one series: a link to its page, how it stands and what it reached."""
    first = runs[-1]
    columns = st.columns(WIDTHS, vertical_alignment="center")
    page = page_files()["overview"]
    label = f":blue[**{escape(first.study)}**]"
    with columns[0]:
        st.page_link(page, label=label, icon=":material/arrow_forward:", query_params={"run": first.series})
        st.caption(first.series)
    columns[1].text(moment(first.started))
    columns[2].text(", ".join(sorted({STATUS_WORDS[run.status] for run in runs})))
    columns[3].text(f"{min(run.rounds for run in runs)} of {first.rounds_planned}")
    columns[4].text(f"{len(runs)} of {first.repeats}" if first.repeats > 1 else "1")
    figure = mean_of([figures.get(run.run) for run in runs])
    columns[5].text("not compared" if figure is None else f"{metric_name(first.primary)} {number(figure)}")


if __name__ == "__main__":
    show()
