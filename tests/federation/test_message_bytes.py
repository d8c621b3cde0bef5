"""Bytes of whole messages, with codecs and without, against those that a site of an earlier version gets and sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.federation.engines.local_sites import find_sites
from flfed.rows.data.site import Policy
from flfed.study.study import Study
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.train import TRAIN

MLP = {
    "model.name": "mlp", "plan.precision": "float32", "strategy.rounds": 3,
    "compare.draws": 200,
}  # fmt: skip
HIDDEN = {"heart-disease": [64, 32], "preterm-birth": [64, 32], "taiwan-credit": [72, 36]}
"""For 4,000 parameters and more."""
CODECS = {"codec.name": "int8", "download": "int8"}
DIRECTIONS = {"down": "to-site", "up": "to-server"}
Bytes = dict[str, dict[str, int]]


def bytes_of(ran: Any) -> Bytes:
    """Return the bytes of a round's request and reply by direction and site, from the second round on."""
    assert ran.error is None and ran.outcome.status == "completed" and ran.reasons("fault") == {}
    found: Bytes = {}
    for name, direction in DIRECTIONS.items():
        crossed = ran.sent(TRAIN, direction)
        later = crossed[len(ran.grid.sites) :]
        assert len(later) == 2 * len(ran.grid.sites)
        sizes = [(heard.site, count_bytes(heard.message.content)) for heard in later]
        assert len(set(sizes)) == len(dict(sizes))  # each round's is like the next
        found[name] = dict(sizes)
    return found


def earlier(site: int) -> Callable[[Message], Message]:
    """Return a change of replies that makes a site one of flfed 0.2.0, which is asked and answers as it always was."""

    def change(reply: Message) -> Message:
        if reply.metadata.message_type == ENROL and reply.metadata.src_node_id == site:
            reply.content["config"]["version"] = "0.2.0"
        return reply

    return change


@pytest.fixture
def shares(conduct: Callable[..., Any], heart: Any, taiwan: Any) -> Callable[[str], dict[str, dict[str, float]]]:
    """A function that returns what share of the earlier messages' bytes a study's own are, by codec and direction."""

    def measure(name: str) -> dict[str, dict[str, float]]:
        study = Study.load(name).replace({**MLP, "model.hidden": HIDDEN[name]})
        sites = find_sites(study)
        # The figures of the issue are of replies with the counts of scores.
        policy = Policy(disclosure="open", resplit=True, outputs=("score-histogram",))
        sites = [replace(site, policy=policy) for site in sites]
        both = conduct(sites, study.text, change=earlier(1))
        heard = both.sent(TRAIN, "to-site")[0].message.content
        assert sum(value.size for value in ndarrays(heard, "arrays").values()) >= 4000
        assert {value.dtype for value in ndarrays(heard, "arrays").values()} == {np.dtype(np.float32)}
        plain, packed = bytes_of(both), bytes_of(conduct(sites, study.replace(CODECS).text))
        old = sites[0].name
        before = {way: sizes.pop(old) for way, sizes in plain.items()}
        found = {
            codec: {way: max(sizes[way].values()) / before[way] for way in DIRECTIONS}
            for codec, sizes in (("none", plain), ("int8", packed))
        }
        # The encoder is in the first request.
        first = both.sent(TRAIN, "to-site")[len(sites) - 1]
        found["none"]["first"] = count_bytes(first.message.content) / before["down"]
        return found

    return measure


@pytest.mark.parametrize(
    ("study", "down"),
    [
        ("heart-disease", 0.75),
        ("preterm-birth", 0.55),
        pytest.param("taiwan-credit", 0.75, marks=pytest.mark.proof),
    ],
)
def test_int8_both_ways_takes_less_than_a_third_of_the_bytes_and_float32_itself_less_than_before(
    study: str, down: float, shares: Callable[[str], dict[str, dict[str, float]]]
):
    found = shares(study)
    assert found["int8"]["down"] <= 0.30 and found["int8"]["up"] <= 0.30
    assert found["none"]["down"] <= down < found["none"]["first"] and found["none"]["up"] < 1
