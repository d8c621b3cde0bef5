"""Runs whose coordinator sees only sums: gates, ledgers and state of sites, with those that fail."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Message

from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.server import FederatedRun
from flfed.records.reports.privacy import privacy_of
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.summaries.summary import arrays_sha256
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.site_state import site_model
from flfed.updates.messages.compare import AUDIT, AuditReply, AuditRequest
from flfed.updates.messages.summarise import SUMMARISE
from flfed.updates.messages.train import EVALUATE, NO_ENCODER, TRAIN, TrainReply
from tests.deployment.summing import Consortium, Coordinator, SummingGrid, begun, conduct

ROUNDS = 3


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Consortium]:
    """A function that returns sites that approved a study with sums."""

    def make(sites: int = 4, text: str = "") -> Consortium:
        study = Study.parse(text or small_study).replace({"secure-aggregation": "on", "strategy.rounds": ROUNDS})
        found = small_sites(sites, rows=80, policy=Policy(disclosure="open", resplit=True))
        return Consortium(found, study)

    return make


def test_a_run_with_sums_has_the_arrays_of_one_without_to_the_rings_step(consortium: Callable[..., Consortium]):
    found = consortium()
    grid = SummingGrid(found)
    outcome = conduct(found, grid)
    assert (outcome.status, outcome.reason) == ("completed", "")
    # One exchange a round, for the sums over rows, and for the last model's losses.
    kinds = grid.kinds()
    assert (kinds[SUMMARISE], kinds[TRAIN], kinds[EVALUATE]) == (4, 4 * ROUNDS, 4)
    plain = rehearsed(found, "off")
    assert max_difference(outcome.arrays, plain) < 1e-6
    # Rounding follows from seed, site and question: with and without masks, the very same bits.
    assert max_difference(outcome.arrays, rehearsed(found, "on")) == 0.0
    with RunReader.open() as reader:
        recorded = [privacy_of(reader, [(run, {})])["secure-sums"] for run in reader.runs()]
    assert sorted(one["kind"] for one in recorded) == ["masked", "off", "rehearsed"]
    assert [one["sites"] for one in recorded if one["kind"] != "off"] == [4, 4]


def rehearsed(consortium: Consortium, asked: str) -> dict[str, np.ndarray]:
    """Return the arrays of the same study in one process, with the same sites."""
    study = consortium.study.replace({"secure-aggregation": asked})
    side = SiteClient(lambda name, _: consortium.sites[name])
    config = {"study": study.text, "repeat": 0, "run": "", "sites": ",".join(consortium.sites)}
    grid = InProcessGrid(side.app(), sorted(consortium.sites), config)
    with RunStore.open() as store:
        writer = begun(store, study, "inprocess")
        return FederatedRun(grid, study, Recorder(writer, "roc_auc_score", study.rounds)).conduct().arrays


def max_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


@pytest.mark.parametrize("round", [1, 2])
def test_a_missing_site_stops_the_run_with_the_last_good_model(consortium: Callable[..., Consortium], round: int):
    found, asked = consortium(), []

    def absent(site: str, kind: str) -> bool:
        asked.append((site, kind))
        return site == "site-04" and kind == TRAIN and asked.count((site, kind)) >= round

    outcome = conduct(found, SummingGrid(found, absent))
    assert outcome.status == "stopped" and outcome.rounds == round - 1
    assert f"round {round}" in outcome.reason and "site-04" in outcome.reason


def test_a_study_without_sums_goes_on_without_a_missing_site(consortium: Callable[..., Consortium]):
    found = consortium()
    plain = found.approved(found.study.replace({"secure-aggregation": "off"}))
    trained = []

    def absent(site: str, kind: str) -> bool:
        trained.append((site, kind))
        return site == "site-04" and kind == TRAIN and trained.count((site, kind)) == 2

    outcome = conduct(plain, SummingGrid(plain, absent))
    assert (outcome.status, outcome.rounds) == ("completed", ROUNDS)


NOISED = {"privacy.name": "site-dp", "privacy.noise": 1.0, "privacy.clip": 0.2, "privacy.delta": 0.02}


def test_noise_of_sites_comes_from_their_systems_and_a_round_asked_again_has_the_same_bits_and_is_charged_once(
    consortium: Callable[..., Consortium], small_study: str
):
    found = consortium(4, Study.parse(small_study).replace(NOISED).text)
    opened = []

    def absent(site: str, kind: str) -> bool:
        opened.append((site, kind))
        # In the second round two are not there when asked first: the round is asked again.
        return kind == TRAIN and site in ("site-03", "site-04") and opened.count((site, kind)) == 2

    grid = SummingGrid(found, absent)
    outcome = conduct(found, grid)
    assert (outcome.status, outcome.reason) == ("completed", "")
    vectors: dict[tuple[str, int], list[bytes]] = {}
    for site, message, reply in grid.sent:
        if message.metadata.message_type == TRAIN:
            masked = TrainReply.from_record(reply.content).masked
            vectors.setdefault((site, int(message.metadata.group_id)), []).append(masked.vector.tobytes())
    # Asked twice, the second round has the very same vectors, noise and all.
    assert [len(vectors[site, 2]) for site in sorted(found.sites)] == [2, 2, 1, 1]
    assert all(len(set(sent)) == 1 for sent in vectors.values())
    with RunReader.open() as reader:
        private = reader.summary(reader.runs()[0].run, "privacy")
    assert {line["steps"] for line in private["sites"].values()} == {ROUNDS}
    assert private["trusts-server"] is False
    # The study's seed tells nothing of it: a rehearsal, and the same run at other gates, have other noise.
    again = conduct(found, SummingGrid(found))
    step = 0.2 / 4  # of the noise in a mean of four
    assert max_difference(outcome.arrays, rehearsed(found, "on")) > step / 10
    assert max_difference(outcome.arrays, again.arrays) > step / 10
    # A ledger counts no budget for whole sites.
    assert not any(line.kind == "spent" for line in found.lines("site-01"))


def test_sites_attack_the_model_that_they_made_and_compared(small_sites: Callable[..., list[Site]], small_study: str):
    study = Study.parse(small_study).replace({"secure-aggregation": "on", "strategy.rounds": ROUNDS})
    found = Consortium(small_sites(3, rows=80, policy=Policy(disclosure="open", resplit=True, audits=True)), study)
    coordinator = Coordinator(found)
    entry = coordinator.run()
    assert entry.status == "completed", entry.reason
    grid = SummingGrid(found, run=entry.run)

    def attack(request: AuditRequest) -> list[Message]:
        nodes = grid.nodes.values()
        return grid.send_and_receive([Message(request.to_record(), dst_node_id=n, message_type=AUDIT) for n in nodes])

    final = checkpoints.final(entry.run)
    for reply in attack(AuditRequest(arrays={}, encoder=NO_ENCODER, attack="membership-inference")):
        assert [figure.metric for figure in AuditReply.from_record(reply.content).figures][0] == "auc-of-loss"
    for reply in attack(AuditRequest(arrays=final.arrays, encoder=final.encoder, attack="membership-inference")):
        assert "too many" in reply.error.reason


@pytest.mark.parametrize("changes", [
    {}, {"strategy.name": "fedavgm"}, {"strategy.name": "fedadam"}, {"strategy.name": "fedyogi"},
    {"strategy.name": "fedprox", "strategy.mu": 0.1}, {"model.name": "mlp", "model.hidden": [4]},
    {"plan.validation": 0.3, "strategy.select": "best", "strategy.rounds": 6, "plan.lr": 3.0},
    {"plan.validation": 0.3, "plan.schedule": "plateau", "plan.plateau-patience": 1, "strategy.rounds": 5,
     "plan.lr": 2.0},
], ids=str)  # fmt: skip
def test_what_sites_make_is_what_the_coordinator_makes_to_the_bit(
    small_sites: Callable[..., list[Site]], small_study: str, changes: dict[str, object]
):
    study = Study.parse(small_study).replace({"strategy.rounds": ROUNDS, **changes, "secure-aggregation": "on"})
    found = Consortium(small_sites(3, rows=80, policy=Policy(disclosure="open", resplit=True)), study)
    entry = Coordinator(found).run()
    assert entry.status == "completed", entry.reason
    final = checkpoints.final(entry.run)
    for site in found.sites:
        kept = site_model(site, entry.run, 0)
        assert kept is not None and kept.encoder.sha256() == final.encoder.sha256()
        assert arrays_sha256(kept.arrays) == arrays_sha256(final.arrays)
