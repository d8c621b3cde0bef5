"""Growth of a tree: sums of gradients over all sites become splits.

The half at a site, which turns rows into sums, is `flfed/rows/statistics/boosted_trees.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flfed.trees.forest import UNIT, Tree

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
    least_hessian : float
        Least sum of Hessians in a child.
    least_rows : int
        Fewest rows in a child; where it is not 0, sums come with counts of rows.
    """

    depth: int = 4
    learning_rate: float = 0.1
    l2: float = 1.0
    least_hessian: float = 1.0
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
    Of equal gains the one that XGBoost's `hist` method keeps is taken, so that trees are the same: gains are float32;
    columns come in their order; of one column first splits whose missing rows go right, from the lowest code on,
    then those whose missing rows go left, from the highest code down.
    """
    padded, missing = _padded(sums, widths)
    total = padded.sum(axis=2) + missing
    below = np.cumsum(padded, axis=2)
    # Of a split before code 0 only missing rows go left.
    before = np.concatenate([np.zeros_like(below[:, :, :1]), below[:, :, :-1]], axis=2) + missing[:, :, None]
    left = np.concatenate([below, before[:, :, ::-1]], axis=2)
    right = total[:, :, None] - left
    parent = _gain(total[:, :1], settings)
    gain = (_gain(left, settings) + _gain(right, settings)) - parent[:, :, None]
    least = settings.least_hessian
    allowed = (left[..., 1] * UNIT >= least) & (right[..., 1] * UNIT >= least)
    allowed &= (left[..., 1] > 0) & (right[..., 1] > 0) & (gain > LEAST_GAIN)
    if settings.least_rows:
        allowed &= (left[..., 2] >= settings.least_rows) & (right[..., 2] >= settings.least_rows)
    gain = np.where(allowed, gain, -np.inf).astype(np.float32)
    nodes = np.arange(len(sums))
    codes = padded.shape[2]
    column, place = np.divmod(_first_of_best(gain.reshape(len(sums), -1)), 2 * codes)
    missing_left = place >= codes
    code = np.where(missing_left, 2 * codes - 2 - place, place)
    return Splits(gain[nodes, column, place], column, code, missing_left, left[nodes, column, place])


def _first_of_best(gain: np.ndarray) -> np.ndarray:
    return np.asarray(gain.argmax(axis=1))


def _padded(sums: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sums by node, column and code, and those of missing rows by node and column."""
    codes = int(widths.max()) - 1
    ends = np.cumsum(widths)
    padded = np.zeros((len(sums), len(widths), codes, sums.shape[2]), dtype=sums.dtype)
    inside = np.arange(codes) < (widths - 1)[:, None]
    kept = np.ones(int(ends[-1]), dtype=bool)
    kept[ends - 1] = False
    padded[:, inside] = sums[:, kept]
    return padded, sums[:, ends - 1]


def _gain(sums: np.ndarray, settings: TreeSettings) -> np.ndarray:
    """Return `G^2 / (H + l2)` in float32, of sums [..., 2 or 3]."""
    slope = sums[..., 0] * UNIT
    curvature = sums[..., 1] * UNIT
    return np.asarray((np.square(slope) / np.maximum(curvature + settings.l2, 1e-300)).astype(np.float32))


class GrowingTree:
    """A tree that grows by a level with each answer of the sites.

    Parameters
    ----------
    widths : int array [columns]
        Number of codes of each column, that of a missing value among them.
    settings : TreeSettings

    Attributes
    ----------
    asked : int array
        The nodes whose sums are wanted next: the root, then of each split the child with the smaller sum of
        Hessians, since its sibling's sums are the difference. Empty once the tree is grown.
    tree : Tree
        As far as it is grown; every node without a split is a leaf.
    """

    def __init__(self, widths: np.ndarray, settings: TreeSettings) -> None:
        self.widths = widths
        self.settings = settings
        self.asked = np.zeros(1, dtype=np.int64)
        self.tree = _leaves(np.zeros((1, 2), dtype=np.int64), settings)
        self._levels = 0
        self._parents = np.zeros((0, 0, 2), dtype=np.int64)

    def grow(self, sums: np.ndarray) -> None:
        """Add a level, given the sums over all sites of the nodes asked for, [asked, cells, 2 or 3]."""
        nodes = self.asked
        if not self._levels:
            self.tree = _leaves(sums[:, : self.widths[0]].sum(axis=1), self.settings)
        else:
            nodes, sums = _with_siblings(nodes, sums, self._parents)
        found = best_splits(sums, self.widths, self.settings)
        split = np.flatnonzero(np.isfinite(found.gain))
        self._levels += 1
        total = sums[split, : self.widths[0]].sum(axis=1)
        children = np.stack([found.left[split], total - found.left[split]], axis=1)
        first = len(self.tree.column) + 2 * np.arange(len(split))
        self._split(nodes[split], found, split, first)
        self.tree = _joined(self.tree, _leaves(children.reshape(-1, sums.shape[2]), self.settings))
        more = self._levels < self.settings.depth
        self.asked = first + (children[:, 0, 1] > children[:, 1, 1]) if more else first[:0]
        self._parents = sums[split] if more else sums[:0]

    def _split(self, nodes: np.ndarray, found: Splits, split: np.ndarray, left: np.ndarray) -> None:
        tree = self.tree
        tree.column[nodes] = found.column[split]
        tree.code[nodes] = found.code[split]
        tree.missing_left[nodes] = found.missing_left[split]
        tree.gain[nodes] = found.gain[split]
        tree.left[nodes] = left
        tree.value[nodes] = 0.0


def _with_siblings(nodes: np.ndarray, sums: np.ndarray, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes of a level in order, with their sums; those of the nodes not asked for are differences."""
    # Children are numbered in pairs after the root, so that a left one is odd.
    siblings = nodes + np.where(nodes % 2, 1, -1)
    every = np.concatenate([nodes, siblings])
    order = np.argsort(every)
    return every[order], np.concatenate([sums, parents - sums])[order]


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


def _joined(tree: Tree, more: Tree) -> Tree:
    others = more.arrays()
    return Tree(**{name: np.concatenate([value, others[name]]) for name, value in tree.arrays().items()})


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
    def asked(self) -> list[np.ndarray]:
        """The nodes of each tree whose sums are wanted next."""
        return [growing.asked for growing in self._growing]

    def grow(self, sums: np.ndarray) -> None:
        """Add a level, given the sums over all sites of the nodes asked for, tree after tree."""
        start = 0
        for growing, nodes in zip(self._growing, self.asked, strict=True):
            if len(nodes):
                growing.grow(sums[start : start + len(nodes)])
            start += len(nodes)
