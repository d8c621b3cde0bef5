"""Sites that lie by their masked vector or loss end a run with the last good model; the server holds no update."""

import gc
import types
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.federation.client.client import SiteClient
from flfed.federation.client.masked import SiteSums
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.server import FederatedRun
from flfed.paths import home
from flfed.records.store.entries import RunEntry
from flfed.records.store.writer import RunStore
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.aggregation.losses import Losses
from flfed.updates.aggregation.summer import Summer
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.masks.ring import LARGEST_ENTRY, rings
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply
from flfed.updates.strategies.fedavg import FedAvg
from tests.deployment.summing import Consortium, Coordinator, CoordinatorKilled, begun

ROUNDS = 3
Change = Callable[[TrainReply], TrainReply]


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Consortium]:
    """A function that returns four sites that approved a study."""

    def make(asked: str = "on", **changes: Any) -> Consortium:
        study = Study.parse(small_study).replace({"secure-aggregation": asked, "strategy.rounds": ROUNDS} | changes)
        return Consortium(small_sites(4, rows=80, policy=Policy(disclosure="open", resplit=True)), study)

    return make


def lying(rounds: Iterable[int], change: Change) -> Callable[[str, str, Message], Message]:
    """Return the lie of the last site, in its replies of some rounds."""
    answered: list[str] = []

    def go(site: str, what: str, reply: Message) -> Message:
        if site != "site-04" or what != TRAIN:
            return reply
        answered.append(what)
        if len(answered) not in rounds:
            return reply
        reply.content = change(TrainReply.from_record(reply.content)).to_record()
        return reply

    return go


def moved(by: float) -> Change:
    """Return a reply whose update has this more in each entry: within the ring, and under the right masks."""

    def go(reply: TrainReply) -> TrainReply:
        assert reply.masked is not None
        step = np.uint32(int(by * rings(4, LARGEST_ENTRY)[0].scale))
        vector = reply.masked.vector.copy()
        vector[1:] += step
        return replace(reply, masked=replace(reply.masked, vector=vector))

    return go


def unmasked(reply: TrainReply) -> TrainReply:
    """Return a reply under another mask than the others have of it."""
    assert reply.masked is not None
    other = np.random.default_rng(0).integers(0, 2**32, reply.masked.vector.size, np.uint32)
    return replace(reply, masked=replace(reply.masked, vector=reply.masked.vector + other))


def say_loss(patch: pytest.MonkeyPatch, number: int, loss: float) -> None:
    """Have the last site say, in its answer of that number, that the model that came has this loss."""
    answers = count(1)
    honest = SiteSums._losses

    def losses(sums: SiteSums, own: Losses, rng: np.random.Generator) -> np.ndarray:
        if sums.keys.site == "site-04" and next(answers) == number:
            own = {**own, "scores": replace(own["scores"], loss=loss)}
        return honest(sums, own, rng)

    patch.setattr(SiteSums, "_losses", losses)


def model(run: RunEntry) -> dict[str, np.ndarray]:
    return checkpoints.final(run.run).arrays


def after(consortium: Callable[..., Consortium], rounds: int) -> dict[str, np.ndarray]:
    """Return the model of an honest run after some rounds."""
    found = consortium()
    seen: dict[int, dict[str, np.ndarray]] = {}

    def keep(stage: str, number: int) -> None:
        if stage == "checkpoint":
            newest = max((home() / "runs").glob("*/round-*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
            seen[number] = checkpoints.read(newest).arrays
            if number == rounds:
                raise CoordinatorKilled("that is all")

    Coordinator(found).run(observer=keep)
    return seen[rounds]


@pytest.mark.parametrize("change", [unmasked, moved(4.8)], ids=["other mask", "norm"])
def test_a_sum_that_does_not_count_or_is_too_large_ends_the_run_with_the_last_good_model(consortium, change):
    found = consortium()
    run = Coordinator(found).run(lie=lying([2], change))
    assert (run.status, run.rounds) == ("stopped", 1)
    said = "does not count its 4 sites" if change is unmasked else "the norm of the sum is"
    assert run.reason.startswith("round 2: ") and said in run.reason
    good = after(consortium, 1)
    assert all((value == good[name]).all() for name, value in model(run).items())


def test_the_last_models_loss_is_held_to_the_rule_too(
    consortium: Callable[..., Consortium], monkeypatch: pytest.MonkeyPatch
):
    good = after(consortium, ROUNDS - 1)
    found = consortium()
    say_loss(monkeypatch, ROUNDS + 1, 1e3)
    run = Coordinator(found).run()
    assert run.status == "stopped" and f"round {ROUNDS + 1}: the mean loss" in run.reason
    assert all((value == good[name]).all() for name, value in model(run).items())


def test_a_loss_that_is_many_times_the_one_before_ends_the_run(
    consortium: Callable[..., Consortium], monkeypatch: pytest.MonkeyPatch
):
    good = after(consortium, 0)
    found = consortium()
    say_loss(monkeypatch, 2, 1e3)
    run = Coordinator(found).run()
    # The model of the first round is spoilt, and so the one that it was made from is the result.
    assert (run.status, run.rounds) == ("stopped", 1) and "round 2: the mean loss" in run.reason
    assert all((value == good[name]).all() for name, value in model(run).items())


def secrets_of(consortium: Consortium) -> list[bytes]:
    """Return each site's update of the first round as bytes, in each form in which somebody might hold it."""
    study = consortium.study.replace({"secure-aggregation": "off"})
    side, found = SiteClient(lambda name, _: consortium.sites[name]), list[bytes]()

    class Grid(InProcessGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
            replies = super().send_and_receive(messages, timeout=timeout)
            if not found and any(reply.metadata.message_type == TRAIN for reply in replies):
                told = [TrainReply.from_record(reply.content) for reply in replies]
                for reply in told:
                    # Its largest array stands whole in whatever holds the update, flattened or not.
                    flat = max(reply.delta.values(), key=np.size).ravel()
                    found.extend(np.asarray(flat, dtype).tobytes() for dtype in ("<f4", ">f4", "<f8", ">f8"))
                    for weight in (1.0, reply.num_examples / 999, reply.num_examples / 99):
                        step = rings(4, LARGEST_ENTRY)[0].scale
                        low = np.floor(weight * flat * step).astype(np.int64)
                        # Rounding up or down is by chance: two neighbours are told by one entry alone.
                        found.extend(low.astype("<u4").tobytes() for low in (low, low + 1))
            return replies

    config = {"study": study.text, "repeat": 0, "run": "", "sites": ",".join(consortium.sites)}
    with RunStore.open() as store:
        writer = begun(store, study, "inprocess")
        FederatedRun(
            Grid(side.app(), sorted(consortium.sites), config), study, Recorder(writer, "roc_auc_score", ROUNDS)
        ).conduct()
    return found


def reached(roots: list[object], stop: set[int]) -> list[bytes]:
    """Return the bytes of all arrays, byte strings and fractions that can be reached from some objects."""
    seen, found, todo = set(stop), list[bytes](), list(roots)
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, types.ModuleType | type | types.FunctionType | types.FrameType):
            continue
        seen.add(id(one))
        if isinstance(one, np.ndarray):
            found.append(np.ascontiguousarray(one).tobytes())
            todo.append(one.base)
        elif isinstance(one, bytes | bytearray | memoryview):
            found.append(bytes(one))
        elif isinstance(one, float):
            found.append(np.float64(one).tobytes())
        else:
            todo += gc.get_referents(one)
    return found


@pytest.mark.studies
@pytest.mark.parametrize("asked", ["on", "off"])
def test_no_sites_update_is_in_the_coordinators_memory_files_store_log_or_messages(consortium, asked, caplog):
    caplog.set_level("DEBUG")
    found = consortium(asked)
    coordinator, pieces = Coordinator(found), list[bytes]()
    here = {id(found), id(found.gates), id(found.sites)}

    def look(site: str, kind: str) -> bool:
        # In the middle of the second round, and at its end: all that the server holds of the round and the one before.
        if kind in (TRAIN, EVALUATE) and site in ("site-01", "site-04"):
            held = [one for one in gc.get_objects() if isinstance(one, FedAvg | Summer | FederatedRun)]
            pieces.extend(reached([*held], {*here, id(coordinator.grid)}))
            pieces.extend(path.read_bytes() for path in (home() / "runs").rglob("*") if path.is_file())
        return False

    run = coordinator.run(absent=look)
    assert run.status == "completed", run.reason
    pieces += [path.read_bytes() for path in (home() / "runs").rglob("*") if path.is_file()]
    pieces += [path.read_bytes() for path in home().glob("runs.db*")]
    pieces += [caplog.text.encode()]
    for _, _, reply in coordinator.grid.sent:
        for name in reply.content.array_records:
            pieces += [array.numpy().tobytes() for array in reply.content[name].values()]
    secrets = secrets_of(found)
    assert len(secrets) == 4 * 10 and len(pieces) > 100
    seen = [secret for secret in secrets if any(secret in piece for piece in pieces)]
    # Without sums the search finds each site's update.
    assert len(seen) >= 4 if asked == "off" else seen == []
