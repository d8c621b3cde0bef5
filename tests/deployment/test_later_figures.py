"""Figures of a model that is one too many: none, or with noise that is charged to the test rows."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from pydantic import ValidationError

from flfed.deployment.gate.local_results import results_of
from flfed.deployment.operator.run_budget import counted_comparisons, describe_comparisons
from flfed.federation.client.released.accounts import SPENT
from flfed.federation.client.released.model_answers import LATER_EPSILON, LATER_FIRST, LATER_SCORES, later_releases
from flfed.rows.data.policy import Policy
from flfed.updates.accounting import epsilon
from flfed.updates.messages.compare import COMPARE, CompareReply, CompareRequest, Figure
from flfed.updates.messages.train import TrainRequest

PRIVATE = '[privacy]\nname = "record-dp"\nepsilon = 2.0\nsampling = 0.2\n'
NOISED = {"roc_auc_score", "log_loss", "brier_score_loss"}
RUN = "20261125-{}".format


@pytest.fixture
def later(gated: Any, small_study: str) -> Any:
    """A function that returns a site with some budget that compares one model, and later ones with noise."""

    def site(budget: float = 100.0, rows: int = 4000, **policy: Any) -> Any:
        text = small_study.replace("epochs = 1", "steps = 4") + PRIVATE
        allowed = {"later_figures": "noised", "epsilon": budget, "compared_runs": 1, "runs": 1000, **policy}
        return gated(text, policy=Policy(**allowed, queries=1000, daily_bytes=10**9), rows=rows)

    return site


def compare(site: Any, by: float, run: int | str) -> Message:
    """Ask for the comparison of a linear model that has a weight `by`, in a run of its own."""
    sent = TrainRequest.from_record(site.trained(round=6, evaluate=True).content)
    arrays = {name: value.copy() for name, value in sent.arrays.items()}
    next(iter(arrays.values())).reshape(-1)[:2] = by, 1 - by
    request = CompareRequest(arrays=arrays, encoder=sent.encoder)
    reply: Message = site.answer(site.message(COMPARE, request), run=RUN(run))
    assert not reply.has_error(), reply.error
    return reply


def told(reply: Message) -> dict[tuple[str, str], Figure]:
    """Return the figures of a comparison that have a value."""
    found = CompareReply.from_record(reply.content)
    return {(one.metric, one.arm): one for one in (*found.arms, *found.differences) if not math.isnan(one.value)}


def charged(site: Any) -> list[Any]:
    return [line for line in site.lines() if line.kind == SPENT and line.facts.get("answer", "").startswith("later")]


def test_a_later_model_has_three_figures_with_noise_charged_to_the_test_rows(later):
    site = later()
    assert len(told(compare(site, 0.5, 1))) > 3
    assert charged(site) == []
    reply = compare(site, 0.6, 2)
    found = told(reply)
    assert {metric for metric, _ in found} <= NOISED and ("roc_auc_score", "global") in found
    assert {arm for _, arm in found} == {"global"}
    assert {one.method for one in found.values()} == {"noised score counts"}
    lines = charged(site)
    assert [line.facts["answer"] for line in lines] == [LATER_FIRST, LATER_SCORES]
    assert {line.facts["side"] for line in lines} == {"holdout"}
    assert [line.facts["noise"] for line in lines] == [release.noise for release in later_releases(1e-5)]
    # The same again is what left before, also for a gate that was started anew, and costs nothing more.
    site.open()
    again = told(compare(site, 0.6, 2))
    assert {key: one.value for key, one in again.items()} == {key: one.value for key, one in found.items()}
    assert len(charged(site)) == 2


def test_exact_figures_stay_at_home(later):
    site = later()
    for run in (1, 2):
        compare(site, 0.2 + run / 10, run)
    results, _ = results_of(site.folder)
    exact = {(one.metric, one.arm): one for one in results[0].arms}
    found = told(compare(site, 0.4, 2))
    assert results[0].run == RUN(2) and not math.isnan(exact["roc_auc_score", "local-only"].value)
    assert all(one.value != exact[key].value for key, one in found.items())


def test_both_answers_cost_what_is_said(later):
    assert 0.99 * LATER_EPSILON < epsilon(later_releases(1e-5), 1e-5) <= LATER_EPSILON


def test_nothing_leaves_once_the_budget_is_spent(later):
    site = later(budget=2.5)
    compare(site, 0.5, 0)
    had = [bool(told(compare(site, 0.03 + 0.1 * run, run))) for run in range(1, 9)]
    several = had.index(False)
    assert several >= 2 and not any(had[several:])
    # What was charged for both of a model's answers, and at most the first of one more.
    assert len(charged(site)) in (2 * several, 2 * several + 1)
    releases = [release for _ in range(several) for release in later_releases(1e-5)]
    assert epsilon(releases, 1e-5) <= 2.5


def test_few_test_rows_are_lost_in_the_noise(later):
    site = later(rows=240)
    compare(site, 0.5, 1)
    assert told(compare(site, 0.6, 2)) == {}


def test_none_is_the_default(later):
    site = later(later_figures="none")
    compare(site, 0.5, 1)
    assert told(compare(site, 0.6, 2)) == {} and charged(site) == []


def test_the_approval_says_what_a_later_model_costs(later):
    site = later()
    (said,) = describe_comparisons(counted_comparisons(site.folder, site.site, site.study), site.site, "small")
    assert "Figures of further models are released with noise. Each costs epsilon 1 of the budget." in said


def test_a_policy_without_a_budget_is_refused():
    with pytest.raises(ValidationError, match="needs epsilon"):
        Policy(later_figures="noised")


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_intervals_hold_the_exact_figure(later, home: Path):
    """In at least 94 % of 200 runs, of each metric."""
    site, runs = later(budget=1e4), 200
    compare(site, 0.5, "first")
    held: dict[str, list[bool]] = {name: [] for name in NOISED}
    for run in range(runs):
        found = told(compare(site, (run + 0.25) / runs, f"of-{run}"))
        exact = {one.metric: one.value for one in _result(site, f"of-{run}").arms if one.arm == "global"}
        for (name, _), one in found.items():
            held[name].append(one.low <= exact[name] <= one.high)
    counts = {name: len(one) for name, one in held.items()}
    shares = {name: float(np.mean(one)) for name, one in held.items() if one}
    print(counts, shares)
    assert shares and all(counts[name] == runs for name in shares)
    assert all(share >= 0.94 for share in shares.values()), shares
    assert len(charged(site)) == 2 * runs


def _result(site: Any, run: str) -> Any:
    return next(one for one in results_of(site.folder)[0] if one.run == RUN(run))
