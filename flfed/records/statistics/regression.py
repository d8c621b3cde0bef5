"""Recorded coefficients of a model fitted over visits, as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import Any

from flfed.errors import counted
from flfed.records.objects import read
from flfed.records.section import Lines
from flfed.records.statistics.verdict import decimals_beside, decimals_of, format_p, interval, number
from flfed.words import render

INTERCEPT = "intercept"
RATIOS = {"binomial": "odds ratio", "poisson": "rate ratio", "cox": "hazard ratio"}
"""What the exponential of a coefficient is, by family."""
DIFFERENCE = "difference"
LARGEST_LOGARITHM = 700.0
"""Of a ratio that float64 has."""
OVERDISPERSED = 1.5
"""Pearson's χ² for each degree of freedom above which a Poisson model's errors are too small."""


@dataclass(frozen=True, kw_only=True)
class Coefficient:
    """A coefficient with its error, interval and p-value."""

    value: float
    standard_error: float
    low: float
    high: float
    p: float

    @property
    def conclusion(self) -> str:
        """Whether its interval is on one side of 0, in words."""
        if self.low > 0 or self.high < 0:
            return render("report.regression.shown")
        return render("report.regression.unclear")


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """Recorded model of all sites."""

    family: str
    outcome: str
    coefficients: dict[str, Coefficient]
    sites: int
    visits: int
    rows: int
    rows_left_out: int = 0
    deviance: float
    degrees_of_freedom: int = 0
    aic: float
    events: int = 0
    robust: bool = False
    intercept_of: str = "all"
    sites_of_one_outcome: int = 0
    dispersion: float | None = None

    @property
    def effect(self) -> str:
        """What a coefficient is shown as: a ratio, or a difference."""
        return RATIOS.get(self.family, DIFFERENCE)

    def effects(self) -> dict[str, tuple[float, float, float]]:
        """Return each column's ratio or difference with its interval; the intercept has none.

        Nor has a ratio for one unit that is too large for a number: the column needs a smaller unit.
        """
        effects = {}
        for name, one in self.coefficients.items():
            if name == INTERCEPT:
                continue
            if self.family not in RATIOS:
                effects[name] = (one.value, one.low, one.high)
            elif max(abs(one.low), abs(one.high)) <= LARGEST_LOGARITHM:
                effects[name] = (exp(one.value), exp(one.low), exp(one.high))
        return effects


def coefficient_lines(statistic: Mapping[str, Any]) -> Lines:
    """Return a line for each coefficient."""
    model = read(Coefficients, statistic)
    effects = model.effects()
    heading = f"{model.effect.capitalize()} (95 % CI)"
    lines = []
    for name, one in model.coefficients.items():
        line = {"Column": name, heading: "", "p": format_p(one.p).removeprefix("p = ").removeprefix("p ")}
        if name in effects:
            line[heading] = _with_ends(*effects[name])
        decimals = decimals_beside((one.value, one.standard_error), decimals_of(one.value, one.standard_error))
        line["Coefficient (standard error)"] = f"{number(one.value, decimals)} ({number(one.standard_error, decimals)})"
        lines.append(line)
    return lines


def coefficients_in_words(statistic: Mapping[str, Any]) -> list[str]:
    """Return the first column's effect, and what the model rests on."""
    model = read(Coefficients, statistic)
    effects = model.effects()
    if not effects:
        return [render("report.regression.units")]
    name = next(iter(effects))
    one = model.coefficients[name]
    value, _, ends = _with_ends(*effects[name]).partition(" (")
    facts = {"effect": model.effect, "outcome": model.outcome, "column": name, "value": value}
    facts |= {"interval": ends.rstrip(")"), "p": format_p(one.p), "conclusion": one.conclusion}
    first = render("report.regression.effect", **facts)
    basis = {"rows": counted(model.rows, "row"), "sites": counted(model.sites, "site"), "visits": model.visits}
    basis |= {"deviance": number(model.deviance, 2), "freedom": model.degrees_of_freedom, "aic": number(model.aic, 2)}
    key = "basis"
    if model.family == "cox":
        key = "hazards"
        basis["events"] = counted(model.events, "event")
    lines = [first, render(f"report.regression.{key}", **basis)]
    if model.rows_left_out:
        lines.append(render("report.regression.omitted", rows=counted(model.rows_left_out, "row")))
    if model.robust:
        lines.append(render("report.regression.robust"))
    if model.intercept_of == "site" and model.family != "cox":
        lines.append(render("report.regression.intercepts"))
    if model.sites_of_one_outcome:
        lines.append(render("report.regression.constant", sites=counted(model.sites_of_one_outcome, "site")))
    if model.dispersion is not None and model.dispersion > OVERDISPERSED and not model.robust:
        lines.append(render("report.regression.dispersion", dispersion=number(model.dispersion)))
    lines.append(render("report.regression.adjusted"))
    return lines


def effect_decimals(value: float, low: float, high: float) -> int:
    """Return the decimals of an effect and its interval, of which none reads as 0 or 1 that is neither."""
    return decimals_beside((value, low, high), decimals_of(value, low, high), marks=(0.0, 1.0))


def _with_ends(value: float, low: float, high: float) -> str:
    """Return an effect with its interval."""
    decimals = effect_decimals(value, low, high)
    return f"{number(value, decimals)} ({interval(low, high, decimals)})"
