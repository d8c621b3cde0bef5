"""Studies whose ε covers all that leaves, behind gates: what may leave, what is charged, and the replay."""

import datetime
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from flfed import Study
from flfed.deployment.gate import study_policy
from flfed.federation.client.privacy_budget import PrivacyAccount
from flfed.federation.client.released.noised_answer import FOLDER
from flfed.records.ledger import ledger_of
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.sources import Frame
from flfed.rows.snapshots import snapshot
from flfed.rows.statistics.noised_counts import HISTOGRAMS
from flfed.rows.study_model import first_model, study_layout
from flfed.summaries.noised_scores import OWN
from flfed.summaries.summary import schema_encoder
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolRequest
from flfed.updates.messages.kinds import SCORES, STATISTIC, SUMMARISE
from flfed.updates.messages.summarise import (
    ScoresReply,
    ScoresRequest,
    StatisticReply,
    StatisticRequest,
    SummariseRequest,
)
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest
from tests.approval_text import details
from tests.deployment.summing import Consortium, Coordinator, SummingGrid
from tests.federation.test_compared_privately import COMPARED
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


def test_a_run_at_gates_is_charged_by_side_and_told_before_its_approval(gated: Consortium):
    ended = Coordinator(gated).run()
    assert ended.status == "completed", ended.reason
    with RunReader.open() as reader:
        scored = reader.summary(ended.run, "noised-scores")
    assert scored is not None and len(scored["sites"]) == 3
    for name, site in gated.sites.items():
        kinds = [line.kind for line in gated.lines(name)]
        assert (kinds.count("spent"), kinds.count("train"), kinds.count("scores"), kinds.count("statistic")) == (
            7, 3, 2, 1,
        )  # fmt: skip
        assert not {"summarise", "evaluate", "compare", "released"} & set(kinds)
        assert {line.facts.get("rows-sha256", "") for line in gated.lines(name)} == {""}
        left = [line for line in gated.lines(name) if line.kind in ("train", "scores", "statistic")]
        assert all(line.facts["charged-bytes"] == line.facts["bytes"] > 0 for line in left)
        spent = PrivacyAccount(ledger_of(gated.folders[name]), "small", site.policy).spent()
        assert 2.96 <= spent <= 3.0
    words = " ".join(details(gated.study, gated.sites["site-01"], ["site-02", "site-03"]))
    assert "which covers the whole study" in words and "no noise" not in words and "Table 1 and comparisons" in words
    assert "is compared" not in words
    # What is said of other studies is not true of this one.
    assert "no number and no size band of its rows" in words and "without a count" in words
    for said in ("band of one power", "fewer than", "exactly", "Pairs", "pairs of test rows"):
        assert said not in words, said


def test_own_models_are_compared_at_gates_and_told_before_the_approval(small_sites: Small):
    sites = [replace(site, policy=Policy(epsilon=8.1)) for site in small_sites(3, rows=2000)]
    consortium = approved(Consortium(sites, Study.parse(COMPARED)))
    words = " ".join(details(consortium.study, sites[0], ["site-02", "site-03"]))
    assert "trains a model of its own with such steps" in words and "and other comparisons" in words
    ended = Coordinator(consortium).run()
    assert ended.status == "completed", ended.reason
    found = report_of(ended.run)
    for name, site in consortium.sites.items():
        kinds = [line.kind for line in consortium.lines(name)]
        assert (kinds.count("spent"), kinds.count("train"), kinds.count("scores")) == (9, 3, 3)
        spent = PrivacyAccount(ledger_of(consortium.folders[name]), "small", site.policy).spent()
        assert 7.5 <= spent <= 8.0
        told = found["sites"][name]["difference"]["roc_auc_score"]
        assert told["low"] < told["value"] < told["high"]
    # A study that compares nothing is not asked for pairs: its gates let no such request in.
    plain_study = approved(Consortium(sites, Study.parse(STUDY)))
    asked = ScoresRequest.from_record(requests(plain_study.study)[SCORES])
    grid = SummingGrid(plain_study, run="pairs")
    message = Message(replace(asked, pairs=True).to_record(), dst_node_id=grid.nodes["site-01"], message_type=SCORES)
    (reply,) = grid.send_and_receive([message])
    assert reply.has_error()


def report_of(run: str) -> dict[str, Any]:
    with RunReader.open() as reader:
        return report(reader, run)


def requests(study: Study) -> dict[str, RecordDict]:
    """A request of each kind, as a coordinator may send it."""
    schema = datasets.load("small").schema
    arrays, encoder = first_model(study, schema), schema_encoder(study_layout(study, schema))
    asked = {"arrays": arrays, "encoder": encoder, "rounds": study.rounds}
    edges, pairs = np.arange(0, 129, 8), study.compares_privately
    return {
        ENROL: EnrolRequest(dataset="small", schema_sha256=schema.sha256()).to_record(),
        STATISTIC: StatisticRequest().to_record(),
        TRAIN: TrainRequest(round=1, lr_scale=1.0, fit=True, score=True, settings={}, **asked).to_record(),
        SCORES: ScoresRequest(arrays=arrays, encoder=encoder).to_record(),
        f"{SCORES} by class": ScoresRequest(arrays=arrays, encoder=encoder, edges=edges).to_record(),
        SUMMARISE: SummariseRequest().to_record(),
        **(
            {f"{SCORES} by pair": ScoresRequest(arrays=arrays, encoder=encoder, pairs=True).to_record()}
            if pairs
            else {}
        ),
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
    assert reply.has_error() and "does not ask for that" in reply.error.reason
    grid = SummingGrid(gated, run="first")
    message = Message(requests(gated.study)[kind], dst_node_id=grid.nodes["site-02"], message_type=kind)
    (reply,) = grid.send_and_receive([message])
    assert reply.has_error() and "does not ask for that" in reply.error.reason
    assert not [line for line in gated.lines("site-02") if line.kind == "spent"]


def test_rows_that_are_frozen_anew_are_answered_and_charged_anew_though_none_changed(small_sites: Small):
    sites = [replace(site, policy=Policy()) for site in small_sites(3, rows=1500)]
    gated = approved(Consortium(sites, Study.parse(STUDY)))

    def asked(run: str) -> np.ndarray:
        return StatisticReply.from_record(answers(gated, run)[STATISTIC].content).sums[HISTOGRAMS]

    first, again = asked("one"), asked("two")
    assert np.array_equal(first, again)
    folder, site = gated.folders["site-01"], gated.sites["site-01"]
    spent = sum(line.kind == "spent" for line in gated.lines("site-01"))
    snapshot.freeze(site, folder.frozen, None, at=datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC))
    gated.restart("site-01")
    # The same bytes once more would tell whoever asks that nobody came or left.
    assert not np.array_equal(asked("three"), first)
    assert sum(line.kind == "spent" for line in gated.lines("site-01")) > spent


def test_an_answer_is_kept_by_the_whole_hash_of_its_model(gated: Consortium):
    # By a part of it two models with equal parts could be made, which the same bytes answer where counts are equal.
    answers(gated, "one")
    names = [path.name for path in (gated.folders["site-01"].gate / FOLDER).glob("[0-9a-f]*") if "scores" in path.name]
    assert names and all(re.search(r"-scores-[0-9a-f]{64}-[0-9a-f]{16}$", name) for name in names)


def test_a_coordinator_that_asks_for_scores_of_a_round_gets_none(gated: Consortium):
    reply = TrainReply.from_record(answers(gated, "asked")[TRAIN].content)
    assert reply.scores is None and reply.loss is None and reply.offset is None
    assert reply.steps == gated.study.plan.steps


def test_scores_of_another_model_are_refused_in_a_run_and_charged_anew_in_another(gated: Consortium):
    study, grid = gated.study, SummingGrid(gated, run="one")
    asked = requests(study)
    first = answers(gated, "one")
    spent = sum(line.kind == "spent" for line in gated.lines("site-01"))
    other = ScoresRequest.from_record(asked[SCORES])
    moved = replace(other, arrays={name: value + 1 for name, value in other.arrays.items()}).to_record()
    node = grid.nodes["site-01"]
    (reply,) = grid.send_and_receive([Message(moved, dst_node_id=node, message_type=SCORES)])
    assert reply.has_error() and "another model" in reply.error.reason
    # The same again: the same counts, and nothing is spent.
    (again,) = grid.send_and_receive([Message(asked[SCORES], dst_node_id=node, message_type=SCORES)])
    counts = [ScoresReply.from_record(one.content).counts for one in (again, first[SCORES])]
    assert np.array_equal(*counts)
    assert sum(line.kind == "spent" for line in gated.lines("site-01")) == spent


def test_a_coordinator_and_sites_that_die_change_no_answer_and_charge_none_twice(gated: Consortium):
    coordinator = Coordinator(gated)
    begun = coordinator.run(absent=lambda site, kind: "crash" if (site, kind) == ("site-02", SCORES) else False)
    assert begun.status != "completed"
    ended = coordinator.run(begun.run, absent=lambda site, kind: False)
    assert ended.status == "completed", ended.reason
    assert [sum(line.kind == "spent" for line in gated.lines(name)) for name in gated.sites] == [7, 7, 7]


def plain(message: Message) -> Mapping[str, Any]:
    """All of a reply but noised answers, and the hash of lines with keyed hashes: sections, keys, sizes, plain values."""
    if message.has_error():
        return {"error": message.error.reason}
    return {
        f"{section}.{key}": (value.dtype, tuple(value.shape)) if hasattr(value, "data") else value
        for section, record in message.content.items()
        for key, value in record.items()
        if key != "ledger-head"
    }


@pytest.mark.parametrize("text", [STUDY, COMPARED], ids=["", "own models compared"])
def test_sites_of_other_rows_with_the_same_noised_answers_send_the_same(text: str, small_sites: Small, monkeypatch):
    """Replay: sizes, numbers of rows, steps and errors follow from noised answers, and those as they were recorded."""
    sent: list[dict[str, Mapping[str, Any]]] = []
    counts: list[dict[str, np.ndarray]] = []
    home = os.environ["FLFED_HOME"]
    for rows in (1500, 1900):
        monkeypatch.setenv("FLFED_HOME", f"{home}-{rows}")
        site = replace(small_sites(1, rows=rows)[0], policy=Policy(minimum_cohort=2))
        if rows == 1900:  # and one class alone
            site = replace(site, source=Frame(site.source.table.assign(y="no")))  # type: ignore[union-attr]
        consortium = approved(Consortium([site, replace(small_sites(2)[1], policy=site.policy)], Study.parse(text)))
        answers(consortium, "first")
        for kept in (consortium.folders["site-01"].gate / FOLDER).glob("[0-9a-f]*"):
            if OWN in kept.name:  # a model, which does not leave
                continue
            content = kept.read_bytes()
            recorded = 40.0 + np.arange((len(content) - 48) // 8, dtype="<f8") % 7
            kept.write_bytes(content[:48] + recorded.tobytes())
        consortium.restart("site-01")
        found = answers(consortium, "second")
        sent.append({name: plain(message) for name, message in found.items()})
        counts.append({
            STATISTIC: np.concatenate(
                [np.ravel(one) for one in StatisticReply.from_record(found[STATISTIC].content).sums.values()]
            ),
            SCORES: ScoresReply.from_record(found[SCORES].content).counts,
        })  # fmt: skip
    assert sent[0] == sent[1]
    for name, recorded in counts[0].items():
        assert np.array_equal(recorded, counts[1][name]), name
    assert (f"{SCORES} by pair" in sent[0]) == (text == COMPARED)
    assert not any("error" in reply for name, reply in sent[0].items() if name.startswith(SCORES))
    # The number of rows that an update stands for is that of the recorded counts: 40 and a little a cell.
    assert sent[0][TRAIN]["metrics.num-examples"] > 100
    assert sent[0][TRAIN]["metrics.num-examples"] not in (1500, 1900)


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
