"""Boosted trees, the half at a site: rows become sums of gradients.

Rows are codes, whose values are summed by node, column and code.
The other half, which makes sums into splits, is `flfed/trees/forest.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.special import expit

from flfed.rows.features.encode import ColumnArrays
from flfed.summaries.summary import Arrays, ColumnLayout, Layout, arrays_sha256
from flfed.trees.cut_points import cells_of, codes_in, codes_of, counted_columns, edges_of, widths_of
from flfed.trees.forest import UNIT, Tree, forest_of, margins, trees_of, with_round

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


CHUNK = 2**23
"""Rows summed at once: as many gradients of at most 2^30 units add up exactly in float64."""


def cell_counts(rows: ColumnArrays, layout: Layout, least: int = 0) -> Arrays:
    """Return the rows by cell and outcome, int [cells, outcomes] by column.

    Parameters
    ----------
    rows : ColumnArrays
    layout : Layout
    least : int
        Fewest rows of a code. Where it is 0, numbers alone are counted, and all outcomes are one; of a regression they
        are one in any case.

    Notes
    -----
    Cells are the fine bins of a number or the values of a flag or category, then the missing ones.
    """
    classes = 1
    outcome = np.zeros(rows.rows, dtype=np.int64)
    if least and layout.task != "regression":
        classes = len(layout.target.cells) - 1
        outcome = rows.codes[layout.target.name].astype(np.int64)
    counts_by_column = {}
    for column in counted_columns(layout, least):
        cells = cells_of(column)
        counts = np.bincount(fine_codes(rows, column) * classes + outcome, minlength=cells * classes)
        counts_by_column[column.name] = counts.reshape(cells, classes)
    return counts_by_column


def fine_codes(rows: ColumnArrays, column: ColumnLayout) -> np.ndarray:
    """Return the cell of each row in a column: a number's fine bin or the value, or that of missing ones."""
    # What lies outside of a number's range is in the bin at that end.
    if column.kind == "number":
        return codes_of(rows.values[column.name], edges_of(column))
    return rows.codes[column.name].astype(np.int64)


def gradients(score: np.ndarray, y: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's gradient and Hessian of the loss, in `UNIT`.

    Parameters
    ----------
    score : float64 array [rows, outputs]
        The trees' scores so far.
    y : array [rows]
        Class codes; or the outcome of a regression over the width of the schema's range, so that no residual of a
        fair score is beyond 1, where its gradient is cut.
    task : {"binary", "multi-class", "regression"}

    Returns
    -------
    float64 arrays [rows, outputs]
        Whole numbers, at most 2^30 in size.

    Notes
    -----
    Of several classes the Hessian is `2 p (1 - p)`, as XGBoost has it.

    Source: Friedman 2001, "Greedy function approximation: a gradient boosting machine"; Chen and Guestrin 2016,
    "XGBoost: a scalable tree boosting system".
    """
    if task == "regression":
        slope = np.clip(score - y[:, None], -1.0, 1.0)
        curvature = np.ones_like(slope)
    elif task == "binary":
        p = expit(score)
        slope = p - y[:, None]
        curvature = p * (1 - p)
    else:
        odds = np.exp(score - score.max(axis=1, keepdims=True))
        p = odds / odds.sum(axis=1, keepdims=True)
        slope = p - (y[:, None] == np.arange(score.shape[1]))
        curvature = 2 * p * (1 - p)
    slope /= UNIT
    curvature /= UNIT
    return np.rint(slope, out=slope), np.rint(curvature, out=curvature)


def node_sums(
    rows: CodedRows, node: np.ndarray, nodes: np.ndarray, both: np.ndarray, *, counted: bool = False
) -> np.ndarray:
    """Return sums of gradients and Hessians by node, column and code.

    Parameters
    ----------
    rows : CodedRows
    node : int array [rows]
        The node that each row is at.
    nodes : int array [nodes]
        The nodes whose sums are wanted.
    both : complex128 array [rows]
        Gradients and, as imaginary parts, Hessians, as `gradients` returns them.
    counted : bool
        Whether rows are counted too.

    Returns
    -------
    int64 array [asked nodes, cells, 2 or 3]
        In `UNIT`, then rows; the cells of a column follow those of the one before.
    """
    place = np.full(int(max(node.max(initial=0), nodes.max(initial=0))) + 1, -1)
    place[nodes] = np.arange(len(nodes))
    totals = np.zeros((len(nodes), rows.cells, 2 + counted), dtype=np.int64)
    for start in range(0, len(node), CHUNK):
        part = node[start : start + CHUNK]
        own: np.ndarray | slice = slice(start, start + len(part))
        values = both[own]
        # At the root no row needs to be looked for.
        if len(place) > 1:
            part = place.take(part)
            own = np.flatnonzero(part >= 0)
            part = part.take(own)
            own += start
            values = both.take(own)
        sums = rows.sums(own, part, values, len(nodes))
        totals[:, :, :2] += sums.view(np.float64).reshape(len(nodes), rows.cells, 2).astype(np.int64)
        if counted:
            totals[:, :, 2] += rows.sums(own, part, np.ones(len(part), dtype=np.int64), len(nodes))
    return totals


@dataclass(frozen=True)
class NextRound:
    """A forest's arrays, known by their hash, and the trees of a round that come into their place."""

    sha256: str
    number: int
    last: bytes
    arrays: Arrays = field(compare=False)
    stacked: np.ndarray = field(compare=False)


# Sites of one process have the same forests.
@lru_cache(maxsize=2)
def after_round(following: NextRound) -> tuple[Arrays, str]:
    """Return the forest's arrays with the round's trees, and their hash."""
    arrays = with_round(following.arrays, following.number, following.stacked)
    return arrays, arrays_sha256(arrays)


class SiteTrees:
    """Trees of a run at one site, with the scores that they give its rows.

    Parameters
    ----------
    parts : dict of name to float64 array [rows, columns]
        Plain inputs of the rows that are trained on, "fitted", and of others that are scored in each round.
    y : array [rows]
        Of the fitted rows, as `gradients` takes it.
    task : {"binary", "multi-class", "regression"}

    Attributes
    ----------
    y : array [rows]
    arrays : dict of name to array
        Of the forest that is here.
    sha256 : str
        Of the arrays that the scores are of; "" before there are some.
    scores : dict of part to float64 array [rows, outputs]
    """

    def __init__(self, parts: Arrays, y: np.ndarray, task: str) -> None:
        self._parts = parts
        self.y = y
        self._task = task
        self.arrays: Arrays = {}
        self._codes: Arrays = {}
        self._widths = np.zeros(0, dtype=np.intp)
        self._rows = CodedRows(np.zeros((0, 0), dtype=np.uint8), self._widths)
        self._sums: np.ndarray | None = None
        self._reached: dict[int, tuple[Tree, np.ndarray]] = {}
        self.sha256 = ""
        self.scores: Arrays = {}

    def take(self, arrays: Arrays) -> None:
        """Take a whole forest, and score all rows by it."""
        trees = forest_of(arrays)
        outputs = arrays["value"].shape[1]
        self._widths = widths_of(arrays)
        missing = self._widths - 1
        self._codes = {part: codes_in(x, arrays) for part, x in self._parts.items()}
        self._rows = CodedRows(self._codes["fitted"], self._widths)
        self._reached = {}
        self.scores = {
            part: np.zeros((codes.shape[1], outputs)) + margins(trees, codes, missing)
            for part, codes in self._codes.items()
        }
        # The hash comes last: what broke off before it is not the forest that it names.
        self.arrays = dict(arrays)
        self._sums = None
        self.sha256 = arrays_sha256(dict(arrays))

    def follow(self, round: int, last: np.ndarray, sha256: str) -> bool:
        """Add the trees of the round before, and return whether the forest is then the one that is meant.

        Parameters
        ----------
        round : int
            That is grown now, from 1.
        last : float64 array [arrays, outputs, nodes]
            As `tree_arrays` makes them.
        sha256 : str
            Of the forest's arrays before the round.
        """
        if self.sha256 == sha256:
            return True
        if not self.arrays or not 2 <= round <= len(self.arrays["value"]) + 1:
            return False
        arrays, after = after_round(NextRound(self.sha256, round - 2, last.tobytes(), self.arrays, last))
        missing = self._widths - 1
        if after != sha256:
            return False
        added = trees_of(last, len(arrays["cuts"]))
        scores = {}
        for part, codes in self._codes.items():
            scores[part] = self.scores[part].copy()
            for output, tree in enumerate(added):
                leaf = self._leaves(output, tree, missing) if part == "fitted" else tree.leaves(codes, missing)
                scores[part][:, output] += tree.value.take(leaf)
        self.scores = scores
        self.arrays = arrays
        self._sums = None
        self.sha256 = sha256
        return True

    def sums(self, trees: Sequence[Tree], nodes_by_tree: Sequence[np.ndarray], *, counted: bool = False) -> np.ndarray:
        """Return the sums of the nodes that are asked for, int64 [nodes of all trees, cells, 2 or 3].

        Parameters
        ----------
        trees : sequence of Tree
            Of the round, one an output, as far as they are grown.
        nodes_by_tree : sequence of int array
            The nodes of each tree.
        counted : bool
            Whether rows are counted too.
        """
        if self._sums is None:
            slope, curvature = gradients(self.scores["fitted"], self.y, self._task)
            self._sums = np.empty(slope.T.shape, dtype=np.complex128)
            self._sums.real = slope.T
            self._sums.imag = curvature.T
        parts = []
        for own, (output, tree), nodes in zip(self._sums, enumerate(trees), nodes_by_tree, strict=True):
            at = self._leaves(output, tree, self._widths - 1)
            parts.append(node_sums(self._rows, at, nodes, own, counted=counted))
        return np.concatenate(parts)

    def _leaves(self, output: int, tree: Tree, missing: np.ndarray) -> np.ndarray:
        """Return the leaf of each fitted row, from the one it was at where the tree has only grown further."""
        before, node = self._reached.get(output, (None, None))
        node = tree.leaves(self._codes["fitted"], missing, node, before)
        self._reached[output] = (tree, node)
        return node
