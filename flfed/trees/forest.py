"""Trees as arrays, and the scores that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

UNIT = 2.0**-30
"""What one of a sum of gradients stands for: they are whole numbers, so that no order of adding changes a bit."""


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
    found = np.zeros((codes.shape[1], len(trees[0]) if trees else 1))
    for round_trees in trees:
        for output, tree in enumerate(round_trees):
            found[:, output] += tree.value[tree.leaves(codes, missing)]
    return found
