"""Through the gate: a validation scores the approved model on all rows of an institution, and nothing is trained."""

import math
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.evaluation.scoring import three_digits
from flfed.rows.features.encode import input_names
from flfed.rows.session import SiteSession
from flfed.rows.warm_start import model_sha256
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, fit_encoder
from flfed.updates.arrays import Arrays
from flfed.updates.messages.compare import COMPARE, CompareReply, CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.kinds import EVALUATE, SUMMARISE, TRAIN
from flfed.updates.messages.summarise import SummariseRequest

ROWS = 240
BROUGHT = '[model]\nname = "logistic"\nwarm-start = "a-model"\nstart-sha256 = "{sha256}"\ntrain = false\n'


def encoder_of(site: Any) -> Encoder:
    session = SiteSession(site.others[0], site.study)
    return fit_encoder(session.layout, session.summary())


def slopes(site: Any, by: float, intercept: float = 0.0) -> Arrays:
    """Return a logistic model of x1 alone, which counts so much a standard deviation."""
    weight = np.zeros((len(input_names(SiteSession(site.others[0], site.study).layout)), 1))
    weight[0] = by
    return {"weight": weight, "bias": np.array([intercept])}


def study_of(site: Any, arrays: Arrays, encoder: Encoder, seed: int) -> Study:
    """Return a validation of a model."""
    text = site.small_study.replace('[model]\nname = "logistic"\n', BROUGHT).replace("seed = 7", f"seed = {seed}")
    text = text.replace("[compare]\n", "[compare]\ncalibration = true\n")
    sha256 = model_sha256(Study.parse(text.format(sha256="0" * 64)), datasets.load("small").schema, arrays, encoder)
    return Study.parse(text.format(sha256=sha256))


def ask(site: Any, arrays: Arrays, encoder: Encoder, *, sent: Arrays | None = None, seed: int = 7) -> Message:
    """Approve a validation of a model, and ask for its figures, or for those of another model that is `sent`."""
    study = study_of(site, arrays, encoder, seed)
    site.study = study
    site.approve(study)
    request = CompareRequest(arrays=sent or arrays, encoder=encoder)
    run = f"20261120-{study.sha256()[:8]}"
    answer: Message = site.answer(site.message(COMPARE, request), study=study.text, run=run)
    return answer


@pytest.fixture
def institution(gated, small_study: str):
    def make(**policy: Any) -> Any:
        site = gated(small_study, policy=Policy(**{"runs": 100, **policy}), rows=ROWS)
        site.small_study = small_study
        return site

    return make


def figures(reply: Message) -> list[float]:
    """Return the numbers of a reply that are there."""
    compared = CompareReply.from_record(reply.content)
    numbers = [n for one in compared.arms for n in (one.value, one.low, one.high)]
    return [n for n in numbers if not math.isnan(n)]


def test_all_rows_are_scored_by_one_model_with_three_digits(institution):
    site = institution()
    reply = CompareReply.from_record(ask(site, slopes(site, 1.0), encoder_of(site)).content)
    assert (reply.num_examples, reply.holdout_rows) == (0, ROWS)
    assert {one.arm for one in reply.arms} == {"global"}
    assert (reply.differences, reply.summary) == ((), None)
    numbers = [n for one in (*reply.arms, *reply.calibration) for n in (one.value, one.low, one.high)]
    assert len(numbers) > 20
    assert all(n == three_digits(n) for n in numbers)


def test_the_ledger_has_a_comparison_and_no_update(institution):
    site = institution()
    ask(site, slopes(site, 1.0), encoder_of(site))
    kinds = [line.kind for line in site.lines()]
    assert "compare" in kinds
    assert {"train", "summarise", "evaluate"}.isdisjoint(kinds)


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE, SUMMARISE])
def test_no_other_message_is_answered(institution, kind: str):
    site = institution()
    round_message = site.trained()
    ask(site, slopes(site, 1.0), encoder_of(site))
    message = site.message(kind, SummariseRequest() if kind == SUMMARISE else round_message.content)
    enrolment = EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256())
    refused = site.refusal(message, study=site.study.text, run="20261120-abcd")
    assert refused
    assert site.refusal(site.message(ENROL, enrolment), study=site.study.text, run="20261120-abce") is None


@pytest.mark.parametrize("other", ["arrays", "encoder"])
def test_another_model_than_the_approved_one_is_refused(institution, other: str):
    site = institution()
    arrays, encoder = slopes(site, 1.0), encoder_of(site)
    if other == "arrays":
        answer = ask(site, arrays, encoder, sent=slopes(site, 1.0, 1e-9))
    else:
        ask(site, arrays, encoder)
        scale = encoder.scale * 1.5
        moved = Encoder(**{**encoder.arrays(), "scale": scale})
        message = site.message(COMPARE, CompareRequest(arrays=arrays, encoder=moved))
        answer = site.answer(message, study=site.study.text, run="20261120-abcd")
    assert answer.has_error()
    assert "not the one whose hash was approved" in answer.error.reason


def test_the_same_model_gives_the_same_bits_in_a_study_with_another_seed(institution):
    site = institution()
    arrays, encoder = slopes(site, 1.0), encoder_of(site)
    first, second = (figures(ask(site, arrays, encoder, seed=seed)) for seed in (7, 8))
    assert first == second


def test_a_site_with_a_privacy_budget_refuses_a_study_that_no_noise_protects(institution):
    site = institution(epsilon=5.0)
    answer = ask(site, slopes(site, 0.5), encoder_of(site))
    assert "has a budget of it" in answer.error.reason
