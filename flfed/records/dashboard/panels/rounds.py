"""Panels of the page Rounds: the metric by round, and participation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from flfed.records.charts import by_round
from flfed.records.charts.chart import Line, axis_title
from flfed.records.charts.colours import MOST_COLOURED, one_in_colour, site_looks
from flfed.records.dashboard.refresh import Opened, read_curves, where
from flfed.records.dashboard.run_page import pick_site
from flfed.records.dashboard.sections import contained, figure, table
from flfed.records.reports.round_totals import ON_ROWS, band_of, nested_width, participation
from flfed.records.statistics.noised_scores import wording
from flfed.records.statistics.verdict import metric_name, number
from flfed.records.store.entries import CurvePoint, RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.text import escape
from flfed.words import render

SITES_DRAWN = 12
"""Sites drawn unless the reader picks others; of more than eight, one is in colour."""
MOST_DRAWN = 20
"""Most sites that the reader can pick."""
CURVE_BLOCKS = 50
"""Points of a curve that are read together."""
POINTS = 200
"""Most points of a curve; a screen cannot resolve more."""


def last_round(runs: Sequence[RunEntry]) -> int:
    """Return the last round with content: a round that stopped the run has some, though it is not committed."""
    stopped = [run.rounds + 1 for run in runs if run.status not in ("completed", "running")]
    return max(*stopped, *(run.rounds for run in runs), 0)


def curves(opened: Opened) -> None:
    """Show a metric by round, for all sites together and for each, and its rows."""
    st.markdown("## Performance by round")
    shown = opened.shown
    if not shown.curve_names:
        st.caption(escape(wording(shown.report).no_rounds or _no_curve(opened)))
        return
    arm, metric = _choose(shown.curve_names, opened.runs[0].primary)
    sites = sorted(site.site for site in shown.sites if site.status != "refused")
    above = st.container()  # its content does not depend on the choice of sites
    # A chart of many sites is not readable, so the reader picks some of them.
    if len(sites) > MOST_COLOURED:
        sites = st.multiselect(
            "Sites drawn below", sites, default=sites[:SITES_DRAWN], max_selections=MOST_DRAWN, key="curve-sites"
        )
    points = _points(opened, arm, metric, sites)
    with above:
        _of_all_sites(opened, points, metric)
    rows = render("pages.rounds.measured", rows=ON_ROWS.get(arm, arm))
    above.caption(" ".join([rows, *_about_points(opened, points, metric)]))
    contained(_of_each_site, opened, points, metric, sites)


def _width(opened: Opened) -> int:
    """Return how many rounds a point stands for; a point's rounds do not change while the run goes on."""
    return nested_width(max(run.rounds for run in opened.runs), POINTS)


def _points(opened: Opened, arm: str, metric: str, sites: Sequence[str]) -> list[CurvePoint]:
    """Return a figure by round or by blocks of `_width` rounds, each part cached."""
    width = _width(opened)
    last = last_round(opened.runs)
    points = []
    # Round 0, before training, is a part of its own, as it never changes.
    for part in [(0, 0), *parts_of(last, width)]:
        mark = None if part[1] < last else opened.mark  # the figures of a round come with the next one
        wanted: Any = {"arm": arm, "metric": metric, "sites": sites, "width": width}
        points += read_curves(where(), opened.names, part, mark, **wanted)
    return points


def _no_curve(opened: Opened) -> str:
    """Return why there is no figure by round."""
    if opened.is_running:
        return render("pages.rounds.early")
    if any(run.status != "completed" for run in opened.runs):
        return render("pages.rounds.ended")
    return render("pages.rounds.none")


def _about_points(opened: Opened, points: Sequence[CurvePoint], metric: str) -> list[str]:
    """Return sentences on round 0, which is not drawn, and on points that stand for several rounds."""
    sentences = []
    first = [point for point in points if point.round == 0 and point.value is not None]
    if first:
        sentences.append(render("pages.rounds.undrawn"))
    for point in first:
        if point.site is None:
            sentences = [render("pages.rounds.before", metric=metric_name(metric), value=number(point.value))]
    width = _width(opened)
    if width > 1:
        sentences.append(render("pages.rounds.means", rounds=width))
    return sentences


def _of_all_sites(opened: Opened, points: Sequence[CurvePoint], metric: str) -> None:
    """Show the curve of all sites together with its band, or why there is no band or no curve."""
    title = "All sites together"
    if not _has_figures_of_all(points):
        st.markdown(f"**{title}**")
        why = render("pages.rounds.unknown", metric=metric_name(metric))
        if metric == "roc_auc_score":
            why = render("pages.rounds.uncounted")
        st.caption(why)
        return
    below = [render("pages.rounds.unbanded")]
    if opened.is_repeated:
        below.append(render("pages.rounds.mean"))
    _draw_together(opened, points, metric, title, "rounds-all-sites", " ".join(below))


def _has_figures_of_all(points: Sequence[CurvePoint]) -> bool:
    return any(point.site is None and point.value is not None for point in points)


def _draw_together(
    opened: Opened, points: Sequence[CurvePoint], metric: str, title: str, key: str, *below: str
) -> None:
    """Show the curve of all sites together, with sentences below it."""
    reach = by_round.counted_in_bins(points, metric)
    says = _describe_chart(
        opened, f"{axis_title(metric)}, all sites together: {_course(points, None)}. {reach}".strip()
    )
    figure(st, title, by_round.of_all_sites(points, metric), _lines(points, metric, None), key=key, says=says)
    for sentence in filter(None, (*below, reach)):
        st.caption(sentence)


def _of_each_site(opened: Opened, points: Sequence[CurvePoint], metric: str, sites: Sequence[str]) -> None:
    """Show the curve of each site, the reader's pick with its band, or why there is no curve."""
    title = "Each site"
    of_sites = [point for point in points if point.site in sites]
    if not of_sites:
        st.markdown(f"**{title}**")
        st.caption(render("pages.rounds.unsent"))
        return
    looks = site_looks(site.site for site in opened.shown.sites)
    bounded = [point for point in of_sites if None not in band_of(point, metric)]
    there = sorted({str(point.site) for point in bounded if point.round})
    if len(sites) > MOST_COLOURED:
        banded = _choose_site(sites, render("pages.curves.coloured", others=len(sites) - 1))
        looks |= one_in_colour(sites, banded)
    else:
        banded = _choose_site(there, "Show 95 % CI of")
    each = by_round.of_each_site(points, metric, looks, banded=banded or None)
    named = axis_title(metric)
    says = _describe_chart(opened, "; ".join(f"{named}, {site}: {_course(points, site)}" for site in sites))
    figure(st, title, each, _lines(points, metric, sites), key="rounds-each-site", says=says)
    below = [render("pages.rounds.spread")]
    if banded in there:
        below = [render("pages.rounds.band", site=banded)]
    if opened.is_repeated:
        below.append(render("pages.rounds.bounds" if banded in there else "pages.rounds.lines"))
    st.caption(escape(" ".join(below)))


def _choose_site(sites: Sequence[str], label: str) -> str:
    """Return the site that the reader picked, "" of none; a single site is no choice."""
    if len(sites) < 2:
        return "".join(sites)
    return pick_site(sites, label, "curve-band")


def together(opened: Opened) -> None:
    """Show the primary metric of all sites together by round, or why there is none."""
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
        st.caption(render("pages.rounds.every"))
        return
    caption = [render("pages.rounds.together", rows=ON_ROWS.get(arm, arm)), *_about_points(opened, points, metric)]
    st.caption(" ".join([*caption, render("pages.rounds.more")]))
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
    """Return the chart's description for screen readers, "" while the run goes on: the title then describes it.

    A browser redraws a chart whose description changes, which flickers; the table below the chart has the figures.
    """
    return "" if opened.is_running else text


def _course(points: Sequence[CurvePoint], site: str | None) -> str:
    """Return the first and last figure of a curve in words."""
    curve = [point for point in points if point.site == site and point.value is not None]
    if not curve:
        return "no figures"
    first, last = curve[0], curve[-1]
    return f"{number(first.value)} after round {first.round}, {number(last.value)} after round {last.round}"


def _lines(points: Sequence[CurvePoint], metric: str, sites: Sequence[str] | None) -> list[Line]:
    """Return the table of a chart, of all sites together where `sites` is None."""
    wanted: Sequence[str | None] = [None]
    # The bounds of all sites together come from the bins and are no 95 % CI.
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
        line |= dict(zip(bounds, band_of(point, metric), strict=True))
        if point.first is not None:
            line |= {"Least": point.least, "Largest": point.most}
        lines.append(line)
    return lines


def parts_of(last: int, width: int) -> list[tuple[int, int]]:
    """Return the parts in which rounds up to `last` are read, each as its first and last round.

    A complete part is read once a minute, however many rounds follow. A resumed run repeats rounds that were lost:
    their figures are up to date after a minute at the latest.

    Examples
    --------
    >>> parts_of(450, 4)
    [(1, 200), (201, 400), (401, 450)]
    """
    step = CURVE_BLOCKS * width
    return [(start + 1, min(start + step, last)) for start in range(0, last, step)]


def took_part(opened: Opened) -> None:
    """Show in how many rounds each site took part, added up over repeats."""
    st.markdown("## Participation")
    with RunReader.open() as reader:
        shares = participation(reader, opened.names)
    if not shares:
        st.caption(render("pages.rounds.unasked"))
        return
    lines = []
    for share in shares:
        valid = share.answered - share.rejected
        line = {"Site": share.site, "Rounds asked": share.asked, "No reply": share.asked - share.answered}
        line |= {"Rejected updates": share.rejected, "Valid updates": valid, "Valid, %": ""}
        if share.asked:
            line["Valid, %"] = number(100 * valid / share.asked, 0)
        lines.append(line)
    table(lines)
