"""Too little training goes before every verdict, in the app, the report, the commands and the JSON."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flfed import Study, run
from flfed.records.document.document import document
from flfed.records.reports.narrative import doubts, verdict_in_words
from flfed.records.statistics.training_state import Fall, loss_fall, over_repeats, training_state
from flfed.records.store.entries import CurvePoint
from tests.records.test_dashboard import SITES, overview, words
from tests.rows.test_reference import crossed

AUC, LOSS = "roc_auc_score", "log_loss"
FIRST = "The shared model was not trained enough to be judged: try more rounds"


def ends(value: float) -> dict[str, float | None]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


CERTAIN = {"value": 0.998, "low": 0.9977, "high": 0.9983}
FALLING, FLAT = Fall(0.05, 2), Fall(0.01, 2)


@pytest.mark.parametrize(("fall", "beside", "enough", "by"), [
    (None, [], None, None), (FLAT, [], True, "loss"), (FALLING, [], False, "loss"),
    # The primary figure of a model on all rows decides where there is one, whatever the loss does.
    (FALLING, [(AUC, ends(0.80), 0.84)], True, "pooled"),
    (None, [(AUC, ends(0.80), 0.86)], False, "pooled"),
    (None, [(LOSS, ends(0.50), 0.44)], False, "pooled"),  # less is better
    # 0.999 lies beyond the interval of 0.998, but nearer than the minimum gain; 0.997 is farther from 0.9909.
    (None, [(AUC, CERTAIN, 0.999)], True, "pooled"), (Fall(0.3, 2), [(AUC, CERTAIN, 0.999)], True, "pooled"),
    (None, [(AUC, {"value": 0.9909, "low": 0.990, "high": 0.9918}, 0.997)], False, "pooled"),
    # Log loss beside it counts only while the training loss still falls.
    (FALLING, [(AUC, ends(0.80), 0.81), (LOSS, ends(0.50), 0.40)], False, "pooled"),
    (FLAT, [(AUC, ends(0.80), 0.81), (LOSS, ends(0.50), 0.40)], True, "pooled"),
    # Without an interval, or without the other figure, only the loss is left.
    (FLAT, [(AUC, {"value": 0.8, "low": None, "high": None}, 0.9)], True, "loss"),
    (FLAT, [(AUC, ends(0.8), None)], True, "loss"),
])  # fmt: skip
def test_what_a_state_is_known_by(fall, beside, enough, by):
    state = training_state(fall, beside)
    assert (state["enough"], state["by"]) == (enough, by)


def test_a_study_sets_the_distance_that_matters():
    beside = [(AUC, ends(0.80), 0.86)]
    assert training_state(None, beside, least={AUC: 0.009})["enough"] is False
    assert training_state(None, beside, least={AUC: 0.011})["enough"] is True  # 0.86 lies 0.01 beyond the interval
    assert training_state(None, [(AUC, CERTAIN, 0.999)], least={AUC: 0.0})["enough"] is False


def point(number: int, site: str | None, value: float | None) -> CurvePoint:
    return CurvePoint(round=number, site=site, arm="fit", value=value, low=None, high=None, variance=None)


def test_a_fall_is_from_one_fifth_of_the_rounds_to_the_last():
    found = loss_fall([point(number, "a", 1.0 - 0.04 * number) for number in range(1, 11)])
    # Rounds 7 and 8 have 0.70 on average, 9 and 10 0.62.
    assert found is not None and found.rounds == 2
    assert found.share == pytest.approx(0.08 / 0.70)
    assert loss_fall([point(1, "a", 0.5)]) is None
    assert loss_fall([point(1, "a", 0.5), point(2, "a", None)]) is None
    two = loss_fall([point(1, "a", 0.6), point(2, "a", 0.5)])
    assert two is not None and two.share == pytest.approx(1 / 6)


def test_who_is_drawn_for_a_round_moves_no_fall():
    rng = np.random.default_rng(0)
    levels = rng.normal(1, 0.1, size=10)
    for _ in range(50):
        drawn = [rng.choice(10, size=3, replace=False) for _ in range(40)]
        points = [point(number, f"s{site}", levels[site]) for number, some in enumerate(drawn, 1) for site in some]
        found = loss_fall(points)
        assert found is None or abs(found.share) < 1e-9
    # A loss of all sites together goes before theirs.
    both = [point(1, None, 0.8), point(2, None, 0.4), point(1, "a", 0.1), point(2, "a", 0.1)]
    assert loss_fall(both) == Fall(0.5, 1)


def test_a_loss_that_falls_by_a_fifth_is_too_little_training_whatever_a_figure_says():
    beside = [("r2_score", {"value": 0.9809, "low": 0.978, "high": 0.984}, 0.9832)]
    assert training_state(Fall(0.7, 1), beside)["by"] == "loss"
    assert training_state(Fall(0.19, 1), beside)["enough"] is True


def test_a_network_that_had_no_more_rounds_elsewhere_is_told_by_its_loss():
    beside = [(AUC, ends(0.80), 0.81)]
    assert training_state(FALLING, beside)["enough"] is True
    assert training_state(FALLING, beside, by_rounds=True)["by"] == "loss"
    assert training_state(FLAT, beside, by_rounds=True)["enough"] is True


def test_of_repeats_most_decide_and_figures_are_of_one_metric():
    enough, short, unknown = training_state(FLAT), training_state(FALLING), training_state(None)
    assert over_repeats([None]) is None
    assert over_repeats([unknown]) == unknown
    told = {
        name: over_repeats(states)
        for name, states in {
            "short": [short, short, enough], "even": [short, enough], "unknown": [None, unknown, enough],
        }.items()
    }  # fmt: skip
    assert {name: state["enough"] for name, state in told.items() if state} == {
        "short": False, "even": True, "unknown": True}  # fmt: skip
    by_auc = training_state(None, [(AUC, ends(0.70), 0.80)])
    by_loss = training_state(FALLING, [(AUC, ends(0.70), 0.70), (LOSS, ends(0.50), 0.40)])
    mixed = over_repeats([by_auc, by_loss, by_auc])
    assert mixed is not None and (mixed["metric"], mixed["shared"]) == (AUC, pytest.approx(0.70))


@pytest.fixture
def two_rounds(small_sites: Callable[..., Any], small_study: str) -> Any:
    """A run of a network with two rounds, at sites where trees find what it has not learned."""
    text = small_study.replace('name = "logistic"', 'name = "mlp"\nhidden = [8]')
    study = Study.parse(text).replace({"strategy.rounds": 2, "compare.site-model": "best"})
    return run(study, sites=small_sites(3, rows=900, change=crossed)).report


@pytest.mark.studies
def test_two_rounds_are_the_headline_everywhere_and_nobody_is_told_not_to_use_the_model(two_rounds, flfed):
    name = two_rounds["run"]
    assert two_rounds["training"]["enough"] is False
    assert verdict_in_words(two_rounds)[0].startswith(FIRST)
    assert {of["verdict"] for of in two_rounds["sites"].values()} == {"cannot be told"}
    code, said, _ = flfed("run", "show", name)
    assert code == 0 and said.count(FIRST) == 1 and "do not use" not in said
    assert said.index(FIRST) < said.index("Inconclusive at 3 of 3 sites")
    code, told, _ = flfed("run", "show", name, "--json")
    assert json.loads(told)["training"] == two_rounds["training"] and "do not use" not in told
    # A list has no headline, so each line has it beside its verdict, which is that of the page.
    code, listed, _ = flfed("run", "list")
    assert code == 0 and "not trained enough" in " ".join(listed.split()) and "do not use" not in listed
    page = document(name)
    assert FIRST in page and not re.search("do not use (the shared model|at)", page)
    shown = words(overview(name))
    assert shown.index(f"## {FIRST}") < shown.index("Inconclusive at 3 of 3 sites")
    sites = words(overview(name, SITES))
    assert "do not use the shared model" not in sites
    assert sites.index(f"### {FIRST}") < sites.index("### Inconclusive at site-0")


def test_a_column_that_gives_the_answer_away_is_the_headline_of_an_auc_of_one():
    found: dict[str, Any] = {"global": {AUC: {"value": 0.99997}}, "leaking-columns": ["slope"], "training": None}
    found |= {"sites": {}, "faults": []}
    assert doubts(found, AUC) == ["The AUC is 1.000: columns may reveal the outcome (slope)."]
    assert doubts(found | {"global": {AUC: {"value": 0.97}}}, AUC) == []
    assert doubts(found | {"leaking-columns": []}, AUC) == []
    many = doubts(found | {"leaking-columns": ["a", "b", "c", "d"]}, AUC)[0]
    assert many.endswith("(a, b, c and others).")


@pytest.mark.studies
def test_a_leak_is_found_and_is_the_headline(small_sites: Callable[..., Any], small_study: str):
    def leaking(_: int, table: Any) -> Any:
        return table.assign(x1=[60.0 if y == "yes" else 40.0 for y in table["y"]])

    study = Study.parse(small_study).replace({"compare.resamples": 200})
    found = run(study, sites=small_sites(3, rows=300, change=leaking)).report
    assert found["leaking-columns"] == ["x1"]
    assert "x1" in verdict_in_words(found)[0] and "reveal the outcome" in verdict_in_words(found)[0]
