"""Sections of a report in a document.

HTML in which every text is escaped; it loads nothing and has no script.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flfed.records.charts.chart import Chart, picture
from flfed.records.section import Drawing, Section, Table, divide, names_of
from flfed.records.statistics.verdict import ABSENT
from flfed.records.text import BREAKS
from flfed.words import render

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
        long = f"{of.title}: {len(of.lines):,} lines, which the app shows."
        return paragraphs([long], class_="note")
    elements: list[Markup] = [element("h3", of.title)] if of.title else []
    if of.lead:
        elements.append(paragraphs([of.lead], class_="lead"))
    shown = of.lines[:MOST_LINES]
    if of.stays:
        elements += [table(lines, class_="dense") for lines in narrow(shown, of.stays)]
    else:
        is_wide = bool(shown) and len(shown[0]) > WIDEST
        elements.append(table(shown, class_="dense" if is_wide else ""))
    if len(of.lines) > MOST_LINES:
        rest = f"{len(of.lines) - MOST_LINES:,} more lines are in the app and in `flfed run show RUN --all`."
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


def chart(title: str, drawn: Chart | None, *, says: str = "") -> Markup:
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
    image = _image(picture(drawn, WIDTH, None if drawn.is_by_row else HEIGHT), says or title, "chart")
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


EMPHASES = (
    (re.compile(r"`([^`]+)`"), "code"),
    (re.compile(r"\*\*([^*]+)\*\*"), "strong"),
    (re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])"), "em"),
)
"""Marks of our own sentences, with the element that each becomes."""
FIGURE = re.compile(r"[\u2212+±≈(]?\.?\d|n/a$|\u2013$")
"""Beginning of a cell with a figure."""
BRACKET = re.compile(r"\([^()]*\)(?:, \w+)?| ± \S+")
FEW = 8
"""Lines of a table that is kept on one page."""
SHORT = 18
"""A name or a figure of up to this many signs is never broken."""


class Markup(str):
    """HTML that is not escaped again; any other text is escaped."""

    __slots__ = ()


def plain(text: object) -> Markup:
    """Return a text as HTML, in one line, without signs that reverse the direction of writing.

    Examples
    --------
    >>> plain('<script>alert("1 & 2")</script>')
    '&lt;script&gt;alert(&quot;1 &amp; 2&quot;)&lt;/script&gt;'
    """
    return text if isinstance(text, Markup) else Markup(html.escape(BREAKS.sub(" ", str(text))))


def verbatim(text: str) -> Markup:
    r"""Return a text of several lines as HTML, its lines kept.

    Examples
    --------
    >>> verbatim("a = 1\n[b]  # <c>")
    'a = 1\n[b]  # &lt;c&gt;'
    """
    return Markup(
        "\n".join(html.escape(BREAKS.sub(lambda match: " " * len(match[0]), line)) for line in text.split("\n"))
    )


def element(name: str, *content: object, **attributes: object) -> Markup:
    """Return an element with its content.

    Parameters
    ----------
    name : str
    *content : Markup or any
        All but `Markup` is escaped.
    **attributes
        `class_` is written "class", other underscores as hyphens; an attribute that is None is omitted.

    Examples
    --------
    >>> element("p", "a < b", class_="note"), element("path", d="M0 0", stroke_width=1.5)
    ('<p class="note">a &lt; b</p>', '<path d="M0 0" stroke-width="1.5"></path>')
    """
    properties = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    written = "".join(f' {key}="{plain(value)}"' for key, value in properties.items())
    return Markup(f"<{name}{written}>{''.join(map(plain, content))}</{name}>")


def joined(parts: Iterable[object]) -> Markup:
    """Return the concatenation of HTML and texts."""
    return Markup("".join(map(plain, parts)))


def in_words(text: str) -> Markup:
    """Return a sentence as HTML, with its `code`, **strong** and *emphasis*.

    Examples
    --------
    >>> in_words("**Now** `flfed run show` of <b>")
    '<strong>Now</strong> <code>flfed run show</code> of &lt;b&gt;'
    """
    markup = str(plain(text))
    for pattern, name in EMPHASES:
        markup = pattern.sub(rf"<{name}>\1</{name}>", markup)
    return Markup(markup)


def paragraphs(lines: Iterable[str], *, class_: str | None = None) -> Markup:
    """Return sentences as paragraphs."""
    return joined(element("p", in_words(line), class_=class_) for line in lines)


def bullets(lines: Iterable[str], *, class_: str | None = None) -> Markup:
    """Return sentences as a list, "" of none."""
    items = joined(element("li", in_words(line)) for line in lines)
    return element("ul", items, class_=class_) if items else items


def section(title: str, *content: object) -> Markup:
    """Return a section of the document under its title."""
    return element("section", element("h2", title), *content)


def unbroken(text: str) -> str:
    """Return a figure whose interval stays on one line.

    Examples
    --------
    >>> unbroken("+0.110 (+0.020 to +0.190), shared").replace(chr(160), "_")
    '+0.110 (+0.020_to_+0.190),_shared'
    """
    return BRACKET.sub(lambda match: match[0].replace(" ", "\u00a0"), text)


def table(lines: Sequence[Mapping[str, Any]], *, class_: str = "") -> Markup:
    """Return a table, "" without lines.

    Each printed page repeats its heading, and on a narrow screen each line is a block of its own.

    Parameters
    ----------
    lines : sequence of mappings
        Headings and cells; a cell may be `Markup`, and None is empty.
    class_ : str
    """
    if not lines:
        return Markup()
    names = names_of(lines)
    head = element("tr", joined(element("th", name, scope="col") for name in names))
    rows = []
    for line in lines:
        rows.append(element("tr", *(_cell(name, line.get(name), first=name == names[0]) for name in names)))
    # A short table is not split between two pages.
    classes = f"{class_} whole".strip() if len(lines) <= FEW else class_
    return element("table", element("thead", head), element("tbody", *rows), class_=classes or None)


def _cell(name: str, value: object, *, first: bool) -> Markup:
    if isinstance(value, Markup):
        return element("td", value, data_label=name, class_="drawn")
    text = "" if value is None else str(value)
    figure = FIGURE.match(text) is not None
    # Only a long name or figure is broken.
    classes = ["figure"] if figure else []
    if len(text) <= SHORT and (figure or first):
        classes.append("short")
    shown = unbroken(text) if figure else text
    return element("td", shown, data_label=name, class_=" ".join(classes) or None)
