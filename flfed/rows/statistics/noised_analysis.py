"""Numbers of a site's rows that may leave with normal noise.

A person moves none by more than is charged.

They are counts of rows by class, and the counts and clipped sums of an analysis of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from flfed.errors import nearest
from flfed.rows.data.schema import Column, Schema
from flfed.rows.encoded_table import EncodedTable
from flfed.rows.features.encode import codes
from flfed.rows.features.summarise import column_layout
from flfed.rows.statistics.statistic import REAL, Shapes, Sums, added
from flfed.rows.training.private_noise import NoiseSource, PublicGrid
from flfed.study.analysis import Analysis
from flfed.study.study import Study
from flfed.summaries.analysis import CROSS, ROWS, AnalysisLayout, own_edges
from flfed.summaries.summary import Arrays, ColumnLayout
from flfed.words import usage_error

STEP = 2.0**-20
"""Between two numbers of a weighted count or a sum, of which one row adds at most 1: sums of 2^32 rows are exact."""


@dataclass(frozen=True, kw_only=True)
class GaussianQuery:
    """Query whose answer has normal noise.

    Attributes
    ----------
    sensitivity : float, > 0
        Most that one person moves all numbers of the answer together, in L2: of k histograms, in each of which a
        person's rows weigh at most one together, it is the root of k.
    noise : float, > 0
        Noise multiplier: deviation of the noise in sensitivities.
    step : float, a power of two
        Between two numbers of an answer: 1 of counts, `STEP` of weighted counts and sums.

    Guarantee: an answer is `S + round(z)`, S the exact numbers and z normal noise of deviation `noise · sensitivity`,
    rounded to the step. S lies on multiples of the step, so that this is `round(S + z)`, which is post-processing of
    the Gaussian mechanism on S. No last bit reveals S. Tables with and without one person differ in S by at most
    `sensitivity`. Of tables in which a person is another one it would be twice that, or √2 times in histograms. It
    costs one step of this noise over all rows, however many sums the answer has. Draws must be such as nobody can
    repeat (`SystemNoise`).

    Source: Dwork and Roth 2014, "The algorithmic foundations of differential privacy", appendix A; of the rounding,
    Mironov 2012, "On significance of the least significant bits for differential privacy".

    Examples
    --------
    >>> query = GaussianQuery(sensitivity=24**0.5, noise=3.766)
    >>> round(query.deviation, 2)
    18.45
    """

    sensitivity: float
    noise: float
    step: float = 1.0

    @property
    def deviation(self) -> float:
        """Deviation of the noise on each number."""
        return self.noise * self.sensitivity

    def answer(self, exact: np.ndarray, chance: NoiseSource) -> np.ndarray:
        """Return the noised numbers, float64 of the same shape, multiples of the step.

        Parameters
        ----------
        exact : array of counts or sums
            Multiples of the step.
        chance : NoiseSource

        Raises
        ------
        ValueError
            If a number is no multiple of the step: then its last bits would show through the noise.
        """
        values = np.asarray(exact, dtype=float)
        if not (np.floor(values / self.step) * self.step == values).all():
            raise ValueError(f"an answer must have multiples of {self.step:g}")
        grid = PublicGrid(self.step, self.sensitivity)
        return np.asarray(values + grid.noise(chance.normal(values.size), self.deviation).reshape(values.shape))


def person_weights(persons: np.ndarray | None, rows: int) -> np.ndarray:
    """Return the weight of each row, float64 [rows]: those of one person weigh at most 1 together.

    Parameters
    ----------
    persons : int array [rows] or None
        Code of each row's person; None where each row is another one's.
    rows : int

    Examples
    --------
    >>> weights = person_weights(np.array([0, 1, 0, 0]), 4)
    >>> float(weights[1]), float(weights[[0, 2, 3]].sum()) <= 1
    (1.0, True)
    """
    if persons is None:
        return np.ones(rows)
    return np.asarray(np.floor(1 / (np.bincount(persons)[persons] * STEP)) * STEP, dtype=float)


def clipped(values: np.ndarray, low: float, high: float, weights: np.ndarray) -> np.ndarray:
    """Return what each row adds to a sum of clipped values: from -1 at `low` to 1 at `high`, times its weight.

    It is rounded towards 0 to a multiple of `STEP`, so that sums of rows are exact in any order and a person adds at
    most 1. A value that is not known adds 0.

    Parameters
    ----------
    values, weights : float64 array [rows]
    low, high : float
        Of the schema or the study, and never of the rows.

    Examples
    --------
    >>> clipped(np.array([20.0, 95.0, 300.0, np.nan]), 40.0, 150.0, np.ones(4)).tolist()
    [-1.0, 0.0, 1.0, 0.0]
    """
    middle = (low + high) / 2
    half = (high - low) / 2
    scaled = np.clip((np.nan_to_num(values, nan=middle) - middle) / half, -1.0, 1.0) * weights
    return np.asarray(np.trunc(scaled / STEP) * STEP, dtype=float)


def weights_of(table: pd.DataFrame, schema: Schema, *, by_person: bool) -> np.ndarray:
    """Return the weight of each row, float64 [rows]: those of one person weigh one together, or each row one."""
    persons = persons_of(table, schema) if by_person else None
    return person_weights(persons, len(table))


def persons_of(table: pd.DataFrame, schema: Schema) -> np.ndarray | None:
    """Return the code of each row's person, int64 [rows].

    None where the schema names no group.
    """
    # Rows whose person is not known may all be one's.
    return pd.factorize(table[schema.group], use_na_sentinel=False)[0] if schema.group else None


def training_counts(table: EncodedTable, *, by_person: bool) -> np.ndarray:
    """Return a site's training rows without and with the outcome, float64 [2]; a person's rows weigh at most 1."""
    rows = table.coded(table.table.training)
    weights = weights_of(table.table.training, table.schema, by_person=by_person)
    return np.bincount(rows.codes[table.layout.target.name], weights, minlength=2)[:2]


ANSWER = "answer"
COUNTED = ("number", "category", "flag", "target")
MOST_VALUES = 50
"""Of a column by which others are grouped, or crossed: each further value has its share of the noise."""


@dataclass(frozen=True, kw_only=True)
class NoisedAnalysis:
    """Counts and clipped sums of columns, with noise.

    Attributes
    ----------
    of : Analysis
    noise : float
        Noise multiplier of an answer.
    by_person : bool
        Whether rows of one person weigh one together; else each row weighs one.

    Reveals: counts, clipped sums and cross-tables of the study's columns over all rows of the site, each with normal
    noise that follows from the study's ε and δ. Whether one person's rows are among them changes what can leave by no
    more than these allow. The noise is drawn once; who asks again gets the same numbers.
    """

    of: Analysis
    noise: float
    by_person: bool = True
    label = "counts and means with noise"

    @classmethod
    def of_study(cls, study: Study, noise: float) -> NoisedAnalysis:
        """Return a study's analysis, with the noise multiplier of its answers.

        Raises UsageError where it has none.
        """
        if study.analysis is None:
            raise usage_error("study.analysis.none", study=study.name)
        return cls(of=study.analysis, noise=noise, by_person=study.by_person)

    def columns(self, schema: Schema) -> tuple[str, ...]:
        """Return the columns that are read.

        Raises UsageError where the dataset has none such.
        """
        layout = self.layout(schema)
        group = () if layout.group is None else (layout.group.name,)
        crossed = (column.name for column in chain.from_iterable(layout.cross))
        return tuple(dict.fromkeys((*(column.name for column in layout.columns), *group, *crossed)))

    def layout(self, schema: Schema) -> AnalysisLayout:
        """Return the numbers of an answer, by the schema and the study alone.

        Raises
        ------
        UsageError
            For a column that the dataset lacks, or of a kind that cannot be asked for so.
        """
        countable = [name for name, column in schema.columns.items() if column.kind in COUNTED]
        names = countable if self.of.columns is None else list(self.of.columns)
        for name in self.of.bounds:
            column = _find_column(schema, name, "bounds")
            if not column.is_number():
                raise usage_error("study.analysis.number", name=name)
        group = self._categorical(schema, self.of.groups, "groups") if self.of.groups else None
        columns = tuple(self._column(schema, name, "columns") for name in names if name != self.of.groups)
        cross = tuple(
            (self._categorical(schema, first, "cross"), self._categorical(schema, second, "cross"))
            for first, second in self.of.cross
        )
        return AnalysisLayout(columns=columns, group=group, cross=cross, quantiles=self.of.quantiles)

    def query(self, schema: Schema) -> GaussianQuery:
        """Return the mechanism by which an answer is noised."""
        return GaussianQuery(sensitivity=self.layout(schema).sensitivity, noise=self.noise, step=STEP)

    def shapes(self, schema: Schema) -> Shapes:
        """Return what a site sends: one array."""
        return {ANSWER: ((self.layout(schema).entries,), REAL)}

    def largest(self, schema: Schema) -> Sums:
        """Return the most that one row adds to each number."""
        return {ANSWER: np.ones(self.layout(schema).entries)}

    def sums(self, table: pd.DataFrame, schema: Schema) -> Sums:
        """Return the exact numbers of a site's rows, which do not leave: `query` puts the noise on them."""
        layout = self.layout(schema)
        weights = weights_of(table, schema, by_person=self.by_person)
        at = np.zeros(len(table), dtype=np.int64)
        if layout.group is not None:
            at = codes(table[layout.group.name], layout.group)
        parts: Arrays = {ROWS: np.bincount(at, weights, minlength=layout.groups)}
        for column in layout.columns:
            parts |= _counted(column, table[column.name], at, layout.groups, weights)
        for place, (first, second) in enumerate(layout.cross):
            one, other = (codes(table[column.name], column) for column in (first, second))
            whole = np.zeros((len(first.cells), len(second.cells)))
            np.add.at(whole, (one, other), weights)
            parts[f"{CROSS}{place}"] = whole[:-1, :-1]
        return {ANSWER: np.concatenate([np.ravel(parts[name]) for name in layout.shapes()])}

    def figures(self, sites: Sequence[Sums], schema: Schema, of_all: Sums) -> dict[str, Any]:
        """Return the figures of some sites' noised answers, added up."""
        deviation = self.query(schema).deviation * len(sites) ** 0.5
        unit = "person" if self.by_person and schema.group else "row"
        return {"counts-each": unit, **self.layout(schema).figures(added(sites)[ANSWER], deviation)}

    def _column(self, schema: Schema, name: str, where: str) -> ColumnLayout:
        column = _find_column(schema, name, where)
        if not column.is_number():
            return column_layout(name, column)
        low, high = self.of.bounds.get(name) or column.typical or column.range or (0.0, 1.0)
        if column.range is not None and not column.range[0] <= low < high <= column.range[1]:
            known = list(column.range)
            raise usage_error("study.analysis.range", name=name, ends=[low, high], range=known)
        # Values are divided by half the width, which may neither vanish nor overflow.
        if not np.finfo(np.float64).tiny <= (high - low) / 2 <= np.finfo(np.float64).max / 4:
            raise usage_error("study.analysis.width", name=name, ends=[low, high])
        # Where it is known where most values lie, bins of a logarithm would put nearly all of them into a few.
        if name in self.of.bounds or column.typical:
            column = column.model_copy(update={"transform": "none"})
        return column_layout(name, column, within=(low, high), bins=self.of.bins)

    def _categorical(self, schema: Schema, name: str, where: str) -> ColumnLayout:
        column = self._column(schema, name, where)
        if column.edges or len(column.cells) > MOST_VALUES + 1:
            raise usage_error("study.analysis.categorical", where=where, name=name, most=MOST_VALUES)
        return column


def _counted(column: ColumnLayout, cells: pd.Series, at: np.ndarray, groups: int, weights: np.ndarray) -> Sums:
    """Return a column's histogram by group, and of a number its sums."""
    width = len(column.cells)
    sums = {f"counts {column.name}": np.bincount(at * width + codes(cells, column), weights, minlength=groups * width)}
    if not column.edges:
        return sums
    low, *_, high = own_edges(column).tolist()
    values = cells.to_numpy(dtype=float)
    # The square is that of the value before it is weighed: a person's squares, too, weigh one together.
    square = clipped(values, low, high, np.ones(len(values))) ** 2
    once = clipped(values, low, high, weights)
    twice = np.trunc(square * weights / STEP) * STEP
    return sums | {
        f"total {column.name}": np.bincount(at, once, minlength=groups),
        f"square {column.name}": np.bincount(at, twice, minlength=groups),
    }


def _find_column(schema: Schema, name: str, where: str) -> Column:
    countable = [one for one, column in schema.columns.items() if column.kind in COUNTED]
    if name not in countable:
        close = nearest(name, countable)
        raise usage_error("study.analysis.unknown", where=where, name=name, dataset=schema.name, close=close)
    return schema.columns[name]
