"""Two gates of one site that are asked at once: what a run may not have twice, it does not get from the second either.

Each test has both gates pass their first look at the ledger before either answers.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
from flwr.app import Message

from flfed.deployment.gate import gate as gate_module
from flfed.deployment.gate.gate import Gate
from flfed.deployment.gate.outbound import Leaving
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainRequest
from tests.deployment.conftest import TODAY

ROUNDS = 12
Ask = tuple[Message, dict[str, Any]]
"""A message, and what its run config has besides."""


class TwoGates:
    """Two gates of one site, each as a process of its own has it."""

    def __init__(self, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site = site
        self.gates = [Gate(site.folder, site.site, today=lambda: TODAY) for _ in range(2)]
        self._together = Barrier(2, timeout=60)
        self._both = False
        plain = Leaving.used_up

        def waiting(*given: Any) -> Any:
            """Return what is used up, once both gates looked."""
            found = plain(*given)
            if self._both:
                self._together.wait()
            return found

        monkeypatch.setattr(Leaving, "used_up", waiting)
        # Without the lock of a run both look before either answers: the transaction alone tells them apart.
        lock = gate_module.locked
        monkeypatch.setattr(
            gate_module, "locked",
            lambda folder, name, **given: nullcontext() if name.startswith("run-") else lock(folder, name, **given),
        )  # fmt: skip

    def ask(self, gate: int, asked: Ask) -> str:
        """Ask one gate, and return what it says to that; an empty text where it answers."""
        message, changes = asked
        reply = self.gates[gate].answer(message, self.site.context(**changes))
        return str(reply.error.reason) if reply.has_error() else ""

    def ask_both(self, asked: tuple[Ask, Ask]) -> list[str]:
        """Ask both gates at once."""
        self._both = True
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(self.ask, range(2), asked))
        self._both = False
        return found


def model(site: Any, kind: str, round: int, by: float = 0.0, **changes: Any) -> Message:
    """Return a request of a model, which is the first one moved `by`."""
    last = kind != TRAIN
    sent = TrainRequest.from_record(site.trained(round=ROUNDS + 1 if last else round, evaluate=last).content)
    arrays = {name: value + by for name, value in sent.arrays.items()}
    made: Any = replace(sent, arrays=arrays)
    if kind == COMPARE:
        made = CompareRequest(arrays=arrays, encoder=sent.encoder, **changes)
    message: Message = site.message(kind, made)
    return message


@pytest.fixture
def two(gated: Callable[..., Any], small_study: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TwoGates]:
    """A function that returns two gates of an open site."""

    def make(**policy: Any) -> TwoGates:
        text = small_study.replace("rounds = 5", f"rounds = {ROUNDS}")
        return TwoGates(gated(text, policy=Policy(disclosure="open", resplit=True, **policy)), monkeypatch)

    return make


def one_answered(found: TwoGates, asked: tuple[Ask, Ask], why: str, kind: str) -> None:
    """Ask both at once: one answers, the other says why not; the same again is answered as before, the other never."""
    before = len(found.site.lines())
    said = found.ask_both(asked)
    assert sorted(said) == ["", why]
    lines = found.site.lines()[before:]
    assert sorted(line.kind for line in lines) == sorted(["withheld", kind])
    answered = said.index("")
    for gate in range(2):
        assert found.ask(gate, asked[answered]) == ""
        assert found.ask(gate, asked[1 - answered]) == why


def test_each_round_is_trained_from_one_model(two: Callable[..., TwoGates]):
    found = two()
    for round in range(1, ROUNDS + 1):
        asked = tuple((model(found.site, TRAIN, round, by), {}) for by in (0.0, 0.5))
        one_answered(found, asked, Refusal("step-answered", round=round), "train")  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "word"), [(EVALUATE, "evaluate"), (COMPARE, "compare")])
def test_a_run_has_one_model_evaluated_and_one_compared(two: Callable[..., TwoGates], kind: str, word: str):
    found = two()
    asked = tuple((model(found.site, kind, 0, by), {}) for by in (0.0, 0.5))
    one_answered(found, asked, Refusal("step-answered", round=0), word)  # type: ignore[arg-type]


def test_a_run_is_compared_in_one_set_of_bins(two: Callable[..., TwoGates]):
    found = two()
    asked = tuple((model(found.site, COMPARE, 0, odds_centre=centre, odds_spread=0.5), {}) for centre in (-1.0, -0.75))
    one_answered(found, asked, Refusal("step-answered", round=0), "compare")  # type: ignore[arg-type]


def test_the_last_run_of_a_study_is_one(two: Callable[..., TwoGates]):
    found = two(runs=1)
    message = model(found.site, COMPARE, 0)
    asked = ((message, {"run": "20261120-one"}), (message, {"run": "20261120-two"}))
    one_answered(found, asked, Refusal("too-many-runs", most=1, had=1), "compare")


def test_one_question_that_both_are_asked_is_answered_by_both(two: Callable[..., TwoGates]):
    found = two()
    for kind in (TRAIN, EVALUATE, COMPARE):
        message = model(found.site, kind, 1)
        assert found.ask_both(((message, {}), (message, {}))) == ["", ""]
