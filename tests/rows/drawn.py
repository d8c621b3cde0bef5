"""What training draws and tunes, as tests look at it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from flfed.rows.features.encode import Encoded
from flfed.rows.training.best_model import Rival, best_alone, trees_alone
from flfed.rows.training.fit import epochs
from flfed.rows.training.requests import Fitted, Predictor, RivalRequest, TreesRequest
from flfed.rows.training.tuned_linear import LinearPredictor, Search, search_alone, search_of
from flfed.study.plan import Plan


def best_of(rows: Encoded, task: str, classes: int, rng: np.random.Generator, **more: Any) -> Rival:
    """Return the best model of rows alone."""
    return best_alone(RivalRequest(rows=rows, task=task, classes=classes, rng=rng, **more))


def trees_of(rows: Encoded, task: str, classes: int, rng: np.random.Generator) -> Predictor:
    """Return boosted trees tuned on rows alone."""
    return trees_alone(TreesRequest(rows=rows, task=task, classes=classes, rng=rng))


def batches(rows: int, plan: Plan, rng: np.random.Generator) -> list[Tensor]:
    """Return the row indices of each step."""
    return [part for order, size in epochs(rows, plan, rng) for part in torch.split(order, size)]


def tuned_linear(rows: Encoded, task: str, classes: int, rng: np.random.Generator) -> LinearPredictor:
    """Return scikit-learn's linear model at its best ridge penalty."""
    asked = search_of(rows, task, classes, rng)
    return asked.finished(search_alone(asked)) if isinstance(asked, Search) else asked


def distance(a: Fitted, b: Fitted) -> float:
    """Return the largest difference of what two fits found."""
    assert list(a.arrays) == list(b.arrays) and a.steps == b.steps
    return max(abs(a.loss - b.loss), *(float(np.abs(a.arrays[n] - b.arrays[n]).max()) for n in a.arrays))
