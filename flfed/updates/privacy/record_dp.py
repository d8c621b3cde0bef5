"""Record-level differential privacy: each row's gradient is clipped, and every step has noise."""

from __future__ import annotations

from typing import Literal

from flfed.errors import UsageError
from flfed.plan import Plan, PrivateSteps
from flfed.updates.accounting import Release, epsilon, noise_for
from flfed.updates.mechanism import Mechanism, Promise


class RecordDp(Mechanism):
    """DP-SGD at every site: Poisson sampling, each row's gradient clipped, normal noise in each step.

    Parameters
    ----------
    epsilon, delta : float, > 0
        What all rounds of the run may spend together at a site; the noise follows from it and from the
        steps planned.
    clip : float, > 0
        Largest norm of what one row adds to a step.
    sampling : float in (0, 1]
        With what probability a row takes part in a step; it stands in place of `plan.batch`.
    unit : {"person", "row"}
        Whose privacy: a person's, where the schema names a group, or each row's alone.

    Guarantee: whoever sees all updates of a site learns almost the same whether or not one row (person)
    of its training rows was there: (ε, δ) by `promise`. Neighbours are tables with and without one.
    Assumes Poisson sampling and that the number of rows is known.

    Source: Abadi et al. 2016, "Deep learning with differential privacy".
    """

    def __init__(
        self,
        *,
        epsilon: float = 3.0,
        delta: float = 1e-5,
        clip: float = 1.0,
        sampling: float = 0.1,
        unit: Literal["person", "row"] = "person",
    ) -> None:
        for key, value, good, rule in (
            ("epsilon", epsilon, 0 < epsilon < 1000, "> 0"),
            ("delta", delta, 0 < delta < 0.1, "in (0, 0.1): less than one over the rows of the smallest site"),
            ("clip", clip, 0 < clip < 1e6, "> 0"),
            ("sampling", sampling, 0 < sampling <= 1, "in (0, 1]"),
        ):
            if not good:
                raise UsageError(f"[privacy] record-dp: {key}={value} must be {rule}")
        self.epsilon, self.delta, self.clip, self.sampling, self.unit = epsilon, delta, clip, sampling, unit

    def check(self, plan: Plan, rounds: int) -> None:
        """Refuse a plan whose steps are not fixed beforehand, or that clips a second time."""
        if not plan.steps:
            raise UsageError("[privacy] record-dp: needs [plan] steps: how many, at every site, is part of the promise")
        if plan.clip:
            raise UsageError("[plan]: clip is of whole gradients; [privacy] clip is each row's: leave plan.clip out")

    def private_steps(self, plan: Plan, rounds: int) -> PrivateSteps | None:
        """Return how sites take their steps."""
        noise = noise_for(self.epsilon, self.delta, self.sampling, plan.steps * rounds)
        return PrivateSteps(clip=self.clip, noise=noise, sampling=self.sampling, unit=self.unit)

    def round_release(self, plan: Plan, rounds: int) -> Release | None:
        """Return what one round spends at a site."""
        noise = noise_for(self.epsilon, self.delta, self.sampling, plan.steps * rounds)
        return Release(noise, self.sampling, plan.steps)

    def promise(self, plan: Plan, rounds: int) -> Promise | None:
        """Return what the run promises as it is planned."""
        steps = plan.steps * rounds
        noise = noise_for(self.epsilon, self.delta, self.sampling, steps)
        return Promise(
            mechanism="record-dp", unit=self.unit, delta=self.delta, noise=noise, sampling=self.sampling,
            epsilon=epsilon([Release(noise, self.sampling, steps)], self.delta), clip=self.clip, steps=steps,
        )  # fmt: skip
