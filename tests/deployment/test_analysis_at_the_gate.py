"""Analyses behind gates: one noised answer, charged and kept; parts of the noise in secret sums; the replay."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed import Study, run
from flfed.errors import FlfedError
from flfed.federation.client.account import Account
from flfed.federation.client.protection import charge_of, colluding_epsilon
from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.sources import Frame
from flfed.rows.statistics.noised_analysis import ANSWER
from flfed.rows.study_model import first_model, study_layout
from flfed.summaries.summary import schema_encoder
from flfed.updates.accounting import Release, epsilon
from flfed.updates.messages.enrol import EnrolRequest
from flfed.updates.messages.kinds import ENROL, STATISTIC
from flfed.updates.messages.summarise import StatisticReply, StatisticRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainRequest
from tests.approval_text import details
from tests.deployment.summing import Consortium, Coordinator, SummingGrid
from tests.federation.test_analysis import STUDY, Small, analysis_of, tables


@pytest.fixture
def gated(small_sites: Small) -> Consortium:
    """Three institutions behind gates, each with a budget for two analyses and no more."""
    sites = [replace(site, policy=Policy(epsilon=1.6)) for site in small_sites(3)]
    return Consortium(sites, Study.parse(STUDY))


def test_gates_let_one_noised_answer_leave_and_charge_it(gated: Consortium):
    coordinator = Coordinator(gated)
    ended = coordinator.run()
    assert ended.status == "completed", ended.reason
    with RunReader.open() as reader:
        first = reader.summary(ended.run, "statistics")
    assert first is not None and first["sites"] == 3
    assert [line.kind for line in gated.lines("site-01") if line.kind in ("spent", "statistic")] == [
        "spent", "statistic",
    ]  # fmt: skip
    (left,) = (line for line in gated.lines("site-01") if line.kind == "statistic")
    assert left.facts["charged-bytes"] > 0.5 * left.facts["bytes"]
    # No line has what exact rows would tell: the charge names them by a keyed hash.
    rows = {line.facts.get("rows-sha256", "") for line in gated.lines("site-01")}
    assert rows == {""}
    assert sum(line.kind == "spent" for line in gated.lines("site-01")) == 1
    words = " ".join(details(gated.study, gated.sites["site-01"], ["site-02", "site-03"]))
    assert "epsilon 1 at delta 1e-05" in words and "charged to this site's account" in words
    assert "exact" not in words.replace("This study releases no exact count.", "") and "suppress" not in words
    assert "no number and no size band of its rows" in words
    # Another run of the very text has other noise, and is charged.
    again = coordinator.run()
    with RunReader.open() as reader:
        assert reader.summary(again.run, "statistics") != first
    assert sum(line.kind == "spent" for line in gated.lines("site-01")) == 2


def test_a_coordinator_or_a_site_that_dies_gets_the_same_answer(gated: Consortium):
    coordinator = Coordinator(gated)
    begun = coordinator.run(absent=lambda site, kind: "crash" if (site, kind) == ("site-03", STATISTIC) else False)
    assert begun.status != "completed"
    died = coordinator.run(
        begun.run, absent=lambda site, kind: "kept" if (site, kind) == ("site-03", STATISTIC) else False
    )
    assert died.status == "completed"
    whole = coordinator.run()
    with RunReader.open() as reader:
        two, three = (reader.summary(one.run, "statistics") for one in (died, whole))
    assert two is not None and three is not None
    assert (two["sites"], three["sites"]) == (2, 3)
    # Another run of the same text has other noise, and is charged again.
    assert not two["by-site"].items() <= three["by-site"].items()
    assert [sum(line.kind == "spent" for line in gated.lines(name)) for name in gated.sites] == [2, 2, 2]


SECRET = STUDY.replace("delta = 1e-5", 'delta = 1e-5\nsecure-aggregation = "on"')


@pytest.fixture
def in_secret(small_sites: Small) -> Consortium:
    """Four institutions behind gates, of which two have a budget."""
    policies = [Policy()] * 2 + [Policy(epsilon=1.2)] * 2
    sites = [replace(site, policy=policy) for site, policy in zip(small_sites(4, rows=400), policies, strict=True)]
    return Consortium(sites, Study.parse(SECRET))


def released(run: str) -> tuple[Any, float]:
    """Return what a run of sums released, and the deviation of the noise that is charged."""
    with RunReader.open() as reader:
        found = reader.summary(run, "statistics")
    charge = charge_of(Study.parse(SECRET))
    assert found is not None and charge is not None
    return found, charge.releases[0].noise * analysis_of(SECRET).layout(datasets.load("small").schema).sensitivity


def test_in_secret_each_site_adds_its_part_of_the_noise(in_secret: Consortium):
    coordinator = Coordinator(in_secret)
    ended = coordinator.run()
    assert ended.status == "completed", ended.reason
    found, alone = released(ended.run)
    # Of four sites three have all of the noise; four have a third more of its variance.
    assert found["deviation"] == pytest.approx(alone * np.sqrt(4 / 3))
    assert (found["sites"], found["by-site"]) == (4, {})
    rows = sum(len(tables([site])) for site in in_secret.sites.values())
    assert abs(found["rows"]["value"] - rows) < 5 * found["deviation"]
    # A third of four is one: what is left is what the promise counts on.
    assert colluding_epsilon(in_secret.study, 4) == pytest.approx(1.0, abs=0.02)
    assert all(sum(one.kind == "spent" for one in in_secret.lines(name)) == 1 for name in in_secret.sites)
    words = " ".join(details(in_secret.study, in_secret.sites["site-01"], ["site-02", "site-03", "site-04"]))
    assert "Each site adds its share of the noise" in words


def test_in_secret_what_crosses_looks_like_chance_and_without_a_site_there_is_no_sum(in_secret: Consortium):
    coordinator = Coordinator(in_secret)
    with pytest.raises(FlfedError, match="of site-04 there is none"):
        coordinator.run(absent=lambda site, kind: site == "site-04" and kind == STATISTIC)
    sent = [reply for _, message, reply in coordinator.grid.sent if message.metadata.message_type == STATISTIC]
    assert len(sent) == 3
    for reply in sent:
        answer = StatisticReply.from_record(reply.content)
        assert not answer.sums and answer.masked is not None and answer.masked.sums.max() > 2**60


@pytest.mark.parametrize("kind", [EVALUATE, TRAIN])
def test_no_message_of_a_model_is_answered(gated: Consortium, kind: str):
    schema = datasets.load("small").schema
    layout = study_layout(gated.study, schema)
    arrays = first_model(gated.study, schema)
    asked = TrainRequest(
        arrays=arrays, encoder=schema_encoder(layout), round=1, rounds=0, lr_scale=1.0, fit=kind == TRAIN, score=True,
        settings={},
    )  # fmt: skip
    grid = SummingGrid(gated, run="first")
    (reply,) = grid.send_and_receive([Message(asked.to_record(), dst_node_id=grid.nodes["site-01"], message_type=kind)])
    assert reply.has_error() and "does not ask for that" in reply.error.reason


@pytest.mark.parametrize(("sites", "honest"), [(3, 2), (4, 3), (9, 6)])
def test_a_charge_tells_what_a_third_of_the_sites_could_take_off(small_sites: Small, sites: int, honest: int):
    small_sites(0)
    charge = charge_of(Study.parse(SECRET))
    assert charge is not None
    # All but one site have the noise that is charged.
    noise = charge.releases[0].noise * np.sqrt(honest / (sites - 1))
    assert colluding_epsilon(Study.parse(SECRET), sites) == pytest.approx(
        epsilon([Release(noise, 1.0, 1)], charge.delta)
    )


def replies(consortium: Consortium, run: str) -> dict[str, bytes]:
    """What one site sends to enrol and to answer, with a plain request of each kind, as bytes; errors included."""
    grid, found = SummingGrid(consortium, run=run), {}
    enrolling = EnrolRequest(dataset="small", schema_sha256=datasets.load("small").schema.sha256())
    for kind, content in ((ENROL, enrolling.to_record()), (STATISTIC, StatisticRequest().to_record())):
        for name, node in grid.nodes.items():
            (reply,) = grid.send_and_receive([Message(content, dst_node_id=node, message_type=kind)])
            said = reply.error.reason.encode() if reply.has_error() else repr(sorted(plain(reply).items())).encode()
            found[f"{name} {kind}"] = said
    return found


def plain(reply: Message) -> Mapping[str, Any]:
    return {
        f"{section}.{key}": (value.data if hasattr(value, "data") else value)
        for section, record in reply.content.items()
        for key, value in record.items()
        if key != "ledger-head"  # the hash of lines that have rows by a keyed hash alone
    }


def recorded(own: Account, charge: Any, question: str, request: str, noised: Any) -> dict[str, np.ndarray]:
    """Return the same numbers in place of any drawn ones."""
    return {name: np.arange(value.size, dtype=float).reshape(value.shape) for name, value in noised().items()}


def test_two_sites_of_other_rows_with_the_same_noised_answer_send_the_same_bytes(small_sites: Small, monkeypatch):
    """Replay: all that leaves follows from the noised answer. Other rows, another number of them, other classes."""
    sent = []
    for rows in (60, 75):
        monkeypatch.setenv("FLFED_HOME", f"{os.environ['FLFED_HOME']}-{rows}")
        site = replace(small_sites(1, rows=rows)[0], policy=Policy(epsilon=1.6, minimum_cohort=2))
        if rows == 75:  # the second one's rows have one class alone, and a person who is no other's neighbour
            table = site.source.table.assign(y="no")  # type: ignore[union-attr]
            site = replace(site, source=Frame(table))
        consortium = Consortium([site, replace(small_sites(2)[1], policy=site.policy)], Study.parse(STUDY))
        before = replies(consortium, "first")
        with monkeypatch.context() as patch:
            patch.setattr(Account, "answer", recorded)
            after = replies(consortium, "second")
        assert before["site-01 query.statistic"] != after["site-01 query.statistic"]
        sent.append({key: value for key, value in after.items() if key.startswith("site-01")})
    assert sent[0] == sent[1]
    assert b"rows-high', 4294967295" in sent[0]["site-01 query.enrol"]


def test_what_follows_from_exact_rows_would_show_in_the_replay(small_sites: Small):
    """The faults: a band of rows, a refusal of few rows or of one class, and the exact answer differ by rows."""
    analysis, schema = analysis_of(STUDY), datasets.load("small").schema
    first, second = (tables(small_sites(1, rows=rows)) for rows in (60, 75))
    assert len(first) != len(second)
    assert (analysis.sums(first, schema)[ANSWER] != analysis.sums(second, schema)[ANSWER]).any()
    few = [replace(site, policy=Policy()) for site in small_sites(3, rows=4)]
    # An exact statistic refuses so few rows; an analysis answers, and the noise hides how many there are.
    found = run(Study.parse(STUDY), sites=few).report
    assert found["status"] == "completed"
    assert found["statistics"]["columns"]["x1"]["mean"] is None


def test_a_reply_that_is_no_answer_is_set_aside(gated: Consortium):
    def lie(site: str, kind: str, reply: Message) -> Message:
        if (site, kind) != ("site-02", STATISTIC):
            return reply
        answer = StatisticReply.from_record(reply.content).sums[ANSWER]
        return Message(StatisticReply(sums={ANSWER: answer * np.nan}).to_record(), reply_to=reply)

    ended = Coordinator(gated).run(lie=lie)
    with RunReader.open() as reader:
        found = reader.summary(ended.run, "statistics")
    assert found is not None
    assert set(found["by-site"]) == {"site-01", "site-03"}
