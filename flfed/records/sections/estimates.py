"""Chart of a model's coefficients: ratios or differences, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flfed.records.charts.by_site import effect_chart
from flfed.records.objects import read
from flfed.records.section import Drawing, Section
from flfed.records.statistics.regression import RATIOS, Coefficients, coefficient_lines, effect_decimals
from flfed.records.statistics.verdict import number, sentence_case
from flfed.words import render


def estimates(statistic: Mapping[str, Any]) -> Section | None:
    """Return the forest plot of a recorded model's coefficients, None of another statistic."""
    if "coefficients" not in statistic:
        return None
    model = read(Coefficients, statistic)
    lines = []
    for name, (value, low, high) in model.effects().items():
        text = number(value, effect_decimals(value, low, high))
        lines.append({"name": name, "value": value, "low": low, "high": high, "shown": text})
    is_ratio = model.family in RATIOS
    title = render("charts.axes.effect", effect=model.effect, outcome=model.outcome)
    draw = partial(effect_chart, lines, title, is_ratio=is_ratio)
    says = render("charts.axes.effect-says", effect=model.effect, columns=len(lines))
    table = coefficient_lines(statistic)
    drawing = Drawing(title=sentence_case(title), draw=draw, key="coefficients", says=says, lines=table)
    return Section(title=model.effect.capitalize(), charts=(drawing,))
