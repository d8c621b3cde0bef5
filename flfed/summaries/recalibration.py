"""Updates of a validated model's log-odds at a site, as a comparison releases them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

RecalibrationName = Literal["intercept", "slope"]
UPDATES: tuple[RecalibrationName, ...] = get_args(RecalibrationName)


@dataclass(frozen=True, kw_only=True)
class RecalibrationFigure:
    """An update of a model, `intercept + slope * log-odds`, fitted on half of a site's rows and judged on the others.

    It crosses only in a validation that asks for calibration.

    Attributes
    ----------
    name : {"intercept", "slope"}
        A new intercept alone, or both numbers.
    intercept, slope : float
    before, after : float
        Log loss on the other half, without and with the update.
    value, low, high : float
        `before - after` with its 95 % interval.
    beyond : float
        Low end of the 95 % interval of what a new slope gains beyond the new intercept alone; `low` of a new intercept.
    slope_after, slope_low, slope_high : float
        Calibration slope with the update, on the other half, and its 95 % interval.
    method : str
        Why there are no figures, or "".

    Reveals: how the model's log-odds would have to change at a site, and means over half of its rows before and after.
    Under disclosure "institution" all numbers have three digits. They leave where the area under the ROC curve does,
    and only where each half has the cell minimum of rows and people of each outcome. The site's salt draws the halves,
    the same ones for every model. They have no noise, and no promise of differential privacy covers them.
    """

    name: RecalibrationName
    intercept: float
    slope: float
    before: float
    after: float
    value: float
    low: float
    high: float
    beyond: float
    slope_after: float
    slope_low: float
    slope_high: float
    method: str

    @property
    def is_due(self) -> bool:
        """Whether the update lowers the log loss by more than chance, a new slope also beyond the new intercept."""
        return self.low > 0 and self.beyond > 0
