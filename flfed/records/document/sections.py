"""Sections of a report in a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flfed.records.charts.chart import Chart, picture
from flfed.records.document.markup import Markup, bullets, element, joined, paragraphs, section, table
from flfed.records.section import Drawing, Section, Table, divide, names_of
from flfed.records.statistics.verdict import ABSENT
from flfed.words import render

if TYPE_CHECKING:
    from flfed.records.charts.chart import Altair


WIDEST = 6
"""Columns beside each other on A4; a wider table continues below."""
MOST_LINES = 120
"""Lines of a table, two pages of A4; the app has all."""


def written(of: Section | Markup | None, *more: object) -> Markup:
    """Return a section with further content as HTML, "" of None; HTML is returned unchanged."""
    if isinstance(of, Section):
        return section(of.title, *parts(of), *more)
    return of or Markup()


def part(of: Section | None) -> list[Markup]:
    """Return a section as a part of another one, under a smaller title; [] of None."""
    return [] if of is None else [element("h3", of.title), *parts(of)]


def together(*of: Section | None) -> list[Markup]:
    """Return sections as parts of another one; those without content in one line."""
    there, absent = divide(of)
    elements = [element for one in there for element in part(one)]
    if absent:
        line = f"{render('pages.absent.title')}: {' '.join(one.reason for one in absent)}"
        elements.append(paragraphs([line], class_="note"))
    return elements


def parts(of: Section) -> list[Markup]:
    """Return the content of a section."""
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
    """Return a table under its title: a long one cut off, a wide one split into several."""
    if of.of_each_site and len(of.lines) > MOST_LINES:
        long = render("document.document.long", title=of.title, lines=len(of.lines))
        return paragraphs([long], class_="note")
    elements: list[Markup] = [element("h3", of.title)] if of.title else []
    if of.lead:
        elements.append(paragraphs([of.lead], class_="lead"))
    shown = of.lines[:MOST_LINES]
    for lines in narrow(shown, of.stays) if of.stays else [shown]:
        is_wide = bool(lines) and len(lines[0]) > WIDEST
        elements.append(table(lines, class_="dense" if is_wide or of.stays else ""))
    if len(of.lines) > MOST_LINES:
        rest = render("document.document.more", lines=len(of.lines) - MOST_LINES)
        elements.append(paragraphs([rest], class_="note"))
    return joined(elements)


def narrow(lines: Sequence[Mapping[str, Any]], stays: int = 1) -> list[list[dict[str, Any]]]:
    """Return the lines of a table, split into tables of at most `WIDEST` columns.

    Each has the first `stays` columns.

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
"""Width of a chart in pixels: two stand side by side on A4, and one fits a phone."""
HEIGHT = 230
"""Height of its plot."""
WIDE = 960
"""Width of a chart as wide as the page, which scales it down."""


def chart(title: str, drawn: Chart | Altair | None, *, says: str = "") -> Markup:
    """Return a chart under its title, "" of None.

    Parameters
    ----------
    title : str
    drawn : chart or None
    says : str
        Description for screen readers; the title by default.
    """
    if drawn is None:
        return Markup()
    is_curve = isinstance(drawn, Chart) and not drawn.is_by_row
    image = _image(picture(drawn, WIDTH, HEIGHT if is_curve else None), says or title, "chart")
    return element("figure", element("figcaption", title), image)


def drawing(of: Drawing) -> Markup:
    """Return a chart of a section; a wide one twice, for a page and for a phone, of which the style shows one."""
    drawn = of.draw()
    if drawn is None or not of.wide:
        return chart(of.title, drawn, says=of.says)
    wide = _image(picture(drawn, WIDE), of.says, "chart wide")
    small = _image(picture(drawn, WIDTH), of.says, "chart narrow")
    return element("figure", element("figcaption", of.title), wide, small, class_="wide")


def _image(svg: str, says: str, class_: str) -> Markup:
    named = element("svg", role="img", aria_label=says, class_=class_).removesuffix("></svg>")
    return Markup(svg.replace("<svg", named, 1).replace('class="marks" ', "", 1))
