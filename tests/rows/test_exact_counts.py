"""Exact counts at thresholds and alert budgets: those of scikit-learn, and of an institution nothing small follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix

from flfed.rows.comparison.compare import compare
from flfed.rows.comparison.operating_points import CellSuppression, PointCounts, count_points, flagged_rows
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.features.encode import coded
from flfed.rows.features.summarise import grouped, layout_of
from flfed.rows.training.answer import run_client
from flfed.study.tables import Point
from tests.rows.test_compare import at_work, judged, model_of

LEAST = 10
POINTS: tuple[Point, ...] = (
    ("threshold", 0.5), ("threshold", 0.2), ("alert-budget", 0.1), ("threshold", 0.55), ("alert-budget", 0.3),
    ("threshold", 0.8),
)  # fmt: skip
ASKED = "[compare]\nthresholds = [0.7, 0.3, 0.71]\nalert-budgets = [0.2]\n"


def scored(rows: int, share: float, seed: int, digits: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < share).astype(int)
    y[:2] = [0, 1]
    return y, (1 / (1 + np.exp(-(rng.normal(size=rows) + 1.5 * y - 0.8)))).round(digits)


@pytest.mark.parametrize("digits", [9, 1], ids=["scores apart", "ties"])
def test_counts_are_those_of_scikit_learn_and_a_budget_is_never_exceeded(digits):
    y, score = scored(500, 0.3, 1, digits)
    for point, counts in zip(POINTS, count_points(POINTS, y, score), strict=True):
        ranked = np.sort(score)[::-1]
        if point[0] == "alert-budget":
            cut = next(value for value in np.unique(score) if (score >= value).sum() <= point[1] * 500 + 1e-9)
            assert not (score >= ranked[int(point[1] * 500)]).sum() <= point[1] * 500  # one more would be too many
        else:
            cut = point[1]
        tn, fp, fn, tp = confusion_matrix(y, score >= cut).ravel()
        assert (counts.tp, counts.fp, counts.fn, counts.tn) == (tp, fp, fn, tn)


def test_a_score_that_is_no_number_is_not_flagged():
    score = np.array([np.nan, 0.9, 0.1, np.nan])
    assert flagged_rows(score, ("threshold", 1e-9)).tolist() == [False, True, True, False]
    assert flagged_rows(score, ("alert-budget", 0.29)).sum() == 1


def suppression(y, score, table: pd.DataFrame, *, accuracy: bool = False, person=None) -> CellSuppression:
    schema = datasets.load("small").schema
    layout = layout_of(schema, schema.features(None))
    person = np.arange(len(y)) if person is None else person
    return CellSuppression(
        y=y, score=score, person=person, rows=coded(table, layout), layout=layout, minimum=LEAST, accuracy=accuracy
    )


def small_of(sets: Sequence[np.ndarray], groups: Sequence[np.ndarray] = ()) -> set[int]:
    """Try all sums and differences of up to four numbers that left, and of up to two with any groups of a column.

    Each of `sets` is which rows a number counts. A combination is a set of rows where each row is in it 0 times or
    once: return the sizes of those of 1 to 9 rows.
    """
    stack = np.unique(np.array(sets).astype(np.int8), axis=0)
    first, second = np.array(list(combinations(range(len(stack)), 2))).T
    two = [stack[first] + stack[second], stack[first] - stack[second], stack[second] - stack[first]]
    both = np.unique(np.concatenate([stack, *two]), axis=0)
    chosen = (np.arange(2 ** len(groups))[:, None] >> np.arange(len(groups))) & 1
    others = chosen @ np.array(groups).astype(np.int8) if len(groups) else both
    found: set[int] = set()
    for one in others.astype(np.int8):
        for combined in (both + one, both - one, one - both):
            sizes = combined.sum(axis=1)[((combined == 0) | (combined == 1)).all(axis=1)]
            found |= set(sizes[(sizes > 0) & (sizes < LEAST)].tolist())
    return found


def left_over(rule: CellSuppression, points: Sequence[PointCounts]) -> list[np.ndarray]:
    """Which rows each number counts that left: of the points, all rows and events, and a column's groups."""
    event = rule.y == 1
    found = [np.ones(len(event), bool), event, ~event]
    for point in points:
        if not point.method:
            flagged = flagged_rows(rule.score, (point.by, point.at))
            found += [flagged & event, flagged & ~event, ~flagged & event, ~flagged & ~event]
    return found


def columns_of(rule: CellSuppression) -> Iterator[list[np.ndarray]]:
    for column in rule.layout.features:
        codes = rule.rows.codes[column.name]
        groups = grouped(np.bincount(codes, minlength=len(column.cells)), column.kind, LEAST)
        yield [np.isin(codes, group) for group in groups]


def each_alone(rule: CellSuppression, points: Sequence[Point]) -> list[PointCounts]:
    """The planted fault: each table is looked at alone, as a reader first thinks of it."""
    found = count_points(points, rule.y, rule.score)
    return [replace(one, method="" if min(one.tp, one.fp, one.fn, one.tn) >= LEAST else "withheld") for one in found]


def trials() -> Iterator[tuple[CellSuppression, np.ndarray]]:
    for seed in range(18):
        rng = np.random.default_rng(100 + seed)
        rows = int(rng.integers(60, 400))
        table = pd.DataFrame({
            "person": [f"p{i}" for i in range(rows)], "x1": rng.uniform(0, 100, rows).round(1),
            "x2": rng.normal(size=rows).clip(-5, 5), "flag": rng.integers(0, 2, rows),
            "colour": rng.choice(["red", "green", "blue"], rows, p=[0.6, 0.34, 0.06]), "y": "no",
        })  # fmt: skip
        y, score = scored(rows, float(rng.uniform(0.2, 0.5)), seed)
        # Of every other one the model knows little more than one column, as of few features.
        if seed % 2:
            score = 1 / (1 + np.exp(-(1.5 * (table["colour"] == "red") + 2e-3 * rng.normal(size=rows) - 0.5)))
            score = np.where(rng.random(rows) < 0.03, 1 - score, score)
        yield suppression(y, np.asarray(score), table), rng.permutation(len(POINTS))


@pytest.mark.studies
@pytest.mark.usefixtures("small_sites")
def test_nothing_small_follows_from_all_that_left_by_any_sum_or_difference():
    some, faults = 0, 0
    for rule, order in trials():
        points = [POINTS[place] for place in order]
        found, careless = rule.leaving(points), each_alone(rule, points)
        some += sum(not one.method for one in found)
        assert small_of(left_over(rule, found)) == set()
        faults += bool(small_of(left_over(rule, careless)))
        for groups in columns_of(rule):
            assert small_of(left_over(rule, found), groups[:9]) == set()
        right = (rule.score > 0.5) == (rule.y == 1)
        if min(right.sum(), (~right).sum()) >= LEAST:  # else the accuracy stays
            strict = replace(rule, accuracy=True)
            assert small_of(left_over(rule, strict.leaving(points)), [right, ~right]) == set()
    assert some >= 12  # it does not keep back everything
    assert faults >= 6  # and the trial is one that the careless rule fails


def test_a_rule_that_forgets_the_sums_of_a_column_is_found_out(small_sites):
    # 60 red rows, 57 of them above all others: flagged at 0.5 are these alone, and red less flagged is 3 rows.
    rng = np.random.default_rng(0)
    red, rows = np.arange(200) < 60, 200
    score = np.where(red & (np.arange(200) >= 3), 0.9, 0.1) + 0.05 * rng.random(rows)
    y = np.arange(rows) % 2
    table = pd.DataFrame({
        "person": [f"p{i}" for i in range(rows)], "x1": rng.uniform(0, 100, rows), "x2": 0.5,
        "flag": rng.integers(0, 2, rows), "colour": np.where(red, "red", "green"), "y": "no",
    })  # fmt: skip
    rule = suppression(y, score, table)
    careless = each_alone(rule, [("threshold", 0.5)])
    assert careless[0].method == ""
    assert 3 in small_of(
        left_over(rule, careless), next(g for g in columns_of(rule) if g[0].sum() == 60 or g[-1].sum() == 60)
    )
    assert rule.leaving([("threshold", 0.5)])[0].method == f"withheld: a count of fewer than {LEAST} rows would follow"
    # With all red rows flagged the two are one set, and nothing follows from it.
    whole = suppression(y, np.where(red, 0.9, 0.1), table)
    assert whole.leaving([("threshold", 0.5)])[0].method == ""


def test_the_first_named_goes_before_one_too_close_to_it(small_sites):
    rng = np.random.default_rng(40)
    y, score = scored(400, 0.4, 4)
    table = pd.DataFrame({
        "person": [f"p{i}" for i in range(400)], "x1": rng.uniform(0, 100, 400), "x2": rng.normal(size=400),
        "flag": rng.integers(0, 2, 400), "colour": rng.choice(["red", "green"], 400), "y": "no",
    })  # fmt: skip
    rule = suppression(y, score, table)
    near = [("threshold", 0.4), ("threshold", 0.41)]
    assert [not one.method for one in rule.leaving(near)] == [True, False]
    assert [not one.method for one in rule.leaving(near[::-1])] == [True, False]
    # Accuracy tells of calls at a half: a threshold of exactly that is the same cut, one near it is not.
    rule = suppression(y, score, table, accuracy=True)
    assert [not one.method for one in rule.leaving([("threshold", 0.51), ("threshold", 0.5)])] == [False, True]


def plain_table(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """A table of "small" whose columns tell nothing of the outcome, with a person a row."""
    return pd.DataFrame({
        "person": [f"p{i}" for i in range(rows)], "x1": rng.uniform(0, 100, rows), "x2": rng.normal(size=rows),
        "flag": rng.integers(0, 2, rows), "colour": rng.choice(["red", "green"], rows), "y": "no",
    })  # fmt: skip


def test_a_rule_that_forgets_the_accuracy_is_found_out(small_sites):
    # At 0.45 three rows with the outcome are flagged more than at a half: right calls less tp and tn are these three.
    score = np.concatenate([np.linspace(0.1, 0.4, 60), np.linspace(0.6, 0.9, 40)] * 2)
    y = np.repeat([0, 1], 100)
    score[[100, 101, 102]] = 0.47
    rng = np.random.default_rng(1)
    table = plain_table(200, rng)
    right = (score > 0.5) == (y == 1)
    rule, point = suppression(y, score, table), ("threshold", 0.45)
    assert rule.leaving([point])[0].method == ""
    assert small_of(left_over(rule, rule.leaving([point])), [right, ~right]) == {3}
    assert replace(rule, accuracy=True).leaving([point])[0].method != ""
    assert replace(rule, accuracy=True).leaving([("threshold", 0.5)])[0].method == ""


def test_of_a_rare_outcome_counts_leave_where_nobody_is_called_positive_at_a_half(small_sites):
    y, score = scored(2000, 0.05, 4)
    score = score * 0.4
    rng = np.random.default_rng(40)
    table = plain_table(2000, rng)
    rule = suppression(y, score, table, accuracy=True)
    (found,) = rule.leaving([("alert-budget", 0.2)])
    assert found.method == "" and found.tp + found.fp == 400
    assert small_of(left_over(rule, [found]), [y == 0, y == 1]) == set()  # the right calls are all without the outcome


def test_several_rows_of_one_person_hide_nobody(small_sites):
    y, score = scored(400, 0.4, 4)
    rng = np.random.default_rng(40)
    table = pd.DataFrame({
        "person": [f"p{i}" for i in range(400)], "x1": rng.uniform(0, 100, 400), "x2": rng.normal(size=400),
        "flag": rng.integers(0, 2, 400), "colour": rng.choice(["red", "green"], 400), "y": "no",
    })  # fmt: skip
    few = np.where((y == 1) & (score < 0.4), 0, np.arange(400))  # the missed events are all of one person
    assert suppression(y, score, table).leaving([("threshold", 0.4)])[0].method == ""
    assert suppression(y, score, table, person=few).leaving([("threshold", 0.4)])[0].method != ""


def points_of(small_sites, text: str, policy: Policy | None, *, may: bool = True, rows: int = 800):
    """The points of a site's comparison, its predictions and outcomes."""
    sites = small_sites(1, rows=rows, policy=policy)
    work, _, scores = judged(sites, text)
    sessions, encoder = at_work(sites, text)
    sessions[0].counts_may_leave = lambda *, claim: may
    found = run_client(compare(sessions[0], model_of(sessions[0], encoder), encoder))
    return found, scores["global"], work.target(work.table.holdout("test"))


@pytest.fixture
def asking(small_study: str) -> str:
    return small_study.replace("[compare]\n", ASKED)


def test_an_open_site_gives_all_and_they_are_those_of_scikit_learn(small_sites, asking):
    found, score, y = points_of(small_sites, asking, None, may=False)
    assert [(one.by, one.at) for one in found.points] == [
        ("threshold", 0.7), ("threshold", 0.3), ("threshold", 0.71), ("alert-budget", 0.2),
    ]  # fmt: skip
    for one in found.points:
        cut = one.at if one.by == "threshold" else np.sort(score)[::-1][int(0.2 * len(y)) - 1]
        tn, fp, fn, tp = confusion_matrix(y, score >= cut).ravel()
        assert (one.tp, one.fp, one.fn, one.tn) == (tp, fp, fn, tn)


def test_an_institution_gives_large_ones_and_says_why_others_stay(small_sites, asking):
    found, score, y = points_of(small_sites, asking, Policy())
    given = {(one.by, one.at): one for one in found.points if not one.method}
    assert ("threshold", 0.7) in given and ("threshold", 0.71) not in given
    for one in found.points:
        if one.method:
            assert (one.tp, one.fp, one.fn, one.tn) == (-1, -1, -1, -1)
            assert one.method == "withheld: a count of fewer than 10 rows would follow"
        else:
            assert min(one.tp, one.fp, one.fn, one.tn) >= 10
            assert one.tp + one.fn == (y == 1).sum()


@pytest.mark.parametrize(("policy", "claim", "text", "why"), [
    (Policy(), False, "", "exact counts, importances or figures by group of these rows left in another run"),
    (Policy(outputs=("score-histogram",)), True, "", "the histogram of predictions leaves"),
    (Policy(), True, "alert-budget = 0.3\n", "another count of these rows leaves"),
    (Policy(cell_minimum=200), True, "", "fewer than 200 rows of a class"),
])  # fmt: skip
def test_an_institution_gives_none_beside_what_would_part_them(small_sites, asking, policy, claim, text, why):
    found, *_ = points_of(small_sites, asking.replace("[compare]\n", f"[compare]\n{text}"), policy, may=claim)
    assert {one.method for one in found.points} == {f"withheld: {why}"}
    assert {one.tp for one in found.points} == {-1}


def test_a_study_that_names_none_has_none(small_sites, small_study):
    assert list(points_of(small_sites, small_study, None)[0].points) == []
