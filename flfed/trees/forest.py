"""Trees as arrays, how they grow, the scores that they give, and what each column adds to a score (TreeSHAP).

They grow of sums of gradients over all sites, which become splits. The half at a site, which turns rows into sums, is
`flfed/rows/statistics/boosted_trees.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from itertools import chain
from math import factorial
from typing import Any

import numpy as np

from flfed.errors import FlfedError
from flfed.refusals import Refusal
from flfed.summaries.summary import Arrays

UNIT = 2.0**-30
"""What one of a sum of gradients stands for: they are whole numbers, so that no order of adding changes a bit."""


class NoTrees(FlfedError):
    """Error of arrays that are no trees.

    Nothing of a table is in it.
    """

    def __init__(self) -> None:
        super().__init__(Refusal("trees-unsound"))


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree, whose nodes are numbered level by level.

    Attributes
    ----------
    column : int array [nodes]
        Column that splits a node, -1 at a leaf.
    code : int array [nodes]
        Rows of this code or a lower one go left; -1 where only missing ones do.
    missing_left : bool array [nodes]
        Whether rows without a value go left.
    left : int array [nodes]
        The left child; the right one is the next node. 0 at a leaf.
    value : float64 array [nodes]
        What a leaf adds to the score, 0 elsewhere.
    gain : float32 array [nodes]
        What a split lowers the loss by, times two, 0 at a leaf.
    cover : int64 array [nodes]
        Sum of the rows' Hessians, in `UNIT`.
    """

    column: np.ndarray
    code: np.ndarray
    missing_left: np.ndarray
    left: np.ndarray
    value: np.ndarray
    gain: np.ndarray
    cover: np.ndarray

    def arrays(self) -> Arrays:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in NODES}

    @cached_property
    def _split_column(self) -> np.ndarray:
        return np.asarray(np.maximum(self.column, 0))

    @cached_property
    def _first_right(self) -> np.ndarray:
        """The lowest code that goes right, by node. At a leaf all rows go right, which is to the leaf itself."""
        return np.asarray(np.where(self.column < 0, 0, np.maximum(self.code + 1, 0)))

    @cached_property
    def _before_right(self) -> np.ndarray:
        """The node before the right child, by node; before the leaf itself at a leaf."""
        return np.where(self.column < 0, np.arange(-1, len(self.column) - 1), self.left)

    @cached_property
    def _any_missing_left(self) -> bool:
        return bool(self.missing_left.any())

    def step(self, node: np.ndarray, codes: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Return the node of each row one level further down.

        A row at a leaf stays.

        Parameters
        ----------
        node : int array [rows]
        codes : int array [columns, rows]
        missing : int array [columns]
            The code of a missing value, by column.
        """
        column = self._split_column
        missing_code = missing.take(column)
        places = (column * codes.shape[1]).take(node)
        places += np.arange(len(node))
        row_code = codes.ravel().take(places)
        # Numbers of one small type are compared fastest.
        first_right = np.minimum(self._first_right, missing_code).astype(codes.dtype)
        goes_right = row_code >= first_right.take(node)
        if self._any_missing_left:
            also_left = np.where(self.missing_left & (self.column >= 0), missing_code, -1)
            goes_right &= row_code != also_left.astype(np.int32).take(node)
        node = self._before_right.take(node)
        node += goes_right
        return np.asarray(node)

    def _from_root(self, codes: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Return the node of each row after the first split, as `step` does from the root."""
        column = self.column[0]
        missing_code = int(missing[column])
        goes_right = codes[column] > min(int(self.code[0]), missing_code - 1)
        if self.missing_left[0]:
            goes_right &= codes[column] != missing_code
        return np.asarray(self.left[0] + goes_right)

    def leaves(
        self, codes: np.ndarray, missing: np.ndarray, node: np.ndarray | None = None, before: Tree | None = None
    ) -> np.ndarray:
        """Return the leaf that each row comes to.

        Parameters
        ----------
        codes, missing
            As `step` takes them.
        node : int array [rows], optional
            The leaf of each row in an earlier tree; used where this one has all of its splits.
        before : Tree, optional
            The earlier tree.
        """
        levels = None
        if node is not None and before is not None:
            levels = levels_after(self, before)
        if node is None or levels is None:
            node = np.zeros(codes.shape[1], dtype=np.int64)
            levels = levels_after(self, None)
        for level in range(levels or 0):
            if not level and (before is None or len(before.column) == 1):
                node = self._from_root(codes, missing)
            else:
                node = self.step(node, codes, missing)
        return node


@lru_cache(maxsize=64)
def levels_after(tree: Tree, before: Tree | None) -> int | None:
    """Return how many levels of splits a tree has below the leaves of an earlier one, or None.

    It is None where the tree lacks a split of the earlier one. Without an earlier one all levels count.
    """
    below = np.zeros(1, dtype=np.int64)
    if before is not None:
        count = len(before.column)
        split = np.flatnonzero(before.column >= 0)
        if count > len(tree.column):
            return None
        for name in ("column", "code", "missing_left", "left"):
            if (getattr(tree, name)[split] != getattr(before, name)[split]).any():
                return None
        below = np.flatnonzero(before.column < 0)
    levels = 0
    while len(below := below[tree.column[below] >= 0]):
        levels += 1
        left = tree.left[below]
        below = np.concatenate([left, left + 1])
    return levels


def margins(trees: Sequence[Sequence[Tree]], codes: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the rows' scores before the link, [rows, outputs].

    Parameters
    ----------
    trees : sequence of rounds, each a tree an output
    codes, missing
        As `Tree.step` takes them.
    """
    outputs = len(trees[0]) if trees else 1
    scores = np.zeros((codes.shape[1], outputs))
    for round_trees in trees:
        for output, tree in enumerate(round_trees):
            scores[:, output] += tree.value.take(tree.leaves(codes, missing))
    return scores


NODES = tuple(field.name for field in fields(Tree))
WHOLE = [NODES.index(name) for name in ("column", "code", "left", "cover")]
KEYS = tuple(name.replace("_", "-") for name in NODES)
"""Names of a tree's arrays, and of those of a forest."""


def forest_shapes(rounds: int, outputs: int, depth: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a forest: rounds, outputs and the nodes of a whole tree.

    They are named as a `Tree`'s arrays, in kebab-case.
    """
    return dict.fromkeys(KEYS, (rounds, outputs, 2 ** (depth + 1) - 1))


def empty_forest(rounds: int, outputs: int, depth: int) -> Arrays:
    """Return the arrays of trees that are not grown yet, in float64: each is a leaf of value 0."""
    arrays = {name: np.zeros(shape) for name, shape in forest_shapes(rounds, outputs, depth).items()}
    arrays["column"].fill(-1.0)
    return arrays


def depth_of(nodes: int) -> int:
    """Return the depth of a tree that has room for so many nodes.

    Examples
    --------
    >>> depth_of(empty_forest(1, 1, 4)["value"].shape[2])
    4
    """
    return (nodes + 1).bit_length() - 2


def tree_arrays(trees: Sequence[Tree], nodes: int) -> np.ndarray:
    """Return one round's trees as a float64 array [arrays, outputs, nodes], in the order of a `Tree`'s arrays."""
    stack = np.zeros((len(NODES), len(trees), nodes))
    stack[NODES.index("column")] = -1.0
    for output, tree in enumerate(trees):
        for place, value in enumerate(tree.arrays().values()):
            stack[place, output, : len(value)] = value
    return stack


def trees_of(stacked: np.ndarray, columns: int) -> list[Tree]:
    """Return one round's trees, of an array as `tree_arrays` makes it.

    Parameters
    ----------
    stacked : float64 array [arrays, outputs, nodes]
    columns : int
        How many columns rows have.

    Raises
    ------
    NoTrees
        If they are none: a row might be led round in a circle for ever, or to a node that is not there.
    """
    return list(_decoded(_Bytes(stacked.tobytes(), stacked.shape, stacked), columns))


@dataclass(frozen=True)
class _Bytes:
    """One round's trees, which are the same where their bytes are."""

    content: bytes
    shape: tuple[int, ...]
    stacked: np.ndarray = field(compare=False)


# Sites of one process take the same trees one after the other.
@lru_cache(maxsize=16)
def _decoded(sent: _Bytes, columns: int) -> tuple[Tree, ...]:
    round_trees = []
    for output in range(sent.shape[1]):
        every = sent.stacked[:, output]
        of = dict(zip(NODES, every, strict=True))
        if not _sound(of, every, columns):
            raise NoTrees
        # Children come in pairs after the root.
        count = 1 + 2 * int((of["column"] >= 0).sum())
        round_trees.append(
            Tree(**{name: value[:count].astype(_TYPES.get(name, np.int64)) for name, value in of.items()})
        )
    return tuple(round_trees)


LARGEST = 2.0**62
"""No number of a tree is as large: a leaf's is at most a sum of gradients in `UNIT`, which fits 62 bits."""


def _sound(of: Arrays, every: np.ndarray, columns: int) -> bool:
    """Return whether a tree's arrays are one: each split has a column, and as its children the next pair of nodes."""
    whole = every[WHOLE]
    if not ((np.abs(every) < LARGEST).all() and (whole == np.rint(whole)).all()):
        return False
    column = of["column"]
    splits = np.flatnonzero(column >= 0)
    left = 1 + 2 * np.arange(len(splits))
    fits = ((column >= -1) & (column < columns)).all() and 2 * len(splits) < len(column)
    return bool(fits and (of["left"][splits] == left).all() and (splits < left).all())


_TYPES: dict[str, Any] = {"missing_left": bool, "value": np.float64, "gain": np.float32}


def round_of(arrays: Mapping[str, np.ndarray], number: int) -> np.ndarray:
    """Return the trees of a round, counted from 0, as `tree_arrays` makes them, of a forest's arrays."""
    return np.stack([arrays[key][number] for key in KEYS])


def with_round(arrays: Arrays, number: int, stacked: np.ndarray) -> Arrays:
    """Return a forest's arrays with the trees of a round, counted from 0, in their place."""
    forest = dict(arrays)
    for key, value in zip(KEYS, stacked, strict=True):
        forest[key] = forest[key].copy()
        forest[key][number] = value
    return forest


def forest_of(arrays: Mapping[str, np.ndarray]) -> list[list[Tree]]:
    """Return the trees that are grown, by round."""
    grown = np.flatnonzero(((arrays["column"] >= 0) | (arrays["value"] != 0)).any(axis=(1, 2)))
    columns = len(arrays["cuts"])
    return [trees_of(round_of(arrays, number), columns) for number in range(int(grown.max(initial=-1)) + 1)]


def gains_by_column(forest: Sequence[Sequence[Tree]], columns: int) -> np.ndarray:
    """Return the summed gain of the splits of each column over all trees, float64 [columns]."""
    # One more for the leaves, whose column is -1.
    gains = np.zeros(columns + 1)
    for tree in chain.from_iterable(forest):
        np.add.at(gains, tree.column, tree.gain.astype(float))
    return gains[:columns]


@dataclass(frozen=True)
class Branch:
    """A split on the way to a leaf.

    Attributes
    ----------
    node : int
    left : bool
        Whether the way goes left.
    share : float
        Share of the node's cover that goes this way.
    """

    node: int
    left: bool
    share: float


def contributions(
    trees: Sequence[Sequence[Tree]], codes: np.ndarray, missing: np.ndarray, *, outputs: int = 1
) -> np.ndarray:
    """Return what each column adds to each row's score.

    Parameters
    ----------
    trees : sequence of rounds, each a tree an output
    codes : int array [columns, rows]
    missing : int array [columns]
        The code of a missing value, by column.
    outputs : int
        Scores of a row, where no trees show it.

    Returns
    -------
    float64 array [rows, outputs, columns + 1]
        The last is the mean score; each row's numbers add up to its score.

    Notes
    -----
    A column that is not known follows both branches, by their Hessian sums.

    Source: Lundberg et al. 2020, "From local explanations to global understanding with explainable AI for trees",
    algorithm 1, here by leaves: Shapley's sum over the columns of a leaf's way is a polynomial's coefficients.
    """
    columns, rows = codes.shape
    if trees:
        outputs = len(trees[0])
    shap_values = np.zeros((rows, outputs, columns + 1))
    for round_trees in trees:
        for output, tree in enumerate(round_trees):
            column = np.maximum(tree.column, 0)
            at = codes[column]
            within = at <= tree.code[:, None]
            goes_left = np.where(at == missing[column][:, None], tree.missing_left[:, None], within)
            for leaf, way in _ways(tree):
                _add(shap_values[:, output], tree, float(tree.value[leaf]), way, goes_left)
    return shap_values


def _ways(tree: Tree, node: int = 0, way: tuple[Branch, ...] = ()) -> Iterator[tuple[int, tuple[Branch, ...]]]:
    """Yield each leaf below a node with the splits on its way, those to the right first."""
    if tree.column[node] < 0:
        yield node, way
        return
    left = int(tree.left[node])
    cover = float(tree.cover[node])
    for child in (left + 1, left):
        # What no row weighed on follows both branches alike.
        share = float(tree.cover[child]) / cover if cover > 0 else 0.5
        yield from _ways(tree, child, (*way, Branch(node, child == left, share)))


def _add(shap_values: np.ndarray, tree: Tree, value: float, way: Sequence[Branch], goes_left: np.ndarray) -> None:
    """Add a leaf's part to the contributions of one output, [rows, columns + 1]."""
    shares: dict[int, float] = {}
    follows: dict[int, np.ndarray] = {}
    for branch in way:
        column = int(tree.column[branch.node])
        shares[column] = shares.get(column, 1.0) * branch.share
        here = goes_left[branch.node] == branch.left
        follows[column] = here & follows[column] if column in follows else here
    shap_values[:, -1] += value * np.prod(list(shares.values()))
    count = len(shares)
    weights = [factorial(k) * factorial(count - 1 - k) / factorial(count) for k in range(count)]
    for column, share in shares.items():
        # Of the other columns, those that are known follow the row and the rest their shares.
        others = np.zeros((count, len(shap_values)))
        others[0] = 1.0
        for other in shares:
            if other != column:
                others[1:] = others[1:] * shares[other] + others[:-1] * follows[other]
                others[0] *= shares[other]
        shap_values[:, column] += value * (follows[column] - share) * (weights @ others)


LEAST_GAIN = np.float32(1e-6)
"""A split must lower the loss by more, as in XGBoost, where it is `kRtEps`."""


@dataclass(frozen=True)
class TreeSettings:
    """Settings of one tree.

    Attributes
    ----------
    depth : int
        Most splits from the root to a leaf.
    learning_rate : float
        What a leaf's value is multiplied by.
    l2 : float
        Ridge penalty of a leaf's value.
    min_child_weight : float
        Least sum of Hessians in a child.
    least_rows : int
        Fewest rows in a child; where it is not 0, sums come with counts of rows.
    """

    depth: int = 4
    learning_rate: float = 0.1
    l2: float = 1.0
    min_child_weight: float = 1.0
    least_rows: int = 0


@dataclass(frozen=True, eq=False)
class Splits:
    """The best split of each of some nodes.

    Attributes
    ----------
    gain : float32 array [nodes]
        -inf where a node is not split.
    column, code : int arrays [nodes]
    missing_left : bool array [nodes]
    left : int64 array [nodes, 2 or 3]
        Sums of the rows that go left.
    """

    gain: np.ndarray
    column: np.ndarray
    code: np.ndarray
    missing_left: np.ndarray
    left: np.ndarray


def best_splits(sums: np.ndarray, widths: np.ndarray, settings: TreeSettings) -> Splits:
    """Return the split of each node that lowers the loss most.

    Parameters
    ----------
    sums : int64 array [nodes, cells, 2 or 3]
        Of all sites, as `node_sums` returns them at one.
    widths : int array [columns]
    settings : TreeSettings

    Notes
    -----
    Of equal gains the one that XGBoost's `hist` method keeps is taken, so that trees are the same. Gains are float32,
    and columns come in their order. Of one column first come splits whose missing rows go right, from the lowest code
    on, then those whose missing rows go left, from the highest code down.
    """
    first = np.cumsum(widths) - widths
    column_of_cell = np.repeat(np.arange(len(widths)), widths)
    # By kind of sum, node and cell: what lies below a cell's end, of all columns one after the other.
    below = np.zeros((sums.shape[2], len(sums), sums.shape[1] + 1), dtype=sums.dtype)
    np.cumsum(np.moveaxis(sums, -1, 0), axis=-1, out=below[..., 1:])
    starts = below.take(first, axis=-1)
    ends = below.take(first + widths, axis=-1)
    parent = _gain(ends[..., :1] - starts[..., :1], settings)[..., 0]
    # Missing rows, whose cell is a column's last, go right with the higher codes.
    left = below[..., 1:] - starts.take(column_of_cell, axis=-1)
    right = ends.take(column_of_cell, axis=-1) - below[..., 1:]
    best = _best_of(left, right, parent, column_of_cell, settings)
    code = best.cell - first[best.column]
    missing = ends - below.take(first + widths - 1, axis=-1)
    with_missing = missing.any(axis=(0, 1))
    if not with_missing.any():
        return Splits(best.gain, best.column, code, np.zeros(len(sums), dtype=bool), best.left)
    # They go left with the lower codes: cells backwards, and of the lowest code only they go left.
    cells = np.flatnonzero(with_missing[column_of_cell])
    cells = cells[np.lexsort((-cells, column_of_cell[cells]))]
    column = column_of_cell[cells]
    left = below.take(cells, axis=-1) - starts.take(column, axis=-1) + missing.take(column, axis=-1)
    right = (ends - starts).take(column, axis=-1) - left
    other = _best_of(left, right, parent, column, settings)
    # Of one column those of before come first.
    is_other = (other.gain > best.gain) | ((other.gain == best.gain) & (other.column < best.column))
    return Splits(
        np.where(is_other, other.gain, best.gain),
        np.where(is_other, other.column, best.column),
        np.where(is_other, cells[other.cell] - first[other.column] - 1, code),
        is_other,
        np.where(is_other[:, None], other.left, best.left),
    )


@dataclass(frozen=True, eq=False)
class _Best:
    """The first of the best splits of each node, whose left sums are [nodes, 2 or 3]."""

    gain: np.ndarray
    column: np.ndarray
    cell: np.ndarray
    left: np.ndarray


def _best_of(
    left: np.ndarray, right: np.ndarray, parent: np.ndarray, column: np.ndarray, settings: TreeSettings
) -> _Best:
    """Return the best of some splits of each node, whose gain is -inf where a rule forbids all.

    Parameters
    ----------
    left, right : int64 arrays [2 or 3, nodes, splits]
        Sums of the rows that go left and right.
    parent : float32 array [nodes]
        `_gain` of all rows.
    column : int array [splits]
    settings : TreeSettings
    """
    gain = _gain(left, settings)
    gain += _gain(right, settings)
    gain -= parent[:, None]
    least = settings.min_child_weight / UNIT
    # Sums of Hessians are whole numbers, so that more than 0 is 1 at least.
    allowed = np.minimum(left[1], right[1]) >= max(least, 1.0)
    allowed &= gain > LEAST_GAIN
    if settings.least_rows:
        allowed &= np.minimum(left[2], right[2]) >= settings.least_rows
    gain[~allowed] = -np.inf
    split = _first_of_best(gain)
    nodes = np.arange(len(gain))
    return _Best(gain[nodes, split], column[split], split, left[:, nodes, split].T)


def _first_of_best(gain: np.ndarray) -> np.ndarray:
    return np.asarray(gain.argmax(axis=1))


def _gain(sums: np.ndarray, settings: TreeSettings) -> np.ndarray:
    """Return `G^2 / (H + l2)` in float32, of sums [2 or 3, ...]."""
    slope = sums[0] * UNIT
    size = sums[1] * UNIT
    size += settings.l2
    np.maximum(size, 1e-300, out=size)
    slope *= slope
    slope /= size
    return np.asarray(slope, dtype=np.float32)


class GrowingTree:
    """A tree that grows by a level with each answer of the sites.

    Parameters
    ----------
    widths : int array [columns]
        Number of codes of each column, that of a missing value among them.
    settings : TreeSettings

    Attributes
    ----------
    requested_nodes : int array
        The nodes whose sums are wanted next: the root, then of each split the child with the smaller sum of
        Hessians, since its sibling's sums are the difference. Empty once the tree is grown.
    tree : Tree
        As far as it is grown; every node without a split is a leaf.
    """

    def __init__(self, widths: np.ndarray, settings: TreeSettings) -> None:
        self.widths = widths
        self.settings = settings
        self.requested_nodes = np.zeros(1, dtype=np.int64)
        self.tree = _leaves(np.zeros((1, 2), dtype=np.int64), settings)
        self._levels = 0
        self._parents = np.zeros((0, 0, 2), dtype=np.int64)

    def grow(self, sums: np.ndarray) -> None:
        """Add a level, given the sums over all sites of the requested nodes, [nodes, cells, 2 or 3]."""
        nodes = self.requested_nodes
        if not self._levels:
            self.tree = _leaves(sums[:, : self.widths[0]].sum(axis=1), self.settings)
        else:
            # Children are numbered in pairs after the root, so that a left one is odd. Those that were not asked for
            # are what their parents have more than their siblings.
            asked = 2 * np.arange(len(nodes)) + 1 - nodes % 2
            both = np.empty((2 * len(nodes), *sums.shape[1:]), dtype=sums.dtype)
            both[asked] = sums
            both[asked ^ 1] = self._parents - sums
            nodes = (nodes - asked % 2)[0] + np.arange(2 * len(nodes))
            sums = both
        splits = best_splits(sums, self.widths, self.settings)
        split = np.flatnonzero(np.isfinite(splits.gain))
        self._levels += 1
        total = sums[split, : self.widths[0]].sum(axis=1)
        children = np.stack([splits.left[split], total - splits.left[split]], axis=1)
        first = len(self.tree.column) + 2 * np.arange(len(split))
        # A tree that was given away stays as it is.
        arrays = {name: value.copy() for name, value in self.tree.arrays().items()}
        at = nodes[split]
        for name in ("column", "code", "missing_left", "gain"):
            arrays[name][at] = getattr(splits, name)[split]
        arrays["left"][at] = first
        arrays["value"][at] = 0.0
        more = _leaves(children.reshape(-1, sums.shape[2]), self.settings).arrays()
        self.tree = Tree(**{name: np.concatenate([own, more[name]]) for name, own in arrays.items()})
        self.requested_nodes = first + (children[:, 0, 1] > children[:, 1, 1])
        if self._levels == self.settings.depth:
            self.requested_nodes = first[:0]
        self._parents = sums[split]


def _leaves(totals: np.ndarray, settings: TreeSettings) -> Tree:
    """Return leaves of sums of gradients, Hessians and perhaps rows, [leaves, 2 or 3]."""
    slope = totals[:, 0] * UNIT
    curvature = totals[:, 1] * UNIT
    size = curvature + settings.l2
    value = np.where(curvature > 0, -settings.learning_rate * slope / np.where(size > 0, size, 1.0), 0.0)
    count = len(totals)
    return Tree(
        column=np.full(count, -1),
        code=np.zeros(count, dtype=np.int64),
        missing_left=np.zeros(count, dtype=bool),
        left=np.zeros(count, dtype=np.int64),
        value=value,
        gain=np.zeros(count, dtype=np.float32),
        cover=totals[:, 1].copy(),
    )


class GrowingRound:
    """A round's trees, one an output, that grow level by level together.

    Parameters
    ----------
    widths : int array [columns]
        As `GrowingTree` takes them.
    settings : TreeSettings
    outputs : int
    """

    def __init__(self, widths: np.ndarray, settings: TreeSettings, outputs: int) -> None:
        self._growing = [GrowingTree(widths, settings) for _ in range(outputs)]

    @property
    def trees(self) -> list[Tree]:
        """The trees as far as they are grown."""
        return [growing.tree for growing in self._growing]

    @property
    def requested_nodes(self) -> list[np.ndarray]:
        """The nodes of each tree whose sums are wanted next."""
        return [growing.requested_nodes for growing in self._growing]

    def grow(self, sums: np.ndarray) -> None:
        """Add a level, given the sums over all sites of the nodes asked for, tree after tree."""
        start = 0
        for growing, nodes in zip(self._growing, self.requested_nodes):
            if len(nodes):
                growing.grow(sums[start : start + len(nodes)])
            start += len(nodes)
