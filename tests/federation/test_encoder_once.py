"""The encoder crosses whole once after each enrolment, then as its hash; who has lost it is sent it again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message
from sqlalchemy import text

from flfed.errors import RunStopped
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.server.run import resume, run
from flfed.records.store.database import engine_to_read, store_url
from flfed.study.plan import Plan
from flfed.study.study import Study
from flfed.updates.aggregation.rounds import Participant, Round, RunContext
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.train import (
    ENCODER_MISSING,
    ENCODER_SHA256,
    EVALUATE,
    TRAIN,
    TrainRequest,
    lacks_encoder,
    with_encoder,
)
from tests.federation.test_resume import killer, newest


def crossings(conducted: Any, site: str) -> list[tuple[str, bool]]:
    """Return the kinds of the requests that brought a model, and whether the encoder was whole in them."""
    heard = [one for one in conducted.grid.heard if one.direction == "to-site" and one.site == site]
    return [(one.kind, "encoder" in one.message.content) for one in heard if one.kind in (TRAIN, EVALUATE, COMPARE)]


def test_the_encoder_crosses_whole_in_the_first_request_and_as_its_hash_from_then_on(plain):
    rounds = plain.outcome.rounds
    for site in plain.grid.sites:
        found = crossings(plain, site)
        assert found == [(TRAIN, True), *[(TRAIN, False)] * (rounds - 1), (EVALUATE, False), (COMPARE, False)]
    named = {h.message.content["config"][ENCODER_SHA256] for h in plain.sent(TRAIN, "to-site")}
    assert named == {plain.outcome.encoder.sha256()}


def to_sites(run: str) -> dict[tuple[str, int], int]:
    """Return the bytes of the requests to train, by site and round, as the store has them."""
    query = text("SELECT site, round, bytes FROM sent WHERE run_id = :run AND kind = 'train' AND direction = 'to-site'")
    engine = engine_to_read(store_url())
    with engine.connect() as connection:
        found = {(site, round): size for site, round, size in connection.execute(query, {"run": run})}
    engine.dispose()
    return found


def test_the_record_has_the_bytes_of_what_crossed(conduct, small_sites, small_study):
    plain = conduct(small_sites(3), small_study)
    heard = Counter()
    for one in plain.sent(TRAIN, "to-site"):
        heard[one.site, one.message.content["config"]["round"]] += count_bytes(one.message.content)
    told = to_sites(plain.run)
    assert told == dict(heard)
    first, later = (told["site-01", number] for number in (1, 2))
    assert first - later == count_bytes({"encoder": plain.sent(TRAIN, "to-site")[0].message.content["encoder"]})


@pytest.mark.parametrize(("kind", "round"), [(TRAIN, 3), (EVALUATE, 6), (COMPARE, 0)])
def test_a_site_that_lost_the_encoder_says_so_and_is_asked_again_in_the_same_round(
    kind: str, round: int, conduct, small_sites, small_study, monkeypatch
):
    same, plainly = conduct(small_sites(3), small_study), InProcessGrid.context_of

    def forgetful(grid: InProcessGrid, message: Message) -> Context:
        context, config = plainly(grid, message), message.content["config"]
        asked = (message.metadata.message_type, config.get("round", 0))
        if context.node_config["site"] == "site-02" and asked == (kind, round) and lacks_encoder(message.content):
            del context.state["encoder"]
        return context

    monkeypatch.setattr(InProcessGrid, "context_of", forgetful)
    ran = conduct(small_sites(3), small_study)
    assert ran.outcome.status == "completed" and ran.reasons("fault") == {}
    heard = [h for h in ran.sent(kind, "to-site") if h.message.content["config"].get("round", 0) == round]
    whole = {site: ["encoder" in h.message.content for h in heard if h.site == site] for site in ran.grid.sites}
    assert whole == {"site-01": [False], "site-02": [False, True], "site-03": [False]}
    errors = [str(h.message.error.reason) for h in ran.grid.heard if h.message.has_error()]
    assert errors == [str(ENCODER_MISSING)]
    for name, value in same.outcome.arrays.items():
        np.testing.assert_array_equal(value, ran.outcome.arrays[name])
    if kind == TRAIN:  # both requests are counted
        bytes_of = [count_bytes(h.message.content) for h in heard if h.site == "site-02"]
        assert to_sites(ran.run)["site-02", round] == sum(bytes_of)


def test_an_encoder_that_is_not_the_one_its_hash_names_is_refused(plain):
    content = plain.sent(TRAIN, "to-site")[-1].message.content
    encoder = plain.outcome.encoder.arrays()
    with pytest.raises(MalformedMessage, match=str(ENCODER_MISSING)):
        TrainRequest.from_record(content)
    assert TrainRequest.from_record(with_encoder(content, encoder)).encoder.sha256() == plain.outcome.encoder.sha256()
    with pytest.raises(MalformedMessage, match="not the one that its hash names"):
        TrainRequest.from_record(with_encoder(content, {**encoder, "center": encoder["center"] + 1}))


def test_after_a_resume_the_encoder_crosses_whole_once_more(small_sites, small_study):
    sites = small_sites(2)
    with pytest.raises(RunStopped):
        run(Study.parse(small_study), sites=sites, observer=killer("round", 2))
    stopped = newest()
    resume(stopped, sites=sites)
    sent = to_sites(stopped)
    first, second, third, fourth = (sent["site-01", number] for number in (1, 2, 3, 4))
    assert first == third > second == fourth


def test_a_site_without_the_encoder_is_not_asked_again_when_no_time_is_left(plain):
    participants = {"a": Participant(node_id=1, rows_high=99, version="0.3.0")}
    encoder = plain.outcome.encoder
    run = RunContext(participants=participants, encoder=encoder, plan=Plan(), rounds=3, seed=1)
    run.delivery.holders.add("a")
    now, times = Round(asked={"a": 1}), []
    request = TrainRequest(arrays=plain.outcome.arrays, encoder=encoder, round=2, rounds=3)
    (asked,) = now.messages(request, run)
    assert "encoder" not in asked.content
    asked.metadata.__dict__["_message_id"] = "1"
    lost = Message(Error(code=1, reason=str(ENCODER_MISSING)), reply_to=asked)

    def send(messages: Any, *, timeout: float) -> list[Message]:
        times.append(timeout)
        return [lost]

    seconds = iter((0.0, 60.0))
    assert now.exchange(send, [asked], 60.0, lambda: next(seconds)) == [lost] and times == [60.0]
    assert run.delivery.holders == set()  # so that the next request to it brings the encoder
