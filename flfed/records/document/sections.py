"""Sections of a report in a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flfed.records.charts.chart import Chart, picture
from flfed.records.document.markup import Markup, bullets, element, joined, paragraphs, section, table
from flfed.records.section import Drawing, Section, Table, names_of
from flfed.records.statistics.verdict import ABSENT

if TYPE_CHECKING:
    from flfed.records.charts.chart import Altair


WIDEST = 6
"""Columns beside each other on A4; a wider table goes on below."""
MOST_LINES = 120
"""Lines of a table, two pages of A4; the app has all."""


def written(of: Section | Markup | None, *more: object) -> Markup:
    """Return a section with what else stands in it, nothing of none; one that is written already stays as it is."""
    if isinstance(of, Section):
        return section(of.title, *parts(of), *more)
    return of or Markup()


def part(of: Section | None) -> list[Markup]:
    """Return a section as a part of another one, under a smaller title; nothing of none."""
    return [] if of is None else [element("h3", of.title), *parts(of)]


def parts(of: Section) -> list[Markup]:
    """Return what stands in a section."""
    drawn = [drawing(one) for one in of.charts]
    pictures = element("div", *drawn, class_="charts") if any(drawn) else Markup()
    return [
        paragraphs(of.lead, class_="lead"),
        pictures,
        joined(tables_of(one) for one in of.tables),
        bullets(of.says),
        paragraphs([" ".join(of.note)] if of.note else [], class_="note"),
    ]


def tables_of(of: Table) -> Markup:
    """Return a table under its title; of a long one the first lines, of a wide one a few columns a table."""
    if of.of_each_site and len(of.lines) > MOST_LINES:
        return paragraphs([f"{of.title}: {len(of.lines):,} lines, told in the app."], class_="note")
    elements: list[Markup] = [element("h3", of.title)] if of.title else []
    if of.lead:
        elements.append(paragraphs([of.lead], class_="lead"))
    shown = of.lines[:MOST_LINES]
    for lines in narrow(shown, of.stays) if of.stays else [shown]:
        is_wide = bool(lines) and len(lines[0]) > WIDEST
        elements.append(table(lines, class_="dense" if is_wide or of.stays else ""))
    if len(of.lines) > MOST_LINES:
        rest = f"And {len(of.lines) - MOST_LINES:,} more lines, told in the app and by `flfed run show RUN --all`."
        elements.append(paragraphs([rest], class_="note"))
    return joined(elements)


def narrow(lines: Sequence[Mapping[str, Any]], stays: int = 1) -> list[list[dict[str, Any]]]:
    """Return the lines of a table as those of tables of at most `WIDEST` columns.

    The first `stays` columns stand in each, the last one at the end.

    Examples
    --------
    >>> [list(lines[0]) for lines in narrow([dict.fromkeys("abcdefghi", 1)])]
    [['a', 'b', 'c', 'd', 'e'], ['a', 'f', 'g', 'h', 'i']]
    """
    names = names_of(lines)
    if len(names) <= WIDEST:
        return [[dict(line) for line in lines]]
    first, others = names[:stays], names[stays:]
    step = WIDEST - 1 - stays
    tables = []
    for start in range(0, len(others), step):
        shown = [*first, *others[start : start + step]]
        tables.append([{name: line.get(name, ABSENT) for name in shown} for line in lines])
    return tables


WIDTH = 336
"""Of a chart in pixels: two stand side by side on A4, and one fits a phone."""
HEIGHT = 230
"""Of its plot."""
WIDE = 800
"""Of a chart as wide as the page."""


def chart(title: str, drawn: Chart | Altair | None, *, says: str = "") -> Markup:
    """Return a chart under its title, nothing of none.

    Parameters
    ----------
    title : str
    drawn : chart or None
    says : str
        What a reader who cannot see it is told; the title unless given.
    """
    if drawn is None:
        return Markup()
    is_curve = isinstance(drawn, Chart) and not drawn.is_by_row
    image = _image(picture(drawn, WIDTH, HEIGHT if is_curve else None), says or title, "chart")
    return element("figure", element("figcaption", title), image)


def drawing(of: Drawing) -> Markup:
    """Return a chart of a section, nothing of none; a wide one also as it is on a phone, of which style shows one."""
    drawn = of.draw()
    if drawn is None or not of.wide:
        return chart(of.title, drawn, says=of.says)
    wide = _image(picture(drawn, WIDE), of.says, "chart wide")
    small = _image(picture(drawn, WIDTH), of.says, "chart narrow")
    return element("figure", element("figcaption", of.title), wide, small, class_="wide")


def _image(svg: str, says: str, class_: str) -> Markup:
    named = element("svg", role="img", aria_label=says, class_=class_).removesuffix("></svg>")
    return Markup(svg.replace("<svg", named, 1).replace('class="marks" ', "", 1))
