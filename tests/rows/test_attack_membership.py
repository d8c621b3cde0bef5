"""Who was trained on: the area under the ROC of two attacks, and the largest that a promise allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from flfed.rows.attacks.membership_inference import MembershipInference, largest_auc, likelihood_ratio, over_people
from flfed.rows.comparison.attack_runner import Attacked, Finding, log_odds
from flfed.rows.data.holdout import HoldoutByTime
from flfed.rows.evaluation.intervals import estimate
from flfed.rows.features.encode import Encoded, pooled_rows
from flfed.rows.metrics.roc_auc_score import RocAucScore
from flfed.rows.training.answer import compute_one_by_one, stacked_compute
from flfed.rows.training.fit import score
from flfed.rows.training.requests import ScoreRequest, ShadowsRequest, run_client_by
from flfed.study.plan import PrivateSteps
from flfed.updates.accounting import Release, epsilon

OVERFIT = {"model.name": "mlp", "model.hidden": [64], "lr": 1.0, "steps": 40}
SAMPLING, DELTA = 0.1, 1 / 3000
ONE = 3.087
"""Noise multiplier of 100 steps that spend ε = 1 at δ = 1 / (10 · 300); the test checks it."""


def inferred(attacked, shadows: int = 16) -> dict[str, Finding]:
    """Return the findings by metric."""
    handler = MembershipInference(shadows=shadows).findings(attacked)
    return {found.metric: found for found in run_client_by(handler, stacked_compute())}


def test_an_overfit_model_gives_its_300_members_away_and_the_loss_alone_gives_less(wide_site):
    attacked = wide_site(OVERFIT)
    found = inferred(attacked)
    assert 280 <= len(attacked.members()) <= 320
    assert found["auc-of-lira"].value >= 0.70 and found["auc-of-lira"].low > 0.70
    assert 0.6 < found["auc-of-loss"].value < found["auc-of-lira"].value
    assert found["auc-of-lira"].rows == 600 and not found["auc-of-lira"].beyond


@pytest.mark.studies
@pytest.mark.parametrize("model", ["logistic", "mlp"])
def test_under_epsilon_1_the_area_is_near_chance_and_within_the_promise(wide_site, model):
    spent = epsilon([Release(ONE, SAMPLING, 100)], DELTA)
    assert 0.98 < spent <= 1.0
    steps = PrivateSteps(clip=1.0, noise=ONE, sampling=SAMPLING)
    found = inferred(wide_site({"model.name": model}, steps=steps, promised=(spent, DELTA)))
    assert all(finding.value <= 0.58 and not finding.beyond for finding in found.values())
    assert found["auc-of-lira"].promise == pytest.approx(0.731, abs=2e-3)


@pytest.mark.studies
def test_a_promise_of_epsilon_1_kept_without_noise_is_flagged(wide_site):
    steps = PrivateSteps(clip=1.0, noise=0.0, sampling=SAMPLING)
    found = inferred(wide_site(OVERFIT, steps=steps, promised=(1.0, DELTA)))
    assert found["auc-of-lira"].beyond and found["auc-of-lira"].low > found["auc-of-lira"].promise


def test_the_loss_attack_is_scikit_learns_area_of_minus_the_loss(wide_site):
    attacked = wide_site()
    rows = pooled_rows([attacked.members(), attacked.others()])
    outputs = score(ScoreRequest(model=attacked.session.model, arrays=attacked.arrays, x=rows.x))[:, 0]
    p = 1 / (1 + np.exp(-outputs))
    loss = -np.log(np.where(rows.y == 1, p, 1 - p))
    member = np.arange(len(rows)) < len(attacked.members())
    expected = roc_auc_score(member, -loss)
    assert inferred(attacked, shadows=4)["auc-of-loss"].value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.1])
def test_the_largest_area_is_what_the_trade_off_curve_integrates_to(epsilon, delta):
    def missed(a: float) -> float:
        return max(0.0, 1 - delta - np.exp(epsilon) * a, np.exp(-epsilon) * (1 - delta - a))

    corner = (1 - delta) / (1 + np.exp(epsilon))
    area = 1 - quad(missed, 0, 1, points=[corner, 1 - delta], epsabs=1e-12)[0]
    assert largest_auc(epsilon, delta) == pytest.approx(area, abs=1e-9)


def test_randomised_response_reaches_the_promise_and_never_passes_it():
    # Each coin is told rightly with probability e^ε / (1 + e^ε): the best test of it has just that area.
    rng, coins = np.random.default_rng(4), np.random.default_rng(5).random(200_000) < 0.5
    told = coins == (rng.random(len(coins)) < np.e / (1 + np.e))
    assert roc_auc_score(coins, told) == pytest.approx(largest_auc(1.0, 0.0), abs=0.004)
    assert abs(roc_auc_score(coins, told) - largest_auc(1.5, 0.0)) > 0.05


@pytest.mark.parametrize("online", [True, False])
def test_the_likelihood_ratio_is_the_normal_one_written_out(online):
    rng = np.random.default_rng(2)
    shadows, target = rng.normal(size=(6, 5)), rng.normal(size=5)
    inside = rng.permuted(np.tile([[True], [False]], (3, 5)), axis=0)
    found = likelihood_ratio(target, shadows, inside, online=online)
    groups = {side: [shadows[inside[:, row] == side, row] for row in range(5)] for side in (True, False)}
    deviation = {side: np.sqrt(np.mean([np.var(own, ddof=1) for own in rows])) for side, rows in groups.items()}
    for row in range(5):
        without = norm(groups[False][row].mean(), deviation[False])
        expected = without.logcdf(target[row])
        if online:
            expected = norm(groups[True][row].mean(), deviation[True]).logpdf(target[row]) - without.logpdf(target[row])
        assert found[row] == pytest.approx(expected, rel=1e-9)


def test_log_odds_are_of_the_rows_own_class():
    outputs = np.log([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    np.testing.assert_allclose(log_odds("multi-class", outputs, np.array([2, 1])), [0.0, np.log(0.3 / 0.7)])
    np.testing.assert_allclose(log_odds("binary", np.array([[2.0], [2.0]]), np.array([1, 0])), [2.0, -2.0])
    far, near = log_odds("regression", np.array([[3.0], [1.1]]), np.array([1.0, 1.0]))
    assert far == pytest.approx(-np.log(4)) and near > far


class Paired(Attacked):
    """A site whose training rows belong to people with two rows each."""

    def members(self):
        found = super().members()
        return replace(found, group=np.arange(len(found)) // 2)


def test_every_row_is_in_half_of_the_shadow_models_and_people_are_not_split(wide_site):
    plain, asked = wide_site({"rounds": 1, "steps": 1}), []
    attacked = Paired(session=plain.session, arrays=plain.arrays, encoder=plain.encoder)

    def answer(requests):
        shadows = [request for request in requests if isinstance(request, ShadowsRequest)]
        asked.extend(fit for request in shadows for fit in request.rounds[0])
        return compute_one_by_one(requests)

    run_client_by(MembershipInference(shadows=6).findings(attacked), answer)
    people = len(attacked.members()) // 2
    counts = np.array([np.bincount(request.rows.group, minlength=900) for request in asked])
    assert counts.shape[0] == 6 and set(counts[:, :people].ravel()) == {0, 2}
    assert set(counts[:, :people].sum(axis=0)) == {6} and set(counts[:, people + 1 :].sum(axis=0)) == {0, 3}


def test_of_a_large_site_so_many_rows_are_attacked_members_and_others_alike(wide_site):
    attacked = wide_site({"rounds": 1, "steps": 1})
    handler = MembershipInference(shadows=4, rows=200).findings(attacked)
    loss, lira = run_client_by(handler, stacked_compute())
    whole = inferred(attacked, shadows=4)["auc-of-loss"]
    assert (loss.rows, lira.rows, whole.rows) == (200, 200, 600)
    assert loss.high - loss.low > 1.4 * (whole.high - whole.low)  # √3 for a third of the rows


def test_a_model_that_is_not_finite_gives_no_figure_and_says_why(wide_site):
    broken = wide_site({"rounds": 1, "steps": 1}, model={"weight": np.full((40, 1), np.inf), "bias": np.zeros(1)})
    for finding in inferred(broken, shadows=4).values():
        assert np.isnan(finding.value) and finding.rows == 0 and "not finite" in finding.says


def test_a_holdout_by_time_is_said_to_be_another_time(wide_site):
    attacked = wide_site({"rounds": 1, "steps": 1})
    plain = inferred(attacked, shadows=4)["auc-of-loss"]
    later = HoldoutByTime(column="day", train_until="2024-01-01", test_from="2024-02-01")
    attacked.session.site = replace(attacked.session.site, holdout=later)
    said = inferred(attacked, shadows=4)["auc-of-loss"]
    assert said.value == plain.value and "later than the training rows" in said.says not in plain.says


@pytest.mark.studies
def test_what_only_came_later_breaks_no_promise(wide_site):
    attacked = wide_site(OVERFIT, promised=(0.01, DELTA))
    plain = inferred(attacked, shadows=4)["auc-of-loss"]
    assert plain.beyond and plain.promise < 0.51
    later = HoldoutByTime(column="day", train_until="2024-01-01", test_from="2024-02-01")
    attacked.session.site = replace(attacked.session.site, holdout=later)
    said = inferred(attacked, shadows=4)["auc-of-loss"]
    assert (said.value, said.beyond, np.isnan(said.promise)) == (plain.value, False, True)
    assert "no promise bounds it" in said.says


@pytest.mark.parametrize(("unit", "several", "bounded"), [
    ("row", True, False), ("row", False, True), ("person", True, True),
])  # fmt: skip
def test_a_promise_to_each_row_bounds_nobody_who_has_several(wide_site, unit, several, bounded):
    steps = PrivateSteps(clip=1.0, noise=ONE, sampling=SAMPLING, unit=unit)
    plain = wide_site({"rounds": 1, "steps": 1}, steps=steps, promised=(1.0, DELTA))
    kind = Paired if several else Attacked
    attacked = kind(session=plain.session, arrays=plain.arrays, encoder=plain.encoder, promised=(1.0, DELTA))
    found = inferred(attacked, shadows=4)["auc-of-lira"]
    assert np.isfinite(found.promise) == bounded
    assert ("A promise to each person would" in found.says) == (not bounded)
    assert np.isfinite([found.low, found.high]).all()


@pytest.mark.parametrize("people", [20, 200])
def test_a_perfect_attack_on_people_has_a_lower_limit_and_is_beyond_the_promise(wide_site, people):
    # Every draw of people gives an area of 1, so that the bootstrap has no limits.
    attacked = wide_site({"rounds": 1, "steps": 1}, promised=(1.0, DELTA))
    group, member = np.arange(4 * people) // 2, np.arange(4 * people) < 2 * people
    rows = Encoded(np.zeros((4 * people, 40)), np.zeros(4 * people), np.ones(4 * people), group)
    found = MembershipInference()._finding(attacked, "auc-of-loss", rows, member, member.astype(float), "by its loss")
    assert (found.value, found.high, found.method) == (1.0, 1.0, "Hanley-McNeil over people")
    assert found.beyond and found.promise == pytest.approx(0.731, abs=2e-3)
    # As of people with a row each, half as many: not of rows, of which there are twice as many.
    half = np.arange(2 * people) < people
    alone, rowwise = (
        estimate(RocAucScore(), side.astype(int), side.astype(float), np.random.default_rng(0))
        for side in (half, member)
    )
    assert found.low == pytest.approx(alone.low, abs=1e-9) and found.low < rowwise.low - 1e-4
    few = over_people(estimate(RocAucScore(), np.array([1, 0]), np.array([1.0, 0.0]), np.random.default_rng(0)),
                      np.array([True, False]), None)  # fmt: skip
    assert 0 < few.low < 0.5
