"""Trees of several sites are those of one table with all rows, and XGBoost's (FIGURES.md §C)."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import xgboost
from sklearn.metrics import roc_auc_score

from flfed.rows.features.encode import joined, plain_inputs
from flfed.rows.statistics import boosted_trees as half
from flfed.summaries.summary import arrays_sha256
from flfed.trees import cut_points
from flfed.trees.forest import UNIT, TreeSettings
from flfed.updates.aggregation.summer import Summer
from flfed.updates.masks.pairs import Exchange, mask
from flfed.updates.messages.secure_sum import Masked
from tests.boosting import Boosting, Forest, arrays_of, boosting_of, tables_of

pytestmark = [pytest.mark.slow, pytest.mark.studies]

STUDIES = {"heart-disease": 50, "breast-cancer": 50, "loan-default": 50, "taiwan-credit": 50, "wine": 6}
"""Rounds of trees by shipped study. Of wine, later trees have exact ties that float32 breaks in another way."""

BINARY = {"objective": "binary:logistic", "base_score": 0.5}


def hashed(forest: Forest) -> str:
    return arrays_sha256(arrays_of(forest))


@pytest.fixture
def tables(heart, taiwan, deliveries) -> Callable[..., Boosting]:
    """A function that returns a study's rows as codes."""
    return lambda name, seed=0, **more: boosting_of(*tables_of(name), seed, **more)


def xgboost_margins(rows: Boosting, settings: TreeSettings, rounds: int, inputs: np.ndarray, bins: int) -> np.ndarray:
    """Return XGBoost's scores of the rows that are not trained on."""
    several = rows.outputs > 1
    given = {
        "tree_method": "hist", "max_depth": settings.depth, "eta": settings.learning_rate, "reg_lambda": settings.l2,
        "min_child_weight": settings.min_child_weight, "max_bin": bins, "nthread": 1,
    }  # fmt: skip
    given |= {"objective": "multi:softprob", "base_score": 0.0, "num_class": rows.outputs} if several else BINARY
    train = xgboost.DMatrix(inputs[rows.training], rows.y[rows.training], nthread=1)
    trained = xgboost.train(given, train, rounds)
    scores = trained.predict(xgboost.DMatrix(inputs[~rows.training], nthread=1), output_margin=True)
    return np.asarray(scores, dtype=float).reshape(-1, rows.outputs)


@pytest.mark.parametrize("depth", [3, 6])
@pytest.mark.parametrize("study", STUDIES)
def test_sites_in_any_order_grow_the_trees_of_one_table_and_of_xgboost(study: str, depth: int, tables):
    rows, settings = tables(study), TreeSettings(depth=depth, learning_rate=0.3)
    forest = rows.grown(settings, STUDIES[study])
    assert hashed(forest) == hashed(rows.pooled().grown(settings, STUDIES[study]))
    assert hashed(forest) == hashed(rows.grown(settings, STUDIES[study], sites=[2, 0, 3, 1]))
    theirs = xgboost_margins(rows, settings, STUDIES[study], rows.inputs(), bins=512)
    assert np.abs(rows.margins(forest) - theirs).max() < 1e-5
    if study == "wine":
        assert sum(len(trees) for trees in forest) == 18


def masked_sum(sums: list[np.ndarray], rows: list[int]) -> np.ndarray:
    """Return what the server makes of the sites' sums under masks."""
    names = tuple(f"site-{place}" for place in range(len(sums)))
    secret_by_pair = {pair: secrets.token_bytes(32) for pair in combinations(names, 2)}
    exchange = Exchange("train", 1, "ab" * 32)
    sent = {}
    for name, own in zip(names, sums, strict=True):
        numbers = np.concatenate([np.ones(1, np.uint64), own.ravel().view(np.uint64)])
        peers = {(set(pair) - {name}).pop(): secret for pair, secret in secret_by_pair.items() if name in pair}
        sent[name] = Masked(
            vector=np.empty(0, np.uint32), sums=numbers + mask(name, peers, exchange, 0, numbers.size)[1]
        )
    assert not np.array_equal(sent[names[0]].sums[1:], sums[0].ravel().view(np.uint64))
    _, total = Summer(cohort=names, largest_entry=1.0).add(sent)
    return total.view(np.int64).reshape(sums[0].shape)


@pytest.mark.parametrize("depth", [3, 6])
@pytest.mark.parametrize(
    "study", [s if s in ("heart-disease", "wine") else pytest.param(s, marks=pytest.mark.proof) for s in STUDIES]
)
def test_masked_sums_of_sites_grow_the_trees_of_one_table(study: str, depth: int, tables):
    rows, settings = tables(study), TreeSettings(depth=depth, learning_rate=0.3)
    assert hashed(rows.grown(settings, 5, merge=masked_sum)) == hashed(rows.pooled().grown(settings, 5))


def unrounded(score: np.ndarray, y: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return gradients as they are, without the rounding that makes the order of adding immaterial."""
    slope = 1 / (1 + np.exp(-score)) - y[:, None]
    return slope / UNIT, (slope + y[:, None]) * (1 - slope - y[:, None]) / UNIT


def float_sums(of_site, node, asked, both, *, counted) -> np.ndarray:
    """Return a site's sums in float64, as they are added up where gradients are not rounded."""
    place = np.full(node.max() + 2, -1)
    place[asked[asked <= node.max()]] = np.flatnonzero(asked <= node.max())
    rows = np.flatnonzero(place[node] >= 0)
    cells = np.concatenate([[0], np.cumsum(of_site.widths)])
    found = np.zeros((len(asked), cells[-1], 2))
    for column, first in enumerate(cells[:-1]):
        at = place[node[rows]], first + of_site.codes[column, rows].astype(int)
        for kind, weight in enumerate((both.real, both.imag)):
            np.add.at(found[..., kind], at, weight[rows])
    return found


@pytest.mark.parametrize("study", ["loan-default", "taiwan-credit"])
def test_without_rounding_most_trees_depend_on_how_rows_are_cut_into_sites(study: str, tables, monkeypatch):
    rows, settings = tables(study), TreeSettings(depth=6, learning_rate=0.3)
    monkeypatch.setattr(half, "node_sums", float_sums)
    forests = [cut.grown(settings, 20, gradients=unrounded) for cut in (rows, rows.pooled())]
    same = [hashed([one]) == hashed([other]) for one, other in zip(*forests)]
    assert sum(same) < 10


def _unweighted(sums: list[np.ndarray], rows: list[int]) -> np.ndarray:
    parts = [found * (sum(rows) / len(rows) / count) for found, count in zip(sums, rows)]
    return np.rint(sum(parts)).astype(np.int64)


def _no_hessians(score, y, task):
    slope, _ = half.gradients(score, y, task)
    return slope, np.full_like(slope, 1 / UNIT)


def _half_hessians(score, y, task):
    slope, curvature = half.gradients(score, y, task)
    return slope, np.rint(curvature / 2)


def _margins(rows: Boosting, settings: TreeSettings, rounds: int, **more: object) -> np.ndarray:
    return rows.margins(rows.grown(settings, rounds, **more))


def _no_penalty(rows: Boosting, settings: TreeSettings, rounds: int) -> np.ndarray:
    return _margins(rows, replace(settings, l2=0.0), rounds)


def _missing_is_lowest(rows: Boosting, settings: TreeSettings, rounds: int) -> np.ndarray:
    codes = np.where(rows.codes == rows.widths[:, None] - 1, 0, rows.codes)
    return _margins(replace(rows, codes=codes), settings, rounds)


def _own_bins(rows: Boosting, settings: TreeSettings, rounds: int) -> np.ndarray:
    """Return scores where each site's codes are quantiles of its own rows."""
    layout, parts = tables_of("taiwan-credit")
    own = [boosting_of(layout, [part]) for part in parts]
    wide = np.max([found.widths for found in own], axis=0)
    codes = [np.where(o.codes == o.widths[:, None] - 1, wide[:, None] - 1, o.codes) for o in own]
    return _margins(replace(rows, codes=np.concatenate(codes, axis=1), widths=wide), settings, rounds)


def _two_classes(rows: Boosting, settings: TreeSettings, rounds: int) -> np.ndarray:
    return _margins(rows, settings, rounds) * [1, 1, 0]


WRONG: dict[str, tuple[str, Callable[[Boosting, TreeSettings, int], np.ndarray]]] = {
    "each site counts as one": ("heart-disease", partial(_margins, merge=_unweighted)),
    "no Hessians": ("heart-disease", partial(_margins, gradients=_no_hessians)),
    "no ridge penalty": ("heart-disease", _no_penalty),
    "missing as the lowest value": ("heart-disease", _missing_is_lowest),
    "bins of each site": ("taiwan-credit", _own_bins),
    "p (1 - p) for several classes": ("wine", partial(_margins, gradients=_half_hessians)),
    "a class's trees dropped": ("wine", _two_classes),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_moves_a_margin(wrong: str, tables):
    study, scores = WRONG[wrong]
    rows, settings = tables(study), TreeSettings(depth=4, learning_rate=0.3)
    rounds = min(STUDIES[study], 20)
    theirs = xgboost_margins(rows, settings, rounds, rows.inputs(), bins=512)
    assert np.abs(rows.margins(rows.grown(settings, rounds)) - theirs).max() < 1e-5
    assert np.abs(scores(rows, settings, rounds) - theirs).max() > 0.1


def test_the_wrong_one_of_equal_gains_moves_a_margin(tables, monkeypatch):
    rows, settings = tables("heart-disease"), TreeSettings(depth=6, learning_rate=0.3)
    theirs = xgboost_margins(rows, settings, 50, rows.inputs(), bins=512)
    monkeypatch.setattr(
        "flfed.trees.forest._first_of_best", lambda gain: gain.shape[1] - 1 - gain[:, ::-1].argmax(axis=1)
    )
    assert np.abs(_margins(rows, settings, 50) - theirs).max() > 0.05


def _even(edges: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
    return np.linspace(edges[0], edges[-1], most - 1).astype(np.float32)


def _averaged(rows: Boosting, settings: TreeSettings, rounds: int) -> np.ndarray:
    """Return the mean of the scores of each site's own trees, weighted by rows."""
    count = np.bincount(rows.site[rows.training])
    own = [rows.margins(rows.grown(settings, rounds, sites=[place])) for place in range(len(count))]
    return np.average(own, axis=0, weights=count)


def _without_the_first(rows: Boosting, settings: TreeSettings, rounds: int) -> np.ndarray:
    return rows.margins(rows.grown(settings, rounds, sites=range(1, int(rows.site.max()) + 1)))


def gained(tables, study: str, splits: int, scores=_margins, **more) -> float:
    """Return the mean AUC of 100 trees of depth 4, less that of XGBoost with bins of its own."""
    settings, found = TreeSettings(depth=4, learning_rate=0.1), []
    layout, parts = tables_of(study)
    inputs = plain_inputs(joined(parts), layout).astype(np.float32)
    for seed in range(splits):
        rows = tables(study, seed, **more)
        held = rows.y[~rows.training]
        theirs = xgboost_margins(rows, settings, 100, inputs, bins=256)
        found.append(roc_auc_score(held, scores(rows, settings, 100)) - roc_auc_score(held, theirs))
    return float(np.mean(found))


@pytest.mark.proof
@pytest.mark.parametrize(("study", "splits"), [
    ("heart-disease", 5), ("breast-cancer", 5), ("loan-default", 5), ("taiwan-credit", 3),
    ("scms-delivery", 5),
])  # fmt: skip
def test_trees_are_as_good_as_those_of_xgboost_with_bins_of_its_own(study: str, splits: int, tables):
    assert gained(tables, study, splits) >= -0.005


@pytest.mark.proof
def test_even_bins_averaged_trees_and_a_lost_site_are_worse(tables, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(cut_points, "cut_points", _even)
        even = gained(tables, "taiwan-credit", 3)
    averaged, lost = (
        gained(tables, "heart-disease", 5, _averaged), gained(tables, "heart-disease", 5, _without_the_first),
    )  # fmt: skip
    assert max(even, averaged, lost) < -0.005


@pytest.mark.proof
def test_of_late_deliveries_averaged_trees_and_a_lost_country_are_worse(tables):
    averaged, lost = (gained(tables, "scms-delivery", 5, scores) for scores in (_averaged, _without_the_first))
    assert max(averaged, lost) < -0.03  # found -0.059 and -0.057; the trees of all eight countries +0.001


def told(rows: Boosting, node: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return which rows lie in a node's cell whose rows all have one outcome, by counting."""
    found = np.zeros(len(rows.y), dtype=bool)
    at = np.flatnonzero(chosen)
    for code in rows.codes:
        _, cell = np.unique(node[at] * 10_000 + code[at], return_inverse=True)
        count, cases = np.bincount(cell), np.bincount(cell, weights=rows.y[at])
        found[at] |= ((cases == 0) | (cases == count))[cell]
    return found


def told_by_a_tree(rows: Boosting, settings: TreeSettings) -> tuple[int, int]:
    """Return how many rows' outcomes follow from the root's merged sums, and from those of all nodes of a tree."""
    tree, everyone = rows.grown(settings, 1)[0][0], np.ones(len(rows.y), dtype=bool)
    node = np.zeros(len(rows.y), dtype=np.int64)
    root = found = told(rows, node, everyone)
    for _ in range(settings.depth - 1):
        node = tree.step(node, rows.codes, rows.widths - 1)
        found = found | told(rows, node, everyone)
    return int(root.sum()), int(found.sum())


def test_with_least_rows_and_two_outcomes_a_code_no_outcome_follows_from_the_root_but_most_do_below(heart):
    layout, parts = tables_of("heart-disease")
    settings = TreeSettings(depth=4)
    plain = boosting_of(layout, parts, share=1.0)
    own = [int(told(plain, np.zeros(920, int), plain.site == place)[plain.site == place].sum()) for place in range(4)]
    assert own == [111, 135, 135, 118]  # of 303, 294, 200 and 123: what each site's first histogram tells
    merged = boosting_of(layout, parts, share=1.0, least=10)
    fewer = replace(settings, least_rows=10)
    assert told_by_a_tree(plain, settings)[0] == 126
    assert told_by_a_tree(boosting_of(layout, parts, share=1.0, least=10, outcomes=False), settings)[0] == 28
    root, whole = told_by_a_tree(merged, fewer)
    assert root == 0 and 700 < whole < told_by_a_tree(plain, settings)[1]  # found 752 and 794
    tree = merged.grown(fewer, 1)[0][0]
    leaves = np.bincount(tree.leaves(merged.codes, merged.widths - 1))
    assert leaves[leaves > 0].min() >= 10


@pytest.mark.proof
@pytest.mark.parametrize(("study", "splits"), [("heart-disease", 5), ("loan-default", 5), ("taiwan-credit", 3)])
def test_least_rows_and_two_outcomes_a_code_cost_no_auc(study: str, splits: int, tables):
    settings, found = TreeSettings(depth=4, learning_rate=0.1), []
    for seed in range(splits):
        plain, merged = tables(study, seed), tables(study, seed, least=10)
        held = plain.y[~plain.training]
        scores = [_margins(plain, settings, 100), _margins(merged, replace(settings, least_rows=10), 100)]
        found.append(roc_auc_score(held, scores[1]) - roc_auc_score(held, scores[0]))
    assert np.mean(found) >= -0.005
