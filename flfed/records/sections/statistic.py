"""Sections on a study's statistic: survival curves, and coefficients with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flfed.records.charts.by_site import effect_chart
from flfed.records.charts.curves import survival_chart
from flfed.records.objects import read
from flfed.records.section import Drawing, Section
from flfed.records.statistics.recorded_statistic import LIFE_TABLE, SURVIVAL, Survival
from flfed.records.statistics.regression import RATIOS, Coefficients, coefficient_lines, effect_in_words
from flfed.records.statistics.verdict import sentence_case


def estimates(statistic: Mapping[str, Any]) -> Section | None:
    """Return the forest plot of a recorded model's coefficients, None of another statistic."""
    if "coefficients" not in statistic:
        return None
    model = read(Coefficients, statistic)
    lines = []
    for name, (value, low, high) in model.effects().items():
        text = effect_in_words(value, low, high)["value"]
        lines.append({"name": name, "value": value, "low": low, "high": high, "shown": text})
    is_ratio = model.family in RATIOS
    title = f"{model.effect} of {model.outcome} (95 % CI)"
    draw = partial(effect_chart, lines, title, is_ratio=is_ratio)
    says = f"{len(lines)} intervals, each of one column's {model.effect}"
    table = coefficient_lines(statistic)
    drawing = Drawing(title=sentence_case(title), draw=draw, key="coefficients", says=says, lines=table)
    return Section(title=model.effect.capitalize(), charts=(drawing,))


def survival(statistic: Mapping[str, Any]) -> Section | None:
    """Return the survival curves of a study's statistic, None of another statistic."""
    if statistic["name"] != SURVIVAL:
        return None
    of = read(Survival, statistic)
    lines = survival_lines(of)
    title = "Rows without the event over time"
    axis = f"time in {of.unit or 'steps'}"
    is_smooth = of.method == LIFE_TABLE
    drawing = Drawing(
        title=title,
        draw=lambda: survival_chart(lines, axis, is_smooth=is_smooth),
        key="survival",
        says=(
            f"Curves of {', '.join(of.present)}: how many of their rows are without the event at each time; the table "
            "has the figures."
        ),
        lines=lines,
    )
    return Section(title=sentence_case(SURVIVAL), charts=(drawing,))


def survival_lines(of: Survival) -> list[dict[str, Any]]:
    """Return the points of the curves, from time 0 to the last row of each group."""
    lines = []
    for name, group in of.present.items():
        curve = group.curve
        times = [0.0, *curve.time]
        last = max(group.followed_until, times[-1])
        shares = zip([1.0, *curve.survival], [None, *curve.low], [None, *curve.high], strict=True)
        for time, (share, low, high) in zip(times, shares, strict=True):
            lines.append({"group": name, "time": time, "without the event": share, "low": low, "high": high})
        lines.append({**lines[-1], "time": last})
    return lines
