"""Recorded coefficients of a model fitted over visits, beside the averages of the sites' own fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any

from flfed.records.objects import read
from flfed.records.section import Lines
from flfed.records.statistics.intervals import inverse_variance_mean, mean_over_sites
from flfed.records.statistics.verdict import decimals_beside, decimals_of, format_p, interval, number
from flfed.study.kinds import absent_effects
from flfed.words import counted, render

LEAST_FITS = 2
"""Own fits that an average needs."""
INTERCEPT = "intercept"
RATIOS = {"binomial": "odds ratio", "poisson": "rate ratio", "cox": "hazard ratio"}
"""What the exponential of a coefficient is, by family."""
DIFFERENCE = "difference"
LARGEST_LOGARITHM = 700.0
"""Of a ratio that float64 has."""
OVERDISPERSED = 1.5
"""Pearson's χ² for each degree of freedom above which a Poisson model's errors are too small."""


@dataclass(frozen=True)
class Estimate:
    """A coefficient with its standard error."""

    value: float
    standard_error: float


Estimates = Mapping[str, Estimate]
"""Estimates by the name of their coefficient."""


@dataclass(frozen=True, kw_only=True)
class RandomEffects:
    """Recorded random-effects mean of the sites' own coefficients, with its interval and I²."""

    value: float
    low: float
    high: float
    i2: float


@dataclass(frozen=True, kw_only=True)
class Average:
    """Recorded average of the sites' own coefficients.

    Attributes
    ----------
    value, standard_error : float
        Mean by inverse variance.
    distance : float
        From the coefficient of all rows, in standard errors of that.
    random_effects : RandomEffects
    """

    value: float
    standard_error: float
    distance: float
    random_effects: RandomEffects


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """Recorded averages, or why there are none."""

    own_fits: int = 0
    sites_without_fit: int = 0
    coefficients: dict[str, Average] = field(default_factory=dict)
    why: str = ""

    @property
    def farthest(self) -> str:
        """Name of the coefficient whose average is farthest from that of all rows."""
        return max(self.coefficients, key=lambda name: abs(self.coefficients[name].distance))


def average_fits(fits: Mapping[str, Estimates], sites: int, of_all: Estimates) -> Averaging:
    """Return the averages of own fits.

    Parameters
    ----------
    fits : mapping of site to estimates by name
        Of sites that have a fit.
    sites : int
        All sites of the estimate.
    of_all : mapping of name to Estimate
        Of all rows.

    Source: DerSimonian and Laird 1986, "Meta-analysis in clinical trials" (mean by inverse variance).
    """
    if len(fits) < LEAST_FITS:
        why = render("report.averaging.few", fits=len(fits), sites=sites)
        return Averaging(own_fits=len(fits), sites_without_fit=sites - len(fits), why=why)
    averages = {}
    for name, one in of_all.items():
        averages[name] = _average([own[name] for own in fits.values()], one)
    return Averaging(own_fits=len(fits), sites_without_fit=sites - len(fits), coefficients=averages)


def _average(own: Sequence[Estimate], of_all: Estimate) -> Average:
    values = [one.value for one in own]
    errors = [one.standard_error for one in own]
    _, total, mean = inverse_variance_mean(values, errors)
    random = mean_over_sites(values, errors)
    return Average(
        value=mean,
        standard_error=1 / math.sqrt(total),
        distance=(mean - of_all.value) / of_all.standard_error,
        random_effects=RandomEffects(value=random.value, low=random.low, high=random.high, i2=random.i2),
    )


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
    averaging: Averaging = field(default_factory=Averaging)

    @property
    def effect(self) -> str:
        """What a coefficient is shown as: a ratio, or a difference."""
        return RATIOS.get(self.family, DIFFERENCE)

    def effects(self) -> dict[str, tuple[float, ...]]:
        """Return each column's ratio or difference with its interval; the intercept has none.

        Nor has a ratio for one unit that is too large for a number: the column needs a smaller unit.
        """
        effects = {}
        for name, one in self.coefficients.items():
            effect = self.effect_of(one.value, one.low, one.high)
            if name != INTERCEPT and effect:
                effects[name] = effect
        return effects

    def effect_of(self, *values: float) -> tuple[float, ...]:
        """Return what coefficients are shown as; nothing where a ratio is too large for a number."""
        if self.family not in RATIOS:
            return values
        if max(map(abs, values)) > LARGEST_LOGARITHM:
            return ()
        return tuple(map(exp, values))


def coefficient_lines(statistic: Mapping[str, Any]) -> Lines:
    """Return a line for each coefficient."""
    model = read(Coefficients, statistic)
    effects = model.effects()
    heading = f"{model.effect.capitalize()} (95 % CI)"
    lines = []
    for name, one in model.coefficients.items():
        line = {"Column": name, heading: "", "p": format_p(one.p).removeprefix("p = ").removeprefix("p ")}
        if name in effects:
            line[heading] = with_ends(*effects[name])
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
    facts = {"effect": model.effect, "column": name, **effect_in_words(*effects[name]), "conclusion": one.conclusion}
    first = render("report.regression.effect", outcome=model.outcome, p=format_p(one.p), **facts)
    basis = vars(model) | {
        "rows": counted(model.rows, "row"),
        "sites": counted(model.sites, "site"),
        "events": counted(model.events, "event"),
        "deviance": number(model.deviance, 2),
        "aic": number(model.aic, 2),
    }
    key = "hazards" if model.family == "cox" else "basis"
    lines = [first, *absent_effects(model.coefficients), render(f"report.regression.{key}", **basis)]
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
    return [*lines, *_averaging_in_words(model)]


def averaging_lines(statistic: Mapping[str, Any]) -> Lines:
    """Return a line for the average of each coefficient of the sites' own fits."""
    model = read(Coefficients, statistic)
    lines = []
    for name, one in model.averaging.coefficients.items():
        random = one.random_effects
        average = model.effect_of(one.value)
        ends = model.effect_of(random.value, random.low, random.high)
        between = ""
        if ends:
            between = with_ends(*ends)
        line = {
            "Column": name,
            f"Average {model.effect}": "".join(map(number, average)),
            "Standard errors apart": number(one.distance, 2),
            "Random effects (95 % CI)": between,
            "I²": f"{number(100 * random.i2, 0)} %",
        }
        lines.append(line)
    return lines


def _averaging_in_words(model: Coefficients) -> list[str]:
    """Return by how much an average of own fits is off, or why there is none."""
    averaging = model.averaging
    if not averaging.coefficients:
        return [averaging.why] if averaging.why else []
    name = averaging.farthest
    average = averaging.coefficients[name]
    facts = {"fits": averaging.own_fits, "sites": counted(model.sites, "site"), "column": name}
    shown = model.effect_of(average.value)
    facts |= {"effect": model.effect, "value": "".join(map(number, shown))}
    if not shown:
        facts |= {"effect": "a coefficient of", "value": number(average.value)}
    facts["distance"] = number(abs(average.distance), 2)
    lines = [render("report.averaging.farthest", **facts)]
    if averaging.sites_without_fit:
        lines.append(render("report.averaging.absent", sites=counted(averaging.sites_without_fit, "site")))
    return lines


def effect_in_words(value: float, low: float, high: float) -> dict[str, str]:
    """Return an effect and its interval, of which none reads as 0 or 1 that is neither."""
    decimals = decimals_beside((value, low, high), decimals_of(value, low, high), marks=(0.0, 1.0))
    return {"value": number(value, decimals), "interval": interval(low, high, decimals)}


def with_ends(value: float, low: float, high: float) -> str:
    """Return an effect with its interval."""
    return "{value} ({interval})".format(**effect_in_words(value, low, high))
