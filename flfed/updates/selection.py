"""What the server decides from the federated validation loss: best round, early stop, plateau."""

from __future__ import annotations

from dataclasses import dataclass

from flfed.plan import Plan
from flfed.updates.content import Arrays

IMPROVEMENT = 1e-6
"""A loss must fall by more than this to count as better: less is rounding."""


@dataclass
class Selection:
    """Follows the validation loss of the models that came into each round.

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
        """Take note of the model after `round` rounds and its loss over all validation rows."""
        if loss is None:
            return
        if loss < self.best_loss - IMPROVEMENT:
            self.best_loss, self.best_round, self.best_arrays = loss, round, arrays
            self.waited = self.since_best = 0
            return
        self.waited += 1
        self.since_best += 1
        if self.plan.schedule == "plateau" and self.waited >= self.plan.plateau_patience:
            self.lr_scale *= self.plan.plateau_factor
            self.waited = 0

    def is_over(self) -> bool:
        """Tell whether the run should stop early."""
        return self.patience > 0 and self.since_best >= self.patience
