"""Whether a model that somebody brought along needs a new intercept, or slope, at a site.

It is fitted on half of its rows and judged on the other half. The reasons why its figures stay are here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from flfed.rows.comparison.incumbent import LEAST_OF_A_CLASS
from flfed.rows.comparison.single_rows import tells_single_rows
from flfed.rows.comparison.subgroups import METRIC, few_people
from flfed.rows.data.holdout import side_keys
from flfed.rows.data.row_keys import draw_fractions
from flfed.rows.evaluation.bootstrap import Groups
from flfed.rows.evaluation.calibration import calibrate, maximise_likelihood
from flfed.rows.evaluation.intervals import NAN, Estimate, Z
from flfed.rows.evaluation.weighted_metrics import Floats
from flfed.rows.session import SiteSession
from flfed.summaries.score_bins import UPDATES, RecalibrationFigure, RecalibrationName
from flfed.words import render


def updates_of(
    session: SiteSession,
    table: pd.DataFrame,
    y: np.ndarray,
    score: np.ndarray,
    person: np.ndarray,
    reasons: Mapping[str, str],
) -> Sequence[RecalibrationFigure]:
    """Return the updates of a validated model; none of a study that trains, or does not ask for calibration.

    They stay where the area under the ROC curve does, and where a half of the rows has too few. `person` is whose each
    row is; `reasons` are why each metric stays, or "".
    """
    study = session.study
    if study.train or not study.compare.calibration:
        return ()
    first = _first_half(session, table)
    reason = ""
    if reasons[METRIC]:
        reason = f"withheld: {reasons[METRIC]}"
    for half in (first, ~first):
        reason = reason or _refuse_half(session, y[half], score[half], person[half])
    if reason:
        return [without_recalibration(name, reason) for name in UPDATES]
    groups = person if len(np.unique(person)) < len(person) else None
    return list(recalibrate(y, score, first, groups))


def _first_half(session: SiteSession, table: pd.DataFrame) -> np.ndarray:
    """Return which rows updates are fitted to [n]: the same ones for every model, and all rows of a person or none."""
    fractions = draw_fractions(side_keys(table, session.schema), f"updates {_salt(session)}")
    return np.asarray(fractions < 0.5)


def _salt(session: SiteSession) -> str:
    """Return the secret of the site's holdout, "" where it has none."""
    return str(getattr(session.site.holdout, "salt", ""))


def _refuse_half(session: SiteSession, y: np.ndarray, score: np.ndarray, person: np.ndarray) -> str:
    """Return why no figure of a half of the rows may leave, "" where it may."""
    policy = session.policy
    if min(np.bincount(y, minlength=2)) < LEAST_OF_A_CLASS:
        return render("figures.methods.half", n=LEAST_OF_A_CLASS)
    why = few_people(y, person, policy)
    if not why and not policy.is_open and not _salt(session):
        why = render("figures.withheld.unsalted")
    if not why and not policy.is_open and tells_single_rows(score, person, "binary", policy.cell_minimum):
        why = render("figures.withheld.half")
    return f"withheld: {why}" if why else ""


def recalibrate(
    y: np.ndarray, score: np.ndarray, first: np.ndarray, groups: Groups = None
) -> Iterator[RecalibrationFigure]:
    """Yield both updates of a model: a new intercept, and a new slope with it.

    Parameters
    ----------
    y : int codes 0 or 1 [n]
    score : probability of class 1 [n]
        Clipped as `calibrate` does.
    first : bool [n]
        The rows of the half that updates are fitted to.
    groups : int [n], optional
        Rows of one code belong together; none stands in both halves.

    Notes
    -----
    Source: Steyerberg et al. 2004, "Validation and updating of predictive logistic regression models". The interval of
    the gain is that of a mean over rows, or over groups.

    Examples
    --------
    >>> y = np.tile(np.repeat([0, 1], [75, 25]), 4)
    >>> new, _ = recalibrate(y, np.full(400, 0.5) + np.tile([0.01, -0.01], 200), np.arange(400) < 200)
    >>> round(new.intercept, 2), new.slope, new.is_due
    (-1.1, 1.0, True)
    """
    eps = np.finfo(score.dtype).eps
    odds = logit(np.clip(score, eps, 1 - eps).astype(float))
    happened = (y == 1).astype(float)
    fitted = odds[first]
    constant = np.ones((len(fitted), 1))
    nothing = np.zeros(len(fitted))
    intercept = maximise_likelihood(happened[first], constant, fitted)
    both = maximise_likelihood(happened[first], np.column_stack([constant, fitted]), nothing)
    rest = ~first
    reason = render("figures.methods.separated")
    if np.ptp(fitted) == 0:
        reason = render("figures.methods.same-predictions")
    other_groups = None if groups is None else groups[rest]
    before = _losses(happened[rest], odds[rest])
    of_intercept = before
    for update, coefficients in zip(UPDATES, (intercept, both), strict=True):
        if coefficients is None:
            yield without_recalibration(update, reason)
            continue
        slope = 1.0 if update == "intercept" else float(coefficients[1])
        updated = float(coefficients[0]) + slope * odds[rest]
        after = _losses(happened[rest], updated)
        gain = _mean(before - after, other_groups)
        beyond = gain.low
        if update == "intercept":
            of_intercept = after
        else:
            beyond = _mean(of_intercept - after, other_groups).low
        slope_after = calibrate(y[rest], expit(updated), other_groups).slope
        yield RecalibrationFigure(
            name=update,
            intercept=float(coefficients[0]),
            slope=slope,
            before=float(before.mean()),
            after=float(after.mean()),
            value=gain.value,
            low=gain.low,
            high=gain.high,
            beyond=beyond,
            slope_after=slope_after.value,
            slope_low=slope_after.low,
            slope_high=slope_after.high,
            method="",
        )


def without_recalibration(update: RecalibrationName, reason: str) -> RecalibrationFigure:
    """Return an update without figures."""
    numbers = [one.name for one in fields(RecalibrationFigure) if one.name not in ("name", "method")]
    return RecalibrationFigure(name=update, method=reason, **dict.fromkeys(numbers, NAN))


def _losses(happened: Floats, odds: Floats) -> Floats:
    """Return the log loss of each row [n]."""
    return np.asarray(np.logaddexp(0.0, odds) - happened * odds)


def _mean(values: Floats, groups: Groups) -> Estimate:
    """Return a mean over rows with its interval, whose error is over groups where there are some."""
    mean = float(values.mean())
    parts = values - mean
    if groups is not None:
        _, codes = np.unique(groups, return_inverse=True)
        parts = np.asarray(np.bincount(codes, parts), dtype=float)
    variance = float(parts @ parts) / len(values) ** 2 * len(parts) / max(len(parts) - 1, 1)
    reach = Z * variance**0.5
    return Estimate(mean, mean - reach, mean + reach, variance, "")
