"""What each column adds to a row's score: path-dependent TreeSHAP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np

from flfed.trees.forest import Tree


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
    trees: Sequence[Sequence[Tree]], codes: np.ndarray, missing: np.ndarray, *, outputs: int = 1, base: float = 0.0
) -> np.ndarray:
    """Return what each column adds to each row's score.

    Parameters
    ----------
    trees : sequence of rounds, each a tree an output
    codes : int array [columns, rows]
    missing : int array [columns]
        The code of a missing value, by column.
    outputs : int
        Scores of a row, where there are no trees to tell it.
    base : float
        The score without any tree.

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
    found = np.zeros((rows, outputs, columns + 1))
    found[:, :, -1] = base
    for round_trees in trees:
        for output, tree in enumerate(round_trees):
            goes_left = _goes_left(tree, codes, missing)
            for leaf, way in _ways(tree):
                _add(found[:, output], tree, float(tree.value[leaf]), way, goes_left)
    return found


def _goes_left(tree: Tree, codes: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return where each row would go at each node, [nodes, rows]."""
    column = np.maximum(tree.column, 0)
    chosen = codes[column]
    return np.where(chosen == missing[column][:, None], tree.missing_left[:, None], chosen <= tree.code[:, None])


def _ways(tree: Tree) -> Iterator[tuple[int, tuple[Branch, ...]]]:
    """Yield each leaf with the splits on its way."""
    waiting: list[tuple[int, tuple[Branch, ...]]] = [(0, ())]
    while waiting:
        node, way = waiting.pop()
        if tree.column[node] < 0:
            yield node, way
            continue
        left = int(tree.left[node])
        cover = float(tree.cover[node])
        for child in (left, left + 1):
            # What no row weighed on follows both branches alike.
            share = float(tree.cover[child]) / cover if cover > 0 else 0.5
            branch = Branch(node, child == left, share)
            waiting.append((child, (*way, branch)))


def _add(found: np.ndarray, tree: Tree, value: float, way: Sequence[Branch], goes_left: np.ndarray) -> None:
    """Add a leaf's part to the contributions of one output, [rows, columns + 1]."""
    shares: dict[int, float] = {}
    follows: dict[int, np.ndarray] = {}
    for branch in way:
        column = int(tree.column[branch.node])
        shares[column] = shares.get(column, 1.0) * branch.share
        here = goes_left[branch.node] == branch.left
        follows[column] = here & follows[column] if column in follows else here
    found[:, -1] += value * np.prod(list(shares.values()))
    count = len(shares)
    weights = [factorial(k) * factorial(count - 1 - k) / factorial(count) for k in range(count)]
    for column, share in shares.items():
        # Of the other columns, those that are known follow the row and the rest their shares.
        others = np.zeros((count, len(found)))
        others[0] = 1.0
        for other in shares:
            if other != column:
                others[1:] = others[1:] * shares[other] + others[:-1] * follows[other]
                others[0] *= shares[other]
        found[:, column] += value * (follows[column] - share) * (weights @ others)
