"""Training of a site in one round, as a study plans it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from flfed.errors import UsageError
from flfed.study.settings import Settings
from flfed.words import render

Share = Annotated[float, Field(ge=0, lt=1)]
BETAS = (0.9, 0.999)


EPS = 1e-8
"""Of Adam and AdamW, as in PyTorch."""


class Plan(Settings, where="[plan]", frozen=True):
    """Training of a site in one round.

    The optimiser starts fresh each round.

    Attributes
    ----------
    optimiser : {"sgd", "adam", "adamw"}
        Rule by which a gradient becomes a step.
    lr : float, > 0
        Learning rate of the first round; `schedule` changes it from round to round. Example: `lr = 0.1`.
    schedule : {"constant", "cosine", "plateau"}
        `cosine` falls to zero over the rounds; `plateau` is decided by the server on the
        federated validation loss.
    plateau_patience : int, >= 1
        Rounds without a better validation loss that make a plateau, which halves the learning rate.
        Example: `plateau-patience = 10`.
    momentum : float in [0, 1)
        Of `sgd` only. Example: `momentum = 0.9`.
    weight_decay : float, >= 0
        Decoupled, of `adamw` only. Example: `weight-decay = 0.001`.
    batch : int, >= 0
        Rows a step; 0 means all rows. Example: `batch = 64`.
    epochs : int
        Passes over the site's rows a round. Ignored where `steps` is given. Example: `epochs = 2`.
    steps : int, >= 0
        Steps a round, the same at every site; 0 means by `epochs`. Example: `steps = 20`.
    l1, l2 : float, >= 0
        Penalties on weights, not on intercepts, for a loss that is a mean over rows. `l2 / 2`
        times the squared norm is in the gradient; `l1` is a proximal step after each update, so
        that weights become exactly 0. A global weight is 0 where it is 0 at every site.
        Examples: `l1 = 0.001`, `l2 = 0.01`.
    clip : float, >= 0
        Largest norm of a step's gradient; 0 means none. Example: `clip = 1.0`.
    class_weight : {"none", "balanced"}
        `balanced` weighs each row by rows / (classes × rows of its class), counted over all
        sites' training rows. It costs calibration.
    precision : {"float64", "float32"}
        In which the sites compute.
    validation : float in [0, 1)
        Share of training rows kept for selection and for the curves by round. Example: `validation = 0.2`.
    """

    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.05
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    plateau_patience: Annotated[int, Field(ge=1)] = 5
    momentum: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    batch: Annotated[int, Field(ge=0), ">= 0; 0 means all rows"] = 32
    epochs: Annotated[int, Field(ge=1)] = 1
    steps: Annotated[int, Field(ge=0), ">= 0; 0 means by epochs"] = 0
    l1: Annotated[float, Field(ge=0)] = 0.0
    l2: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(ge=0), ">= 0; 0 means none"] = 0.0
    class_weight: Literal["none", "balanced"] = "none"
    precision: Literal["float64", "float32"] = "float64"
    validation: Share = 0.0

    def __post_init__(self) -> None:
        """Refuse values out of their ranges, or that contradict each other."""
        super().__post_init__()
        if self.momentum and self.optimiser != "sgd":
            raise UsageError(render("study.plan.momentum", optimiser=self.optimiser))
        if self.schedule == "plateau" and not self.validation:
            raise UsageError(render("study.plan.plateau"))

    def factor(self, round: int, rounds: int) -> float:
        """Return the schedule's factor of `lr` in a round.

        Rounds count from 1 to `rounds`.

        The plateau's factor is the server's decision and not in here.

        Examples
        --------
        >>> plan = Plan(schedule="cosine")
        >>> [round(plan.factor(r, 3), 3) for r in (1, 2, 3)]
        [1.0, 0.75, 0.25]
        """
        # The first round has the whole rate, and none has a rate of zero.
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * (round - 1) / rounds)) / 2
        return 1.0

    def batch_size(self, rows: int) -> int:
        """Return the rows of a full batch, of so many rows."""
        return min(self.batch, rows) if self.batch else rows

    def steps_a_round(self, rows: int) -> int:
        """Return the steps a round of a site with so many rows.

        They are none for a site without rows.

        Examples
        --------
        >>> plan = Plan(batch=32, epochs=2)
        >>> [plan.steps_a_round(rows) for rows in (0, 20, 100)]
        [0, 2, 8]
        """
        if rows:
            return self.steps or self.epochs * -(-rows // self.batch_size(rows))
        return 0

    def effective_steps(self, steps: int) -> float:
        """Return the sum of the weights that the gradients of so many steps have in an update of `sgd`.

        In units of the learning rate. With momentum r it is `(s - r (1 - r^s) / (1 - r)) / (1 - r)` for s steps.

        Examples
        --------
        >>> Plan().effective_steps(3), Plan(momentum=0.5).effective_steps(2)
        (3.0, 2.5)
        """
        momentum = self.momentum
        return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)


@dataclass(frozen=True, kw_only=True)
class PrivateSteps:
    """Steps of a plan that protect rows or persons.

    The result distinguishes no row, or no person.

    Attributes
    ----------
    clip : float, > 0
        Largest L2 norm of what one row, or one person, adds to a step's gradient.
    noise : float, >= 0
        Noise multiplier σ: each step's summed gradient gets normal noise of deviation `noise * clip`
        in every coordinate. 0 adds none, and then nothing is promised.
    sampling : float in (0, 1]
        With what probability each row, or person, takes part in a step, drawn for each alone (Poisson).
    unit : {"person", "row"}
        Who is sampled and clipped. A person with several rows takes part with one of them, drawn anew
        in each step, so that the guarantee is the person's.
    """

    clip: float
    noise: float
    sampling: float
    unit: Literal["person", "row"] = "person"
