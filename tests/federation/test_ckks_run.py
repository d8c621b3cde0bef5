"""Runs under homomorphic encryption in one process: the server's half has ciphertexts, and the model is FedAvg's."""

from __future__ import annotations

from collections.abc import Callable
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
from flfed.federation.server.parts.secure_aggregation import SecureAggregation
from flfed.federation.server.preflight import check
from flfed.federation.server.run import run
from flfed.federation.server.server import FederatedRun
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.summaries.summary import arrays_sha256
from flfed.updates.aggregation.summer import CipherSummer
from flfed.updates.arrays import CIPHERTEXT, entries_of, shapes_of
from flfed.updates.checkpoints.site_state import NodeState
from flfed.updates.masks import ckks
from flfed.updates.masks.ckks import RoundTags, SecretContext, decrypt_model, encrypt_model, open_sum, vector_entries
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

    def secret(self) -> SecretContext:
        """Return the key, which one of the sites has."""
        kept = NodeState(next(iter(self.grid._contexts.values())).state).read("sums-ckks")
        return SecretContext.of_bytes(kept["context"].tobytes())

    def chunks(self) -> tuple[bytes, ...]:
        """Return the ciphertexts of the last model."""
        entries = vector_entries(entries_of(shapes_of(self.run.first_arrays())))
        found = ckks.unpacked(self.outcome.arrays[CIPHERTEXT], entries)
        assert isinstance(found, tuple)
        return found

    def model(self) -> dict[str, np.ndarray]:
        """Return the last model, as a site opens it."""
        state = NodeState(next(iter(self.grid._contexts.values())).state)
        answered = state.read(f"sums-answered-train-{self.outcome.rounds:06d}")["request"].tobytes().hex()
        models = (state.read("sums-opened") or {"models": []})["models"]
        known = {row[:32].tobytes().hex(): row[32:].tobytes().hex() for row in models}
        binding = known.get(arrays_sha256(self.outcome.arrays), answered)
        tags = RoundTags(self.secret(), binding, tuple(sorted(SITES)))
        return decrypt_model(tags, self.outcome.arrays[CIPHERTEXT], shapes_of(self.run.first_arrays()))


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
}  # fmt: skip


@pytest.mark.parametrize("changes", PLANS.values(), ids=PLANS)
def test_the_model_is_that_of_plain_sums(rehearse: Callable[..., Rehearsal], changes: dict[str, Any]):
    found, plain = rehearse(**changes), rehearse("off", **changes)
    assert (found.outcome.status, found.outcome.reason) == ("completed", "")
    assert max_difference(found.model(), plain.outcome.arrays) < 1e-6
    assert set(found.outcome.arrays) == {CIPHERTEXT}


def test_weights_that_are_left_out_are_seen_by_the_same_comparison(rehearse: Callable[..., Rehearsal]):
    by_rows, equal = rehearse(), rehearse(**{"strategy.weights": "equal"})
    assert max_difference(by_rows.model(), equal.model()) > 1e-4


def test_the_servers_half_has_no_key_and_no_model(rehearse: Callable[..., Rehearsal]):
    found = rehearse()
    (sums,) = [part.sums for part in found.run.parts if isinstance(part, SecureAggregation)]
    assert isinstance(sums, CipherSummer) and not sums.context.context.is_private()
    with pytest.raises(ValueError, match="secret_key"):
        tenseal.ckks_vector_from(sums.context.context, found.chunks()[0]).decrypt()
    # The first request brings the first model, which follows from the study; no later one brings any.
    trained = [message.content for _, message, _ in found.sent if message.metadata.message_type == TRAIN]
    assert set(trained[0]["arrays"]) == set(found.run.first_arrays())
    assert all(set(content["arrays"]) == {CIPHERTEXT} for content in trained[4:])


def test_an_entry_beyond_the_largest_ends_the_sites_answer(rehearse: Callable[..., Rehearsal]):
    found = rehearse(**{"plan.lr": 1e4})
    assert found.outcome.status == "stopped" and "beyond 8" in found.outcome.reason


MODEL = {"a": ((2, 3), np.dtype(np.float32)), "b": ((), np.dtype(np.float32))}


BINDING, ENTRIES = "ab" * 32, vector_entries(7)


def tags_of(secret: SecretContext, binding: str = BINDING, sites: tuple[str, ...] = SITES) -> RoundTags:
    return RoundTags(secret, binding, sites)


def parts(tags: RoundTags, weights: list[float]) -> list[np.ndarray]:
    """Return the parts of sites whose models are their numbers, everywhere."""
    made = []
    for number, (site, weight) in enumerate(zip(tags.sites, weights, strict=True)):
        model = {name: np.full(shape, number, dtype) for name, (shape, dtype) in MODEL.items()}
        made.append(encrypt_model(tags, site, model, weight, largest=8.0))
    return made


def test_the_sum_of_one_part_of_each_site_is_opened_and_rounded():
    tags = tags_of(SecretContext.new())
    total = Liar(ENTRIES).add(parts(tags, [0.1, 0.2, 0.3, 0.45]))
    # 0 x 0.1 + 1 x 0.2 + 2 x 0.3 + 3 x 0.45, behind weights that add up to 1.05
    np.testing.assert_allclose(open_sum(tags, total, 7), [1.05] + [2.15] * 7, rtol=0, atol=3e-9)
    found = decrypt_model(tags, total, {**MODEL, "b": ((), np.dtype(np.float64))})
    assert found["a"].shape == (2, 3) and float(found["b"]) == round(2.15 / 1.05 * 2**20) / 2**20 != 2.15 / 1.05


def test_the_mean_of_twenty_models_is_right_to_a_billionth_before_it_is_rounded():
    names, rng = tuple(f"site-{number:02d}" for number in range(20)), np.random.default_rng(1)
    tags, weights = tags_of(SecretContext.new(), sites=names), rng.uniform(0.2, 1, 20)
    models = [{"a": np.clip(rng.normal(size=4_033), -8, 8)} for _ in names]
    sent = [
        encrypt_model(tags, *one, largest=8.0) for one in zip(names, models, weights, strict=True)
    ]  # fmt: skip
    found = open_sum(tags, Liar(vector_entries(4_033)).add(sent), 4_033)
    mean = np.average([model["a"] for model in models], axis=0, weights=weights)
    # Found 2.5e-10.
    assert np.abs(found[1:] / found[0] - mean).max() < 1e-9


def test_what_is_no_sum_of_one_part_of_each_site_is_no_model():
    secret, liar = SecretContext.new(), Liar(ENTRIES)
    tags, other = tags_of(secret), tags_of(secret, "cd" * 32)
    sent, before = parts(tags, [0.1, 0.2, 0.3, 0.4]), parts(other, [0.1, 0.2, 0.3, 0.4])
    lies = {
        "one": sent[3], "three of four": liar.add(sent[1:]), "twice": liar.add(sent * 2),
        "one four times": liar.add([sent[3]] * 4),
        "one of them twice, one not": liar.add([*sent[:3], sent[0]]),
        "of another round": liar.add(before),
        "one of another round": liar.add([*sent[:3], before[3]]),
        "of other sites": liar.add(parts(tags_of(secret, sites=("a", "b", "c", "d")), [0.1, 0.2, 0.3, 0.4])),
        "of another key": liar.add(parts(tags_of(SecretContext.new()), [0.1, 0.2, 0.3, 0.4])),
        "multiplied": liar.multiplied(sent[3], 4),
        "rescaled": liar.scaled(sent[3], 4),
        "masked": liar.masked(sent[3], [3], [(0, 0.4, 1.0)]),
        "shifted with its tag": liar.shifted(liar.shifted(liar.add(sent), 3, 1e-3), 8, 1e-3),
        "shifted by a millionth": liar.shifted(liar.add(sent), 3, 1e-6),
        "cut": sent[0][:-1],
    }  # fmt: skip
    for name, lie in lies.items():
        assert getattr(decrypt_model(tags, lie, MODEL), "code", "opened") == "total-unverified", name
    # The same is opened under the round's own tags, and by what is within its error.
    assert decrypt_model(other, lies["of another round"], MODEL)["b"] == pytest.approx(2.0, abs=1e-6)
    assert decrypt_model(tags, liar.shifted(liar.add(sent), 3, 1e-9), MODEL)["b"] == pytest.approx(2.0, abs=1e-6)


@pytest.mark.studies
@pytest.mark.parametrize("sites, largest", [(3, 1_365.0), (20, 204.0), (400, 10.0)])
def test_tags_of_the_largest_entries_fit_and_do_not_wrap(sites: int, largest: float):
    names = tuple(f"site-{number:03d}" for number in range(sites))
    tags, model = tags_of(SecretContext.new(), sites=names), {"a": np.full(2_000, largest)}
    rng = np.random.default_rng(sites)
    signs = [np.sign(rng.normal(size=2_000)) for _ in names]
    liar = Liar(vector_entries(2_000))
    sent = [
        encrypt_model(tags, name, {"a": sign * model["a"]}, 1.0, largest=largest)
        for name, sign in zip(names, signs, strict=True)
    ]
    total = open_sum(tags, liar.add(sent), 2_000)
    np.testing.assert_allclose(total[1:], largest * np.sum(signs, axis=0), rtol=0, atol=1e-9 * max(20, sites))
    assert encrypt_model(tags, names[0], model, 1.0, largest=4_096 / sites).code == "ckks-range"


def test_a_weight_of_nothing_and_a_number_that_is_none_are_refused():
    tags = tags_of(SecretContext.new())
    light = Liar(ENTRIES).add(parts(tags, [0.001] * 4))
    assert decrypt_model(tags, light, MODEL).code == "sum-unfit"
    model = {name: np.full(shape, np.nan) for name, (shape, _) in MODEL.items()}
    assert encrypt_model(tags, SITES[0], model, 1.0, largest=8.0).code == "entry-too-large"
    small = {name: np.full(shape, 0.5) for name, (shape, _) in MODEL.items()}
    assert encrypt_model(tags, SITES[0], small, 1.0, largest=0.4).code == "entry-too-large"


REFUSED = {
    "losses": ({"strategy.select": "best", "plan.validation": 0.2}, "has no losses of rounds"),
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


def test_a_study_that_asks_for_it_is_checked_and_its_run_says_what_the_server_lacks(small_sites, small_study):
    study = Study.parse(small_study).replace({"secure-aggregation": "ckks", "strategy.rounds": 2})
    sites = small_sites(3)
    check(study)
    found = run(study, sites=sites)
    with RunReader.open() as reader:
        notes = " ".join(entry.reason for entry in reader.events([found.run]))
        assert "no pooled reference: the server has the run's models as ciphertexts only" in notes
        assert reader.summary(found.run, "secure-sums")["kind"] == "rehearsed-encrypted"
    done = export(found.run, paths.home() / "out")
    assert done.model is None and f"flfed site model SITE {found.run}" in done.reason
