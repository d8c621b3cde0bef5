"""How a tree grows of sums: against sums and splits by hand, and on tables that have nothing to split."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

from flfed.rows.statistics import boosted_trees as half
from flfed.trees.cut_points import codes_of, cut_points, fine_edges, merged_codes
from flfed.trees.forest import UNIT, GrowingTree, TreeSettings, best_splits, contributions, margins
from tests.boosting import Boosting, arrays_of

ONE_TREE = TreeSettings(depth=3, learning_rate=1.0, l2=0.0, min_child_weight=0.0)


def drawn(rows: int = 400, *, codes: tuple[int, ...] = (5, 9, 3), sites: int = 3, seed: int = 0) -> Boosting:
    """Return rows at sites, a tenth of whose values are missing; y follows the first two columns."""
    rng = np.random.default_rng(seed)
    widths = np.array(codes) + 1
    found = np.stack([rng.integers(0, width, rows) for width in codes])
    odds = found[0] - codes[0] / 2 + (found[1] > codes[1] / 2)
    y = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(int)
    found[rng.random(found.shape) < 0.1] = -1
    coded = np.where(found < 0, widths[:, None] - 1, found).astype(np.uint16)
    return Boosting("binary", coded, widths, y, rng.integers(0, sites, rows), rng.random(rows) < 0.8, 1)


def sums_of(rows: Boosting, at: np.ndarray) -> np.ndarray:
    """Return the sums of some rows before the first tree, cell by cell: [cells, 2]."""
    slope, curvature = half.gradients(np.zeros((len(rows.y), 1)), rows.y, rows.task)
    cells = []
    for column, width in enumerate(rows.widths):
        for code in range(width):
            here = at & (rows.codes[column] == code)
            cells.append([slope[here].sum(), curvature[here].sum()])
    return np.array(cells).astype(np.int64)


@pytest.mark.parametrize("chunk", [7, half.CHUNK])
def test_a_sites_sums_are_those_of_its_rows(chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(half, "CHUNK", chunk)
    rows = drawn()
    node = np.random.default_rng(1).integers(0, 5, len(rows.y))
    slope, curvature = half.gradients(np.zeros((len(rows.y), 1)), rows.y, rows.task)
    found = half.node_sums(rows.codes, rows.widths, node, np.array([3, 1]), slope[:, 0], curvature[:, 0])
    assert found.dtype == np.int64
    assert (found[0] == sums_of(rows, node == 3)).all() and (found[1] == sums_of(rows, node == 1)).all()


def test_gradients_are_those_of_the_losses_in_whole_units():
    rng = np.random.default_rng(0)
    score, y = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    step = 1e-6

    def loss(score: np.ndarray) -> np.ndarray:
        return np.log(np.exp(score).sum(axis=1)) - score[np.arange(50), y]

    slope, curvature = half.gradients(score, y, "multi-class")
    for output in range(3):
        moved = step * np.eye(3)[output]
        wanted = (loss(score + moved) - loss(score - moved)) / 2 / step
        assert slope[:, output] * UNIT == pytest.approx(wanted, abs=1e-8)
    p = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    assert curvature * UNIT == pytest.approx(2 * p * (1 - p), abs=1e-9)
    far = half.gradients(np.array([[0.0], [0.0], [0.0]]), np.array([-0.5, 0.05, 5.0]), "regression")
    assert (far[0][:, 0] * UNIT).tolist() == pytest.approx([0.5, -0.05, -1.0], abs=1e-9)
    assert (far[1] == 1 / UNIT).all()


def test_the_best_split_is_the_best_of_all_that_there_are():
    rows = drawn(150)
    found = best_splits(sums_of(rows, np.ones(150, dtype=bool))[None], rows.widths, replace(ONE_TREE, l2=1.0))
    slope, curvature = (part[:, 0] * UNIT for part in half.gradients(np.zeros((150, 1)), rows.y, rows.task))

    def score(rows_of: np.ndarray) -> float:
        return slope[rows_of].sum() ** 2 / (curvature[rows_of].sum() + 1.0)

    tried = {}
    for column, width in enumerate(rows.widths):
        missing = rows.codes[column] == width - 1
        for code in range(-1, width - 1):
            for missing_left in (False, True):
                left = np.where(missing, missing_left, rows.codes[column] <= code)
                if 0 < left.sum() < 150:
                    tried[column, code, missing_left] = score(left) + score(~left) - score(np.ones(150, dtype=bool))
    best = max(tried.values())
    chosen = (int(found.column[0]), int(found.code[0]), bool(found.missing_left[0]))
    assert tried[chosen] == pytest.approx(best, rel=1e-6) and float(found.gain[0]) == pytest.approx(best, rel=1e-6)


def test_a_tree_of_squared_errors_is_scikit_learns():
    rng = np.random.default_rng(3)
    codes = np.stack([rng.permutation(300) % 40, rng.integers(0, 30, 300)])
    y = np.sin(codes[0] / 6) + 0.3 * (codes[1] > 11) + rng.normal(0, 0.05, 300)
    y = y / 4  # over a range so wide that no gradient is cut
    rows = Boosting("regression", codes, np.array([41, 31]), y, np.zeros(300, int), np.ones(300, dtype=bool), 1)
    theirs = DecisionTreeRegressor(max_depth=3).fit(codes.T, y).predict(codes.T)
    # A leaf's value is the mean of its rows, as Newton's step from 0 is.
    assert margins(rows.grown(ONE_TREE, 1), codes, rows.widths - 1)[:, 0] == pytest.approx(theirs, abs=1e-8)


def test_a_site_that_is_lost_within_a_tree_leaves_its_rows_in_the_sibling():
    rows, settings = drawn(), replace(ONE_TREE, l2=1.0, depth=4)
    asked = []

    def losing(sums: list[np.ndarray], counts: list[int]) -> np.ndarray:
        asked.append(len(sums))
        return np.sum(sums if len(asked) < 3 else sums[1:], axis=0)

    lost = arrays_of(rows.grown(settings, 1, merge=losing))
    fewer, whole = (arrays_of(rows.grown(settings, 1, sites=sites)) for sites in ((1, 2), (0, 1, 2)))
    same = [all(lost[name].tobytes() == other[name].tobytes() for name in lost) for other in (fewer, whole)]
    assert same == [False, False]


ODD = {
    "one value": (np.zeros((1, 60)), np.array([2])), "nothing known": (np.full((1, 60), 3), np.array([4])),
    "three hundred categories": (np.arange(60)[None] * 5, np.array([301])),
    "one value, and gaps": (np.where(np.arange(60) % 3, 0, 1)[None], np.array([2])),
}  # fmt: skip


@pytest.mark.parametrize("task", ["binary", "multi-class", "regression"])
@pytest.mark.parametrize("name", ODD)
def test_a_column_with_little_in_it_gives_finite_trees(name: str, task: str):
    codes, widths = ODD[name]
    outputs = 3 if task == "multi-class" else 1
    y = np.arange(60) % max(outputs, 2)
    rows = Boosting(task, codes.astype(int), widths, y, np.arange(60) % 2, np.ones(60, dtype=bool), outputs)
    forest = rows.grown(TreeSettings(), 5)
    found = margins(forest, rows.codes, widths - 1)
    assert np.isfinite(found).all() and all(np.isfinite(value).all() for value in arrays_of(forest).values())
    parts = contributions(forest, rows.codes, widths - 1)
    assert np.abs(parts.sum(axis=2) - found).max() < 1e-9
    if name in ("one value", "nothing known"):
        assert all(len(tree.column) == 1 for trees in forest for tree in trees)


def test_a_site_of_one_class_and_one_without_rows_count_like_any():
    rows = drawn()
    rows = replace(rows, site=np.where(rows.y == 1, 0, 2))
    settings = TreeSettings()
    ours, pooled = (arrays_of(one.grown(settings, 5)) for one in (rows, rows.pooled()))
    assert all((ours[name] == pooled[name]).all() for name in pooled)
    one_class = replace(rows, y=np.ones_like(rows.y))
    assert np.isfinite(one_class.margins(one_class.grown(settings, 20))).all()


def test_no_child_has_less_than_the_min_child_weight():
    rows = drawn()
    (trees,) = rows.grown(TreeSettings(depth=6, min_child_weight=8.0), 1)
    tree = trees[0]
    leaf = tree.column < 0
    assert (tree.cover[1:] * UNIT >= 8.0).all() and (~leaf).sum() > 2
    assert tree.cover[leaf].sum() == tree.cover[0]


def test_only_the_smaller_child_is_asked_for():
    rows = drawn()
    growing = GrowingTree(rows.widths, TreeSettings(depth=3))
    growing.grow(sums_of(rows, np.ones(len(rows.y), dtype=bool))[None])
    (asked,) = growing.requested_nodes
    cover = growing.tree.cover
    assert cover[asked] == cover[1:3].min() and cover[1] + cover[2] == cover[0]


def test_fine_edges_follow_from_the_range_and_cut_points_from_the_counts():
    edges = fine_edges(-10.0, 1000.0)
    assert len(edges) == 1023 and (np.diff(edges) > 0).all() and edges[0] > -10 and edges[-1] < 1000
    assert len(fine_edges(1e6, 1e6 + 1)) < 30  # as many as float32 tells apart
    values = np.random.default_rng(0).lognormal(3, 1, 5000).clip(0, 1000)
    counts = np.bincount(codes_of(values, edges), minlength=1024)
    cuts = cut_points(edges, counts)
    shares = np.bincount(codes_of(values, cuts)) / 5000
    assert len(cuts) == 63 and np.abs(shares - 1 / 64).max() < 0.01
    few = np.array([1.0, 2.0, 2.0, 7.0])
    cuts = cut_points(edges, np.bincount(codes_of(few, edges), minlength=1024))
    assert codes_of(few, cuts).tolist() == [0, 1, 1, 2] and len(cuts) == 2
    assert len(cut_points(edges, np.zeros(1024, int))) == 0
    # A value at a cut point has the lower code, the next float32 the higher one.
    at = edges[500]
    above = np.nextafter(at, np.float32(np.inf))
    assert codes_of(np.array([at, above], float), edges).tolist() == [500, 501]


def test_codes_are_merged_until_each_has_rows_enough_and_two_outcomes():
    counts = np.array([[4, 0], [3, 5], [0, 0], [20, 0], [9, 9], [2, 1], [0, 3]])
    assert merged_codes(counts, least=10).tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert merged_codes(counts, least=1).tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert merged_codes(counts.sum(axis=1, keepdims=True), least=10).tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert merged_codes(np.array([[12, 3], [8, 9], [7, 6]]), least=10).tolist() == [0, 1, 2]
    assert merged_codes(np.array([[12, 3], [8, 9], [0, 0]]), least=10).tolist() == [0, 1, 2]
    assert merged_codes(np.array([[3, 0], [2, 0], [1, 0]]), least=10).tolist() == [0, 0, 0]
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.poisson(rng.gamma(0.5, 4, (rng.integers(2, 90), 2)))
        codes = merged_codes(counts, least=10)
        found = np.zeros((codes.max() + 1, 2))
        np.add.at(found, codes, counts)
        assert (np.diff(codes) >= 0).all() and len(found) <= 65
        if len(found) > 1:
            small = found[(found.sum(axis=1) < 10) | (found == 0).any(axis=1)]
            assert len(small) == 0 or (small.sum() == 0 and codes[-1] == codes.max())
