"""Best round, early stopping and plateau, which the server decides from the federated validation loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flfed.study.plan import Plan
from flfed.updates.aggregation.losses import MeanLosses
from flfed.updates.arrays import Arrays
from flfed.updates.messages.train import Scores
from flfed.words import usage_error

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
        raise usage_error("study.strategies.validation", setting=settings[0])
    if plan.schedule == "plateau":
        settings.append("schedule='plateau'")
    if settings and fraction < 1:
        raise usage_error("study.strategies.fraction", fraction=fraction, setting=settings[0])


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
        beside : MeanLosses, optional
            Of a secure sum, in which sites keep their own scores.
        """
        # Without validation rows nothing is chosen.
        if not self.plan.validation:
            return
        if beside is not None and "validation" in beside.means:
            self.see(round, arrays, beside.means["validation"])
            return
        losses = {
            site: (own.num_examples, own.metrics["loss"])
            for site, own in scores.items()
            if own is not None and own.rows == "validation" and "loss" in own.metrics
        }
        # The best loss is written down, with the checkpoint.
        sites = frozenset(losses)
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
