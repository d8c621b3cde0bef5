"""Leak warnings from merged sums.

They name columns that say more about the target than a routine examination should.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flfed.summaries.summary import SEPARATION, Layout, Summary

MISSING_P = 1e-4
LEAST_TESTED = 10
"""Fewest rows without a value, and with one, of which missingness is tested: two in 15,000 tell nothing."""


@dataclass(frozen=True)
class LeakWarning:
    """A column that says too much about the target.

    It says more than a routine examination should.

    Attributes
    ----------
    column : str
    reason : {"missingness", "separation"}
    value : float
        p-value of the score test stratified by site, or the strength of separation.
    """

    column: str
    reason: str
    value: float

    def __str__(self) -> str:
        """Return the warning in words.

        The words are for whoever has to decide about the column, and the same in every repeat.
        """
        if self.reason == "missingness":
            return (
                f"whether {self.column!r} is missing goes with the target, within sites (p < {MISSING_P:g}): "
                "was it recorded after the outcome, or only for some outcomes?"
            )
        return f"{self.column!r} alone separates the target (over {SEPARATION:g}): is it the outcome itself?"


def leak_warnings(layout: Layout, summary: Summary) -> list[LeakWarning]:
    """Return the columns that give the target away.

    Their missingness does, or their values alone.

    Parameters
    ----------
    layout : Layout
    summary : Summary
        Merged: U and V are sums over sites, so a difference between hospitals raises nothing.

    Notes
    -----
    The test is that of Mantel and Haenszel 1959, for a regression van Elteren's of ranks, with
    `chance_at_most` in place of chi-squared; of several outcomes the smallest p counts, times their
    number. Columns of `untested` are passed over. Strength is the AUC (the absolute correlation for a
    regression) of the column alone, the mean over sites weighted by rows, and over outcomes.
    """
    found = []
    passed = untested(layout, summary)
    for number, column in enumerate(layout.features):
        sums = summary.leaks[number]
        if column.name not in passed:
            # The smallest p of several outcomes is multiplied by their number (Bonferroni).
            p = min(1.0, layout.outcomes * min(chance_at_most(float(u), float(v)) for u, v in sums[:, :2]))
            if p < MISSING_P:
                found.append(LeakWarning(column.name, "missingness", p))
        # Strength is known only where some site gave it for every outcome.
        if (sums[:, 3] > 0).all():
            strength = float(np.mean(sums[:, 2] / sums[:, 3]))
            if strength > SEPARATION:
                found.append(LeakWarning(column.name, "separation", strength))
    return found


def untested(layout: Layout, summary: Summary) -> list[str]:
    """Return the columns whose missingness is not tested.

    Fewer than ten of their rows have no value, or fewer than ten have one.
    """
    places = layout.slices()
    missing = {c.name: float(summary.cells[places[c.name]][-1]) for c in layout.features}
    most = float(summary.rows[0]) - LEAST_TESTED
    return [name for name, rows in missing.items() if 0 < rows < LEAST_TESTED or most < rows < summary.rows[0]]


def chance_at_most(u: float, v: float) -> float:
    """Return a bound of the chance that |U| reaches `u`.

    It is `2 exp(-v h(|u| / v))` with `h(x) = (1 + x) log(1 + x) - x`.

    It holds whatever the counts, where the normal approximation of rare events warns of nothing at all.

    Parameters
    ----------
    u : float
        A count less its expectation, or a sum of terms between -1 and 1 with mean 0.
    v : float, >= 0
        Its variance, given how many rows are missing and how many have the outcome, at each site. Such a count is
        distributed as a sum of independent zeros and ones (Vatutin and Mikhailov 1982); of other terms the
        variance as if they were drawn with replacement (Hoeffding 1963, theorem 4).

    Source: Bennett 1962, "Probability inequalities for the sum of independent random variables".

    Examples
    --------
    >>> chance_at_most(0.0, 1.0), round(chance_at_most(20.0, 10.0), 8)  # 2 exp(-10 (3 log 3 - 2))
    (1.0, 4.71e-06)
    """
    if v <= 0:
        return 1.0
    x = abs(u) / v
    return min(1.0, 2 * math.exp(-v * ((1 + x) * math.log1p(x) - x)))
