"""Charts of a document as SVG.

Colours are those of the app; dashes and words stand beside them, so that a print in grey can be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flfed.records.dashboard.components.colours import INK, NEUTRAL
from flfed.records.document.markup import Markup, element, joined
from flfed.records.statistics.verdict import number

WIDTH, HEIGHT = 336, 284
"""Of a chart in pixels: two stand side by side on A4, and one fits a phone."""
LEFT, RIGHT = 48, 12
TOP, BOTTOM = 8, 44
SAMPLE = 26
"""Length of a legend's line."""
LABEL = 30
"""Least distance of two words below an axis."""
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Drawn:
    """One line of a chart.

    Attributes
    ----------
    name : str
    points : sequence of (x, y)
    colour : str
    dash : sequence of int
    width : float
    spans : sequence of (x, low, high)
        Intervals, drawn upright.
    band : sequence of (x, low, high)
        Drawn as an area behind the line.
    dots : bool
    told : bool
        Whether the legend names it.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dash: Sequence[int] = ()
    width: float = 1.8
    spans: Sequence[tuple[float, float, float]] = ()
    band: Sequence[tuple[float, float, float]] = ()
    dots: bool = False
    told: bool = True


@dataclass(frozen=True)
class Axis:
    """Axis with ticks from its first to its last.

    Attributes
    ----------
    title : str
    ticks : sequence of float
    power : float
        1, or the root by which the axis is stretched towards 0.
    whole : bool
        Whether its figures are whole numbers, as rounds are.
    """

    title: str
    ticks: Sequence[float]
    power: float = 1.0
    whole: bool = False
    end: float | None = None

    def share(self, value: float) -> float:
        """Return where a value lies, from 0 to 1."""
        low, high = self.ticks[0], self.ticks[-1] if self.end is None else self.end
        return float(max((value - low) / (high - low), 0.0) ** (1 / self.power))

    def labels(self) -> list[tuple[float, str]]:
        """Return the place and the text of each tick."""
        step = min(b - a for a, b in zip(self.ticks, self.ticks[1:], strict=False))
        digits = next((n for n in range(8) if abs(round(step, n) - step) < 1e-9 * max(step, 1e-9)), 8)
        if self.power != 1:
            return [(self.share(tick), f"{tick:g}".removeprefix("0") or "0") for tick in self.ticks]
        return [
            (self.share(tick), f"{tick:.0f}" if self.whole else number(tick, digits) if tick else "0")
            for tick in self.ticks
        ]


def chart(title: str, lines: Sequence[Drawn], x: Axis, y: Axis, *, diagonal: bool = False, says: str = "") -> Markup:
    """Return a figure of lines with its title and legend.

    Parameters
    ----------
    title : str
    lines : sequence of Drawn
    x, y : Axis
    diagonal : bool
        Whether the line of equal figures is drawn.
    says : str
        What a reader who cannot see it is told.
    """

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return _across(x.share(point[0])), _up(y.share(point[1]))

    parts = [_frame(x, y)]
    if diagonal:
        ends = (at((x.ticks[0], y.ticks[0])), at((x.end or x.ticks[-1], y.end or y.ticks[-1])))
        parts.append(_path(ends, stroke=NEUTRAL, stroke_dasharray="5 4", stroke_width=1))
    for line in lines:
        parts += _line(line, at)
    drawn = element(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=says or title, class_="chart"
    )
    told = [line for line in lines if line.told]
    legend = element("ul", joined(map(_sample, told)), class_="legend") if told else Markup()
    return element("figure", element("figcaption", title), drawn, legend)


def cut_below(points: Sequence[tuple[float, float]], bottom: float) -> list[list[tuple[float, float]]]:
    """Return the pieces of a line that do not lie below an axis' lower end.

    Examples
    --------
    >>> cut_below([(0.0, 1.0), (1.0, -1.0), (2.0, 0.0)], -0.5)
    [[(0.0, 1.0), (0.75, -0.5)], [(1.5, -0.5), (2.0, 0.0)]]
    """
    pieces: list[list[tuple[float, float]]] = [[*points[:1]] if points and points[0][1] >= bottom else []]
    for (x, y), (to_x, to_y) in zip(points, points[1:], strict=False):
        if (y < bottom) != (to_y < bottom):
            pieces[-1].append((x + (to_x - x) * (bottom - y) / (to_y - y), bottom))
            pieces += [[]] if to_y < bottom else []
        pieces[-1] += [(to_x, to_y)] if to_y >= bottom else []
    return [piece for piece in pieces if piece]


def _across(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)


def _up(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 2)


def _path(points: Sequence[tuple[float, float]], **looks: object) -> Markup:
    d = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
    return element("path", d=d, **({"fill": "none"} | looks))


def _frame(x: Axis, y: Axis) -> Markup:
    """Return both axes with their ticks and titles."""
    parts, last = [], -math.inf
    for share, text in x.labels():
        place = _across(share)
        parts.append(element("line", x1=place, x2=place, y1=_up(1), y2=_up(0), class_="grid"))
        # On a stretched axis words would run into each other.
        if place - last >= LABEL:
            parts.append(element("text", text, x=place, y=_up(0) + 15, text_anchor="middle"))
            last = place
    for share, text in y.labels():
        place = _up(share)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=place, y2=place, class_="grid"))
        parts.append(element("text", text, x=LEFT - 6, y=place + 4, text_anchor="end"))
    middle = (_up(0) + _up(1)) / 2
    parts.append(element("text", x.title, x=_across(0.5), y=HEIGHT - 8, text_anchor="middle"))
    turned = f"rotate(-90 12 {middle:g})"
    parts.append(element("text", y.title, x=12, y=middle, text_anchor="middle", transform=turned))
    return joined(parts)


def _line(line: Drawn, at: Callable[[tuple[float, float]], tuple[float, float]]) -> list[Markup]:
    looks = {"stroke": line.colour, "stroke_width": line.width}
    parts = []
    if len(line.band) > 1:
        upper = [at((x, high)) for x, _, high in line.band]
        lower = [at((x, low)) for x, low, _ in reversed(line.band)]
        parts.append(_path([*upper, *lower], fill=line.colour, fill_opacity=0.15))
    parts += [_path([at((x, low)), at((x, high))], **(looks | {"stroke_width": 1.5})) for x, low, high in line.spans]
    points = [at(point) for point in line.points]
    if len(points) > 1:
        parts.append(_path(points, stroke_dasharray=_dashes(line), stroke_linejoin="round", **looks))
    if line.dots or len(points) == 1:
        parts += [element("circle", cx=x, cy=y, r=3.2, fill=line.colour) for x, y in points]
    return parts


def _dashes(line: Drawn) -> str | None:
    return " ".join(map(str, line.dash)) if line.dash and line.dash[-1] else None


def _sample(line: Drawn) -> Markup:
    """Return a line's entry in the legend."""
    looks = {"stroke": line.colour, "stroke_width": max(line.width, 2), "stroke_dasharray": _dashes(line)}
    mark = element("line", x1=0, x2=SAMPLE, y1=6, y2=6, **looks)
    if len(line.points) == 1:
        mark = element("circle", cx=SAMPLE / 2, cy=6, r=3.2, fill=line.colour)
    return element("li", element("svg", mark, width=SAMPLE, height=12, aria_hidden="true"), " ", line.name)


@dataclass(frozen=True)
class Interval:
    """One row of a forest plot.

    Attributes
    ----------
    value, low, high : float or None
    colour : str
    mean : bool
        Whether it is drawn as a diamond.
    """

    value: float | None
    low: float | None
    high: float | None
    colour: str = INK
    mean: bool = False


def forest_mark(row: Interval, ticks: Sequence[float], says: str) -> Markup:
    """Return a row of a forest plot, as wide as its cell.

    Places are shares of the width, so that marks and words keep their size on any screen.
    """

    def at(value: float) -> str:
        return f"{100 * (value - ticks[0]) / (ticks[-1] - ticks[0]):.3f}%"

    parts = [element("line", x1=at(0), x2=at(0), y1="0%", y2="100%", class_="zero")]
    if row.low is not None and row.high is not None:
        looks = {"stroke": row.colour, "stroke_width": 3}
        parts.append(element("line", x1=at(row.low), x2=at(row.high), y1="50%", y2="50%", **looks))
    if row.value is not None:
        dot = element("circle", cx=at(row.value), cy="50%", r=5, fill=row.colour)
        parts.append(_diamond(at(row.value), row.colour) if row.mean else dot)
    return element("svg", *parts, role="img", aria_label=says, class_="forest")


def _diamond(place: str, colour: str) -> Markup:
    """Return the diamond of a mean."""
    # A square on its corner, in a picture of its own: a path knows no shares of a width.
    corner = element("path", d="M0 -8L8 0L0 8L-8 0Z", fill=colour)
    return element("svg", corner, x=place, y="50%", overflow="visible", width=1, height=1)


def forest_axis(ticks: Sequence[float], title: str) -> Markup:
    """Return the axis of a forest plot, as wide as its cell."""
    step = ticks[1] - ticks[0]
    digits = next((n for n in range(8) if abs(round(step, n) - step) < 1e-9 * step), 8)
    places = [f"{100 * (tick - ticks[0]) / (ticks[-1] - ticks[0]):.3f}%" for tick in ticks]
    parts = [element("line", x1="0%", x2="100%", y1=1, y2=1, class_="axis")]
    for place, tick in zip(places, ticks, strict=True):
        text = number(tick, digits, signed=True) if tick else "0"
        parts.append(element("line", x1=place, x2=place, y1=1, y2=6, class_="axis"))
        parts.append(element("text", text, x=place, y=19, text_anchor="middle"))
    parts.append(element("text", title, x="50%", y=35, text_anchor="middle"))
    return element("svg", *parts, class_="forest-axis", role="presentation")
