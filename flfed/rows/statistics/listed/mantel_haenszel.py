"""Odds ratio of an outcome between two groups, with each site as a stratum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import chdtrc

from flfed.rows.statistics.listed.odds_ratio import OddsRatio, ratio_of
from flfed.rows.statistics.statistic import REAL, Shapes, Sums, added
from flfed.words import render

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema

TERMS = 7
"""Terms of a site: see `terms_of`."""


class MantelHaenszel(OddsRatio):
    """The odds ratio of Mantel and Haenszel: rows are compared with rows of the same site only.

    Parameters
    ----------
    by : str
        Flag or category of two values: the second is compared with the first, which is the reference.
        Example: `by = "arm"`.

    Reveals: of each group, how many rows have the outcome and how many have not, exactly; and how many rows lack the
    group. Besides, seven terms that follow from these counts.

    Notes
    -----
    Of a site's table (a, b; c, d) of n rows: ratio Σ a d / n over Σ b c / n. Its 95 % interval has the variance of
    Robins, Breslow and Greenland, the p-value is that of Cochran, Mantel and Haenszel without a correction for
    continuity. A site without rows in both groups, or with one outcome, adds nothing. Breslow and Day's test of one
    ratio at all sites, without Tarone's correction, needs the sites' own tables: under secure aggregation there is
    none. Source: J. Robins, N. Breslow and S. Greenland 1986, "Estimators of the Mantel-Haenszel variance consistent
    in both sparse data and large-strata limiting models"; N. E. Breslow and N. E. Day 1980, "Statistical Methods in
    Cancer Research", volume 1, section 4.4.
    """

    label = "odds ratio of the outcome between two groups, by site"

    def shapes(self, schema: Schema) -> Shapes:
        """Return the table [group, outcome], the rows without a group, and the terms."""
        return super().shapes(schema) | {"terms": ((TERMS,), REAL)}

    def largest(self, schema: Schema) -> Sums:
        """Return 1: no term is larger than the number of rows."""
        return {"terms": np.ones(TERMS)}

    def sums(self, table: pd.DataFrame, schema: Schema) -> Sums:
        """Return the counts of a site, and its terms."""
        sums = super().sums(table, schema)
        return sums | {"terms": terms_of(sums["table"])}

    def figures(self, sites: Sequence[Sums], schema: Schema, of_all: Sums) -> dict[str, Any]:
        """Return the groups' rows and events, the ratio with interval and p-value, and the test of homogeneity."""
        sums = added(sites)
        figures = self.groups(sums, schema)
        concordant, discordant, first, mixed, last, difference, variance = sums["terms"].tolist()
        if min(concordant, discordant) <= 0 or variance <= 0:
            return figures | {"odds-ratio": None, "why": render("study.statistic.ratio")}
        both = 2 * concordant * discordant
        spread = first / (2 * concordant**2) + mixed / both + last / (2 * discordant**2)
        ratio = concordant / discordant
        figures["odds-ratio"] = ratio_of(math.log(ratio), math.sqrt(spread))
        figures["p"] = {"value": math.erfc(abs(difference) / math.sqrt(2 * variance))}
        tables = [
            counts for one in sites if (counts := one["table"].astype(float)).sum(0).all() and counts.sum(1).all()
        ]
        if len(tables) > 1:
            figures["homogeneity"] = {"p": {"value": homogeneity_p(tables, ratio)}}
        return figures


def terms_of(table: np.ndarray) -> np.ndarray:
    """Return what a site adds to the ratio, to its variance and to the test.

    Parameters
    ----------
    table : array [2 groups, 2 outcomes]
        The reference and the rows without the outcome first.

    Returns
    -------
    terms : float64 array [7]
        R = a d / n and S = b c / n, P R, P S + Q R and Q S with P = (a + d) / n and Q = (b + c) / n, a less its
        expectation, and the variance of a where all margins are fixed. All are 0 without rows.
    """
    (d, c), (b, a) = table.astype(float).tolist()
    n = a + b + c + d
    if n < 2:
        return np.zeros(TERMS)
    concordant = a * d / n
    discordant = b * c / n
    same = (a + d) / n
    other = (b + c) / n
    variance = (a + b) * (c + d) * (a + c) * (b + d) / (n**2 * (n - 1))
    mixed = same * discordant + other * concordant
    difference = a - (a + b) * (a + c) / n
    return np.array([concordant, discordant, same * concordant, mixed, other * discordant, difference, variance])


def homogeneity_p(tables: Sequence[np.ndarray], ratio: float) -> float:
    """Return Breslow and Day's p of one odds ratio at all sites.

    Parameters
    ----------
    tables : sequence of array [2 groups, 2 outcomes]
        With rows in each group and of each outcome.
    ratio : float, > 0
        Mantel and Haenszel's.
    """
    statistic = 0.0
    for table in tables:
        (d, c), (b, a) = table.tolist()
        # The count that the margins have under the ratio: a root of (1 - ratio) x² + linear x - ratio constant.
        linear = ratio * (a + b + a + c) + d - a
        constant = ratio * (a + b) * (a + c)
        root = math.sqrt(linear**2 - 4 * (ratio - 1) * constant)
        # In the form that does not cancel, also where the ratio is 1.
        expected = 2 * constant / (linear + root)
        parts = (expected, a + b - expected, a + c - expected, d - a + expected)
        statistic += (a - expected) ** 2 * sum(1 / part for part in parts)
    return float(chdtrc(len(tables) - 1, statistic))
