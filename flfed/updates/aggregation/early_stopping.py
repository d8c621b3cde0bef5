"""Best round, early stopping and plateau.

The server decides them from the federated validation loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flfed.study.plan import Plan
from flfed.updates.messages.fields import Arrays

IMPROVEMENT = 1e-6
"""A loss must fall by more than this to count as better: less is rounding."""

_COUNTERS = ("best_loss", "best_round", "lr_scale", "waited", "since_best")


@dataclass
class Selection:
    """Selection of the best round by validation loss.

    It follows the loss of the models that came into each round.

    Attributes
    ----------
    plan : Plan
    patience : int
        Rounds without improvement after which the run stops early; 0 never.
    best_loss, best_round, best_arrays
        Of the best model so far; round r's model is what r rounds of training gave.
    lr_scale : float
        What the plateau rule has multiplied the learning rate by.
    """

    plan: Plan
    patience: int = 0
    best_loss: float = float("inf")
    best_round: int = 0
    best_arrays: Arrays | None = None
    lr_scale: float = 1.0
    waited: int = 0
    since_best: int = 0

    def see(self, round: int, arrays: Arrays, loss: float | None) -> None:
        """Record a model and its validation loss.

        The model is the one after `round` rounds, and the loss is over all validation rows.
        """
        if loss is None:
            return
        # A better model begins both waits anew, for the plateau and for the early stop.
        if loss < self.best_loss - IMPROVEMENT:
            self.best_loss = loss
            self.best_round = round
            self.best_arrays = arrays
            self.waited = self.since_best = 0
            return
        self.waited += 1
        self.since_best += 1
        # A plateau lowers the learning rate, and the wait begins anew.
        if self.plan.schedule == "plateau" and self.waited >= self.plan.plateau_patience:
            self.lr_scale *= self.plan.plateau_factor
            self.waited = 0

    def state(self) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """Return the best arrays, and counters that JSON can hold."""
        plain = {name: getattr(self, name) for name in _COUNTERS}
        plain["best_loss"] = self.best_loss if math.isfinite(self.best_loss) else None
        return ({} if self.best_arrays is None else {"best": self.best_arrays}), plain

    def restore(self, arrays: Mapping[str, Arrays], facts: Mapping[str, Any]) -> None:
        """Restore what `state` gave."""
        for name in _COUNTERS:
            setattr(self, name, facts[name])
        self.best_loss = float("inf") if facts["best_loss"] is None else facts["best_loss"]
        self.best_arrays = arrays.get("best")

    def is_over(self) -> bool:
        """Tell whether the run should stop early."""
        return self.patience > 0 and self.since_best >= self.patience
