"""A tree of XGBoost, whose splits are on inputs, as one whose splits are on the codes of columns."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flfed.errors import FlfedError
from flfed.export.brought.xgboost_document import SourceTree
from flfed.rows.models.boosted_trees import DEEPEST
from flfed.trees.forest import UNIT, Tree

Part = tuple[int, bool]
"""The last code of a group of neighbours, and whether they go left."""


class TooDeep(FlfedError):
    """Error of a tree that needs more levels of splits than a forest has."""


@dataclass(frozen=True, eq=False)
class InputColumn:
    """A column with its place among those of the model, its cut points, and its largest value, as float32."""

    place: int
    cuts: np.ndarray
    high: float


@dataclass(frozen=True, eq=False)
class Input:
    """An input of XGBoost: a column, or whether it has a value, by its code; then `value` is not None."""

    column: InputColumn
    value: int | None

    def parts(self, cut: float) -> list[Part]:
        """Return which codes of the column go left where inputs of at most `cut` do."""
        column = self.column
        last = len(column.cuts)
        if self.value is None:
            left = last
            if cut < column.high:
                left = int(np.searchsorted(column.cuts, cut, side="right")) - 1
            return [(left, True), (last, False)]
        others = cut >= 0
        return [(self.value - 1, others), (self.value, cut >= 1), (last, others)]


@dataclass(frozen=True)
class Span:
    """Codes of a column that come to a node, from `low` to `high`, and whether missing values do."""

    low: int
    high: int
    missing: bool

    def within(self, parts: Sequence[Part]) -> list[Part]:
        """Return the parts of a split for these codes; neighbours that go the same way are one."""
        own: list[Part] = []
        low = self.low
        for last, left in parts:
            end = min(last, self.high)
            if end < low:
                continue
            if own and own[-1][1] == left:
                own.pop()
            own.append((end, left))
            low = end + 1
        return own


Spans = Mapping[int, Span]
"""By place of a column; one that is absent has all codes."""


def below(thresholds: np.ndarray) -> np.ndarray:
    """Return the next float32 below each threshold: XGBoost sends rows below one left, and ours are at most a cut."""
    # A threshold may be beyond float32, where no number of a row is.
    with np.errstate(over="ignore"):
        return np.nextafter(thresholds.astype(np.float32), np.float32(-np.inf))


def rewritten(source: SourceTree, inputs: Sequence[Input]) -> Tree:
    """Return a tree that gives each row the leaf of XGBoost's.

    A value in the middle of a category takes two splits, and the subtree of the other values stands twice. A split that
    all rows of a node pass on one side is left out.

    Raises
    ------
    TooDeep
        If it has more than `DEEPEST` levels of splits.
    """
    rewriting = _Rewriting(source, inputs)
    origins: list[int] = []
    nodes: list[tuple[int, int, bool, int]] = []
    waiting: deque[tuple[int, int, Spans]] = deque([(0, 0, {})])
    while waiting:
        node, depth, spans = waiting.popleft()
        node, parts = rewriting.next_split(node, spans)
        origins.append(node)
        if not parts:
            nodes.append((-1, 0, False, 0))
            continue
        column = rewriting.column(node)
        if depth == DEEPEST:
            raise TooDeep("too deep")
        span = rewriting.span(node, spans)
        end, goes_left = parts[0]
        missing_left = span.missing and rewriting.missing_left[node] == goes_left
        # Children stand in pairs after the nodes that wait.
        nodes.append((column.place, end, missing_left, len(origins) + len(waiting)))
        first = Span(span.low, end, missing_left)
        rest = Span(end + 1, span.high, span.missing and not missing_left)
        for own in (first, rest):
            waiting.append((node, depth + 1, {**spans, column.place: own}))
    return _tree(source, np.array(origins), np.array(nodes))


class _Rewriting:
    """A tree's arrays as lists, which are looked up node by node."""

    def __init__(self, source: SourceTree, inputs: Sequence[Input]) -> None:
        self.missing_left: list[bool] = source.missing_left.tolist()
        self._inputs = inputs
        self._left: list[int] = source.left.tolist()
        self._right: list[int] = source.right.tolist()
        self._feature: list[int] = source.feature.tolist()
        self._cut: list[float] = below(source.condition).tolist()

    def column(self, node: int) -> InputColumn:
        """Return the column that splits a node."""
        return self._inputs[self._feature[node]].column

    def span(self, node: int, spans: Spans) -> Span:
        """Return the codes that come to a node, of the column that splits it."""
        column = self.column(node)
        return spans.get(column.place, Span(0, len(column.cuts), True))

    def next_split(self, node: int, spans: Spans) -> tuple[int, list[Part]]:
        """Return the next node at which rows part, and how; no parts at a leaf."""
        while self._left[node] >= 0:
            span = self.span(node, spans)
            parts = span.within(self._inputs[self._feature[node]].parts(self._cut[node]))
            sides = {left for _, left in parts}
            if span.missing:
                sides.add(self.missing_left[node])
            if len(sides) > 1:
                return node, parts
            node = self._left[node] if True in sides else self._right[node]
        return node, []


def _tree(source: SourceTree, origins: np.ndarray, nodes: np.ndarray) -> Tree:
    """Return a tree; nodes that stand in it several times share their Hessians and gains evenly.

    Parameters
    ----------
    source : SourceTree
    origins : int array [nodes]
        Node of the source that each is.
    nodes : int array [nodes, 4]
        Column, code, whether missing values go left, left child.
    """
    column, code, missing_left, left = nodes.T
    leaf = column < 0
    copies = np.bincount(origins)[origins]
    hessian = np.where(leaf, np.rint(source.hessian[origins] / copies / UNIT), 0).astype(np.int64)
    for node in np.flatnonzero(~leaf)[::-1]:
        hessian[node] = hessian[left[node]] + hessian[left[node] + 1]
    value = np.where(leaf, source.condition[origins], 0.0)
    gain = np.where(leaf, 0.0, source.gain[origins] / copies).astype(np.float32)
    return Tree(column, code, missing_left.astype(bool), left, value, gain, hessian)
