"""Holdouts: rows that are never trained on, by hash, by time or by another order."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from flfed.rows.data.parsing.cells import refuse_cells, table_of
from flfed.rows.data.parsing.fields import NO_GROUP
from flfed.rows.data.row_keys import draw_fractions, order_keys, row_keys, text_keys
from flfed.rows.data.schema import Schema
from flfed.study.tables import HOLDOUT_SHARE, OrderedHoldout
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import pandas as pd


CELLS_AT_ONCE = 2**20
"""Cells whose texts are built in one piece."""
FIRST_DAY = "1678-01-01"
LAST_DAY = "2262-01-01"
"""pandas has every day between these two; they stand for no limit."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
Sides = tuple[np.ndarray, np.ndarray]
"""Sides of training and of holdout rows; [rows] each."""


class PublishedSplit(Protocol):
    """A published split, from `flfed/rows/splits/`, with rows in the source's order."""

    def split(self, table: pd.DataFrame, schema: Schema, draw: int = 0) -> Sides:
        """Return two masks [rows]: training, holdout."""
        ...


@dataclass(frozen=True)
class Holdout:
    """A holdout by hash of a row's group (patient, customer), else of the row.

    Parameters
    ----------
    share : float in [0, 1)
        Expected share of rows (of groups) that are held out. 0 holds out none, for open data only: no
        model is evaluated there. Example: `share=0.2`.
    salt : str
        The site's own, fixed for all studies; a private site never sends it. Example: `salt="a secret of ours"`.

    Notes
    -----
    The side of a row depends only on its group (or its content) and the salt: adding rows
    moves no other row, and equal rows are on one side.

    Examples
    --------
    >>> from flfed import Holdout
    >>> Holdout(share=0.25, salt="of this clinic").share
    0.25
    """

    share: float = HOLDOUT_SHARE
    salt: str = ""

    def __post_init__(self) -> None:
        """Refuse a share that leaves no training rows."""
        if not 0 <= self.share < 1:
            raise usage_error("rows.holdout.share", share=self.share)

    def split(self, table: pd.DataFrame, schema: Schema, repeat: int = 0, keys: np.ndarray | None = None) -> Sides:
        """Return two masks [rows]: training, holdout.

        `repeat` > 0 draws another split. `keys` are the table's `side_keys`, if computed before.
        """
        # Another salt draws the sides of all rows anew, and equal rows are still on one side.
        salt = f"{self.salt}/repeat-{repeat}" if repeat else self.salt
        if keys is None:
            keys = side_keys(table, schema)
        test = draw_fractions(keys, f"holdout {salt}") < self.share
        return ~test, test


@dataclass(frozen=True)
class HoldoutByTime:
    """A holdout by time, of rows from `test_from` on.

    Parameters
    ----------
    column : str
        A date column of the schema. Example: `column="admitted"`.
    train_until, test_from : str
        ISO dates. Training rows are dated `train_until` minus `gap_days` or earlier. The two may be
        the same where there is a gap. Examples: `train_until="2024-12-31"`, `test_from="2025-01-01"`.
    gap_days : int, >= 0
        Days before the cut whose outcome was not yet known at the cut. Example: `gap_days=30`.
    train_from, test_until : str
        ISO dates, or empty for no limit. Rows before `train_from`, and rows from `test_until` on,
        are in neither part. Examples: `train_from="2020-01-01"`, `test_until="2026-01-01"`.
    same_groups : bool
        Whether a group may have rows in both periods, for predictions of existing customers or
        patients. Else such a group has training rows only.

    Examples
    --------
    >>> from flfed import HoldoutByTime
    >>> holdout = HoldoutByTime("admitted", train_until="2024-01-01", test_from="2024-01-01", gap_days=30)
    >>> holdout.gap_days
    30
    """

    column: str
    train_until: str
    test_from: str
    gap_days: int = 0
    train_from: str = ""
    test_until: str = ""
    same_groups: bool = False

    def __post_init__(self) -> None:
        """Refuse periods that overlap or are empty."""
        if isinstance(self.gap_days, bool) or not isinstance(self.gap_days, int) or self.gap_days < 0:
            raise usage_error("rows.holdout.gap", days=self.gap_days)
        limits = self._usable_ends()
        if limits is None:
            raise usage_error("rows.holdout.dates", **vars(self))
        start, early, last, late, end = limits
        if late < early or (late == early and not self.gap_days):
            raise usage_error("rows.holdout.test", **vars(self))
        if start > last:
            raise usage_error("rows.holdout.train", **vars(self))
        if end <= late:
            raise usage_error("rows.holdout.end", **vars(self))

    def block_column(self, schema: Schema) -> str:
        """Return the column whose values define the blocks that intervals resample."""
        return schema.group or self.column

    def _usable_ends(self) -> tuple[Any, ...] | None:
        """Return the limits as plain days, or as pandas reads them; None where it cannot use one.

        Each command that names a site creates it, and most need no pandas.
        """
        unusable = (OverflowError, TypeError, ValueError)
        with suppress(*unusable):
            days = self._ends(_day, FIRST_DAY, LAST_DAY)
            if all(FIRST_DAY <= one.isoformat() <= LAST_DAY for one in days) and self.test_from < LAST_DAY:
                return days
        import pandas as pd

        # One sentence covers dates that pandas cannot use and dates with a time zone.
        with suppress(*unusable):
            moments = self._moments()
            plain = all(isinstance(one, pd.Timestamp) and one.tz is None for one in moments)
            # pandas 3 has dates beyond those of nanoseconds, in which tables are read.
            if plain and all(pd.Timestamp.min <= one <= pd.Timestamp.max for one in moments):
                return moments
        return None

    def _ends(self, read: Callable[[Any], Any], first: object, last: object) -> tuple[Any, ...]:
        """Return start, training's end, its last moment, the test's start, and end."""
        early = read(self.train_until)
        ended = early - timedelta(days=self.gap_days)
        return read(self.train_from or first), early, ended, read(self.test_from), read(self.test_until or last)

    def _moments(self) -> tuple[pd.Timestamp, ...]:
        import pandas as pd

        return self._ends(pd.Timestamp, pd.Timestamp.min, pd.Timestamp.max)

    def split(self, table: pd.DataFrame, schema: Schema, repeat: int = 0, keys: np.ndarray | None = None) -> Sides:
        """Return two masks [rows]: training, holdout; rows in between are in neither.

        A group with rows in both periods keeps its training rows only, unless `same_groups`.
        """
        if self.column not in schema.columns or schema.columns[self.column].kind != "date":
            raise usage_error("rows.holdout.date", dataset=schema.name, column=self.column)
        dates = table[self.column]
        refuse_cells(self.column, "has no date", dates.isna())
        start, _, ended, late, end = self._moments()
        train = ((dates >= start) & (dates <= ended)).to_numpy()
        test = ((dates >= late) & (dates < end)).to_numpy()
        if not self.same_groups:
            test = _of_new_groups(table, schema, train, test)
        return train, test


def _of_new_groups(table: pd.DataFrame, schema: Schema, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return a mask of the holdout rows whose group has no training row."""
    if not schema.group:
        return test
    return test & ~table[schema.group].isin(table.loc[train, schema.group]).to_numpy()


def side_keys(table: pd.DataFrame, schema: Schema) -> np.ndarray:
    """Return the key that decides each row's side: of its group, else of the row; uint64 [rows, 2]."""
    if not schema.group:
        return row_keys(table)
    group = table[schema.group]
    refuse_cells(schema.group, NO_GROUP, group.isna())
    return text_keys(group.to_numpy())


def _day(text: str) -> date:
    return date.fromisoformat(text) if _DAY.fullmatch(text) else date.min


def canonical_rows(table: pd.DataFrame) -> list[str]:
    """Return one text for each row of a mapped table, with columns in the schema's order."""
    return _joined(table, str)


def row_texts(table: pd.DataFrame) -> list[str]:
    """Return one text for each row [rows], equal for equal rows and for no others.

    As `canonical_rows`, with the length before each text: no cell can look like two, and an empty text
    differs from a missing one. -0.0 is 0.0.
    """
    return _joined(table, lambda text: f"{len(text)}:{text}")


def _joined(table: pd.DataFrame, as_text: Callable[[Any], str]) -> list[str]:
    """Return one text for each row, of its cells' texts.

    Texts are built in pieces of `CELLS_AT_ONCE`, since those of single cells need much more memory than numbers.
    """
    rows = max(1, CELLS_AT_ONCE // max(1, table.shape[1]))
    texts: list[str] = []
    for start in range(0, len(table), rows):
        texts.extend(map("\x1f".join, zip(*_texts(table.iloc[start : start + rows], as_text), strict=True)))
    return texts


def _texts(table: pd.DataFrame, as_text: Callable[[Any], str]) -> list[list[str]]:
    """Return the cells as text, column by column; all numbers are converted at once."""
    kinds = [dtype.kind for dtype in table.dtypes]
    numbers = [place for place, kind in enumerate(kinds) if kind == "f"]
    values = table.iloc[:, numbers].to_numpy(dtype=np.float64).T
    text_columns = dict(zip(numbers, _number_texts(values).tolist(), strict=True))
    for at in range(len(kinds)):
        if at not in text_columns:
            text_columns[at] = _cell_texts(table.iloc[:, at], as_text)
    return [text_columns[at] for at in range(len(kinds))]


def _number_texts(values: np.ndarray) -> np.ndarray:
    """Return numbers as their shortest decimals in the same shape, missing ones empty."""
    import pandas as pd

    # Adding 0.0 turns -0.0 into 0.0. Each distinct number is converted once.
    place, uniques = pd.factorize((values + 0.0).ravel())
    # NaN has the place -1, the last.
    return np.array([*map(repr, uniques.tolist()), ""], dtype=object)[place].reshape(values.shape)


def _cell_texts(cells: pd.Series, as_text: Callable[[Any], str]) -> list[str]:
    """Return one column's cells as text, missing ones empty; objects as `as_text` writes them."""
    import pandas as pd

    if cells.dtype.kind == "f":
        return list(_number_texts(cells.to_numpy(dtype=np.float64)))
    if cells.dtype.kind == "M":
        place, uniques = pd.factorize(cells)
        return list(np.array([*map(str, uniques), ""], dtype=object)[place])
    write = as_text if cells.dtype.kind == "O" else str
    values = cells.tolist()
    if pd.api.types.infer_dtype(cells, skipna=True) != "string":
        return ["" if cell is None or cell is pd.NaT else write(cell) for cell in values]
    # Texts repeat, and each is converted once. pandas' codes would take texts for one that differ after a NUL.
    written = {cell: write(cell) for cell in set(values) if cell is not None}
    written[None] = ""
    return [written[cell] for cell in values]


@dataclass(frozen=True, eq=False)
class SortedRows:
    """A site's mapped rows with their canonical order, not split.

    Attributes
    ----------
    source : DataFrame
        Rows in the source's order, among them those that are not left out.
    schema : Schema
    order : int array [rows]
        Places of the rows in `source` in an order in which CSV, Parquet and SQL give the same batches.
    keys : uint64 array [rows, 2]
        The `side_keys`, in the source's order.
    left_out : int
        Rows that the study leaves out because a feature is missing.
    drawn : bool array [rows] or None
        Which rows are of a plain sample, in the source's order; None where all are.
    """

    source: pd.DataFrame
    schema: Schema
    order: np.ndarray
    keys: np.ndarray
    left_out: int = 0
    drawn: np.ndarray | None = None

    @classmethod
    def of(
        cls, table: pd.DataFrame, schema: Schema, complete: Sequence[str] = (), *, outcome: bool = True
    ) -> SortedRows:
        """Sort mapped rows in the source's order, without those that lack one of `complete`.

        A table that breaks no rule lacks outcomes only where its schema leaves such rows out, or where the site has no
        `outcome` at all.
        """
        labelled_rows = np.flatnonzero(table[schema.target].notna()) if outcome else np.arange(len(table))
        whole = labelled_rows[table[list(complete)].notna().all(axis=1).to_numpy(dtype=bool)[labelled_rows]]
        rows = table.take(whole) if len(whole) < len(table) else table
        keys = row_keys(rows)
        order = order_keys(keys)
        if schema.group:
            keys = side_keys(rows, schema)
        return cls(rows, schema, order, keys, len(labelled_rows) - len(whole))

    def places(self, chosen: np.ndarray) -> np.ndarray:
        """Return the places in `source` of the chosen rows, bool [rows] in its order, sorted."""
        return np.asarray(self.order[chosen[self.order]])

    def at(self, places: np.ndarray, some: slice = slice(None)) -> pd.DataFrame:
        """Return some of the rows at places in `source`, int [rows], in their order."""
        places = places[some]
        # Column by column: pandas would put all numbers together first.
        columns = {name: cells.to_numpy().take(places) for name, cells in self.source.items()}
        return table_of(columns, copy=False)

    def sides(self, holdout: AnyHoldout, repeat: int) -> Sides:
        """Return the masks [rows], in the source's order, of training and holdout by the site's own rule."""
        return holdout.split(self.source, self.schema, repeat, self.keys)


def for_validation(keys: np.ndarray, holdout: AnyHoldout, site: str, seed: int, share: float) -> np.ndarray:
    """Return a mask of the training rows for validation (selection and round curves), by their `side_keys` [rows].

    Each share is a draw of its own: those of a slightly larger one would else be the same people and a few more.
    """
    salt = f"{getattr(holdout, 'salt', '')}/{seed}/{site}/{share!r}"  # neither seed nor share is a secret
    return draw_fractions(keys, f"validation {salt}") < share


@dataclass(frozen=True)
class HoldoutByOrder:
    """A holdout of a site's later rows, by a study's partition.

    Parameters
    ----------
    rule : OrderedHoldout
        Column, and the share of rows or the last value for training.
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
        """Return the column whose values define the blocks that intervals resample."""
        return self.rule.blocks or schema.group or self.rule.by

    def check(self, schema: Schema) -> None:
        """Refuse an unknown column, or one without an order."""
        where = self.rule.where
        for name, column in (("by", self.rule.by), ("blocks", self.block_column(schema))):
            if column not in schema.columns:
                dataset = schema.name
                raise usage_error("rows.holdout.column", where=where, key=name, column=column, dataset=dataset)
        by = self.rule.by
        kind = schema.columns[by].kind
        # A target that is a number has an order too, which would reveal it beforehand.
        if kind not in ("date", "number"):
            raise usage_error("rows.holdout.order", where=where, by=by, kind=kind)
        until = self.rule.train_until
        if until is not None and (kind == "date") != isinstance(until, str):
            raise usage_error("rows.holdout.until", where=where, until=until, kind=kind, by=by)

    def split(self, table: pd.DataFrame, schema: Schema, repeat: int = 0, keys: np.ndarray | None = None) -> Sides:
        """Return two masks [rows]: training, holdout; the same for every `repeat`.

        Rows of one value are on one side. A group with training rows keeps only these, unless `same_groups`.

        Raises
        ------
        TableError
            If a row has no value in the column.
        """
        self.check(schema)
        for column, use in ((self.rule.by, "held out"), (self.block_column(schema), "drawn for intervals")):
            refuse_cells(column, render("rows.holdout.value", use=use), table[column].isna())
        values = table[self.rule.by].to_numpy()
        train = values <= self._last(values)
        test = ~train
        if not self.same_groups:
            test = _of_new_groups(table, schema, train, test)
        return train, test

    def _last(self, values: np.ndarray) -> object:
        """Return the last value of training rows."""
        until = self.rule.train_until
        share = self.rule.train_share
        if share is None:
            return np.datetime64(until) if isinstance(until, str) else until
        # 0.7 of 10 rows are 7, which may be slightly more in floating point.
        place = max(1, math.ceil(share * len(values) - 1e-9))
        return np.sort(values)[place - 1]


AnyHoldout = Holdout | HoldoutByTime | HoldoutByOrder


def elapsed_shares(table: pd.DataFrame, holdout: AnyHoldout, schema: Schema) -> np.ndarray | None:
    """Return the share of rows in earlier blocks than each row's [rows].

    Blocks are whole groups if a group has rows on one side of the holdout only; else the holdout's own, or the rows
    of one time. None for a holdout at random.
    """
    if isinstance(holdout, Holdout):
        return None
    blocks = holdout.rule.blocks if isinstance(holdout, HoldoutByOrder) else ""
    whole = schema.group if schema.group and not holdout.same_groups else blocks or holdout.column
    last = _last_of_block(table, whole, holdout.column)
    return np.sort(last).searchsorted(last) / len(last)


def block_numbers(table: pd.DataFrame, holdout: AnyHoldout, schema: Schema) -> np.ndarray | None:
    """Return the number of each row's block in the order of time, int [rows].

    Intervals draw the rows of one block, a group or a time, together. None for a holdout at random.
    """
    if isinstance(holdout, Holdout):
        return None
    block = holdout.block_column(schema)
    codes = table.groupby(block, sort=False, dropna=False).ngroup().to_numpy()
    _, first = np.unique(codes, return_index=True)
    last = _last_of_block(table, block, holdout.column)[first]
    return np.argsort(np.argsort(last, kind="stable"))[codes]


def _last_of_block(table: pd.DataFrame, block: str, by: str) -> np.ndarray:
    """Return the last time of each row's block [rows]."""
    return table.groupby(block, sort=False, dropna=False)[by].transform("max").to_numpy()
