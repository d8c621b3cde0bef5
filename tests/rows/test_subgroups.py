"""Figures within groups: those of scikit-learn on their rows, and of an institution none of few rows nor beside few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from flfed import Study, run
from flfed.deployment.gate.message_check import message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.errors import UsageError
from flfed.rows.comparison.compare import compare
from flfed.rows.comparison.subgroups import Grouping, GroupScores, groupings
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.intervals import estimate
from flfed.rows.evaluation.scoring import metrics_of
from flfed.rows.training.answer import run_client
from flfed.updates.aggregation.guard import comparison_defect
from flfed.updates.messages.compare import COMPARE, CompareReply, GroupFigure
from tests.approval_text import details
from tests.rows.test_compare import at_work, judged, model_of

ASKED = '[compare]\nsubgroups = ["colour", "flag", "x1 at 45, 55"]\n'
FEW = "withheld: fewer than 10 rows of a class"
LEFT = "withheld: what is left has fewer than 10 rows of a class"


@pytest.fixture
def asking(small_study: str) -> str:
    return small_study.replace("[compare]\n", ASKED)


def test_within_each_group_it_is_scikit_learns_on_the_groups_rows(small_sites, asking):
    sites = small_sites(1, rows=400)
    work, _, scores = judged(sites, asking)
    sessions, encoder = at_work(sites, asking)
    found = run_client(compare(sessions[0], model_of(sessions[0], encoder), encoder)).groups
    rows = work.table.holdout("test")
    y, score = work.target(rows), scores["global"]
    masks = {("colour", value): rows["colour"] == value for value in ("red", "green", "blue")}
    masks |= {("flag", value): rows["flag"] == int(value) for value in "01"}
    masks |= {("x1", "below 45"): rows["x1"] < 45, ("x1", "55 and above"): rows["x1"] >= 55}
    masks["x1", "45 to below 55"] = (rows["x1"] >= 45) & (rows["x1"] < 55)
    assert {(one.column, one.group) for one in found} == set(masks)
    for one in found:
        mask = masks[one.column, one.group].to_numpy()
        assert one.value == pytest.approx(roc_auc_score(y[mask], score[mask]))
        whole = estimate(metrics_of("binary")["roc_auc_score"], y[mask], score[mask], np.random.default_rng(0))
        assert (one.low, one.high, one.method) == pytest.approx((whole.low, whole.high, "DeLong"))
        assert one.low < one.value < one.high


def test_rows_without_a_value_are_in_no_group():
    table = pd.DataFrame({"age": [49.9, 50.0, np.nan, 70.0]})
    assert Grouping("age", ("below 50", "50 and above"), (50.0,)).of(table, None).tolist() == [0, 1, -1, 1]


def grouped(sizes: list[tuple[int, int]], policy: Policy, *, one_person: bool = False) -> dict[str, GroupFigure]:
    """The figures of groups with so many rows without and with the outcome, the last without a value."""
    y = np.concatenate([np.repeat([0, 1], pair) for pair in sizes])
    group = np.repeat([*range(len(sizes) - 1), -1], [sum(pair) for pair in sizes])
    rng = np.random.default_rng(3)
    score = np.clip(0.3 * y + rng.random(len(y)) * 0.7, 0, 1)
    person = np.where((group == 0) & (y == 1), 0, np.arange(len(y))) if one_person else np.arange(len(y))
    labels = tuple("abcdef"[: len(sizes) - 1])
    scores = GroupScores(y=y, score=score, person=person, policy=policy, draws=200)
    return {one.group: one for one in scores.figures(Grouping("column", labels), group, rng)}


def test_a_small_group_stays_and_so_does_one_from_which_it_would_follow():
    # Of three groups the last is small, and alone what is left: the smaller of the other two stays with it.
    found = grouped([(40, 30), (90, 60), (9, 40), (0, 0)], Policy())
    assert {name: one.method for name, one in found.items()} == {"a": LEFT, "b": "DeLong", "c": FEW}
    # With as many rows without a value nothing follows.
    found = grouped([(40, 30), (90, 60), (9, 40), (20, 20)], Policy())
    assert {name: one.method for name, one in found.items()} == {"a": "DeLong", "b": "DeLong", "c": FEW}
    # Few rows without a value are left alone where both groups leave.
    found = grouped([(40, 30), (90, 60), (3, 2)], Policy())
    assert {name: one.method for name, one in found.items()} == {"a": LEFT, "b": "DeLong"}
    found = grouped([(40, 30), (90, 60), (0, 0)], Policy())
    assert {name: one.method for name, one in found.items()} == {"a": "DeLong", "b": "DeLong"}


def test_what_is_left_beside_the_figures_that_leave_is_always_large():
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(300):
        sizes = [tuple(map(int, rng.integers(0, 30, 2))) for _ in range(int(rng.integers(3, 6)))]
        found = grouped(sizes, Policy())
        stay = [sizes[place] for place, one in enumerate(found.values()) if one.method.startswith("withheld")]
        rest = np.sum([*stay, sizes[-1]], axis=0)
        leave = [sizes[place] for place, one in enumerate(found.values()) if not one.method.startswith("withheld")]
        assert all(min(pair) >= 10 for pair in leave)
        assert not leave or rest.sum() == 0 or rest.min() >= 10
        told += len(leave)
    assert told > 100


def test_an_institutions_figures_have_three_digits_and_an_open_sites_all():
    sizes = [(40, 33), (91, 60), (0, 0)]
    exact, rounded = (grouped(sizes, policy) for policy in (Policy(disclosure="open"), Policy()))
    for name in exact:
        for key in ("value", "low", "high"):
            assert getattr(rounded[name], key) == float(f"{getattr(exact[name], key):.3g}")
            assert getattr(rounded[name], key) != getattr(exact[name], key)
    small = grouped([(3, 2), (0, 5), (1, 0)], Policy(disclosure="open"))
    assert 0 <= small["a"].value <= 1
    assert (np.isnan(small["b"].value), small["b"].method) == (True, "only one class in the holdout")


def test_several_rows_of_one_person_are_one():
    sizes = [(40, 30), (90, 60), (30, 30)]
    assert grouped(sizes, Policy())["a"].method == "DeLong"
    assert grouped(sizes, Policy(), one_person=True)["a"].method == FEW
    assert grouped(sizes, Policy(disclosure="open"), one_person=True)["a"].method == "bootstrap over groups"


@pytest.mark.parametrize(("by", "said"), [
    (["color"], "subgroups: column 'color' is not known; did you mean 'colour'?"),
    (["person"], "subgroups: column 'person' is not known"),
    (["x1"], "subgroups='x1' needs the beginnings of bands, such as subgroups = [\"x1 at 50, 65\"]"),
    (["x1 at 60, 50"], "needs rising numbers within 0 to 100"),
    (["x1 at 0, 50"], "needs rising numbers within 0 to 100"), (["x1 at nan"], "needs rising numbers within 0 to 100"),
    (["colour at 3"], "colour is a category, whose values are the groups"),
    (["x1 at 50", "x1 at 51"], "must name different columns"),
])  # fmt: skip
def test_what_cannot_be_grouped_by_is_refused_in_one_sentence(small_sites, by, said):
    small_sites(1)
    with pytest.raises(UsageError) as error:
        groupings(by, datasets.load("small").schema)
    assert said in str(error.value)


def test_the_record_has_them_by_site(small_sites, asking, small_study):
    sites = small_sites(3, rows=200)
    sites[1] = replace(sites[1], policy=Policy())
    result = run(Study.parse(asking), sites=sites).report
    found = result["subgroups"]
    assert (found["metric"], found["rows"], found["requested-sites"]) == ("roc_auc_score", "holdout", 3)
    assert sorted(found["sites"]) == ["site-01", "site-02", "site-03"]
    methods = {of["method"] for of in found["sites"]["site-02"]}
    assert methods <= {FEW, LEFT, "DeLong", "Hanley-McNeil"} and FEW in methods
    assert all((of["value"] is None) == of["method"].startswith("withheld") for of in found["sites"]["site-02"])
    assert all(of["value"] is not None for of in found["sites"]["site-03"])
    assert "subgroups" not in run(Study.parse(small_study), sites=small_sites(3)).report


def test_the_gate_lets_no_other_column_group_or_word_out(small_sites, asking):
    site = small_sites(1, rows=100, policy=Policy())[0]
    study = Study.parse(asking.replace('name = "small"\n[model]', 'name = "small"\nfeatures = ["x1", "x2"]\n[model]'))
    leaving = StudyMessages(study, datasets.load("small").schema, site).leaving(COMPARE)
    first = {"column": "colour", "group": "red", "value": 0.8, "low": 0.7, "high": 0.9, "method": "DeLong"}
    for changes, named in (
        ({}, ""), ({"column": "person"}, "'column'"), ({"group": "P0-0017"}, "'group'"),
        ({"value": float("inf")}, "'value'"), ({"method": "P0_0017"}, "'method'"),
    ):  # fmt: skip
        figure = GroupFigure(**{**first, **changes})
        reply = CompareReply(num_examples=9, holdout_rows=40, arms=(), differences=(), groups=(figure,))
        said = str(message_defect(reply.to_record(), leaving) or "")
        assert ("groups" in said and named in said) if named else said == ""
    words = " ".join(details(study, site, []))
    assert "With it, by colour; flag; x1 at 45, 55: how well the shared model ranks" in words
    assert "colour (for results by group only, not for the model: category, red, green, blue)" in words


@pytest.mark.parametrize(
    "changes", [{"value": 1.2, "high": 1.3}, {"low": 0.85}, {"low": float("nan")}, {"again": True}]
)
def test_an_area_that_cannot_be_is_a_fault(changes):
    first = {"column": "colour", "group": "red", "value": 0.8, "low": 0.7, "high": 0.9, "method": "DeLong"}
    sound = CompareReply(num_examples=9, holdout_rows=40, arms=(), differences=(), groups=(GroupFigure(**first),))
    assert comparison_defect(sound) is None
    again = changes.pop("again", False)
    groups = (GroupFigure(**{**first, **changes}),) * (2 if again else 1)
    assert comparison_defect(replace(sound, groups=groups)) is not None
