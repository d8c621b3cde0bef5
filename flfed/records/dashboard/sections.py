"""Sections of a report on a page of the app, with their charts and tables.

Every chart has a title, a description, a table and a file. A long table has a scroll bar.

Style of every page beside its charts: compact, still, and readable in both themes and on a phone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import streamlit as st

from flfed.records.charts import colours
from flfed.records.charts.chart import Chart, Line
from flfed.records.section import Drawing, Section, Table, divide, names_of
from flfed.records.statistics.verdict import Difference, decimals_for, number
from flfed.records.text import escape, heading, with_code
from flfed.spreadsheet import csv_text, plain_cell
from flfed.words import render

P = ParamSpec("P")
T = TypeVar("T")
UNBROKEN = "\u00a0"
"""A space at which no line breaks."""
EMPHASIS = re.compile(r"\\\*(\w[\w ]*)\\\*")
PADDING = dict.fromkeys(("left", "top", "right", "bottom"), 8)
"""Pixels around each chart: a browser's letters are larger than Vega assumes."""

DESCRIBED_AS_A_WHOLE: dict[str, Any] = {"mark": {"aria": False}}
"""Vega's configuration of a chart with one description, in place of a name for each of its hundred marks."""


def contained(part: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Show a part of a page in a container of its own, so that it moves no other part when it is shown again."""
    with st.container():
        return part(*args, **options)


def figure(
    column: Any,
    title: str,
    drawn: Chart | None,
    lines: Sequence[Line],
    *,
    key: str,
    says: str = "",
    least: float = 0.0,
    is_tabled: bool = True,
) -> None:
    """Show a chart under its title, its table and CSV file folded below it, or that it has no figures.

    Parameters
    ----------
    column : st or a container
    title : str
    drawn : Chart or None
        None where there are no figures.
    lines : sequence of mappings
        The figures of the chart, with units in the names.
    key : str
        Of the chart on its page; also the name of the file.
    says : str
        Description for screen readers; the title by default.
    least : float
        Gain that is worthwhile, where lines have gains.
    is_tabled : bool
        Whether its table is below it; charts of the same figures share one.
    """
    with column.container():
        st.markdown(f"**{title}**")
        if drawn is None or not lines:
            st.caption("No figures yet.")
            return
        spec = {"padding": PADDING, "config": DESCRIBED_AS_A_WHOLE, **drawn.spec}
        st.vega_lite_chart(drawn.rows, spec, width="stretch", alt=says or title, key=f"{key}-chart")
        folded = st.expander("Table", key=f"{key}-table", on_change="rerun") if is_tabled else None
        # The browser gets a folded table and its file only once it is unfolded.
        if folded is not None and folded.open:
            with folded:
                names = names_of(lines)
                table([_cells({name: line.get(name) for name in names}, least) for line in lines])
                download(lines, key=key)


def download(lines: Sequence[Line], *, key: str) -> None:
    """Show a button for a table's CSV file.

    The file is made at once: one made at the click is lost where the page is refreshed in between.
    """
    name = f"{key}.csv"
    st.download_button("Download as CSV", csv_of(lines), name, "text/csv", on_click="ignore", key=name)


def _cells(line: Line, least: float) -> dict[str, str]:
    """Return a line's texts; a gain and its interval have a sign and equally many decimals."""
    of_gain = [name for name in line if name.startswith("Gain")]
    digits = decimals_for(Difference(*(line[name] for name in of_gain)), least) if of_gain else None
    cells = {}
    for name, value in line.items():
        cells[name] = "" if value is None else str(value)
        if isinstance(value, float):
            signed = name in of_gain
            cells[name] = number(value, digits if signed else None, signed=signed)
    return cells


def bullets(lines: Iterable[str]) -> str:
    """Return lines of Markdown as a list."""
    return "\n".join(f"- {line}" for line in lines)


def csv_of(lines: Sequence[Line]) -> str:
    """Return lines as CSV, with all their names in the heading."""
    # A line may lack a name that others have, and has an empty cell there.
    names = names_of(lines)
    return csv_text(names, ([line.get(name) for name in names] for line in lines))


def scrolled(lines: Sequence[Line], *, key: str | None = None, height: int | Literal["auto"] = "auto") -> None:
    """Show a long table with its own scroll bar; copies and files of it have no formula.

    Parameters
    ----------
    lines : sequence of mappings
        Headings and cells, which are not read as Markdown here.
    key : str, optional
        Of the table on its page.
    height : int or "auto"
        In pixels.
    """
    # The toolbar offers the table as a file, which a spreadsheet may open.
    plain = [{plain_cell(name): plain_cell(cell) for name, cell in line.items()} for line in lines]
    st.dataframe(plain, hide_index=True, key=key, height=height)


SITES_SHOWN = 24


def table(lines: Sequence[Line]) -> None:
    """Show a table with its text unchanged, with a scroll bar for more than `SITES_SHOWN` lines."""
    if len(lines) <= SITES_SHOWN:
        # A copied table may come into a spreadsheet.
        shown = [{key: str(plain_cell("" if cell is None else cell)) for key, cell in line.items()} for line in lines]
        st.table([{escape(plain_cell(key)): escape(cell) for key, cell in line.items()} for line in shown])
    else:
        scrolled(lines)


COLUMNS_ABREAST = 8
"""Columns of a table that fit a screen of 1,280 pixels."""
BESIDE = 2
"""Charts side by side."""


def show(section: Section | None, *, which: str = "", titled: bool = True) -> None:
    """Show a section's sentences, charts, tables and notes in a place of its own; nothing of None.

    Parameters
    ----------
    section : Section or None
    which : str
        The repeats whose figures it has, where there are several.
    titled : bool
        Whether it has its title.
    """
    with st.container():
        if section is None:
            return
        if titled:
            st.markdown(heading(section.title, which))
        for line in section.lead:
            st.caption(with_code(line))
        _show_charts(section.charts)
        for one in section.tables:
            if not one.is_drawn:
                show_table(one)
        if section.says:
            st.markdown(bullets(map(with_code, section.says)))
        for line in section.note:
            # Words between stars are emphasised, as in a document.
            st.caption(EMPHASIS.sub(r"*\1*", with_code(line)))


def show_all(*of: Section | None) -> None:
    """Show sections, and those without content in one line at the end, with the reasons folded in it."""
    there, absent = divide(of)
    for one in there:
        show(one)
    with st.container():
        if absent:
            names = "; ".join(one.title for one in absent)
            with st.expander(
                escape(f"{render('pages.absent.title')}: {names}"), expanded=not there and len(absent) > 1
            ):
                st.markdown(bullets(with_code(one.reason) for one in absent))


def show_table(of: Table) -> None:
    """Show a table with its title and its file."""
    place = st.expander(escape(of.title)) if of.is_folded else st.container()
    with place:
        if of.title and not of.is_folded:
            st.markdown(f"**{escape(of.title)}**")
        if of.lead:
            st.markdown(escape(of.lead))
        if of.is_whole:
            _show_whole(of.lines)
        else:
            table(of.lines)
        if of.key:
            download(of.rows or of.lines, key=of.key)


def _show_whole(lines: Sequence[Line]) -> None:
    """Show a table with all of its lines and unbroken figures."""
    shown = []
    for line in lines:
        cells = {escape(name): escape(str(cell)) for name, cell in line.items()}
        first, *others = cells
        shown.append({first: cells[first]} | {name: cells[name].replace(" ", UNBROKEN) for name in others})
    st.table(shown)
    # With many sites the columns continue to the right, so that each figure stays in one line.
    if shown and len(shown[0]) > COLUMNS_ABREAST:
        st.caption(render("pages.data.wide"))


def _show_charts(charts: Sequence[Drawing]) -> None:
    for start in range(0, len(charts), BESIDE):
        columns = st.columns(BESIDE) if len(charts) > 1 else [st]
        for column, of in zip(columns, charts[start : start + BESIDE], strict=False):
            figure(column, escape(of.title), of.draw(), of.lines, key=of.key, says=of.says, least=of.least)


COLOURS = {
    "pale": f"light-dark({colours.WORDS[0]}, {colours.WORDS[1]})",
    "page": "light-dark(#ffffff, #14191f)",
    "shade": "light-dark(#14191f40, #ffffff40)",
    "ring": f"light-dark({colours.BLUE}, {colours.DARK[colours.BLUE]})",
    "pays": f"light-dark({colours.GREEN}, {colours.DARK[colours.GREEN]})",
    "worse": f"light-dark({colours.ORANGE}, {colours.DARK[colours.ORANGE]})",
    "neutral": f"light-dark({colours.NEUTRAL}, {colours.DARK[colours.NEUTRAL]})",
    "edge": "light-dark(#76818c, #7d8894)",
    "line": "light-dark(#d5dae0, #333d47)",
}
"""Colours of `style.css`."""


def close_up() -> None:
    """Give a page its style, which begins it just below the navigation."""
    st.html(f"<style>{_style()}</style>")


@cache
def _style() -> str:
    variables = "".join(f"--flfed-{name}: {colour};" for name, colour in COLOURS.items())
    rules = Path(__file__).with_name("style.css").read_text("utf-8")
    return f":root {{{variables}}} {rules} {colours.style()}"
