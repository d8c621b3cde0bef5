"""Pictures of a document: the charts of the app, drawn once and needing no script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flfed.records.charts.chart import Chart, picture
from flfed.records.document.markup import Markup, element, joined
from flfed.records.section import Drawing

if TYPE_CHECKING:
    from flfed.records.charts.chart import Altair

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
    wide, narrow = picture(drawn, WIDE), picture(drawn, WIDTH)
    images = joined([_image(wide, of.says, "chart wide"), _image(narrow, of.says, "chart narrow")])
    return element("figure", element("figcaption", of.title), images, class_="wide")


def _image(svg: str, says: str, class_: str) -> Markup:
    named = element("svg", role="img", aria_label=says, class_=class_).removesuffix("></svg>")
    return Markup(svg.replace("<svg", named, 1).replace('class="marks" ', "", 1))
