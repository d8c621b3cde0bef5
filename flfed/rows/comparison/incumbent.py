"""The score in use: a column, such as a risk grade, that the shared model is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from flfed.errors import unknown
from flfed.refusals import decline
from flfed.rows.comparison.subgroups import few_people
from flfed.rows.data.schema import Schema
from flfed.rows.evaluation.bootstrap import Groups, Pair
from flfed.rows.evaluation.intervals import NAN, Difference, Estimate, compare
from flfed.rows.evaluation.scoring import metrics_of
from flfed.rows.features.encode import codes
from flfed.rows.features.summarise import layout_of
from flfed.rows.session import SiteSession
from flfed.seeds import generator
from flfed.study.study import Study
from flfed.study.tables import Incumbent
from flfed.words import render, usage_error

ARM = "incumbent"
PAIR: Pair = ("global", ARM)
LEAST_OF_A_CLASS = 10
"""Fewest test rows of either outcome with a score, as for any verdict."""
METRICS = ("roc_auc_score", "average_precision_score")
"""Metrics that a score without probabilities has."""
KINDS = ("number", "category", "flag")


@dataclass(frozen=True)
class IncumbentFigures:
    """Figures of the score in use at one site, by metric.

    Attributes
    ----------
    estimates : dict of metric to Estimate
    differences : dict of metric to Difference
        The shared model minus it, on the rows that have it.
    note : str
        How many rows were left out, or "".
    """

    estimates: dict[str, Estimate]
    differences: dict[str, Difference]
    note: str = ""


def check_incumbent(study: Study, schema: Schema) -> None:
    """Refuse a score in use that no site can compare; raises UsageError."""
    incumbent = study.compare.incumbent
    if incumbent is None:
        return
    if schema.task != "binary":
        raise usage_error("study.incumbent.task", task=schema.task)
    name = incumbent.column
    choices = [name for name, column in schema.columns.items() if column.kind in KINDS]
    if name not in schema.columns:
        raise unknown("[compare] incumbent: column", name, choices)
    if name not in choices:
        raise usage_error("study.incumbent.kind", column=name, kind=schema.columns[name].kind)
    if name in schema.features(study.dataset.features):
        raise usage_error("study.incumbent.feature", column=name)


def rank_risks(table: pd.DataFrame, schema: Schema, incumbent: Incumbent) -> np.ndarray:
    """Return the score in use of each row, a riskier one larger, float64 [rows]; NaN without a value.

    A category is ranked by its place in the schema.
    """
    cells = table[incumbent.column]
    if schema.columns[incumbent.column].kind == "number":
        score = cells.to_numpy(dtype=float, na_value=np.nan)
    else:
        places = codes(cells, layout_of(schema, [incumbent.column]).features[0])
        score = np.where(cells.isna(), np.nan, places)
    if incumbent.riskier == "low":
        return -score
    return score


def refuse_without_score(session: SiteSession) -> None:
    """Refuse a study whose score in use no training row of the site has; raises NotTakingPart."""
    incumbent = session.study.compare.incumbent
    if incumbent is not None and session.table.training[incumbent.column].isna().all():
        decline("no-incumbent", column=incumbent.column)


def compare_incumbent(
    session: SiteSession,
    table: pd.DataFrame,
    y: np.ndarray,
    score: np.ndarray,
    person: np.ndarray,
    groups: Groups = None,
) -> IncumbentFigures | None:
    """Return the score in use beside the shared model; None where the study names none.

    Parameters
    ----------
    session : SiteSession
    table : DataFrame
        Test rows.
    y : int codes [rows]
    score : array [rows]
        Predicted probabilities of the shared model.
    person : int [rows]
        Whose each row is.
    groups : int [rows] or None
        As in `intervals.compare`.
    """
    incumbent = session.study.compare.incumbent
    if incumbent is None:
        return None
    risks = rank_risks(table, session.schema, incumbent)
    has_score = ~np.isnan(risks)
    reason = _reason(session, y, has_score, person)
    if reason:
        return _without_figures(reason)
    groups_compared = None
    if groups is not None:
        groups_compared = groups[has_score]
    rng = generator(session.seed, site=session.site.name, purpose="bootstrap")
    every = metrics_of(session.task)
    metrics = {name: every[name] for name in METRICS}
    scores = {"global": score[has_score].astype(float), ARM: risks[has_score]}
    draws = session.study.compare.resamples
    estimates, differences = compare(metrics, y[has_score], scores, [PAIR], rng, draws=draws, groups=groups_compared)
    note = ""
    if not has_score.all():
        note = render("figures.notes.incumbent", n=int((~has_score).sum()))
    return IncumbentFigures(
        estimates={name: estimates[name][ARM] for name in METRICS},
        differences={name: differences[name][PAIR] for name in METRICS},
        note=note,
    )


def _reason(session: SiteSession, y: np.ndarray, has_score: np.ndarray, person: np.ndarray) -> str:
    """Return why there is no figure of the score in use, or "".

    Figures over all rows and over those with a score would give away a few rows without one.
    """
    policy = session.policy
    if not has_score.any():
        return render("figures.methods.no-incumbent")
    for rows in (has_score, ~has_score):
        if rows.any() and (why := few_people(y[rows], person[rows], policy)):
            return f"withheld: {why}"
    if np.bincount(y[has_score], minlength=2).min() < LEAST_OF_A_CLASS:
        return render("figures.methods.few-scores", n=LEAST_OF_A_CLASS)
    return ""


def _without_figures(reason: str) -> IncumbentFigures:
    return IncumbentFigures(
        estimates=dict.fromkeys(METRICS, Estimate(NAN, NAN, NAN, NAN, reason)),
        differences=dict.fromkeys(METRICS, Difference(NAN, NAN, NAN, NAN, reason)),
    )
