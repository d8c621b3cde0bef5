"""Boosted trees of XGBoost's JSON as a forest of flfed: the reverse of `flfed/export/xgboost_file.py`.

XGBoost splits inputs at thresholds, and a category may have an input for each value (`column=value`). Here a split is
on the codes of a whole column, so that two splits cut off a value in the middle of its category.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flfed.errors import FlfedError, nearest
from flfed.export.brought.coefficients import brought_model, identity_encoder, schema_terms
from flfed.export.brought.xgboost_document import SourceForest, SourceTree, read_document
from flfed.export.model_folder import SharedModel
from flfed.registry import kebab
from flfed.rows.data.schema import Schema
from flfed.rows.features.summarise import layout_of
from flfed.rows.models.boosted_trees import DEEPEST, MOST_BINS, BoostedTrees
from flfed.study.tables import TREES
from flfed.summaries.summary import Arrays, Layout
from flfed.trees.cut_points import possible_cuts
from flfed.trees.forest import KEYS, NODES, UNIT, Tree, levels_after
from flfed.words import usage_error

Named = tuple[str, int | None]
"""A column, and the code of a value where an input is whether the column has it, else None."""
Part = tuple[int, bool]
"""The last code of a group of neighbours, and whether they go left."""


def read_trees(path: Path, schema: Schema) -> SharedModel:
    """Return the boosted trees of XGBoost's JSON, whose margins are XGBoost's but for its rounding to float32.

    Parameters
    ----------
    path : Path
        Booster `gbtree`, objective `binary:logistic` or `reg:squarederror`, at most 1,000 trees of at most 10 splits
        from root to leaf. `feature_names` are the schema's columns: numbers, flags, and categories by the places of
        their values from 0 on, or `column=value` as 0 and 1. A missing cell is missing (NaN) in all inputs of its
        column; pandas' `get_dummies` writes 0 there, and a model of such inputs scores these rows otherwise.
        Where the schema takes the target's logarithm, the trees predict the logarithm, as in flfed's own export.
    schema : Schema
        Columns without an input are no columns of the model, and may be missing.

    Raises
    ------
    UsageError
        If the file cannot be read, breaks one of these rules, or is damaged.
    """
    source = read_document(path, schema.task)
    named = _named_inputs(source.features, schema, path)
    features = schema.features(tuple(dict.fromkeys(name for name, _ in named)))
    layout = replace(layout_of(schema, features), plain=True)
    columns = _columns(source, named, schema, layout, path)
    inputs = [Input(columns[name], value) for name, value in named]
    trees = _rewrite_all(source, inputs, path)
    encoder = identity_encoder(layout)
    if schema.task == "regression":
        # As in flfed's own runs, scores are in widths of the outcome's range.
        encoder.center[-1] = source.base
        encoder.scale[-1] = 2 * layout.target.half
    elif source.base:
        trees.insert(0, _leaf(source.base))
    numbers = [column.name for column in layout.features if column.kind == "number"]
    settings = {
        "depth": max([1, *(levels_after(tree, None) or 0 for tree in trees)]),
        "max_bins": max([2, *(len(columns[name].cuts) + 1 for name in numbers)]),
    }
    rounds = max(1, len(trees))
    forest = BoostedTrees(**settings).first_forest(layout, 1, rounds)
    arrays = _with_trees(forest, trees, list(columns.values()), float(encoder.scale[-1]))
    tables = {
        "model": {"name": TREES, **{kebab(key): value for key, value in settings.items()}},
        "strategy": {"name": TREES, "rounds": rounds},
    }
    return brought_model(path, schema, features, tables, arrays, encoder)


def _with_trees(forest: Arrays, trees: Sequence[Tree], columns: Sequence[InputColumn], scale: float) -> Arrays:
    """Return the arrays of an empty forest with trees and cut points in them, leaves divided by `scale`."""
    arrays = {name: value.copy() for name, value in forest.items()}
    for column in columns:
        arrays["cuts"][column.place, : len(column.cuts)] = column.cuts
        arrays["missing"][column.place] = len(column.cuts) + 1
    for number, tree in enumerate(trees):
        for key, value in zip(KEYS, tree.arrays().values(), strict=True):
            arrays[key][number, 0, : len(value)] = value
    arrays["value"] /= scale
    return arrays


def _named_inputs(names: Sequence[str], schema: Schema, path: Path) -> list[Named]:
    """Return column and code of each input; raises UsageError."""
    by_name: dict[str, Named] = {**schema_terms(schema), **{name: (name, None) for name in schema.columns}}
    inputs = []
    for name in names:
        if name not in by_name:
            hint = nearest(name, list(by_name))
            raise usage_error("models.brought.feature", path=path, name=name[:80], hint=hint)
        if by_name[name] in inputs:
            raise usage_error("models.brought.repeated", path=path, name=name[:80])
        inputs.append(by_name[name])
    return inputs


def _columns(
    source: SourceForest, inputs: Sequence[Named], schema: Schema, layout: Layout, path: Path
) -> dict[str, InputColumn]:
    """Return each column with the cut points that its splits need, in the schema's order; raises UsageError."""
    thresholds: dict[str, list[np.ndarray]] = {column.name: [np.zeros(0)] for column in layout.features}
    for tree in source.trees:
        is_split = tree.left >= 0
        for number in np.unique(tree.feature[is_split]):
            thresholds[inputs[number][0]].append(tree.condition[is_split & (tree.feature == number)])
    columns = {}
    for place, column in enumerate(layout.features):
        cuts = possible_cuts(column)
        high = np.float32(len(cuts))
        span = schema.columns[column.name].range
        if span is not None:
            low, high = np.array(span, dtype=np.float32)
            cuts = np.unique(below(np.concatenate(thresholds[column.name])))
            # No row has a value outside of the range, nor needs a cut there.
            cuts = cuts[(cuts >= low) & (cuts < high)]
            if len(cuts) >= MOST_BINS:
                facts = {"column": column.name, "count": len(cuts), "most": MOST_BINS - 1}
                raise usage_error("models.brought.thresholds", path=path, **facts)
        columns[column.name] = InputColumn(place, cuts, float(high))
    return columns


def _rewrite_all(source: SourceForest, inputs: Sequence[Input], path: Path) -> list[Tree]:
    trees = []
    for number, tree in enumerate(source.trees):
        try:
            trees.append(rewritten(tree, inputs))
        except TooDeep:
            raise usage_error("models.brought.spread", path=path, tree=number, most=DEEPEST) from None
    return trees


def _leaf(value: float) -> Tree:
    """Return a tree that gives all rows one score."""
    stacked = {key: np.zeros(1) for key in NODES}
    return Tree(**{**stacked, "column": np.array([-1]), "value": np.array([value])})


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
    origins = []
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
