"""Packed arrays at the gate and at the guard, and requests that name the encoder by its hash."""

import shutil
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict

from flfed.deployment.gate.gate import Gate
from flfed.federation.client.client import SiteClient
from flfed.records.site_state import state_of
from flfed.study.study import Study
from flfed.updates.arrays import shapes_of
from flfed.updates.checkpoints.site_state import StateFiles
from flfed.updates.codec import codec_of
from flfed.updates.messages.fields import content_sha256, ndarrays
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.train import ENCODER_MISSING, TRAIN
from tests.approval_text import details
from tests.deployment.conftest import CountingFrame
from tests.deployment.summing import forget_step

RUN = "20261120-abcd"
CODECS = {
    "int8": '[codec]\nname = "int8"\n',
    "top-k": '[codec]\nname = "top-k"\nshare = 0.5\n',
}
BAD: dict[str, tuple[str, Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], str]] = {
    "a scale of NaN": ("int8", lambda a: {**a, "scales": a["scales"] * np.float32("nan")}, "not finite"),
    "an infinite scale": ("int8", lambda a: {**a, "scales": a["scales"] + np.float32("inf")}, "not finite"),
    "a scale of zero": ("int8", lambda a: {**a, "scales": a["scales"] * 0}, "not above 0"),
    "a scale below zero": ("int8", lambda a: {**a, "scales": -a["scales"]}, "not above 0"),
    "one entry more": ("int8", lambda a: {**a, "values": np.append(a["values"], np.int8(1))}, "shape|too large"),
    "one entry less": ("int8", lambda a: {**a, "values": a["values"][:-1]}, "shape"),
    "another type": ("int8", lambda a: {**a, "values": a["values"].astype(np.uint8)}, "type|dtype"),
    "no scales": ("int8", lambda a: {"values": a["values"]}, "has no array 'scales'|names of arrays"),
    "a place twice": ("top-k", lambda a: {**a, "indexes": a["indexes"] * 0}, "ascending"),
    "a place out of range": ("top-k", lambda a: {**a, "indexes": a["indexes"] + np.uint16(60_000)}, "out of range"),
    "an infinite value": ("top-k", lambda a: {**a, "values": a["values"] + np.float32("inf")}, "not finite"),
}


def with_arrays(content: RecordDict, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    """Change the arrays of a message."""
    changed = change({name: value.copy() for name, value in ndarrays(content, "arrays").items()})
    content["arrays"] = ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in changed.items()})


@pytest.mark.parametrize("codec", CODECS)
def test_a_packed_update_leaves_and_is_of_the_studys_shapes(gated, small_study, codec):
    site = gated(small_study + CODECS[codec])
    message = site.trained()
    reply = site.answer(message)
    assert not reply.has_error(), reply.error.reason
    model = site.gate._studies.messages(site.study.sha256()).model
    found = shapes_of(ndarrays(reply.content, "arrays"))
    assert found == codec_of(site.study).shapes(model)
    (line,) = [line for line in site.lines() if line.kind == "train"]
    assert line.facts["bytes"] == count_bytes(reply.content)


@pytest.mark.parametrize("why", BAD)
def test_a_badly_packed_update_does_not_leave(gated, small_study, why: str):
    codec, change, said = BAD[why]
    site = gated(small_study + CODECS[codec])
    message, context = site.trained(), site.context()
    assert site.gate.refusal(message, context) is None
    reply = SiteClient(site.gate.find_site, today=lambda: site.today).app()(message, context)
    with_arrays(reply.content, change)
    left = site.gate.leaving(message, reply, context)
    assert left.has_error() and "its train reply is held back: its section 'arrays' " in left.error.reason
    assert any(word in left.error.reason for word in said.split("|")), left.error.reason


@pytest.mark.parametrize("why", BAD)
def test_the_guard_sets_a_site_aside_whose_update_is_badly_packed_and_says_why(conduct, small_sites, small_study, why):
    codec, change, said = BAD[why]

    def spoil(reply: Message) -> Message:
        if reply.metadata.message_type == TRAIN and reply.metadata.src_node_id == 2:
            with_arrays(reply.content, change)
        return reply

    ran = conduct(small_sites(4), small_study + CODECS[codec], change=spoil)
    assert ran.outcome.status == "completed" and ran.outcome.rounds == 5
    faults = ran.reasons("refused") | ran.reasons("fault")
    assert list(faults) == ["site-02"] and any(word in faults["site-02"] for word in said.split("|")), faults


def test_a_request_by_hash_is_answered_and_hashed_as_if_it_had_crossed_whole(gated, small_study):
    site, twin = gated(), gated()
    first = site.answer(site.trained())
    assert not first.has_error()
    by_hash = site.answer(site.trained(round=2, holder=True))
    whole = twin.answer(twin.trained(round=2), run="20261120-other")
    assert content_sha256(by_hash.content) == content_sha256(whole.content)
    with state_of(site.folder).transaction() as step:
        of_second = "SELECT request FROM steps WHERE round = 2"
        hashes = {request for (request,) in step.tables.execute(of_second)}
    with state_of(twin.folder).transaction() as step:
        hashes |= {request for (request,) in step.tables.execute(of_second)}
    assert len(hashes) == 1


def test_a_gate_that_lost_the_encoder_says_so_and_takes_it_whole(gated):
    site = gated()
    site.answer(site.trained())
    shutil.rmtree(StateFiles(site.folder.site, RUN).folder)
    lost = site.answer(site.trained(round=2, holder=True))
    assert lost.has_error() and lost.error.reason == str(ENCODER_MISSING)
    assert not site.answer(site.trained(round=2)).has_error()
    assert not site.answer(site.trained(round=3, holder=True)).has_error()
    again = Gate(site.folder, site.site, today=lambda: site.today)  # a new process
    assert not again.answer(site.trained(round=4, holder=True), site.context()).has_error()


def test_an_encoder_that_was_changed_on_the_disk_is_not_used(gated):
    site = gated()
    site.answer(site.trained())
    path = StateFiles(site.folder.site, RUN).folder / "encoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert site.answer(site.trained(round=2, holder=True)).error.reason == str(ENCODER_MISSING)


def test_what_top_k_leaves_out_is_on_the_sites_disk_alone_and_is_added_to_the_next_update(gated, small_study):
    text = small_study + CODECS["top-k"]
    site = gated(text)
    replies = [site.answer(site.trained(round=round)) for round in (1, 2, 3)]
    state = StateFiles(site.folder.site, RUN)
    assert state.rounds() == [2, 3]  # of the last two rounds
    assert state.before(3) == {}  # to who does not know the seed, rows, policy and study that it is of
    rows = site.gate._studies.rows_sha256(site.study.sha256())
    state.under = "\n".join((str(site.study.seed), rows, site.site.policy.model_dump_json(), site.study.text))
    codec, model = codec_of(site.study), site.gate._studies.messages(site.study.sha256()).model
    # The model sent is the same each round and the batches differ: what was left is what explains the difference.
    plain = gated(small_study).answer(site.trained(round=3), run="20261120-plain")
    sent = codec.decode(ndarrays(replies[2].content, "arrays"), model)
    delta, before, after = ndarrays(plain.content, "arrays"), state.before(3), state.before(4)
    for name, value in delta.items():
        np.testing.assert_allclose(sent[name] + after[name], value + before[name], rtol=0, atol=1e-7)
        assert np.abs(before[name]).max() > 0 or name == "bias"
    for reply in replies:
        assert set(reply.content["arrays"]) == {"values", "indexes"}


def test_a_round_that_is_asked_again_leaves_the_same_update_whatever_was_left_out_since(gated, small_study):
    site = gated(small_study + CODECS["top-k"])
    first = [content_sha256(site.answer(site.trained(round=round)).content) for round in (1, 2)]
    forget_step(site.folder, 2)
    assert content_sha256(site.answer(site.trained(round=2)).content) == first[1]


def test_the_approval_names_the_codec_what_it_reveals_and_what_stays(gated, small_study):
    said = {
        codec: " ".join(details(Study.parse(small_study + text), gated().site, [])) for codec, text in CODECS.items()
    }
    assert all(f"Codec {codec} packs the update: " in words for codec, words in said.items())
    assert all("It protects nothing." in words for words in said.values())
    stays = "The part of an update that the codec drops stays at this site."
    assert [codec for codec, words in said.items() if stays in words] == ["top-k"]
    assert "codec" not in " ".join(details(gated().study, gated().site, [])).lower()


def test_what_was_left_out_of_other_rows_goes_into_no_later_update(gated, small_study):
    text = small_study + CODECS["top-k"]
    site = gated(text)
    site.answer(site.trained())
    assert StateFiles(site.folder.site, RUN).rounds() == [1]
    # People withdrew: their rows are taken out, what is left is frozen and approved anew.
    site.open(source=CountingFrame(site.site.source.table.iloc[20:]))
    site.freeze()
    site.approve()
    again = site.answer(site.trained(round=2))
    fresh = site.answer(site.trained(round=2), run="20261120-fresh")
    assert not again.has_error() and content_sha256(again.content) == content_sha256(fresh.content)
