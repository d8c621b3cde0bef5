"""Sections of a report in a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flfed.records.document import charts
from flfed.records.document.markup import Markup, element, joined, paragraphs, section, table
from flfed.records.section import Section, Table
from flfed.records.statistics.verdict import ABSENT

WIDEST = 6
"""Columns beside each other on A4; a wider table goes on below."""
MOST_LINES = 120
"""Lines of a table, two pages of A4; the app has all."""


def written(of: Section | None, *more: object) -> Markup:
    """Return a section with what else stands in it, nothing of none."""
    if of is None:
        return Markup()
    return section(of.title, *parts(of), *more)


def part(of: Section) -> list[Markup]:
    """Return a section as a part of another one, under a smaller title."""
    return [element("h3", of.title), *parts(of)]


def parts(of: Section) -> list[Markup]:
    """Return what stands in a section."""
    drawn = [charts.drawing(one) for one in of.charts]
    pictures = element("div", *drawn, class_="charts") if any(drawn) else Markup()
    return [
        paragraphs(of.lead, class_="lead"),
        pictures,
        joined(tables_of(one) for one in of.tables),
        paragraphs([" ".join(of.note)] if of.note else [], class_="note"),
    ]


def tables_of(of: Table) -> Markup:
    """Return a table under its title; of a long one the first lines, of a wide one a few columns a table."""
    if of.of_each_site and len(of.lines) > MOST_LINES:
        return paragraphs([f"{of.title}: {len(of.lines):,} lines, told in the app."], class_="note")
    found: list[Markup] = [element("h3", of.title)] if of.title else []
    shown = of.lines[:MOST_LINES]
    for lines in narrow(shown) if of.of_groups else [shown]:
        wide = len(lines[0]) > WIDEST if lines else False
        found.append(table(lines, class_="dense" if wide or of.of_groups else ""))
    if len(of.lines) > MOST_LINES:
        rest = f"And {len(of.lines) - MOST_LINES:,} more lines, told in the app and by `flfed run show RUN --all`."
        found.append(paragraphs([rest], class_="note"))
    return joined(found)


def narrow(lines: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the lines of a table as those of tables of at most `WIDEST` columns.

    The first column stands in each, the last one at the end.

    Examples
    --------
    >>> [list(lines[0]) for lines in narrow([dict.fromkeys("abcdefghi", 1)])]
    [['a', 'b', 'c', 'd', 'e'], ['a', 'f', 'g', 'h', 'i']]
    """
    names = list(dict.fromkeys(name for line in lines for name in line))
    if len(names) <= WIDEST:
        return [[dict(line) for line in lines]]
    first, *others = names
    step = WIDEST - 2
    found = []
    for start in range(0, len(others), step):
        shown = [first, *others[start : start + step]]
        found.append([{name: line.get(name, ABSENT) for name in shown} for line in lines])
    return found
