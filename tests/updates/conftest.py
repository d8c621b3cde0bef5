"""What tests of updates share: replies as a node sends them, a strategy with its run, a small federation."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from flfed.rows.data.holdout import Holdout
from flfed.rows.data.site import Policy, Site
from flfed.rows.data.sources import Frame
from flfed.study.plan import Plan
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.rounds import Participant, RoundRecord, RunContext
from flfed.updates.messages.train import TRAIN, Scores, TrainReply
from flfed.updates.strategies.fedavg import FedAvg
from tests.updates.whole_requests import ENCODER, whole_request


@pytest.fixture(autouse=True)
def on_a_task() -> None:
    """Flower builds messages only where these are set; a SuperLink does it for its processes."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 0


@pytest.fixture
def encoder() -> Encoder:
    return ENCODER


class Bench:
    """A strategy in a run of its own, whose sites answer what a test says; `records` has its rounds."""

    def __init__(self, strategy: FedAvg, sites: int, plan: Plan, rounds: int, rows_high: int) -> None:
        self.names = [f"site-{number:02d}" for number in range(1, sites + 1)]
        self.strategy, self.records = strategy, list[RoundRecord]()
        # Node ids go against name order, so that nothing can lean on them.
        self.nodes = {name: 900 - 7 * number for number, name in enumerate(self.names)}
        strategy.assign(
            RunContext(
                participants={name: Participant(node_id=self.nodes[name], rows_high=rows_high) for name in self.names},
                encoder=ENCODER, plan=plan, rounds=rounds, seed=11, observer=self.records.append,
            )
        )  # fmt: skip

    def answers(self, asked: list[Message], replies: Mapping[str, TrainReply]) -> list[Message]:
        """Return the replies of the named sites to what they were asked, as Flower delivers them."""
        found = []
        for message in asked:
            message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
            name = next(n for n, node in self.nodes.items() if node == message.metadata.dst_node_id)
            if name in replies:
                found.append(Message(replies[name].to_record(), reply_to=message))
        return found


@pytest.fixture
def bench() -> Callable[..., Bench]:
    """A function that puts a strategy into a run: `bench(FedAvg(), 4)`."""

    def make(
        strategy: FedAvg | None = None, sites: int = 4, *, plan: Plan | None = None, rounds: int = 5,
        rows_high: int = 999,
    ) -> Bench:  # fmt: skip
        return Bench(strategy or FedAvg(), sites, plan or Plan(), rounds, rows_high)

    return make


class Sites:
    """A grid whose sites answer by a function (site, round, arrays) → TrainReply, or None for silence."""

    def __init__(self, bench: Bench, answer: Callable[[str, int, dict[str, np.ndarray]], Any]) -> None:
        self.bench, self.answer, self.asked = bench, answer, list[tuple[str, int]]()

    def send_and_receive(self, messages: list[Message], *, timeout: float | None = None) -> list[Message]:
        """Answer each message."""
        replies = {}
        for message in messages:
            name = next(n for n, node in self.bench.nodes.items() if node == message.metadata.dst_node_id)
            request = whole_request(message, ENCODER)
            reply = self.answer(name, request.round, request.arrays)
            if message.metadata.message_type == TRAIN:
                self.asked.append((name, request.round))
            elif reply is not None:
                reply = replace(reply, delta={}, steps=0)
            if reply is not None:
                replies[name] = reply
        return self.bench.answers(messages, replies)


@pytest.fixture
def sites() -> type[Sites]:
    return Sites


MakeReply = Callable[..., TrainReply]


@pytest.fixture
def reply() -> MakeReply:
    """A function that makes an honest reply: `reply(seed, like=arrays, rows=40)`."""

    def make(
        seed: int = 0, *, like: Mapping[str, np.ndarray], rows: float = 40, loss: float | None = None, **other: Any
    ):
        rng = np.random.default_rng(seed)
        delta = {name: rng.normal(size=value.shape).astype(value.dtype) for name, value in like.items()}
        scores = None
        if loss is not None:
            scores = Scores(rows="validation", num_examples=10, metrics={"loss": loss})
        given = {"delta": delta, "num_examples": rows, "loss": 0.5, "steps": 3, "scores": scores} | other
        return TrainReply(**given)

    return make


LINE_SCHEMA = """
format = 1
name = "line"
task = "regression"
target = "y"
[columns.a]
kind = "number"
range = [-10, 10]
[columns.b]
kind = "number"
range = [-10, 10]
[columns.y]
kind = "target"
range = [-50, 50]
"""


@pytest.fixture
def line_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Site]:
    """Three sites of unequal size and different means, each with a line of its own."""
    folder = tmp_path / "line" / "datasets" / "line"
    folder.mkdir(parents=True)
    (folder / "schema.toml").write_text(LINE_SCHEMA)
    (folder / "source.toml").write_text('format = 1\nlicence = "none"\ncitation = "made for tests"\nsynthetic = true\n')
    monkeypatch.setenv("FLFED_PATH", str(tmp_path / "line"))
    rng, sites = np.random.default_rng(5), []
    for number, rows in enumerate((15, 60, 140)):
        a, b = rng.normal(number, 1, rows).clip(-10, 10), rng.normal(-number, 2, rows).clip(-10, 10)
        table = pd.DataFrame({"a": a, "b": b, "y": (2 - number) * a - b + rng.normal(0, 1, rows)})
        policy = Policy(disclosure="open", resplit=True)
        sites.append(Site(name=f"l{number}", dataset="line", source=Frame(table), holdout=Holdout(), policy=policy))
    return sites
