"""Studies whose ε covers all that leaves, behind gates: what may leave, what is charged, and the replay."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from flfed import Study
from flfed.deployment.gate import study_policy
from flfed.federation.client.account import spent_at
from flfed.records.store.reader import RunReader
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.sources import Frame
from flfed.rows.statistics.noised_analysis import GaussianQuery
from flfed.rows.study_model import first_model, study_layout
from flfed.summaries.summary import schema_encoder
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.kinds import SCORES, STATISTIC, SUMMARISE
from flfed.updates.messages.summarise import (
    ScoresRequest,
    StatisticRequest,
    SummariseRequest,
)
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest
from tests.approval_text import details
from tests.deployment.summing import Consortium, Coordinator, SummingGrid
from tests.federation.test_covered_study import STUDY, Small


@pytest.fixture
def gated(small_sites: Small) -> Consortium:
    """Three institutions behind gates."""
    sites = [replace(site, policy=Policy(epsilon=3.2)) for site in small_sites(3, rows=1500)]
    return approved(Consortium(sites, Study.parse(STUDY)))


def approved(consortium: Consortium) -> Consortium:
    """Approve a consortium's present study at each gate."""
    for name in consortium.sites:
        consortium.approve(name)
    return consortium


def test_a_run_at_gates_is_charged_and_told_before_its_approval(gated: Consortium):
    ended = Coordinator(gated).run()
    assert ended.status == "completed", ended.reason
    with RunReader.open() as reader:
        scored = reader.summary(ended.run, "noised-scores")
    assert scored is not None and len(scored["sites"]) == 3
    for name in gated.sites:
        kinds = [line.kind for line in gated.lines(name)]
        assert (kinds.count("spent"), kinds.count("train"), kinds.count("scores"), kinds.count("statistic")) == (
            1, 3, 1, 2,
        )  # fmt: skip
        assert not {"summarise", "evaluate", "compare", "snapshot"} & set(kinds)
        assert {line.facts.get("rows-sha256", "") for line in gated.lines(name)} == {""}
        left = [line for line in gated.lines(name) if line.kind in ("train", "scores", "statistic")]
        assert all(line.facts["charged-bytes"] == line.facts["bytes"] > 0 for line in left)
        spent = spent_at(gated.folders[name]).epsilon(1e-5)
        assert 2.96 <= spent <= 3.0
    words = " ".join(details(gated.study, gated.sites["site-01"], ["site-02", "site-03"]))
    assert "which covers the whole study" in words and "no noise" not in words and "Table 1 and comparisons" in words
    assert "is compared" not in words
    # What is said of other studies is not true of this one.
    assert "no number and no size band of its rows" in words and "without a count" in words
    for said in ("band of one power", "fewer than", "exactly", "Pairs", "pairs of test rows"):
        assert said not in words, said


def requests(study: Study) -> dict[str, RecordDict]:
    """A request of each kind, as a coordinator may send it."""
    schema = datasets.load("small").schema
    arrays, encoder = first_model(study, schema), schema_encoder(study_layout(study, schema))
    asked = {"arrays": arrays, "encoder": encoder, "rounds": study.rounds}
    return {
        ENROL: EnrolRequest(dataset="small", schema_sha256=schema.sha256()).to_record(),
        STATISTIC: StatisticRequest().to_record(),
        TRAIN: TrainRequest(round=1, lr_scale=1.0, fit=True, score=True, settings={}, **asked).to_record(),
        SCORES: ScoresRequest(arrays=arrays, encoder=encoder, centre=0.0).to_record(),
        SUMMARISE: SummariseRequest().to_record(),
        EVALUATE: TrainRequest(round=4, lr_scale=1.0, fit=False, score=True, settings={}, **asked).to_record(),
        COMPARE: CompareRequest(arrays=arrays, encoder=encoder).to_record(),
    }


def answers(consortium: Consortium, run: str, site: str = "site-01") -> dict[str, Message]:
    """What one site answers to each of them, in their order."""
    grid, found = SummingGrid(consortium, run=run), {}
    for name, content in requests(consortium.study).items():
        kind = name.partition(" by")[0]
        (found[name],) = grid.send_and_receive([Message(content, dst_node_id=grid.nodes[site], message_type=kind)])
    return found


@pytest.mark.parametrize("kind", [SUMMARISE, EVALUATE, COMPARE])
@pytest.mark.parametrize("behind_a_gate", [True, False])
def test_what_is_not_charged_is_not_answered_first_or_last(gated, kind, behind_a_gate, monkeypatch):
    if not behind_a_gate:  # the site itself refuses it, too
        monkeypatch.setattr(study_policy, "asks", lambda study, kind: True)
    reply = answers(gated, "asked")[kind]
    assert reply.has_error() and any(
        word in reply.error.reason for word in ("does not ask for that", "a later one was answered")
    )
    grid = SummingGrid(gated, run="first")
    message = Message(requests(gated.study)[kind], dst_node_id=grid.nodes["site-02"], message_type=kind)
    (reply,) = grid.send_and_receive([message])
    assert reply.has_error() and "does not ask for that" in reply.error.reason
    assert not [line for line in gated.lines("site-02") if line.kind == "spent"]


def test_a_coordinator_that_asks_for_scores_of_a_round_gets_none(gated: Consortium):
    reply = TrainReply.from_record(answers(gated, "asked")[TRAIN].content)
    assert reply.scores is None and reply.loss is None and reply.offset is None
    assert reply.steps == gated.study.plan.steps


def test_scores_of_another_model_are_refused_in_a_run(gated: Consortium):
    study, grid = gated.study, SummingGrid(gated, run="one")
    asked = requests(study)
    answers(gated, "one")
    spent = sum(line.kind == "spent" for line in gated.lines("site-01"))
    other = ScoresRequest.from_record(asked[SCORES])
    moved = replace(other, arrays={name: value + 1 for name, value in other.arrays.items()}).to_record()
    node = grid.nodes["site-01"]
    (reply,) = grid.send_and_receive([Message(moved, dst_node_id=node, message_type=SCORES)])
    assert reply.has_error() and reply.error.reason == str(Refusal("step-answered", round=0))
    assert sum(line.kind == "spent" for line in gated.lines("site-01")) == spent


def test_a_coordinator_and_sites_that_die_change_no_answer_and_charge_none_twice(gated: Consortium):
    coordinator = Coordinator(gated)
    begun = coordinator.run(absent=lambda site, kind: "crash" if (site, kind) == ("site-02", SCORES) else False)
    assert begun.status != "completed"
    ended = coordinator.run(begun.run, absent=lambda site, kind: False)
    assert ended.status == "completed", ended.reason
    assert [sum(line.kind == "spent" for line in gated.lines(name)) for name in gated.sites] == [1, 1, 1]


def plain(message: Message) -> Mapping[str, Any]:
    """All of a reply but noised answers, and hashes of lines with keyed hashes: sections, keys, sizes, plain values."""
    if message.has_error():
        return {"error": message.error.reason}
    return {
        f"{section}.{key}": (value.dtype, tuple(value.shape)) if hasattr(value, "data") else value
        for section, record in message.content.items()
        for key, value in record.items()
        if key != "ledger-head"
    }


def test_sites_of_other_rows_with_the_same_noised_answers_send_the_same(small_sites: Small, monkeypatch):
    """Replay: sizes, numbers of rows, steps and errors follow from noised answers, and those are the same here."""
    sent: list[dict[str, Mapping[str, Any]]] = []
    home = os.environ["FLFED_HOME"]
    recorded = lambda query, exact, chance: 40.0 + np.arange(exact.size).reshape(exact.shape) % 7  # noqa: E731
    monkeypatch.setattr(GaussianQuery, "answer", recorded)
    for rows in (1500, 1900):
        monkeypatch.setenv("FLFED_HOME", f"{home}-{rows}")
        site = replace(small_sites(1, rows=rows)[0], policy=Policy(minimum_cohort=2))
        if rows == 1900:  # and one class alone
            site = replace(site, source=Frame(site.source.table.assign(y="no")))  # type: ignore[union-attr]
        consortium = approved(Consortium([site, replace(small_sites(2)[1], policy=site.policy)], Study.parse(STUDY)))
        sent.append({name: plain(message) for name, message in answers(consortium, "first").items()})
    assert sent[0] == sent[1]
    assert not any("error" in reply for name, reply in sent[0].items() if name.startswith(SCORES))
    # The number of rows that an update stands for is that of the recorded counts, 40 and 41.
    assert sent[0][TRAIN]["metrics.num-examples"] == 81


def test_exact_numbers_would_show_in_the_replay(small_sites: Small, monkeypatch):
    """The faults: the same study whose ε is of updates alone tells a band of rows, their number, losses and scores."""
    home, sent = os.environ["FLFED_HOME"], []
    for rows in (1500, 1900):
        monkeypatch.setenv("FLFED_HOME", f"{home}-{rows}")
        sites = [replace(site, policy=Policy(minimum_cohort=2)) for site in small_sites(2, rows=rows)]
        consortium = approved(Consortium(sites, Study.parse(STUDY.replace('covers = "study"\n', ""))))
        found = answers(consortium, "first")
        sent.append({name: plain(message) for name, message in found.items()})
    for name in (TRAIN, COMPARE):
        assert sent[0][name] != sent[1][name], name
    assert sent[0][TRAIN]["metrics.num-examples"] != sent[1][TRAIN]["metrics.num-examples"]
    assert any(key.startswith("arms") for key in sent[0][COMPARE])
