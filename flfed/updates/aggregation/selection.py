"""Best round, early stopping and plateau, or the number of trees and the rounds in which they grow anew.

The server decides them from the federated validation loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flfed.errors import UsageError
from flfed.study.plan import Plan
from flfed.trees.forest import with_round, without_trees
from flfed.updates.aggregation.losses import MeanLosses
from flfed.updates.aggregation.rounds import summable
from flfed.updates.arrays import Arrays
from flfed.updates.messages.train import REFIT, Scores
from flfed.words import render

PLATEAU_FACTOR = 0.5
"""What a plateau multiplies the learning rate by."""
IMPROVEMENT = 1e-6
"""A loss must fall by more than this to count as better: less is rounding."""

_COUNTERS = ("best_loss", "best_round", "lr_scale", "waited", "since_best")


def check_selection(plan: Plan, *, select: str, patience: int, fraction: float) -> None:
    """Refuse a plan under which the best round would be chosen wrongly.

    Raises
    ------
    UsageError
        If best round, early stopping or plateau is asked for without validation rows, or
        while only some sites are asked: losses of other sites cannot be compared.
    """
    settings = []
    if select == "best":
        settings.append(f"select={select!r}")
    if patience:
        settings.append(f"patience={patience}")
    if settings and not plan.validation:
        raise UsageError(render("study.strategies.validation", setting=settings[0]))
    if plan.schedule == "plateau":
        settings.append("schedule='plateau'")
    if settings and fraction < 1:
        raise UsageError(render("study.strategies.fraction", fraction=fraction, setting=settings[0]))


@dataclass
class Selection:
    """Selection of the best round by validation loss.

    It follows the loss of the models that came into each round.

    Attributes
    ----------
    plan : Plan
    best_loss, best_round, best_arrays
        Of the best model so far; round r's model is what r rounds of training gave.
    lr_scale : float
        What the plateau rule has multiplied the learning rate by.
    since_best : int
        Rounds without improvement: after `FedAvg.patience` of them the run stops early.
    judges : frozenset of str
        The sites whose validation rows decide, from the first model on.
    """

    plan: Plan
    best_loss: float = float("inf")
    best_round: int = 0
    best_arrays: Arrays | None = None
    lr_scale: float = 1.0
    waited: int = 0
    since_best: int = 0
    judges: frozenset[str] = frozenset()

    def score(
        self,
        round: int,
        arrays: Arrays,
        scores: Mapping[str, Scores | None],
        in_sums_only: frozenset[str],
        beside: MeanLosses | None = None,
    ) -> None:
        """Record a model by its mean loss over the sites' validation rows.

        Parameters
        ----------
        round : int
            After how many rounds of training the model came.
        arrays : dict of name to array
        scores : mapping of site to Scores or None
            Of this model.
        in_sums_only : frozenset of str
            As `summable` takes them.
        beside : MeanLosses, optional
            Of a secure sum, where sites keep their own scores.
        """
        # Without validation rows nothing is chosen.
        if not self.plan.validation:
            return
        if beside is not None and "validation" in beside.means:
            self._decide(round, arrays, beside.listed, beside.means["validation"])
            return
        losses = {
            site: (own.num_examples, own.metrics["loss"])
            for site, own in scores.items()
            if own is not None and own.rows == "validation" and "loss" in own.metrics
        }
        # The best loss is written down, with the checkpoint.
        sites = frozenset(summable(losses, in_sums_only))
        if sites:
            rows = math.fsum(losses[site][0] for site in sites)
            total = math.fsum(n * value for n, value in map(losses.__getitem__, sites))
            self._decide(round, arrays, sites, total / rows)

    def _decide(self, round: int, arrays: Arrays, sites: frozenset[str], loss: float) -> None:
        """Record a model by the mean loss of these sites."""
        # A mean over other sites is another figure: an easy site alone would look like progress.
        self.judges = self.judges or sites
        if sites == self.judges:
            self.see(round, arrays, loss)

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
            self.lr_scale *= PLATEAU_FACTOR
            self.waited = 0

    def ends(self, number: int, patience: int) -> bool:
        """Return whether a round is not begun any more, by the rounds without improvement; 0 waits for ever."""
        return 0 < patience <= self.since_best

    def state(self) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """Return the best arrays, and counters that JSON can hold."""
        plain = {name: getattr(self, name) for name in _COUNTERS}
        plain["best_loss"] = self.best_loss if math.isfinite(self.best_loss) else None
        arrays = {}
        if self.best_arrays is not None:
            arrays["best"] = self.best_arrays
        return arrays, plain | {"judges": sorted(self.judges)}

    def restore(self, arrays: Mapping[str, Arrays], facts: Mapping[str, Any]) -> None:
        """Restore what `state` gave."""
        for name in _COUNTERS:
            setattr(self, name, facts[name])
        self.best_loss = float("inf") if facts["best_loss"] is None else facts["best_loss"]
        self.best_arrays = arrays.get("best")
        self.judges = frozenset(facts["judges"])


_FACT = "grown-before"


def check_refit(*, refit: bool, select: str) -> None:
    """Refuse trees that would grow anew without a number of them."""
    if refit and select != "best":
        raise UsageError(render("study.strategies.refit"))


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
        """Return whether a round is not begun any more.

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
        """Return the facts of earlier rounds for the sites."""
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
