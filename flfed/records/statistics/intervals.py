"""Means and intervals over repeats or sites."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

LEVEL = 0.95
NORMAL_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""
SHARES = ("auc_score", "accuracy_score", "precision_score", "brier_score_loss", "recall_at_alert_budget", "f1_score")
"""Ends of the names of metrics that lie between 0 and 1."""
ERRORS = ("loss", "error")
"""Ends of the names of metrics that are never below 0."""
STEPS = 100
"""Most steps of Newton's method."""
LEAST_CLASS_SITES = 8
"""Fewest sites with pairs for a mean over a class."""
LEAST_FREEDOM = 4.0
"""Fewest degrees of freedom of its interval."""


def student_t_within(t: float, freedom: int) -> float:
    """Return P(|T| <= t) for Student's t.

    `t` is at least 0.

    Examples
    --------
    >>> round(student_t_within(1.0, 1), 12)  # Cauchy: half of it lies within 1
    0.5
    """
    from scipy.special import stdtr  # here, as the record is read without it

    return 1 - 2 * float(stdtr(freedom, -t))


def student_t_bound(freedom: float, level: float = LEVEL) -> float:
    """Return the t with P(|T| <= t) = `level`.

    Examples
    --------
    >>> round(student_t_bound(9), 3)
    2.262
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def resplit_interval(values: Sequence[float], ratio: float) -> tuple[float, float, float, float]:
    """Return mean, ends of the interval and p-value of differences on random splits of the same rows.

    `mean ± t * sd * sqrt(1 / R + ratio)`: the splits share most of their rows, so the plain
    standard error `sd / sqrt(R)` would be far too small and would shrink with mere repetition.

    Parameters
    ----------
    values : sequence of float, two or more
        One difference per split.
    ratio : float, > 0
        Holdout rows per training row.

    Source: Nadeau & Bengio 2003, "Inference for the Generalization Error", equation 8.
    """
    mean = fmean(values)
    scale = stdev(values) * math.sqrt(1 / len(values) + ratio)
    reach = student_t_bound(len(values) - 1) * scale
    # Equal differences at all splits leave no t to compute.
    if scale == 0:
        return mean, mean, mean, float(mean == 0)
    p = 1 - student_t_within(abs(mean) / scale, len(values) - 1)
    return mean, mean - reach, mean + reach, max(p, 0.0)


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the known values or None.

    Examples
    --------
    >>> mean_of([1.0, None, 2.0]), mean_of([None])
    (1.5, None)
    """
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def sd_of(values: Sequence[float | None]) -> float | None:
    """Return the sample standard deviation of the known values, None for fewer than two.

    Examples
    --------
    >>> sd_of([1.0, 3.0, None]) == 2**0.5, sd_of([1.0])
    (True, None)
    """
    there = [value for value in values if value is not None]
    return stdev(there) if len(there) > 1 else None


def possible(metric: str, bound: float | None, *, difference: bool = False) -> float | None:
    """Clip an interval's bound to the metric's range.

    With `difference` the range is that of a difference of two values of the metric.

    Examples
    --------
    >>> possible("roc_auc_score", 1.04), possible("log_loss", 1.04), possible("log_loss", -0.2)
    (1.0, 1.04, 0.0)
    >>> possible("r2_score", 1.04), possible("r2_score", -1.4)
    (1.0, -1.4)
    >>> possible("roc_auc_score", -0.2, difference=True), possible("roc_auc_score", -1.58, difference=True)
    (-0.2, -1.0)
    """
    if bound is None:
        return None
    share = metric.endswith(SHARES)
    # Errors have no upper end, and their differences no lower one.
    if share or (metric.endswith(ERRORS) and not difference):
        bound = max(bound, -1.0 if difference else 0.0)
    return min(bound, 1.0) if share or (metric == "r2_score" and not difference) else bound


def standard_error(metric: str, value: float | None, low: float | None, high: float | None) -> float | None:
    """Return the standard error behind a normal 95 % interval of a difference, None where unknown.

    The longer of its two arms counts: the other may have been cut to the metric's range.

    Examples
    --------
    >>> standard_error("log_loss", 0.1, 0.1 - NORMAL_95, 0.1 + NORMAL_95)
    1.0
    >>> standard_error("roc_auc_score", 0.1, -1.0, 1.0), standard_error("roc_auc_score", 0.0, 0.0, 0.0)
    (None, None)
    """
    if value is None or low is None or high is None or high <= low:
        return None
    # An interval of all possible differences was cut at both ends and has no error.
    if metric.endswith(SHARES) and (low, high) == (-1.0, 1.0):
        return None
    return max(value - low, high - value) / NORMAL_95


@dataclass(frozen=True)
class MeanOverSites:
    """Mean gain over sites and their spread.

    Attributes
    ----------
    value, low, high : float
        The mean over sites like these, with its 95 % interval.
    between : float, >= 0
        Standard deviation of the sites' own gains about it, beyond what each one's uncertainty explains.
    alike : float
        The p-value of Cochran's test that all sites gain the same.
    i2 : float, 0 to 1
        I², the share of the sites' weighted squares that their errors do not explain.
    """

    value: float
    low: float
    high: float
    between: float
    alike: float
    i2: float


def mean_over_sites(values: Sequence[float], errors: Sequence[float]) -> MeanOverSites:
    """Return the random-effects mean of the sites' gains, with an interval for few sites of unequal precision.

    Random effects: each site's own gain is a draw from those of sites like these, and is measured
    with its own error; sites are independent of each other. Weights `1 / (error**2 + between**2)`.
    The interval is that of Hartung and Knapp: Student's t with one degree of freedom less than
    there are sites. Their factor is 1 with this variance between sites, and is left at 1 where the
    sites agree better than their errors explain, for few sites agree by chance.

    Its coverage is stated in the report (`report.mean.coverage`) and measured in tests/records/test_mean_gain.py.
    It does not include an error that all sites have in common, such as that of the one shared model.

    Parameters
    ----------
    values : sequence of float, two or more
        The gain measured at each site.
    errors : sequence of float, > 0
        Standard error of each.

    Source: Paule and Mandel 1982 (variance between sites), by the steps of DerSimonian and Kacker
    2007; Cochran 1954 (test); Knapp and Hartung 2003, "Improved tests for a random effects
    meta-regression with a single covariate"; Roever, Knapp and Friede 2015, BMC Medical Research
    Methodology 15:99 (factor); Higgins and Thompson 2002 (I²).

    Examples
    --------
    >>> mean_over_sites([0.1, 0.1, 0.1], [0.02, 0.02, 0.02]).between
    0.0
    """
    freedom = len(values) - 1
    # Cochran's test is of weights without a variance between sites.
    apart, total, mean = inverse_variance_mean(values, errors)
    squares = math.fsum(apart)
    alike = chi_squared_beyond(squares, freedom)
    i2 = 1 - freedom / squares if squares > freedom else 0.0
    between = variance_between(values, errors)
    _, total, mean = inverse_variance_mean(values, errors, between)
    reach = student_t_bound(freedom) / math.sqrt(total)
    return MeanOverSites(mean, mean - reach, mean + reach, math.sqrt(between), alike, i2)


def prediction_interval(mean: MeanOverSites, sites: int) -> tuple[float, float]:
    """Return the 95 % interval of the value at another site like these.

    `mean ± t * sqrt(between**2 + error**2)`, with two degrees of freedom less than there are sites.

    Parameters
    ----------
    mean : MeanOverSites
    sites : int, >= 3
        Sites in the mean.

    Source: Higgins, Thompson and Spiegelhalter 2009, "A re-evaluation of random-effects meta-analysis"; Debray et al.
    2017, "A guide to systematic review and meta-analysis of prediction model performance".
    """
    error = (mean.high - mean.value) / student_t_bound(sites - 1)
    reach = student_t_bound(sites - 2) * math.hypot(mean.between, error)
    return mean.value - reach, mean.value + reach


def variance_between(values: Sequence[float], errors: Sequence[float], mean: float | None = None) -> float:
    """Return the variance between sites with which their weighted squares have the expected size.

    Parameters
    ----------
    values : sequence of float, two or more; one where the mean is known
    errors : sequence of float, > 0
        Standard error of each.
    mean : float, optional
        Mean of all sites' values, where known; else it is estimated from them.

    Source: Paule and Mandel 1982, by the steps of DerSimonian and Kacker 2007.

    Examples
    --------
    >>> variance_between([0.3, -0.3], [0.1, 0.1]), variance_between([0.3, 0.3], [0.1, 0.1])
    (0.17, 0.0)
    >>> round(variance_between([0.3, 0.3], [0.1, 0.1], mean=0.0), 12)
    0.08
    """
    between = 0.0
    expected = len(values) - (mean is None)
    # Newton's method on the excess of the weighted squares over their expectation.
    for _ in range(STEPS):
        apart, _, _ = inverse_variance_mean(values, errors, between, mean)
        left = math.fsum(apart) - expected
        if left <= 0 and not between:
            break  # the errors explain the distances of the sites
        step = left / math.fsum(square / (error**2 + between) for square, error in zip(apart, errors, strict=True))
        between = max(between + step, 0.0)
        if abs(step) <= 1e-12 * between:
            break
    return between


def inverse_variance_mean(
    values: Sequence[float], errors: Sequence[float], between: float = 0.0, mean: float | None = None
) -> tuple[list[float], float, float]:
    """Return weighted squares about the mean, sum of weights and mean, by weights `1 / (error**2 + between)`."""
    weights = [1 / (error**2 + between) for error in errors]
    total = math.fsum(weights)
    if mean is None:
        mean = math.fsum(weight * value for weight, value in zip(weights, values, strict=True)) / total
    return [weight * (value - mean) ** 2 for weight, value in zip(weights, values, strict=True)], total, mean


def chi_squared_beyond(x: float, freedom: int) -> float:
    """Return P(X > x) for chi-squared.

    `x` is at least 0.

    Examples
    --------
    >>> round(chi_squared_beyond(3.841458820694124, 1), 12), round(chi_squared_beyond(5.991464547107979, 2), 12)
    (0.05, 0.05)
    """
    from scipy.special import chdtrc

    return float(chdtrc(freedom, x))


def freedom_of(method: str) -> int | None:
    """Return the degrees of freedom of Student's t of a difference over blocks of time, None for another.

    Examples
    --------
    >>> freedom_of("12 independent blocks of time"), freedom_of("DeLong")
    (11, None)
    """
    match = re.fullmatch(r"(\d+) independent blocks of time", method)
    return None if match is None else int(match[1]) - 1


def widening(comparisons: int, freedom: float | None = None) -> float:
    """Return the Bonferroni factor that widens an interval where the best of several is looked at.

    Parameters
    ----------
    comparisons : int, >= 1
        Number of intervals looked at, which then hold together with 95 %.
    freedom : float, optional
        Degrees of freedom of Student's t; None for a normal interval.

    Examples
    --------
    >>> widening(1), round(widening(8), 3), round(widening(8, 2), 3)
    (1.0, 1.395, 2.926)
    """
    level = 1 - (1 - LEVEL) / comparisons
    # Student's t has heavier tails, so that its factor is larger than the normal one.
    if freedom is not None:
        return student_t_bound(freedom, level) / student_t_bound(freedom)
    return NormalDist().inv_cdf((1 + level) / 2) / NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class WeightedGain:
    """Gain of a site with its weight, each a mean over the site's repeats.

    Attributes
    ----------
    weight : float, >= 0
        Of an AUC, test rows with the outcome times those without, over all of them; 0 without a pair.
    product : float
        Weight times gain.
    """

    weight: float
    product: float


@dataclass(frozen=True)
class ClassGain:
    """Mean gain over the sites of a class, with a 95 % interval widened for the number of classes.

    Attributes
    ----------
    value, low, high : float or None
        None where the class has too few sites with pairs.
    freedom : float or None
        Degrees of freedom of Student's t.
    sites : int
        Sites with pairs.
    """

    sites: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    freedom: float | None = None


def weigh_auc(others: int, events: int) -> float:
    """Return the weight of a site's AUC: test rows without the outcome times those with it, over all of them."""
    return others * events / max(others + events, 1)


def class_gain(sites: Sequence[WeightedGain], classes: int) -> ClassGain:
    """Return the weighted mean gain over sites, with an interval that is robust to what each site's error is.

    With `G = Σwg / Σw` and `n = (Σw)² / Σw²` (Kish's effective number of sites), the variance of `G` is
    `Σ(wg − Gw)² / (Σw)² · n / (n − 1)`, and the interval is Student's t with `n − 1` degrees of freedom. The factor
    makes it unbiased where the variance of each site's gain is inverse to its weight; where sites differ beyond that,
    the squares hold the difference, too.

    Parameters
    ----------
    sites : sequence of WeightedGain
        A site of weight 0 counts for nothing.
    classes : int, >= 1
        Number of classes looked at, for which the interval is widened (Bonferroni).

    Source: Cochran 1977, "Sampling Techniques", section 6.4 (ratio estimate); Kish 1965, "Survey Sampling",
    section 8.2; HC estimators as Long and Ervin 2000, The American Statistician 54:217.

    Examples
    --------
    >>> mean = class_gain([WeightedGain(2.0, 0.2), WeightedGain(2.0, 0.4)] * 4, classes=1)
    >>> round(mean.value, 12), round(mean.freedom, 12), mean.sites
    (0.15, 7.0, 8)
    >>> class_gain([WeightedGain(2.0, 0.2)] * 7 + [WeightedGain(0.0, 0.0)], classes=1).value is None
    True
    """
    pairs = [site for site in sites if site.weight > 0]
    if len(pairs) < LEAST_CLASS_SITES:
        return ClassGain(len(pairs))
    total = math.fsum(site.weight for site in pairs)
    effective = total**2 / math.fsum(site.weight**2 for site in pairs)
    freedom = effective - 1
    if freedom < LEAST_FREEDOM:
        return ClassGain(len(pairs), freedom=freedom)
    gain = math.fsum(site.product for site in pairs) / total
    squares = math.fsum((site.product - gain * site.weight) ** 2 for site in pairs)
    error = math.sqrt(squares * effective / freedom) / total
    reach = student_t_bound(freedom) * widening(classes, freedom) * error
    return ClassGain(len(pairs), gain, gain - reach, gain + reach, freedom)
