"""Gains that joining could show at a site, before anybody trains: its own AUC by its rows, and the error of the gain.

One curve for all sites. Scores of a linear model are normal within each class. With `δ = √2 Φ⁻¹(AUC of the shared
model)`, a linear discriminant fitted on the site's rows alone has `AUC = Φ(δ² / √(2(δ² + d/e)))`. Within a class its
scores correlate with the shared model's by `δ / √(δ² + c/e)`. Here `1/e` is `1/w − 1/W`: `w` is the number of the
site's training rows with the outcome times those without, over all of them, and `W` is its sum over all sites.
docs/methods.md derives it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import mul
from statistics import NormalDist, fmean, quantiles
from typing import Any

from flfed.records.statistics.intervals import (
    NORMAL_95,
    ClassGain,
    WeightedGain,
    class_gain,
    mean_over_sites,
    student_t_bound,
    widening,
)
from flfed.records.statistics.verdict import LEAST_OF_A_CLASS, LEAST_SITES
from flfed.study.tables import HOLDOUT_SHARE

NORMAL = NormalDist()
POWER = 0.8
"""Power with which the least gain is shown."""
HALVINGS = 60
LEAST_FITTED = 4
"""Fewest sites with an error from which `c` is estimated."""
MEAN_DRAWS = 400
"""Draws of all sites' gains for the chance that their mean is clear."""
LEAST_VARIANCE = 1e-12
"""Of the difference of two models' placement values, where they are as good as equal."""
LEAST_EVENTS = 2
"""Fewest rows of either outcome at a site with a prediction."""


@dataclass(frozen=True)
class Range:
    """A number with the least and largest that studies had."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Range:
        """Return the range of a multiple."""
        return Range(factor * self.value, factor * self.low, factor * self.high)


STUDIES = 6
"""Tables of real data of which the next figures are the mean and the range (`benchmarks.predicted_gains`)."""
DIMENSIONS_A_COLUMN = Range(0.28, 0.0, 0.75)
"""`d` for each column of the model."""
UNLIKENESS_A_COLUMN = Range(1.45, 0.9, 1.9)
"""`c` for each column."""
SPREAD = 0.015
"""Standard deviation of the sites' gains about the curve."""


@dataclass(frozen=True)
class Curve:
    """The curve of own models by rows: `d` and `c`, each with its range over studies."""

    dimensions: Range
    unlikeness: Range

    @classmethod
    def of_columns(cls, columns: int) -> Curve:
        """Return the curve for models of so many columns, a category counted once."""
        return cls(DIMENSIONS_A_COLUMN.times(columns), UNLIKENESS_A_COLUMN.times(columns))

    @property
    def cases(self) -> tuple[tuple[float, float], ...]:
        """`d` and `c` of the expected gain, of the least and of the largest."""
        d = self.dimensions
        c = self.unlikeness
        return (d.value, c.value), (d.low, c.high), (d.high, c.low)


def fit_curve(
    sites: Sequence[SiteRows], errors: Sequence[float | None], gain: Range, design: Design, prior: Curve
) -> Curve:
    """Return the curve of a run.

    `d` makes the expected gain, weighted as a size class, that of the run; its range comes from the interval of the
    run's gain. `c` makes the predicted error that of the median site, with the quartiles of sites as range.

    Parameters
    ----------
    sites : sequence of SiteRows
    errors : sequence of float or None
        Of each site's gain on one split.
    gain : Range
        Mean gain over these sites with its interval.
    design : Design
        Of the run; errors are of one split.
    prior : Curve
        Whose `c` is kept where fewer than four sites have an error.
    """
    weight = math.fsum(site.test_weight for site in sites)

    def mean_gain(d: float) -> float:
        return math.fsum(site.test_weight * expected_gain(site, design, d) for site in sites) / weight

    ends = [_solve(mean_gain, of) for of in (gain.value, gain.low, gain.high)]
    single = replace(design, repeats=1)
    fitted = []
    for site, error in zip(sites, errors, strict=True):
        if error is not None:
            own = own_auc(design.auc, site.effective, ends[0])
            fitted.append(_solve(partial(error_at, site, single, own), error))
    unlikeness = prior.unlikeness
    if len(fitted) >= LEAST_FITTED:
        low, middle, high = quantiles(fitted, n=4)
        unlikeness = Range(middle, low, high)
    return Curve(Range(*ends), unlikeness)


def _solve(rising: Callable[[float], float], value: float, high: float = 1e6) -> float:
    """Return the argument from 0 to `high` at which a rising function has a value, or the nearer end."""
    low = 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if rising(middle) < value:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True)
class SiteRows:
    """Rows of a site: to train on, and test rows with the outcome and without; `elsewhere` is the others' weight."""

    training: float
    events: float
    others: float
    elsewhere: float = math.inf

    @property
    def weight(self) -> float:
        """Training rows with the outcome times those without, over all."""
        return self.training * self.test_weight / (self.events + self.others)

    @property
    def test_weight(self) -> float:
        """Test rows with the outcome times those without, over all: the site's weight in a size class."""
        return self.events * self.others / (self.events + self.others)

    @property
    def error_freedom(self) -> float:
        """Degrees of freedom of an error by DeLong's method, by Welch and Satterthwaite; 2 or more."""
        m = max(self.events, LEAST_EVENTS)
        n = max(self.others, LEAST_EVENTS)
        return (1 / m + 1 / n) ** 2 / (1 / (m * m * (m - 1)) + 1 / (n * n * (n - 1)))

    @property
    def effective(self) -> float:
        """Rows of which the error is that of the site's model about the shared one, which has the site's rows, too."""
        return self.weight * (1 + self.weight / self.elsewhere)


def of_one_study(sites: Sequence[SiteRows]) -> list[SiteRows]:
    """Return sites of which each knows the weight of all others; of a single site nothing is known."""
    total = math.fsum(site.weight for site in sites)
    return [replace(site, elsewhere=total - site.weight or math.inf) for site in sites]


def site_rows(rows: float, events: float) -> SiteRows:
    """Return the rows of a site, of which the usual share is held out; `events` of them have the outcome."""
    return SiteRows((1 - HOLDOUT_SHARE) * rows, HOLDOUT_SHARE * events, HOLDOUT_SHARE * (rows - events))


@dataclass(frozen=True)
class Design:
    """Basis of a site's verdict.

    Attributes
    ----------
    auc : float in (0.5, 1)
        AUC of the shared model.
    worthwhile : float, >= 0
        Gain above which joining pays.
    sites : int
        Sites looked at, for which each interval is widened.
    repeats : int
        Random splits of each site's rows.
    ratio : float
        Test rows per training row.
    """

    auc: float
    worthwhile: float = 0.005
    sites: int = 1
    repeats: int = 1
    ratio: float = HOLDOUT_SHARE / (1 - HOLDOUT_SHARE)

    @property
    def test_share(self) -> float:
        """Test rows over all rows."""
        return self.ratio / (1 + self.ratio)

    @property
    def shrinkage(self) -> float:
        """Error of the mean of all repeats over that of one.

        Source: Nadeau and Bengio 2003, equations 7 and 8.
        """
        return math.sqrt(self.test_share + (1 - self.test_share) / self.repeats)


def own_auc(auc: float, effective: float, dimensions: float) -> float:
    """Return the AUC that a model of a site's own rows is expected to have.

    Parameters
    ----------
    auc : float in (0.5, 1)
        That of the shared model.
    effective : float, > 0
        `SiteRows.effective`.
    dimensions : float, >= 0
        `d`: directions in which the site's model errs.

    Source: the expected AUC of a linear discriminant whose mean difference is estimated.

    Examples
    --------
    >>> round(own_auc(0.8, 40, 9.5), 3), round(own_auc(0.8, 1e9, 9.5), 6)
    (0.782, 0.8)
    """
    squared = 2 * NORMAL.inv_cdf(auc) ** 2
    return NORMAL.cdf(squared / math.sqrt(2 * (squared + dimensions / effective)))


def correlation(auc: float, effective: float, unlikeness: float) -> float:
    """Return the correlation, within a class, of the shared model's scores and the site model's.

    Examples
    --------
    >>> round(correlation(0.8, 40, 20), 3), round(correlation(0.8, 1e9, 20), 6)
    (0.86, 1.0)
    """
    squared = 2 * NORMAL.inv_cdf(auc) ** 2
    return math.sqrt(squared / (squared + unlikeness / effective))


def placement_covariance(auc: float, other: float, correlation: float) -> float:
    """Return the covariance of the placement values of two models' scores, of which DeLong's variance is made.

    Of scores that are normal within a class it is `Φ₂(a, b; ρ/2) − Φ(a) Φ(b)` with `a = Φ⁻¹(AUC)`, which is the
    integral of the bivariate normal density over its correlation from 0 to `ρ/2`.

    Source: DeLong, DeLong and Clarke-Pearson 1988; Plackett 1954, "A reduction formula for normal multivariate
    integrals".

    Examples
    --------
    >>> round(placement_covariance(0.5, 0.5, 1.0), 8)  # uniform on 0 to 1: 1/12
    0.08333333
    """
    from scipy.integrate import quad  # here, as the record is read without it

    a = NORMAL.inv_cdf(auc)
    b = NORMAL.inv_cdf(other)

    def density(r: float) -> float:
        rest = 1 - r * r
        return math.exp(-(a * a - 2 * r * a * b + b * b) / (2 * rest)) / (2 * math.pi * math.sqrt(rest))

    return float(quad(density, 0, correlation / 2)[0])


def gain_error(auc: float, own: float, correlation: float, events: float, others: float) -> float:
    """Return the standard error of the difference of two AUCs on the same test rows.

    Parameters
    ----------
    auc, own : float in (0, 1)
    correlation : float in [0, 1]
        Of both models' scores within a class.
    events, others : float, > 0
        Test rows with the outcome and without.
    """
    apart = placement_covariance(auc, auc, 1.0) + placement_covariance(own, own, 1.0)
    apart -= 2 * placement_covariance(auc, own, correlation)
    return math.sqrt(max(apart, LEAST_VARIANCE) * (1 / events + 1 / others))


def error_at(site: SiteRows, design: Design, own: float, unlikeness: float) -> float:
    """Return the standard error of a site's gain where its own model has this AUC."""
    alike = correlation(design.auc, site.effective, unlikeness)
    return gain_error(design.auc, own, alike, site.events, site.others) * design.shrinkage


def expected_gain(site: SiteRows, design: Design, dimensions: float) -> float:
    """Return the gain in AUC that a site is expected to have from joining."""
    return design.auc - own_auc(design.auc, site.effective, dimensions)


def power(site: SiteRows, design: Design, gain: float, unlikeness: float, spread: float = 0.0) -> float:
    """Return the chance of the verdict that joining pays at a site.

    Parameters
    ----------
    site : SiteRows
    design : Design
    gain : float
        Expected gain in AUC.
    unlikeness : float
    spread : float, >= 0
        Standard deviation of such sites' gains about it.
    """
    error = error_at(site, design, design.auc - gain, unlikeness)
    return NORMAL.cdf((gain - design.worthwhile - quantile_at(site, design) * error) / math.hypot(error, spread))


def quantile_at(site: SiteRows, design: Design) -> float:
    """Return the errors between a site's gain and the lower end of its interval, as they are on average.

    With few events the error by DeLong's method varies itself, as that of two means does: Student's t.
    """
    freedom = site.error_freedom if design.repeats < 2 else design.repeats - 1
    return student_t_bound(freedom) * widening(design.sites, freedom)


def least_gain(site: SiteRows, design: Design, unlikeness: float) -> float | None:
    """Return the least gain that a site's test rows show with 80 % power, None where they show none."""
    most = design.auc - 0.5
    if power(site, design, most, unlikeness) < POWER:
        return None
    return _solve(lambda gain: power(site, design, gain, unlikeness), POWER, most)


def count_test_rows(site: SiteRows, design: Design, gain: float, unlikeness: float) -> int:
    """Return the test rows with which a site shows a gain with 80 % power, its share of events as it is."""
    reach = (quantile_at(site, design) + NORMAL.inv_cdf(POWER)) * error_at(site, design, design.auc - gain, unlikeness)
    return math.ceil((site.events + site.others) * (reach / (gain - design.worthwhile)) ** 2)


@dataclass(frozen=True)
class Outlook:
    """Gains that a study could show at a site.

    Attributes
    ----------
    expected : Range
        Gain in AUC; its 95 % interval is that of the figure which such a study measures there.
    least : Range or None
        Least gain shown with 80 % power; None where the test rows show none.
    power : Range
        Chance of the verdict that joining pays.
    test_rows : int
        Test rows with which it would show a gain of twice the minimum.
    """

    expected: Range
    least: Range | None
    power: Range
    test_rows: int


def measured_range(site: SiteRows, design: Design, curve: Curve) -> Range:
    """Return a site's expected gain, with the 95 % interval of the figure that a study measures there.

    The range of the curve and the error of the figure are independent, so their squares add.
    """
    gain, low, high = (expected_gain(site, design, d) for d, _ in curve.cases)
    reach = NORMAL_95 * math.hypot(error_at(site, design, design.auc - gain, curve.unlikeness.value), SPREAD)
    return Range(gain, gain - math.hypot(gain - low, reach), gain + math.hypot(high - gain, reach))


def outlook(site: SiteRows, design: Design, curve: Curve) -> Outlook:
    """Return the gains that a study could show at a site."""
    unlikeness = curve.unlikeness
    least = [least_gain(site, design, c) for c in (unlikeness.value, unlikeness.low, unlikeness.high)]
    return Outlook(
        expected=measured_range(site, design, curve),
        least=None if None in least else Range(*(each or 0.0 for each in least)),
        power=Range(*(power(site, design, expected_gain(site, design, d), c, SPREAD) for d, c in curve.cases)),
        test_rows=count_test_rows(site, design, 2 * design.worthwhile or 0.01, unlikeness.value),
    )


def class_outlook(sites: Sequence[SiteRows], classes: int, design: Design, curve: Curve) -> tuple[Range, Range] | None:
    """Return expected gain over the sites of a size class and the chance that it is clear, None of too few sites.

    The gain's interval is that of `intervals.class_gain` in such a study.

    Parameters
    ----------
    sites : sequence of SiteRows
    classes : int, >= 1
        Number of classes, for which the interval is widened.
    design : Design
    curve : Curve
    """
    weights = [site.test_weight for site in sites]

    def measure(gains: Sequence[float], errors: Sequence[float]) -> ClassGain:
        return class_gain(list(map(WeightedGain, weights, map(mul, weights, gains))), classes)

    if measure([0.0] * len(sites), ()).value is None:
        return None
    return _outlook_over(measure, sites, design, curve)


def mean_outlook(sites: Sequence[SiteRows], design: Design, curve: Curve) -> tuple[Range, Range] | None:
    """Return expected mean gain and the chance that it is clear, None of too few sites.

    The mean is that of `intervals.mean_over_sites`, over sites with ten test rows of each outcome or more. The gain's
    interval is that of the mean which such a study measures.
    """
    judged = [site for site in sites if min(site.events, site.others) >= LEAST_OF_A_CLASS]
    if len(judged) < LEAST_SITES:
        return None
    return _outlook_over(mean_over_sites, judged, design, curve)


def _outlook_over(
    measure: Callable[..., Any], sites: Sequence[SiteRows], design: Design, curve: Curve
) -> tuple[Range, Range]:
    """Return the expected gain over some sites and the chance that it is clear, by the cases of a curve."""
    drawn = []
    for d, c in curve.cases:
        expected = [expected_gain(site, design, d) for site in sites]
        drawn.append(draw_mean(measure, sites, expected, design, c, SPREAD))
    (middle, chance), (least, low), (most, high) = drawn
    down, up = (math.hypot(end.mean - middle.mean, NORMAL_95 * end.stdev) for end in (least, most))
    return Range(middle.mean, middle.mean - down, middle.mean + up), Range(chance, low, high)


def draw_mean(
    measure: Callable[..., Any],
    sites: Sequence[SiteRows],
    gains: Sequence[float],
    design: Design,
    c: float,
    spread: float,
) -> tuple[NormalDist, float]:
    """Return the gain over sites that a study would measure and the chance that it is clear, by draws.

    The verdict's own rule decides which draws are clear. It estimates the spread between sites; a formula that takes
    the spread as known has too high or too low a chance.

    Parameters
    ----------
    measure : callable (gains, errors)
        The rule, such as `intervals.mean_over_sites`.
    sites : sequence of SiteRows, two or more
    gains : sequence of float
        Expected gain in AUC at each.
    design : Design
    c : float
    spread : float, >= 0
        Standard deviation of such sites' gains about the expected ones.
    """
    source = random.Random(0)  # the same draws each time: a page shows the same figure again
    places = []
    for site, gain in zip(sites, gains, strict=True):
        places += [(gain, error_at(site, design, design.auc - gain, c), site.error_freedom / 2)]
    measured = []
    for _ in range(MEAN_DRAWS):
        drawn = [source.gauss(gain, math.hypot(error, spread)) for gain, error, _ in places]
        estimated = [error * math.sqrt(source.gammavariate(half, 1 / half)) for _, error, half in places]
        measured.append(measure(drawn, estimated))
    clear = fmean(mean.low > design.worthwhile for mean in measured)
    return NormalDist.from_samples([mean.value for mean in measured]), clear
