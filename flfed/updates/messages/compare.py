"""One figure of a comparison, as it crosses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

METRIC = r"[A-Za-z0-9_ -]{1,80}"
"""Pattern of a metric's or an arm's name, or of two."""
MetricName = Annotated[str, METRIC]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure with its interval.

    It is of an arm, or of the difference of two.

    Attributes
    ----------
    metric, arm : str
        For a difference `arm` is "a - b".
    value, low, high : float
        95 % interval; NaN where undefined.
    extra : float
        Variance of an arm's figure; two-sided p of a difference.
    method : str
        "DeLong", "bootstrap", or why the figure is undefined.
    """

    metric: MetricName
    arm: MetricName
    value: float
    low: float
    high: float
    extra: float
    method: str
