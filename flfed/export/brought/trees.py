"""Boosted trees of XGBoost's JSON as a forest of flfed: the reverse of `flfed/export/xgboost_file.py`.

XGBoost splits inputs at thresholds, and a category may have an input for each value (`column=value`). Here a split is
on the codes of a whole column, so that two splits cut off a value in the middle of its category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flfed.errors import nearest
from flfed.export.brought.coefficients import schema_terms
from flfed.export.brought.model import brought_model, identity_encoder
from flfed.export.brought.rewriting import Input, InputColumn, TooDeep, below, rewritten
from flfed.export.brought.xgboost_document import SourceForest, read_document
from flfed.export.model_folder import SharedModel
from flfed.registry import kebab
from flfed.rows.data.schema import Schema
from flfed.rows.features.summarise import layout_of
from flfed.rows.models.boosted_trees import DEEPEST, MOST_BINS, BoostedTrees
from flfed.study.tables import TREES
from flfed.summaries.summary import Arrays, Layout
from flfed.trees.cut_points import possible_cuts
from flfed.trees.forest import KEYS, NODES, Tree, levels_after
from flfed.words import usage_error

Named = tuple[str, int | None]
"""A column, and the code of a value where an input is whether the column has it, else None."""


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
    inputs: list[Named] = []
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
