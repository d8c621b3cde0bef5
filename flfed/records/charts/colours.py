"""Colours of the charts on a light page, and those with which the browser replaces them on a dark one.

In either theme every mark has a contrast of 3 or more to its background and every word one of 4.5. The colours of the
first six sites differ as much as possible for readers with any kind of colour blindness.
"""

from __future__ import annotations

from collections.abc import Iterable

from flfed.records.statistics.verdict import DO_NOT_USE, INCONCLUSIVE, NO_CLEAR_GAIN, PAYS

BLUE = "#0072B2"
PALE_BLUE = "#3C97CF"
ORANGE = "#D55E00"
AMBER = "#B87600"
GREEN = "#009E73"
GREY = "#6e6e6e"
PINK = "#B85C90"
VIOLET = "#8a6bbe"
NEUTRAL = "#808080"
"""Colour of lines and marks that stand for no site, model or verdict."""
FAINT = "#949494"
"""Colour of the sites beside the chosen one."""
INK, FIGURE = "#1b2733", "#7a7a7a"
"""Colours of words in a chart, and in its picture: on a mark's own colour, and beside it."""
RISING = "#56B4E9"
FALLING = "#E69F00"
GRID = "#e3e7eb"
NO_FIGURE = "#d9d9d9"
"""Colours of cells: of the largest figures above and below 0 (smaller ones have a paler shade), and of dashes."""
SITE_COLOURS = (BLUE, "#e37407", "#809677", "#940ef4", "#d21a2d", "#745f73", GREEN, "#C3699B")
DARK = {
    BLUE: "#56b3e8",
    PALE_BLUE: "#2E8BCB",
    ORANGE: "#FF8A3D",
    AMBER: "#E3A82B",
    GREEN: "#1fc997",
    GREY: "#a3a3a3",
    PINK: "#E5A0C6",
    VIOLET: "#B39DDB",
    NEUTRAL: "#949494",
    FAINT: "#6f757c",
    INK: "#e8edf2",
    RISING: "#1F6A9C",
    FALLING: "#8A5A00",
    NO_FIGURE: "#3a434d",
    **dict(zip(SITE_COLOURS[1:6], ("#ff9d39", "#b7d9a1", "#c14cff", "#de5748", "#988893"), strict=True)),
    SITE_COLOURS[7]: "#e5aecf",
}
"""The colour on a dark page by that on a light one."""
WORDS = ("#3d4955", "#c0c9d2")
"""Colours of axes and legends, light and dark."""

ARM_COLOURS = {
    "global": BLUE,
    "personalised": PALE_BLUE,
    "local-only": GREY,
    "local-only-same": GREY,
    "site-mean": GREY,
    "last-value": GREY,
    "named-column": GREY,
    "warm-start": VIOLET,
    "warm-start-tuned": GREY,
    "sites-mean": PALE_BLUE,
    "personalised-sites-mean": PALE_BLUE,
    "pooled": VIOLET,
    "pooled-same": VIOLET,
    "own-model-everywhere": PINK,
}
VERDICT_COLOURS = {PAYS: GREEN, NO_CLEAR_GAIN: GREY, DO_NOT_USE: ORANGE, INCONCLUSIVE: NEUTRAL}
VERDICT_SHAPES = {PAYS: "triangle-up", NO_CLEAR_GAIN: "circle", DO_NOT_USE: "triangle-down", INCONCLUSIVE: "square"}
"""Shapes of marks by verdict, for readers who cannot see colours."""
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2])
SITE_DASHES = (0, 1, 2, 3, 0, 2, 3, 1)
"""Index in `DASHES` for each of `SITE_COLOURS`: colours that some readers confuse have different dashes, and none that
they confuse with the grey of all sites together is solid."""
MOST_COLOURED = 8
"""Of more sites in one chart, one is drawn in colour and the others in grey."""

Looks = dict[str, tuple[str, list[int]]]
"""Colour and dash of each site."""


def site_looks(sites: Iterable[str]) -> Looks:
    """Return colour and dash of each site, by its place in the alphabet; all charts of a run have the same.

    Examples
    --------
    >>> site_looks(["b", "a"])["a"] == (SITE_COLOURS[0], [1, 0])
    True
    """
    looks = {}
    for place, site in enumerate(sorted(sites)):
        # After the last colour, the colours repeat with another dash.
        turn, colour = divmod(place, len(SITE_COLOURS))
        looks[site] = (SITE_COLOURS[colour], DASHES[(SITE_DASHES[colour] + turn) % len(DASHES)])
    return looks


def one_in_colour(sites: Iterable[str], chosen: str) -> Looks:
    """Return looks in which one site stands out and all others are alike."""
    return {site: (BLUE, DASHES[0]) if site == chosen else (FAINT, DASHES[0]) for site in sites}


def style() -> str:
    """Return the style that gives charts the colours of the page's theme, which only the browser knows.

    A chart follows its theme without being redrawn. A browser too old for `light-dark` shows the light colours.
    """
    chart = "[data-testid=stVegaLiteChart] svg.marks"
    rules = [
        f'{chart} [{what}="{light}"] {{{what}: light-dark({light}, {dark})}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    ]
    rules += [
        f'{chart} text[fill="{FIGURE}"] {{fill: light-dark({INK}, {DARK[INK]})}}',
        f"{chart} :is(.role-axis, .role-legend) text {{fill: light-dark({WORDS[0]}, {WORDS[1]})}}",
    ]
    return " ".join(rules)
