"""Page of the ledger.

It shows everything that left the building, and whether the record of it is whole.
"""

from __future__ import annotations

import streamlit as st

from flfed.deployment.site_app import page_frame, reads
from flfed.deployment.site_app.page_frame import Opened, added_up, by_day, kind_of_line
from flfed.deployment.site_app.reads import MOST_LINES, Left
from flfed.errors import counted
from flfed.records.charts.chart import Line
from flfed.records.dashboard.sections import bullets, download, figure, scrolled, table
from flfed.records.reports.privacy_tables import size_in_words
from flfed.records.text import escape

ALL = "all"
PROBLEMS = 20


def parts(opened: Opened) -> None:
    """Show all parts, as the ledger is now."""
    outbound = reads.left(opened.name, opened.mark)
    with st.container():
        chain(opened.name, outbound)
    if not outbound.lines and not outbound.problems:
        st.info("Nothing has left this site yet. Each message that does gets a line here before it leaves.")
        return
    # Of a ledger that was changed there are no sums, since they would mislead.
    if not outbound.sums:
        return
    with st.container():
        study, day = chosen(outbound)
    with st.container():
        sums(outbound, study, day)
    with st.container():
        lines(outbound, study, day)


def chain(name: str, outbound: Left) -> None:
    """Show whether the ledger is as written.

    Where it is not, the page says what to do.
    """
    broken(name, outbound)
    # Nothing more can be said of a ledger that is changed or empty.
    if outbound.problems or not outbound.lines:
        return
    st.success(
        f"**The chain is intact:** each of {counted(outbound.lines, 'line')} is as it was written, from "
        f"{outbound.since[:10]} to {outbound.until[:10]}; {size_in_words(outbound.bytes)} left in all."
    )
    # Without a signature nobody outside knows how long the ledger was.
    if outbound.receipts:
        signed = f"{counted(outbound.receipts, 'receipt')}, up to line {outbound.signed_lines}"
        if outbound.lines > outbound.signed_lines:
            after = counted(outbound.lines - outbound.signed_lines, "later line")
            signed += f"; {after} would not show as cut off"
        st.caption(f"The coordinator signed {signed}.")
    else:
        st.caption("The coordinator signed none of the lines yet: that the last ones were cut off would not show.")
    if outbound.repairs:
        st.caption(f"{counted(outbound.repairs, 'torn line')} set aside by a recorded repair.")
    if outbound.notes:
        st.caption(
            f"{counted(outbound.notes, 'line')} of an earlier time than the line before: an earlier version wrote "
            "them, by a clock that was set back."
        )
    if outbound.restarted:
        st.warning(
            escape(f"The ledger began anew {outbound.restarted}. What is left of the one before it is set aside.")
        )


def broken(name: str, outbound: Left) -> None:
    """Show why nothing leaves, or what of the ledger is not as it was written."""
    if outbound.lost:
        st.error(
            escape(f"The ledger is lost or was cut: {outbound.lost}. Nothing leaves this site until it is put back "
                   "from a backup, or begun anew with the reason on record: ")
            + f"`flfed site ledger {name} --restart WHY`"
        )  # fmt: skip
    if outbound.ahead:
        st.error(escape(f"Nothing leaves this site: {outbound.ahead}"))
    if outbound.problems:
        listing = bullets(f"{escape(problem)}." for problem in outbound.problems[:PROBLEMS])
        more = len(outbound.problems) - PROBLEMS
        if more > 0:
            listing += f"\n- and {more} more."
        st.error(
            f"**The ledger is not as it was written.** Nothing is added up below, for a sum over a part would "
            f"mislead.\n{listing}\n\nTo see all of it: `flfed site ledger {name} --verify`"
        )
    if outbound.torn:
        st.warning(f"A crash may have cut the last line off. If so: `flfed site ledger {name} --repair WHY`")


def chosen(outbound: Left) -> tuple[str, str]:
    """Return the study and the day picked.

    The reader picked them, and "" stands for any.
    """
    studies = sorted({study for _, study, _ in outbound.sums if study})
    days = sorted({day for day, _, _ in outbound.sums}, reverse=True)
    with st.container(horizontal=True):
        study = st.selectbox("Study", [ALL, *studies], key="ledger-study", width=320)
        day = st.selectbox("Day (UTC)", [ALL, *days], key="ledger-day", width=200)
    any_of = {ALL: ""}
    return any_of.get(study, study), any_of.get(day, day)


def sums(outbound: Left, study: str, day: str) -> None:
    """Show the bytes of what was picked.

    They are by day and kind, and by study and kind.
    """
    totals = {
        key: total for key, total in outbound.sums.items()
        if study in ("", key[1]) and day in ("", key[0])
    }  # fmt: skip
    if not totals:
        st.info("Nothing of this study left on this day.")
        return
    drawn, cells, says = by_day(totals)
    figure(st, "Bytes that left, by day", drawn, cells, key="left-by-day", says=says)
    by_study = added_up(((of_study, kind), total) for (_, of_study, kind), total in totals.items())
    table([
        {"Study": of_study or "none", "What": kind_of_line(kind), "Lines": total.lines, "Bytes": f"{total.bytes:,}"}
        for (of_study, kind), total in by_study
    ])  # fmt: skip
    st.caption(
        "Bytes of the messages' content. What each kind tells about a row stands with each study on the page "
        "Approvals. Lines of 0 bytes tell of something that did not leave, such as privacy that was spent."
    )


def lines(outbound: Left, study: str, day: str) -> None:
    """Show the last lines one by one.

    There is a file to keep.
    """
    there = list(outbound.last.get((day, study), ()))[::-1]
    table_rows: list[Line] = [
        {
            "Line": line.n,
            "When (UTC)": line.at[:19].replace("T", " "),
            "What": kind_of_line(line.kind),
            "Study": line.study,
            "Run": line.run,
            "Round": str(line.round or ""),
            "Bytes": line.bytes,
            "Said instead": line.reason,
        }
        for line in there
    ]
    title = f"### The last {len(table_rows)} lines, latest first" if len(table_rows) > 1 else "### The one line"
    st.markdown(title)
    scrolled(table_rows, key="ledger-lines", height=min(36 * (len(table_rows) + 1), 400))
    download(table_rows, key="ledger-lines-file")
    # Older lines are in the file alone.
    if len(table_rows) == MOST_LINES:
        st.caption("All lines, as they stand: `flfed site ledger NAME --export FILE`")


if __name__ == "__main__":
    page_frame.show("What left the building", parts)
