"""One model a question, and few runs of a study: rows cannot be read from many exact figures of chosen models."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tomli_w
from flwr.app import Message

from flfed.deployment.gate.run_limits import request_sha256
from flfed.deployment.gate.study_policy import sha256_of
from flfed.deployment.operator.run_budget import runs_left
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.study.request_hash import asks_sha256
from flfed.study.study import Study, names
from flfed.updates.messages.compare import AUDIT, COMPARE, AuditRequest, CompareRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainRequest

OPEN = {"disclosure": "open", "resplit": True}
RUN = "20261120-abcd"


def final(site: Any, by: float = 0.0, **changes: Any) -> Message:
    """Return the evaluation of a model, which is the first one moved `by`."""
    sent = TrainRequest.from_record(site.trained(round=6, evaluate=True).content)
    arrays = {name: value + by for name, value in sent.arrays.items()}
    message: Message = site.message(EVALUATE, replace(sent, arrays=arrays, **changes))
    return message


def compared(site: Any, by: float = 0.0) -> Message:
    sent = TrainRequest.from_record(final(site, by).content)
    message: Message = site.message(COMPARE, CompareRequest(arrays=sent.arrays, encoder=sent.encoder))
    return message


def said(reply: Message) -> str:
    return str(reply.error.reason) if reply.has_error() else ""


@pytest.mark.parametrize(("build", "word"), [(final, "evaluate"), (compared, "compare")])
def test_a_run_has_one_model_evaluated_and_one_compared(gated, build: Any, word: str):
    site = gated(policy=Policy(**OPEN, runs=2))
    other = f"it was asked to {word} another model in this run"
    for run in ("one", "two"):
        assert said(site.answer(build(site), run=run)) == ""
        assert [said(site.answer(build(site, by), run=run)) for by in (1e-9, 0.5)] == [other, other]
    # By the ledger: nor does it answer after a restart of the gate.
    site.open()
    assert said(site.answer(build(site, 0.5), run="one")) == other
    assert said(site.answer(build(site), run="one")) == ""
    # No update left, and a run is one for all that.
    assert said(site.answer(build(site), run="three")).endswith("2 runs of a study have answers, and 2 had them")
    assert [line.kind for line in site.lines()].count(word) == 3


@pytest.mark.studies
def test_a_coordinator_that_asks_for_many_models_gets_few_figures_and_spends_none(gated, small_study: str):
    # Of losses of models of its own choice it reads rows: their kinks are where the values of a column are.
    text = small_study.replace("epochs = 1", "steps = 4") + '[privacy]\nname = "record-dp"\nsampling = 0.2\n'
    site = gated(text, policy=Policy(epsilon=9.0, runs=2))
    replies = [
        site.answer(build(site, by), run=f"2026-{run}", repeat=repeat)
        for run, repeat in ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0))
        for by in (0.0, 0.5, 1.0)
        for build in (final, compared)
    ]
    answered = [reply for reply in replies if not reply.has_error()]
    assert (len(replies), len(answered)) == (30, 4)
    assert [line.kind for line in site.lines() if line.kind not in ("snapshot", "refused")] == [
        "evaluate", "compare",
    ] * 2  # fmt: skip


def test_each_repeat_is_a_run_and_a_name_is_of_one_study(gated):
    site = gated(policy=Policy(**OPEN, runs=2))
    for repeat, answer in ((0, True), (1, True), (2, False), (0, True)):
        assert (said(site.answer(final(site), repeat=repeat)) == "") is answer
    assert [line.facts["repeat"] for line in site.lines()] == [0, 1, 2, 0]
    text = site.study.text.replace("lr = ", "lr = 1")
    site.approve(type(site.study).parse(text))
    assert said(site.answer(final(site), study=text)) == Refusal("ledger-other-study")
    assert said(site.answer(final(site), study=text, run="another")) == ""


def test_a_round_is_trained_from_one_model(gated):
    site = gated()
    assert said(site.answer(site.trained())) == ""
    sent = TrainRequest.from_record(site.trained().content)
    other = replace(sent, arrays={name: value + 1 for name, value in sent.arrays.items()})
    assert said(site.answer(site.message(TRAIN, other))) == (
        "it was asked to train from another model in round 1 of this run"
    )
    assert said(site.answer(site.message(TRAIN, replace(other, round=2)))) == ""


def test_a_model_is_attacked_only_where_its_comparison_left(gated):
    site = gated()
    sent = CompareRequest.from_record(compared(site).content)
    attack = AuditRequest(arrays=sent.arrays, encoder=sent.encoder, attack="membership-inference")
    message = site.message(AUDIT, attack)
    assert said(site.answer(message)) == Refusal("not-compared")
    # That it was evaluated is not enough.
    assert said(site.answer(final(site))) == ""
    assert said(site.answer(message)) == Refusal("not-compared")
    assert said(site.answer(compared(site))) == ""
    assert said(site.answer(message)) == "" and said(site.answer(message, repeat=1)) == Refusal("not-compared")
    assert request_sha256(message) == request_sha256(compared(site)) != request_sha256(compared(site, 1e-9))


def test_only_the_final_model_is_evaluated(gated, small_study: str):
    site = gated()
    assert site.refusal(final(site)) is None
    for round in (1, 5, 7):
        assert "has a value 'round' that does not fit" in site.refusal(final(site, round=round))
    early = small_study.replace("l2 = 0.01", "l2 = 0.01\nvalidation = 0.3").replace(
        'name = "fedavg"', 'name = "fedavg"\npatience = 1'
    )
    assert "patience" in early
    site = gated(early)
    assert [site.refusal(final(site, round=round)) is None for round in (1, 2, 6, 7)] == [False, True, True, False]


def turned(table: dict[str, Any]) -> dict[str, Any]:
    """Return a study's tables with their keys in the other order."""
    return {key: turned(one) if isinstance(one, dict) else one for key, one in reversed(table.items())}


SAME: dict[str, Callable[[str], str]] = {
    "blank": lambda text: text.replace("lr = ", "lr =  "), "comment": lambda text: f"# Another day.\n{text}",
    "name": lambda text: text.replace('name = "small"', 'name = "small-2"', 1),
    "purpose": lambda text: text.replace('purpose = "', 'purpose = "Again: '),
    "seed": lambda text: text.replace("seed = 7", "seed = 8"),
    "date": lambda text: text.replace("seed = 7", "expires = 2027-01-31\nseed = 7"),
    "order": lambda text: tomli_w.dumps(turned(tomllib.loads(text))),
    "default": lambda text: text.replace("epochs = 1", 'epochs = 1\nmomentum = 0.0\nschedule = "constant"'),
}  # fmt: skip
"""Texts that ask the same as another one."""


def run_of_another_text(site: Any, text: str, run: str = "another") -> str:
    """Approve a text beside the first one's, which had its run; return what the site says to a comparison by it."""
    site.approve(type(site.study).parse(text))
    return said(site.answer(compared(site), study=text, run=run))


@pytest.mark.parametrize("change", SAME)
def test_texts_that_ask_the_same_share_their_runs(gated, small_study: str, change: str, monkeypatch):
    site, text = gated(policy=Policy(**OPEN, runs=1)), SAME[change](small_study)
    assert text != small_study
    assert said(site.answer(compared(site))) == ""
    # It holds by the ledger, after a restart of the gate.
    site.open()
    assert run_of_another_text(site, text) == Refusal("too-many-runs", most=1, had=1)
    other = small_study.replace("lr = ", "lr = 1")
    assert run_of_another_text(site, other) == ""
    # Counted by its text, each would have runs of its own.
    monkeypatch.setattr("flfed.deployment.gate.study_policy.asks_sha256", sha256_of)
    site.open()
    assert run_of_another_text(site, text, run="by-its-text") == ""


def test_the_approval_names_studies_that_ask_the_same_and_their_runs_left(gated, small_study: str):
    site = gated(policy=Policy(**OPEN, runs=3))
    assert said(site.answer(compared(site))) == ""
    again = Study.parse(SAME["name"](small_study))
    words = runs_left(site.folder, site.site, again).paragraph()
    assert words == (
        "Runs: other approved studies make the same request of these rows: "
        f"{site.study.name} ({site.study.sha256()[:12]}). Together with this one they have 2 of 3 runs left."
    )
    words = runs_left(site.folder, site.site, Study.parse(small_study.replace("lr = ", "lr = 1"))).paragraph()
    assert words.startswith("Runs: 3 of 3 runs left.")


def test_no_two_shipped_studies_ask_the_same():
    hashes = [asks_sha256(Study.load(name).text) for name in names()]
    assert len(set(hashes)) == len(hashes)
