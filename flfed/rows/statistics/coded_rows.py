"""Rows as codes, and sums of their values by node, column and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_COMBINATIONS = 2**13
"""Of a bundle: their sums at one node fit into a processor's second cache."""
MOST_POSSIBLE = 2**20
"""Combinations of a bundle and one more column that are looked through for those that rows have."""
MOST_CELLS = 2**18
"""Of a table that has the cell of each row and column; with more, the table would be too large for its use."""
FEW_ROWS = 3000
"""Of more rows a call for each column takes less time than the table."""
BLOCK = 2**15
"""Cells of the rows that are summed by one call: they fit into a processor's second cache."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """Columns of whose codes rows have few combinations: a row is looked up once for all of them.

    Attributes
    ----------
    columns : list of int
    codes : int array [columns, combinations]
        The combinations that rows have.
    combination : int array [rows]
        That of each row; of one column its codes.
    """

    columns: list[int]
    codes: np.ndarray
    combination: np.ndarray

    def with_column(self, number: int, codes: np.ndarray, width: int) -> Bundle | None:
        """Return the bundle with one more column, or None where sums would take longer with it.

        Parameters
        ----------
        number : int
            The column's.
        codes : int array [rows]
        width : int
            Number of the column's codes.
        """
        possible = self.codes.shape[1] * width
        if possible > MOST_POSSIBLE:
            return None
        pair = self.combination * np.intp(width)
        pair += codes
        is_there = np.zeros(possible, dtype=bool)
        is_there[pair] = True
        present = np.flatnonzero(is_there)
        more = len(present) * (len(self.columns) + 1) - self.codes.size
        if len(present) > MOST_COMBINATIONS or 2 * more > len(codes):
            return None
        place = np.zeros(possible, dtype=np.min_scalar_type(len(present)))
        place[present] = np.arange(len(present))
        before, last = np.divmod(present, width)
        return Bundle([*self.columns, number], np.vstack([self.codes[:, before], last]), place.take(pair))


def bundle_columns(codes: np.ndarray, widths: np.ndarray) -> list[Bundle]:
    """Return all columns in bundles, those with few codes first.

    Parameters
    ----------
    codes : int array [columns, rows]
    widths : int array [columns]

    Examples
    --------
    >>> codes = np.array([[0, 1, 1, 0] * 9, [1, 0, 0, 1] * 9])
    >>> [(bundle.columns, bundle.codes.tolist()) for bundle in bundle_columns(codes, np.array([2, 2]))]
    [([0, 1], [[0, 1], [1, 0]])]
    """
    bundles: list[Bundle] = []
    for number in np.argsort(widths, kind="stable").tolist():
        width = int(widths[number])
        wider = None
        if bundles:
            wider = bundles[-1].with_column(number, codes[number], width)
        if wider is None:
            bundles.append(Bundle([number], np.arange(width)[None], codes[number]))
        else:
            bundles[-1] = wider
    return bundles


class CodedRows:
    """Codes of rows, laid out for sums.

    Parameters
    ----------
    codes : int array [columns, rows]
    widths : int array [columns]
        Number of codes of each column, that of a missing value among them.
    bundled : bool
        Whether columns are bundled. The sums are the same.

    Attributes
    ----------
    codes, widths
    cells : int
        Number of codes of all columns. The cells of a column follow those of the one before.
    bundles : list of Bundle
        Empty where no two columns go together.
    """

    def __init__(self, codes: np.ndarray, widths: np.ndarray, *, bundled: bool = True) -> None:
        self.codes = codes
        self.widths = widths
        self.cells = int(widths.sum())
        self._first = np.cumsum(widths) - widths
        self._table: np.ndarray | None = None
        if codes.size <= MOST_CELLS:
            self._table = np.ascontiguousarray((codes + self._first[:, None]).T)
        self.bundles = bundle_columns(codes, widths) if bundled else []
        if len(self.bundles) == len(widths):
            self.bundles = []
        sizes = [bundle.codes.shape[1] for bundle in self.bundles]
        self._combinations = np.array(sizes, dtype=np.intp)
        # The sum of a combination goes to a cell of each of the bundle's columns.
        first_place = np.cumsum(self._combinations) - self._combinations
        cells = []
        places = []
        for bundle, start in zip(self.bundles, first_place, strict=True):
            cells.append((self._first[bundle.columns][:, None] + bundle.codes).ravel())
            places.append(np.tile(start + np.arange(bundle.codes.shape[1]), len(bundle.columns)))
        self._cells_of_places = np.concatenate([np.zeros(0, dtype=np.intp), *cells])
        self._places = np.concatenate([np.zeros(0, dtype=np.intp), *places])

    def sums(self, rows: np.ndarray | slice, node: np.ndarray, values: np.ndarray, nodes: int) -> np.ndarray:
        """Return sums of some rows' values by node, column and code, [nodes, cells], of the values' kind.

        Parameters
        ----------
        rows : int array [rows] or slice
        node : int array [rows]
            From 0 to nodes - 1.
        values : array [rows]
            Complex numbers are two sums by one look-up.
        nodes : int
        """
        if self._pays(len(values), nodes):
            combinations = [bundle.combination for bundle in self.bundles]
            by_combination = _sums_by_code(combinations, self._combinations, rows, node, values, nodes)
            sums = np.zeros((nodes, self.cells), dtype=values.dtype)
            for own, to in zip(by_combination, sums, strict=True):
                np.add.at(to, self._cells_of_places, own.take(self._places))
            return sums
        if self._table is None or len(values) > FEW_ROWS:
            return _sums_by_code(self.codes, self.widths, rows, node, values, nodes)
        return self._sums_by_table(self._table, rows, node, values, nodes)

    def _pays(self, rows: int, nodes: int) -> bool:
        """Return whether sums take less time by bundles than by columns."""
        if not self.bundles:
            return False
        return 2 * nodes * len(self._places) < 3 * rows * (len(self.widths) - len(self.bundles))

    def _sums_by_table(
        self, table: np.ndarray, rows: np.ndarray | slice, node: np.ndarray, values: np.ndarray, nodes: int
    ) -> np.ndarray:
        """Return the sums by calls for many rows and all columns."""
        columns = table.shape[1]
        sums = np.zeros(nodes * self.cells, dtype=values.dtype)
        before = (node * self.cells)[:, None]
        own = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        step = max(1, BLOCK // max(1, columns))
        for start in range(0, len(values), step):
            block = slice(start, start + step)
            cell = table.take(own[block], axis=0)
            if nodes > 1:
                cell += before[block]
            np.add.at(sums, cell.ravel(), values[block].repeat(columns))
        return sums.reshape(nodes, self.cells)


def _sums_by_code(
    codes: Sequence[np.ndarray] | np.ndarray,
    widths: np.ndarray,
    rows: np.ndarray | slice,
    node: np.ndarray,
    values: np.ndarray,
    nodes: int,
) -> np.ndarray:
    """Return the sums [nodes, codes of all columns] by a call for each column of codes."""
    of_node = int(widths.sum())
    sums = np.zeros(nodes * of_node, dtype=values.dtype)
    before = node * of_node
    cell = np.empty(len(values), dtype=np.intp)
    for start, own in zip((np.cumsum(widths) - widths).tolist(), codes, strict=True):
        own_codes = own[rows] if isinstance(rows, slice) else own.take(rows)
        if nodes > 1:
            np.add(before, own_codes, out=cell)
        else:
            cell[:] = own_codes
        np.add.at(sums[start:], cell, values)
    return sums.reshape(nodes, of_node)
