"""Models whose figures would reveal single rows: nearly all of their scores are alike, or sure.

A threshold between all people and one shows whether this one is there, and with which outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flfed.refusals import Refusal
from flfed.rows.session import SiteSession
from flfed.rows.study_model import first_model
from flfed.rows.training.functional import probabilities
from flfed.rows.training.requests import Asking, together
from flfed.summaries.summary import Arrays, Encoder, arrays_sha256

CLOSE = 1e-6
"""Distance up to which two scores are one, and a score is sure."""
AT_FIRST = 100
"""Rows for each person of the cell minimum among which enough people are looked for at first."""
SURE = 0.9
"""Share of sure scores from which on a model is a threshold."""
Start = Callable[[], Arrays | None]
"""Returns the model of an earlier run that a run begins with, None where there is none."""


def tells_single_rows(score: np.ndarray, person: np.ndarray, task: str, least: int) -> bool:
    """Return whether figures of these scores may reveal fewer than `least` people.

    Parameters
    ----------
    score : array [rows] or [rows, classes]
        Probabilities; of a regression in units of the outcome's scale.
    person : int array [rows]
        Whose each row is.
    task : {"binary", "multi-class", "regression"}
    least : int
        The policy's cell minimum.

    Examples
    --------
    >>> steep, alike = np.array([0.0] * 95 + [0.5] * 5), np.array([0.3] * 95 + [0.4] * 5)
    >>> [tells_single_rows(score, np.arange(100), "binary", 10) for score in (steep, alike, np.linspace(0, 1, 100))]
    [True, True, False]
    """
    if task != "regression":
        surest = np.maximum(score, 1 - score) if score.ndim == 1 else score.max(axis=1)
        if np.mean(surest >= 1 - CLOSE) >= SURE:
            return True
    scores = score.reshape(len(score), -1)
    one_of_each = scores
    # Where each row is a person, none needs to be looked for.
    if not np.array_equal(person, np.arange(len(person))):
        one_of_each = scores[np.unique(person, return_index=True)[1]]
    # If nearly all people have one score, the median over people is that one.
    middle = np.median(one_of_each, axis=0)
    others = person[(np.abs(scores - middle) > CLOSE).any(axis=1)]
    # The first rows are usually of enough people.
    if len(np.unique(others[: AT_FIRST * least])) >= least:
        return False
    return len(np.unique(others)) < least


def holds_models(session: SiteSession) -> bool:
    """Return whether a site looks at a model's scores before figures of it leave."""
    return not session.policy.is_open and not session.study.covers_model


def model_refusal(session: SiteSession, arrays: Arrays, encoder: Encoder, start: Start) -> Asking[Refusal | None]:
    """Yield requests and return why no figure of a model leaves, None where some may.

    Parameters
    ----------
    session : SiteSession
    arrays : dict of name to array
        The model, as it came.
    encoder : Encoder
        Of all sites.
    start : callable
        Asked where the model is a threshold: what the run begins with is none that somebody chose for these rows.
        Without an earlier run that is what the study's seed draws.
    """
    if not holds_models(session) or _ignores_inputs(session, arrays):
        return None
    arrays = session.own_arrays.at_site(arrays)
    requests = [session.outputs(arrays, rows.x) for rows in session.scored_rows(encoder)]
    refused = outputs_refusal(session, (yield from together(requests)))
    if refused is None or not session.study.train:
        return refused
    begun = start()
    if begun is None:
        begun = first_model(session.study, session.schema, session.seed - session.study.seed)
    if arrays_sha256(dict(begun)) == arrays_sha256(arrays):
        return None
    return refused


def outputs_refusal(session: SiteSession, outputs: Sequence[np.ndarray]) -> Refusal | None:
    """Return why no figure of a model with these outputs leaves, None where some may.

    The outputs are of the rows of `SiteSession.scored_rows`, part by part.
    """
    whole = np.concatenate(outputs)
    # The encoder's unit of a regression is the scale of its outcome.
    score = whole if session.task == "regression" else probabilities(session.task, whole)
    if tells_single_rows(score, session.scored_persons, session.task, session.policy.cell_minimum):
        return Refusal("model-single-rows")
    return None


def _ignores_inputs(session: SiteSession, arrays: Arrays) -> bool:
    """Return whether a model has one score whatever the row, as the first one of most runs: it reveals no row."""
    if session.layout.plain:
        return not arrays["value"].any()
    return not any(value.any() for value in arrays.values())
