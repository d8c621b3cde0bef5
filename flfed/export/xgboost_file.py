"""Boosted trees as a file of XGBoost 3, which many tools read; XGBoost need not be installed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from flfed.summaries.summary import Encoder, Layout
from flfed.trees.cut_points import NO_CUT
from flfed.trees.forest import UNIT, Tree, forest_of

VERSION = (3, 2, 0)
OBJECTIVES = {"binary": "binary:logistic", "multi-class": "multi:softprob", "regression": "reg:squarederror"}
NO_PARENT = 2**31 - 1
"""Parent of the root in XGBoost's file."""
LARGEST = float(np.finfo(np.float32).max)


def xgboost_file(arrays: Mapping[str, np.ndarray], layout: Layout, encoder: Encoder) -> bytes:
    """Return a forest as XGBoost's file.

    Parameters
    ----------
    arrays : dict of name to array
        Of a model "boosted-trees".
    layout : Layout
        The order of the columns: inputs are numbers, places of values, NaN where missing.
    encoder : Encoder
        Of a regression, whose outcome it scales; under the transform log1p the file's predictions are logarithms.
    """
    own = {
        column.name: cuts[cuts < NO_CUT].astype(np.float32)
        for column, cuts in zip(layout.features, arrays["cuts"], strict=True)
    }
    # Missing values that are too few for a code of their own follow the last code.
    last = np.array([len(cuts) for cuts in own.values()])
    shared = arrays["missing"].astype(np.int64) == last
    trees = []
    for of_round in forest_of(arrays):
        trees.append([_with_shared(tree, shared, last) for tree in of_round])
    scale = 1.0
    base = 0.0
    if layout.task == "regression":
        scale = float(encoder.scale[-1])
        base = float(encoder.center[-1])
    document = xgboost_document(trees, own, layout.task, outputs=arrays["value"].shape[1], scale=scale, base=base)
    return to_json(document).encode()


def _with_shared(tree: Tree, shared: np.ndarray, last: np.ndarray) -> Tree:
    column = np.maximum(tree.column, 0)
    return replace(tree, missing_left=np.where(shared[column], last[column] <= tree.code, tree.missing_left))


def xgboost_document(
    trees: Sequence[Sequence[Tree]],
    cuts: Mapping[str, np.ndarray],
    task: str,
    *,
    outputs: int = 1,
    scale: float = 1.0,
    base: float = 0.0,
) -> dict[str, Any]:
    """Return trees as XGBoost's document.

    Parameters
    ----------
    trees : sequence of rounds, each a tree an output
    cuts : dict of column to float32 array
        Cut points of each column, in the order of the trees' columns.
    task : {"binary", "multi-class", "regression"}
    outputs : int
        Scores of a row, if there are no trees.
    scale, base : float
        Of a regression: its outcome is `base + scale * score`.

    Notes
    -----
    XGBoost sends rows below a threshold left, and ours are at most the cut point: the threshold is the next float32.
    """
    if trees:
        outputs = len(trees[0])
    several = outputs > 1
    thresholds = [above(cut) for cut in cuts.values()]
    flat = list(chain.from_iterable(trees))
    start = "5E-1" if task == "binary" else repr(float(base)).upper()
    objective: dict[str, Any] = {"name": OBJECTIVES[task]}
    if several:
        objective["softmax_multiclass_param"] = {"num_class": str(outputs)}
    else:
        objective["reg_loss_param"] = {"scale_pos_weight": "1"}
    model = {
        "cats": {"enc": [], "feature_segments": np.zeros(0, np.int32), "sorted_idx": np.zeros(0, np.int32)},
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(flat))},
        "iteration_indptr": list(range(0, len(flat) + 1, outputs)),
        "tree_info": [number % outputs for number in range(len(flat))],
        "trees": [_tree(number, tree, thresholds, scale) for number, tree in enumerate(flat)],
    }
    return {
        "learner": {
            "attributes": {},
            "feature_names": list(cuts),
            "feature_types": ["float"] * len(cuts),
            "gradient_booster": {"model": model, "name": "gbtree"},
            "learner_model_param": {
                "base_score": f"[{','.join([start] * outputs)}]",
                "boost_from_average": "0",
                "num_class": str(outputs * several),
                "num_feature": str(len(cuts)),
                "num_target": "1",
            },
            "objective": objective,
        },
        "version": list(VERSION),
    }


def above(cuts: np.ndarray) -> np.ndarray:
    """Return the next float32 above each cut point."""
    return np.nextafter(cuts.astype(np.float32), np.float32(np.inf))


def _tree(number: int, tree: Tree, thresholds: Sequence[np.ndarray], scale: float) -> dict[str, Any]:
    leaf = tree.column < 0
    parents = np.full(len(leaf), NO_PARENT, dtype=np.int32)
    inner = np.flatnonzero(~leaf)
    for child in (0, 1):
        parents[tree.left[inner] + child] = inner
    # Leaves have all their digits, so that flfed reads back the same scores; XGBoost rounds them.
    conditions = scale * tree.value
    values = conditions.astype(np.float32)
    for node in inner:
        conditions[node] = _threshold(thresholds[tree.column[node]], int(tree.code[node]))
    none = np.zeros(0, np.int64)
    of_none = none.astype(np.int32)
    return {
        "base_weights": values,
        "categories": of_none,
        "categories_nodes": of_none,
        "categories_segments": none,
        "categories_sizes": none,
        "default_left": tree.missing_left.astype(np.uint8),
        "id": number,
        "left_children": np.where(leaf, -1, tree.left).astype(np.int32),
        "loss_changes": tree.gain.astype(np.float32),
        "parents": parents,
        "right_children": np.where(leaf, -1, tree.left + 1).astype(np.int32),
        "split_conditions": conditions,
        "split_indices": np.maximum(tree.column, 0).astype(np.int32),
        "split_type": np.zeros(len(leaf), np.uint8),
        "sum_hessian": (tree.cover * UNIT).astype(np.float32),
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(len(thresholds)),
            "num_nodes": str(len(leaf)),
            "size_leaf_vector": "1",
        },
    }


def _threshold(thresholds: np.ndarray, code: int) -> float:
    if code < 0:  # only rows without a value go left
        return -LARGEST
    # The shortest text of a float32, read as float64, rounds back to it.
    return float(str(thresholds[code])) if code < len(thresholds) else LARGEST


def to_json(document: Mapping[str, Any]) -> str:
    """Return a document as JSON; the digits of a float32 read back as the same number."""
    return json.dumps(document, default=_plain)


def _plain(array: np.ndarray) -> list[Any]:
    return [float(str(value)) for value in array] if array.dtype.kind == "f" else list(array.tolist())
