"""The parts of the page Rounds: the metric by round, who took part, what a round cost, and what the guard did."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import pandas as pd
import streamlit as st

from flfed.records import rounds as by_database
from flfed.records.dashboard import by_round, participation
from flfed.records.dashboard.by_round import Curves
from flfed.records.dashboard.charts import axis_title, site_looks
from flfed.records.dashboard.live import KEPT_SECONDS, Shown, read_curves, where
from flfed.records.dashboard.panels import escape
from flfed.records.dashboard.run_page import Opened
from flfed.records.dashboard.showing import Line, figure
from flfed.records.entries import CurvePoint, RunEntry
from flfed.records.reading import RunReader
from flfed.records.rounds import Block, Cost
from flfed.records.verdicts import metric_name

SITES_DRAWN = 8
"""Sites drawn unless the reader picks others: more lines cannot be told apart."""
PART_BLOCKS = 3
"""Blocks of rounds that are read together."""
POINTS = 200
"""Most rounds drawn in a curve; more cannot be told apart on a screen."""
ON_ROWS = {
    "training": "measured on the rows the model was trained on, so they look better than they are",
    "validation": "measured on validation rows that were kept out of training",
    "holdout": "measured on the holdout, for reporting only",
}
WAYS = {"to_site": ("to the sites", "#0072B2"), "to_server": ("from the sites", "#D55E00")}
HEIGHT = 220


def last_round(runs: Sequence[RunEntry]) -> int:
    """Return the last round of which there may be something to show: one that stopped the run is not committed."""
    return max(run.rounds if run.status in ("completed", "running") else run.rounds + 1 for run in runs)


def curves(opened: Opened, shown: Shown) -> None:
    """Show a metric by round, of all sites together and of each, and say on which rows."""
    st.markdown("## How good the model was, round by round")
    if not shown.curve_names:
        st.caption("No round has a figure yet: the first comes with the second round.")
        return
    arm, metric = _choose(shown, opened.runs[0].primary)
    sites = sorted(site.site for site in shown.sites if site.status != "refused")
    if len(sites) > SITES_DRAWN:
        sites = st.multiselect("Sites", sites, default=sites[:SITES_DRAWN], max_selections=20, key="curve-sites")
    every = by_database.width_of(max(run.rounds for run in opened.runs), POINTS)
    points = read_curves(where(), opened.mark, arm=arm, metric=metric, sites=sites, every=every, only=opened.only)
    several = " Means over the repeats." if len(opened.runs) > 1 else ""
    thinned = f" Every {every}th round is drawn." if every > 1 else ""
    st.caption(
        f"These curves are {ON_ROWS.get(arm, arm)}. The bands are 95 % intervals of each figure, where its spread "
        f"is known.{several}{thinned}"
    )
    looks = site_looks(site.site for site in shown.sites)
    named = axis_title(metric)
    with st.container():
        together = by_round.of_all_sites(points, metric)
        says = _said(opened, f"{named}, all sites together: {_course(points, None)}")
        figure(st, "All sites together", together, _lines(points, metric, None), key="rounds-all-sites", says=says)
    with st.container():
        each = by_round.of_each_site(points, metric, looks)
        says = _said(opened, "; ".join(f"{named}, {site}: {_course(points, site)}" for site in sites))
        figure(st, "Each site", each, _lines(points, metric, sites), key="rounds-each-site", says=says)


def together(opened: Opened, shown: Shown) -> None:
    """Show the primary metric of all sites together by round, or that no round has it yet."""
    st.markdown("## Round by round")
    if not shown.curve_names:
        st.caption("No round has a figure yet: the first comes with the second round.")
        return
    arm, choices = next(iter(shown.curve_names.items()))
    primary = opened.runs[0].primary
    metric = primary if primary in choices else choices[0]
    every = by_database.width_of(max(run.rounds for run in opened.runs), POINTS)
    points = read_curves(where(), opened.mark, arm=arm, metric=metric, sites=[], every=every, only=opened.only)
    if not any(point.site is None and point.value is not None for point in points):
        st.caption("There is no figure over all sites together by round; the page Rounds has those of each site.")
        return
    st.caption(f"All sites together, {ON_ROWS.get(arm, arm)}. The page Rounds has each site.")
    says = _said(opened, f"{axis_title(metric)}, all sites together: {_course(points, None)}")
    drawn, title = by_round.of_all_sites(points, metric), f"{metric_name(metric)} by round"
    figure(st, title, drawn, _lines(points, metric, None), key="rounds-together", says=says)


def _choose(shown: Shown, primary: str) -> tuple[str, str]:
    """Return on which rows, and which figure, the reader picked."""
    arms = list(shown.curve_names)
    arm = arms[0]
    if len(arms) > 1:
        arm = st.radio("Measured on", arms, format_func=lambda arm: f"{arm} rows", horizontal=True, key="curve-arm")
    choices = shown.curve_names[arm]
    first = choices.index(primary) if primary in choices else 0
    if len(choices) < 2:
        return arm, choices[first]
    key = f"curve-metric-{arm}"
    metric = st.radio("Figure", choices, index=first, format_func=metric_name, horizontal=True, key=key)
    return arm, metric


def _said(opened: Opened, text: str) -> str:
    """Return what a reader who cannot see a chart is told; while the run goes on its title, which stays.

    The browser makes a chart anew whose words change, which flickers; the table below it has the figures.
    """
    return "" if any(run.status == "running" for run in opened.runs) else text


def _course(points: Sequence[CurvePoint], site: str | None) -> str:
    """Return where a curve begins and ends, for a reader who cannot see it."""
    known = [point for point in points if point.site == site and point.value is not None]
    if not known:
        return "no figures"
    return f"{known[0].value:.3f} after round {known[0].round}, {known[-1].value:.3f} after round {known[-1].round}"


def _lines(points: Sequence[CurvePoint], metric: str, sites: Sequence[str] | None) -> list[Line]:
    """Return the table of a chart: of all sites together where `sites` is None, else of these."""
    found: list[Line] = []
    for point in points:
        if (point.site is None) if sites is None else (point.site in sites):
            low, high = by_database.band_of(point, metric)
            who = {} if sites is None else {"Site": point.site}
            figures = {metric_name(metric): point.value, "95 % low": low, "95 % high": high}
            found.append({"After round": point.round, **who, **figures})
    return found


@st.cache_data(max_entries=512, ttl=KEPT_SECONDS, show_spinner=False)
def _blocks(store: str, names: Sequence[str], first: int, last: int, width: int, only: str | None) -> list[Block]:
    with RunReader.open(only=only) as reader:
        return by_database.participation(reader, names, rounds=last, width=width, first=first)


@st.cache_data(max_entries=512, ttl=KEPT_SECONDS, show_spinner=False)
def _costs(store: str, names: Sequence[str], first: int, last: int, width: int, only: str | None) -> list[Cost]:
    with RunReader.open(only=only) as reader:
        return by_database.costs(reader, names, rounds=last, width=width, first=first)


def parts_of(last: int, width: int) -> list[tuple[int, int]]:
    """Return the first and last rounds of parts that are read one by one, up to round `last`.

    A part that is whole is read once a minute, however many rounds follow. A run that is resumed
    does rounds again that were lost: those are shown as they are after a minute at the latest.

    Examples
    --------
    >>> parts_of(60, 9)
    [(1, 27), (28, 54), (55, 60)]
    """
    step = PART_BLOCKS * width
    return [(start + 1, min(start + step, last)) for start in range(0, last, step)]


def took_part(opened: Opened) -> None:
    """Show who took part in which rounds; of a long run whole blocks only, since all of them are read anew."""
    st.markdown("## Who took part")
    last = last_round(opened.runs)
    width = by_database.width_of(max(run.rounds_planned for run in opened.runs), participation.COLUMNS_DRAWN)
    going = any(run.status == "running" for run in opened.runs)
    drawn = last // width * width if going else last
    names = [run.run for run in opened.runs]
    found = (_blocks(where(), names, *part, width, opened.only) for part in parts_of(drawn, width))
    blocks = sorted(chain.from_iterable(found), key=lambda block: (block.site, block.first))
    said = participation.in_words(blocks)
    st.markdown(escape(said))
    if width > 1:
        newest = " The newest cell comes once its rounds are complete." if going else ""
        st.caption(f"Each cell stands for {width} rounds.{newest}")
    figure(
        st,
        "Each site by round",
        participation.chart(blocks),
        participation.lines(blocks),
        key="participation",
        says=_said(opened, said),
    )
    if len({block.site for block in blocks}) > participation.SITES_DRAWN:
        st.caption(f"The {participation.SITES_DRAWN} sites that missed most are drawn; the table has all.")
    if blocks:
        st.caption("A site that was not asked in a round has no cell there: a study may ask a share of the sites.")


def cost(opened: Opened) -> None:
    """Show how long a round took, and how many bytes crossed in it."""
    st.markdown("## What a round costs")
    last = last_round(opened.runs)
    width = by_database.width_of(max(run.rounds_planned for run in opened.runs), POINTS)
    names = [run.run for run in opened.runs]
    found = (_costs(where(), names, *part, width, opened.only) for part in parts_of(last, width))
    costs = list(chain.from_iterable(found))
    lines = [
        {
            "Rounds": str(one.first) if one.first == one.last else f"{one.first} to {one.last}",
            "Seconds a round": one.seconds,
            "kB to the sites a round": one.to_site / 1000,
            "kB from the sites a round": one.to_server / 1000,
        }
        for one in costs
    ]
    st.caption(_cost_in_words(costs, opened))
    left, right = st.columns(2)
    says = "Seconds that a round took, by round."
    figure(left, "Seconds a round", _seconds(costs), lines, key="round-seconds", says=says)
    whose = "your site" if opened.only else "all sites together"
    says = f"Kilobytes that crossed in a round, {whose}, by round."
    figure(right, f"Kilobytes a round, {whose}", _bytes(costs), lines, key="round-bytes", says=says)


def _cost_in_words(costs: Sequence[Cost], opened: Opened) -> str:
    """Return what the rounds took in all."""
    if not costs:
        return "No round is over yet."
    rounds = sum(one.last - one.first + 1 for one in costs)
    seconds = [(one.last - one.first + 1) * one.seconds for one in costs if one.seconds is not None]
    out = sum((one.last - one.first + 1) * one.to_server for one in costs) / 1e6
    back = sum((one.last - one.first + 1) * one.to_site for one in costs) / 1e6
    each = ", one repeat with another" if len(opened.runs) > 1 else ""
    took = f"{sum(seconds):.1f} seconds" if seconds else "no time written down"
    return (
        f"{rounds} rounds{each}: {took} in all; {out:.2f} MB left the sites and {back:.2f} MB came to them "
        "for training. What crossed before and after the rounds is on the page Privacy."
    )


def _seconds(costs: Sequence[Cost]) -> Curves | None:
    known = [one for one in costs if one.seconds is not None]
    if not known:
        return None
    rows = pd.DataFrame({"round": [one.last for one in known], "value": [one.seconds for one in known]})
    y = {"field": "value", "type": "quantitative", "axis": {"title": "seconds (lower is better)"}}
    return Curves(rows, _spec(y, "#0072B2", points=len(known) < by_round.FEW_ROUNDS))


def _bytes(costs: Sequence[Cost]) -> Curves | None:
    if not costs:
        return None
    rows = pd.DataFrame(
        [
            {"round": one.last, "value": getattr(one, way) / 1000, "way": name}
            for one in costs
            for way, (name, _) in WAYS.items()
        ]
    )
    names, colours = zip(*WAYS.values(), strict=True)
    legend = {"title": None, "orient": "top"}
    y = {"field": "value", "type": "quantitative", "axis": {"title": "kB a round"}}
    scale = {"domain": list(names), "range": list(colours)}
    spec = _spec(y, None, points=len(costs) < by_round.FEW_ROUNDS)
    spec["encoding"]["color"] = {"field": "way", "type": "nominal", "scale": scale, "legend": legend}
    spec["encoding"]["strokeDash"] = {
        "field": "way",
        "type": "nominal",
        "scale": {"domain": list(names)},
        "legend": legend,
    }
    return Curves(rows, spec)


def _spec(y: by_round.Spec, colour: str | None, *, points: bool) -> by_round.Spec:
    mark = {"type": "line", "strokeWidth": 2, "point": points} | ({"color": colour} if colour else {})
    tooltip = [{"field": "round", "type": "quantitative"}, {"field": "value", "type": "quantitative"}]
    return {"height": HEIGHT, "mark": mark, "encoding": {"x": by_round.X, "y": y, "tooltip": tooltip}}
