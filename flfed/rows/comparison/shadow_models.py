"""Shadow models of one site, and their scores.

They are trained by a study's own plan on chosen rows. The score is how well a model knows a row.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import logsumexp

from flfed.rows.baselines import first_arrays
from flfed.rows.comparison.attack_runner import Attacked
from flfed.rows.features.encode import Encoded
from flfed.rows.session import Arrays
from flfed.rows.training.requests import ComputeRequest


def trained(
    attacked: Attacked, tables: Sequence[Encoded], purpose: str
) -> Generator[ComputeRequest, Any, list[Arrays]]:
    """Yield requests and return the shadow models.

    They are the arrays after all rounds of the plan on each of some tables, as if there were one site.

    Parameters
    ----------
    attacked : Attacked
        Whose study, first arrays and protection.
    tables : sequence of Encoded
        One a model. They are trained side by side, so that an engine may stack them.
    purpose : str
        What the draws are for.

    Notes
    -----
    Of the strategy only the average is followed: with one site that is the site's own arrays. A round
    takes the plan's steps, under the site's protection where there is one; a plateau does not change
    the learning rate.
    """
    work = attacked.session
    rounds = attacked.session.study.rounds
    plan = work.study.plan
    models = [first_arrays(work.trainable(), table.x.shape[1]) for table in tables]
    for round in range(1, rounds + 1):
        # Each round and model has draws of its own, as at a real site.
        rngs = [attacked.rng(f"{purpose}/{round}", number) for number in range(len(tables))]
        fitted = yield [
            replace(work.fit_request(arrays, rows, rng, lr=plan.lr * plan.factor(round, rounds)), delta=False)
            for arrays, rows, rng in zip(models, tables, rngs, strict=True)
        ]
        models = [found.arrays for found in fitted]
    return models


def log_odds(task: str, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the log-odds of each row's own class.

    They are [rows], fall as a row's loss rises, and are about normal over models.

    Parameters
    ----------
    task : str
    outputs : array [rows, outputs]
    y : array [rows]
    """
    if task == "regression":
        return np.asarray(-np.log(np.square(outputs[:, 0] - y) + 1e-12))
    if task == "binary":
        return np.asarray(np.where(y == 1, 1.0, -1.0) * outputs[:, 0])
    # Of several classes the odds are those of the own one against all others together.
    own = outputs[np.arange(len(y)), y]
    rest = outputs.copy()
    rest[np.arange(len(y)), y] = -np.inf
    return np.asarray(own - logsumexp(rest, axis=1))
