"""Noise sources and protection of private training.

They say where draws come from, and whom training informs before it begins.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from flfed.seeds import generator_apart
from flfed.study.plan import PrivateSteps

AT_A_TIME = 2**16
"""Draws of the operating system's generator that are held at a time, of 8 bytes each."""


class NoiseSource(Protocol):
    """A source of draws for protected training.

    It is the study's seed in simulation, and the operating system at an institution.
    """

    def uniform(self, count: int) -> np.ndarray:
        """Return float64 [count], uniform in [0, 1)."""
        ...

    def normal(self, count: int) -> np.ndarray:
        """Return float64 [count], of mean 0 and deviation 1."""
        ...


@dataclass(frozen=True)
class SeededNoise:
    """Draws that follow from a seed, and noise that follows from the study, too.

    For tests and simulation, where nobody is to be protected from who knows the seed.

    Attributes
    ----------
    rng : Generator
        Of samples, which studies with one seed share as they share splits and batches.
    study : str
        What of the study noise follows from (`noise_key`). Two studies with the same noise would give their exact
        numbers away. At two values of ε each answer is the same number plus the same draws, in two known proportions.
    """

    rng: np.random.Generator
    study: str = ""
    _noise: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the generator of noise where samples have not moved theirs yet."""
        noise = generator_apart(self.rng, self.study) if self.study else self.rng
        object.__setattr__(self, "_noise", noise)

    def uniform(self, count: int) -> np.ndarray:
        """Return float64 [count], uniform in [0, 1)."""
        return self.rng.random(count)

    def normal(self, count: int) -> np.ndarray:
        """Return float64 [count], of mean 0 and deviation 1."""
        return self._noise.standard_normal(count)


class SystemNoise:
    """Draws of the operating system that nobody can repeat.

    They are for an institution's own rows.

    Each call takes a new key of 256 bits from the system and stretches it by ChaCha20, as the system itself does, in
    a thirtieth of its time. Two draws of `normal` are made of two uniform numbers of 53 bits by Box and Muller's
    formula. None is beyond 8.6 deviations, where a true one is once in 10^16 draws.

    Guarantee: the next draw follows neither from the study's seed nor from any number of earlier draws. That holds for
    the draws alone. Added to a gradient unchanged, their last bits would reveal whether noise had been added, and which
    uniform numbers they came from. Doubles near 0 are finer than those of a sum. So protected steps round both to one
    grid first (`flfed.rows.training.private_steps`), a cell of which has 2^26 of the draws. The time of a step is not
    hidden.

    Source: Box and Muller 1958, "A note on the generation of random normal deviates"; RFC 8439 (ChaCha20). On last
    bits: Mironov 2012, and Holohan and Braghin 2021, "Secure random sampling in differential privacy", who add
    several draws instead of rounding them.
    """

    def __init__(self, rng: np.random.Generator | None = None, study: str = "") -> None:
        """Create the source, ignoring a seeded generator and a study.

        So it can take the place of `SeededNoise`.
        """

    def uniform(self, count: int) -> np.ndarray:
        """Return float64 [count], uniform in [0, 1).

        They are multiples of 2^-53.
        """
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

        # A new key of the operating system for each call.
        stream = Cipher(algorithms.ChaCha20(os.urandom(32), bytes(16)), mode=None).encryptor()
        drawn = np.frombuffer(stream.update(bytes(8 * count)), dtype=np.uint64)
        return (drawn >> np.uint64(11)) * 2.0**-53

    def normal(self, count: int) -> np.ndarray:
        """Return float64 [count], of mean 0 and deviation 1."""
        import torch  # what a site's budget and policy ask of this module needs none of it

        parts = [np.empty(0)]
        for start in range(0, count, AT_A_TIME):
            size = min(AT_A_TIME, count - start)
            pairs = (size + 1) // 2
            u, v = self.uniform(2 * pairs).reshape(2, pairs)
            radius = np.sqrt(-2 * np.log(1 - u))  # 1 - u is exact, and never 0
            # Of each pair one is made by a cosine and one by a sine, which are independent. Torch's take a third of
            # numpy's time.
            angle = torch.from_numpy(2 * math.pi * v)
            parts += [radius * angle.cos().numpy(), (radius * angle.sin().numpy())[: size - pairs]]
        return np.concatenate(parts)


def no_spending(round: int) -> None:
    """Record no privacy spending.

    For training without a guarantee, or with a ledger that lives and dies with the run.
    """


@dataclass(frozen=True)
class UnitCounts:
    """Knowledge of the number of rows, or persons, that can be sampled.

    Attributes
    ----------
    units : float, >= 1
        By which a step's sum is divided.
    most : int
        They are no more; for rounding.
    """

    units: float
    most: int


@dataclass(frozen=True)
class Protection:
    """How a site's rows are protected in a run.

    Attributes
    ----------
    steps : PrivateSteps
    spend : callable (round)
        Writes down what a round will spend, before its training begins; raises where it may not be spent.
    chance : callable (Generator) → NoiseSource
        Makes of the round's seeded generator what the draws come from.
    units : UnitCounts or None
        Knowledge of the number of rows where ε covers all outputs, and no exact number leaves.
    """

    steps: PrivateSteps
    spend: Callable[[int], None] = no_spending
    chance: Callable[[np.random.Generator], NoiseSource] = SeededNoise
    units: UnitCounts | None = None
