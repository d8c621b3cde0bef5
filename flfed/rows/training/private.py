"""Training under record-level differential privacy: where its draws come from, and who is told before it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from flfed.plan import PrivateSteps


class Chance(Protocol):
    """Where the draws of protected training come from: the study's seed in simulation, the system at an institution."""

    def uniform(self, count: int) -> np.ndarray:
        """Return float64 [count], uniform in [0, 1)."""
        ...

    def normal(self, count: int) -> np.ndarray:
        """Return float64 [count], of mean 0 and deviation 1."""
        ...


@dataclass(frozen=True)
class SeededChance:
    """Draws that follow from a seed: for tests and simulation, where nobody is to be protected from who knows it."""

    rng: np.random.Generator

    def uniform(self, count: int) -> np.ndarray:
        """Return float64 [count], uniform in [0, 1)."""
        return self.rng.random(count)

    def normal(self, count: int) -> np.ndarray:
        """Return float64 [count], of mean 0 and deviation 1."""
        return self.rng.standard_normal(count)


def no_spending(round: int) -> None:
    """Write nothing down: of what nothing is promised, or whose ledger lives and dies with the run."""


@dataclass(frozen=True)
class Protection:
    """How a site's rows are protected in a run.

    Attributes
    ----------
    steps : PrivateSteps
    spend : callable (round)
        Writes down what a round will spend, before its training begins; raises where it may not be spent.
    chance : callable (Generator) → Chance
        Makes of the round's seeded generator what the draws come from.
    """

    steps: PrivateSteps
    spend: Callable[[int], None] = no_spending
    chance: Callable[[np.random.Generator], Chance] = SeededChance
