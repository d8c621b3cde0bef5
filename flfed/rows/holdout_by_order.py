"""Holdout of the later rows of a site, by time or another order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flfed.errors import TableError, UsageError
from flfed.rows.data.holdout import Holdout, HoldoutByTime
from flfed.rows.data.schema import Schema
from flfed.study.tables import OrderedHoldout

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class HoldoutByOrder:
    """A holdout of a site's later rows, as a study's partition asks for it.

    Parameters
    ----------
    rule : OrderedHoldout
        Column, and the share of rows or the last value that is trained on.
    """

    rule: OrderedHoldout

    @property
    def column(self) -> str:
        """The column by which rows are in order."""
        return self.rule.by

    @property
    def same_groups(self) -> bool:
        """Whether a group may have rows on both sides."""
        return self.rule.same_groups

    def block_column(self, schema: Schema) -> str:
        """Return the column whose rows of one value intervals draw together."""
        return self.rule.blocks or schema.group or self.rule.by

    def check(self, schema: Schema) -> None:
        """Refuse a column that is none, or has no order."""
        for name, column in (("by", self.rule.by), ("blocks", self.block_column(schema))):
            if column not in schema.columns:
                raise UsageError(f"{self.rule.where}: {name}={column!r} is no column of dataset {schema.name!r}")
        kind = schema.columns[self.rule.by].kind
        # Of a number that is predicted there is an order too, by which it would be known beforehand.
        if kind not in ("date", "number"):
            raise UsageError(
                f"{self.rule.where}: by={self.rule.by!r} is of kind {kind!r}, and must be a date or number"
            )
        until = self.rule.train_until
        if until is not None and (kind == "date") != isinstance(until, str):
            raise UsageError(
                f"{self.rule.where}: train-until={until!r} must be a {kind}, as column {self.rule.by!r} is"
            )

    def split(
        self, table: pd.DataFrame, schema: Schema, repeat: int = 0, texts: list[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return two masks [rows]: training, holdout; the same for every `repeat`.

        Rows of one value are on one side. A group that is trained on keeps its training rows only, unless
        `same_groups`.

        Raises
        ------
        TableError
            If a row has no value in the column.
        """
        self.check(schema)
        for column, what in ((self.rule.by, "held out"), (self.block_column(schema), "drawn for intervals")):
            if bad := int(table[column].isna().sum()):
                raise TableError(column, f"has no value, by which rows are {what}", bad)
        values = table[self.rule.by].to_numpy()
        train = values <= self._last(values)
        held = ~train
        if schema.group and not self.rule.same_groups:
            held = held & ~table[schema.group].isin(table.loc[train, schema.group]).to_numpy()
        return train, held

    def _last(self, values: np.ndarray) -> object:
        """Return the last value that is trained on."""
        until = self.rule.train_until
        share = self.rule.train_share
        if share is None:
            return np.datetime64(until) if isinstance(until, str) else until
        # Less a little: .7 of 10 rows are 7, which in floating point may be a bit more.
        place = max(1, math.ceil(share * len(values) - 1e-9))
        return np.sort(values)[place - 1]


AnyHoldout = Holdout | HoldoutByTime | HoldoutByOrder


def elapsed_shares(table: pd.DataFrame, holdout: AnyHoldout, schema: Schema) -> np.ndarray | None:
    """Return the share of rows that are of earlier blocks than each row's, [rows].

    Blocks are whole groups where a group has rows on one side of the holdout only; else the holdout's own, or the rows
    of one time. None of a holdout at random.
    """
    if isinstance(holdout, Holdout):
        return None
    blocks = holdout.rule.blocks if isinstance(holdout, HoldoutByOrder) else ""
    whole = schema.group if schema.group and not holdout.same_groups else blocks or holdout.column
    last = _last_of_block(table, whole, holdout.column)
    return np.asarray(np.sort(last).searchsorted(last) / len(last))


def block_numbers(table: pd.DataFrame, holdout: AnyHoldout, schema: Schema) -> np.ndarray | None:
    """Return the number of each row's block, in the order of time, int [rows].

    Rows of one block are drawn together for intervals: those of a group, or of one time. None of a holdout at random.
    """
    if isinstance(holdout, Holdout):
        return None
    block = holdout.block_column(schema)
    codes = table.groupby(block, sort=False, dropna=False).ngroup().to_numpy()
    _, first = np.unique(codes, return_index=True)
    last = _last_of_block(table, block, holdout.column)[first]
    return np.asarray(np.argsort(np.argsort(last, kind="stable"))[codes])


def _last_of_block(table: pd.DataFrame, block: str, by: str) -> np.ndarray:
    """Return the last time of each row's block, [rows]."""
    return table.groupby(block, sort=False, dropna=False)[by].transform("max").to_numpy()
