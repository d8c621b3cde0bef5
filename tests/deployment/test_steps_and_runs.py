"""Each step of a run is answered once, and few runs of a dataset have answers, whoever asks and in whatever study."""

import math
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.deployment.gate.gate import Gate
from flfed.deployment.site_state.runs import allow_runs, read_runs
from flfed.records.ledger import LockedLedger
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.scoring import three_digits
from flfed.rows.session import SiteSession
from flfed.study.study import Study
from flfed.updates.messages.compare import AUDIT, COMPARE, AuditRequest, CompareReply, CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.fields import content_sha256
from flfed.updates.messages.kinds import STATISTIC, SUMMARISE
from flfed.updates.messages.summarise import StatisticRequest, SummariseRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainRequest
from tests.federation.test_analysis import STUDY as ANALYSIS

ROWS = 240
RUN = "20261120-abcd"
STEP_ANSWERED = str(Refusal("step-answered", round=0))


def institution(gated: Any, text: str = "", most: int = 5, **policy: Any) -> Any:
    """Return a site behind its gate that answers so many runs of a dataset."""
    return gated(text, policy=Policy(**{"runs": most, **policy}), rows=ROWS)


def no_run_left(most: int) -> str:
    return str(Refusal("too-many-runs", most=most, had=most))


def said(reply: Message) -> str:
    return str(reply.error.reason) if reply.has_error() else ""


def of_model(site: Any, by: float) -> str:
    """Ask for a comparison of a model in a run of its own; return why there is none."""
    return said(site.answer(site.message(COMPARE, model(site, by)), run=f"20261120-{by:g}".replace(".", "-")))


def model(site: Any, by: float) -> CompareRequest:
    """Return the comparison of a linear model, whose first weight is `by`."""
    sent = TrainRequest.from_record(site.trained(round=6, evaluate=True).content)
    arrays = {name: value.copy() for name, value in sent.arrays.items()}
    next(iter(arrays.values())).reshape(-1)[0] = by
    return CompareRequest(arrays=arrays, encoder=sent.encoder)


def compare(site: Any, by: float, run: str = "", **asked: Any) -> Message:
    """Ask for the comparison of a model, each in a run of its own."""
    message = site.message(COMPARE, model(site, by))
    reply: Message = site.answer(message, run=run or f"20261120-{by:g}".replace(".", "-"), **asked)
    assert not reply.has_error(), reply.error
    return reply


def figures(reply: Message) -> list[float]:
    """Return all numbers of a comparison that are there."""
    found = CompareReply.from_record(reply.content)
    numbers = [n for one in (*found.arms, *found.differences) for n in (one.value, one.low, one.high, one.extra)]
    numbers += [n for one in found.groups for n in (one.value, one.low, one.high)]
    numbers += [n for one in found.points for n in one.counts if n >= 0]
    numbers += [one.increase for one in found.importance]
    return [n for n in numbers if not math.isnan(n)] + ([] if found.histogram is None else [found.histogram.sum()])


def test_the_sixth_run_gets_no_reply_and_the_same_request_its_bytes(gated):
    site = institution(gated)
    answered = [compare(site, by) for by in (1, 2, 3, 4, 5)]
    assert all(map(figures, answered)) and of_model(site, 6) == no_run_left(5)
    # By the site's state: the gate counts the same after a restart, and a run that had replies goes on.
    site.open()
    assert of_model(site, 7) == no_run_left(5)
    assert content_sha256(compare(site, 3).content) == content_sha256(answered[2].content)
    assert said(site.answer(site.message(COMPARE, model(site, 9)), run="20261120-3")) == STEP_ANSWERED


def test_studies_runs_and_repeats_count_together(gated, small_study: str):
    site = institution(gated)
    for by, repeat in ((1, 0), (2, 0), (3, 1)):
        assert figures(compare(site, by, repeat=repeat))
    text = small_study.replace("lr = ", "lr = 1").replace('name = "small"', 'name = "of-somebody-else"', 1)
    site.approve(Study.parse(text))
    assert all(figures(compare(site, by, study=text)) for by in (4, 5))
    assert of_model(site, 7) == no_run_left(5)


def test_a_run_counts_from_its_first_reply_of_rows_and_not_by_its_enrolment(gated):
    site = institution(gated, most=1)
    for run in ("one", "two"):
        request = EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256())
        assert said(site.answer(site.message(ENROL, request), run=run)) == ""
    assert said(site.answer(site.message(SUMMARISE, SummariseRequest()), run="one")) == ""
    assert said(site.answer(site.message(SUMMARISE, SummariseRequest()), run="two")) == no_run_left(1)
    # What was refused, or could not be computed before a row was read, is no run.
    assert read_runs(site.folder, site.site.policy, "small").had == 1


def test_runs_with_noise_on_all_that_they_release_do_not_count(gated):
    site = institution(gated, ANALYSIS, most=1, epsilon=9.0)
    for run in ("one", "two"):
        assert said(site.answer(site.message(STATISTIC, StatisticRequest()), run=run)) == ""
    assert read_runs(site.folder, site.site.policy, "small").left == 1


def test_a_step_is_answered_once_and_no_earlier_one_after_it(gated):
    site = institution(gated)
    replies = [site.answer(site.trained(round=round)) for round in (1, 2, 4)]  # it was away in round 3
    assert set(map(said, replies)) == {""}
    site.open()
    again = site.answer(site.trained(round=4))
    assert content_sha256(again.content) == content_sha256(replies[2].content)
    sent = TrainRequest.from_record(site.trained(round=4).content)
    other = replace(sent, arrays={name: value + 1e-6 for name, value in sent.arrays.items()})
    assert said(site.answer(site.message(TRAIN, other))) == str(Refusal("step-answered", round=4))
    assert said(site.answer(site.trained(round=3))) == str(Refusal("step-passed", round=3))
    # Bytes of rounds before the last two are gone, and no second answer follows.
    assert said(site.answer(site.trained(round=1))) == str(Refusal("step-answered", round=1))
    assert figures(compare(site, 1, run=RUN))
    assert said(site.answer(site.trained(round=5))) == str(Refusal("step-passed", round=5))


def test_under_another_policy_a_step_is_not_answered_again(gated):
    site = institution(gated, disclosure="open")
    assert said(site.answer(site.trained())) == ""
    site.open(policy=Policy())
    assert said(site.answer(site.trained())) == str(Refusal("step-answered", round=1))


def test_a_name_is_of_one_study(gated):
    site = institution(gated)
    assert figures(compare(site, 1, run="one"))
    text = site.study.text.replace("lr = ", "lr = 1")
    site.approve(Study.parse(text))
    assert said(site.answer(site.trained(), study=text, run="one")) == Refusal("ledger-other-study")
    assert said(site.answer(site.trained(), study=text, run="another")) == ""


def test_two_gates_that_are_asked_at_once_answer_one_request(gated):
    site = institution(gated)
    gates = [Gate(site.folder, site.site, today=lambda: site.today) for _ in range(4)]
    requests = [site.trained() for _ in gates]
    together = Barrier(len(gates))

    def ask(number: int) -> str:
        together.wait()
        sent = TrainRequest.from_record(requests[number].content)
        moved = replace(sent, arrays={name: value + number for name, value in sent.arrays.items()})
        return said(gates[number].answer(site.message(TRAIN, moved), site.context()))

    with ThreadPoolExecutor(len(gates)) as threads:
        refusals = sorted(threads.map(ask, range(len(gates))))
    assert refusals == ["", *[str(Refusal("step-answered", round=1))] * 3]


def test_a_crash_between_the_state_and_the_ledger_loses_neither(gated, monkeypatch):
    site = institution(gated)
    child = os.fork()
    if child == 0:
        write = LockedLedger.write
        monkeypatch.setattr(
            LockedLedger, "write",
            lambda own, text: os.kill(os.getpid(), signal.SIGKILL) if b'"train"' in text else write(own, text),
        )  # fmt: skip
        site.answer(site.trained())
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    site.open()
    assert said(site.answer(site.trained())) == ""
    assert [line.kind for line in site.lines() if line.kind != "snapshot"] == ["train", "train"]
    other = TrainRequest.from_record(site.trained().content)
    moved = replace(other, arrays={name: value + 1 for name, value in other.arrays.items()})
    assert said(site.answer(site.message(TRAIN, moved))) == str(Refusal("step-answered", round=1))


def test_an_institution_compares_with_three_digits_and_an_open_site_as_it_is(gated):
    closed = figures(compare(institution(gated), 1, run="closed"))
    opened = figures(compare(institution(gated, disclosure="open"), 1, run="open"))
    assert closed and [three_digits(number) for number in closed] == closed
    assert any(three_digits(number) != number for number in opened)


def test_a_model_is_attacked_only_where_its_comparison_left_and_once(gated):
    site = institution(gated)
    sent = model(site, 1)
    attack = AuditRequest(arrays=sent.arrays, encoder=sent.encoder, attack="membership-inference")
    message = site.message(AUDIT, attack)
    assert said(site.answer(message)) == Refusal("not-compared")
    # That it was evaluated is not enough.
    assert evaluated(site, 1, RUN) == "" and said(site.answer(message)) == Refusal("not-compared")
    assert asked_to_compare(site, 1, RUN) == "" and said(site.answer(message)) == ""
    assert said(site.answer(message, repeat=1)) == Refusal("not-compared")
    other = replace(attack, arrays=model(site, 2).arrays)
    assert said(site.answer(site.message(AUDIT, other))) == Refusal("not-compared")


def test_only_the_final_model_is_evaluated(gated, small_study: str):
    def final(site: Any, round: int) -> Message:
        sent = TrainRequest.from_record(site.trained(round=6, evaluate=True).content)
        return site.message(EVALUATE, replace(sent, round=round))

    site = gated()
    assert site.refusal(final(site, 6)) is None
    for round in (1, 5, 7):
        assert "has a value 'round' that does not fit" in site.refusal(final(site, round))
    early = small_study.replace("l2 = 0.01", "l2 = 0.01\nvalidation = 0.3").replace(
        'name = "fedavg"', 'name = "fedavg"\npatience = 1'
    )
    assert "patience" in early
    site = gated(early)
    assert [site.refusal(final(site, round)) is None for round in (1, 2, 6, 7)] == [False, True, True, False]


def step(x: np.ndarray, way: np.ndarray, place: int) -> dict[str, np.ndarray]:
    """Return a perceptron that is 0.21 for the rows below a place in the order of `way` and 0.79 for the others."""
    places = np.sort(x @ way)
    middle = (places[place - 1] + places[place]) / 2
    hidden, bias = np.stack([1e6 * way] * 3, axis=1), np.array([0.0, -1.0, 0.0]) - 1e6 * middle
    out = np.array([[1.0], [-1.0], [0.0]]) * 2.6
    return {"weight-0": hidden, "bias-0": bias, "weight-1": out, "bias-1": np.array([-1.3])}


FIRST = 80
"""Place of the first of twelve neighbours: test rows of both outcomes, and training rows."""


@pytest.mark.parametrize(("most", "read"), [(100, 11), (5, 4)])
def test_thresholds_a_row_apart_read_outcomes_until_the_runs_end_them(gated, small_study: str, most: int, read: int):
    site = institution(gated, small_study.replace('name = "logistic"', 'name = "mlp"\nhidden = [3]'), most)
    encoder = TrainRequest.from_record(site.trained(round=6, evaluate=True).content).encoder
    session = SiteSession(site.site, site.study)
    training, holdout = session.round_rows(encoder)[0], session.holdout_rows(encoder)
    x, way = np.concatenate([training.x, holdout.x]), np.random.default_rng(3).normal(size=training.x.shape[1])
    order = np.argsort(x @ way)
    # What the coordinator wants to know: is a person among the test rows, and with which outcome?
    true = np.concatenate([np.full(len(training.y), -1), holdout.y])[order]
    briers = []
    for place in range(FIRST, FIRST + 12):
        request = CompareRequest(arrays=step(x, way, place), encoder=encoder)
        reply = site.answer(site.message(COMPARE, request), run=f"20261120-{place}")
        arms = () if reply.has_error() else CompareReply.from_record(reply.content).arms
        briers += [one.value for one in arms if (one.arm, one.metric) == ("global", "brier_score_loss")]
    moved = np.diff(briers)
    # One row more is scored 0.21 in place of 0.79: with the outcome that costs, without it gains.
    guessed = np.where(np.abs(moved) < 1e-9, -1, (moved > 0).astype(int))
    assert len(moved) == read
    assert (guessed == true[FIRST : FIRST + read]).all()


def test_a_person_lets_more_runs_begin_on_record(gated):
    site = institution(gated, most=1)
    assert figures(compare(site, 1)) and of_model(site, 2) == no_run_left(1)
    runs = allow_runs(site.folder, site.site.policy, "small", 2, by="Dr Kim")
    assert (runs.left, runs.most) == (2, 3) and "2 of 3 runs of 'small' are left" in runs.sentence()
    line = site.lines()[-1]
    assert (line.kind, line.facts["by"], line.facts["dataset"], line.facts["runs"]) == ("allowed", "Dr Kim", "small", 2)
    # The gate that runs sees it, and another one does; of another dataset it adds none.
    assert [of_model(site, by) for by in (2, 3, 4)] == ["", "", no_run_left(3)]
    site.open()
    allow_runs(site.folder, site.site.policy, "heart-disease", 9, by="Dr Kim")
    assert of_model(site, 5) == no_run_left(3)


def evaluated(site: Any, by: float, run: str) -> str:
    """Ask a run to evaluate a linear model; return why it is not, or an empty text."""
    message = site.trained(round=6, evaluate=True)
    sent = TrainRequest.from_record(message.content)
    reply = site.answer(site.message(EVALUATE, replace(sent, arrays=model(site, by).arrays)), run=run)
    return reply.error.reason if reply.has_error() else ""


def asked_to_compare(site: Any, by: float, run: str) -> str:
    """Ask a run to compare a linear model; return why it does not, or an empty text."""
    reply = site.answer(site.message(COMPARE, model(site, by)), run=run)
    return reply.error.reason if reply.has_error() else ""


def test_a_run_compares_the_model_that_it_evaluated_or_one_that_it_was_trained_from(gated):
    site, other = institution(gated), Refusal("other-model-compared")
    assert evaluated(site, 1, "same") == "" and asked_to_compare(site, 1, "same") == ""
    assert evaluated(site, 1, "other") == "" and asked_to_compare(site, 2, "other") == other
    # The model of an earlier round, as of a run that takes its best one.
    first = TrainRequest.from_record(site.trained(round=1).content)
    assert not site.answer(site.trained(round=1), run="best").has_error()
    assert evaluated(site, 3, "best") == ""
    best = CompareRequest(arrays=first.arrays, encoder=first.encoder)
    assert asked_to_compare(site, 4, "best") == other
    assert not site.answer(site.message(COMPARE, best), run="best").has_error()
    # Of a site that was away while the others evaluated.
    assert asked_to_compare(site, 5, "away") == ""
