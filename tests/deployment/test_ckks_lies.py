"""A coordinator that sends gates something else than the sum of one part of each site: nothing is opened or scored."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.errors import FlfedError
from flfed.federation.recording.run_record import Outcome
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.study_model import first_model, model_shapes
from flfed.study.study import Study
from flfed.updates.arrays import entries_of
from flfed.updates.masks.ckks import vector_entries
from flfed.updates.messages import fields
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.in_memory import array_record, read, record_of
from flfed.updates.messages.secure_sum import CIPHERTEXT, KEYS, KeysRequest
from flfed.updates.messages.summarise import SUMMARISE
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply
from tests.deployment.summing import Consortium, CoordinatorKilled, SummingGrid, conduct
from tests.updates.masks.lying_sums import Liar

ROUNDS = 3
SAID = str(Refusal("total-unverified"))


class LyingGrid(SummingGrid):
    """A coordinator that brings another model with one kind of request, of one round.

    Parameters
    ----------
    consortium : Consortium
    lie : callable (grid) → dict of name to array
    kind : str
    round : int
        Of the request.
    """

    def __init__(self, consortium: Consortium, lie: Callable[[LyingGrid], dict[str, Any]], kind: str, round: int):
        super().__init__(consortium)
        self.lies, self.kind, self.round = lie, kind, round
        self.lied = 0
        model = model_shapes(consortium.study, datasets.load("small").schema)
        self.liar = Liar(vector_entries(entries_of(model)))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send requests, some of them with another model."""
        return super().send_and_receive([self._other(one) for one in messages], timeout=timeout)

    def _other(self, message: Message) -> Message:
        if message.metadata.message_type != self.kind:
            return message
        if round_of(message) not in (self.round, 0):
            return message
        found = copy.copy(message)
        found.content = record_of({**message.content, "arrays": array_record(self.lies(self))})
        self.lied += 1
        return found

    def parts(self, round: int) -> dict[str, np.ndarray]:
        """Return the parts of the sites of a round."""
        came = {}
        for site, message, reply in self.sent:
            if message.metadata.message_type == TRAIN and round_of(message) == round:
                came[site] = read(TrainReply, reply.content).encrypted
        return came

    def weight(self, site: str) -> float:
        """Return the weight of a site's part, which its replies and the keys tell."""
        rows = most = 0.0
        for name, message, reply in self.sent:
            if message.metadata.message_type == KEYS:
                most = KeysRequest.from_record(message.content).most_rows
            if name == site and message.metadata.message_type == TRAIN and not reply.has_error():
                rows = read(TrainReply, reply.content).num_examples
        return rows / most


def round_of(message: Message) -> int:
    return int(message.content["config"].get("round", 0))


def model_of(message: Message) -> dict[str, np.ndarray]:
    return fields.ndarrays(message.content, "arrays")


def encrypted(array: np.ndarray) -> dict[str, np.ndarray]:
    return {CIPHERTEXT: array}


def last(grid: LyingGrid) -> dict[str, np.ndarray]:
    return grid.parts(grid.round - 1)


def masked(grid: LyingGrid) -> dict[str, np.ndarray]:
    part, weight = last(grid)["site-02"], grid.weight("site-02")
    return encrypted(grid.liar.masked(part, [2], [(0, weight, 1.0)]))


PLAYS: dict[str, Callable[[LyingGrid], dict[str, np.ndarray]]] = {
    "a part three times": lambda grid: encrypted(grid.liar.add([last(grid)["site-02"]] * 3)),
    "a masked part": masked,
    "a rewritten scale": lambda grid: encrypted(grid.liar.multiplied(last(grid)["site-02"], 3)),
    "the round before": lambda grid: encrypted(grid.liar.add([*grid.parts(grid.round - 2).values()])),
    "without one site": lambda grid: encrypted(grid.liar.add([*last(grid).values()][:3])),
    "a plain model": lambda grid: next(
        model_of(message) for _, message, _ in grid.sent if message.metadata.message_type == TRAIN
    ),
}
ROUND_OF = {TRAIN: 3, EVALUATE: ROUNDS + 1, COMPARE: ROUNDS + 1}


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Consortium]:
    """A function that returns sites that approved a study with sums of ciphertexts."""

    def make(sites: int = 3, **changes: Any) -> Consortium:
        study = Study.parse(small_study).replace({"secure-aggregation": "ckks", "strategy.rounds": ROUNDS, **changes})
        return Consortium(small_sites(sites, rows=80, policy=Policy(disclosure="open", resplit=True)), study)

    return make


def attempt(found: Consortium, grid: SummingGrid) -> Outcome | str:
    """Return the outcome of a run, or why it has none."""
    try:
        return conduct(found, grid)
    except FlfedError as error:
        return str(error)


@pytest.mark.studies
@pytest.mark.parametrize(
    "play, kind",
    [("a part three times", TRAIN), ("a rewritten scale", TRAIN), ("the round before", TRAIN), ("a plain model", TRAIN),
     ("without one site", TRAIN), ("a masked part", EVALUATE), ("the round before", EVALUATE),
     ("a masked part", COMPARE), ("the round before", COMPARE), ("a plain model", COMPARE)],
)  # fmt: skip
def test_what_is_no_sum_of_one_part_of_each_site_ends_the_run_at_each_gate(consortium, play, kind):
    # Of four sites, a sum of three had enough.
    found = consortium(4 if play == "without one site" else 3)
    grid = LyingGrid(found, PLAYS[play], kind, ROUND_OF[kind])
    outcome = attempt(found, grid)
    reason = outcome if isinstance(outcome, str) else outcome.reason
    assert "no site could compare" in reason if kind != TRAIN else SAID in reason
    answered = [
        reply for _, message, reply in grid.sent
        if message.metadata.message_type == kind and round_of(message) in (grid.round, 0)
    ]  # fmt: skip
    assert len(answered) == grid.lied >= 3
    assert all(reply.has_error() and SAID in reply.error.reason for reply in answered)
    honest = next(message for _, message, _ in grid.sent if message.metadata.message_type == SUMMARISE)
    for name in found.sites:
        lines = found.lines(name)
        ended = next(line for line in lines if line.kind == "error")
        assert (ended.facts["reason"], ended.facts["asked"]) == (SAID, kind)
        # Nothing that it is asked afterwards is answered, by another process of the gate too, and the key is gone.
        assert all(line.facts.get("reason") == SAID for line in lines[ended.n :])
        found.restart(name)
        context = next(one for one in grid._contexts.values() if one.node_config["site"] == name)
        assert SAID in found.gates[name].answer(honest, context).error.reason
        assert not list(found.folders[name].root.glob("runs/*/sums-ckks.safetensors"))


def test_the_same_coordinator_that_sends_the_sum_itself_is_answered(consortium: Callable[..., Consortium]):
    found = consortium()
    whole = lambda grid: encrypted(grid.liar.add([*last(grid).values()]))  # noqa: E731 - one play of many
    grid = LyingGrid(found, whole, COMPARE, ROUND_OF[COMPARE])
    outcome = attempt(found, grid)
    assert isinstance(outcome, Outcome) and (outcome.status, grid.lied) == ("completed", 3)
    assert not any(reply.has_error() for _, _, reply in grid.sent)


def test_a_site_that_is_missing_stops_the_run_by_name_with_the_last_model(consortium: Callable[..., Consortium]):
    # Three of four are enough for the strategy's quorum.
    found, rounds = consortium(4), list[str]()

    def absent(site: str, kind: str) -> bool:
        rounds.extend([site] * (kind == TRAIN))
        return (site, kind) == ("site-02", TRAIN) and rounds.count(site) > 1

    grid = SummingGrid(found, absent)
    outcome = conduct(found, grid)
    assert (outcome.status, outcome.rounds) == ("stopped", 1)
    assert outcome.reason.startswith(f"round 2: {Refusal('sum-incomplete', sites='site-02')} (site-02: ")
    # The others have opened the sum of the first round alone, and none of two parts.
    assert np.array_equal(outcome.arrays[CIPHERTEXT], model_of(grid.sent[-1][1])[CIPHERTEXT])


def test_a_site_makes_one_part_a_round(consortium: Callable[..., Consortium]):
    found, asked = consortium(), list[str]()

    def other(grid: LyingGrid) -> dict[str, np.ndarray]:
        return {name: value + np.float32(asked.count("site-01") > 0) for name, value in first.items()}

    grid = LyingGrid(found, other, TRAIN, 1)
    first = first_model(found.study, datasets.load("small").schema, 0)

    def fault(site: str, kind: str) -> bool | str:
        asked.extend([site] * (kind == TRAIN))
        # Its reply is kept and has not left, so that its ledger knows nothing of it.
        return "kept" if (site, kind, asked.count(site)) == ("site-01", TRAIN, 1) else False

    grid.absent = fault
    outcome = attempt(found, grid)
    assert isinstance(outcome, Outcome) and outcome.status == "stopped"
    assert str(Refusal("masks-used", round=1)) in outcome.reason


def test_a_site_makes_no_part_for_an_earlier_round(consortium: Callable[..., Consortium]):
    found = consortium()
    grid = SummingGrid(found, lambda site, kind: "crash" if kind == COMPARE else False)
    with pytest.raises(CoordinatorKilled):
        conduct(found, grid)
    site, message, _ = next(one for one in grid.sent if one[1].metadata.message_type == TRAIN)
    again = found.gates[site].answer(message, grid.context_of(message))
    assert again.error.reason == str(Refusal("masks-used", round=1))
