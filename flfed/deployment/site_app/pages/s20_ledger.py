"""Page of the ledger: every message that left the site, and whether the record is intact."""

from __future__ import annotations

import streamlit as st

from flfed.deployment.site_app import page_frame, reads
from flfed.deployment.site_app.ledger_reader import MOST_LINES, LedgerSummary
from flfed.deployment.site_app.page_frame import Opened, added_up, by_day, kind_of_line
from flfed.records.charts.chart import Line
from flfed.records.dashboard.sections import bullets, contained, download, figure, scrolled, table
from flfed.records.text import escape, size_in_words
from flfed.words import counted, render

ALL = "all"


def parts(opened: Opened) -> None:
    """Show all parts for the current ledger."""
    summary = reads.ledger(opened.name, opened.mark)
    contained(chain, opened.name, summary)
    if not summary.lines and not summary.problems:
        st.info(render("site_app.ledger.empty"))
        return
    # A changed ledger has no sums, as they would mislead.
    if not summary.sums:
        return
    study, day = contained(chosen, summary)
    contained(sums, summary, study, day)
    contained(lines, summary, study, day)


def chain(name: str, summary: LedgerSummary) -> None:
    """Show whether the ledger is intact, and how to mend it."""
    broken(name, summary)
    if summary.problems or summary.blocked or not summary.lines:
        return
    days = {"since": summary.since[:10], "until": summary.until[:10]}
    count = counted(summary.lines, "line")
    st.success(render("site_app.ledger.intact", lines=count, bytes=size_in_words(summary.bytes), **days))
    if summary.restarted:
        st.warning(escape(render("site_app.ledger.restarted", restarted=summary.restarted)))


def broken(name: str, summary: LedgerSummary) -> None:
    """Show why nothing leaves, or how the ledger was changed."""
    if summary.blocked:
        st.error(escape(render("site_app.ledger.blocked", reason=summary.blocked)))
    if summary.problems:
        problems = [f"{escape(problem)}." for problem in summary.problems]
        changed = render("site_app.ledger.changed")
        st.error(f"{changed}\n{bullets(problems)}\n\n{render('site_app.ledger.verify', name=name)}")


def chosen(summary: LedgerSummary) -> tuple[str, str]:
    """Return the study and the day that the reader picked, "" for any."""
    studies = sorted({study for _, study, _ in summary.sums if study})
    days = sorted({day for day, _, _ in summary.sums}, reverse=True)
    with st.container(horizontal=True):
        study = st.selectbox("Study", [ALL, *studies], key="ledger-study", width=320)
        day = st.selectbox("Day (UTC)", [ALL, *days], key="ledger-day", width=200)
    any_of = {ALL: ""}
    return any_of.get(study, study), any_of.get(day, day)


def sums(summary: LedgerSummary, study: str, day: str) -> None:
    """Show the bytes of the reader's choice, by day and kind, and by study and kind."""
    totals = {
        key: total for key, total in summary.sums.items()
        if study in ("", key[1]) and day in ("", key[0])
    }  # fmt: skip
    if not totals:
        st.info(render("site_app.ledger.none"))
        return
    drawn, cells, says = by_day(totals)
    figure(st, render("site_app.ledger.chart"), drawn, cells, key="left-by-day", says=says)
    by_study = added_up(((of_study, kind), total) for (_, of_study, kind), total in totals.items())
    table([
        {"Study": of_study or "none", "What": kind_of_line(kind), "Lines": total.lines, "Bytes": f"{total.bytes:,}"}
        for (of_study, kind), total in by_study
    ])  # fmt: skip
    st.caption(render("site_app.ledger.read"))


def lines(summary: LedgerSummary, study: str, day: str) -> None:
    """Show the last lines one by one, with a file of them."""
    table_rows: list[Line] = []
    for line in list(summary.last.get((day, study), ()))[::-1]:
        cells = {"Line": line.n, "When (UTC)": line.at[:19].replace("T", " "), "What": kind_of_line(line.kind)}
        place = {"Study": line.study, "Run": line.run, "Round": str(line.round or "")}
        table_rows.append({**cells, **place, "Bytes": line.bytes, "Reason": line.reason})
    title = "The only line"
    if len(table_rows) > 1:
        title = render("site_app.ledger.lines", lines=len(table_rows))
    st.markdown(f"### {title}")
    scrolled(table_rows, key="ledger-lines", height=min(36 * (len(table_rows) + 1), 400))
    download(table_rows, key="ledger-lines-file")
    # Older lines are only in the file.
    if len(table_rows) == MOST_LINES:
        st.caption(render("site_app.ledger.whole"))


if __name__ == "__main__":
    page_frame.show(render("site_app.ledger.title"), parts)
