"""Page of the ledger: every message that left the site, and whether the record is intact."""

from __future__ import annotations

import streamlit as st

from flfed.deployment.site_app import page_frame, reads
from flfed.deployment.site_app.ledger_reader import MOST_LINES, Left
from flfed.deployment.site_app.page_frame import Opened, added_up, by_day, kind_of_line
from flfed.records.charts.chart import Line
from flfed.records.dashboard.sections import bullets, contained, download, figure, scrolled, table
from flfed.records.text import escape, size_in_words
from flfed.words import counted, render

ALL = "all"
PROBLEMS = 20


def parts(opened: Opened) -> None:
    """Show all parts for the current ledger."""
    outbound = reads.left(opened.name, opened.mark)
    contained(chain, opened.name, outbound)
    if not outbound.lines and not outbound.problems:
        st.info(render("site_app.ledger.empty"))
        return
    # A changed ledger has no sums, as they would mislead.
    if not outbound.sums:
        return
    study, day = contained(chosen, outbound)
    contained(sums, outbound, study, day)
    contained(lines, outbound, study, day)


def chain(name: str, outbound: Left) -> None:
    """Show whether the ledger is intact, and how to mend it."""
    broken(name, outbound)
    if outbound.problems or not outbound.lines:
        return
    days = {"since": outbound.since[:10], "until": outbound.until[:10]}
    count = counted(outbound.lines, "line")
    st.success(render("site_app.ledger.intact", lines=count, bytes=size_in_words(outbound.bytes), **days))
    # Only a signature shows others how long the ledger was.
    if outbound.receipts:
        receipts = counted(outbound.receipts, "receipt")
        signed = [render("site_app.ledger.signed", receipts=receipts, line=outbound.signed_lines)]
        if outbound.lines > outbound.signed_lines:
            later = counted(outbound.lines - outbound.signed_lines, "later line")
            signed.append(render("site_app.ledger.unsigned", lines=later))
        st.caption(" ".join(signed))
    else:
        st.caption(render("site_app.ledger.never"))
    if outbound.repairs:
        st.caption(render("site_app.ledger.repaired", lines=counted(outbound.repairs, "torn line")))
    if outbound.restarted:
        st.warning(escape(render("site_app.ledger.restarted", restarted=outbound.restarted)))


def broken(name: str, outbound: Left) -> None:
    """Show why nothing leaves, or how the ledger was changed."""
    if outbound.lost:
        lost = escape(render("site_app.ledger.lost", reason=outbound.lost))
        st.error(f"{lost} `flfed site ledger {name} --restart WHY`")
    if outbound.ahead:
        st.error(escape(render("site_app.ledger.ahead", reason=outbound.ahead)))
    if outbound.problems:
        problems = [f"{escape(problem)}." for problem in outbound.problems[:PROBLEMS]]
        more = len(outbound.problems) - PROBLEMS
        if more > 0:
            problems.append(f"and {more} more.")
        changed = render("site_app.ledger.changed")
        st.error(f"{changed}\n{bullets(problems)}\n\n{render('site_app.ledger.verify', name=name)}")
    if outbound.torn:
        st.warning(render("site_app.ledger.torn", name=name))


def chosen(outbound: Left) -> tuple[str, str]:
    """Return the study and the day that the reader picked, "" for any."""
    studies = sorted({study for _, study, _ in outbound.sums if study})
    days = sorted({day for day, _, _ in outbound.sums}, reverse=True)
    with st.container(horizontal=True):
        study = st.selectbox("Study", [ALL, *studies], key="ledger-study", width=320)
        day = st.selectbox("Day (UTC)", [ALL, *days], key="ledger-day", width=200)
    any_of = {ALL: ""}
    return any_of.get(study, study), any_of.get(day, day)


def sums(outbound: Left, study: str, day: str) -> None:
    """Show the bytes of the reader's choice, by day and kind, and by study and kind."""
    totals = {
        key: total for key, total in outbound.sums.items()
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


def lines(outbound: Left, study: str, day: str) -> None:
    """Show the last lines one by one, with a file of them."""
    table_rows: list[Line] = []
    for line in list(outbound.last.get((day, study), ()))[::-1]:
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
