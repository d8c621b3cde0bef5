"""Chart in Vega-Lite, and the picture of it that needs no script."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from flfed.records.charts.colours import FIGURE, GRID, INK, NEUTRAL, WORDS
from flfed.records.text import BREAKS

if TYPE_CHECKING:
    import altair as alt

    Altair = alt.Chart | alt.LayerChart | alt.FacetChart

Spec = dict[str, Any]
"""A chart in Vega-Lite's own words, without its data."""
Line = Mapping[str, Any]
"""One line of a table: figures as numbers, None where there is none."""
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
PRINTED: Spec = {
    "aria": False,
    "font": FONT,
    "axis": {"labelColor": WORDS[0], "titleColor": WORDS[0], "titleFontWeight": "normal", "gridColor": GRID,
             "domainColor": NEUTRAL, "tickColor": NEUTRAL, "labelFontSize": 11, "titleFontSize": 11},
    "legend": {"labelColor": WORDS[0]},
    "view": {"stroke": None},
}  # fmt: skip
"""Vega's configuration of a picture on white paper."""
SCAFFOLD = re.compile(
    r' (?:xmlns(?::xlink)?|version|aria-\w+|role|pointer-events|font-family)="[^"]*"| opacity="1"'
    r'| stroke-dasharray="1,0"|<path class="foreground" d="" display="none"/>'
)
"""What Vega writes into a picture that nobody sees."""
UNUSED = re.compile(r'<path class="(?:foreground|background)"[^>]*d="(?:|M0,0h0v0h0Z)"[^>]*/>')
DECIMALS = re.compile(r"(\.\d\d)\d+")
"""Beyond hundredths of a pixel nobody sees a place."""
TAG = re.compile("<[^>]*>")


@dataclass(frozen=True)
class Chart:
    """Chart whose rows may change while its form stands.

    While only `rows` change, the browser moves the lines and leaves the chart standing.

    It is written in Vega-Lite's own words, not by Altair, whose checks took two thirds of the time
    of each look at a running run (measured: 75 of 120 ms).

    Attributes
    ----------
    rows : DataFrame
    spec : dict
    is_by_row : bool
        Whether its height follows from its rows, such as one a model.
    """

    rows: pd.DataFrame
    spec: Spec
    is_by_row: bool = False

    def to_dict(self) -> Spec:
        """Return the chart with its rows in it."""
        values = json.loads(self.rows.to_json(orient="records", double_precision=10))
        return {"data": {"values": values}, **self.spec}

    def altair(self) -> alt.LayerChart:
        """Return the chart as one of Altair's, as a notebook shows it."""
        import altair

        return altair.LayerChart.from_dict(self.to_dict())


def picture(drawn: Chart | Altair, width: int, height: int | None = None) -> str:
    """Return a chart as SVG that loads nothing and knows no script.

    Parameters
    ----------
    drawn : Chart or Altair chart
    width : int, pixels
    height : int, pixels, optional
        Of the plot itself; the chart's own by default.
    """
    # It carries its own Vega, of which a command that draws nothing needs no part.
    import vl_convert

    spec = plain_texts(drawn.to_dict())
    spec |= {"width": width, "background": None, "config": PRINTED}
    if height is not None:
        spec["height"] = height
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    svg = UNUSED.sub("", SCAFFOLD.sub("", svg)).replace(FIGURE, INK)
    svg = svg.replace("<svg ", f'<svg font-family="{FONT}" ', 1)
    return TAG.sub(lambda tag: DECIMALS.sub(r"\1", tag[0]), svg)


def plain_texts(value: Any) -> Any:
    r"""Return a specification whose texts have no signs that turn the direction of writing.

    Examples
    --------
    >>> plain_texts({"site": ["a\u202eb", 1.5]})
    {'site': ['a b', 1.5]}
    """
    if isinstance(value, str):
        return BREAKS.sub(" ", value)
    if isinstance(value, dict):
        return {key: plain_texts(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_texts(one) for one in value]
    return value
