"""Draws of protected training: rows by Poisson sampling, and noise on a public grid, from a source of chance.

Sums of gradients and noise lie on that grid, so that no last bit of a float distinguishes them. Both are drawn the same
for a site alone and in a stack. A protection also says whom training informs before it begins.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from flfed.seeds import generator_apart
from flfed.study.plan import PrivateSteps
from flfed.words import usage_error

if TYPE_CHECKING:
    from torch import Tensor

    from flfed.rows.features.encode import Encoded

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
    grid first (`PublicGrid`), a cell of which has 2^26 of the draws. The time of a step is not
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
        Charges the run before noise is drawn; raises where it may not be spent.
    chance : callable (Generator) → NoiseSource
        Makes of the round's seeded generator what the draws come from.
    units : UnitCounts or None
        Knowledge of the number of rows where ε covers all outputs, and no exact number leaves.
    """

    steps: PrivateSteps
    spend: Callable[[int], None] = no_spending
    chance: Callable[[np.random.Generator], NoiseSource] = SeededNoise
    units: UnitCounts | None = None


FINENESS = 27
"""How many bits the grid is finer than the noise's deviation, or the clip where that is more. Each cell then holds
2^26 doubles near the deviation, so that rounded noise is as good as rounded normal noise; and 10,000 numbers lose a
millionth of the clip."""
LARGEST_DRAW = 18.0
"""No draw is as far from 0: those of `SystemNoise` are within the root of 2 log 2^53, which is 8.6."""


@dataclass(frozen=True)
class PublicGrid:
    """The grid on which sums and noise lie.

    It also says what each row may add so that the guarantee holds.

    Attributes
    ----------
    step : float
        Between two numbers of the grid, a power of two; 0 where there is no noise, and no grid.
    clip : float, > 0
        Largest norm of a row's gradient: less than the promise's, by what rounding may add.

    Guarantee: the output of a step is `round(S + z)`, S the sum put on the grid and z normal noise of deviation σC,
    with C the promise's clip. As S is on the grid, `round(S + z) = S + round(z)` is computed without any further
    rounding. That is post-processing of the Gaussian mechanism on S. With and without a row (person) two S differ by at
    most C in L2: by `clip` before rounding; by half a step in each of d numbers of each sum, together `sqrt(d)` steps;
    and by what float64 makes of sums of N rows in whatever order, at most `2 (N + 1)^2 + d` times 2^-53 of C; `clip` is
    C less both. N is the site's rows (persons), taken as known, as the divisor of a step takes it. Two things are not
    in it. Rounded noise is that of doubles. A cell holds 2^26 of them about its deviation, so that it is as likely as
    by normal noise within about 1e-8. And of the gradients themselves it is assumed that a row's does not depend, in
    its last bits, on the rows beside it.

    Source: Mironov 2012, "On significance of the least significant bits for differential privacy"; Casacuberta
    et al. 2022, "Widespread underestimation of sensitivity in differentially private libraries and how to fix it".
    """

    step: float
    clip: float

    @classmethod
    def of(cls, private: PrivateSteps, units: int, numbers: int) -> PublicGrid:
        """Return the grid of one site.

        It is about 2^-27 of the site's noise, or so coarse that sums of many rows are exact.

        Parameters
        ----------
        private : PrivateSteps
        units : int
            Rows, or persons, that can be sampled.
        numbers : int
            Of the gradient, all arrays together.

        Raises
        ------
        UsageError
            Where rounding alone could move a sum by the clip.
        """
        if not private.noise:
            return cls(0.0, private.clip)
        largest = (units + LARGEST_DRAW * private.noise) * private.clip
        wanted = math.floor(math.log2(max(1.0, private.noise) * private.clip)) - FINENESS
        exact = math.ceil(math.log2(largest)) - 52  # sums then are fewer than 2^52 steps, and none is rounded
        step = 2.0 ** max(wanted, exact)
        # What rounding could add to a row's share of the sum is taken off its clip beforehand.
        lost = math.sqrt(numbers) * step + (2 * (units + 1) ** 2 + numbers) * 2.0**-53 * private.clip
        if not lost < private.clip:
            raise usage_error("mechanisms.refusals.coarse", clip=private.clip, numbers=numbers)
        return cls(step, private.clip - lost)

    def rounded(self, total: Tensor) -> Tensor:
        """Round a sum to the grid, in place.

        It is float64, of any shape.
        """
        return total.div_(self.step).round_().mul_(self.step) if self.step else total

    def noise(self, normal: np.ndarray, deviation: float) -> np.ndarray:
        """Return draws on the grid, of a deviation.

        `normal`, float64 [any], is written over.

        Half-way cases go up, and not to even numbers, of which there would be more.
        """
        normal *= deviation / self.step
        normal += 0.5
        np.floor(normal, out=normal)
        normal *= self.step
        return normal


PAGE = 2**15
"""Numbers drawn at a time: a call for each step would take longer than the draws of a small site."""


@dataclass(frozen=True, eq=False)
class Persons:
    """Rows by person, one person after the other.

    Attributes
    ----------
    order : int64 array [rows]
    first, rows : int64 array [persons]
        Where in `order` a person's rows begin, and how many they are.
    """

    order: np.ndarray
    first: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, group: np.ndarray) -> Persons:
        """Return who has which rows, from each row's code."""
        order = np.argsort(group, kind="stable")
        _, first, rows = np.unique(group[order], return_index=True, return_counts=True)
        return cls(order, first, rows)


def persons_of(rows: Encoded, private: PrivateSteps) -> Persons | None:
    """Return the persons of the rows.

    None where each row is sampled for itself.
    """
    return None if private.unit == "row" or rows.group is None else Persons.of(rows.group)


def count_units(rows: Encoded, private: PrivateSteps, unit_counts: UnitCounts | None) -> UnitCounts:
    """Return what training divides by.

    It is the exact number of rows, or persons, that can be sampled, where none under noise stands in its place.
    """
    if unit_counts is not None:
        return unit_counts
    persons = persons_of(rows, private)
    count = len(rows) if persons is None else len(persons.rows)
    return UnitCounts(units=count, most=count)


def drawn_steps(
    rows: Encoded,
    private: PrivateSteps,
    chance: NoiseSource,
    steps: int,
    numbers: int,
    unit_counts: UnitCounts | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each step's sampled rows and its noise.

    Parameters
    ----------
    rows : Encoded, at least one row
    private : PrivateSteps
    chance : NoiseSource
    steps : int
    numbers : int
        Of the gradient, all arrays together.
    unit_counts : UnitCounts, optional
        In place of the exact number of rows or persons.

    Yields
    ------
    chosen : int64 array
        Each row drawn for itself, or of each person drawn one row, drawn anew. May be empty.
    noise : float64 array [numbers]
        Of deviation `private.noise * private.clip`, on the site's `PublicGrid`.
    """
    persons = persons_of(rows, private)
    count = len(rows) if persons is None else len(persons.rows)
    grid = PublicGrid.of(private, count_units(rows, private, unit_counts).most, numbers)
    deviation = private.noise * private.clip
    at_a_time = max(1, PAGE // max(count, numbers))
    for start in range(0, steps, at_a_time):
        page = min(at_a_time, steps - start)
        # One call draws for several steps: the places that are taken give step and row.
        taken = np.flatnonzero(chance.uniform(page * count) < private.sampling)
        bounds = np.searchsorted(taken, np.arange(page + 1) * count)
        chosen = taken % count
        if persons is not None:
            # Of each person that is drawn one row takes part, whichever it is.
            which = np.floor(chance.uniform(len(chosen)) * persons.rows[chosen]).astype(np.int64)
            chosen = persons.order[persons.first[chosen] + which]
        if private.noise:
            noise = grid.noise(chance.normal(page * numbers), deviation).reshape(page, numbers)
        else:
            noise = np.zeros((page, numbers))
        for step in range(page):
            yield chosen[bounds[step] : bounds[step + 1]], noise[step]
