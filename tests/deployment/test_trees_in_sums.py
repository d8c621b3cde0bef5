"""Boosted trees whose sums are masked: the trees of plain sums, to the bit, whoever is killed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message

from flfed import run
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.site_state.cohorts import cohort_facts
from flfed.errors import FlfedError
from flfed.records.store.reader import RunReader
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.secure_sum import KEYS
from flfed.updates.messages.summarise import BINS, SUMMARISE
from flfed.updates.messages.train import TRAIN
from tests.boosting import trees_study
from tests.deployment.summing import Consortium, Coordinator, Fault, summing
from tests.deployment.test_secure_sums_killed import either, ended, in_round

ROUNDS, DEPTH = 3, 3
LAST = "site-04"
Make = Callable[..., Consortium]


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Make:
    """A function that returns sites that approved a study of trees with sums."""

    def make(sites: int = 4, **changes: Any) -> Consortium:
        asked = {"secure-aggregation": "on", "strategy.rounds": ROUNDS, **changes}
        return Consortium(small_sites(sites, rows=70), Study.parse(trees_study(small_study, **asked)))

    return make


def plain(consortium: Consortium, **changes: Any) -> str:
    """Return the hash of the trees of the same sites in one process, without sums."""
    study = consortium.study.replace({"secure-aggregation": "off", **changes})
    return str(run(study, sites=list(consortium.sites.values())).report["arrays-sha256"])


@pytest.mark.studies
@pytest.mark.parametrize("least", [pytest.param(0, marks=pytest.mark.proof), 10])
def test_masked_sums_grow_the_trees_of_plain_ones(consortium: Make, least: int):
    found = consortium(**{"strategy.min-rows": least})
    here = plain(found)
    assert run(found.study, sites=list(found.sites.values())).report["arrays-sha256"] == here
    coordinator = Coordinator(found)
    ended(masked := coordinator.run(), rounds=ROUNDS)
    assert masked.arrays_sha256 == here
    sent = [(message.metadata.message_type, reply.content) for _, message, reply in coordinator.grid.sent]
    assert all("masked" in record and "extra" not in record for kind, record in sent if kind == TRAIN)
    assert all("masked" in record and "counts" not in record for kind, record in sent if kind == BINS)
    # One exchange for the counts by cell, and one a level.
    kinds = coordinator.grid.kinds()
    assert (kinds[BINS], kinds[TRAIN]) == (4, 4 * ROUNDS * DEPTH)


@pytest.mark.proof
def test_a_study_that_records_one_sum_grows_the_same_trees(small_sites, small_study):
    asked = {"secure-aggregation": "on", "strategy.rounds": 2, "compare.share": "sum"}
    found = summing(small_sites, Study.parse(trees_study(small_study, **asked)), 4, rows=120)
    coordinator = Coordinator(found)
    ended(entry := coordinator.run(), rounds=2)
    assert entry.arrays_sha256 == plain(found, **{"compare.share": "named"})
    with RunReader.open() as reader:
        together = reader.summary(entry.run, "summed-figures")
    assert together is not None and together["sites"] == 4 and 0 < together["figures"]["log_loss"]["global"] < 1


FAULTS = [*(pytest.param(fault, marks=pytest.mark.proof) for fault in ("killed", "left")), "kept"]


@pytest.mark.studies
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("number", [DEPTH + 2, pytest.param(DEPTH + 1, marks=pytest.mark.proof)])
def test_a_site_that_is_killed_in_a_tree_is_in_it(consortium: Make, number: int, fault: str):
    found = consortium()
    # At the second level of the second tree, or at its root.
    ended(entry := Coordinator(found).run(absent=in_round(number, LAST, TRAIN, fault)), rounds=ROUNDS)
    assert entry.arrays_sha256 == plain(found)


CRASHES = {
    "counts by cell": (1, "site-03", BINS), "first root": (1, "site-03", TRAIN), "second level": (2, "site-02", TRAIN),
    "last level of the second tree": (2 * DEPTH, "site-03", TRAIN),
    "root of the third tree": (2 * DEPTH + 1, "site-01", TRAIN),
}  # fmt: skip
QUICK = ("second level",)


@pytest.mark.studies
@pytest.mark.parametrize("where", [w if w in QUICK else pytest.param(w, marks=pytest.mark.proof) for w in CRASHES])
def test_a_coordinator_that_is_killed_goes_on_to_the_same_trees(consortium: Make, where: str):
    found = consortium()
    coordinator = Coordinator(found)
    begun = coordinator.run(absent=in_round(*CRASHES[where], "crash"))
    assert begun.status == "failed" and "killed" in begun.reason
    ended(entry := coordinator.run(begun.run), rounds=ROUNDS)
    assert entry.arrays_sha256 == plain(found)


def gone_from(number: int) -> Fault:
    return in_round(number, LAST, TRAIN, "killed", times=99)


@pytest.mark.studies
@pytest.mark.parametrize("level", ["root", pytest.param("second", marks=pytest.mark.proof)])
def test_a_site_that_is_lost_stops_the_run_and_the_tree_goes_on_with_it(consortium: Make, level: str):
    found = consortium()
    coordinator = Coordinator(found)
    stopped = coordinator.run(absent=gone_from(DEPTH + (1 if level == "root" else 2)))
    ended(stopped, "stopped", 1)
    assert str(Refusal("sum-incomplete", sites=LAST)) in stopped.reason, stopped.reason
    whole = checkpoints.final(stopped.run)
    assert whole.round == 1
    ended(entry := coordinator.run(stopped.run), rounds=ROUNDS)
    assert entry.arrays_sha256 == plain(found)


@pytest.mark.proof
def test_a_site_away_while_the_coordinator_is_killed_is_waited_for(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    begun = coordinator.run(absent=either(gone_from(DEPTH + 2), in_round(DEPTH + 2, "site-01", TRAIN, "crash")))
    away = either(*(in_round(1, LAST, kind) for kind in (ENROL, KEYS, SUMMARISE)), in_round(1, LAST, TRAIN))
    ended(entry := coordinator.run(begun.run, absent=away), rounds=ROUNDS)
    assert entry.arrays_sha256 == plain(found)


def at_level(consortium: Consortium, kind: str, number: int) -> tuple[str, Message, Context]:
    """Return site, message and context of the first site's nth message of a kind, after which a run was killed."""
    coordinator, place = Coordinator(consortium), Counter[tuple[str, str]]()

    def at(site: str, what: str) -> str | bool:
        place[site, what] += 1
        return "crash" if what == kind and place["site-01", kind] == number and site == "site-02" else False

    coordinator.run(absent=at)
    site, message, reply = next(one for one in reversed(coordinator.grid.sent) if one[0] == "site-01")
    assert message.metadata.message_type == kind and not reply.has_error()
    return site, message, next(c for c in coordinator.grid._contexts.values() if c.node_config["site"] == site)


def test_a_tree_does_not_begin_anew(consortium: Make):
    found = consortium()
    site, message, context = at_level(found, TRAIN, 1)
    message.content["settings"] = ConfigRecord({**message.content["settings"], "attempt": 1.0})
    reply = found.gates[site].answer(message, context)
    assert reply.has_error() and "its section 'settings'" in reply.error.reason


def test_a_coordinator_names_no_nodes_and_no_cut_points(consortium: Make):
    found = consortium()
    site, message, context = at_level(found, TRAIN, 2)
    again = found.gates[site].answer(message, context)
    kept = [line.facts["sha256"] for line in found.lines(site) if line.kind == TRAIN][-2:]
    assert not again.has_error() and kept[0] == kept[1]
    for name in ("extra", "arrays"):
        message.content[name] = ArrayRecord({"asked": Array(np.ones((1, 3)))})
        reply = found.gates[site].answer(message, context)
        assert reply.has_error() and "too many" in reply.error.reason


def test_a_site_that_sends_other_sums_under_its_masks_ends_the_run(consortium: Make):
    found = consortium()
    coordinator, levels = Coordinator(found), Counter[str]()

    def lie(site: str, kind: str, reply: Message) -> Message:
        levels[site] += kind == TRAIN
        if (site, kind, levels[site]) == (LAST, TRAIN, 5):
            masked = {name: values.copy() for name, values in ndarrays(reply.content, "masked").items()}
            masked["sums"][3] += np.uint64(1)
            reply.content["masked"] = ArrayRecord({name: Array(values) for name, values in masked.items()})
        return reply

    ended(entry := coordinator.run(lie=lie), "stopped", 1)
    assert "the sums of gradients of one column are not those of another" in entry.reason


def test_the_bytes_of_a_masked_run_are_within_what_is_said_before_it(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    ended(coordinator.run(), rounds=ROUNDS)
    schema = found.gates["site-01"]._studies.messages(found.study.sha256()).schema
    messages = StudyMessages(found.study, schema, found.sites["site-01"], cohort_facts(found.pins, changed=False))
    own = [(message, reply) for site, message, reply in coordinator.grid.sent if site == "site-01"]
    total = sum(count_bytes(reply.content) for _, reply in own if not reply.has_error())
    assert total <= messages.run_bytes() < 4 * total
    in_rounds = [count_bytes(r.content) for m, r in own if m.metadata.message_type == TRAIN]
    assert sum(in_rounds) <= ROUNDS * messages.round_bytes() < 3 * sum(in_rounds)


SINGLE = "single-cells-in-sums"


@pytest.mark.studies
@pytest.mark.parametrize(("outputs", "changes", "takes_part"), [
    ((SINGLE,), {}, True), ((), {}, False), ((SINGLE,), {"strategy.min-rows": 0}, False),
    pytest.param((SINGLE,), {"secure-aggregation": "auto"}, False, marks=pytest.mark.proof),
])  # fmt: skip
def test_an_institution_grows_trees_in_sums_where_its_policy_names_them(
    small_sites: Any, small_study: str, outputs: tuple[str, ...], changes: dict[str, Any], takes_part: bool
):
    *others, last = small_sites(4, rows=120)
    kept = replace(last, policy=Policy(disclosure="institution", outputs=outputs))
    asked = {"secure-aggregation": "on", "strategy.rounds": 2, "strategy.min-rows": 10, **changes}
    found = Consortium([*others, kept], Study.parse(trees_study(small_study, **asked)))
    coordinator = Coordinator(found)
    if takes_part:
        ended(coordinator.run(), rounds=2)
        assert {"bins", "train"} <= {line.kind for line in found.lines(last.name)}
        return
    with pytest.raises(FlfedError, match="the run is without site-04, which the approval here names"):
        coordinator.run()
    assert {line.kind for line in found.lines(last.name)} <= {"refused", "enrol"}
    with RunReader.open() as reader:
        (refused,) = (one for one in reader.events([next(iter(reader.runs())).run]) if one.site == last.name)
    assert "single rows" in refused.reason
