"""Check of a run's models by their mean losses, where nobody sees whose update made one worse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flfed.refusals import Refusal
from flfed.updates.aggregation.loss_sums import MeanLosses
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.train import TrainReply

GROWTH = 10.0
"""Times the last mean loss that the next may be: under masks nobody sees whose update made the model worse."""
INFINITE = frozenset({"loss-infinite", "scores-infinite"})
"""Codes of replies with a loss that is not finite."""


@dataclass(kw_only=True, eq=False)
class LossCheck:
    """What a run knows of the losses of its models.

    Attributes
    ----------
    scored : {"training", "validation"}
        Rows that the model of a round is scored on.
    loss : float
        Mean loss of the last model that was scored; NaN where there was none.
    before : dict of name to array
        The last model whose loss was right, empty at first.
    spoilt : bool
        Whether the loss of the model after it was not.
    evaluated : (int, MeanLosses) or None
        Mean losses of the model that was scored without training, and the number of that question.
    """

    scored: str = "training"
    loss: float = math.nan
    before: Arrays = field(default_factory=dict)
    spoilt: bool = False
    evaluated: tuple[int, MeanLosses] | None = None

    def refusal(
        self,
        means: Mapping[str, float],
        replies: Mapping[str, TrainReply],
        refused: Mapping[str, Refusal],
        incoming: Arrays,
    ) -> Refusal | None:
        """Return why the model that was scored is not used, None where it is.

        Its mean loss is not finite, or many times that of the one before; `before` is the last good model then.

        Parameters
        ----------
        means : mapping of str to float
            Mean losses of a sum, where sites keep their own.
        replies : mapping of site to TrainReply
            Good ones.
        refused : mapping of site to Refusal
            Others; a loss that is not finite is a reason.
        incoming : dict of name to array
            The model.
        """
        self.note_infinite(refused)
        if self.spoilt:
            return Refusal("loss-grown", times=f"{GROWTH:g}")
        loss = means.get(self.scored)
        loss = _mean_loss(replies) if loss is None else loss
        if loss is None:
            return None
        limit = GROWTH * self.loss if self.loss > 0 else math.inf
        self.spoilt = bool(self.before) and not (math.isfinite(loss) and loss <= limit)
        if self.spoilt:
            return Refusal("loss-grown", times=f"{GROWTH:g}")
        self.loss = loss
        self.before = dict(incoming)
        return None

    def note_infinite(self, refused: Mapping[str, Refusal]) -> None:
        """Note that the model is spoilt where a site's loss is not finite."""
        self.spoilt = bool(self.before) and any(why.code in INFINITE for why in refused.values())

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides `before`."""
        loss = None if math.isnan(self.loss) else self.loss
        found: dict[str, Any] = {"loss": loss}
        if self.evaluated is not None:
            number, losses = self.evaluated
            found["evaluated"] = {"number": number, "listed": sorted(losses.listed), "means": dict(losses.means)}
        return found

    def restore(self, facts: Mapping[str, Any], before: Arrays) -> None:
        """Go on from a checkpoint."""
        self.before = dict(before)
        self.loss = math.nan if facts["loss"] is None else float(facts["loss"])
        last = facts.get("evaluated")
        if last is not None:
            losses = MeanLosses(listed=frozenset(last["listed"]), means=last["means"])
            self.evaluated = (int(last["number"]), losses)


def _mean_loss(replies: Mapping[str, TrainReply]) -> float | None:
    """Return the mean loss of the model over the sites that sent theirs, None where none did."""
    scored = [reply.scores for reply in replies.values() if reply.scores is not None]
    known = [(one.num_examples, one.metrics["loss"]) for one in scored if "loss" in one.metrics]
    rows = sum(count for count, _ in known)
    return math.fsum(count * value for count, value in known) / rows if rows else None
