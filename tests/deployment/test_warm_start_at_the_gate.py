"""A run that begins with an earlier model, through a site's gate: what comes in, what leaves, and what is approved."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import Array, ArrayRecord

from flfed import Study, run
from flfed.deployment.operator.study_description import plain_words
from flfed.updates.messages.compare import COMPARE, START, CompareReply, CompareRequest
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.train import with_encoder


@pytest.fixture
def begun(small_sites: Any, small_study: str) -> str:
    """The text of a study that begins with the model of a run of these sites."""
    done = run(Study.parse(small_study), sites=small_sites(3, rows=80))
    given = {"warm-start": done.report["run"], "start-sha256": done.report["arrays-sha256"]}
    return Study.parse(small_study).replace({f"model.{name}": value for name, value in given.items()}).text


def test_the_start_comes_in_with_the_comparison_and_the_two_arms_leave(begun: str, gated: Any, conducted_through: Any):
    site = gated(begun)
    outcome, grid = conducted_through(site)
    assert outcome.status == "completed"
    (asked,) = [one for one in grid.asked if one.metadata.message_type == COMPARE]
    asked.content = with_encoder(asked.content, outcome.encoder.arrays())
    (reply,) = [one for one in grid.replied if one.metadata.message_type == COMPARE]
    assert not reply.has_error()
    assert set(CompareRequest.from_record(asked.content).start) == {"weight", "bias"}
    arms = {figure.arm for figure in CompareReply.from_record(reply.content).arms}
    assert {"warm-start", "warm-start-tuned"} <= arms
    # Of another shape it stays outside, and so does one that the study names none of.
    arrays = {name: value[:1] * 0 for name, value in ndarrays(asked.content, START).items()}
    asked.content[START] = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    assert "its section 'start' " in site.refusal(asked)


def test_a_study_that_names_no_start_takes_none(begun: str, gated: Any, conducted_through: Any, small_study: str):
    outcome, grid = conducted_through(gated(begun))
    (asked,) = [one for one in grid.asked if one.metadata.message_type == COMPARE]
    asked.content = with_encoder(asked.content, outcome.encoder.arrays())
    assert "section too many" in gated(small_study).refusal(asked)


def test_the_approval_names_the_model_and_its_hash(begun: str, gated: Any):
    site = gated(begun)
    words = " ".join(plain_words(site.study, site.site, []))
    assert f"begins with the model {site.study.warm_start} (SHA-256 of its arrays {site.study.start_sha256})" in words
    assert "does not cover what that model learned" not in words
    private = site.study.replace({"privacy.name": "site-dp", "privacy.noise": 1.0, "privacy.clip": 0.5})
    assert "does not cover what that model learned before" in " ".join(plain_words(private, site.site, []))
    assert "begins with the model" not in " ".join(plain_words(gated().study, gated().site, []))
