"""How a tree grows of sums: against sums and splits by hand, and on tables that have nothing to split."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.tree import DecisionTreeRegressor

from flfed.rows.statistics import boosted_trees as half
from flfed.rows.statistics.boosted_trees import CodedRows
from flfed.trees.cut_points import codes_of, cut_points, fine_edges, merged_codes
from flfed.trees.forest import UNIT, GrowingTree, Tree, TreeSettings, best_splits, contributions, margins
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


@pytest.mark.parametrize("most_cells", [0, half.MOST_CELLS])
@pytest.mark.parametrize("chunk", [7, half.CHUNK])
@pytest.mark.parametrize("bundled", [False, True])
def test_a_sites_sums_are_those_of_its_rows(
    chunk: int, most_cells: int, bundled: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(half, "CHUNK", chunk)
    monkeypatch.setattr(half, "MOST_CELLS", most_cells)
    monkeypatch.setattr(half, "BLOCK", 50)
    rows = drawn()
    of_site = CodedRows(rows.codes, rows.widths, bundled=bundled)
    slope, curvature = half.gradients(np.zeros((len(rows.y), 1)), rows.y, rows.task)
    both = slope[:, 0] + 1j * curvature[:, 0]
    node = np.random.default_rng(1).integers(0, 5, len(rows.y))
    for at, asked in ((node, [3, 1]), (np.zeros_like(node), [0])):
        found = half.node_sums(of_site, at, np.array(asked), both, counted=True)
        assert found.dtype == np.int64
        for of_node, number in zip(found, asked, strict=True):
            assert (of_node[:, :2] == sums_of(rows, at == number)).all()
            assert of_node[: rows.widths[0], 2].sum() == (at == number).sum()


def test_columns_whose_codes_go_together_are_looked_up_as_one_with_the_same_sums():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 6, 4000)
    apart = rng.integers(0, 64, (2, 4000))
    codes = np.stack([apart[0], first, (first + rng.integers(0, 2, 4000)) % 6, apart[1], first // 2]).astype(np.uint8)
    widths = np.array([65, 7, 7, 65, 4])
    bundled, alone = CodedRows(codes, widths), CodedRows(codes, widths, bundled=False)
    # Rows have 12 combinations of three columns, and too many of the two that are drawn apart.
    assert [bundle.codes.shape for bundle in bundled.bundles] == [(3, 12), (1, 65), (1, 65)]
    assert bundled.bundles[0].columns == [4, 1, 2] and alone.bundles == []
    node = rng.integers(0, 3, 4000)
    both = rng.integers(-(2**30), 2**30, 4000) + 1j * rng.integers(0, 2**28, 4000)
    asked = np.array([1, 2])
    for counted in (False, True):
        wanted = half.node_sums(alone, node, asked, both, counted=counted)
        assert half.node_sums(bundled, node, asked, both, counted=counted).tobytes() == wanted.tobytes()
        # Combinations of other rows give other sums: bundles are in use here.
        of_others = replace(bundled.bundles[0], combination=np.roll(bundled.bundles[0].combination, 1))
        wrong = CodedRows(codes, widths)
        wrong.bundles[0] = of_others
        assert (half.node_sums(wrong, node, asked, both, counted=counted) != wanted).any()


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


def walk(tree: Tree, codes: np.ndarray, missing: np.ndarray) -> list[int]:
    """Return each row's leaf, row by row and split by split."""
    leaves = []
    for row in codes.T:
        node = 0
        while (column := tree.column[node]) >= 0:
            goes_left = row[column] <= tree.code[node]
            if row[column] == missing[column]:
                goes_left = tree.missing_left[node]
            node = tree.left[node] + (not goes_left)
        leaves.append(node)
    return leaves


def test_rows_come_to_the_same_leaves_from_the_root_and_from_the_level_before():
    rows = drawn()
    missing = rows.widths - 1
    slope, curvature = half.gradients(np.zeros((len(rows.y), 1)), rows.y, rows.task)
    of_site = CodedRows(rows.codes, rows.widths)
    trees = []
    for seed in (0, 1):
        both = np.random.default_rng(seed).permutation(slope[:, 0] + 1j * curvature[:, 0])
        growing = GrowingTree(rows.widths, TreeSettings(depth=4))
        trees.append([growing.tree])
        while len(growing.requested_nodes):
            node = growing.tree.leaves(rows.codes, missing)
            growing.grow(half.node_sums(of_site, node, growing.requested_nodes, both))
            trees[-1].append(growing.tree)
    assert any(tree.missing_left.any() for levels in trees for tree in levels)
    for levels, others in (trees, trees[::-1]):
        node, before = np.zeros(len(rows.y), dtype=np.int64), levels[0]
        for tree in levels[1:]:
            wanted = walk(tree, rows.codes, missing)
            node = tree.leaves(rows.codes, missing, node, before)
            before = tree
            assert node.tolist() == wanted == tree.leaves(rows.codes, missing).tolist()
            # From the nodes of another tree rows begin at the root again.
            elsewhere = others[2].leaves(rows.codes, missing)
            assert tree.leaves(rows.codes, missing, elsewhere, others[2]).tolist() == wanted
    only_missing = replace(trees[0][1], code=np.full(3, -1), missing_left=np.ones(3, dtype=bool))
    assert only_missing.leaves(rows.codes, missing).tolist() == walk(only_missing, rows.codes, missing)


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
