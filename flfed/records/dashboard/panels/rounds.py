"""Panels of the page Rounds.

They show the metric by round, who took part, what a round cost, and what the guard did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pandas as pd
import streamlit as st

from flfed.records.charts import by_round
from flfed.records.charts.chart import Chart, Line, Spec, axis_title, legend_of
from flfed.records.charts.colours import BLUE, MOST_COLOURED, ORANGE, one_in_colour, site_looks
from flfed.records.dashboard.refresh import KEPT_SECONDS, Shown, read_curves, where
from flfed.records.dashboard.run_page import Opened, of_address
from flfed.records.dashboard.sections import behind, figure
from flfed.records.reports import round_totals as by_database
from flfed.records.reports.round_totals import ON_ROWS, Block, Cost
from flfed.records.statistics.noised_scores import NO_ROUNDS, is_covered
from flfed.records.statistics.verdict import metric_name, number
from flfed.records.store.entries import CurvePoint, RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.text import escape

SITES_DRAWN, MOST_DRAWN = 12, 20
"""Sites drawn unless the reader picks others, and most of them: of more than eight one is in colour."""
PART_BLOCKS = 3
"""Blocks of rounds that are read together."""
CURVE_BLOCKS = 50
"""Points of a curve that are read together."""
POINTS = 200
"""Most points of a curve; more cannot be told apart on a screen."""
WAYS = ("to the sites", "from the sites")
NONE_SENT = (
    "No site sent a figure of its own in a round: under secure aggregation an institution keeps them, unless its "
    "policy names training-figures."
)
HEIGHT = 300
"""Of a chart of a cost with its legend, so that two side by side end alike."""


def last_round(runs: Sequence[RunEntry]) -> int:
    """Return the last round that may be shown.

    A round that stopped the run is not committed, but has something to show.
    """
    stopped = [run.rounds + 1 for run in runs if run.status not in ("completed", "running")]
    return max(*stopped, *(run.rounds for run in runs), 0)


def curves(opened: Opened, shown: Shown) -> None:
    """Show a metric by round and its rows.

    It is shown for all sites together and for each.
    """
    st.markdown("## How good the model was, round by round")
    if not shown.curve_names:
        st.caption(escape(NO_ROUNDS if is_covered(shown.found) else _no_curve(opened)))
        return
    arm, metric = _choose(shown, opened.runs[0].primary)
    sites = sorted(site.site for site in shown.sites if site.status != "refused")
    above = st.container()  # it does not go by the choice of sites
    # A chart of all sites at once is not readable, so that many are chosen from.
    if len(sites) > MOST_COLOURED:
        sites = st.multiselect(
            "Sites drawn below", sites, default=sites[:SITES_DRAWN], max_selections=MOST_DRAWN, key="curve-sites"
        )
    points = _points(opened, arm, metric, sites)
    with above:
        _of_all_sites(opened, points, metric)
    above.caption(f"These curves are {ON_ROWS.get(arm, arm)}.{_before(points, metric)}{_means_of(opened)}")
    with st.container():
        _of_each_site(opened, shown, points, metric, sites)


def _width(opened: Opened) -> int:
    """Return how many rounds a point stands for.

    They are the same ones whenever the page looks again.
    """
    return by_database.nested_width(max(run.rounds for run in opened.runs), POINTS)


def _points(opened: Opened, arm: str, metric: str, sites: Sequence[str]) -> list[CurvePoint]:
    """Return a figure by round or by blocks.

    A block has as many rounds as a point stands for. What was read is cached part by part.
    """
    width = _width(opened)
    last = last_round(opened.runs)
    names = [run.run for run in opened.runs]
    # Round 0 is a part of its own: it is from before training and never changes.
    found = (
        read_curves(
            where(),
            names,
            part,
            None if part[1] < last else opened.mark,  # the figures of a round come with the next one
            arm=arm,
            metric=metric,
            sites=sites,
            width=width,
            only=opened.only,
        )
        for part in [(0, 0), *parts_of(last, width, CURVE_BLOCKS)]
    )
    return list(chain.from_iterable(found))


def _means_of(opened: Opened) -> str:
    """Return what a point of a long run means.

    An empty text where it is one round.
    """
    width = _width(opened)
    said = f" Each point is the mean of {width} rounds; the band, or the inner one, goes from the least to the largest."
    return said if width > 1 else ""


def _no_curve(opened: Opened) -> str:
    """Return why there is no figure by round."""
    states = {run.status for run in opened.runs}
    if "running" in states:
        return "No round has a figure yet: the first comes with the second round."
    if states == {"completed"}:
        return f"No figure by round was kept of {opened.only}." if opened.only else "No figure by round was kept."
    return "The run ended before a round had a figure."


def _before(points: Sequence[CurvePoint], metric: str) -> str:
    """Return the figure before training, in words.

    It is not drawn. An empty text where nothing was measured then.
    """
    first = [point for point in points if point.round == 0 and point.value is not None]
    together = next((point.value for point in first if point.site is None), None)
    if together is None:
        return " Round 0, before training, is in the tables and not drawn." if first else ""
    name = metric_name(metric)
    return f" Before training, {name} over all sites together was {number(together)}: in the tables, not drawn."


def _of_all_sites(opened: Opened, points: Sequence[CurvePoint], metric: str) -> None:
    """Show the curve of all sites together.

    It comes with its band or why it has none. Where there is no curve, that is explained.
    """
    title = "All sites together"
    mine = [p for p in points if p.site is None and p.value is not None]
    if not mine:
        if not opened.only:  # the head of the page says why one site's people see its own figures only
            st.markdown(f"**{title}**")
            st.caption(_not_together(metric))
        return
    says = _said(opened, f"{axis_title(metric)}, all sites together: {_course(points, None)}")
    drawn = by_round.of_all_sites(points, metric)
    figure(st, title, drawn, _lines(points, metric, None), key="rounds-all-sites", says=says)
    means = " The line is the mean over the repeats." if len(opened.runs) > 1 else ""
    st.caption(f"Without a band: what the sites send in a round gives this figure, but not its interval.{means}")
    if said := _counted_in_bins(mine, metric):
        st.caption(said)


def _counted_in_bins(points: Sequence[CurvePoint], metric: str) -> str:
    """Return how far binned figures may be off.

    It is about a curve made of counts by bin. An empty text of any other.
    """
    # Of two ends the further one: the other may have been cut at 0 or 1.
    reaches = [
        max(p.high - p.value, p.value - p.low)
        for p in points
        if p.round and p.value is not None and p.low is not None and p.high is not None
    ]
    if not reaches:
        return ""
    most = number(math.ceil(max(reaches) * 1000 - 1e-9) / 1000)
    wide = ""
    if max(reaches) > by_round.DRAWN_FROM:
        wide = f" Where it may be further off than {number(by_round.DRAWN_FROM, 2)}, a thick line is the range."
    return (
        f"Worked out from counts in 256 bins: the {metric_name(metric)} of the rows lies within {most} of "
        f"this one at each point drawn.{wide}"
    )


def _not_together(metric: str) -> str:
    """Return why no all-sites figure exists by round."""
    if metric == "roc_auc_score":
        return (
            "Over all sites together there is no AUC by round: it needs the counts of predictions of every site, and "
            'not every one gave them (`outputs = ["score-histogram"]` in its policy.toml).'
        )
    return f"Over all sites together there is no {metric_name(metric)} by round: what the sites sent does not give it."


def _of_each_site(
    opened: Opened, shown: Shown, points: Sequence[CurvePoint], metric: str, sites: Sequence[str]
) -> None:
    """Show the curve of each site.

    The one that the reader picks has its band. Where no site sent a figure of its own, that is said.
    """
    title = "Your site" if opened.only else "Each site"
    if not any(point.site in sites for point in points):
        st.markdown(f"**{title}**")
        st.caption(NONE_SENT)
        return
    there = sorted(_banded([point for point in points if point.site in sites], metric))
    many = len(sites) > MOST_COLOURED
    others = f"Show in colour, with the other {len(sites) - 1} sites in grey"
    banded = _choose_site(sites, others) if many else _choose_site(there, "Draw the 95 % CI of")
    looks = site_looks(site.site for site in shown.sites)
    if many and banded is not None:
        looks |= one_in_colour(sites, banded)
    each = by_round.of_each_site(points, metric, looks, banded=banded)
    named = axis_title(metric)
    says = _said(opened, "; ".join(f"{named}, {site}: {_course(points, site)}" for site in sites))
    figure(st, title, each, _lines(points, metric, sites), key="rounds-each-site", says=says)
    if banded not in there:
        means = " The lines are means over the repeats." if len(opened.runs) > 1 else ""
        st.caption(f"Without bands: the spread of this figure is not known.{means}")
    else:
        st.caption(escape(f"The band is the 95 % CI of each figure of {banded}.{_over_repeats(opened)}"))


def _choose_site(sites: Sequence[str], label: str) -> str | None:
    """Return the site that the reader picks, at first that of the address, as on the other pages."""
    if len(sites) < 2:
        return next(iter(sites), None)
    asked = of_address("site")
    first = sites.index(asked) if asked in sites else 0
    return str(st.selectbox(label, list(sites), index=first, key=f"curve-band-{sites[first]}", width=320))


def _banded(points: Sequence[CurvePoint], metric: str) -> set[str]:
    """Return whose points have an interval.

    It is so in some round. All sites together are "".
    """
    return {point.site or "" for point in points if point.round and None not in by_database.band_of(point, metric)}


def _over_repeats(opened: Opened) -> str:
    """Return what lines and bands average over repeats.

    An empty text of one run.
    """
    if len(opened.runs) < 2:
        return ""
    return (
        " Lines are means over the repeats, and the band is the mean of the bounds that each of them has: how well one "
        "split of the rows knows its figure, not how far the repeats lie apart."
    )


def together(opened: Opened, shown: Shown) -> None:
    """Show the primary metric by round.

    It is that of all sites together. Where no round has it yet, that is said.
    """
    st.markdown("## Round by round")
    if not shown.curve_names:
        st.caption(escape(_no_curve(opened)))
        return
    # The first curve's rows stand for the run here; the page Rounds has the choice.
    arm, choices = next(iter(shown.curve_names.items()))
    primary = opened.runs[0].primary
    metric = primary if primary in choices else choices[0]
    points = _points(opened, arm, metric, [])
    if not any(point.site is None and point.value is not None for point in points):
        whose = f"that of {opened.only}" if opened.only else "those of each site"
        said = f"There is no figure over all sites together by round here; the page Rounds has {whose}."
        st.caption(escape(said))
        return
    told = f"All sites together, {ON_ROWS.get(arm, arm)}.{_before(points, metric)}{_means_of(opened)}"
    which = "your" if opened.only else "each"
    st.caption(f"{told} The page Rounds has {which} site.")
    says = _said(opened, f"{axis_title(metric)}, all sites together: {_course(points, None)}")
    title = f"{metric_name(metric)} by round"
    figure(
        st, title, by_round.of_all_sites(points, metric), _lines(points, metric, None), key="rounds-together", says=says
    )
    if said := _counted_in_bins([point for point in points if point.site is None], metric):
        st.caption(said)


def _choose(shown: Shown, primary: str) -> tuple[str, str]:
    """Return the reader's choice of rows and figure."""
    arms = list(shown.curve_names)
    arm = arms[0]
    if len(arms) > 1:
        arm = st.radio("Measured on", arms, format_func=lambda arm: f"{arm} rows", horizontal=True, key="curve-arm")
    choices = shown.curve_names[arm]
    first = choices.index(primary) if primary in choices else 0
    # A choice of one is no choice, and is not shown.
    if len(choices) < 2:
        return arm, choices[first]
    key = f"curve-metric-{arm}"
    metric = st.radio("Figure", choices, index=first, format_func=metric_name, horizontal=True, key=key)
    return arm, metric


def _said(opened: Opened, text: str) -> str:
    """Return the chart's description for screen readers.

    It is empty while the run goes on, so that the chart has its title, which stays.

    The browser makes a chart anew whose words change, which flickers; the table below it has the figures.
    """
    return "" if any(run.status == "running" for run in opened.runs) else text


def _course(points: Sequence[CurvePoint], site: str | None) -> str:
    """Return a curve's ends in words."""
    known = [point for point in points if point.site == site and point.value is not None]
    if not known:
        return "no figures"
    return f"{known[0].value:.3f} after round {known[0].round}, {known[-1].value:.3f} after round {known[-1].round}"


def _lines(points: Sequence[CurvePoint], metric: str, sites: Sequence[str] | None) -> list[Line]:
    """Return the table of a chart.

    It is of all sites together where `sites` is None, else of these.
    """
    wanted = [None] if sites is None else sites
    # Of all sites together the bounds are of the counting, not a 95 % CI.
    bounds = ("At least", "At most") if sites is None else ("95 % low", "95 % high")
    found: list[Line] = []
    for point in points:
        if point.site not in wanted:
            continue
        after = point.round if point.first in (None, point.round) else f"{point.first} to {point.round}"
        line: dict[str, Any] = {"After round": after}
        if sites is not None:
            line |= {"Site": point.site}
        line |= {metric_name(metric): point.value}
        line |= dict(zip(bounds, by_database.band_of(point, metric), strict=True))
        if point.first is not None:
            line |= {"Least": point.least, "Largest": point.most}
        found.append(line)
    return found


@st.cache_data(max_entries=512, ttl=KEPT_SECONDS, show_spinner=False)
def _blocks(store: str, names: Sequence[str], first: int, last: int, width: int, only: str | None) -> list[Block]:
    with RunReader.open(only=only) as reader:
        return by_database.participation(reader, names, rounds=last, width=width, first=first)


@st.cache_data(max_entries=512, ttl=KEPT_SECONDS, show_spinner=False)
def _costs(store: str, names: Sequence[str], first: int, last: int, width: int, only: str | None) -> list[Cost]:
    with RunReader.open(only=only) as reader:
        return by_database.costs(reader, names, rounds=last, width=width, first=first)


def parts_of(last: int, width: int, blocks: int = PART_BLOCKS) -> list[tuple[int, int]]:
    """Return the parts in which rounds are read.

    Each is its first and last round. The parts are read one by one, up to round `last`.

    A part that is whole is read once a minute, however many rounds follow. A run that is resumed
    does rounds again that were lost: those are shown as they are after a minute at the latest.

    Examples
    --------
    >>> parts_of(60, 9)
    [(1, 27), (28, 54), (55, 60)]
    """
    step = blocks * width
    return [(start + 1, min(start + step, last)) for start in range(0, last, step)]


def took_part(opened: Opened) -> None:
    """Show who took part in which rounds.

    Of a long run only whole blocks are shown, since all of them are read anew.
    """
    st.markdown("## Who took part")
    last = last_round(opened.runs)
    # Planned rounds set the width, so that cells stay where they are while the run goes on.
    width = by_database.width_of(max(run.rounds_planned for run in opened.runs), by_round.COLUMNS_DRAWN)
    going = any(run.status == "running" for run in opened.runs)
    # A block that is not complete would be read anew at each look.
    drawn = last // width * width if going else last
    names = [run.run for run in opened.runs]
    found = (_blocks(where(), names, *part, width, opened.only) for part in parts_of(drawn, width))
    blocks = sorted(chain.from_iterable(found), key=lambda block: (block.site, block.first))
    said = by_round.in_words(blocks)
    st.markdown(escape(said))
    if by_round.is_plain(blocks):  # a map would be one block of one colour
        if blocks:
            behind(by_round.lines(blocks), key="participation")
        return
    if width > 1:
        newest = " The newest cell comes once its rounds are complete." if going else ""
        st.caption(f"Each cell stands for {width} rounds.{newest}")
    figure(
        st,
        "Each site by round",
        by_round.chart(blocks),
        by_round.lines(blocks),
        key="participation",
        says=_said(opened, said),
    )
    if len({block.site for block in blocks}) > by_round.SITES_DRAWN:
        st.caption(f"{by_round.whose(blocks)} are drawn; the table has all.")
    if by_round.left_out(blocks):
        st.caption("A site that was not asked in a round has no cell there: a study may ask a share of the sites.")


def cost(opened: Opened) -> None:
    """Show the time and bytes of a round."""
    st.markdown("## What a round costs")
    last = last_round(opened.runs)
    width = by_database.width_of(max(run.rounds_planned for run in opened.runs), POINTS)
    names = [run.run for run in opened.runs]
    found = (_costs(where(), names, *part, width, opened.only) for part in parts_of(last, width))
    costs = list(chain.from_iterable(found))
    # Blocks of rounds have means, so that their rows compare with those of single rounds.
    lines = [_cost_line(one) for one in costs]
    st.caption(_cost_in_words(costs, opened))
    going = any(run.status == "running" for run in opened.runs)
    if not costs and not going:
        return
    drawn = _seconds(costs)
    # A run without times has one chart, and no empty place beside it.
    timed = drawn is not None or going
    left, right = st.columns(2) if timed else (st, st)
    if timed:
        says = "Seconds that a round took, by round."
        figure(left, "Seconds a round", drawn, lines, key="round-seconds", says=says)
    whose = "your site" if opened.only else "all sites together"
    says = f"Kilobytes that crossed in a round, {whose}, by round."
    figure(right, f"Kilobytes a round, {whose}", _bytes(costs), lines, key="round-bytes", says=says)


def _cost_line(one: Cost) -> Line:
    rounds = str(one.first) if one.first == one.last else f"{one.first} to {one.last}"
    return {
        "Rounds": rounds,
        "Seconds a round": one.seconds,
        "kB to the sites a round": one.to_site / 1000,
        "kB from the sites a round": one.to_server / 1000,
    }


def _cost_in_words(costs: Sequence[Cost], opened: Opened) -> str:
    """Return what the rounds took in all."""
    if not costs:
        going = any(run.status == "running" for run in opened.runs)
        return "No round is over yet." if going else "No message of training crossed."
    # A block has means by round, which are turned into sums again.
    seconds = [_length(one) * one.seconds for one in costs if one.seconds is not None]
    out = sum(_length(one) * one.to_server for one in costs) / 1e6
    back = sum(_length(one) * one.to_site for one in costs) / 1e6
    each = ", on average over the repeats" if len(opened.runs) > 1 else ""
    took = f" {sum(seconds):.1f} seconds in all;" if seconds else ""
    count = sum(_length(one) for one in costs)
    rounds = "1 round" if count == 1 else f"{count} rounds"
    left = "your site" if opened.only else "the sites"
    to = "it" if opened.only else "them"
    with RunReader.open(only=opened.only) as reader:
        said = by_database.bytes_in_words(by_database.round_bytes(reader, [run.run for run in opened.runs]))
    each_round = f"{said} " if said else ""
    return (
        f"{rounds}{each}:{took} {out:.2f} MB left {left} and {back:.2f} MB came to {to} for training. "
        f"{each_round}What crossed before and after the rounds is on the page Privacy."
    )


def _length(block: Cost) -> int:
    """Return how many rounds a block has."""
    return block.last - block.first + 1


def _seconds(costs: Sequence[Cost]) -> Chart | None:
    known = [one for one in costs if one.seconds is not None]
    if not known:
        return None
    rows = pd.DataFrame({"round": [one.last for one in known], "value": [one.seconds for one in known]})
    y = by_round.y_axis("seconds (lower is better)", zero=True)
    return Chart(rows, _spec(y, BLUE, len(known) < by_round.FEW_ROUNDS, {}))


def _bytes(costs: Sequence[Cost]) -> Chart | None:
    if not costs:
        return None
    rows = []
    for one in costs:
        rows.append({"round": one.last, "value": one.to_site / 1000, "way": WAYS[0]})
        rows.append({"round": one.last, "value": one.to_server / 1000, "way": WAYS[1]})
    y = by_round.y_axis("kB a round", zero=True)
    legend = legend_of(WAYS, **by_round.STROKES)
    colours = {"domain": list(WAYS), "range": [BLUE, ORANGE]}
    by_way: Spec = {
        "color": {"field": "way", "type": "nominal", "scale": colours, "legend": legend},
        "strokeDash": {"field": "way", "type": "nominal", "scale": {"domain": list(WAYS)}, "legend": legend},
    }
    points = len(costs) < by_round.FEW_ROUNDS
    return Chart(pd.DataFrame(rows), _spec(y, None, points, by_way))


def _spec(y: Spec, colour: str | None, points: bool, by_way: Spec) -> Spec:
    """Return the picture of a cost by round.

    Parameters
    ----------
    y : dict
        Its axis.
    colour : str or None
        Of its line, None where `by_way` has one for each.
    points : bool
        Whether each round is marked.
    by_way : dict
        Encodings of more than one line.
    """
    mark: Spec = {"type": "line", "strokeWidth": 2, "point": points}
    if colour:
        mark |= {"color": colour}
    tooltip = [{"field": "round", "type": "quantitative"}, {"field": "value", "type": "quantitative"}]
    encoding = {"x": by_round.X, "y": y, "tooltip": tooltip} | by_way
    return {"height": HEIGHT, "mark": mark, "encoding": encoding}
