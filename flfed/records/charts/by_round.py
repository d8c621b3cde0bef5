"""Charts by round.

A running run draws them anew with each of its rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from flfed.records.charts.chart import (
    AXIS_NUMBERS,
    PLOT_HEIGHT,
    Chart,
    Line,
    Spec,
    axis_title,
    in_lines,
    legend_of,
    names_axis,
)
from flfed.records.charts.colours import AMBER, ARM_COLOURS, BLUE, FAINT, NEUTRAL, ORANGE, PALE_BLUE
from flfed.records.reports.round_totals import Block, band_of
from flfed.records.store.entries import CurvePoint

HEIGHT = 260
"""Of the plot itself, in pixels, whatever legend stands above it."""
TICKS = 5
"""About so many ticks has the axis of a figure; it ends at one, so that no line lies beyond the last."""
ROUND_NUMBERS = {"tickMinStep": 1, "format": "d"}
"""Of an axis of rounds, which are whole numbers."""
DRAWN_FROM = 0.02
"""A figure made of counts by bin that may be further off than this is drawn as a range."""
FEW_ROUNDS = 3
"""Below so many rounds a curve is drawn with its points: a line through one of them is not seen."""
STROKES = {"symbolType": "stroke", "symbolOpacity": 1, "symbolStrokeWidth": 3, "symbolSize": 200}
"""Of a legend of lines: so long and wide that colour and dash are seen."""
BAND: dict[str, Any] = {"fillOpacity": 0.2, "strokeWidth": 1, "strokeOpacity": 1}
"""Of a band: its edge is seen where its area is too light."""
COLUMNS = ("round", "site", "value", "low", "high", "least", "most")
WIDE = dict.fromkeys(("round", "value", "low", "high", "least", "most"), "float64")
"""Kinds of the columns that may have nothing but gaps, which the browser must take for numbers."""


def of_all_sites(points: Iterable[CurvePoint], metric: str) -> Chart | None:
    """Return the all-sites figure by round.

    None without figures.

    Where a point stands for several rounds, a band goes from the least of them to the largest. An AUC is made
    of counts by bin: where that of the rows may be further than `DRAWN_FROM` away, a point is drawn as the
    range that is left open. Not the figure before training, in either chart: on its scale the rounds would
    lie on one line.
    """
    rows = _rows((point for point in points if point.site is None), metric)
    if rows is None:
        return None
    colour = ARM_COLOURS["global"]
    # Of two ends the further one: the other may have been cut at 0 or 1.
    further = f"max(datum.high - datum.value, datum.value - datum.low) > {DRAWN_FROM}"
    open_from = {"filter": f"datum.low != null && {further}"}
    ranges = _between("low", "high", colour) | {"transform": [open_from]}
    ranges["mark"] = {"type": "rule", "strokeWidth": 5, "color": colour, "opacity": 0.75}
    line = {
        "mark": {"type": "line", "strokeWidth": 2.5, "color": colour, "point": are_few(rows)},
        "encoding": {"y": y_axis(axis_title(metric)), "tooltip": tooltip("round", "value", "low", "high")},
    }
    spec = {
        "height": HEIGHT,
        "autosize": PLOT_HEIGHT,
        "encoding": {"x": X},
        "layer": [ranges, _between("least", "most", colour), line],
    }
    return Chart(rows, spec)


def of_each_site(
    points: Iterable[CurvePoint],
    metric: str,
    looks: Mapping[str, tuple[str, list[int]]],
    *,
    banded: str | None = None,
) -> Chart | None:
    """Return the figure of each site by round.

    Each site has its colour and dash. None without figures.

    Parameters
    ----------
    points : iterable of CurvePoint
    metric : str
    looks : mapping of site to colour and dash
        Sites that are `FAINT` are drawn first and are not in the legend.
    banded : str, optional
        The site whose intervals are drawn as a band: those of several lie on each other and are not told apart.
    """
    rows = _rows((point for point in points if point.site is not None), metric)
    if rows is None:
        return None
    # Grey sites come first, so that the coloured ones are drawn above them.
    names = sorted(set(rows["site"]), key=lambda name: (looks[name][0] != FAINT, name))
    told = [name for name in names if looks[name][0] != FAINT]
    faint = names[: len(names) - len(told)]
    site = {"field": "site", "type": "nominal", "legend": legend_of(told, values=told, **STROKES)}
    colours, dashes = [looks[name][0] for name in names], [looks[name][1] for name in names]
    line = {
        "mark": {"type": "line", "point": are_few(rows)},
        "encoding": {
            "y": y_axis(axis_title(metric)),
            "strokeDash": site | {"scale": {"domain": names, "range": dashes}},
            "strokeWidth": {
                "condition": {"test": {"field": "site", "oneOf": faint}, "value": 1},
                "value": 3 if faint else 2,
            },
            "tooltip": [{"field": "site", "type": "nominal"}, *tooltip("round", "value", "low", "high")],
        },
    }
    # Bands of several sites would lie on each other and could not be told apart.
    bands = []
    if banded is not None:
        bands = [_between(*ends, looks[banded][0]) for ends in (("low", "high"), ("least", "most"))]
        for band in bands:
            band["transform"].append({"filter": {"field": "site", "equal": banded}})
    spec = {
        "height": HEIGHT,
        "autosize": PLOT_HEIGHT,
        "encoding": {"x": X, "color": site | {"scale": {"domain": names, "range": colours}}},
        "layer": [*bands, line],
    }
    place = {name: number for number, name in enumerate(names)}
    # The rows follow the same order, in which the lines are drawn.
    rows = rows.sort_values("site", key=lambda of: of.map(place), kind="stable") if faint else rows
    return Chart(rows, spec)


def _between(low: str, high: str, colour: str) -> Spec:
    """Return the band between two columns.

    Its edge is seen. Where the two are alike nothing is drawn.
    """
    return {
        "transform": [{"filter": f"datum.{low} != null && datum.{low} < datum.{high}"}],
        "mark": {"type": "area", "stroke": colour, **BAND},
        "encoding": {
            "y": {"field": low, "type": "quantitative"},
            "y2": {"field": high},
            "color": {"value": colour},
        },
    }


X: Spec = {
    "field": "round",
    "type": "quantitative",
    "axis": {"title": "round", "tickCount": 8, **ROUND_NUMBERS},
    "scale": {"nice": False},
}


def y_axis(title: str, *, zero: bool = False) -> Spec:
    """Return the axis of a figure by round.

    It begins at 0 where `zero`. A tick stands at either end.
    """
    # Words at the ends stay beside their ticks: moved, they would seem to be of others.
    axis = {"title": in_lines(title), "labelExpr": AXIS_NUMBERS, "tickCount": TICKS, "labelFlush": False}
    return {"field": "value", "type": "quantitative", "axis": axis, "scale": {"zero": zero, "nice": TICKS}}


def tooltip(*fields: str) -> list[Spec]:
    """Return figures that are told under the mouse."""
    return [{"field": field, "type": "quantitative"} for field in fields]


def are_few(rows: pd.DataFrame) -> bool:
    """Tell whether a curve is drawn with its points, of few rounds."""
    return rows["round"].nunique() < FEW_ROUNDS


def _rows(points: Iterable[CurvePoint], metric: str) -> pd.DataFrame | None:
    """Return the known points after a round.

    They have a value and come with their bands. None where there is no such point.

    A point of several rounds stands in their middle.
    """
    known = [
        (((p.first or p.round) + p.round) / 2, p.site, p.value, *band_of(p, metric), p.least, p.most)
        for p in points
        if p.value is not None and p.round
    ]
    return pd.DataFrame(known, columns=list(COLUMNS)).astype(WIDE) if known else None


COLUMNS_DRAWN = 60
"""Most blocks of rounds side by side; narrower ones cannot be told apart."""
SITES_DRAWN = 40
"""Most sites in the map; the table has all."""
STATES = {
    "took part": BLUE,
    "in some of the rounds": PALE_BLUE,
    "answer rejected": ORANGE,
    "no answer": AMBER,
}
"""What a cell says of its rounds, and its colour; a site that was not asked has no cell."""
ROW_PIXELS, NAME_SHARE = 38, 0.48
"""Height of a site in the map, and which share of it is for its name."""


def state_of(block: Block) -> str:
    """Return a site's state in a block of rounds.

    It says in a word what the site did.

    Examples
    --------
    >>> [state_of(Block("a", 1, 9, asked=9, answered=9, aside=aside)) for aside in (0, 1, 9)]
    ['took part', 'in some of the rounds', 'answer rejected']
    """
    if block.answered - block.aside >= block.asked:
        return "took part"
    if block.answered > block.aside:
        return "in some of the rounds"
    return "answer rejected" if block.aside else "no answer"


@dataclass(frozen=True)
class Share:
    """How many rounds a site was asked in, answered, and had its answer set aside."""

    asked: int = 0
    answered: int = 0
    aside: int = 0

    @property
    def good(self) -> int:
        """Rounds with an update that was taken."""
        return self.answered - self.aside

    @property
    def missed(self) -> int:
        """Rounds without one, of those it was asked in."""
        return self.asked - self.good


def shares(blocks: Sequence[Block]) -> dict[str, Share]:
    """Return each site's rounds, added up."""
    found: dict[str, Share] = {}
    for block in blocks:
        of = found.get(block.site, Share())
        found[block.site] = Share(of.asked + block.asked, of.answered + block.answered, of.aside + block.aside)
    return found


def lines(blocks: Sequence[Block]) -> list[Line]:
    """Return the table of the map, a line for each site."""
    told: list[Line] = []
    for site, of in shares(blocks).items():
        share = f"{100 * of.good / of.asked:.0f}" if of.asked else ""
        line: Line = {
            "Site": site,
            "Rounds asked": of.asked,
            "No answer": of.asked - of.answered,
            "Answer rejected": of.aside,
            "Good updates": of.good,
            "Good updates, % of asked": share,
        }
        told.append(line)
    return told


def drawn(blocks: Sequence[Block]) -> list[str]:
    """Return the sites of the map.

    They are all, or of many those that missed most rounds.
    """
    missed = {site: of.missed for site, of in shares(blocks).items()}
    return sorted(sorted(missed, key=lambda site: (-missed[site], site))[:SITES_DRAWN])


def whose(blocks: Sequence[Block]) -> str:
    """Return in words which sites of many `drawn` gives."""
    whole = all(state_of(block) == "took part" for block in blocks if block.asked)
    which = "that come first by name" if whole else "that missed most"
    return f"The {SITES_DRAWN} sites {which}"


def left_out(blocks: Sequence[Block]) -> bool:
    """Tell whether some site was asked less.

    It then was asked less than another in some rounds.
    """
    there = [block for block in blocks if block.asked]
    sites = {block.site for block in there}
    # Where all were asked alike, every site has each block with the same count.
    alike = {(block.first, block.asked) for block in there}
    return len(there) != len(alike) * len(sites)


def is_plain(blocks: Sequence[Block]) -> bool:
    """Tell whether the map would be one plain block.

    It would where all sites were asked alike and gave a good update each time.

    Examples
    --------
    >>> both = [Block(site, 1, 3, asked=3, answered=3, aside=0) for site in "ab"]
    >>> is_plain(both), is_plain([*both, Block("a", 4, 6, asked=1, answered=1, aside=0)])
    (True, False)
    """
    return not left_out(blocks) and all(state_of(block) == "took part" for block in blocks if block.asked)


def in_a_row(blocks: Sequence[Block]) -> list[Block]:
    """Return blocks with equal neighbours merged.

    They are those of one site that follow each other in the same state.

    Examples
    --------
    >>> good = [Block("a", 1, 3, asked=3, answered=3, aside=0), Block("a", 4, 6, asked=3, answered=3, aside=0)]
    >>> [(block.first, block.last, block.asked) for block in in_a_row(good)]
    [(1, 6, 6)]
    """
    found: list[Block] = []
    for block in blocks:
        last = found[-1] if found else None
        if last and (last.site, last.last + 1, state_of(last)) == (block.site, block.first, state_of(block)):
            found[-1] = Block(
                block.site,
                last.first,
                block.last,
                asked=last.asked + block.asked,
                answered=last.answered + block.answered,
                aside=last.aside + block.aside,
            )
        else:
            found.append(block)
    return found


def chart(blocks: Sequence[Block]) -> Chart | None:
    """Return the map of sites and rounds.

    It has a row for a site and a cell for rounds of the same state. None where nobody was asked yet.

    What went wrong stands out by colour, and by an outline for those who do not see it.
    """
    shown = set(drawn(blocks))
    there = in_a_row([block for block in blocks if block.asked and block.site in shown])
    if not there:
        return None
    rows = pd.DataFrame(
        {
            "site": [block.site for block in there],
            "first": [block.first - 0.5 for block in there],
            "last": [block.last + 0.5 for block in there],
            "state": [state_of(block) for block in there],
            "good": [f"{block.answered - block.aside} of {block.asked}" for block in there],
        }
    )
    sites = sorted(set(rows["site"]))
    colour = {
        "field": "state",
        "type": "nominal",
        "scale": {"domain": list(STATES), "range": list(STATES.values())},
        "legend": legend_of(list(STATES), symbolType="square", symbolStrokeWidth=0),
    }
    odd = {"condition": {"test": "datum.state == 'took part'", "value": 0}, "value": 1.5}
    spec: dict[str, Any] = {
        "height": ROW_PIXELS * len(sites),
        "autosize": PLOT_HEIGHT,
        "mark": {"type": "rect", "stroke": NEUTRAL},
        "encoding": {
            "x": {
                "field": "first",
                "type": "quantitative",
                "axis": {"title": "round", "grid": False, **ROUND_NUMBERS},
                "scale": {"zero": False, "nice": False},
            },
            "x2": {"field": "last"},
            "y": {
                "field": "site",
                "type": "nominal",
                "sort": sites,
                "scale": {"paddingInner": NAME_SHARE, "paddingOuter": 0},
                "axis": names_axis(ROW_PIXELS * (1 - NAME_SHARE) / 2 + 9),
            },
            "color": colour,
            "strokeWidth": odd,
            "tooltip": [
                {"field": "site", "type": "nominal"},
                {"field": "good", "type": "nominal", "title": "good updates"},
                {"field": "state", "type": "nominal"},
            ],
        },
    }
    return Chart(rows, spec)


def in_words(blocks: Sequence[Block]) -> str:
    """Return who took part in a sentence.

    It says how many sites took part in all rounds, and who missed most.
    """
    asked = {site: of for site, of in shares(blocks).items() if of.asked}
    if not asked:
        return "No site was asked to train yet."
    # Of one site its own count says more than a share of the sites.
    if len(asked) == 1:
        ((site, of),) = asked.items()
        return f"{site} gave a good update in {of.good} of {of.asked} rounds."
    whole = sum(of.missed == 0 for of in asked.values())
    said = f"{whole} of {len(asked)} sites gave a good update in every round they were asked in."
    most = max(of.missed for of in asked.values())
    if not most:
        return said
    worst = [site for site, of in asked.items() if of.missed == most]
    whose = worst[0] if len(worst) == 1 else f"{len(worst)} sites, {worst[0]} among them,"
    return f"{said} {whose} missed most: {most} of {asked[worst[0]].asked}."
