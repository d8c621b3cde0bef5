"""Figures that leave a site: exact, or rounded where noise protects rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np

from flfed.rows.comparison.compare import SiteComparison
from flfed.rows.evaluation.calibration import Calibration
from flfed.rows.evaluation.intervals import Estimate
from flfed.rows.evaluation.scoring import three_digits
from flfed.rows.session import SiteSession
from flfed.summaries.score_bins import GroupFigure, RowScores
from flfed.updates.aggregation.losses import RowLoss
from flfed.updates.messages.compare import (
    CalibrationFigure,
    CalibrationName,
    ColumnImportance,
    CompareReply,
    Figure,
    WithheldColumn,
)
from flfed.updates.messages.train import Scores, small

Rounding = Callable[[float], float]
"""Returns the outbound figure."""
Rounded = TypeVar("Rounded", Figure, GroupFigure, CalibrationFigure)


def choose_rounding(session: SiteSession) -> Rounding:
    """Return the rounding of a site's figures.

    It is to three digits where the site is an institution and training has noise.

    There the updates reveal next to nothing of a row, and an exact loss would. With a model made for the purpose, the
    last digits of a mean over all rows can be one row's. Its first digits can be made so, too, which no rounding
    prevents. So nothing over training rows leaves at all (`training_stays`).
    """
    return three_digits if _noisy(session) and session.site.policy.disclosure == "institution" else float


def training_stays(session: SiteSession) -> bool:
    """Return whether training figures stay at the site.

    Losses and metrics over training rows stay where noise in the updates protects these rows.

    At an institution they do, unless its policy names the output "training-figures".
    """
    # Under covering noise an uncharged figure never leaves: also at an open site.
    return session.study.covers_model or (_noisy(session) and not session.site.policy.allows("training-figures"))


def _noisy(session: SiteSession) -> bool:
    protection = session.protection
    return protection is not None and protection.steps.noise > 0


def scores_of(scores: RowScores | None, rounding: Rounding, *, stays: bool = False) -> Scores | None:
    """Return a model's outbound scores, counts in the smallest whole type, or None.

    Parameters
    ----------
    scores : RowScores or None
    rounding : callable
    stays : bool
        Whether figures over training rows stay: then only the number of rows leaves, which crosses anyway.
    """
    if scores is None:
        return None
    # The number of rows crosses anyway, and nothing else is left.
    if stays and scores.rows == "training":
        return Scores(rows=scores.rows, num_examples=scores.num_examples, metrics={})
    # Each field by its name: a field that a later version adds does not leave by accident.
    return Scores(
        rows=scores.rows,
        num_examples=scores.num_examples,
        metrics={name: rounding(value) for name, value in scores.metrics.items()},
        variances={name: rounding(value) for name, value in scores.variances.items()},
        histogram=_small(scores.histogram),
    )


def _small(counts: np.ndarray | None) -> np.ndarray | None:
    """Return counts of rows in the smallest type, or None."""
    return None if counts is None else small(counts)


def losses_of(rows: float, loss: float | None, scores: RowScores | None, session: SiteSession) -> dict[str, RowLoss]:
    """Return a site's losses of a round for a sum, each with three digits.

    A loss that its policy or the study's noise withholds is left out, and so is one of other rows than the study
    decides by.

    Parameters
    ----------
    rows : float
        Number of training rows.
    loss : float or None
        Over them.
    scores : RowScores or None
        Of the incoming model.
    session : SiteSession
    """
    stays = training_stays(session)
    losses = dict[str, RowLoss]()
    if loss is not None and not stays:
        losses["fit"] = RowLoss(rows, three_digits(loss))
    decides = "validation" if session.study.plan.validation else "training"
    if scores is None or scores.rows != decides or scores.loss is None:
        return losses
    if not (stays and decides == "training"):
        losses["scores"] = RowLoss(scores.num_examples, three_digits(scores.loss))
    return losses


def arms_of(comparison: SiteComparison, rounding: Rounding) -> tuple[Figure, ...]:
    """Return all arms' outbound holdout figures."""
    return tuple(
        _figure(metric, arm, asdict(estimate), "variance", rounding)
        for metric, arms in comparison.arms.items()
        for arm, estimate in arms.items()
    )


def differences_of(comparison: SiteComparison, rounding: Rounding) -> tuple[Figure, ...]:
    """Return the outbound differences of the arms, one for every two."""
    return tuple(
        _figure(metric, f"{a} - {b}", asdict(difference), "p", rounding)
        for metric, pairs in comparison.differences.items()
        for (a, b), difference in pairs.items()
    )


def _figure(metric: str, arm: str, fields: Mapping[str, Any], extra: str, rounding: Rounding) -> Figure:
    value, low, high, further = (rounding(fields[name]) for name in ("value", "low", "high", extra))
    return Figure(metric=metric, arm=arm, value=value, low=low, high=high, extra=further, method=fields["method"])


def rounded_comparison(reply: CompareReply) -> CompareReply:
    """Return a comparison with three digits a figure.

    They are ten bits each, by which a chosen model reveals rows.
    """
    arms = _round_each(reply.arms, three_digits)
    differences = _round_each(reply.differences, three_digits)
    calibration = _round_each(reply.calibration, three_digits)
    return replace(reply, arms=arms, differences=differences, calibration=calibration)


def _round_each(figures: Sequence[Rounded], rounding: Rounding) -> tuple[Rounded, ...]:
    """Return figures with all their numbers rounded."""
    rounded = []
    for one in figures:
        numbers: dict[str, Any] = {}
        for name, value in vars(one).items():
            if isinstance(value, float):
                numbers[name] = rounding(value)
        rounded.append(replace(one, **numbers))
    return tuple(rounded)


def count_rows(session: SiteSession) -> dict[str, Any]:
    """Return the numbers of rows in a comparison, by the names of `LEAST_ROWS`."""
    table = session.table
    return {"num_examples": table.training_rows, "holdout_rows": table.holdout_rows}


def redact_comparison(session: SiteSession, comparison: SiteComparison) -> CompareReply:
    """Return the outbound comparison, counts in the smallest whole type."""
    rounding = choose_rounding(session)
    return CompareReply(
        **count_rows(session),
        arms=arms_of(comparison, rounding),
        differences=differences_of(comparison, rounding),
        summary=comparison.summary,
        histogram=_small(comparison.histogram),
        note=comparison.note,
        own_family=None if training_stays(session) else comparison.own_family,
        points=tuple(comparison.points),
        groups=tuple(comparison.groups),
        importance=tuple(
            ColumnImportance(column=o.column, increase=o.increase) for o in comparison.importance if not o.method
        ),
        withheld=tuple(WithheldColumn(column=o.column, method=o.method) for o in comparison.importance if o.method),
        calibration=_calibration_of(comparison.calibration, rounding),
    )


def _calibration_of(calibration: Calibration | None, rounding: Rounding) -> tuple[CalibrationFigure, ...]:
    """Return the outbound slope and intercept; none where the study does not ask for them."""
    if calibration is None:
        return ()
    return (
        _calibration_figure("slope", calibration.slope, rounding),
        _calibration_figure("intercept", calibration.intercept, rounding),
    )


def _calibration_figure(name: CalibrationName, figure: Estimate, rounding: Rounding) -> CalibrationFigure:
    value, low, high, variance = map(rounding, (figure.value, figure.low, figure.high, figure.variance))
    return CalibrationFigure(name=name, value=value, low=low, high=high, variance=variance, method=figure.method)
