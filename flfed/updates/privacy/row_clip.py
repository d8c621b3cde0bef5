"""Clipping of rows without noise.

It shows what record-level differential privacy costs before any noise is added.
"""

from __future__ import annotations

from typing import Literal

from flfed.study.plan import Plan, PrivateSteps
from flfed.study.settings import Settings
from flfed.study.study import Study
from flfed.updates.accounting import Clip, Sampling
from flfed.updates.mechanism import NO_NOISE, Mechanism, check_steps, uncharged_outputs


class RowClip(Mechanism, Settings, where="[privacy]"):
    """Poisson sampling and clipped rows, without noise.

    They are as under record-dp, for comparison only.

    Parameters
    ----------
    clip : float, > 0
        Largest norm of what one row adds to a step. Example: `clip = 0.5`.
    sampling : float in (0, 1]
        With what probability a row takes part in a step; it stands in place of `plan.batch`.
        Example: `sampling = 0.05`.
    unit : {"person", "row"}
        Who is sampled and clipped: a person, where the schema names a group, or each row alone.

    Guarantee: none. Neighbours, tables with and without one row (person), change the sum of a step's
    gradients by at most `clip`, which bounds how much anybody counts, and hides nobody.

    Source: Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1 without its noise.
    """

    clip: Clip = 1.0
    sampling: Sampling = 0.1
    unit: Literal["person", "row"] = "person"

    def check(self, study: Study) -> None:
        """Refuse what record-dp refuses.

        The two are to be compared.
        """
        check_steps(study)

    def private_steps(self, plan: Plan, rounds: int) -> PrivateSteps | None:
        """Return how sites take their steps."""
        return PrivateSteps(clip=self.clip, noise=0.0, sampling=self.sampling, unit=self.unit)

    def warnings(self, study: Study, sites: int) -> tuple[str, ...]:
        """Warn that nothing is promised."""
        return ("Rows are clipped, but no noise is added: nothing is promised to anybody.",)

    def uncharged(self, study: Study) -> tuple[str, ...]:
        """Return a sentence for everything that leaves a site."""
        return (NO_NOISE, *uncharged_outputs(study))
