"""Runs under homomorphic encryption in one process: the server adds ciphertexts, and sites open the sum in turn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tenseal

from flfed import paths
from flfed.errors import UsageError
from flfed.export.run_folder import export
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.preflight import check
from flfed.federation.server.run import run
from flfed.federation.server.server import FederatedRun
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore, RunWriter
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.aggregation.summer import CipherSummer
from flfed.updates.arrays import CIPHERTEXT
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.masks import ckks
from flfed.updates.masks.ckks import STEP, RoundTags, SecretContext, encrypt_update, open_mean, open_sum, vector_entries
from flfed.updates.masks.pairs import Exchange
from flfed.updates.masks.ring import LARGEST_ENTRY, rings
from flfed.updates.messages.secure_sum import OPEN
from flfed.updates.messages.train import TRAIN
from tests.deployment.summing import begun
from tests.updates.masks.lying_sums import Liar

SITES = ("site-01", "site-02", "site-03", "site-04")


class Rehearsal:
    """A run of a study in one process, of which every message is kept."""

    def __init__(self, sites: list[Site], study: Study, **given: Any) -> None:
        by_name = {site.name: site for site in sites}
        side = SiteClient(lambda name, _: by_name[name]).app()
        self.sent: list[tuple[str, Any, Any]] = []

        def answer(message: Any, context: Any) -> Any:
            reply = side(message, context)
            self.sent.append((str(context.node_config["site"]), message, reply))
            return reply

        config = {"study": study.text, "repeat": 0, "run": "", "sites": ",".join(by_name)}
        self.grid = InProcessGrid(answer, sorted(by_name), config)  # type: ignore[arg-type]
        with RunStore.open() as store:
            writer = begun(store, study, "inprocess")
            self.run = FederatedRun(self.grid, study, Recorder(writer, "roc_auc_score", study.rounds), **given)
            self.outcome: Outcome = self.run.conduct()


@pytest.fixture
def rehearse(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Rehearsal]:
    found = small_sites(4, rows=80, policy=Policy(disclosure="open", resplit=True))

    def make(asked: str = "ckks", **changes: Any) -> Rehearsal:
        study = Study.parse(small_study).replace({"secure-aggregation": asked, "strategy.rounds": 3, **changes})
        return Rehearsal(found, study)

    return make


def max_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


PLANS = {
    "rows": {}, "half of the mean": {"strategy.server-lr": 0.5}, "equal weights": {"strategy.weights": "equal"},
    "capped weights": {"strategy.weights": "capped", "strategy.cap": 30}, "fedprox": {"strategy.name": "fedprox"},
    "moments": {"strategy.name": "fedavgm"}, "best round": {"strategy.select": "best", "plan.validation": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("changes", PLANS.values(), ids=PLANS)
def test_the_model_is_that_of_plain_sums(rehearse: Callable[..., Rehearsal], changes: dict[str, Any]):
    found, plain = rehearse(**changes), rehearse("off", **changes)
    assert (found.outcome.status, found.outcome.reason) == ("completed", "")
    # A step each round at most; moments keep what the rounding of earlier rounds left.
    most = 1e-5 if changes.get("strategy.name") == "fedavgm" else 3 * STEP
    assert max_difference(found.outcome.arrays, plain.outcome.arrays) < most


def test_weights_that_are_left_out_are_seen_by_the_same_comparison(rehearse: Callable[..., Rehearsal]):
    by_rows, equal = rehearse(), rehearse(**{"strategy.weights": "equal"})
    assert max_difference(by_rows.outcome.arrays, equal.outcome.arrays) > 1e-4


def test_the_servers_half_has_no_key_and_a_site_opens_the_sum_of_each_round(rehearse: Callable[..., Rehearsal]):
    found = rehearse()
    sums = found.run.sums
    assert isinstance(sums, CipherSummer) and not sums.context.context.is_private()
    opened = [(site, message, reply) for site, message, reply in found.sent if message.metadata.message_type == OPEN]
    assert [site for site, _, _ in opened] == ["site-02", "site-03", "site-04"]
    chunks = ckks.unpacked(opened[0][1].content["encrypted"][CIPHERTEXT].numpy(), vector_entries(sums.entries))
    with pytest.raises(ValueError, match="secret_key"):
        tenseal.ckks_vector_from(sums.context.context, chunks[0]).decrypt()
    # What a site tells is the mean in whole steps, to within the step of the ring that it crosses in.
    ring, weights = rings(4, LARGEST_ENTRY)
    total = opened[0][2].content["total"]
    weight = weights.decode(total["sums"].numpy()[1:2])[0]
    steps = ring.decode(total["vector"].numpy()[1:]) / weight / STEP
    np.testing.assert_allclose(steps, np.round(steps), rtol=0, atol=1 / ring.scale / weight / STEP)
    # No update stands in a reply.
    trained = [reply.content for _, message, reply in found.sent if message.metadata.message_type == TRAIN]
    assert all("arrays" not in content and content["masked"]["vector"].numpy().size == 0 for content in trained)


def test_an_entry_beyond_the_largest_ends_the_sites_answer(rehearse: Callable[..., Rehearsal]):
    found = rehearse(**{"plan.lr": 1e4})
    assert found.outcome.status == "stopped" and "beyond 8" in found.outcome.reason


EXCHANGE, ENTRIES = Exchange(TRAIN, 3, "ab" * 32), vector_entries(7)


def tags_of(secret: SecretContext, exchange: Exchange = EXCHANGE, sites: tuple[str, ...] = SITES) -> RoundTags:
    return RoundTags(secret, b"r" * 32, exchange, sites)


def parts(tags: RoundTags, weights: list[float]) -> list[np.ndarray]:
    """Return the parts of sites whose updates are their numbers, everywhere."""
    return [
        encrypt_update(tags, site, np.full(7, number * weight), largest=8.0)
        for number, (site, weight) in enumerate(zip(tags.sites, weights, strict=True))
    ]


def test_the_sum_of_one_part_of_each_site_is_opened_and_its_mean_is_rounded():
    tags = tags_of(SecretContext.new())
    total = Liar(ENTRIES).add(parts(tags, [0.1, 0.2, 0.3, 0.45]))
    # 0 x 0.1 + 1 x 0.2 + 2 x 0.3 + 3 x 0.45, of weights that add up to 1.05
    np.testing.assert_allclose(open_sum(tags, total, 7), [2.15] * 7, rtol=0, atol=3e-9)
    steps = open_mean(tags, total, 7, 1.05) / STEP
    # Up or down by chance, the same each time.
    assert set(steps) <= {math.floor(2.15 / 1.05 / STEP), math.ceil(2.15 / 1.05 / STEP)}
    assert open_mean(tags, total, 7, 1.05).tolist() == (steps * STEP).tolist()


def test_updates_far_below_a_step_are_right_in_the_mean():
    secret, tiny, found = SecretContext.new(), STEP / 5, []
    for round in range(1, 41):
        tags = tags_of(secret, replace(EXCHANGE, step=round))
        sent = [encrypt_update(tags, site, np.full(7, tiny), largest=8.0) for site in SITES]
        found += open_mean(tags, Liar(ENTRIES).add(sent), 7, 4.0).tolist()
    # 280 draws of 0 or 1 step by a chance of a fifth: within four standard errors.
    assert abs(np.mean(found) / tiny - 1) < 4 * math.sqrt(4 / 280)


def test_the_mean_of_twenty_updates_is_right_to_a_billionth_before_it_is_rounded():
    names, rng = tuple(f"site-{number:02d}" for number in range(20)), np.random.default_rng(1)
    tags, weights = tags_of(SecretContext.new(), sites=names), rng.uniform(0.2, 1, 20)
    updates = [np.clip(rng.normal(size=4_033), -8, 8) for _ in names]
    sent = [
        encrypt_update(tags, name, weight * update, largest=8.0)
        for name, update, weight in zip(names, updates, weights, strict=True)
    ]
    found = open_sum(tags, Liar(vector_entries(4_033)).add(sent), 4_033) / weights.sum()
    # Found 2.5e-10.
    assert np.abs(found - np.average(updates, axis=0, weights=weights)).max() < 1e-9


def test_what_is_no_sum_of_one_part_of_each_site_is_not_opened():
    secret, liar = SecretContext.new(), Liar(ENTRIES)
    tags, other = tags_of(secret), tags_of(secret, replace(EXCHANGE, request_sha256="cd" * 32))
    weights = [0.1, 0.2, 0.3, 0.4]
    sent, before = parts(tags, weights), parts(other, weights)
    lies = {
        "one": sent[3], "three of four": liar.add(sent[1:]), "twice": liar.add(sent * 2),
        "one four times": liar.add([sent[3]] * 4),
        "one of them twice, one not": liar.add([*sent[:3], sent[0]]),
        "of another request": liar.add(before),
        "one of another request": liar.add([*sent[:3], before[3]]),
        "of another round": liar.add(parts(tags_of(secret, replace(EXCHANGE, step=2)), weights)),
        "of sites that made another model": liar.add(
            [*sent[:3], parts(tags_of(secret, replace(EXCHANGE, state_sha256="ef" * 32)), weights)[3]]
        ),
        "of other sites": liar.add(parts(tags_of(secret, sites=("a", "b", "c", "d")), weights)),
        "of another key": liar.add(parts(tags_of(SecretContext.new()), weights)),
        "multiplied": liar.multiplied(sent[3], 4),
        "rescaled": liar.scaled(sent[3], 4),
        "masked": liar.masked(sent[3], [3], [(0, 0.4, 1.0)]),
        "shifted with its tag": liar.shifted(liar.shifted(liar.add(sent), 3, 1e-3), 8, 1e-3),
        "shifted by a millionth": liar.shifted(liar.add(sent), 3, 1e-6),
        "cut": sent[0][:-1],
    }  # fmt: skip
    for name, lie in lies.items():
        assert getattr(open_mean(tags, lie, 7, 1.0), "code", "opened") == "total-unverified", name
    # The same is opened under the round's own tags, and by what is within its error.
    assert open_mean(other, lies["of another request"], 7, 1.0)[6] == pytest.approx(2.0, abs=1e-6)
    assert open_mean(tags, liar.shifted(liar.add(sent), 3, 1e-9), 7, 1.0)[6] == pytest.approx(2.0, abs=1e-6)


@pytest.mark.studies
@pytest.mark.parametrize("sites, largest", [(3, 1_365.0), (20, 204.0), (400, 10.0)])
def test_tags_of_the_largest_entries_fit_and_do_not_wrap(sites: int, largest: float):
    names = tuple(f"site-{number:03d}" for number in range(sites))
    tags = tags_of(SecretContext.new(), sites=names)
    rng = np.random.default_rng(sites)
    signs = [np.sign(rng.normal(size=2_000)) for _ in names]
    sent = [
        encrypt_update(tags, name, largest * sign, largest=largest) for name, sign in zip(names, signs, strict=True)
    ]
    total = open_sum(tags, Liar(vector_entries(2_000)).add(sent), 2_000)
    np.testing.assert_allclose(total, largest * np.sum(signs, axis=0), rtol=0, atol=1e-9 * max(20, sites))
    assert encrypt_update(tags, names[0], np.ones(2_000), largest=4_096 / sites).code == "ckks-range"


def test_a_weight_of_nothing_and_a_number_that_is_none_are_refused():
    tags = tags_of(SecretContext.new())
    total = Liar(ENTRIES).add(parts(tags, [0.001] * 4))
    assert open_mean(tags, total, 7, 0.004).code == open_mean(tags, total, 7, float("nan")).code == "sum-unfit"
    assert encrypt_update(tags, SITES[0], np.full(7, np.nan), largest=8.0).code == "entry-too-large"
    assert encrypt_update(tags, SITES[0], np.full(7, 0.5), largest=0.4).code == "entry-too-large"


REFUSED = {
    "site noise": (
        {"privacy.name": "site-dp", "privacy.noise": 1.0}, "under secure-aggregation=.on. only, not under .ckks.",
    ),
    "codec": ({"codec.name": "int8"}, r"\[codec\]: name='int8'"),
}  # fmt: skip


@pytest.mark.parametrize("changes, said", REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_with_it_is_refused_before_a_table_is_read(small_sites, small_study, changes, said):
    small_sites(3)
    with pytest.raises(UsageError, match=said):
        check(Study.parse(small_study).replace({"secure-aggregation": "ckks", **changes}))


def test_the_run_has_losses_a_pooled_reference_and_a_model_to_export(small_sites, small_study):
    study = Study.parse(small_study).replace({"secure-aggregation": "ckks", "strategy.rounds": 2})
    check(study)
    found = run(study, sites=small_sites(3))
    with RunReader.open() as reader:
        assert not [entry for entry in reader.events([found.run]) if "no pooled reference" in entry.reason]
        assert reader.summary(found.run, "secure-sums")["kind"] == "rehearsed-encrypted"
    assert export(found.run, paths.home() / "out").model is not None


@pytest.mark.parametrize("asked", ["on", "ckks"])
def test_a_rehearsal_with_exact_sums_is_like_the_run(small_sites, small_study, asked):
    study = Study.parse(small_study).replace({"secure-aggregation": asked, "strategy.rounds": 3})
    done = run(study, sites=small_sites(4, rows=80, policy=Policy(disclosure="institution")))
    with RunReader.open() as reader:
        assert abs(reader.summary(done.run, "disclosure")["primary-moved"]) < 0.05


def test_a_run_in_one_process_goes_on_after_it_was_killed(small_sites, small_study, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "seconds_apart", lambda: 0.0)
    found = {site.name: site for site in small_sites(4, rows=80)}
    study = Study.parse(small_study).replace({"secure-aggregation": "ckks", "strategy.rounds": 3})
    config = {"study": study.text, "repeat": 0, "run": "", "sites": ",".join(found)}

    def conductor(writer: RunWriter, **given: Any) -> FederatedRun:
        grid = InProcessGrid(SiteClient(lambda name, _: found[name]).app(), sorted(found), config)
        return FederatedRun(grid, study, Recorder(writer, "roc_auc_score", 3), **given)

    def killed(stage: str, number: int) -> None:
        if (stage, number) == ("round", 2):
            raise KeyboardInterrupt

    with RunStore.open() as store:
        writer = begun(store, study, "inprocess")
        with pytest.raises(KeyboardInterrupt):
            conductor(writer, observer=killed).conduct()
        resumed = conductor(writer, checkpoint=checkpoints.newest(writer.run, 2)).conduct()
        whole = conductor(begun(store, study, "inprocess")).conduct()
    assert (resumed.status, resumed.rounds) == ("completed", 3)
    # The rounding follows from the study, and the error of the ciphertexts decides one in some thousand.
    assert max_difference(resumed.arrays, whole.arrays) < 3e-6
