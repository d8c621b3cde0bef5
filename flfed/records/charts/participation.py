"""Map of participation by site and round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from flfed.records.charts.axes import PLOT_HEIGHT, legend_of, names_axis
from flfed.records.charts.by_round import ROUND_NUMBERS
from flfed.records.charts.chart import Chart, Line
from flfed.records.charts.colours import AMBER, BLUE, NEUTRAL, ORANGE, PALE_BLUE
from flfed.records.reports.round_totals import Block

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


def lines(blocks: Sequence[Block]) -> list[Line]:
    """Return the table of the map.

    It has a line for each site with its rounds added up.
    """
    found: dict[str, list[int]] = {}
    for block in blocks:
        total = found.setdefault(block.site, [0, 0, 0])
        for place, count in enumerate((block.asked, block.answered, block.aside)):
            total[place] += count
    return [
        {
            "Site": site,
            "Rounds asked": asked,
            "No answer": asked - answered,
            "Answer rejected": aside,
            "Good updates": answered - aside,
            "Good updates, % of asked": f"{100 * (answered - aside) / asked:.0f}" if asked else "",
        }
        for site, (asked, answered, aside) in found.items()
    ]


def drawn(blocks: Sequence[Block]) -> list[str]:
    """Return the sites of the map.

    They are all, or of many those that missed most rounds.
    """
    missed = {line["Site"]: line["Rounds asked"] - line["Good updates"] for line in lines(blocks)}
    return sorted(sorted(missed, key=lambda site: (-missed[site], site))[:SITES_DRAWN])


def whose(blocks: Sequence[Block]) -> str:
    """Return in words which sites of many `drawn` gives."""
    whole = all(state_of(block) == "took part" for block in blocks if block.asked)
    return f"The {SITES_DRAWN} sites {'that come first by name' if whole else 'that missed most'}"


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
    table = [line for line in lines(blocks) if line["Rounds asked"]]
    if not table:
        return "No site was asked to train yet."
    missed = {str(line["Site"]): line["Rounds asked"] - line["Good updates"] for line in table}
    # Of one site its own count says more than a share of the sites.
    if len(table) == 1:
        (line,) = table
        return f"{line['Site']} gave a good update in {line['Good updates']} of {line['Rounds asked']} rounds."
    whole = sum(count == 0 for count in missed.values())
    said = f"{whole} of {len(missed)} sites gave a good update in every round they were asked in."
    most = max(missed.values())
    if not most:
        return said
    worst = [site for site, count in missed.items() if count == most]
    asked = next(line["Rounds asked"] for line in table if line["Site"] == worst[0])
    whose = worst[0] if len(worst) == 1 else f"{len(worst)} sites, {worst[0]} among them,"
    return f"{said} {whose} missed most: {most} of {asked}."
