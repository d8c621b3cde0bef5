"""A coordinator that sends arrays which are no trees: a site says so, and neither hangs nor fails."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

from flfed.rows.data.site import Site
from flfed.rows.models.boosted_trees import BoostedTrees
from flfed.rows.statistics.boosted_trees import SiteTrees
from flfed.trees.forest import NODES, NoTrees, empty_forest
from flfed.updates.messages.train import TREE
from tests.boosting import trees_study
from tests.deployment.summing import Consortium
from tests.deployment.test_trees_at_the_gate import asked_again, consortium_of, with_array

HANGS = 10
Places = Mapping[str, float]
NONE: dict[str, Places] = {
    "a child that is its own parent": {"column": 0, "code": 40, "missing_left": 1, "left": 0},
    "a child that is not there": {"column": 0, "left": 1e9}, "a child before the root": {"column": 0, "left": -5},
    "a column that is not there": {"column": 77, "left": 1}, "half a column": {"column": 0.5, "left": 1},
    "half a code": {"column": 0, "code": 0.5, "left": 1},
    "a leaf beyond all gradients": {"column": -1, "value": 1e300},
}  # fmt: skip


@pytest.fixture
def gated(small_sites: Callable[..., list[Site]], small_study: str) -> Consortium:
    return consortium_of(small_sites(3, rows=60), trees_study(small_study, **{"strategy.rounds": 2}))


@contextmanager
def soon() -> Iterator[None]:
    """Fail what goes round in a circle."""

    def hangs(*_: Any) -> None:
        raise TimeoutError(f"no answer after {HANGS} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def with_root(values: np.ndarray, root: Places) -> np.ndarray:
    for name, value in root.items():
        values[NODES.index(name), 0, 0] = value
    return values


def forest_with(root: Places) -> dict[str, np.ndarray]:
    """Return a forest of one tree for two columns, whose root is spoiled."""
    found = {**empty_forest(1, 1, 2), "cuts": np.array([[1.0], [2.0]]), "missing": np.array([2.0, 2.0])}
    for name, value in root.items():
        found[name.replace("_", "-")][0, 0, 0] = value
    return found


def test_a_site_says_that_arrays_are_no_trees(gated: Consortium):
    site, message, context = asked_again(gated, 8)
    original = message.content["extra"]
    # Each is another question, and there are as many attempts as sites.
    for attempt, (why, root) in enumerate(list(NONE.items())[:3], 1):
        message.content["extra"] = original
        message.content["settings"]["attempt"] = float(attempt)
        with_array(message, TREE, partial(with_root, root=root))
        with soon():
            reply = gated.gates[site].answer(message, context)
        assert reply.has_error() and "the arrays are no trees" in reply.error.reason, why


@pytest.mark.parametrize("why", NONE)
def test_a_model_of_no_trees_scores_no_row(why: str):
    with soon(), pytest.raises(NoTrees):
        BoostedTrees(depth=2).outputs(forest_with(NONE[why]), np.zeros((3, 2)))


@pytest.mark.parametrize("code", [-1.0, 0.5, 3.0])
def test_a_code_of_missing_values_is_one_of_its_column(code: str):
    found = forest_with({}) | {"missing": np.array([2.0, code])}
    with pytest.raises(NoTrees):
        BoostedTrees(depth=2).outputs(found, np.zeros((3, 2)))


def test_a_site_does_not_take_what_is_no_tree_for_known():
    trees = SiteTrees({"fitted": np.zeros((3, 2))}, np.zeros(3), "binary")
    spoiled = forest_with(NONE["a column that is not there"])
    for _ in range(2):
        with pytest.raises(NoTrees):
            trees.take(spoiled)
    assert trees.sha256 == ""
