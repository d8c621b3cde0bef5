"""One party's part of a model over different columns of the same people: its rows in common, and its steps.

```
 w ── look ahead ──► y ── X y ──► (scores of all parties) ──► residual r ──► Xᵀ r ──► w' = y − M (Xᵀ r / n + ridge y)
```

M is the inverse of (parties × b) Xᵀ X / n + ridge, where b bounds the second derivative of a row's loss: 1/4 of
logistic regression, 1 of linear. The matrix bounds the party's block of the Hessian over all parties' columns, so that
steps of all parties at once go down.

Source: Nesterov 1983, "A method of solving a convex programming problem with convergence rate O(1/k²)"; Böhning and
Lindsay 1988, "Monotonicity of quadratic-approximation algorithms", for the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from flfed.rows.features.encode import decode_target, encode, input_names
from flfed.rows.features.summarise import summarise
from flfed.rows.training.functional import probabilities
from flfed.study.kinds import LARGEST_INPUT
from flfed.summaries.summary import Arrays, Encoder, Layout, fit_encoder

QUARTER = 0.25
"""Partial scores leave in multiples of it."""
LEAST_OTHERS = 15
"""Rows without an input's most frequent value, at least: by a rarer one the sums of steps show single outcomes.

So do two groups of rows that differ in fewer.
"""
CURVATURE = {"binary": 0.25, "regression": 1.0}
"""Largest second derivative of a row's loss, by task."""


@dataclass(frozen=True, eq=False)
class PartyRows:
    """A party's inputs of the rows in common.

    Attributes
    ----------
    layout : Layout
        Of the party's own columns.
    encoder : Encoder
        Of its training rows in common.
    inputs : int array [inputs]
        Places of the inputs that vary there, and differ from each other, in at least `LEAST_OTHERS` rows.
    training, holdout : float64 array [rows, inputs]
        Within ± `LARGEST_INPUT`; of the label party with a column of ones at the end.
    norm : float or None
        Largest norm of a row in sums, None for rows as they are.
    """

    layout: Layout
    encoder: Encoder
    inputs: np.ndarray
    training: np.ndarray
    holdout: np.ndarray
    norm: float | None = None

    @classmethod
    def of(cls, layout: Layout, training: pd.DataFrame, holdout: pd.DataFrame, *, intercept: bool) -> PartyRows:
        """Encode a party's rows in common."""
        encoder = fit_encoder(layout, summarise(training, layout))
        x = bounded_inputs(training, layout, encoder)
        inputs = _usable_inputs(x)
        parts = [x[:, inputs], bounded_inputs(holdout, layout, encoder)[:, inputs]]
        if intercept:
            parts = [np.column_stack([part, np.ones(len(part))]) for part in parts]
        return cls(layout, encoder, inputs, parts[0], parts[1])

    @cached_property
    def summed(self) -> np.ndarray:
        """The training rows as they count in sums: none is longer than the norm; float64 [rows, inputs]."""
        if self.norm is None:
            return self.training
        norms = np.linalg.norm(self.training, axis=1, keepdims=True)
        return np.asarray(self.training * (self.norm / np.maximum(norms, self.norm)))

    @property
    def has_intercept(self) -> bool:
        """Whether the last input is a one."""
        return bool(self.training.shape[1] > len(self.inputs))

    def model(self, weights: np.ndarray) -> Arrays:
        """Return the party's part as the arrays of a linear model of its layout."""
        weight = np.zeros((len(input_names(self.layout)), 1))
        weight[self.inputs, 0] = weights[: len(self.inputs)]
        bias = weights[-1:] if self.has_intercept else np.zeros(1)
        return {"weight": weight, "bias": bias.copy()}


@dataclass(frozen=True, eq=False)
class Steps:
    """The rule of a party's steps.

    Attributes
    ----------
    rows : PartyRows
    parties : int
    task : {"binary", "regression"}
    ridge : float
    """

    rows: PartyRows
    parties: int
    task: str
    ridge: float

    @cached_property
    def penalties(self) -> np.ndarray:
        """Penalty of each weight; an intercept has none."""
        penalties = np.full(self.rows.training.shape[1], self.ridge)
        if self.rows.has_intercept:
            penalties[-1] = 0.0
        return penalties

    @cached_property
    def inverse(self) -> np.ndarray:
        """M; float64 [inputs, inputs]."""
        x = self.rows.training
        bound = self.parties * CURVATURE[self.task] * (x.T @ x) / len(x) + np.diag(self.penalties)
        inverse: np.ndarray = np.linalg.pinv(bound, hermitian=True)
        return inverse

    def start(self) -> Weights:
        """Return the weights of the first round, which are 0."""
        zeros = np.zeros(self.rows.training.shape[1])
        return Weights(zeros, zeros)

    def stepped(self, weights: Weights, sums: np.ndarray, round: int) -> Weights:
        """Return the weights after a round.

        Parameters
        ----------
        weights : Weights
        sums : float64 array [inputs]
            Xᵀ r over the training rows in common, where r are residuals at the weights ahead.
        round : int, >= 1
        """
        ahead = weights.ahead
        gradient = sums / len(self.rows.training) + self.penalties * ahead
        following = ahead - self.inverse @ gradient
        momentum = round / (round + 3)
        return Weights(following, following + momentum * (following - weights.now))


@dataclass(frozen=True, eq=False)
class Weights:
    """A party's weights between two rounds.

    Attributes
    ----------
    now, ahead : float64 array [inputs]
        After the last round, and where the next one takes its gradient.
    """

    now: np.ndarray
    ahead: np.ndarray

    def arrays(self) -> Arrays:
        """Return the weights by name."""
        return {"now": self.now, "ahead": self.ahead}


def quarters(scores: np.ndarray) -> np.ndarray:
    """Return partial scores in quarters, as they leave; int32 array [rows].

    Examples
    --------
    >>> quarters(np.array([0.1, -0.9, 2.0])).tolist()
    [0, -4, 8]
    """
    return np.round(scores / QUARTER).astype(np.int32)


def residuals(scores: np.ndarray, y: np.ndarray, task: str) -> np.ndarray:
    """Return the derivative of each row's loss by its score; float64 array [rows]."""
    if task == "regression":
        return np.asarray(scores - y)
    # Of a large score `exp` would overflow on one side.
    return np.asarray(0.5 * (1 + np.tanh(scores / 2)) - y)


def predictions(scores: np.ndarray, task: str, layout: Layout, encoder: Encoder) -> np.ndarray:
    """Return probabilities, or predictions in the target's unit, of the sums of all parties' scores."""
    if task == "regression":
        return decode_target(scores, layout, encoder)
    return probabilities(task, scores[:, None])


def _usable_inputs(x: np.ndarray) -> np.ndarray:
    """Return the places of the inputs by whose sums no outcome stands alone; int array."""
    places = []
    groups: list[np.ndarray] = []
    for place in range(x.shape[1]):
        values, counts = np.unique(x[:, place], return_counts=True)
        if len(x) - counts.max(initial=0) < LEAST_OTHERS:
            continue
        if len(values) == 2:
            group = x[:, place] == values[1]
            if any(_differ_in_few(group, other) for other in groups):
                continue
            groups.append(group)
        places.append(place)
    return np.array(places, dtype=np.intp)


def _differ_in_few(group: np.ndarray, other: np.ndarray) -> bool:
    """Return whether a group differs from another, or from its rest, in some rows and fewer than `LEAST_OTHERS`."""
    count = int((group != other).sum())
    return 0 < min(count, len(group) - count) < LEAST_OTHERS


def bounded_inputs(table: pd.DataFrame, layout: Layout, encoder: Encoder) -> np.ndarray:
    """Return a table's inputs within ± `LARGEST_INPUT`; float64 array [rows, inputs]."""
    return np.asarray(np.clip(encode(table, layout, encoder).x, -LARGEST_INPUT, LARGEST_INPUT))
