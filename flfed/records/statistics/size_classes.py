"""Gain from joining over all sites of a size class together: pairs within a site, the interval over sites."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flfed.records.statistics.intervals import student_t_bound, widening

LEAST_SITES = 8
"""Fewest sites with pairs for a mean over a class."""
LEAST_FREEDOM = 4.0
"""Fewest degrees of freedom of its interval."""


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
    if len(pairs) < LEAST_SITES:
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
