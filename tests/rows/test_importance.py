"""Permutation importance: scikit-learn's to the last digits, and of an institution none that few rows make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import permutation_importance
from sklearn.metrics import log_loss

from flfed import Study
from flfed.federation.engines.engine import find_sites
from flfed.rows.comparison.importance import PERMUTE, ColumnImportance, importances
from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.scoring import three_digits
from flfed.rows.features.encode import encode, input_names, input_slices
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.seeds import generator
from flfed.summaries.summary import Encoder, fit_encoder
from tests.rows.test_compare import at_work

ASKED = "[compare]\nimportance = 4\n"
INDICATOR = "[encode]\nmissing-indicator = true\n"
COLUMNS = ["x1", "x2", "flag", "colour"]
VALUE, COMMONEST = (
    f"withheld: fewer than 10 rows with {what}" for what in ("one of its values", "other values than the commonest")
)
HISTOGRAM = "withheld: the histogram of predictions leaves"


@pytest.fixture
def asking(small_study: str) -> str:
    return small_study.replace("[compare]\n", ASKED)


def at_random(session: SiteSession, outputs: int = 1) -> dict[str, np.ndarray]:
    """A linear model in which every input counts."""
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(len(input_names(session.layout)), outputs))
    return {"weight": weight, "bias": rng.normal(size=outputs)}


def given(session: SiteSession, encoder: Encoder, *, person: np.ndarray | None = None) -> dict[str, ColumnImportance]:
    """The importances of a model at random, by column."""
    table = session.table.holdout("test")
    person = np.arange(len(table)) if person is None else person
    found = run_client(importances(session, table, person, at_random(session), encoder))
    assert [one.column for one in found] == COLUMNS
    assert all(np.isnan(one.increase) == bool(one.method) for one in found)
    return {one.column: one for one in found}


def permutations(session: SiteSession, rows: int, number: int) -> list[np.ndarray]:
    """The draws of one column, as the seeds of a run have them."""
    rng = generator(session.seed, site=session.site.name, purpose=PERMUTE, number=number)
    return [rng.permutation(rows) for _ in range(session.study.compare.importance)]


class Given(np.random.RandomState):
    """Draws of scikit-learn that shuffle each column by the permutations that are given."""

    def __init__(self, columns: list[list[np.ndarray]]) -> None:
        super().__init__(0)
        self._steps = self._shuffles(columns)

    def _shuffles(self, columns: list[list[np.ndarray]]) -> Iterator[np.ndarray]:
        for column in columns:
            # scikit-learn shuffles the column that it has shuffled before.
            before = np.arange(len(column[0]))
            for permutation in column:
                yield np.argsort(before)[permutation]
                before = permutation

    def randint(self, *args: object) -> Given:
        return self

    def shuffle(self, places: np.ndarray) -> None:
        places[:] = next(self._steps)


class OfTables(ClassifierMixin, BaseEstimator):
    """A linear model of mapped columns, as scikit-learn takes one."""

    def __init__(self, session: SiteSession, encoder: Encoder, arrays: dict[str, np.ndarray]) -> None:
        self.session, self.encoder, self.arrays = session, encoder, arrays
        self.classes_ = np.arange(max(session.classes, 2))

    def fit(self, X: pd.DataFrame, y: np.ndarray) -> OfTables:
        return self

    def outputs(self, X: pd.DataFrame) -> np.ndarray:
        rows = X.assign(**{self.session.schema.target: self.session.table.holdout("test")[self.session.schema.target]})
        return encode(rows, self.session.layout, self.encoder).x @ self.arrays["weight"] + self.arrays["bias"]

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        outputs = self.outputs(X)
        # Of two classes, the first has log-odds of 0.
        both = np.hstack([np.zeros_like(outputs), outputs]) if outputs.shape[1] == 1 else outputs
        odds = np.exp(both - both.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


def by_sklearn(session: SiteSession, encoder: Encoder, arrays: dict[str, np.ndarray], scoring: object) -> dict:
    """scikit-learn's figures on the holdout's own columns, with the draws of the run."""
    table = session.table.holdout("test")
    columns = list(input_slices(session.layout))
    draws = Given([permutations(session, len(table), number) for number in range(len(columns))])
    model, y = OfTables(session, encoder, arrays), session.target(table)
    found = permutation_importance(
        model, table[columns], y, scoring=scoring, n_repeats=session.study.compare.importance, random_state=draws
    )
    return dict(zip(columns, found.importances_mean.tolist(), strict=True))


@pytest.mark.parametrize("encoding", ["", INDICATOR])
def test_they_are_scikit_learns_on_the_columns_of_the_table(small_sites, asking, encoding):
    sessions, encoder = at_work(small_sites(2, rows=200), asking + encoding)
    for session in sessions:
        expected = by_sklearn(session, encoder, at_random(session), "neg_log_loss")
        found = given(session, encoder)
        assert {name: one.increase for name, one in found.items()} == pytest.approx(expected, rel=0, abs=1e-12)
        assert min(abs(value) for value in expected.values()) > 1e-3
    # Each site, column and repeat has draws of its own.
    draws = [permutations(session, 20, number)[0].tolist() for session in sessions for number in range(2)]
    assert len({tuple(draw) for draw in draws}) == 4


@pytest.mark.parametrize("wrong", ["inputs one by one", "shuffled columns stay"])
def test_another_way_of_shuffling_gives_other_figures(small_sites, asking, wrong):
    # The check above tells these two apart: they are off by far more than 1e-12.
    sessions, encoder = at_work(small_sites(1, rows=200), asking + INDICATOR)
    session, found = sessions[0], {}
    arrays, rows = at_random(session), session.encode(session.table.holdout("test"), encoder)
    sign = 2 * rows.y - 1

    def loss(x: np.ndarray) -> float:
        return float(np.log1p(np.exp(-sign * (x @ arrays["weight"] + arrays["bias"])[:, 0])).mean())

    before, x = loss(rows.x), rows.x.copy()
    for number, (name, place) in enumerate(input_slices(session.layout).items()):
        losses = []
        for permutation in permutations(session, len(rows), number):
            if wrong == "inputs one by one":
                each = []
                for one in range(place.start, place.stop):
                    x = rows.x.copy()
                    x[:, one] = rows.x[permutation, one]
                    each.append(loss(x) - before)
                losses.append(sum(each) + before)
            else:
                x[:, place] = rows.x[permutation, place]
                losses.append(loss(x))
        found[name] = np.mean(losses) - before
    expected = by_sklearn(session, encoder, arrays, "neg_log_loss")
    # Where a column has one input that differs from row to row, or comes first, the two are the same.
    differ = {"inputs one by one": {"x2", "colour"}, "shuffled columns stay": {"x2", "flag", "colour"}}
    assert {name for name in COLUMNS if abs(found[name] - expected[name]) > 1e-4} == differ[wrong]


def test_their_mean_over_all_permutations_is_that_over_all_pairs_of_rows(small_sites, asking):
    # Over all permutations each row gets each row's value equally often: the mean of the loss over all pairs.
    sessions, encoder = at_work(small_sites(1, rows=200), asking.replace("= 4", "= 100"))
    session = sessions[0]
    arrays, rows = at_random(session), session.encode(session.table.holdout("test"), encoder)
    sign, found = 2 * rows.y - 1, given(session, encoder)
    odds = (rows.x @ arrays["weight"])[:, 0] + arrays["bias"]
    for name, place in input_slices(session.layout).items():
        part = (rows.x[:, place] @ arrays["weight"][place])[:, 0]
        pairs = np.log1p(np.exp(-sign[:, None] * (odds[:, None] - part[:, None] + part)))
        expected = pairs.mean() - np.log1p(np.exp(-sign * odds)).mean()
        # Each row's term is of a draw among its pairs; there are 100 permutations.
        error = np.sqrt(pairs.var(axis=1).mean() / len(rows) / 100)
        assert abs(found[name].increase - expected) < 4 * error
        # So a figure of 0, or of half the size, would be found out where the column counts for much.
        assert name == "flag" or 4 * error < 0.5 * abs(expected)


@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_of_several_classes_and_of_a_number_they_are_scikit_learns_too(name):
    study = Study.load(name).replace({"compare.importance": 3})
    session = SiteSession(find_sites(study)[0], study)
    encoder = fit_encoder(session.layout, session.exact_summary)
    table = session.table.holdout("test")
    arrays = at_random(session, session.classes if name == "wine" else 1)

    def half_squared_error(model: OfTables, X: pd.DataFrame, y: np.ndarray) -> float:
        return -0.5 * float(np.square(model.outputs(X)[:, 0] - session.encode(table, encoder).y).mean())

    def minus_log_loss(model: OfTables, X: pd.DataFrame, y: np.ndarray) -> float:
        return -log_loss(y, model.predict_proba(X), labels=model.classes_)  # the site's rows are not of all classes

    scoring = minus_log_loss if name == "wine" else half_squared_error
    expected = by_sklearn(session, encoder, arrays, scoring)
    found = run_client(importances(session, table, np.arange(len(table)), arrays, encoder))
    assert {one.column: one.increase for one in found} == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert len(expected) >= 10 and max(expected.values()) > 0.01


def test_who_asks_for_none_computes_nothing(small_sites, small_study):
    sessions, encoder = at_work(small_sites(1), small_study)
    table = sessions[0].table.holdout("test")
    assert list(importances(sessions[0], table, np.arange(len(table)), at_random(sessions[0]), encoder)) == []


def test_the_rows_and_the_model_are_as_they_were(small_sites, asking):
    sessions, encoder = at_work(small_sites(1, rows=100), asking)
    session = sessions[0]
    table, arrays = session.table.holdout("test"), at_random(session)
    x, before = session.encode(table, encoder).x, {name: value.copy() for name, value in arrays.items()}
    first = given(session, encoder)
    assert {name: one.increase for name, one in given(session, encoder).items()} == {
        name: one.increase for name, one in first.items()
    }
    np.testing.assert_array_equal(session.encode(table, encoder).x, x)
    assert all(np.array_equal(arrays[name], before[name]) for name in arrays)


def test_a_model_that_diverged_has_none_and_says_so(small_sites, asking):
    sessions, encoder = at_work(small_sites(1, rows=100), asking)
    table = sessions[0].table.holdout("test")
    arrays = {name: np.full_like(value, 1e308) for name, value in at_random(sessions[0]).items()}
    with torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
        found = run_client(importances(sessions[0], table, np.arange(len(table)), arrays, encoder))
    assert {one.method for one in found} == {"the scores are not finite"}


def methods(sites, text, **changes) -> dict[str, str]:
    sessions, encoder = at_work(sites, text)
    return {name: one.method for name, one in given(sessions[0], encoder, **changes).items()}


def test_an_institutions_figures_have_three_digits_and_an_open_sites_all(small_sites, asking):
    (exact, encoder), (rounded, _) = (
        at_work(small_sites(1, rows=400, policy=policy), asking) for policy in (Policy(disclosure="open"), Policy())
    )
    found = {place: given(sessions[0], encoder) for place, sessions in enumerate((exact, rounded))}
    for name in COLUMNS:
        assert found[1][name].increase == three_digits(found[0][name].increase) != found[0][name].increase


def changed(column: str, make):
    """A table in which one column has other values, made of the number of rows."""
    return lambda number, table: table.assign(**{column: make(len(table))})


def one_in(step: int, value, rest):
    return lambda rows: [value if row % step == 0 else rest for row in range(rows)]


@pytest.mark.parametrize(("column", "make", "why"), [
    # All but one row, or a few, share a value: shuffling it moves two rows, or a few.
    ("flag", one_in(1000, 1, 0), VALUE),
    ("flag", one_in(50, 1, 0), VALUE),
    ("flag", one_in(5, 1, 0), ""),
    ("colour", one_in(50, "red", "blue"), VALUE),
    # None of a value are few, too: a flag that nobody has, a colour that nobody has.
    ("flag", lambda rows: [0] * rows, VALUE),
    ("colour", one_in(3, "red", "blue"), VALUE),
    ("x1", one_in(1000, 1.0, 2.0), COMMONEST),
    ("x1", one_in(50, 1.0, 2.0), COMMONEST),
    ("x1", lambda rows: [2.0] * rows, COMMONEST),
    ("x1", lambda rows: [np.nan] * rows, COMMONEST),
    ("x1", one_in(5, 1.0, 2.0), ""),
    # Rows without a value are no other value, and whether there are few or none decides nothing.
    ("x1", one_in(3, np.nan, 2.0), COMMONEST),
    ("x1", lambda rows: [np.nan, *range(1, rows)][:rows], ""),
    ("flag", lambda rows: [np.nan, np.nan, *([0, 1] * rows)][:rows], ""),
    ("flag", one_in(20, np.nan, 0), VALUE),
])  # fmt: skip
def test_a_column_that_few_rows_make_stays(small_sites, asking, column, make, why):
    def change(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return (
            table.assign(**{column: np.clip(values, 0, 100) if column == "x1" else values})
            if (values := make(len(table)))
            else table
        )

    sites = small_sites(1, rows=400, policy=Policy(), change=change)
    rest = dict.fromkeys(COLUMNS, "")
    assert methods(sites, asking) == rest | {column: why}
    opened = small_sites(1, rows=400, policy=Policy(disclosure="open"), change=change)
    assert methods(opened, asking) == rest


def test_what_holds_back_all_columns(small_sites, asking):
    few = "withheld: fewer than 10 rows"
    sites = small_sites(1, rows=400, policy=Policy())
    assert set(methods(small_sites(1, rows=20, policy=Policy()), asking).values()) == {few}
    rare = small_sites(1, rows=400, policy=Policy(), change=changed("y", one_in(50, "yes", "no")))
    assert set(methods(rare, asking).values()) == {f"{few} of a class"}
    counted = small_sites(1, rows=400, policy=Policy(outputs=("score-histogram",)))
    assert set(methods(counted, asking).values()) == {HISTOGRAM}
    assert set(methods(sites, asking).values()) == {""}


def test_several_rows_of_one_person_are_one(small_sites, asking):
    sessions, encoder = at_work(small_sites(1, rows=400, policy=Policy()), asking)
    session = sessions[0]
    table = session.table.holdout("test")
    person, flagged = np.arange(len(table)), (table["flag"] == 1).to_numpy()
    found = given(session, encoder, person=np.where(flagged, np.arange(len(table)) % 9, 100 + person))
    assert {name: one.method for name, one in found.items()} == dict.fromkeys(COLUMNS, "") | {"flag": VALUE}
    found = given(session, encoder, person=person % 12)
    assert {one.method for one in found.values()} == {""}
    found = given(session, encoder, person=person % 9)
    assert {one.method for one in found.values()} == {"withheld: fewer than 10 rows of a class"}


def test_a_histogram_that_no_site_makes_holds_nothing_back():
    study = Study.load("diabetes").replace({"compare.importance": 1})
    site = find_sites(study)[0]
    session = SiteSession(replace(site, policy=Policy(outputs=("score-histogram",))), study)
    encoder, table = fit_encoder(session.layout, session.exact_summary), session.table.holdout("test")
    found = run_client(importances(session, table, np.arange(len(table)), at_random(session), encoder))
    assert {one.method for one in found} == {""} and len(found) == 10
