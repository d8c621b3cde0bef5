"""What several repeats say together: a mean and an interval that does not pretend they are independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

LEVEL = 0.95
NORMAL_95 = 1.959963984540054
"""Of a standard normal variable 95 % lie within so much of 0."""


def student_t_within(t: float, freedom: int) -> float:
    """Return P(|T| <= t) for Student's t with a whole number of degrees of freedom.

    Parameters
    ----------
    t : float, >= 0
    freedom : int, >= 1

    Source: Abramowitz & Stegun 1964, 26.7.3 (odd) and 26.7.4 (even); finite sums, so exact.

    Examples
    --------
    >>> round(student_t_within(1.0, 1), 12)  # Cauchy: half of it lies within 1
    0.5
    """
    angle = math.atan2(t, math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def student_t_bound(freedom: int, level: float = LEVEL) -> float:
    """Return the t with P(|T| <= t) = `level`, by bisection.

    Examples
    --------
    >>> round(student_t_bound(9), 3)
    2.262
    """
    low, high = 0.0, 1.0
    while student_t_within(high, freedom) < level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_within(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def resplit_interval(values: Sequence[float], ratio: float) -> tuple[float, float, float, float]:
    """Return (mean, low, high, p) of differences measured on several random splits of the same rows.

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
    mean, scale = fmean(values), stdev(values) * math.sqrt(1 / len(values) + ratio)
    reach = student_t_bound(len(values) - 1) * scale
    if scale == 0:
        return mean, mean, mean, float(mean == 0)
    p = 1 - student_t_within(abs(mean) / scale, len(values) - 1)
    return mean, mean - reach, mean + reach, max(p, 0.0)


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is there, or None where nothing is.

    Examples
    --------
    >>> mean_of([1.0, None, 2.0]), mean_of([None])
    (1.5, None)
    """
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def sd_of(values: Sequence[float | None]) -> float | None:
    """Return the sample standard deviation of what is there, or None for fewer than two.

    Examples
    --------
    >>> sd_of([1.0, 3.0, None]) == 2**0.5, sd_of([1.0])
    (True, None)
    """
    there = [value for value in values if value is not None]
    return stdev(there) if len(there) > 1 else None
