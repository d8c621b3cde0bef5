"""The grid whose sites compute together: each site as if it were alone, whatever another does to its message."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Context, Message, RecordDict

from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import CohortGrid, InProcessGrid
from flfed.federation.server.run_setting import ask
from flfed.rows.session import SiteSession
from flfed.rows.training.answer import compute_stacked
from flfed.rows.training.requests import Failed, FitRequest
from flfed.seeds import FEW, generator
from flfed.study.plan import Plan
from flfed.study.study import Study
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.rounds import RARELY, Participant, RunContext
from flfed.updates.messages.compare import CompareReply, CompareRequest
from flfed.updates.messages.train import TRAIN, TrainReply, TrainRequest, lacks_encoder, with_encoder
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record

ENCODER = Encoder(**{name: np.ones(2) for name in ("center", "scale", "frequency", "spread", "class_weight")})
START = {"weight": np.arange(6.0).reshape(3, 2), "bias": np.ones(2)}
NAMES = ["a", "b", "c"]


class Ticking:
    """A clock that a site moves on by the seconds it takes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Side(SiteClient):
    """Sites whose answers are a test's own: `handle(request, site)` asks and returns a reply."""

    def __init__(self, handle: Callable[[Message, str], Generator[Any, Any, Any]]) -> None:
        super().__init__(lambda name, study: pytest.fail("no table is read here"))
        self._handle = handle

    def exchange(self, message: Message, context: Context) -> Generator[Any, Any, Message]:
        reply = yield from self._handle(message, str(context.node_config["site"]))
        return Message(reply.to_record(), reply_to=message)


def question(node: int) -> Message:
    return Message(RecordDict({"config": ConfigRecord({"a": 1})}), dst_node_id=node, message_type=TRAIN)


def counted(number: float) -> TrainReply:
    return TrainReply(delta={}, num_examples=number, loss=0.0, steps=0)


def numbers(replies: list[Message]) -> list[float]:
    return [TrainReply.from_record(reply.content).num_examples for reply in replies]


def test_what_the_cohort_asks_is_answered_at_once_and_each_site_gets_its_own():
    asked: list[list[Any]] = []

    def handle(message: Message, site: str) -> Generator[Any, Any, TrainReply]:
        first = yield f"{site}1"
        pair = (yield [f"{site}2", f"{site}3"]) if site != "b" else []
        return counted(first + sum(pair))

    def answer(requests: Any) -> list[float]:
        asked.append(list(requests))
        return [100 * "abc".index(text[0]) + int(text[1]) for text in requests]

    grid = CohortGrid(Side(handle), NAMES, {}, answer)
    replies = grid.send_and_receive([question(node) for node in (3, 1, 2)])
    assert asked == [["c1", "a1", "b1"], ["c2", "c3", "a2", "a3"]]
    assert numbers(replies) == [201 + 202 + 203, 1 + 2 + 3, 101]
    assert [reply.metadata.src_node_id for reply in replies] == [3, 1, 2]


def test_a_failure_is_raised_at_the_site_that_asked_and_at_no_other():
    def handle(message: Message, site: str) -> Generator[Any, Any, TrainReply]:
        try:
            return counted((yield site))
        except ValueError:
            return counted(-1)

    results = {"a": 1.0, "b": Failed(ValueError("of b")), "c": 3.0}
    grid = CohortGrid(Side(handle), NAMES, {}, lambda requests: [results[site] for site in requests])
    assert numbers(grid.send_and_receive([question(node) for node in (1, 2, 3)])) == [1, -1, 3]


def test_a_sites_time_is_its_own_and_an_even_share_of_what_is_computed_for_all():
    # Own code takes 1, 5 and 2 seconds a step; a and b ask once, c twice. Computing takes 3: 1 each, then 3 for c.
    # In sum 1 + 1 + 1, 5 + 1 + 5 and 2 + 1 + 2 + 3 + 2.
    clock, seconds = Ticking(), {"a": 1, "b": 5, "c": 2}

    def handle(message: Message, site: str) -> Generator[Any, Any, TrainReply]:
        for _ in range(2 if site == "c" else 1):
            clock.now += seconds[site]
            yield site
        clock.now += seconds[site]
        return counted(1)

    def answer(requests: Any) -> list[int]:
        clock.now += 3
        return [0] * len(requests)

    grid = CohortGrid(Side(handle), NAMES, {}, answer, clock=clock)
    for timeout, expected in ((11.0, [1, 2, 3]), (10.9, [1, 3]), (10.0, [1, 3]), (9.9, [1]), (2.9, [])):
        replies = grid.send_and_receive([question(node) for node in (1, 2, 3)], timeout=timeout)
        assert [reply.metadata.src_node_id for reply in replies] == expected


def test_a_result_is_gone_once_its_site_has_answered():
    """Results of 10,000 sites and their replies are not in memory together."""
    alive: list[weakref.ref[Any]] = []
    most: list[int] = []

    def handle(message: Message, site: str) -> Generator[Any, Any, TrainReply]:
        result = yield site
        most.append(sum(ref() is not None for ref in alive))
        return counted(float(result[0]))

    def answer(requests: Any) -> list[Any]:
        results = [np.ones(3) for _ in requests]
        alive.extend(weakref.ref(result) for result in results)
        return results

    CohortGrid(Side(handle), NAMES, {}, answer).send_and_receive([question(node) for node in (1, 2, 3)])
    assert most == [3, 2, 1]


EDITS: dict[str, Callable[[RecordDict], object]] = {
    "replaces an array": lambda r: r["arrays"].update(weight=Array(np.full((3, 2), 7.0))),
    "changes a setting": lambda r: r["config"].update(round=99),
    "adds a section": lambda r: r.update(more=ConfigRecord({"a": 1})),
    "writes into an array": lambda r: np.multiply(r["arrays"]["weight"].values, 2, out=r["arrays"]["weight"].values),
    "writes into the encoder": lambda r: r["encoder"]["scale"].values.fill(3.0),
    "clears everything": lambda r: [part.clear() for part in [*r.values(), r]],
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_site_that_edits_its_message_changes_neither_another_sites_nor_the_model(edit):
    """Site a edits before b and c read; whether it may or is stopped, they train from what was sent."""
    before, during = gc.get_threshold(), set[tuple[int, int, int]]()
    seen: dict[str, TrainRequest] = {}

    def handle(message: Message, site: str) -> Generator[Any, Any, TrainReply]:
        during.add(gc.get_threshold())
        # The encoder crosses once: of a later request a site has it.
        content = message.content
        if lacks_encoder(content):
            content = with_encoder(content, ENCODER.arrays())
        if site == "a":
            try:
                EDITS[edit](content)
            except ValueError as error:
                assert "read-only" in str(error)
        else:
            seen[site] = TrainRequest.from_record(content)
        return TrainReply(delta={n: np.ones_like(v) for n, v in START.items()}, num_examples=5, loss=0.1, steps=1)
        yield

    strategy = FedAvg()
    participants = {name: Participant(node_id=n, rows_high=9) for n, name in enumerate(NAMES, start=1)}
    strategy.assign(RunContext(participants=participants, encoder=ENCODER, plan=Plan(), rounds=1, seed=1))
    result = strategy.start(CohortGrid(Side(handle), NAMES, {}, list), to_record(START), 1)
    for request in seen.values():
        assert (request.round, request.encoder.scale.tolist()) == (2, [1.0, 1.0])  # the last evaluation's
        np.testing.assert_array_equal(request.arrays["weight"], START["weight"] + 1)
    np.testing.assert_array_equal(to_arrays(result.arrays)["weight"], START["weight"] + 1)
    assert len(seen) == 2 and ENCODER.scale.tolist() == [1.0, 1.0]
    assert (gc.get_threshold(), during) == (before, {RARELY})


def test_every_node_that_is_asked_has_a_record_of_its_own_and_is_counted():
    contents: list[RecordDict] = []

    def app(message: Message, context: Context) -> Message:
        contents.append(message.content)
        found = CompareRequest.from_record(message.content)
        message.content["arrays"].clear()
        reply = CompareReply(num_examples=len(found.arrays), holdout_rows=0, arms=(), differences=())
        return Message(reply.to_record(), reply_to=message)

    nodes = dict(zip(NAMES, (1, 2, 3), strict=True))
    request = CompareRequest(arrays=START, encoder=ENCODER)
    answers = ask(InProcessGrid(app, NAMES, {}), "query.compare", request, nodes, CompareReply.from_record, timeout=9)
    assert [reply.num_examples for reply in answers.replies.values()] == [2, 2, 2]
    size = sum(part.count_bytes() for part in request.to_record().values())
    assert answers.to_node == dict.fromkeys(NAMES, size)
    assert len({id(content) for content in contents}) == 3


def test_sites_that_are_seeded_together_draw_each_its_own_in_every_round_and_repeat(small_sites, small_study):
    sites, study = small_sites(FEW + 2), Study.parse(small_study)
    by_name = {site.name: site for site in sites}
    side, drawn = SiteClient(lambda name, _: by_name[name]), list[list[int]]()

    def answer(requests: Any) -> list[Any]:
        fits = [request for request in requests if isinstance(request, FitRequest)]
        if fits:
            drawn.append([fit.rng.bit_generator.state["state"]["state"] for fit in fits])
        return compute_stacked(requests)

    own = SiteSession(sites[0], study)
    encoder = own.own_encoder()
    arrays = own.model.first_arrays(own.training(encoder).x.shape[1], 1, np.random.default_rng(0))
    grids = {r: CohortGrid(side, list(by_name), {"study": small_study, "repeat": r}, answer) for r in (0, 1)}
    for number, repeat in ((1, 0), (2, 0), (1, 1), (2, 1), (3, 0)):
        request = TrainRequest(arrays=arrays, encoder=encoder, round=number, rounds=5)
        asked = [Message(request.to_record(), node, TRAIN) for node in range(1, len(sites) + 1)]
        assert not any(reply.has_error() for reply in grids[repeat].send_and_receive(asked))
        alone = [generator(study.seed + repeat, site=name, purpose="fit", number=number) for name in by_name]
        assert drawn.pop() == [rng.bit_generator.state["state"]["state"] for rng in alone]


RUN = """
import pickle, sys
from flfed.federation.server.run import run
from flfed.study.study import Study
text, sites = pickle.load(open(sys.argv[1], "rb"))
result = run(Study.parse(text), sites=sites)
print(result.report["path"], result.status, *[name for name in sys.modules if name.startswith("torch._dynamo")][:3])
"""


@pytest.mark.studies
@pytest.mark.parametrize("model", [pytest.param("logistic", marks=pytest.mark.proof), "mlp"])
def test_no_run_imports_the_compiler(small_sites, small_study: str, tmp_path: Path, model: str):
    """`torch._dynamo` costs 0.9 CPU seconds and 77 MB; `torch.optim` and `vmap` import it at their first use."""
    given = tmp_path / "given"
    given.write_bytes(pickle.dumps((small_study.replace("logistic", model), small_sites(3))))
    done = subprocess.run([sys.executable, "-c", RUN, str(given)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["stacked", "completed"]
