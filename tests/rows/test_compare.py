"""The judgement at a site equals direct computation, and withholds what may not leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from flfed.rows.comparison.arms import PAIRS, arm_scores, groups_of
from flfed.rows.comparison.compare import SiteComparison, compare
from flfed.rows.data.site import Policy, Site
from flfed.rows.evaluation.calibration import calibrate
from flfed.rows.features.encode import encode, joined
from flfed.rows.features.summarise import summarise
from flfed.rows.own_parts import own_intercept
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import run_client
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, fit_encoder, merge

Arrays = dict[str, np.ndarray]


def sigmoid(outputs: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-outputs))


def at_work(sites: list[Site], text: str) -> tuple[list[SiteSession], Encoder]:
    """Return the sites at work, and the encoder of all of them."""
    sessions = [SiteSession(site, Study.parse(text)) for site in sites]
    encoder = fit_encoder(sessions[0].layout, merge([summarise(w.table.training, w.layout) for w in sessions]))
    return sessions, encoder


def model_of(session: SiteSession, encoder: Encoder, bias: float = 0.2) -> Arrays:
    """Return a global model: x1 and x2 count, nothing else does."""
    inputs = session.training(encoder).x.shape[1]
    weight = np.zeros((inputs, 1))
    weight[:2, 0] = 0.9, 0.8
    return {"weight": weight, "bias": np.array([bias])}


def judged(sites: list[Site], text: str, place: int = 0, bias: float = 0.2) -> tuple[SiteSession, SiteComparison, Any]:
    """Return a site at work, its comparison, and its predictions by arm as the arms' own function gives them."""
    sessions, encoder = at_work(sites, text)
    work, arrays = sessions[place], model_of(sessions[place], encoder, bias)
    found = run_client(compare(work, arrays, encoder))
    return work, found, run_client(arm_scores(work, work.table.holdout("test"), arrays, encoder))


def test_the_global_arm_is_the_models_own_probability(small_sites, small_study):
    sessions, encoder = at_work(small_sites(2), small_study)
    work, arrays = sessions[0], model_of(sessions[0], encoder)
    holdout = work.table.holdout("test")
    x1, x2 = ((holdout[c] - encoder.center[k]) / encoder.scale[k] for k, c in enumerate(("x1", "x2")))
    expected = sigmoid(0.9 * x1 + 0.8 * x2.fillna(0) + 0.2)
    found = run_client(arm_scores(work, holdout, arrays, encoder))
    np.testing.assert_allclose(found["global"], expected, atol=1e-12)


def test_the_personalised_arm_moves_every_log_odds_by_the_sites_own_intercept(small_sites, small_study):
    sessions, encoder = at_work(small_sites(2), small_study)
    work, arrays = sessions[0], model_of(sessions[0], encoder)
    training = work.training(encoder)
    shift = own_intercept(training.x @ arrays["weight"] + arrays["bias"], training.y, "binary")
    found = run_client(arm_scores(work, work.table.holdout("test"), arrays, encoder))
    odds = {arm: np.log(p / (1 - p)) for arm, p in found.items()}
    np.testing.assert_allclose(odds["personalised"] - odds["global"], np.full(len(odds["global"]), shift[0]), atol=1e-9)
    assert abs(shift[0]) > 1e-3


def test_the_local_arm_is_the_sites_own_model_on_inputs_of_its_own_encoder(small_sites, small_study):
    sessions, encoder = at_work(small_sites(2), small_study)
    work = sessions[0]
    holdout = work.table.holdout("test")
    found = run_client(arm_scores(work, holdout, model_of(work, encoder), encoder))
    local = run_client(work.local_model())
    direct = sigmoid(local.outputs(work.encode(holdout, local.encoder).x)[:, 0])
    np.testing.assert_allclose(found["local-only"], direct, atol=1e-12)
    shared = sigmoid(local.outputs(work.encode(holdout, encoder).x)[:, 0])
    assert np.abs(shared - direct).max() > 1e-4


def test_every_figure_equals_scikit_learns_on_the_same_predictions(small_sites, small_study):
    work, found, scores = judged(small_sites(2), small_study)
    y = work.target(work.table.holdout("test"))
    direct = {"roc_auc_score": roc_auc_score, "log_loss": log_loss, "brier_score_loss": brier_score_loss}
    for metric, function in direct.items():
        for arm, p in scores.items():
            assert found.arms[metric][arm].value == pytest.approx(function(y, p), abs=1e-12)
    assert found.arms["accuracy_score"]["global"].value == np.mean((scores["global"] > 0.5) == y)


def test_every_difference_is_the_difference_of_its_two_arms(small_sites, small_study):
    _, found, _ = judged(small_sites(2), small_study)
    assert set(found.differences["roc_auc_score"]) == set(PAIRS)
    for metric, pairs in found.differences.items():
        for (a, b), difference in pairs.items():
            apart = found.arms[metric][a].value - found.arms[metric][b].value
            assert difference.value == pytest.approx(apart, abs=1e-12), (metric, a, b)
            if (a, b) != ("personalised", "global"):  # of equal ranking here, so that some have no interval
                assert difference.low <= difference.value <= difference.high
                assert 0 <= difference.p <= 1


def test_an_own_intercept_leaves_the_ranking_of_a_site_as_it_is(small_sites, small_study):
    _, found, _ = judged(small_sites(2), small_study)
    same = found.differences["roc_auc_score"]["personalised", "global"]
    assert (same.value, same.p, same.method) == (0.0, 1.0, "identical scores")


def test_an_own_intercept_helps_a_site_with_another_base_rate(small_sites, small_study):
    # Everybody's model says about a half; here nine rows of ten are positive, so that log loss can fall
    # from about 0.7 towards the entropy of 0.9, which is 0.325.
    def shifted(number: int, table: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng(5)
        table["y"] = np.where(rng.random(len(table)) < 0.9, "yes", "no")
        return table

    _, found, _ = judged(small_sites(2, rows=300, change=shifted), small_study, bias=-0.5)
    loss = {arm: estimate.value for arm, estimate in found.arms["log_loss"].items()}
    assert loss["global"] > 0.8
    assert loss["personalised"] < loss["global"] - 0.3
    gain = found.differences["log_loss"]["personalised", "global"]
    assert gain.high < -0.2


def test_a_site_with_one_class_has_no_auc_and_everything_else(small_sites, small_study):
    def one_class(number: int, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(y="no") if number == 0 else table

    _, found, scores = judged(small_sites(2, change=one_class), small_study)
    auc = found.arms["roc_auc_score"]
    assert {arm: np.isnan(estimate.value) for arm, estimate in auc.items()} == dict.fromkeys(scores, True)
    assert {estimate.method for estimate in auc.values()} == {"only one class in the holdout"}
    assert found.differences["roc_auc_score"]["global", "local-only"].method == "only one class in the holdout"
    y = np.zeros(found.holdout_rows, dtype=int)
    for arm, p in scores.items():
        direct = log_loss(y, p, labels=[0, 1])
        assert found.arms["log_loss"][arm].value == pytest.approx(direct, abs=1e-12)
    # local-only knows of no positive: the constant model with half a row added to each class
    rows = found.training_rows
    np.testing.assert_allclose(scores["local-only"], 0.5 / (rows + 1), rtol=1e-9)
    assert np.isfinite(found.differences["log_loss"]["global", "local-only"].value)


@pytest.mark.parametrize(("positives", "kept"), [(0.12, False), (0.5, True)])
def test_an_institution_with_few_positives_withholds_every_figure_and_says_so(
    small_sites, small_study, positives: float, kept: bool
):
    def rare(number: int, table: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng(number)
        return table.assign(y=np.where(rng.random(len(table)) < positives, "yes", "no"))

    work, found, _ = judged(small_sites(2, rows=150, policy=Policy(), change=rare), small_study)
    y = work.target(work.table.holdout("test"))
    assert (min(np.bincount(y)) >= 10) == kept
    loss = found.arms["log_loss"]["global"]
    assert np.isfinite(loss.value) == kept
    if kept:
        assert (found.note, work.is_judged, len(work._local)) == ("", True, 1)
        return
    figures = [e for arms in found.arms.values() for e in arms.values()]
    figures += [d for pairs in found.differences.values() for d in pairs.values()]
    numbers = [value for figure in figures for value in vars(figure).values() if not isinstance(value, str)]
    assert len(numbers) > 30
    assert np.isnan(numbers).all()
    assert {figure.method for figure in figures} == {"withheld: fewer than 10 rows of a class"}
    assert found.note == "withheld by the site's policy: fewer than 10 rows of a class"
    assert found.histogram is None
    # No figure of them may leave, so that no model of the site's own was tuned.
    assert (work.is_judged, work._local, found.own_family) == (False, {}, None)


def test_an_institution_gives_a_histogram_only_where_its_policy_names_it(small_sites, small_study):
    for policy, given in ((Policy(), False), (Policy(outputs=("score-histogram",)), True)):
        _, found, scores = judged(small_sites(2, rows=150, policy=policy), small_study)
        assert (found.histogram is not None) is given
    assert found.histogram.sum() == len(scores["global"])


def test_too_small_a_holdout_gives_no_sums_under_institution(small_sites, small_study):
    policies = {"institution": Policy(), "open": Policy(disclosure="open")}
    found = {name: judged(small_sites(2, rows=20, policy=policy), small_study)[1] for name, policy in policies.items()}
    rows = {comparison.holdout_rows for comparison in found.values()}
    assert max(rows) < 10
    assert found["institution"].summary is None
    assert found["institution"].note == "withheld by the site's policy: fewer than 10 rows"
    assert found["open"].summary.rows[0] == rows.pop()


def test_a_site_without_any_holdout_row_says_so_for_every_figure(small_sites, small_study):
    sessions, encoder = at_work(small_sites(2), small_study)
    work = sessions[0]
    object.__setattr__(work.table, "_holdout", work.table._holdout[:0])
    found = run_client(compare(work, model_of(work, encoder), encoder))
    assert found.holdout_rows == 0
    methods = {estimate.method for arms in found.arms.values() for estimate in arms.values()}
    assert methods == {"no rows"}
    assert np.isnan([e.value for arms in found.arms.values() for e in arms.values()]).all()


def test_judging_twice_gives_the_same_intervals(small_sites, small_study):
    first, second = (judged(small_sites(2), small_study)[1] for _ in range(2))
    for metric, arms in first.arms.items():
        for arm, estimate in arms.items():
            np.testing.assert_array_equal(list(vars(estimate).values()), list(vars(second.arms[metric][arm]).values()))


def test_judging_opens_the_holdout_to_compare_and_for_nothing_else(small_sites, small_study):
    sessions, encoder = at_work(small_sites(2), small_study)
    run_client(compare(sessions[0], model_of(sessions[0], encoder), encoder))
    assert set(sessions[0].table.opened) == {"compare"}
    assert sessions[1].table.opened == []


@pytest.fixture
def grouped(small_sites: Callable[..., list[Site]], tmp_path: Path) -> Callable[..., list[Site]]:
    """Sites of "small" whose rows belong to persons, `each` rows a person."""
    schema = tmp_path / "root" / "datasets" / "small" / "schema.toml"
    schema.write_text(schema.read_text().replace('target = "y"', 'target = "y"\ngroup = "person"', 1))

    def make(each: int) -> list[Site]:
        def persons(number: int, table: pd.DataFrame) -> pd.DataFrame:
            return table.assign(person=[f"P{row // each}" for row in range(len(table))])

        return small_sites(2, rows=120, change=persons)

    return make


def test_rows_of_one_person_are_drawn_together(grouped, small_study):
    work, found, _ = judged(grouped(3), small_study)
    holdout = work.table.holdout("test")
    codes = groups_of(work, holdout)
    assert codes is not None
    assert len(np.unique(codes)) == holdout["person"].nunique() < len(holdout)
    same = [len(set(codes[(holdout["person"] == person).to_numpy()])) for person in holdout["person"].unique()]
    assert same == [1] * len(same)
    assert found.arms["roc_auc_score"]["global"].method == "bootstrap over groups"


def test_persons_with_one_row_each_are_no_groups(grouped, small_study):
    work, found, _ = judged(grouped(1), small_study)
    assert groups_of(work, work.table.holdout("test")) is None
    assert found.arms["roc_auc_score"]["global"].method == "DeLong"


def test_local_only_uses_its_own_encoder_and_never_the_holdout(small_sites, small_study):
    # Holdout rows of site 1 are spoilt after splitting: a local model that saw them would change.
    sessions, encoder = at_work(small_sites(2), small_study)
    work, arrays = sessions[0], model_of(sessions[0], encoder)
    holdout = work.table.holdout("test").copy()
    before = run_client(arm_scores(work, holdout, arrays, encoder))
    other, _ = at_work(small_sites(2), small_study)
    turned = {"yes": "no", "no": "yes"}
    object.__setattr__(other[0].table, "_holdout", holdout.assign(y=holdout["y"].map(turned), x1=0.0))
    after = run_client(arm_scores(other[0], holdout, arrays, encoder))
    for arm, p in before.items():
        np.testing.assert_array_equal(after[arm], p)
    local = run_client(work.local_model())
    assert local.encoder.center[0] == pytest.approx(work.table.training["x1"].mean(), abs=1e-9)
    assert local.encoder.center[0] != encoder.center[0]


def test_a_workplace_asked_with_other_arrays_or_another_encoder_gives_no_model_of_before(small_sites, small_study):
    sessions, encoder = at_work(small_sites(2), small_study)
    work, other = sessions[0], sessions[1].own_encoder()
    arrays, holdout = model_of(work, encoder), work.table.holdout("test")
    asked = [(arrays, encoder), (model_of(work, encoder, bias=1.5), encoder), (arrays, other), (arrays, encoder)]
    found = [run_client(arm_scores(work, holdout, *one)) for one in asked]
    for one, scores in zip(asked, found, strict=True):
        fresh = SiteSession(work.site, work.study, table=work.table)
        for arm, score in run_client(arm_scores(fresh, holdout, *one)).items():
            np.testing.assert_array_equal(scores[arm], score)
    for a, b in ((0, 1), (0, 2)):
        for arm in ("global", "personalised"):
            assert np.abs(found[a][arm] - found[b][arm]).max() > 1e-6


def test_a_personalised_model_that_is_kept_does_not_change_with_the_callers_arrays(small_sites, small_study):
    sessions, encoder = at_work(small_sites(2), small_study)
    work, arrays = sessions[0], model_of(sessions[0], encoder)
    x = work.training(encoder).x
    before = run_client(work.personalised(arrays, encoder))(x)
    kept = {name: value.copy() for name, value in arrays.items()}
    arrays["weight"] += 1.0
    np.testing.assert_array_equal(run_client(work.personalised(kept, encoder))(x), before)
    assert np.abs(run_client(work.personalised(arrays, encoder))(x) - before).max() > 0.1


def test_columns_that_are_kept_are_those_of_just_this_table(small_sites, small_study):
    sessions, encoder = at_work(small_sites(2), small_study)
    work, training = sessions[0], sessions[0].table.training
    plain = work.encode(training, encoder)
    coded = work.coded(training)
    assert work.coded(training) is coded
    np.testing.assert_array_equal(work.encode(training, encoder).x, plain.x)
    other = training.assign(x1=training["x1"] + 1)  # as many rows, other values
    moved = work.encode(other, encoder).x - plain.x
    np.testing.assert_allclose(moved[:, 0], 1 / encoder.scale[0], rtol=1e-9)
    assert (moved[:, 1:] == 0).all()


def test_rows_of_coded_tables_are_taken_and_joined_as_those_of_the_tables(small_sites, small_study):
    sessions, encoder = at_work(small_sites(2), small_study)
    work, tables = sessions[0], [place.table.training for place in sessions]
    rows = np.array([4, 1, 7])
    both = pd.concat(tables, ignore_index=True)
    pairs = [
        (work.coded(tables[0]).take(rows), tables[0].iloc[rows]),
        (joined([place.coded(t) for place, t in zip(sessions, tables, strict=True)]), both),
    ]
    for coded, table in pairs:
        for name, value in summarise(table, work.layout).arrays().items():
            np.testing.assert_array_equal(summarise(coded, work.layout).arrays()[name], value)
        np.testing.assert_array_equal(encode(coded, work.layout, encoder).x, work.encode(table, encoder).x)
        assert coded.rows == len(table)


def test_the_arms_of_a_site_ask_side_by_side(small_sites, small_study):
    sessions, encoder = at_work(small_sites(2), small_study)
    work = sessions[0]
    asked = next(arm_scores(work, work.table.holdout("test"), model_of(work, encoder), encoder))
    # the global model on the holdout, the own model tuned (too few rows for trees), the global model on training rows
    assert [type(request).__name__ for request in asked] == ["ScoreRequest", "TuneRequest", "ScoreRequest"]
    assert [len(getattr(asked[place], "x", asked[1].rows.x)) for place in range(3)] == [
        work.table.holdout_rows, len(work.table.training), len(work.table.training),
    ]  # fmt: skip


def test_calibration_is_of_the_shared_models_predictions(small_sites, small_study):
    work, found, scores = judged(small_sites(2), small_study.replace("[compare]\n", "[compare]\ncalibration = true\n"))
    expected = calibrate(work.target(work.table.holdout("test")), scores["global"])
    assert found.calibration == expected
    assert np.isfinite([expected.slope.value, expected.intercept.value]).all()


def test_calibration_is_measured_only_where_the_study_asks(small_sites, small_study):
    assert judged(small_sites(2), small_study)[1].calibration is None
