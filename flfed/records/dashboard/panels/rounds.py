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
from flfed.records.charts.chart import Chart, Line, Spec, axis_title, layer, legend_of, nominal
from flfed.records.charts.colours import BLUE, MOST_COLOURED, ORANGE, one_in_colour, site_looks
from flfed.records.dashboard.refresh import CACHE_SECONDS, Opened, read_curves, where
from flfed.records.dashboard.run_page import pick_site
from flfed.records.dashboard.sections import behind, figure
from flfed.records.reports import round_totals as by_database
from flfed.records.reports.round_totals import ON_ROWS, Cost
from flfed.records.statistics.noised_scores import wording
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
BY_BLOCK: dict[str, Any] = {"participation": by_database.participation, "costs": by_database.costs}
"""What is read of the store by blocks of rounds."""


def last_round(runs: Sequence[RunEntry]) -> int:
    """Return the last round that may be shown.

    A round that stopped the run is not committed, but has something to show.
    """
    stopped = [run.rounds + 1 for run in runs if run.status not in ("completed", "running")]
    return max(*stopped, *(run.rounds for run in runs), 0)


def curves(opened: Opened) -> None:
    """Show a metric by round and its rows.

    It is shown for all sites together and for each.
    """
    st.markdown("## How good the model was, round by round")
    shown = opened.shown
    if not shown.curve_names:
        st.caption(escape(wording(shown.report).no_rounds or _no_curve(opened)))
        return
    arm, metric = _choose(shown.curve_names, opened.runs[0].primary)
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
        _of_each_site(opened, points, metric, sites)


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
    points: list[CurvePoint] = []
    # Round 0 is a part of its own: it is from before training and never changes.
    for part in [(0, 0), *parts_of(last, width, CURVE_BLOCKS)]:
        mark = None if part[1] < last else opened.mark  # the figures of a round come with the next one
        wanted: Any = {"arm": arm, "metric": metric, "sites": sites, "width": width, "only": opened.only}
        points += read_curves(where(), opened.names, part, mark, **wanted)
    return points


def _means_of(opened: Opened) -> str:
    """Return what a point of a long run means.

    An empty text where it is one round.
    """
    width = _width(opened)
    if width == 1:
        return ""
    return f" Each point is the mean of {width} rounds; the band, or the inner one, goes from the least to the largest."


def _no_curve(opened: Opened) -> str:
    """Return why there is no figure by round."""
    if opened.is_running:
        return "No round has a figure yet: the first comes with the second round."
    if any(run.status != "completed" for run in opened.runs):
        return "The run ended before a round had a figure."
    whose = f" of {opened.only}" if opened.only else ""
    return f"No figure by round was kept{whose}."


def _before(points: Sequence[CurvePoint], metric: str) -> str:
    """Return the figure before training, in words.

    It is not drawn. An empty text where nothing was measured then.
    """
    first = [point for point in points if point.round == 0 and point.value is not None]
    if not first:
        return ""
    together = next((point.value for point in first if point.site is None), None)
    if together is None:
        return " Round 0, before training, is in the tables and not drawn."
    name = metric_name(metric)
    return f" Before training, {name} over all sites together was {number(together)}: in the tables, not drawn."


def _of_all_sites(opened: Opened, points: Sequence[CurvePoint], metric: str) -> None:
    """Show the curve of all sites together.

    It comes with its band or why it has none. Where there is no curve, that is explained.
    """
    title = "All sites together"
    if not _has_figures_of_all(points):
        if not opened.only:  # the head of the page says why one site's people see its own figures only
            st.markdown(f"**{title}**")
            st.caption(_not_together(metric))
        return
    means = " The line is the mean over the repeats." if opened.is_repeated else ""
    without = f"Without a band: what the sites send in a round gives this figure, but not its interval.{means}"
    _draw_together(opened, points, metric, title, "rounds-all-sites", without)


def _has_figures_of_all(points: Sequence[CurvePoint]) -> bool:
    return any(point.site is None and point.value is not None for point in points)


def _draw_together(
    opened: Opened, points: Sequence[CurvePoint], metric: str, title: str, key: str, *below: str
) -> None:
    """Show the curve of all sites together, with sentences below it."""
    says = _describe_chart(opened, f"{axis_title(metric)}, all sites together: {_course(points, None)}")
    figure(st, title, by_round.of_all_sites(points, metric), _lines(points, metric, None), key=key, says=says)
    for sentence in filter(None, (*below, _counted_in_bins(points, metric))):
        st.caption(sentence)


def _counted_in_bins(points: Sequence[CurvePoint], metric: str) -> str:
    """Return how far binned figures over all sites may be off.

    It is about a curve made of counts by bin. An empty text of any other.
    """
    # Of two ends the further one: the other may have been cut at 0 or 1.
    reaches = [
        max(p.high - p.value, p.value - p.low)
        for p in points
        if p.site is None and p.round and p.value is not None and p.low is not None and p.high is not None
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


def _of_each_site(opened: Opened, points: Sequence[CurvePoint], metric: str, sites: Sequence[str]) -> None:
    """Show the curve of each site.

    The one that the reader picks has its band. Where no site sent a figure of its own, that is said.
    """
    title = "Your site" if opened.only else "Each site"
    of_sites = [point for point in points if point.site in sites]
    if not of_sites:
        st.markdown(f"**{title}**")
        st.caption(NONE_SENT)
        return
    looks = site_looks(site.site for site in opened.shown.sites)
    there = _banded(of_sites, metric)
    if len(sites) > MOST_COLOURED:
        banded = _choose_site(sites, f"Show in colour, with the other {len(sites) - 1} sites in grey")
        looks |= one_in_colour(sites, banded)
    else:
        banded = _choose_site(there, "Draw the 95 % CI of")
    each = by_round.of_each_site(points, metric, looks, banded=banded or None)
    named = axis_title(metric)
    says = _describe_chart(opened, "; ".join(f"{named}, {site}: {_course(points, site)}" for site in sites))
    figure(st, title, each, _lines(points, metric, sites), key="rounds-each-site", says=says)
    if banded not in there:
        means = " The lines are means over the repeats." if opened.is_repeated else ""
        st.caption(f"Without bands: the spread of this figure is not known.{means}")
    else:
        means = OVER_REPEATS if opened.is_repeated else ""
        st.caption(escape(f"The band is the 95 % CI of each figure of {banded}.{means}"))


def _choose_site(sites: Sequence[str], label: str) -> str:
    """Return the site that the reader picked, "" of none; one alone is no choice."""
    if len(sites) < 2:
        return "".join(sites)
    return pick_site(sites, label, "curve-band")


def _banded(points: Sequence[CurvePoint], metric: str) -> list[str]:
    """Return the sites whose points have an interval in some round."""
    return sorted(
        {str(point.site) for point in points if point.round and None not in by_database.band_of(point, metric)}
    )


OVER_REPEATS = (
    " Lines are means over the repeats, and the band is the mean of the bounds that each of them has: how well one "
    "split of the rows knows its figure, not how far the repeats lie apart."
)


def together(opened: Opened) -> None:
    """Show the primary metric by round.

    It is that of all sites together. Where no round has it yet, that is said.
    """
    st.markdown("## Round by round")
    names = opened.shown.curve_names
    if not names:
        st.caption(escape(_no_curve(opened)))
        return
    # The first curve's rows stand for the run here; the page Rounds has the choice.
    arm, choices = next(iter(names.items()))
    metric = choices[_place_of(opened.runs[0].primary, choices)]
    points = _points(opened, arm, metric, [])
    if not _has_figures_of_all(points):
        whose = f"that of {opened.only}" if opened.only else "those of each site"
        hint = f"There is no figure over all sites together by round here; the page Rounds has {whose}."
        st.caption(escape(hint))
        return
    caption = f"All sites together, {ON_ROWS.get(arm, arm)}.{_before(points, metric)}{_means_of(opened)}"
    which = "your" if opened.only else "each"
    st.caption(f"{caption} The page Rounds has {which} site.")
    _draw_together(opened, points, metric, f"{metric_name(metric)} by round", "rounds-together")


def _place_of(primary: str, choices: Sequence[str]) -> int:
    """Return the place of the primary metric, or of the first."""
    return choices.index(primary) if primary in choices else 0


def _choose(names: dict[str, list[str]], primary: str) -> tuple[str, str]:
    """Return the reader's choice of rows and figure."""
    arms = list(names)
    arm = arms[0]
    if len(arms) > 1:
        arm = st.radio("Measured on", arms, format_func=lambda arm: f"{arm} rows", horizontal=True, key="curve-arm")
    choices = names[arm]
    # A choice of one is no choice, and is not shown.
    if len(choices) < 2:
        return arm, choices[0]
    key = f"curve-metric-{arm}"
    first = _place_of(primary, choices)
    metric = st.radio("Figure", choices, index=first, format_func=metric_name, horizontal=True, key=key)
    return arm, metric


def _describe_chart(opened: Opened, text: str) -> str:
    """Return the chart's description for screen readers.

    It is empty while the run goes on, so that the chart has its title, which stays.

    The browser makes a chart anew whose words change, which flickers; the table below it has the figures.
    """
    return "" if opened.is_running else text


def _course(points: Sequence[CurvePoint], site: str | None) -> str:
    """Return a curve's ends in words."""
    curve = [point for point in points if point.site == site and point.value is not None]
    if not curve:
        return "no figures"
    first, last = curve[0], curve[-1]
    return f"{number(first.value)} after round {first.round}, {number(last.value)} after round {last.round}"


def _lines(points: Sequence[CurvePoint], metric: str, sites: Sequence[str] | None) -> list[Line]:
    """Return the table of a chart.

    It is of all sites together where `sites` is None, else of these.
    """
    wanted: Sequence[str | None] = [None]
    # Of all sites together the bounds are of the counting, not a 95 % CI.
    bounds = ("At least", "At most")
    if sites is not None:
        wanted = sites
        bounds = ("95 % low", "95 % high")
    lines: list[Line] = []
    for point in points:
        if point.site not in wanted:
            continue
        line: dict[str, Any] = {"After round": point.round}
        if point.first not in (None, point.round):
            line["After round"] = f"{point.first} to {point.round}"
        if sites is not None:
            line["Site"] = point.site
        line[metric_name(metric)] = point.value
        line |= dict(zip(bounds, by_database.band_of(point, metric), strict=True))
        if point.first is not None:
            line |= {"Least": point.least, "Largest": point.most}
        lines.append(line)
    return lines


@st.cache_data(max_entries=1024, ttl=CACHE_SECONDS, show_spinner=False)
def _read_blocks(
    store: str, what: str, names: Sequence[str], first: int, last: int, width: int, only: str | None
) -> list[Any]:
    with RunReader.open(only=only) as reader:
        return list(BY_BLOCK[what](reader, names, rounds=last, width=width, first=first))


def _by_block(opened: Opened, what: str, last: int, width: int) -> list[Any]:
    """Return what the store has of each block up to round `last`; `what` is a key of `BY_BLOCK`."""
    parts = parts_of(last, width)
    block_lists = (_read_blocks(where(), what, opened.names, *part, width, opened.only) for part in parts)
    return list(chain.from_iterable(block_lists))


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
    # A block that is not complete would be read anew at each look.
    if opened.is_running:
        last -= last % width
    blocks = sorted(_by_block(opened, "participation", last, width), key=lambda block: (block.site, block.first))
    summary = by_round.in_words(blocks)
    lines = by_round.lines(blocks)
    st.markdown(escape(summary))
    if by_round.is_plain(blocks):  # a map would be one block of one colour
        if blocks:
            behind(lines, key="participation")
        return
    if width > 1:
        newest = " The newest cell comes once its rounds are complete." if opened.is_running else ""
        st.caption(f"Each cell stands for {width} rounds.{newest}")
    drawn = by_round.chart(blocks)
    figure(st, "Each site by round", drawn, lines, key="participation", says=_describe_chart(opened, summary))
    if len(lines) > by_round.SITES_DRAWN:
        st.caption(f"{by_round.whose(blocks)} are drawn; the table has all.")
    if by_round.left_out(blocks):
        st.caption("A site that was not asked in a round has no cell there: a study may ask a share of the sites.")


def cost(opened: Opened) -> None:
    """Show the time and bytes of a round."""
    st.markdown("## What a round costs")
    width = by_database.width_of(max(run.rounds_planned for run in opened.runs), POINTS)
    costs: list[Cost] = _by_block(opened, "costs", last_round(opened.runs), width)
    # Blocks of rounds have means, so that their rows compare with those of single rounds.
    lines = [_cost_line(one) for one in costs]
    st.caption(_cost_in_words(costs, opened))
    if not costs and not opened.is_running:
        return
    drawn = _seconds(costs)
    right: Any = st
    # A run without times has one chart, and no empty place beside it.
    if drawn is not None or opened.is_running:
        left, right = st.columns(2)
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
        return "No round is over yet." if opened.is_running else "No message of training crossed."
    # A block has means by round, which are turned into sums again.
    lengths = [one.last - one.first + 1 for one in costs]
    out = sum(length * one.to_server for length, one in zip(lengths, costs, strict=True)) / 1e6
    back = sum(length * one.to_site for length, one in zip(lengths, costs, strict=True)) / 1e6
    seconds = [length * one.seconds for length, one in zip(lengths, costs, strict=True) if one.seconds is not None]
    each = ", on average over the repeats" if opened.is_repeated else ""
    took = f" {sum(seconds):.1f} seconds in all;" if seconds else ""
    count = sum(lengths)
    rounds = "1 round" if count == 1 else f"{count} rounds"
    crossed = f"{out:.2f} MB left the sites and {back:.2f} MB came to them for training."
    if opened.only:
        crossed = f"{out:.2f} MB left your site and {back:.2f} MB came to it for training."
    with RunReader.open(only=opened.only) as reader:
        each_round = by_database.bytes_in_words(by_database.round_bytes(reader, opened.names))
    beside = "What crossed before and after the rounds is on the page Privacy."
    return " ".join(filter(None, (f"{rounds}{each}:{took} {crossed}", each_round, beside)))


def _seconds(costs: Sequence[Cost]) -> Chart | None:
    rows = [{"round": one.last, "value": one.seconds} for one in costs if one.seconds is not None]
    return _cost_chart(rows, "seconds (lower is better)", {"color": BLUE}, {})


def _bytes(costs: Sequence[Cost]) -> Chart | None:
    rows = []
    for one in costs:
        rows.append({"round": one.last, "value": one.to_site / 1000, "way": WAYS[0]})
        rows.append({"round": one.last, "value": one.to_server / 1000, "way": WAYS[1]})
    way = nominal("way", legend=legend_of(WAYS, **by_round.STROKES))
    by_way: Spec = {
        "color": way | {"scale": {"domain": list(WAYS), "range": [BLUE, ORANGE]}},
        "strokeDash": way | {"scale": {"domain": list(WAYS)}},
    }
    return _cost_chart(rows, "kB a round", {}, by_way)


def _cost_chart(rows: list[dict[str, Any]], title: str, look: Spec, by_way: Spec) -> Chart | None:
    """Return the picture of a cost by round, None without rows.

    Parameters
    ----------
    rows : list of dict
    title : str
        Of its axis.
    look : dict
        Of its line, {} where `by_way` has that of each.
    by_way : dict
        Encodings of more than one line.
    """
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    y = by_round.y_axis(title, zero=True)
    encoding = {"x": by_round.X, "y": y, "tooltip": by_round.tooltip("round", "value")} | by_way
    line = layer("line", encoding, strokeWidth=2, point=by_round.are_few(frame), **look)
    return Chart(frame, {"height": HEIGHT} | line)
