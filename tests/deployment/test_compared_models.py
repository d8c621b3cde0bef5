"""An institution compares few models on its test rows of a dataset, whoever asks and in whatever study."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.deployment.gate.local_results import results_of
from flfed.deployment.operator.run_budget import counted_comparisons, describe_comparisons
from flfed.deployment.site_state.comparisons import Comparisons, add_comparisons, comparisons_left
from flfed.deployment.site_state.ledger_restart import restart
from flfed.records.ledger import LedgerLost
from flfed.records.reports.report import report
from flfed.records.reports.site_verdict import site_verdict
from flfed.records.store.reader import RunReader
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.scoring import three_digits
from flfed.rows.session import SiteSession
from flfed.study.study import Study
from flfed.updates.messages.compare import AUDIT, COMPARE, AuditRequest, CompareReply, CompareRequest
from flfed.updates.messages.train import EVALUATE, TrainRequest
from flfed.words import render

ROWS = 240
WHY = Refusal("too-many-compared", most=5, had=5)


def institution(gated: Any, text: str = "", most: int = 5, **policy: Any) -> Any:
    """Return a site behind its gate that compares so many models."""
    return gated(text, policy=Policy(**{"compared_runs": most, "runs": 100, **policy}), rows=ROWS)


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


def test_the_sixth_model_gets_no_figure_and_the_same_again_is_answered(gated):
    site = institution(gated)
    answered = [figures(compare(site, by)) for by in (1, 2, 3, 4, 5)]
    assert all(answered)
    sixth = compare(site, 6)
    assert figures(sixth) == []
    found = CompareReply.from_record(sixth.content)
    assert {one.method for one in (*found.arms, *found.differences)} == {f"withheld: {WHY}"}
    assert found.note == f"withheld by the site's policy: {WHY}"
    # By the ledger: the gate counts the same after a restart, and another run asks the same model again.
    site.open()
    assert figures(compare(site, 7)) == []
    assert figures(compare(site, 3, run="another")) == answered[2]
    # Who was refused is not leaving: the sixth stays the sixth.
    assert [line.facts.get("figures-stayed", False) for line in site.lines() if line.kind == "compare"] == [
        *[False] * 5, True, True, False,
    ]  # fmt: skip


def test_studies_runs_and_repeats_count_together(gated, small_study: str):
    site = institution(gated)
    for by, repeat in ((1, 0), (2, 0), (3, 1)):
        assert figures(compare(site, by, repeat=repeat))
    text = small_study.replace("lr = ", "lr = 1").replace('name = "small"', 'name = "of-somebody-else"', 1)
    site.approve(Study.parse(text))
    assert [figures(compare(site, by, study=text)) != [] for by in (4, 5, 6)] == [True, True, False]
    assert figures(compare(site, 7)) == []


def test_the_site_has_its_verdict_at_home_by_what_crossed_and_else_with_all_digits(gated):
    site = institution(gated, most=1)
    compare(site, 1)
    compare(site, 2)
    results, problems = results_of(site.folder)
    assert problems == [] and [result.run for result in results] == ["20261120-2", "20261120-1"]
    (table,) = {(result.rows, result.holdout_rows) for result in results}
    split = SiteSession(site.site, site.study).table
    assert table == (len(split.training), len(split.holdout("compare")))
    for result, crossed in zip(results, (False, True), strict=True):
        values = [one.value for one in (*result.arms, *result.differences) if not math.isnan(one.value)]
        assert values and all(three_digits(value) == value for value in values) == crossed


def test_an_institution_compares_with_three_digits_and_an_open_site_as_it_is(gated):
    closed = figures(compare(institution(gated), 1, run="closed"))
    opened = figures(compare(institution(gated, disclosure="open"), 1, run="open"))
    assert closed and [three_digits(number) for number in closed] == closed
    assert any(three_digits(number) != number for number in opened)


def test_an_open_site_compares_as_many_as_it_is_asked(gated):
    site = institution(gated, most=1, disclosure="open")
    assert all(figures(compare(site, by)) for by in (1, 2, 3))


def test_what_was_compared_without_figures_is_not_attacked(gated):
    site = institution(gated, most=1)
    for by, said in ((1, ""), (2, Refusal("too-many-compared", most=1, had=1))):
        compare(site, by)
        sent = model(site, by)
        attack = AuditRequest(arrays=sent.arrays, encoder=sent.encoder, attack="membership-inference")
        reply = site.answer(site.message(AUDIT, attack), run=f"20261120-{by}")
        assert (reply.error.reason if reply.has_error() else "") == said


def test_another_process_that_takes_the_last_comparison_is_seen_under_the_lock(gated, monkeypatch):
    site = institution(gated, most=1)
    leaving = Comparisons.leaving

    def and_another(self: Any, message: Message, *rest: Any) -> Any:
        found = leaving(self, message, *rest)
        monkeypatch.setattr(Comparisons, "leaving", leaving)
        compare(site, 2)
        return found

    monkeypatch.setattr(Comparisons, "leaving", and_another)
    reply = site.answer(site.message(COMPARE, model(site, 1)), run="first")
    assert not reply.has_error() and figures(reply) == []
    assert [line.facts.get("figures-stayed", False) for line in site.lines() if line.kind == "compare"] == [False, True]
    results, _ = results_of(site.folder)
    assert {result.run for result in results} == {"first", "20261120-2"}


def test_a_run_goes_on_and_its_record_says_why_there_is_no_figure(gated, conducted_through):
    site = institution(gated, most=1)
    compare(site, 1)
    outcome, grid = conducted_through(site)
    assert outcome.status == "completed", outcome
    (reply,) = [one for one in grid.replied if one.metadata.message_type == COMPARE]
    assert figures(reply) == []
    with RunReader.open() as reader:
        run = next(iter(reader.runs())).run
        found = report(reader, run)
        notes = [event.reason for event in reader.events([run]) if event.kind == "note"]
    why = Refusal("too-many-compared", most=1, had=1)
    assert f"withheld by the site's policy: {why}" in notes
    assert site_verdict(found["sites"]["site-01"], "roc_auc_score")[1] == (f"This site withholds AUC: {why}.")
    assert found["sites"]["site-02"]["difference"]


def test_of_a_ledger_that_was_begun_anew_all_comparisons_count_as_used(gated):
    site = institution(gated)
    assert figures(compare(site, 1))
    site.folder.ledger.unlink()
    restart(site.folder, by="Dr Kim", why="the disk was lost", epsilon=None)
    site.approve()
    site.open()
    assert figures(compare(site, 2)) == []


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
def test_thresholds_a_row_apart_read_outcomes_until_the_count_ends_them(gated, small_study: str, most: int, read: int):
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
        arms = CompareReply.from_record(reply.content).arms
        briers += [one.value for one in arms if (one.arm, one.metric) == ("global", "brier_score_loss")]
    moved = np.diff(briers)
    # One row more is scored 0.21 in place of 0.79: with the outcome that costs, without it gains.
    guessed = np.where(np.abs(moved) < 1e-9, -1, (moved > 0).astype(int))
    told = ~np.isnan(moved)
    assert told.sum() == read
    assert (guessed[told] == true[FIRST : FIRST + 11][told]).all() and set(true[FIRST : FIRST + 11]) == {-1, 0, 1}


def test_a_person_adds_comparisons_on_record_and_reads_how_many_are_left(gated):
    site = institution(gated, most=1)
    assert figures(compare(site, 1))
    (words,) = describe_comparisons(counted_comparisons(site.folder, site.site, site.study), site.site, "small", 2)
    assert words.startswith(
        "Comparisons: figures over test rows of 'small' may be released for 0 more models, of 1. "
        "All coordinators, studies and runs count together. "
    )
    assert "This approval adds 2 (--compared)." in words and words.endswith(render("budget.comparisons.reveals"))
    assert figures(compare(site, 2)) == []
    add_comparisons(site.folder, site.study, 2, by="Dr Kim")
    line = site.lines()[-1]
    assert (line.kind, line.facts["by"], line.facts["dataset"]) == ("compared-added", "Dr Kim", "small")
    # The gate that runs sees it, and another one does.
    assert [figures(compare(site, by)) != [] for by in (2, 3, 4)] == [True, True, False]
    site.open()
    assert figures(compare(site, 4, run="another")) == []
    assert comparisons_left(site.folder, site.site.policy, site.site.datasets) == [
        {"dataset": "small", "remaining": 0, "most": 3}
    ]


def test_who_adds_to_another_dataset_adds_none_here(gated):
    site = institution(gated, most=1)
    compare(site, 1)
    other = site.study.replace({"dataset.name": "heart-disease"})
    add_comparisons(site.folder, other, 9, by="Dr Kim")
    assert figures(compare(site, 2)) == []


def test_nothing_is_added_to_a_ledger_that_was_lost(gated):
    site = institution(gated)
    compare(site, 1)
    site.folder.ledger.unlink()
    with pytest.raises(LedgerLost, match="nothing may leave"):
        add_comparisons(site.folder, site.study, 2, by="Dr Kim")
    restart(site.folder, by="Dr Kim", why="the disk was lost", epsilon=None)
    site.approve()
    add_comparisons(site.folder, site.study, 1, by="Dr Kim")
    site.open()
    assert [figures(compare(site, by)) != [] for by in (2, 3)] == [True, False]


def test_an_open_site_has_no_words_of_it(gated):
    site = institution(gated, disclosure="open")
    assert counted_comparisons(site.folder, site.site, site.study) is None
    assert (
        describe_comparisons(None, site.site, "small")
        == comparisons_left(site.folder, site.site.policy, site.site.datasets)
        == []
    )


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
    # The other way round, too, and for a gate that was started anew.
    assert asked_to_compare(site, 2, "later") == ""
    site.open()
    assert evaluated(site, 1, "later") == other and evaluated(site, 2, "later") == ""
    # The model of an earlier round, as of a run that takes its best one.
    first = TrainRequest.from_record(site.trained(round=1).content)
    assert not site.answer(site.trained(round=1), run="best").has_error()
    assert evaluated(site, 3, "best") == ""
    best = CompareRequest(arrays=first.arrays, encoder=first.encoder)
    assert asked_to_compare(site, 4, "best") == other
    assert not site.answer(site.message(COMPARE, best), run="best").has_error()
    # Of a site that was away while the others evaluated.
    assert asked_to_compare(site, 5, "away") == ""


def test_counts_by_prediction_stay_with_the_figures_of_one_model_too_many(gated):
    site = institution(gated, most=1, outputs=("score-histogram",))
    first, second = (CompareReply.from_record(compare(site, by).content).histogram for by in (1, 2))
    assert first is not None and second is None
