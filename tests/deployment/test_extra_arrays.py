"""A strategy's own arrays at the gate: their shapes in both directions, what stays on the disk, and three gates."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from flfed import run
from flfed.federation.client.client import SiteClient
from flfed.study.study import Study
from flfed.updates.arrays import shapes_of
from flfed.updates.checkpoints import checkpoint
from flfed.updates.checkpoints.site_state import StateFiles
from flfed.updates.extra import STATE_PREFIX
from flfed.updates.messages.fields import content_sha256, ndarrays
from flfed.updates.messages.train import TRAIN
from tests.approval_text import details
from tests.deployment.summing import Consortium, Coordinator, forget_step

RUN = "20261120-abcd"
BAD: dict[str, tuple[Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], str]] = {
    "a value of NaN": (lambda a: {**a, "weight": a["weight"] * np.nan}, "not finite"),
    "another shape": (lambda a: {**a, "bias": np.zeros(2)}, "shape|too large"),
    "another type": (lambda a: {**a, "weight": a["weight"].astype(np.float32)}, "type"),
    "an array too many": (lambda a: {**a, "more": np.zeros(1)}, "too many"),
    "an array less": (lambda a: {"weight": a["weight"]}, "has no array 'bias'"),
}


def with_extra(content: RecordDict, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    """Change the extra arrays of a message."""
    content["extra"] = ArrayRecord({name: Array(value) for name, value in change(ndarrays(content, "extra")).items()})


@pytest.fixture
def study_of_variates(small_study: str) -> str:
    return Study.parse(small_study).replace({"strategy.name": "scaffold"}).text


@pytest.fixture
def site(gated: Any, study_of_variates: str) -> Any:
    return gated(study_of_variates)


def test_variates_come_in_leave_and_stay_and_all_are_of_the_models_shapes(site: Any):
    replies = [site.answer(site.trained(round=round)) for round in (1, 2, 3)]
    assert not any(reply.has_error() for reply in replies)
    model = site.gate._studies.messages(site.study.sha256()).model
    assert all(shapes_of(ndarrays(reply.content, "extra")) == model for reply in replies)
    state = StateFiles(site.folder.site, RUN)
    assert state.rounds() == [2, 3]  # of the last two rounds
    rows = site.gate._studies.rows_sha256(site.study.sha256())
    state.under = "\n".join((str(site.study.seed), rows, site.site.policy.model_dump_json(), site.study.text))
    for round, reply in ((2, replies[1]), (3, replies[2])):
        kept = state.before(round + 1)
        for name, value in ndarrays(reply.content, "extra").items():
            assert (kept[f"{STATE_PREFIX}{name}"] == value).all() and np.abs(value).max() > 0
    # With a variate of its own the third update is another one than that of a site that had lost it.
    fresh = site.answer(site.trained(round=3), run="20261120-fresh")
    assert (
        np.abs(ndarrays(fresh.content, "arrays")["weight"] - ndarrays(replies[2].content, "arrays")["weight"]).max() > 0
    )


@pytest.mark.parametrize("why", BAD)
def test_arrays_of_another_form_neither_come_in_nor_leave(site: Any, why: str):
    change, said = BAD[why]
    message, context = site.trained(), site.context()
    assert site.gate.refusal(message, context) is None
    reply = SiteClient(site.gate.find_site, today=lambda: site.today).app()(message, context)
    with_extra(reply.content, change)
    left = site.gate.leaving(message, reply, context)
    assert left.has_error() and "its train reply is held back: its section 'extra' " in left.error.reason
    assert any(word in left.error.reason for word in said.split("|")), left.error.reason
    with_extra(message.content, change)
    refused = site.refusal(message)
    assert "the train message does not fit the study: its section 'extra' " in refused
    assert any(word in refused for word in said.split("|")), refused


def test_a_study_without_such_arrays_takes_and_gives_none(gated: Any, site: Any):
    plain = gated()
    message = plain.trained()
    message.content["extra"] = site.trained().content["extra"]
    assert "it has 1 section too many" in plain.refusal(message)
    message = site.trained()
    del message.content["extra"]
    assert "it has no section 'extra'" in site.refusal(message)


def test_a_round_that_is_asked_again_gives_the_same_bits_and_other_variates_are_another_question(site: Any):
    first = [content_sha256(site.answer(site.trained(round=round)).content) for round in (1, 2)]
    forget_step(site.folder, 2)
    assert content_sha256(site.answer(site.trained(round=2)).content) == first[1]
    other = site.trained(round=2)
    with_extra(other.content, lambda arrays: {name: value + 1.0 for name, value in arrays.items()})
    assert "round 2" in site.answer(other).error.reason


def test_the_approval_says_what_leaves_with_the_update_and_what_stays(site: Any, gated: Any):
    words = " ".join(details(site.study, site.site, []))
    assert "With the update, arrays weight, bias of strategy scaffold: the mean gradient over a site's steps" in words
    assert (
        "Strategy scaffold stores arrays of its own at this site from round to round. No message contains them."
    ) in words
    assert "arrays of its own" not in " ".join(details(gated().study, gated().site, []))


def test_three_gates_end_where_one_process_does_also_after_a_crash(small_sites, study_of_variates, monkeypatch):
    study = Study.parse(study_of_variates)
    consortium = Consortium(small_sites(3, rows=80), study)
    coordinator = Coordinator(consortium)
    whole = coordinator.run()
    assert whole.status == "completed", whole.reason
    wanted = checkpoint.final(whole.run).arrays
    here = run(study, sites=list(consortium.sites.values()))
    for name, value in checkpoint.final(here.run).arrays.items():
        np.testing.assert_allclose(wanted[name], value, rtol=0, atol=1e-12)
    for fault in ("crash", "killed", "kept"):
        asked = []

        def at(site: str, kind: str, fault: str = fault, asked: list[str] = asked) -> bool | str:
            asked.append(kind)
            return fault if kind == TRAIN and asked.count(TRAIN) == 8 else False

        begun = coordinator.run(absent=at)
        ended = coordinator.run(begun.run) if begun.status != "completed" else begun
        assert ended.status == "completed", fault
        for name, value in checkpoint.final(ended.run).arrays.items():
            assert (value == wanted[name]).all(), fault
    # Of sites that forget what they kept the arrays would be others.
    monkeypatch.setattr(StateFiles, "before", lambda self, round: {})
    forgetful = checkpoint.final(coordinator.run().run).arrays
    assert max(np.abs(forgetful[name] - value).max() for name, value in wanted.items()) > 1e-4
