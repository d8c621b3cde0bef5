"""What training draws, as tests look at it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flfed.rows.training.fit import epochs
from flfed.study.plan import Plan


def batches(rows: int, plan: Plan, rng: np.random.Generator) -> list[Tensor]:
    """Return the row indices of each step."""
    return [part for order, size in epochs(rows, plan, rng) for part in torch.split(order, size)]
