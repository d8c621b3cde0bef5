"""Poisson sampling of rows, and noise, by step.

Both are drawn the same for a site alone and in a stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flfed.rows.features.encode import Encoded
from flfed.rows.training.private.noise import KnownUnits, NoiseSource
from flfed.rows.training.private.rounding import PublicGrid
from flfed.study.plan import PrivateSteps

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


def units(rows: Encoded, private: PrivateSteps) -> int:
    """Return how many rows, or persons, can be sampled."""
    persons = persons_of(rows, private)
    return len(rows) if persons is None else len(persons.rows)


def known_units(rows: Encoded, private: PrivateSteps, known: KnownUnits | None) -> KnownUnits:
    """Return what training divides by: the exact number, where none under noise stands in its place."""
    if known is not None:
        return known
    count = units(rows, private)
    return KnownUnits(units=count, most=count)


def drawn_steps(
    rows: Encoded, private: PrivateSteps, chance: NoiseSource, steps: int, numbers: int, known: KnownUnits | None = None
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
    known : KnownUnits, optional
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
    most = known_units(rows, private, known).most
    grid = PublicGrid.of(private, most, numbers)
    deviation = private.noise * private.clip
    at_a_time = max(1, PAGE // max(count, numbers))
    for start in range(0, steps, at_a_time):
        page = min(at_a_time, steps - start)
        # One call draws for several steps: the places that are taken tell step and row.
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
