"""Trees as arrays, and the scores that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np

from flfed.errors import FlfedError
from flfed.refusals import Refusal

UNIT = 2.0**-30
"""What one of a sum of gradients stands for: they are whole numbers, so that no order of adding changes a bit."""


class NoTrees(FlfedError):
    """Error of arrays that are no trees; nothing of a table is in it."""

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

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def step(self, node: np.ndarray, codes: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Return the node of each row one level further down; a row at a leaf stays.

        Parameters
        ----------
        node : int array [rows]
        codes : int array [columns, rows]
        missing : int array [columns]
            The code of a missing value, by column.
        """
        at = np.flatnonzero(self.column[node] >= 0)
        here = node[at]
        column = self.column[here]
        found = codes[column, at]
        goes_left = np.where(found == missing[column], self.missing_left[here], found <= self.code[here])
        after = node.copy()
        after[at] = self.left[here] + ~goes_left
        return after

    def leaves(self, codes: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Return the leaf that each row comes to, of codes as `step` takes them."""
        node = np.zeros(codes.shape[1], dtype=np.int64)
        while (self.column[node] >= 0).any():
            node = self.step(node, codes, missing)
        return node


def margins(trees: Sequence[Sequence[Tree]], codes: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the rows' scores before the link, [rows, outputs].

    Parameters
    ----------
    trees : sequence of rounds, each a tree an output
    codes, missing
        As `Tree.step` takes them.
    """
    outputs = len(trees[0]) if trees else 1
    found = np.zeros((codes.shape[1], outputs))
    for round_trees in trees:
        for output, tree in enumerate(round_trees):
            found[:, output] += tree.value[tree.leaves(codes, missing)]
    return found


NODES = tuple(field.name for field in fields(Tree))


def forest_shapes(rounds: int, outputs: int, depth: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a forest: rounds, outputs and the nodes of a whole tree.

    They are named as a `Tree`'s arrays, in kebab-case.
    """
    shape = (rounds, outputs, 2 ** (depth + 1) - 1)
    return {name.replace("_", "-"): shape for name in NODES}


def empty_forest(rounds: int, outputs: int, depth: int) -> dict[str, np.ndarray]:
    """Return the arrays of trees that are not grown yet, in float64: each is a leaf of value 0."""
    shapes = forest_shapes(rounds, outputs, depth)
    arrays = {name: np.zeros(shape) for name, shape in shapes.items()}
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
    found = np.zeros((len(NODES), len(trees), nodes))
    found[NODES.index("column")] = -1.0
    for output, tree in enumerate(trees):
        for place, value in enumerate(tree.arrays().values()):
            found[place, output, : len(value)] = value
    return found


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
    found = []
    for output in range(stacked.shape[1]):
        of = dict(zip(NODES, stacked[:, output], strict=True))
        if not _sound(of, columns):
            raise NoTrees
        # Children come in pairs after the root.
        count = 1 + 2 * int((of["column"] >= 0).sum())
        found.append(Tree(**{name: value[:count].astype(_TYPES.get(name, np.int64)) for name, value in of.items()}))
    return found


LARGEST = 2.0**62
"""No number of a tree is as large: a leaf's is at most a sum of gradients in `UNIT`, which fits 62 bits."""


def _sound(of: Mapping[str, np.ndarray], columns: int) -> bool:
    """Tell whether a tree's arrays are one: each split has a column, and as its children the next pair of nodes."""
    whole = np.stack([of["column"], of["code"], of["left"], of["cover"]])
    every = np.stack(list(of.values()))
    if not ((np.abs(every) < LARGEST).all() and (whole == np.rint(whole)).all()):
        return False
    column = of["column"]
    splits = np.flatnonzero(of["column"] >= 0)
    left = 1 + 2 * np.arange(len(splits))
    fits = ((column >= -1) & (column < columns)).all() and 2 * len(splits) < len(column)
    return bool(fits and (of["left"][splits] == left).all() and (splits < left).all())


_TYPES: dict[str, Any] = {"missing_left": bool, "value": np.float64, "gain": np.float32}


def round_of(arrays: Mapping[str, np.ndarray], number: int) -> np.ndarray:
    """Return the trees of a round, counted from 0, as `tree_arrays` makes them, of a forest's arrays."""
    return np.stack([arrays[name.replace("_", "-")][number] for name in NODES])


def with_round(arrays: Mapping[str, np.ndarray], number: int, stacked: np.ndarray) -> dict[str, np.ndarray]:
    """Return a forest's arrays with the trees of a round, counted from 0, in their place."""
    found = dict(arrays)
    for name, value in zip(NODES, stacked, strict=True):
        key = name.replace("_", "-")
        found[key] = found[key].copy()
        found[key][number] = value
    return found


def without_trees(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a forest's arrays with its cut points and no tree."""
    rounds, outputs, nodes = arrays["value"].shape
    return {**arrays, **empty_forest(rounds, outputs, depth_of(nodes))}


def forest_of(arrays: Mapping[str, np.ndarray]) -> list[list[Tree]]:
    """Return the trees that are grown, by round."""
    grown = np.flatnonzero(((arrays["column"] >= 0) | (arrays["value"] != 0)).any(axis=(1, 2)))
    columns = len(arrays["cuts"])
    return [trees_of(round_of(arrays, number), columns) for number in range(int(grown.max(initial=-1)) + 1)]


def gains_by_column(forest: Sequence[Sequence[Tree]], columns: int) -> np.ndarray:
    """Return the summed gain of the splits of each column over all trees, float64 [columns]."""
    # One more for the leaves, whose column is -1.
    found = np.zeros(columns + 1)
    for tree in chain.from_iterable(forest):
        np.add.at(found, tree.column, tree.gain.astype(np.float64))
    return found[:columns]
