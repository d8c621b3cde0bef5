"""XGBoost's JSON (versions 1.7 to 3), read without believing it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from flfed.export.xgboost_file import OBJECTIVES
from flfed.parsers import foreign_parser, parse_json
from flfed.rows.model_files import read_content
from flfed.rows.models.boosted_trees import DEEPEST
from flfed.trees.forest import UNIT
from flfed.words import render, usage_error

LARGEST_DOCUMENT = 100_000_000
"""Bytes of the file: a node of a tree takes about 60."""
MOST_TREES = 1000
LARGEST_NUMBER = 2.0**60
"""No number of a tree is as large, nor is the base score; Hessians are in `UNIT`."""

Whole = Annotated[int, Field(ge=-1, lt=2**32)]
Model = TypeVar("Model", bound=BaseModel)


class TreeParameters(BaseModel):
    """Parameters of one tree."""

    num_deleted: int = 0
    size_leaf_vector: int = 1


class TreeArrays(BaseModel):
    """Arrays of one tree, of its nodes in any order after the root."""

    left_children: Annotated[list[Whole], Field(min_length=1)]
    right_children: list[Whole]
    split_indices: list[Whole]
    split_conditions: list[FiniteFloat]
    default_left: list[bool]
    sum_hessian: list[Annotated[FiniteFloat, Field(ge=0)]]
    loss_changes: list[FiniteFloat]
    split_type: list[int] = []
    tree_param: TreeParameters = TreeParameters()


class Trees(BaseModel):
    """Trees of a booster."""

    trees: list[TreeArrays]


class Booster(BaseModel):
    """Name of a booster, and its model."""

    name: str
    model: dict[str, Any] = {}


class Objective(BaseModel):
    """Name of an objective."""

    name: str


class Parameters(BaseModel):
    """Parameters of all trees."""

    base_score: str | float | list[float]
    num_class: int = 0
    num_target: int = 1


class Attributes(BaseModel):
    """What training wrote down."""

    best_iteration: int | None = None


class Learner(BaseModel):
    """All of a model but its version."""

    feature_names: list[str] = []
    gradient_booster: Booster
    learner_model_param: Parameters
    objective: Objective
    attributes: Attributes = Attributes()


class Document(BaseModel):
    """The whole file."""

    learner: Learner


@dataclass(frozen=True, eq=False)
class SourceTree:
    """One checked tree of XGBoost, in arrays [nodes].

    Attributes
    ----------
    left, right : int array
        Children, -1 at a leaf.
    feature : int array
        Place among the names of features.
    condition : float64 array
        Threshold of a split, below which rows go left; value of a leaf.
    missing_left : bool array
    hessian, gain : float64 array
        Sum of the rows' Hessians, and change of the loss.
    """

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    condition: np.ndarray
    missing_left: np.ndarray
    hessian: np.ndarray
    gain: np.ndarray


@dataclass(frozen=True, eq=False)
class SourceForest:
    """A checked model of XGBoost.

    Attributes
    ----------
    features : tuple of str
        Names of the inputs.
    base : float
        Score before any tree: log-odds, or the outcome.
    trees : tuple of SourceTree
    """

    features: tuple[str, ...]
    base: float
    trees: tuple[SourceTree, ...]


def read_document(path: Path, task: str) -> SourceForest:
    """Return the trees of XGBoost's JSON.

    Parameters
    ----------
    path : Path
    task : {"binary", "multi-class", "regression"}
        Of the schema, which the file's objective must fit.

    Raises
    ------
    UsageError
        If the file cannot be read, has another booster, another objective or categorical splits, or is damaged.
    """
    refusal = render("models.brought.json", path=path)
    document = parse_json(read_content(path, LARGEST_DOCUMENT), refusal, longest=LARGEST_DOCUMENT)
    learner = _validated(Document, document, path).learner
    booster = learner.gradient_booster
    if booster.name != "gbtree":
        raise usage_error("models.brought.booster", path=path, name=booster.name[:80])
    base = _check_outputs(learner, task, path)
    names = learner.feature_names
    if not names:
        raise usage_error("models.brought.unnamed", path=path)
    raw = booster.model.get("trees")
    if isinstance(raw, list) and len(raw) > MOST_TREES:
        raise usage_error("models.brought.many", path=path, count=len(raw), most=MOST_TREES)
    trees = _validated(Trees, booster.model, path).trees
    _check_rounds(learner, len(trees), path)
    checked = tuple(_checked_tree(tree, len(names), number, path) for number, tree in enumerate(trees))
    return SourceForest(tuple(names), base, checked)


def _validated(kind: type[Model], value: Any, path: Path) -> Model:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise usage_error("models.brought.fact", path=path, place=place[:80]) from None


def _check_outputs(learner: Learner, task: str, path: Path) -> float:
    """Return the score that the trees add to; raises UsageError."""
    name = learner.objective.name
    expected = OBJECTIVES[task]
    if task == "multi-class" or name != expected:
        wanted = " or ".join([OBJECTIVES["binary"], OBJECTIVES["regression"]]) if task == "multi-class" else expected
        raise usage_error("models.brought.objective", path=path, name=name[:80], expected=wanted)
    parameters = learner.learner_model_param
    written = parameters.base_score
    # XGBoost 3 writes a list, as text.
    parts = written.strip("[]").split(",") if isinstance(written, str) else np.atleast_1d(written).tolist()
    if parameters.num_class > 1 or parameters.num_target > 1 or len(parts) != 1:
        raise usage_error("models.brought.outputs", path=path)
    return _parse_base(path, task, parts[0])


def _parse_base(path: Path, task: str, written: str | float) -> float:
    """Return the base score before the link: log-odds of a probability, or the outcome; raises UsageError."""
    with foreign_parser(render("models.brought.base", path=path)):
        base = float(written)
    if task == "binary" and 0 < base < 1:
        return math.log(base / (1 - base))
    if task == "binary" or not abs(base) < LARGEST_NUMBER:
        raise usage_error("models.brought.base", path=path)
    return base


def _check_rounds(learner: Learner, trees: int, path: Path) -> None:
    """Refuse trees after the best round of early stopping: XGBoost's two interfaces differ in whether they count."""
    best = learner.attributes.best_iteration
    parallel = _validated(_Parallel, learner.gradient_booster.model, path).gbtree_model_param.num_parallel_tree
    if best is not None and (best + 1) * parallel < trees:
        raise usage_error("models.brought.stopped", path=path)


class _PerRound(BaseModel):
    num_parallel_tree: int = 1


class _Parallel(BaseModel):
    gbtree_model_param: _PerRound = _PerRound()


def _checked_tree(tree: TreeArrays, features: int, number: int, path: Path) -> SourceTree:
    """Return a tree's arrays, each split with a feature and two children of its own; raises UsageError."""
    facts = {"path": path, "tree": number}
    if tree.tree_param.size_leaf_vector > 1:
        raise usage_error("models.brought.vector", **facts)
    if any(tree.split_type):
        raise usage_error("models.brought.categorical", **facts)
    source = SourceTree(
        left=np.array(tree.left_children),
        right=np.array(tree.right_children),
        feature=np.array(tree.split_indices),
        condition=np.array(tree.split_conditions),
        missing_left=np.array(tree.default_left, dtype=bool),
        hessian=np.array(tree.sum_hessian),
        gain=np.array(tree.loss_changes),
    )
    if len({len(array) for array in vars(source).values()}) > 1:
        raise usage_error("models.brought.lengths", **facts)
    # Pruning leaves deleted nodes behind, and says how many.
    if len(source.left) - _walk(source, facts) != tree.tree_param.num_deleted:
        raise usage_error("models.brought.unreached", **facts)
    of_splits = source.feature[source.left >= 0]
    if ((of_splits < 0) | (of_splits >= features)).any():
        raise usage_error("models.brought.column", **facts)
    leaf = source.left < 0
    largest = max(np.abs(source.condition[leaf]).max(), np.abs(source.gain).max(), source.hessian[leaf].sum() / UNIT)
    if largest >= LARGEST_NUMBER:
        raise usage_error("models.brought.large", **facts)
    return source


def _walk(tree: SourceTree, facts: dict[str, Any]) -> int:
    """Return how many nodes its root leads to, level by level, so that no cycle has no end; raises UsageError."""
    count = len(tree.left)
    seen = np.zeros(count, dtype=bool)
    level = np.zeros(1, dtype=np.int64)
    for _ in range(DEEPEST + 1):
        seen[level] = True
        split = level[(tree.left[level] >= 0) | (tree.right[level] >= 0)]
        if not len(split):
            return int(seen.sum())
        level = np.concatenate([tree.left[split], tree.right[split]])
        if level.min() < 0 or level.max() >= count:
            raise usage_error("models.brought.children", **facts)
        if seen[level].any() or len(np.unique(level)) < len(level):
            raise usage_error("models.brought.reached", **facts)
    raise usage_error("models.brought.deep", most=DEEPEST, **facts)
