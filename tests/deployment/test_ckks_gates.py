"""Runs under homomorphic encryption behind gates: what crosses, who opens it, lies, and runs that go on."""

import copy
import json
import stat
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message
from typer.testing import CliRunner

from flfed.cli.commands import app
from flfed.errors import UsageError
from flfed.export.model_folder import SharedModel
from flfed.federation.client import masked
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.server import FederatedRun
from flfed.records.store.writer import RunStore
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.study_model import model_shapes
from flfed.study.study import Study
from flfed.updates.arrays import CIPHERTEXT, entries_of
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.site_state import SiteModel, path_of, site_model
from flfed.updates.masks.ckks import STEP, RoundTags, vector_entries
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.fields import content_sha256
from flfed.updates.messages.in_memory import read
from flfed.updates.messages.secure_sum import KEYS, OPEN, OpenReply, OpenRequest
from flfed.updates.messages.train import EVALUATE, NO_ENCODER, TRAIN, TrainReply, TrainRequest
from tests.deployment.summing import Consortium, SummingGrid, begun, conduct
from tests.updates.masks.lying_sums import Liar

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
    assert (kinds[TRAIN], kinds[KEYS], kinds[OPEN]) == (3 * ROUNDS, 3, ROUNDS)
    assert [site for site, message, _ in grid.sent if message.metadata.message_type == OPEN] == [
        "site-02", "site-03", "site-01",
    ]  # fmt: skip
    # Sites made the model themselves, and the coordinator has the same.
    assert max_difference(outcome.arrays, plain_model(found)) < ROUNDS * STEP
    for name in found.sites:
        assert max_difference(kept(grid, name).arrays, outcome.arrays) == 0.0


def test_no_update_of_one_site_and_no_key_is_in_what_the_coordinator_has(
    consortium: Callable[..., Consortium], monkeypatch: pytest.MonkeyPatch
):
    found = consortium()
    keys: list[bytes] = []
    updates: list[np.ndarray] = []
    encrypt = masked.encrypt_update

    def recorded(tags: RoundTags, site: str, values: np.ndarray, *, largest: float) -> object:
        updates.append(values)
        return encrypt(tags, site, values, largest=largest)

    def absent(site: str, kind: str) -> bool:
        if kind == EVALUATE and site == FIRST:
            keys.extend(path.read_bytes() for path in found.folders[site].root.glob("runs/*/sums-shared.safetensors"))
        return False

    monkeypatch.setattr(masked, "encrypt_update", recorded)
    grid = SummingGrid(found, absent)
    outcome = conduct(found, grid)
    assert len(keys) == 1 and len(updates) == 3 * ROUNDS
    run = str(next(iter(grid._contexts.values())).run_config["run"])
    seen = [path.read_bytes() for path in checkpoints.folder_of(run).rglob("*") if path.is_file()]
    for one in (one for _, message, reply in grid.sent for one in (message, reply) if one.has_content()):
        seen += [array.data for section in one.content.array_records.values() for array in section.values()]
        for section in one.content.config_records.values():
            seen += [part for value in section.values() for part in ([value] if isinstance(value, bytes) else value
                     if isinstance(value, list) else []) if isinstance(part, bytes)]  # fmt: skip
    whole = b"".join(seen)
    assert len(whole) > 10 * 61_000
    for values in updates:
        assert not any(values[:4].astype(kind).tobytes() in whole for kind in (np.float32, np.float64))
    # The last model is found by the same search.
    assert all(value.ravel()[:4].tobytes() in whole for value in outcome.arrays.values())
    # The key stands first in its file, and after it what crossed: the key as it is sealed.
    assert not any(keys[0][at : at + 24] in whole for at in range(2_000, 60_000, 4_999))
    assert keys[0][-20_000:-19_976] in whole


@pytest.mark.parametrize("kind", [TRAIN, OPEN])
def test_a_site_killed_in_a_round_comes_back_with_its_key(consortium: Callable[..., Consortium], kind: str):
    found, asked = consortium(4), []
    victim = {TRAIN: FIRST, OPEN: "site-02"}[kind]

    def absent(site: str, sent: str) -> bool | str:
        asked.append((site, sent))
        return "kept" if (site, sent) == (victim, kind) and asked.count((site, sent)) == 1 else False

    grid = SummingGrid(found, absent)
    outcome = conduct(found, grid)
    assert (outcome.status, outcome.rounds) == ("completed", ROUNDS)
    assert max_difference(outcome.arrays, plain_model(found)) < ROUNDS * STEP
    # The round was asked again, of all sites: they sent the same ciphertexts once more.
    trained = [(site, reply) for site, message, reply in grid.sent if message.metadata.message_type == TRAIN]
    first = [read(TrainReply, reply.content).encrypted for site, reply in trained if site == "site-03"]
    assert len(first) == ROUNDS + 1 and np.array_equal(first[0], first[1])


class Killed(Exception):
    """The coordinator's end."""


@pytest.mark.studies
@pytest.mark.parametrize("stage, round, committed", [("round", 1, 1), ("round", 2, 2), ("checkpoint", 3, 2)])
def test_a_coordinator_that_was_killed_goes_on_to_the_same_bits(consortium, stage, round, committed):
    found, other = consortium(), None

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
        other = after.arrays
        outcome = FederatedRun(grid, study, recorder, each_round=True, checkpoint=after).conduct()
    assert (outcome.status, outcome.rounds) == ("completed", ROUNDS)
    assert max_difference(kept(grid).arrays, outcome.arrays) == 0.0 < max_difference(other, outcome.arrays)
    assert max_difference(outcome.arrays, plain_model(found)) < ROUNDS * STEP


def test_a_comparison_that_is_asked_again_is_answered_though_the_key_is_gone(consortium: Callable[..., Consortium]):
    found = consortium()
    grid = SummingGrid(found)
    conduct(found, grid)
    site, message, before = next(one for one in grid.sent if one[1].metadata.message_type == COMPARE)
    again = found.gates[site].answer(message, grid.context_of(message))
    assert not again.has_error() and content_sha256(again.content) == content_sha256(before.content)


def test_the_model_is_taken_out_at_a_site(consortium, tmp_path):
    found = consortium()
    grid = SummingGrid(found)
    conduct(found, grid)
    run = str(next(iter(grid._contexts.values())).run_config["run"])
    folder = tmp_path / "model"
    done = CliRunner().invoke(app, ["site", "model", FIRST, run, "--output", str(folder), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["model"] == run
    model = SharedModel.read(folder)
    assert max_difference(model.arrays, plain_model(found)) < ROUNDS * STEP and model.run == run
    again = CliRunner().invoke(app, ["site", "model", FIRST, run, "--output", str(folder)])
    assert isinstance(again.exception, UsageError) and "is not empty" in str(again.exception)
    other = CliRunner().invoke(app, ["site", "model", FIRST, run, "--output", str(tmp_path / "b"), "--repeat", "1"])
    assert isinstance(other.exception, UsageError) and "has no model of run" in str(other.exception)
    path = path_of(FIRST, run, 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert site_model(FIRST, run, 0) is None


# Lies of a coordinator, which adds up ciphertexts without the key.


class LyingGrid(SummingGrid):
    """A coordinator that asks the second round's opener for something else.

    Parameters
    ----------
    consortium : Consortium
    lie : callable (grid, request) → OpenRequest
    """

    def __init__(self, consortium: Consortium, lie: Callable[["LyingGrid", OpenRequest], OpenRequest]) -> None:
        super().__init__(consortium)
        self.lies = lie
        model = model_shapes(consortium.study, datasets.load("small").schema)
        self.liar = Liar(vector_entries(entries_of(model)))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send requests, one of them with a lie."""
        return super().send_and_receive([self._other(one) for one in messages], timeout=timeout)

    def _other(self, message: Message) -> Message:
        if message.metadata.message_type != OPEN or message.content["config"]["round"] != 2:
            return message
        found = copy.copy(message)
        found.content = self.lies(self, read(OpenRequest, message.content)).to_record()
        return found

    def parts(self, round: int) -> list[np.ndarray]:
        """Return the parts of the sites of a round."""
        return [
            read(TrainReply, reply.content).encrypted for _, message, reply in self.sent
            if message.metadata.message_type == TRAIN and message.content["config"]["round"] == round
        ]  # fmt: skip


def other_sum(add: Callable[[LyingGrid], np.ndarray]) -> Callable[[LyingGrid, OpenRequest], OpenRequest]:
    return lambda grid, request: replace(request, encrypted={CIPHERTEXT: add(grid)})


def other_weights(grid: LyingGrid, request: OpenRequest) -> OpenRequest:
    sums = request.total.sums.copy()
    sums[1] //= 2
    return replace(request, total=replace(request.total, sums=sums))


LIES: dict[str, Callable[[LyingGrid, OpenRequest], OpenRequest]] = {
    "a part three times": other_sum(lambda grid: grid.liar.add([grid.parts(2)[1]] * 3)),
    "one part": other_sum(lambda grid: grid.parts(2)[1]),
    "a masked part": other_sum(lambda grid: grid.liar.masked(grid.parts(2)[1], [2], [(0, 0.5, 1.0)])),
    "a rewritten scale": other_sum(lambda grid: grid.liar.multiplied(grid.parts(2)[1], 3)),
    "the round before": other_sum(lambda grid: grid.liar.add(grid.parts(1))),
    "without one site": other_sum(lambda grid: grid.liar.add(grid.parts(2)[:2])),
    "other weights": other_weights,
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_site_opens_nothing_but_the_sum_of_one_part_of_each_site(consortium: Callable[..., Consortium], lie):
    found = consortium()
    grid = LyingGrid(found, lie)
    outcome = conduct(found, grid)
    said = str(Refusal("total-unverified"))
    assert (outcome.status, outcome.rounds) == ("stopped", 1) and said in outcome.reason
    # The site that was lied to has no key any more, and its ledger says why; nothing was opened.
    assert not list(found.folders["site-03"].root.glob("runs/*/sums-shared.safetensors"))
    assert any(line.facts.get("reason") == said for line in found.lines("site-03") if line.kind == "error")
    assert not any(
        reply.has_content() and message.content["config"]["round"] == 2
        for _, message, reply in grid.sent if message.metadata.message_type == OPEN
    )  # fmt: skip


def test_only_the_site_whose_turn_it_is_opens_and_each_round_once(consortium: Callable[..., Consortium]):
    found = consortium()
    grid = SummingGrid(found)
    asked: list[str] = []

    def ask(site: str, request: OpenRequest) -> str:
        message = Message(request.to_record(), dst_node_id=grid.nodes[site], message_type=OPEN)
        return found.gates[site].answer(message, grid.context_of(message))

    def absent(site: str, kind: str) -> bool:
        opened = [one for one in grid.sent if one[1].metadata.message_type == OPEN]
        if kind == TRAIN and len(opened) == 1 and not asked:
            _, message, reply = opened[0]
            request = read(OpenRequest, message.content)
            assert ask("site-02", request).content == reply.content
            # What an opener alone takes is no total of a round.
            message = Message(
                TrainRequest(
                    arrays={}, encoder=NO_ENCODER, round=2, rounds=ROUNDS, total=request.total
                ).to_record(), dst_node_id=grid.nodes["site-03"], message_type=TRAIN,
            )  # fmt: skip
            asked.append(found.gates["site-03"].answer(message, grid.context_of(message)).error.reason)
            total = replace(request.total, sums=request.total.sums + np.uint64(1))
            asked.extend(
                str(ask(name, other).error.reason)
                for name, other in (("site-02", replace(request, total=total)), ("site-01", request))
            )
        return False

    grid.absent = absent
    assert conduct(found, grid).status == "completed"
    assert asked == [
        str(Refusal("total-unverified")),
        str(Refusal("step-answered", round=1)),
        str(Refusal("sum-not-opened", round=1)),
    ]


def test_a_changed_total_of_the_opened_sum_is_refused_by_the_other_sites(consortium: Callable[..., Consortium]):
    found = consortium()

    def lie(site: str, kind: str, reply: Message) -> Message:
        if kind != OPEN:
            return reply
        total = read(OpenReply, reply.content).total
        vector = total.vector.copy()
        vector[1] += 1
        reply.content = OpenReply(total=replace(total, vector=vector)).to_record()
        return reply

    outcome = conduct(found, SummingGrid(found, lie=lie))
    assert (outcome.status, outcome.rounds) == ("stopped", 1) and str(Refusal("total-unverified")) in outcome.reason
