"""Number of trees by validation loss, and the rounds in which they grow anew on all training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flfed.errors import UsageError
from flfed.trees.forest import with_round, without_trees
from flfed.updates.aggregation.early_stopping import Selection
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.train import REFIT

_FACT = "grown-before"


def check_refit(*, refit: bool, select: str) -> None:
    """Refuse trees that would grow anew without a number of them."""
    if refit and select != "best":
        raise UsageError(
            "[strategy]: refit grows as many trees anew as validation rows chose: set select = 'best', and [plan] "
            "validation = 0.2"
        )


# rounds 1 … n: trees without the validation rows ──► n + 1 …: as many trees as did best, of all training rows
#                                                     │
#                                                     └─ its sites score the n-th tree, and so choose how many
@dataclass
class TreeSelection(Selection):
    """Selection of the number of trees.

    Attributes
    ----------
    refit : bool
        Whether as many trees as did best are grown anew.
    rounds : int
        Most rounds with validation rows.
    grown_before : int
        Rounds before trees grow anew; 0 until then.
    """

    refit: bool = False
    rounds: int = 0
    grown_before: int = 0

    def ends(self, number: int, patience: int) -> bool:
        """Tell whether a round is not begun any more.

        Where those with validation rows are over, those that grow trees anew begin with this one.
        """
        if not self.refit:
            return super().ends(number, patience)
        if self.grown_before:
            return number > self.grown_before + max(1, self.best_round)
        if number > self.rounds or super().ends(number, patience):
            self.grown_before = number - 1
        return False

    def settings(self) -> dict[str, float]:
        """Return what sites are told of the rounds before."""
        return {REFIT: float(self.grown_before)} if self.refit else {}

    def sent_place(self, round: int) -> int:
        """Return a round's place among those whose trees sites are sent, from 1.

        The first round that grows trees anew is sent the trees before, whose last one is scored with it.
        """
        place = round - self.grown_before
        return round if place == 1 else place

    def with_trees(self, round: int, incoming: Arrays, trees: np.ndarray) -> Arrays:
        """Return the forest that came with a round's trees, as `tree_arrays` makes them."""
        place = round - self.grown_before
        if not self.grown_before:
            return with_round(incoming, place - 1, trees)
        # None of the trees before is the result any more, whichever did best.
        self.best_arrays = None
        forest = without_trees(incoming) if place == 1 else incoming
        return with_round(forest, place - 1, trees) if self.best_round else forest

    def state(self) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """Return what `Selection.state` does, and since when trees grow anew."""
        arrays, facts = super().state()
        if self.refit:
            facts = facts | {_FACT: self.grown_before}
        return arrays, facts

    def restore(self, arrays: Mapping[str, Arrays], facts: Mapping[str, Any]) -> None:
        """Restore what `state` gave."""
        super().restore(arrays, facts)
        self.grown_before = int(facts.get(_FACT, 0))
