"""Runs under homomorphic encryption behind gates: what crosses, a first site that is killed, and a run that goes on."""

import json
import stat
from collections.abc import Callable

import numpy as np
import pytest
from typer.testing import CliRunner

from flfed.cli.commands import app
from flfed.errors import UsageError
from flfed.export.model_folder import SharedModel
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.server import FederatedRun
from flfed.records.store.writer import RunStore
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.site_state import SiteModel, path_of, site_model
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.in_memory import read
from flfed.updates.messages.secure_sum import CIPHERTEXT, KEYS
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, with_encoder
from tests.deployment.summing import Consortium, SummingGrid, begun, conduct

ROUNDS = 3
FIRST = "site-01"


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Consortium]:
    """A function that returns sites that approved a study with sums of ciphertexts."""

    def make(sites: int = 3) -> Consortium:
        study = Study.parse(small_study).replace({"secure-aggregation": "ckks", "strategy.rounds": ROUNDS})
        found = small_sites(sites, rows=80, policy=Policy(disclosure="open", resplit=True))
        return Consortium(found, study)

    return make


def plain_model(consortium: Consortium) -> dict[str, np.ndarray]:
    """Return the last model of the same study without secure sums, in one process."""
    study = consortium.study.replace({"secure-aggregation": "off"})
    side = SiteClient(lambda name, _: consortium.sites[name])
    config = {"study": study.text, "repeat": 0, "run": "", "sites": ",".join(consortium.sites)}
    grid = InProcessGrid(side.app(), sorted(consortium.sites), config)
    with RunStore.open() as store:
        writer = begun(store, study, "inprocess")
        return FederatedRun(grid, study, Recorder(writer, "roc_auc_score", study.rounds)).conduct().arrays


def kept(grid: SummingGrid, site: str = FIRST) -> SiteModel | None:
    """Return the last model at a site."""
    run = next(iter(grid._contexts.values())).run_config["run"]
    return site_model(site, str(run), 0)


def max_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def test_three_gates_end_a_run_with_the_model_of_plain_averaging(consortium: Callable[..., Consortium]):
    found = consortium()
    grid = SummingGrid(found)
    outcome = conduct(found, grid)
    assert (outcome.status, outcome.reason) == ("completed", "")
    kinds = grid.kinds()
    assert kinds[TRAIN] == 3 * ROUNDS and kinds[KEYS] == 3
    # The coordinator has ciphertexts alone; the model is at the sites.
    assert set(outcome.arrays) == {CIPHERTEXT}
    assert max_difference(kept(grid).arrays, plain_model(found)) < 1e-6
    for name in found.sites:
        assert max_difference(kept(grid, name).arrays, kept(grid).arrays) == 0.0


def test_nothing_of_a_model_or_of_the_key_is_in_what_the_coordinator_has(consortium: Callable[..., Consortium]):
    found = consortium()
    states: list[bytes] = []

    def absent(site: str, kind: str) -> bool:
        if kind == EVALUATE and site == FIRST:
            states.extend(path.read_bytes() for path in found.folders[site].root.glob("runs/*/sums-ckks.safetensors"))
        return False

    grid = SummingGrid(found, absent)
    conduct(found, grid)
    assert len(states) == 1
    run = str(next(iter(grid._contexts.values())).run_config["run"])
    files = [path.read_bytes() for path in checkpoints.folder_of(run).rglob("*") if path.is_file()]
    crossed = [
        array.data for _, message, reply in grid.sent for one in (message, reply)
        if one.has_content() for section in one.content.array_records.values() for array in section.values()
    ]  # fmt: skip
    crossed += [
        value if isinstance(value, bytes) else b"".join(value)
        for _, message, reply in grid.sent for one in (message, reply) if one.has_content()
        for section in one.content.config_records.values() for value in section.values()
        if isinstance(value, bytes) or (isinstance(value, list) and value and isinstance(value[0], bytes))
    ]  # fmt: skip
    seen = b"".join([*files, *crossed])
    assert len(seen) > 10 * 61_000
    # Four entries of the last model, as they were trained and as they are added.
    for value in kept(grid).arrays.values():
        entries = value.ravel()[:4]
        for kind in (np.float32, np.float64):
            assert entries.size < 4 or entries.astype(kind).tobytes() not in seen
    # The key stands first in its file, and after it what crossed: the key as it is sealed.
    assert not any(states[0][at : at + 24] in seen for at in range(2_000, 60_000, 4_999))
    assert states[0][-20_000:-19_976] in seen
    # The first model is known to all, and found by the same search.
    first = next(iter(message for _, message, _ in grid.sent if message.metadata.message_type == TRAIN))
    assert all(array.data in seen for array in first.content.array_records["arrays"].values())


def test_the_first_site_killed_in_a_round_comes_back_with_its_key(consortium: Callable[..., Consortium]):
    found, asked = consortium(4), []

    def absent(site: str, kind: str) -> bool:
        asked.append((site, kind))
        if site == FIRST and kind == TRAIN and asked.count((site, kind)) == 2:
            found.restart(FIRST)
            return True
        return False

    grid = SummingGrid(found, absent)
    outcome = conduct(found, grid)
    assert (outcome.status, outcome.rounds) == ("completed", ROUNDS)
    # The round was asked again, of all sites: the others sent the same ciphertexts once more.
    trained = [(site, reply) for site, message, reply in grid.sent if message.metadata.message_type == TRAIN]
    assert [site for site, _ in trained].count(FIRST) == ROUNDS
    second = [read(TrainReply, reply.content).encrypted for site, reply in trained if site == "site-02"]
    assert len(second) == ROUNDS + 1 and np.array_equal(second[1], second[2])
    assert kept(grid) is not None


class Killed(Exception):
    """The coordinator's end."""


@pytest.mark.studies
@pytest.mark.parametrize("stage, round, committed", [("round", 1, 1), ("round", 2, 2), ("checkpoint", 3, 2)])
def test_a_coordinator_that_was_killed_goes_on_to_the_same_model(consortium, stage, round, committed):
    found = consortium()

    def observer(at: str, number: int) -> None:
        if (at, number) == (stage, round):
            raise Killed

    grid = SummingGrid(found)
    study = found.study
    with RunStore.open() as store:
        writer = begun(store, study)
        for context in grid._contexts.values():
            context.run_config["run"] = writer.run
        with pytest.raises(Killed):
            recorder = Recorder(writer, "roc_auc_score", study.rounds)
            FederatedRun(grid, study, recorder, each_round=True, observer=observer).conduct()
        # The first site is killed as well.
        found.restart(FIRST)
        recorder = Recorder(writer, "roc_auc_score", study.rounds)
        after = checkpoints.newest(writer.run, committed)
        assert set(after.arrays) == {CIPHERTEXT}
        outcome = FederatedRun(grid, study, recorder, each_round=True, checkpoint=after).conduct()
    assert (outcome.status, outcome.rounds) == ("completed", ROUNDS)
    assert max_difference(kept(grid).arrays, plain_model(found)) < 1e-6


def test_a_comparison_that_is_asked_again_is_answered_though_the_key_is_gone(consortium: Callable[..., Consortium]):
    found = consortium()
    grid = SummingGrid(found)
    conduct(found, grid)
    assert not list(found.folders[FIRST].root.glob("runs/*/sums-ckks.safetensors"))
    site, message, before = next(one for one in grid.sent if one[1].metadata.message_type == COMPARE)
    # A coordinator that was killed sends the encoder whole, which the site has forgotten as well.
    message.content = with_encoder(message.content, kept(grid).encoder.arrays())
    again = found.gates[site].answer(message, grid.context_of(message))
    assert not again.has_error() and again.content == before.content


def test_the_model_is_taken_out_at_a_site_and_not_at_the_coordinator(consortium, tmp_path):
    found = consortium()
    grid = SummingGrid(found)
    conduct(found, grid)
    run = str(next(iter(grid._contexts.values())).run_config["run"])
    folder = tmp_path / "model"
    done = CliRunner().invoke(app, ["site", "model", FIRST, run, "--output", str(folder), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["model"] == run
    model = SharedModel.read(folder)
    assert max_difference(model.arrays, plain_model(found)) < 1e-6 and model.run == run
    again = CliRunner().invoke(app, ["site", "model", FIRST, run, "--output", str(folder)])
    assert isinstance(again.exception, UsageError) and "is not empty" in str(again.exception)
    other = CliRunner().invoke(app, ["site", "model", FIRST, run, "--output", str(tmp_path / "b"), "--repeat", "1"])
    assert isinstance(other.exception, UsageError) and "has no model of run" in str(other.exception)
    path = path_of(FIRST, run, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert site_model(FIRST, run, 0) is None
