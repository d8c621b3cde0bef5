"""Learning curve on the page of a run.

It shows what joining is worth to a site that has few rows of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from flfed.records.dashboard.components import figure, tables
from flfed.records.dashboard.components.axes import axis_title, figure_axis, legend_of, ticks_of
from flfed.records.dashboard.components.charts import ARM_SHAPES, Layers, layered
from flfed.records.dashboard.components.colours import ARM_COLOURS, NEUTRAL, VERDICT_COLOURS
from flfed.records.dashboard.components.round_chart import BAND
from flfed.records.dashboard.components.text import escape
from flfed.records.dashboard.refresh import Shown
from flfed.records.reports.narrative import interval_name
from flfed.records.statistics import Report, learning_curve
from flfed.records.statistics.learning_curve import GAIN, by_size, curve_object, gain_at, worthwhile_in
from flfed.records.statistics.verdict import (
    ABSENT,
    ARM_NAMES,
    CANNOT_BE_TOLD,
    DO_NOT_USE,
    PAYS,
    Difference,
    code_of,
    gain_in_brackets,
    interval,
    metric_name,
    name_interval,
    number,
)
from flfed.records.store.entries import CurveArm, LearningPoint
from flfed.records.store.visibility import parsed_study

ALONE: CurveArm = "local-only"
ADJUSTED: CurveArm = "personalised"
HEIGHT = 320
TITLE = "## Was joining worth it, by own rows?"
HOW = (
    "The study asks for no learning curve. With `curve = { rows = [10, 20, 40, 80], draws = 20 }` under `[compare]`, "
    "it shows from how many own rows on a site does as well alone."
)
IN_WORDS = {PAYS: "clear gain", DO_NOT_USE: "clear loss"}
"""Of a verdict, in a cell of a table; the others stand there as they are."""
COLUMNS = ("site", "rows", "draws", "arm", "metric", "value", "low", "high")


def curve(shown: Shown, site: str) -> None:
    """Show one site's learning curve with its table.

    Where there is none, one sentence says why.
    """
    st.markdown(TITLE)
    points = [point for point in shown.learning if point.site == site]
    if not points:
        st.caption(why_none(shown) if not shown.learning else f"{escape(site)} has no learning curve of its own.")
        return
    metric = points[0].metric
    rule = shown.found["verdict-rule"]
    st.info(f"**{escape(in_words(points, rule))}**")
    figures = [{name: getattr(point, name) for name in COLUMNS} for point in points]
    title = f"{metric_name(metric)} at {escape(site)}, with 95 % band"
    models, gains = _figures(points), _gains(points, rule)
    if models is not None or gains is not None:
        left, right = st.columns(2)
        figure.figure(left, title, models, figures, key="learning-models", says=described(points))
        title = f"Gain by joining (above 0: it helps), {interval_name(shown.found)}"
        figure.figure(right, title, gains, figures, key="learning-gains", says=in_words(points, rule))
    tables.table(lines(points, rule))
    st.caption(_caption(points))
    # The file has all sites of the run, not only the one that is looked at.
    kept = [{name: getattr(point, name) for name in COLUMNS} for point in shown.learning]
    figure.download(kept, key=f"learning-curve-{shown.found['run']}")


def why_none(shown: Shown) -> str:
    """Return why there is no learning curve.

    The sentence also says how to get one.
    """
    reasons = [event.reason for event in shown.events if event.code == "no-learning-curve"]
    if reasons:
        return escape(f"There is {reasons[0].rstrip('.')}.")
    if not is_asked(shown):
        return HOW
    # An interrupted run may still be resumed and compared.
    going = shown.found["status"] in ("running", "interrupted")
    return "It is drawn when the comparison is made." if going else "The run ended before it could be drawn."


def is_asked(shown: Shown) -> bool:
    """Tell whether the study asks for a learning curve."""
    return "curve" in parsed_study(shown.study_text).get("compare", {})


def _caption(points: Sequence[LearningPoint]) -> str:
    return (
        "The federation was trained again with this site cut to so many of its training rows, the other sites whole. "
        f"Means over {max(point.draws for point in points)} draws; the bands are intervals which allow for rows that "
        "draws share."
    )


def in_words(points: Sequence[LearningPoint], rule: Report | None = None) -> str:
    """Return one site's learning curve in words.

    It says at which sizes the gain is clear.

    Parameters
    ----------
    points : sequence of LearningPoint
        Of one site.
    rule : dict, optional
        A report's `verdict-rule`; without it, that of one site.
    """
    curve = curve_object(points, rule) or {}
    ((site, sizes),) = by_size(curve).items()
    said = learning_curve.in_words(site, sizes, curve, draws=max(point.draws for point in points))
    sure = [size for size, gain, code in gains_of(points, rule) if code == PAYS]
    # With two sizes the sentence on the fewest rows and on all says everything.
    if len(sizes) < 3 or not sure:
        return said
    if len(sure) == len(sizes):
        return f"{said} The gain is clear at every size."
    return f"{said} The gain is clear with {_listed(sure)} rows, not with the other sizes."


def gains_of(points: Sequence[LearningPoint], rule: Report | None = None) -> list[tuple[int, Difference, str]]:
    """Return one site's gain by own rows.

    Each item has the rows, the gain of joining (above 0 is an improvement) and the verdict, from few rows to all.
    """
    curve = curve_object([point for point in points if point.arm == GAIN], rule)
    if curve is None:
        return []
    gains = [(rows, gain_at(arms, curve)) for sizes in by_size(curve).values() for rows, arms in sizes.items()]
    return [(rows, gain, code_of(gain, worthwhile_in(curve))) for rows, gain in gains]


def _listed(sizes: Sequence[int]) -> str:
    *most, last = map(str, sizes)
    return f"{', '.join(most)} and {last}" if most else last


def described(points: Sequence[LearningPoint]) -> str:
    """Return the chart in words.

    They are for a reader who cannot see it, and have both models' figures by own rows.
    """
    start = f"{axis_title(points[0].metric)} at {points[0].site} by own training rows"
    parts = [f"{line['Own rows']}: {line['Site model']} alone, {line['Joined']} joined" for line in lines(points)]
    return f"{start}. {'; '.join(parts)}."


def lines(points: Sequence[LearningPoint], rule: Report | None = None) -> list[dict[str, str]]:
    """Return the table of one site's learning curve.

    It has one line for each number of own rows.
    """
    curve = curve_object(points, rule) or {}
    head = f"Gain, + is better ({name_interval(curve['sites'])})"
    by_place = {(point.rows, point.arm): point for point in points}
    sizes = sorted({point.rows for point in points})
    gains = {size: (gain, code) for size, gain, code in gains_of(points, rule)}
    table = []
    for rows in sizes:
        cells = {"Own rows": f"all ({rows})" if rows == sizes[-1] else str(rows)}
        cells |= {
            "Site model": _cell(by_place.get((rows, ALONE))),
            "Joined": _cell(by_place.get((rows, ADJUSTED))),
        }
        # A size whose gain is not defined keeps its line, for its figures may be.
        gain, code = gains.get(rows, (Difference(None), CANNOT_BE_TOLD))
        known = gain.value is not None
        cells |= {head: gain_in_brackets(gain, worthwhile_in(curve)) if known else ABSENT}
        cells |= {"In words": IN_WORDS.get(code, code)}
        table.append(cells if known else cells | {"In words": "not defined"})
    return table


def _cell(point: LearningPoint | None) -> str:
    if point is None or point.value is None:
        return ABSENT
    return f"{number(point.value)} ({interval(point.low, point.high)})"


def _x(points: Sequence[LearningPoint]) -> alt.X:
    most = max(point.rows for point in points)
    axis = alt.Axis(labelExpr=f"datum.value == {most} ? 'all (' + datum.label + ')' : datum.label", labelAngle=0)
    return alt.X("rows:O", title="own training rows", axis=axis, scale=alt.Scale(type="point", padding=0.35))


def _figures(points: Sequence[LearningPoint]) -> Layers | None:
    """Return the chart of both models by own rows.

    Each is a line with its band. None without figures.
    """
    arms = (ALONE, ADJUSTED)
    rows = [
        {"rows": p.rows, "arm": ARM_NAMES[p.arm], "value": p.value, "low": p.low, "high": p.high, "shown": _cell(p)}
        for p in points
        if p.arm in arms and p.value is not None
    ]
    if not rows:
        return None
    names = [ARM_NAMES[arm] for arm in arms]
    legend = alt.Legend(**legend_of(names, symbolOpacity=1))
    colours = alt.Scale(domain=names, range=[ARM_COLOURS[arm] for arm in arms])
    shapes = alt.Scale(domain=names, range=[ARM_SHAPES[arm] for arm in arms])
    colour = alt.Color("arm:N", scale=colours, legend=legend)
    base = alt.Chart(pd.DataFrame(rows)).encode(x=_x(points), color=colour)
    y = _y(axis_title(points[0].metric), rows, points[0].metric)
    dots = base.mark_point(filled=True, size=80, opacity=1)
    band = base.transform_filter("datum.low != null").mark_area(**BAND)
    edge = alt.Stroke("arm:N", scale=colours, legend=None)
    return layered(
        band.encode(y="low:Q", y2="high:Q", stroke=edge),
        base.mark_line(strokeWidth=2.5).encode(y=y),
        dots.encode(y=y, shape=alt.Shape("arm:N", scale=shapes, legend=legend), tooltip=["rows:O", "arm:N", "shown:N"]),
        height=HEIGHT,
    )


def _gains(points: Sequence[LearningPoint], rule: Report) -> Layers | None:
    """Return the chart of the gain by own rows.

    It has a band and a line at no gain, and what is clear stands out by colour. None without figures.
    """
    worthwhile = worthwhile_in(curve_object(points, rule) or {})
    rows = [
        {"rows": size, "value": gain.value, "low": gain.deciding.low, "high": gain.deciding.high}
        | {"verdict": code, "shown": gain_in_brackets(gain, worthwhile)}
        for size, gain, code in gains_of(points, rule)
        if gain.value is not None
    ]
    if not rows:
        return None
    scale = alt.Scale(domain=list(VERDICT_COLOURS), range=list(VERDICT_COLOURS.values()))
    there = [verdict for verdict in VERDICT_COLOURS if any(row["verdict"] == verdict for row in rows)]
    colour = alt.Color("verdict:N", scale=scale, legend=alt.Legend(**legend_of(there, values=there)))
    base = alt.Chart(pd.DataFrame(rows)).encode(x=_x(points))
    metric = points[0].metric
    # 0 is always on the axis, for it parts gain from loss.
    y = _y(f"gain in {metric_name(metric)}", [*rows, {"value": 0.0}], metric, difference=True)
    zero = alt.Chart(pd.DataFrame([{"at": 0.0}])).mark_rule(strokeDash=[5, 4], color=NEUTRAL)
    band = base.transform_filter("datum.low != null").mark_area(color=NEUTRAL, stroke=NEUTRAL, **BAND)
    return layered(
        band.encode(y="low:Q", y2="high:Q"),
        zero.encode(y="at:Q"),
        base.mark_line(strokeWidth=2, color=NEUTRAL).encode(y=y),
        base.mark_point(filled=True, size=110, opacity=1).encode(
            y=y, color=colour, tooltip=["rows:O", "shown:N", "verdict:N"]
        ),
        height=HEIGHT,
    )


def _y(title: str, rows: Sequence[dict[str, Any]], metric: str, *, difference: bool = False) -> alt.Y:
    """Return the y axis of a figure.

    It goes from below the figure's lowest bound to above its highest.
    """
    ends = [row.get(key) for row in rows for key in ("value", "low", "high")]
    parts = figure_axis(title, ticks_of(ends, metric, difference=difference))
    return alt.Y("value:Q", axis=alt.Axis(**parts["axis"]), scale=alt.Scale(**parts["scale"]))
