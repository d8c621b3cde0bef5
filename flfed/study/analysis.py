"""Statistic "summary" of a study: counts, means and cross-tables under one privacy guarantee, in place of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Self

from pydantic import Field

from flfed.errors import nearest
from flfed.study.settings import Settings, are_shares, check_table, read_settings
from flfed.words import usage_error

LEAST_BINS = 4


MOST_BINS = 256


WHERE = "[statistic] summary"


class Analysis(Settings, where=WHERE, frozen=True):
    """Counts, means, quantiles and cross-tables of columns, all with noise.

    They are over all rows of the sites.

    Attributes
    ----------
    columns : tuple of str or None
        Numbers, flags, categories or the target; None means all of the dataset. The noise on each number grows with
        the root of how many there are. Example: `columns = ["age", "chol", "disease"]`.
    groups : str
        A flag, category or target with few values: every column is counted for each of them, too, and compared.
        Example: `groups = "sex"`.
    quantiles : tuple of float in (0, 1)
        Of each number, by its histogram: the 95 % interval has whole bins, all that noise and chance leave possible.
        None: `[]`. Example: `quantiles = [0.05, 0.5, 0.95]`.
    cross : tuple of pairs of str
        Pairs of flags, categories or the target, each counted together and tested for independence.
        Example: `cross = [["sex", "disease"]]`.
    bins : int, 4 to 256
        Bins of a number's histogram, evenly wide from one end of its range to the other (see `bounds`). Those of a
        column with `transform = "log1p"` are even in the logarithm where there are neither `bounds` nor `typical`.
        Values outside count in the outermost. More bins give closer quantiles of many rows, and lose those of few.
        Example: `bins = 32`.
    bounds : mapping of column to (low, high)
        Range in which values of a number are taken, farther ones as its ends: by public knowledge, and not by the
        rows. Default: the schema's `typical`, else its `range`. It is for columns that are asked for.
        Example: `bounds = { chol = [100, 400] }`.
    """

    columns: tuple[str, ...] | None = None
    groups: str = ""
    quantiles: tuple[float, ...] = (0.25, 0.5, 0.75)
    cross: tuple[tuple[str, ...], ...] = ()
    bins: Annotated[int, Field(ge=LEAST_BINS, le=MOST_BINS)] = 16
    bounds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse settings that say nothing, or something twice."""
        super().__post_init__()
        self._check_columns()
        self._check_pairs()
        for name, ends in self.bounds.items():
            self._check_range(name, ends)

    def _check_columns(self) -> None:
        if self.columns is not None and not self.columns:
            raise usage_error("study.analysis.columns")
        if len(set(self.columns or ())) < len(self.columns or ()):
            raise usage_error("study.analysis.twice")
        if not are_shares(self.quantiles):
            raise usage_error("study.analysis.quantiles", quantiles=list(self.quantiles))
        if self.groups and self.groups in (self.columns or ()):
            raise usage_error("study.analysis.groups", groups=self.groups)

    def _check_pairs(self) -> None:
        pairs = [frozenset(pair) for pair in self.cross]
        if any(len(pair) != 2 for pair in (*self.cross, *pairs)) or len(set(pairs)) < len(pairs):
            raise usage_error("study.analysis.cross")

    def _check_range(self, name: str, ends: tuple[float, ...]) -> None:
        if len(ends) != 2 or not ends[0] < ends[1]:
            raise usage_error("study.analysis.ends", name=name, ends=list(ends))
        if name == self.groups or self.columns is not None and name not in self.columns:
            columns = [column for column in self.columns or () if column != self.groups]
            raise usage_error("study.analysis.column", name=name, close=nearest(name, columns))

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Self:
        """Return the analysis of a table `[statistic]`, without its name.

        Raises UsageError where it breaks a rule.
        """
        made = dict(settings)
        if "cross" in made:
            made["cross"] = _tuples(made["cross"])
        if "bounds" in made:
            check_table(made["bounds"], f"{WHERE}: bounds", "{ age = [20, 90] }")
            made["bounds"] = {name: _ends(name, ends) for name, ends in made["bounds"].items()}
        return cls(**read_settings(cls, made, WHERE, beside=("name",)))


def _tuples(entries: object) -> tuple[tuple[Any, ...], ...]:
    """Return a list of lists as tuples."""
    if not isinstance(entries, list) or not all(isinstance(one, list) for one in entries):
        raise usage_error("study.analysis.lists")
    return tuple(tuple(one) for one in entries)


def _ends(name: str, ends: object) -> tuple[float, ...]:
    """Return the ends of a column's range.

    Raises UsageError, which names it, for what are no numbers.
    """
    if not isinstance(ends, list) or not all(type(end) in (int, float) for end in ends):
        raise usage_error("study.analysis.ends", name=name, ends=ends)
    return tuple(float(end) for end in ends)
