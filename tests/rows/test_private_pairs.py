"""Pairs won by one model minus another: their numbers, what one person moves them by, and what a training row does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from flfed.rows.evaluation.delong import delong
from flfed.rows.statistics.noised_counts import SENSITIVITIES, SENSITIVITY, STEP, pair_numbers, pair_query
from flfed.rows.training.private_noise import SeededNoise, SystemNoise
from flfed.summaries.noised_scores import SQUARES_WEIGHT, pair_scale

Numbers = Callable[[np.ndarray], np.ndarray]
"""Of a table [rows, 3]: outcome, score of the shared model, score of the own one."""


def of_table(table: np.ndarray) -> np.ndarray:
    return pair_numbers(*table.T)


def pairs_one_by_one(table: np.ndarray) -> tuple[int, int, float, float]:
    """Return class sizes, pairs won minus pairs won, and squared parts, by a look at each pair."""
    events, others = table[table[:, 0] == 1], table[table[:, 0] == 0]
    ahead = np.sign(events[:, None, 1:] - others[None, :, 1:]) / 2
    won = ahead[..., 0] - ahead[..., 1]
    squares = (won.sum(axis=1) ** 2).sum() + (won.sum(axis=0) ** 2).sum()
    return len(events), len(others), float(won.sum()), float(squares)


def unscaled(table: np.ndarray) -> np.ndarray:
    return np.array([pairs_one_by_one(table)[2], 0.0])


def over_the_larger_class(table: np.ndarray) -> np.ndarray:
    """Return both numbers over the larger class as it is, which is private too and moves."""
    events, others, won, squares = pairs_one_by_one(table)
    larger = max(events, others, 1)
    return np.array([won / larger, SQUARES_WEIGHT * squares / larger**2])


def drawn(rows: int, seed: int, levels: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    outcomes = (rng.random(rows) < 0.25).astype(float)
    scores = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], rows) + outcomes[:, None] * [1.1, 0.9]
    return np.column_stack([outcomes, np.round(scores * levels) / levels if levels else scores])


@pytest.mark.parametrize("levels", [0, 2], ids=["no ties", "ties"])
def test_numbers_are_those_of_each_pair_and_their_difference_is_scikit_learns(levels: int):
    table = drawn(1200, 1, levels)
    events, others, won, squares = pairs_one_by_one(table)
    found = of_table(table)
    assert found[0] == pytest.approx(won * pair_scale(events, others), abs=STEP)
    assert found[1] == pytest.approx(SQUARES_WEIGHT * squares / 1200**2, abs=STEP)
    aucs = [roc_auc_score(table[:, 0], table[:, column]) for column in (1, 2)]
    assert won / (events * others) == pytest.approx(aucs[0] - aucs[1], abs=1e-12)
    # Without its mean it is DeLong's, but for n - 1 in place of n.
    covariance = delong(table[:, 0], table[:, 1:].T)[1]
    expected = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    variance = (squares - won**2 * (1 / events + 1 / others)) / (events * others) ** 2
    assert variance == pytest.approx(expected, rel=2 / events)


def small_moves(numbers: Numbers) -> np.ndarray:
    """Return the most that a further row moves either number of any table of up to five rows, with scores 0 and 1."""
    kinds, moved = np.array(list(product((0, 1), repeat=3)), dtype=float), np.zeros(2)
    for rows in range(6):
        for table in combinations_with_replacement(kinds, rows):
            before = numbers(np.array(table).reshape(-1, 3))
            for kind in kinds:
                moved = np.maximum(moved, np.abs(numbers(np.array([*table, kind])) - before))
    return moved


def extreme_moves(numbers: Numbers) -> np.ndarray:
    """Return the same of tables of which one model wins some of the events' pairs, and loses others, all."""
    moved = np.zeros(2)
    for events, others in product((1, 3, 10, 20, 40), repeat=2):
        for losing in {0, events // 4, events // 2, events}:
            table = np.zeros((events + others, 3))
            table[:events] = [1, 1, -1]
            table[:losing, 1:] = [-1, 1]
            before = numbers(table)
            for kind in ([1, -1, 1], [1, 1, -1], [0, -2, 2], [0, 2, -2]):
                moved = np.maximum(moved, np.abs(numbers(np.vstack([table, kind])) - before))
    return moved


@pytest.mark.studies
def test_a_row_moves_neither_number_by_more_than_is_charged_and_close_to_it_by_some():
    found = np.maximum(small_moves(of_table), extreme_moves(of_table))
    assert (found <= SENSITIVITIES).all()
    assert (found >= np.array([0.95, 0.9 * SQUARES_WEIGHT])).all()
    assert pytest.approx(np.hypot(*SENSITIVITIES)) == SENSITIVITY


def test_a_scale_without_its_proof_lets_a_row_move_more_than_is_charged():
    # As many events as others, all won, and one more event that loses all: m^2 / m goes to (m^2 - m) / (m + 1).
    assert extreme_moves(over_the_larger_class)[0] > 1.9
    assert extreme_moves(over_the_larger_class)[1] > 2 * SQUARES_WEIGHT
    assert extreme_moves(unscaled)[0] == 40


def test_the_scale_moves_by_no_more_than_a_growing_class_may_move_it():
    # Both bounds of the proof, for pairs that are all won or lost as far as they are not cut.
    first, second = np.meshgrid(np.linspace(5, 400, 60), np.linspace(5, 400, 60))
    scale, step = np.vectorize(pair_scale), 1e-4
    before, most = scale(first, second), first * second / 2
    moved = second * before + most * np.abs(scale(first + step, second) - before) / step
    assert 0.99 < moved.max() <= 1 + 1e-5
    # Cut at the whole of it, as a difference of AUCs is by itself, it would be 1.2 at classes of equal size.
    assert (moved + most * np.abs(scale(first + step, second) - before) / step).max() > 1.15


def test_rows_of_one_person_weigh_one_together():
    table, persons = drawn(400, 3), np.arange(400)
    twice, both = np.repeat(table, 2, axis=0), np.repeat(persons, 2)
    np.testing.assert_allclose(pair_numbers(*twice.T, persons=both), of_table(table), atol=2 * STEP)
    # Forty rows of one person, events and others, that the own model orders as wrongly as can be.
    of_one = np.column_stack([np.arange(40) % 2, 9.0 * (np.arange(40) % 2), -9.0 * (np.arange(40) % 2)])
    whole, codes = np.vstack([table, of_one]), np.append(persons, np.full(40, 400))
    moved = np.abs(pair_numbers(*whole.T, persons=codes) - of_table(table))
    assert (moved <= SENSITIVITIES).all() and moved[0] > 0.1
    assert np.abs(of_table(whole) - of_table(table))[0] > 4


def test_more_rows_of_a_person_do_not_make_the_difference_look_more_certain():
    # Five rows a person, of one outcome and alike: the variance of the sum of parts is that of 100 persons, not of 500.
    people = drawn(100, 4)
    rows = np.repeat(people, 5, axis=0)
    rows[:, 1:] += np.random.default_rng(5).normal(0, 0.05, (500, 2))
    by_person = pair_numbers(*rows.T, persons=np.repeat(np.arange(100), 5))
    assert by_person[1] == pytest.approx(of_table(people)[1], rel=0.15)


def test_an_answer_lies_on_the_steps_and_neighbours_at_most_as_far_apart_as_is_charged():
    query, table = pair_query(2.0), drawn(300, 6)
    answer = query.answer(of_table(table), SystemNoise())
    assert (answer == np.floor(answer / STEP) * STEP).all()
    neighbour = np.vstack([table, [1, -9, 9]])
    apart = np.linalg.norm(of_table(neighbour) - of_table(table)) / query.deviation
    assert 0.2 / 2.0 < apart <= 1 / 2.0
    repeats = np.tile(of_table(table), (20_000, 1))
    drawn_answers = query.answer(repeats, SeededNoise(np.random.default_rng(7)))
    np.testing.assert_allclose((drawn_answers - repeats).std(axis=0), 2.0 * SENSITIVITY, rtol=0.02)


def test_tables_of_one_class_or_none_and_scores_that_are_no_numbers_have_numbers():
    assert pair_numbers(np.array([]), np.array([]), np.array([])).tolist() == [0.0, 0.0]
    for outcome in (0.0, 1.0):
        assert pair_numbers(np.full(3, outcome), np.arange(3.0), np.zeros(3)).tolist() == [0.0, 0.0]
    lost, known = np.array([np.nan, 1.0, 2.0]), np.array([0.0, 1.0, 2.0])
    outcomes = np.array([1, 0, 1])
    assert pair_numbers(outcomes, lost, known).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="as many rows"):
        pair_numbers(outcomes, known, known[:2])


def own_scores(x: np.ndarray, y: np.ndarray, held_out: np.ndarray, penalty: float) -> np.ndarray:
    return LogisticRegression(C=penalty, max_iter=3000, tol=1e-8).fit(x, y).decision_function(held_out)


def test_one_training_row_moves_an_ordinary_own_model_by_more_than_is_charged():
    # Why exact figures of an own model stay at the site.
    x, y = load_breast_cancer(return_X_y=True)
    x, y, order = (x - x.mean(axis=0)) / x.std(axis=0), 1 - y, np.random.default_rng(0).permutation(len(y))

    def moves(rows: int, held_out: np.ndarray, penalty: float) -> np.ndarray:
        """Return what a row like another but for its outcome moves: score counts in L2, and the pair numbers."""
        train, found = order[:rows], []
        plain = own_scores(x[train], y[train], x[held_out], penalty)
        edges = np.quantile(plain, np.arange(1, 16) / 16)

        def counted(scores: np.ndarray) -> np.ndarray:
            return np.bincount(16 * y[held_out] + np.searchsorted(edges, scores), minlength=32)

        def numbers(scores: np.ndarray) -> np.ndarray:
            return pair_numbers(y[held_out], x[held_out, 7], scores)

        for row in train[:: rows // 20]:
            more = np.append(train, row)
            outcomes = np.append(y[train], 1 - y[row])
            scores = own_scores(x[more], outcomes, x[held_out], penalty)
            counts = np.linalg.norm(counted(scores) - counted(plain))
            found.append([counts, *np.abs(numbers(scores) - numbers(plain))])
        return np.array(found)

    usual = moves(398, order[398:], 1.0)
    assert np.median(usual[:, 0]) > 3  # where 1 is charged
    # Pairs move less, as 1 of them is a whole class of the holdout; yet nothing bounds them.
    few = moves(60, order[60:], 100.0)
    assert few[:, 1].max() > 3
