"""Columns of a regression: numbers, flags, indicators of a category's values, and products of two of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from flfed.errors import nearest
from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd

    from flfed.rows.data.schema import Schema

KINDS = ("number", "flag", "category")
"""Kinds of columns that a regression may be on."""
PRODUCT = " * "


@dataclass(frozen=True)
class Factor:
    """A number, a flag, or whether a category has a value.

    Attributes
    ----------
    column : str
    value : str
        Of a category; "" for other kinds.
    low, high : float
        Range of what it may be.
    """

    column: str
    value: str = ""
    low: float = 0.0
    high: float = 1.0

    @property
    def name(self) -> str:
        """Its name, such as `age` or `sex=male`."""
        return f"{self.column}={self.value}" if self.value else self.column

    def of(self, table: pd.DataFrame) -> np.ndarray:
        """Return its float64 array [rows], NaN where the column is missing."""
        cells = table[self.column]
        if not self.value:
            return cells.to_numpy(dtype=float)
        return np.where(cells.isna(), np.nan, cells == self.value)


@dataclass(frozen=True)
class Term:
    """A factor or a product of two, scaled by its range to −1 … 1; without numbers it stays 0 or 1.

    Attributes
    ----------
    factors : tuple of Factor
    middle, half : float
        The scaled value is (value − middle) / half.
    """

    factors: tuple[Factor, ...]
    middle: float
    half: float

    @classmethod
    def of(cls, factors: tuple[Factor, ...]) -> Term:
        """Return the term of some factors."""
        corners = [float(np.prod(ends)) for ends in product(*((one.low, one.high) for one in factors))]
        low = min(corners)
        high = max(corners)
        if (low, high) == (0.0, 1.0):
            return cls(factors, 0.0, 1.0)
        return cls(factors, (low + high) / 2, (high - low) / 2)

    @property
    def name(self) -> str:
        """Name of its coefficient."""
        return PRODUCT.join(factor.name for factor in self.factors)

    def scaled(self, table: pd.DataFrame) -> np.ndarray:
        """Return its scaled float64 array [rows], NaN where a column is missing."""
        values = self.factors[0].of(table)
        for factor in self.factors[1:]:
            values = values * factor.of(table)
        return (values - self.middle) / self.half


@dataclass(frozen=True)
class Design:
    """The terms of a regression in their order, by what a study names.

    Attributes
    ----------
    columns : tuple of str
        Of the schema, each once.
    terms : tuple of Term
    """

    columns: tuple[str, ...]
    terms: tuple[Term, ...]

    @classmethod
    def of(cls, names: Sequence[str], schema: Schema, statistic: str, taken: Sequence[str] = ()) -> Design:
        """Return the design of columns and products of two, such as `["age", "sex", "age * sex"]`.

        Parameters
        ----------
        names : sequence of str
        schema : Schema
        statistic : str
            Its name, for an error.
        taken : sequence of str
            Columns with another part in the model, such as the outcome.

        Raises
        ------
        UsageError
            For no name, one that is given twice, or one of no such column.
        """
        if not names:
            raise usage_error("study.regression.empty", statistic=statistic)
        columns: dict[str, None] = {}
        terms: dict[str, Term] = {}
        for name in names:
            parts = [part.strip() for part in name.split("*")]
            levels = [_factors(part, schema, statistic, taken) for part in parts]
            if len(parts) > 2 or len(set(parts)) < len(parts):
                raise usage_error("study.regression.product", statistic=statistic, name=name)
            columns |= dict.fromkeys(parts)
            for factors in product(*levels):
                term = Term.of(factors)
                if term.name in terms:
                    raise usage_error("study.regression.twice", statistic=statistic, name=name)
                terms[term.name] = term
        return cls(tuple(columns), tuple(terms.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients."""
        return tuple(term.name for term in self.terms)

    def matrix(self, table: pd.DataFrame) -> np.ndarray:
        """Return the scaled float64 array [rows, terms], NaN where a column is missing."""
        return np.column_stack([term.scaled(table) for term in self.terms])

    def rescaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the factors [terms] of the coefficients, and what each adds to the intercept in its unit."""
        factors = np.array([1 / term.half for term in self.terms])
        return factors, np.array([-term.middle / term.half for term in self.terms])


def _factors(name: str, schema: Schema, statistic: str, taken: Sequence[str]) -> tuple[Factor, ...]:
    """Return the factors of a column: of a category one for each value but the first."""
    column = schema.columns.get(name)
    if column is None or column.kind not in KINDS or name in taken:
        allowed = [key for key, other in schema.columns.items() if other.kind in KINDS and key not in taken]
        raise usage_error("study.regression.column", statistic=statistic, name=name, hint=nearest(name, allowed))
    if column.kind == "category":
        return tuple(Factor(name, value) for value in column.values[1:])
    if column.range is not None:
        return (Factor(name, "", *column.range),)
    return (Factor(name),)
