"""From a study's mechanism to how one site trains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flfed.rows.training.private import Chance, Protection, SeededChance, no_spending
from flfed.study import Study
from flfed.updates.mechanism import mechanism_of


def protection_of(
    study: Study,
    *,
    spend: Callable[[int], None] = no_spending,
    chance: Callable[[np.random.Generator], Chance] = SeededChance,
) -> Protection | None:
    """Return how a site's rows are protected in a run of a study; None where the study asks for nothing.

    Parameters
    ----------
    study : Study
    spend : callable (round)
        Writes down what a round will spend.
    chance : callable (Generator) → Chance
        Where draws come from; by default they follow from the study's seed.
    """
    mechanism = mechanism_of(study)
    steps = None if mechanism is None else mechanism.private_steps(study.plan, study.rounds)
    return None if steps is None else Protection(steps=steps, spend=spend, chance=chance)
