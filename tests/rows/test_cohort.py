"""What a cohort asks is answered together: as each would be alone, and one site's failure is its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flfed.rows.features.encode import Encoded
from flfed.rows.models.linear import Linear
from flfed.rows.models.logistic import Logistic
from flfed.rows.training.answer import compute_one_by_one, compute_stacked, stacked_compute
from flfed.rows.training.requests import Failed, FitRequest, Fitted, MeasureRequest, Request, ScoreRequest, TuneRequest
from flfed.study.plan import Plan

BEFORE = Linear(start="uniform").first_arrays(4, 3, np.random.default_rng(9))
PLAN = Plan(lr=0.1, batch=4, epochs=2)


def table(rows: int, seed: int) -> Encoded:
    rng = np.random.default_rng(seed)
    return Encoded(rng.normal(size=(rows, 4)), rng.permutation(np.arange(rows) % 3), np.ones(rows))


def fit_request(rows: Encoded, arrays: dict[str, np.ndarray], seed: int) -> FitRequest:
    return FitRequest(
        model=Logistic(), task="multi-class", arrays=arrays, rows=rows, plan=PLAN, lr=0.1,
        rng=np.random.default_rng(seed),
    )  # fmt: skip


def all_kinds(rows: list[Encoded]) -> list[Request]:
    """Ask of each site a fit, outputs, figures and a tuned model, one after the other."""
    return [
        request
        for seed, site in enumerate(rows)
        for request in (
            fit_request(site, BEFORE, seed), ScoreRequest(model=Logistic(), arrays=BEFORE, x=site.x),
            MeasureRequest(
                model=Logistic(), task="multi-class", arrays=BEFORE, rows=site, precision="float64", area=False
            ),
            TuneRequest(rows=site, task="multi-class", classes=3, rng=np.random.default_rng(seed)),
        )
    ]  # fmt: skip


def distance(a: Fitted, b: Fitted) -> float:
    return max(abs(a.loss - b.loss), *(float(np.abs(a.arrays[name] - b.arrays[name]).max()) for name in a.arrays))


def test_requests_of_all_kinds_are_answered_in_order_as_alone():
    rows = [table(12, 0), table(7, 1), table(21, 2)]
    found, alone = compute_stacked(all_kinds(rows)), compute_one_by_one(all_kinds(rows))
    for place in range(0, len(found), 4):
        assert distance(found[place], alone[place]) < 1e-12
        np.testing.assert_allclose(found[place + 1], alone[place + 1], atol=1e-12)
        assert found[place + 2].loss == pytest.approx(alone[place + 2].loss, rel=1e-12)
        x = rows[place // 4].x
        np.testing.assert_allclose(found[place + 3](x), alone[place + 3](x), atol=1e-4)
    assert compute_stacked([]) == []


def test_one_sites_failure_is_its_own_and_the_others_draw_as_if_nothing_had_happened():
    good, bad = [table(12, 0), table(12, 1)], table(12, 2)
    # A class that the model has no output for: found out when the stack has drawn its orders.
    bad = Encoded(bad.x, np.where(bad.y == 2, 9, bad.y), bad.weight)
    requests = [fit_request(site, BEFORE, seed) for seed, site in enumerate([good[0], bad, good[1]])]
    first, failed, last = compute_stacked(requests)
    assert isinstance(failed, Failed) and isinstance(failed.error, IndexError)
    for found, seed in ((first, 0), (last, 2)):
        (alone,) = compute_one_by_one([fit_request(good[seed // 2], BEFORE, seed)])
        assert distance(found, alone) == 0  # answered alone in the end
        wrong = compute_one_by_one([fit_request(good[seed // 2], BEFORE, seed + 10)])[0]
        assert distance(found, wrong) > 1e-4  # another order would be seen


class Failing(Logistic):
    """Cannot be stacked, and fails; counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def outputs(self, arrays, x):
        self.asked += 1
        raise RuntimeError("no outputs")


def test_what_cannot_be_stacked_and_fails_does_not_undo_the_stack():
    good, other = fit_request(table(12, 0), BEFORE, 0), replace(fit_request(table(12, 1), BEFORE, 1), model=Failing())
    found, failed = compute_stacked([good, other])
    assert isinstance(failed, Failed) and isinstance(failed.error, RuntimeError)
    assert other.model.asked == 1  # not all once more
    assert distance(found, compute_one_by_one([fit_request(good.rows, BEFORE, 0)])[0]) < 1e-12


def test_an_answer_that_remembers_packed_rows_gives_the_same_round_after_round():
    rows, answer = [table(12, 0), table(7, 1)], stacked_compute()
    for number in range(3):
        arrays = {name: value + number for name, value in BEFORE.items()}
        requests = [[fit_request(site, arrays, number) for site in rows] for _ in range(2)]
        for found, alone in zip(answer(requests[0]), compute_one_by_one(requests[1]), strict=True):
            assert distance(found, alone) < 1e-12
