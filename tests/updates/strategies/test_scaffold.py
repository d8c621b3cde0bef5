"""SCAFFOLD by hand: the paper's algorithm on sites whose losses are quadratic, and plans that have no variates."""

import numpy as np
import pytest

from flfed.errors import UsageError
from flfed.federation.server.preflight import check
from flfed.study.plan import Plan
from flfed.study.study import Study
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.guard import GuardResult
from flfed.updates.aggregation.rounds import Participant, Round, RunContext
from flfed.updates.extra import LocalUpdate, SiteArrays, client_terms
from flfed.updates.messages.train import TrainReply
from flfed.updates.strategies.scaffold import Scaffold

ROWS = {"a": 10.0, "b": 30.0, "c": 60.0}
CURVES = {"a": np.array([1.0, 0.2]), "b": np.array([0.3, 2.0]), "c": np.array([0.7, 0.9])}
LOWEST = {"a": np.array([3.0, -1.0]), "b": np.array([-2.0, 0.5]), "c": np.array([0.4, 4.0])}
STEPS = {"a": 2, "b": 5, "c": 3}
RATES = (0.2, 0.15, 0.05, 0.2)
COHORTS = ("ab", "abc", "bc", "abc")
START = np.array([1.0, 1.0])


def gradient(site: str, w: np.ndarray) -> np.ndarray:
    return CURVES[site] * (w - LOWEST[site])


def by_hand() -> list[np.ndarray]:
    """Return the models of four rounds by algorithm 1 with option II; c is the weighted mean of all sites' variates."""
    x, c = START, np.zeros(2)
    own = {site: np.zeros(2) for site in ROWS}
    found, seen = [], set[str]()
    for lr, cohort in zip(RATES, COHORTS, strict=True):
        local = {}
        for site in cohort:
            y = x.copy()
            for _ in range(STEPS[site]):
                y = y - lr * (gradient(site, y) - own[site] + c)
            local[site] = y
        for site in cohort:
            own[site] = own[site] - c + (x - local[site]) / (STEPS[site] * lr)
        total = sum(ROWS[site] for site in cohort)
        x = x + sum(ROWS[site] * (local[site] - x) for site in cohort) / total
        seen |= set(cohort)
        # A site that has not trained yet counts as the mean of those that have, with a variate of zero.
        known = sum(ROWS[site] for site in seen)
        c = sum(ROWS[site] * own[site] for site in sorted(seen)) / (known * len(ROWS) / len(seen))
        found.append(x)
    return found


def begun() -> Scaffold:
    none = np.zeros(1)
    encoder = Encoder(center=none, scale=none + 1, frequency=none, spread=none + 1, class_weight=np.ones(2))
    participants = {site: Participant(node_id=number, rows_high=99) for number, site in enumerate(ROWS)}
    strategy = Scaffold()
    strategy.assign(RunContext(participants=participants, encoder=encoder, plan=Plan(), rounds=4, seed=1))
    return strategy


def by_class() -> list[np.ndarray]:
    strategy, model, found = begun(), {"w": START}, []
    kept: dict[str, dict[str, np.ndarray]] = {site: {} for site in ROWS}
    for lr, cohort in zip(RATES, COHORTS, strict=True):
        strategy.round = Round(incoming=model)
        received, replies = strategy.client_arrays(), {}
        for site in cohort:
            arrays = SiteArrays(received=received, kept=kept[site])
            terms, constant = client_terms(Scaffold, {}, arrays)
            assert terms == ()
            y = model["w"].copy()
            for _ in range(STEPS[site]):
                y = y - lr * (gradient(site, y) + constant["w"])
            delta = {"w": y - model["w"]}
            made = Scaffold.client_extra({}, arrays, LocalUpdate(delta=delta, steps=STEPS[site], lr=lr, plan=Plan()))
            kept[site] = made.kept
            replies[site] = TrainReply(
                delta=delta, num_examples=ROWS[site], loss=0.1, steps=STEPS[site], extra=made.returned
            )
        strategy.round = Round(incoming=model, result=GuardResult(accepted=replies))
        deltas = {site: reply.delta for site, reply in replies.items()}
        model = strategy.combine(model, deltas, {site: ROWS[site] for site in cohort})
        found.append(model["w"])
    return found


def test_a_run_is_that_of_the_papers_algorithm_with_weights():
    np.testing.assert_allclose(by_class(), by_hand(), rtol=1e-13, atol=1e-13)


def test_a_site_without_a_step_keeps_its_variate():
    old = {"w": np.array([0.5, -0.5])}
    arrays = SiteArrays(received={"w": np.ones(2)}, kept=old)
    update = LocalUpdate(delta={"w": np.zeros(2)}, steps=0, lr=0.1, plan=Plan())
    assert (Scaffold.client_extra({}, arrays, update).kept["w"] == old["w"]).all()


@pytest.mark.parametrize(("plan", "why"), [
    (Plan(optimiser="adam"), "optimiser='adam' scales each gradient by the ones before"),
    (Plan(clip=1.0), "clip=1 cuts corrected gradients"), (Plan(l1=0.01), "l1=0.01 moves weights beside the gradients"),
])  # fmt: skip
def test_plans_whose_updates_show_no_mean_gradient_are_refused(plan: Plan, why: str):
    with pytest.raises(UsageError) as refused:
        Scaffold().check(plan)
    said = f"[strategy] scaffold: {why}, so that an update does not show the mean gradient: leave it out"
    assert str(refused.value) == said
    Scaffold().check(Plan(momentum=0.9, l2=0.1))


@pytest.mark.parametrize(("changes", "why"), [
    ({"codec.name": "int8"}, "and a codec packs the update alone: leave [codec] out"),
    ({"privacy.name": "record-dp", "plan.steps": 5}, "and record-dp under [privacy] protects the update"),
    ({"privacy.name": "site-dp"}, "needs the sites' single updates, and site-dp gives it"),
    ({"privacy.secure-aggregation": "on"}, "needs the sites' single updates, which the server does not have"),
])  # fmt: skip
def test_studies_that_protect_or_pack_the_update_alone_are_refused(changes: dict[str, object], why: str):
    study = Study.load("breast-cancer").replace({"strategy.name": "scaffold", "plan.l1": 0.0})
    check(study)
    with pytest.raises(UsageError) as refused:
        check(study.replace(changes))
    assert str(refused.value).startswith("[strategy] scaffold: ") and why in str(refused.value)
