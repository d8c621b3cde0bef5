"""The messages of an audit: each comes back as it went, or says what is wrong with it."""

import inspect
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flfed.summaries.summary import Encoder
from flfed.updates.messages.compare import MOST_FIGURES, AuditFigure, AuditReply, AuditRequest
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.in_memory import count_bytes
from tests.updates.whole_requests import through_bytes

ENCODER = Encoder(
    center=np.array([0.5, 1.0]), scale=np.array([2.0, 1.0]), frequency=np.array([0.25]), spread=np.array([0.4]),
    class_weight=np.array([1.0, 1.0]),
)  # fmt: skip
ARRAYS = {"weight": np.array([[0.5], [-1.0]]), "bias": np.array([0.25])}
REQUEST = AuditRequest(arrays=ARRAYS, encoder=ENCODER, attack="membership-inference")
FIGURE = AuditFigure(
    metric="auc-of-loss", value=0.55, low=0.5, high=0.6, promise=0.7311, verdict="within the promise", rows=120,
    method="DeLong", says="No figure: the model has no inputs.",
)  # fmt: skip
UNKNOWN = replace(FIGURE, metric="auc-of-lira", value=0.0, promise=0.0, verdict="no promise", rows=0, method="")
REPLY = AuditReply(num_examples=90, holdout_rows=30, figures=(FIGURE, UNKNOWN))


def test_messages_come_back_as_they_went():
    back = AuditRequest.from_record(through_bytes(REQUEST.to_record()))
    assert back.attack == "membership-inference" and back.encoder.sha256() == ENCODER.sha256()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(back.arrays[name], value)
    assert AuditReply.from_record(through_bytes(REPLY.to_record())) == REPLY
    nothing = replace(REPLY, figures=())
    assert AuditReply.from_record(through_bytes(nothing.to_record())) == nothing


def test_what_is_not_known_crosses_as_nan():
    reply = replace(REPLY, figures=(replace(FIGURE, value=math.nan, low=math.nan, high=math.nan, promise=math.nan),))
    [back] = AuditReply.from_record(through_bytes(reply.to_record())).figures
    assert all(math.isnan(value) for value in (back.value, back.low, back.high, back.promise))


def test_how_many_bytes_an_answer_has():
    # Two counts and the protocol; then keys, four numbers, a count and texts, and the texts by their lengths.
    counts = (8 + 8) + (12 + 8) + (12 + 8)
    keys = sum(map(len, ("metric", "value", "low", "high", "promise", "verdict", "rows", "method", "says")))
    texts = sum(len(t) for f in (FIGURE, UNKNOWN) for t in (f.metric, f.verdict, f.method, f.says))
    assert count_bytes(REPLY.to_record()) == counts + keys + 2 * 5 * 8 + texts


def test_every_message_is_frozen_and_says_what_it_reveals():
    for kind in (AuditRequest, AuditReply):
        assert kind.__dataclass_params__.frozen
        assert inspect.getdoc(kind).count("Reveals: ") == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("num-examples", -1), ("num-examples", 1.5), ("holdout-rows", -2), ("holdout-rows", None), ("protocol", 1)],
)
def test_counts_that_no_site_has_are_malformed(key: str, value: Any):
    record = through_bytes(REPLY.to_record())
    del record["config"][key]
    if value is not None:
        record["config"][key] = value
    with pytest.raises(MalformedMessage):
        AuditReply.from_record(record)


@pytest.mark.parametrize(("key", "value"), [
    ("verdict", "proved"), ("metric", "auc\x1b"), ("metric", "a" * 81), ("rows", 1.5), ("value", "0.5"),
    ("says", "a\x07"), ("says", "a" * 2001),
])  # fmt: skip
def test_figures_that_no_site_sends_are_malformed(key: str, value: Any):
    record = through_bytes(REPLY.to_record())
    record["figures"][key] = [value, value]
    with pytest.raises(MalformedMessage):
        AuditReply.from_record(record)


def test_too_many_figures_and_an_attack_of_no_such_name_are_malformed():
    most = replace(REPLY, figures=(FIGURE,) * MOST_FIGURES)
    assert len(AuditReply.from_record(most.to_record()).figures) == 16
    with pytest.raises(MalformedMessage, match="counts what no site has"):
        AuditReply.from_record(replace(REPLY, figures=(FIGURE,) * 17).to_record())
    for name in ("", "Membership", "../x", "a--b", "a_b"):
        with pytest.raises(MalformedMessage, match="attack"):
            AuditRequest.from_record(replace(REQUEST, attack=name).to_record())
