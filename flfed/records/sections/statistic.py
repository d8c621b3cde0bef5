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
from flfed.words import render


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
    title = render("charts.axes.effect", effect=model.effect, outcome=model.outcome)
    draw = partial(effect_chart, lines, title, is_ratio=is_ratio)
    says = render("charts.axes.effect-says", effect=model.effect, columns=len(lines))
    table = coefficient_lines(statistic)
    drawing = Drawing(title=sentence_case(title), draw=draw, key="coefficients", says=says, lines=table)
    return Section(title=model.effect.capitalize(), charts=(drawing,))


def survival(statistic: Mapping[str, Any]) -> Section | None:
    """Return the survival curves of a study's statistic, None of another statistic."""
    if statistic["name"] != SURVIVAL:
        return None
    of = read(Survival, statistic)
    lines = survival_lines(of)
    title = render("charts.survival.title")
    axis = render("charts.survival.time", unit=of.unit or "steps")
    is_smooth = of.method == LIFE_TABLE
    drawing = Drawing(
        title=title,
        draw=lambda: survival_chart(lines, axis, is_smooth=is_smooth),
        key="survival",
        says=render("charts.survival.curves", groups=", ".join(of.present)),
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
