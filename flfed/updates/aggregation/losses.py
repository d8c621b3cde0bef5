"""Losses of a round: a site adds them to the sum of its updates, and the server has their means over sites alone.

By these means it checks a run's models, where nobody sees whose update made one worse.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flfed.refusals import Refusal
from flfed.updates.arrays import Arrays
from flfed.updates.masks.ring import Ring

LARGEST = 1e4
"""Largest loss that a site adds: one beyond it, or one that is no number, counts as this much."""
PARTS = ("fit", "scores")
"""Losses over the steps of training, and of the model that came, on validation rows (without any, on training rows)."""
ENTRIES = 2 * len(PARTS)


@dataclass(frozen=True)
class RowLoss:
    """A mean loss, and over how many rows it is."""

    rows: float
    loss: float


Losses = Mapping[str, RowLoss]
"""A site's losses by part; of a part that a site lacks, or that stays, there is no sum."""


Draw = Callable[[int, int], int]
"""Returns a whole number, uniform between two bounds, both included."""


def draw_number(low: int, high: int) -> int:
    """Return a number of the operating system's randomness."""
    return low + secrets.randbelow(high - low + 1)


@dataclass(frozen=True, kw_only=True)
class MeanLosses:
    """Mean losses of all sites of a run, weighted by their rows.

    Attributes
    ----------
    means : mapping of str to float
        Over the steps of training ("fit"), and of the model that came, by the rows that it was scored on. What no site
        has is left out.
    """

    means: Mapping[str, float]


def loss_ring(sites: int) -> Ring:
    """Return the ring of 64 bits of losses, each weighted by a share of the most rows that a site may have."""
    return Ring.of_sums(sites, LARGEST)


def encode_losses(
    losses: Losses,
    *,
    sites: int,
    most_rows: float,
    rng: np.random.Generator,
    draw: Draw = draw_number,
) -> np.ndarray | Refusal:
    """Return a site's weights and weighted losses as numbers of the ring.

    Parameters
    ----------
    losses : mapping of part to RowLoss
        Rounded already: the sum has no more digits of them.
    sites : int
        Of the sum, at most.
    most_rows : float
        That weigh 1.
    rng : Generator
        By which numbers are rounded up or down.
    draw : callable (low, high) → int, optional
        Where the numbers of a part that the site lacks come from: a weight that all sites together cannot have, and any
        loss that one can. Zeros would leave the sum of the other sites.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> numbers = encode_losses({"fit": RowLoss(50, 0.693)}, sites=3, most_rows=100, rng=rng)
    >>> loss_ring(3).decode(numbers)[:2].round(6).tolist()
    [0.5, 0.3465]
    """
    values = np.zeros(ENTRIES)
    for place, part in enumerate(PARTS):
        if part in losses:
            weight = losses[part].rows / most_rows
            values[2 * place] = weight
            values[2 * place + 1] = weight * _clipped(losses[part].loss)
    ring = loss_ring(sites)
    numbers = ring.encode(values, rng)
    if isinstance(numbers, Refusal):
        return numbers
    most = int(LARGEST * ring.scale)
    for place, part in enumerate(PARTS):
        if part not in losses:
            drawn = [draw(int((sites + 1) * ring.scale), most), draw(-most, most)]
            numbers[2 * place : 2 * place + 2] = np.array(drawn, np.int64).view(np.uint64)
    return numbers


def _clipped(loss: float) -> float:
    """Return a loss within the bound.

    A value that is no number becomes a spoilt model's loss.
    """
    return min(max(loss, -LARGEST), LARGEST) if math.isfinite(loss) else LARGEST


def decode_losses(total: np.ndarray, *, sites: int, scored: str) -> MeanLosses | None:
    """Return the mean losses of a sum of so many sites, which were `scored` on such rows; None of a sum of none."""
    if not total.size:
        return None
    values = loss_ring(sites).decode(total)
    means = {}
    for place, part in enumerate(("fit", scored)):
        weight, weighted = values[2 * place : 2 * place + 2]
        # Where a site lacks the part, its weight is beyond what so many sites can have.
        if 0 < weight <= sites + 1e-6:
            means[part] = float(weighted / weight)
    return MeanLosses(means=means)


GROWTH = 10.0
"""Times the last mean loss that the next may be: under masks nobody sees whose update made the model worse."""


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
        Mean losses of the model that was scored without training, and the round of that question.
    """

    scored: str = "training"
    loss: float = math.nan
    before: Arrays = field(default_factory=dict)
    spoilt: bool = False
    evaluated: tuple[int, MeanLosses] | None = None

    def refusal(self, means: Mapping[str, float], incoming: Arrays) -> Refusal | None:
        """Return why the model that was scored is not used, None where it is.

        Its mean loss is many times that of the one before; `before` is the last good model then.

        Parameters
        ----------
        means : mapping of str to float
            Mean losses of a sum.
        incoming : dict of name to array
            The model.
        """
        loss = means.get(self.scored)
        if loss is not None and self.before:
            limit = GROWTH * self.loss if self.loss > 0 else math.inf
            self.spoilt |= not loss <= limit
        if self.spoilt:
            return Refusal("loss-grown", times=f"{GROWTH:g}")
        if loss is not None:
            self.loss = loss
            self.before = dict(incoming)
        return None

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides `before`."""
        facts: dict[str, Any] = {"loss": self.loss}
        if math.isnan(self.loss):
            facts["loss"] = None
        if self.evaluated is not None:
            number, losses = self.evaluated
            facts["evaluated"] = {"number": number, "means": dict(losses.means)}
        return facts

    def restore(self, facts: Mapping[str, Any], before: Arrays) -> None:
        """Go on from a checkpoint."""
        self.before = dict(before)
        self.loss = math.nan if facts["loss"] is None else float(facts["loss"])
        last = facts.get("evaluated")
        if last is not None:
            self.evaluated = (int(last["number"]), MeanLosses(means=last["means"]))
