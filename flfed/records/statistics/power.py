"""Least gain in AUC that a site's test rows can show, before anybody trains."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from flfed.records.statistics.intervals import NORMAL_95, student_t_bound, widening
from flfed.records.statistics.verdict import LEAST_OF_A_CLASS
from flfed.study.tables import HOLDOUT_SHARE

POWER = 0.8
"""Chance with which the least gain is shown."""
CORRELATIONS = (0.75, 0.84, 0.61)
"""Of the AUCs of shared and site model on the same test rows, at 160 sites of ten studies: median and quartiles."""
SIZES = (3, 50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 10_000, 20_000, 50_000)
"""Rows of a site of which a chart has a point."""


@dataclass(frozen=True, kw_only=True)
class LeastGain:
    """Least gain that is shown: with the median correlation of the two AUCs, and with its quartiles."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Design:
    """Basis of a site's verdict.

    `auc` is that of the shared model, `worthwhile` the gain above which joining pays, `sites` the number of sites
    looked at, for which each interval is widened, and `repeats` that of random splits of each site's rows.
    """

    auc: float = 0.75
    worthwhile: float = 0.005
    sites: int = 1
    repeats: int = 1

    @property
    def shrinkage(self) -> float:
        """Error of the mean of all repeats over that of one (Nadeau and Bengio 2003, equations 7 and 8)."""
        return math.sqrt(HOLDOUT_SHARE + (1 - HOLDOUT_SHARE) / self.repeats)

    @property
    def reach(self) -> float:
        """Errors between the minimum gain and the least gain shown: the interval's half, and those for the power."""
        freedom = self.repeats - 1 or None
        quantile = NORMAL_95 if freedom is None else student_t_bound(freedom)
        return quantile * widening(self.sites, freedom) + NormalDist().inv_cdf(POWER)


def auc_error(auc: float, events: float, others: float) -> float:
    """Return the standard error of an AUC on so many test rows with the outcome and without.

    It is DeLong's where scores are normal in each class: the variance of a placement value is that of a bivariate
    normal with correlation 1/2, which Owen's T function has in closed form.

    Examples
    --------
    >>> round(auc_error(0.75, 20, 80), 4), round(auc_error(0.5, 20, 80), 4)
    (0.0601, 0.0722)
    """
    from scipy.special import owens_t  # here, as the record is read without it

    variance = auc - auc**2 - 2 * float(owens_t(NormalDist().inv_cdf(auc), 1 / math.sqrt(3)))
    return math.sqrt(variance * (1 / events + 1 / others))


def least_gain(rows: float, events: float, design: Design) -> LeastGain | None:
    """Return the least gain that a site of so many rows shows with 80 % power, None where its test rows show none.

    Both AUCs have the error of the shared model's: their difference has it times √(2 (1 − correlation)) (Hanley and
    McNeil 1983).
    """
    test_events, test_others = HOLDOUT_SHARE * events, HOLDOUT_SHARE * (rows - events)
    if min(test_events, test_others) < LEAST_OF_A_CLASS:
        return None
    error = auc_error(design.auc, test_events, test_others) * design.shrinkage
    gains = [design.worthwhile + design.reach * error * math.sqrt(2 * (1 - alike)) for alike in CORRELATIONS]
    if gains[0] > design.auc - 0.5:  # the site's own model would have to be worse than none
        return None
    value, low, high = gains
    return LeastGain(value=value, low=low, high=high)


def least_gain_lines(share: float, design: Design) -> list[dict[str, Any]]:
    """Return the least gain by a site's rows, a share of which has the outcome, as lines of a chart."""
    lines = []
    for rows in SIZES:
        least = least_gain(rows, share * rows, design)
        lines.append({"Rows": rows, "least gain shown": least.value if least else None})
    return lines


def measured_gains() -> list[dict[str, Any]]:
    """Return rows and mean gain in AUC of the sites of eleven recorded studies on real data."""
    text = Path(__file__).with_name("measured_gains.csv").read_text(encoding="utf-8")
    return [{"Rows": int(row["rows"]), "Gain in AUC": float(row["gain"])} for row in csv.DictReader(text.splitlines())]
