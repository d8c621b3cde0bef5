"""Updates of a model that somebody brought along, as they may leave a site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from flfed.rows.comparison.incumbent import LEAST_OF_A_CLASS
from flfed.rows.comparison.single_rows import tells_single_rows
from flfed.rows.comparison.subgroups import METRIC, few_people
from flfed.rows.data.holdout import side_keys
from flfed.rows.data.row_keys import draw_fractions
from flfed.rows.evaluation.recalibration import recalibrate, without_recalibration
from flfed.rows.session import SiteSession
from flfed.summaries.recalibration import UPDATES, RecalibrationFigure
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
