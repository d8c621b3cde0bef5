"""Noise that is drawn once: real gates before a coordinator that asks again, with other bins, and all at once."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.deployment.operator.budget import budget_as_json, describe_account
from flfed.federation.client import protection
from flfed.federation.client.privacy_budget import PrivacyAccount
from flfed.federation.client.released.accounts import SPENT as LINE
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import Line
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.study_model import first_model, study_layout
from flfed.rows.training.private_noise import SystemNoise
from flfed.study.study import Study
from flfed.summaries.summary import schema_encoder
from flfed.updates.accounting import Release, epsilon
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.kinds import SCORES
from flfed.updates.messages.summarise import ScoresReply, ScoresRequest
from flfed.updates.messages.train import TRAIN, TrainRequest
from tests.deployment.summing import Consortium, LyingServer, SummingGrid, masked
from tests.federation.test_compared_privately import COMPARED
from tests.federation.test_covered_study import STUDY

Small = Callable[..., list[Site]]
PLAIN = STUDY.replace('covers = "study"', "") + '[encode]\nscaler = "schema"\n'
RUN, SITE = "20261120-abcd", "site-01"
ROUNDS = 3


@dataclass
class Asking:
    """A coordinator that asks one of three gates what it likes."""

    gated: Consortium
    fault: bool | str = False
    run: str = RUN

    def __post_init__(self) -> None:
        self.study = self.gated.study
        schema = datasets.load("small").schema
        self.arrays = first_model(self.study, schema)
        self.encoder = schema_encoder(study_layout(self.study, schema))

    def ask(self, kind: str, request: Any) -> Message:
        grid = SummingGrid(self.gated, lambda site, kind: self.fault, run=self.run)
        message = Message(request.to_record(), dst_node_id=grid.nodes[SITE], message_type=kind)
        (reply,) = grid.send_and_receive([message])
        return reply

    def round(self, round: int, shift: float = 0.0) -> Message:
        moved = {name: value + np.asarray(shift, value.dtype) for name, value in self.arrays.items()}
        request = TrainRequest(
            arrays=moved, encoder=self.encoder, round=round, rounds=ROUNDS, lr_scale=1.0, fit=True, score=False,
            settings={},
        )  # fmt: skip
        return self.ask(TRAIN, request)

    def scores(self, **changes: Any) -> Message:
        return self.ask(SCORES, ScoresRequest(arrays=self.arrays, encoder=self.encoder, **changes))

    def last(self) -> Message:
        """Ask for what a run asks last."""
        if self.study.covers_model:
            return self.scores(edges=np.arange(0, 129, 8))
        return self.ask(COMPARE, CompareRequest(arrays=self.arrays, encoder=self.encoder))

    def spent(self) -> list[Line]:
        return [line for line in self.gated.lines(SITE) if line.kind == LINE]

    def trained(self) -> list[int]:
        """Rounds that were charged, in their order."""
        return [line.facts["round"] for line in self.spent() if line.facts["round"]]

    def epsilon(self) -> float:
        folder = self.gated.folders[SITE]
        return PrivacyAccount(ledger_of(folder), "small", self.gated.sites[SITE].policy).spent()


def three(small_sites: Small, text: str, **policy: Any) -> Asking:
    sites = [replace(site, policy=Policy(**policy)) for site in small_sites(3, rows=400)]
    gated = Consortium(sites, Study.parse(text))
    return Asking(gated)


def update(reply: Message) -> bytes:
    assert not reply.has_error(), reply.error
    return b"".join(value.tobytes() for _, value in sorted(ndarrays(reply.content, "arrays").items()))


def refused(reply: Message) -> str:
    assert reply.has_error()
    return reply.error.reason


@pytest.mark.parametrize("text", [PLAIN, STUDY], ids=["plain", "covered"])
@pytest.mark.parametrize("policy", [{"epsilon": 8.0, "runs": 1}, {"disclosure": "open", "resplit": True}])
def test_rounds_that_are_asked_again_have_the_same_noise_or_none_also_after_a_restart(small_sites, text, policy):
    asking = three(small_sites, text, **policy)
    first = [update(asking.round(round)) for round in (1, 2, 3)]
    spent = asking.epsilon()
    asking.gated.restart(SITE)
    # Replies of two rounds are kept: of the first there is none, and its noise is not drawn again.
    assert refused(asking.round(1)) == "the noise of round 1 was drawn before in this run: it is not drawn again"
    assert [update(asking.round(round)) for round in (2, 3)] == first[1:]
    # A model of another choice gets no second draw either.
    assert refused(asking.round(3, shift=0.5)).startswith("it was asked to train from another model in round 3")
    assert not asking.last().has_error()
    asking.gated.restart(SITE)
    said = "the run's model was compared or scored here: no further round is trained under noise"
    assert [refused(asking.round(round)) for round in (1, 2, 3)] == [said] * 3
    assert asking.trained() == [1, 2, 3]
    # What a covered study is charged for its last answer is of other people than those who are trained on.
    if not asking.study.covers_model:
        assert asking.epsilon() == pytest.approx(spent) and spent <= 3.0


def test_runs_whose_updates_stay_are_counted_by_what_they_spent(small_sites: Small):
    asking = three(small_sites, PLAIN, epsilon=8.0, runs=1, daily_bytes=100)
    assert refused(asking.round(1)).startswith("its policy lets 100 bytes leave in a day")
    others = [replace(asking, run=f"20261120-abc{letter}") for letter in "efg"]
    said = "its policy lets 1 run of a study have answers, and 1 had them"
    assert [refused(other.round(1)) for other in others] == [said] * 3
    assert asking.trained() == [1]


def asking_again(asking: Asking) -> Asking:
    """Return a coordinator that asks gates of their own, as another process has them."""
    gated = Consortium.__new__(Consortium)
    vars(gated).update(vars(asking.gated), gates=dict(asking.gated.gates))
    gated.restart(SITE)
    return Asking(gated)


def test_two_processes_that_are_asked_for_one_round_at_once_draw_its_noise_once(small_sites: Small):
    asking = three(small_sites, PLAIN, epsilon=8.0)
    together = Barrier(4)

    def ask(other: Asking) -> bytes:
        together.wait()
        return update(other.round(1))

    with ThreadPoolExecutor(together.parties) as threads:
        found = list(threads.map(ask, [asking_again(asking) for _ in range(together.parties)]))
    assert len(set(found)) == 1
    assert asking.trained() == [1]


class KillingNoise(SystemNoise):
    """Noise whose first draw kills the process: a round is charged by then, and nobody has its reply."""

    def __init__(self, rng: np.random.Generator | None = None, study: str = "") -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def killed_after_the_charge(asking: Asking, round: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a process of the site's gate asked for a round, and killed between charge and reply."""
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(protection, "SystemNoise", KillingNoise)
        asking.gated.restart(SITE)
        asking.round(round)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    asking.gated.restart(SITE)


def test_a_crash_between_charge_and_reply_costs_one_more_draw_and_a_second_one_the_round(small_sites, monkeypatch):
    asking = three(small_sites, PLAIN, epsilon=8.0)
    update(asking.round(1))
    killed_after_the_charge(asking, 2, monkeypatch)
    assert asking.trained() == [1, 2]
    once_more = update(asking.round(2))
    assert asking.trained() == [1, 2, 2]
    assert update(asking.round(2)) == once_more and asking.trained() == [1, 2, 2]
    for _ in range(2):
        killed_after_the_charge(asking, 3, monkeypatch)
    assert refused(asking.round(3)).startswith("the noise of round 3 was drawn before")
    assert asking.trained() == [1, 2, 2, 3, 3]
    found = budget_as_json(asking.gated.sites[SITE], ledger_of(asking.gated.folders[SITE]))
    (one,) = found["datasets"]
    assert one["drawn-again"] == 2
    said = describe_account(one, 1e-5, enforced=True)
    assert said.endswith(" 2 rounds were charged more than once: each charge counts.")


def test_a_reply_that_was_kept_and_did_not_leave_is_sent_after_a_restart(small_sites: Small):
    asking = three(small_sites, PLAIN, epsilon=8.0)
    update(asking.round(1))
    for round, fault in ((2, "kept"), (3, "left")):
        asking.fault = fault
        assert refused(asking.round(round)) == "its node is not online"
        assert asking.trained()[-1] == round
        asking.fault = False
        assert update(asking.round(round)) == update(asking.round(round))
    assert asking.trained() == [1, 2, 3]


@pytest.mark.parametrize(("text", "promised"), [(STUDY, 3.0), (COMPARED, 8.0)], ids=["scores", "scores and pairs"])
def test_one_run_has_each_noised_answer_for_one_request(small_sites: Small, text: str, promised: float):
    asking = three(small_sites, text, epsilon=9.0)
    edges = np.arange(0, 129, 8)
    requests: list[dict[str, Any]] = [{}, {"edges": edges}]
    if text == COMPARED:
        requests.append({"pairs": True})
    counts = [ScoresReply.from_record(asking.scores(**asked).content).counts for asked in requests]
    lines = len(asking.spent())
    asking.gated.restart(SITE)
    other = np.arange(0, 129, 4)
    assert refused(asking.scores(edges=other)) == "it was asked to count rows in other bins of scores in this run"
    for asked, before in zip(requests, counts, strict=True):
        np.testing.assert_array_equal(ScoresReply.from_record(asking.scores(**asked).content).counts, before)
    assert len(asking.spent()) == lines
    # Pairs come last of all, and train the site's own model: no round of the shared one follows.
    assert refused(asking.round(1)).startswith("the run's model was compared or scored here")
    holdout = [line for line in asking.spent() if line.facts.get("side") == "holdout"]
    releases = [Release(line.facts["noise"], line.facts["sampling"], line.facts["steps"]) for line in holdout]
    assert len(releases) == len(requests) and epsilon(releases, 1e-5) <= promised


def test_the_site_itself_answers_one_request_where_no_gate_looks_at_the_bins(small_sites, monkeypatch):
    asking = three(small_sites, STUDY, epsilon=8.0)
    monkeypatch.setattr("flfed.deployment.gate.run_limits.choices_of", lambda message: {})
    assert not asking.scores(edges=np.arange(0, 129, 8)).has_error()
    said = refused(asking.scores(edges=np.arange(0, 129, 4)))
    assert said == "it gave these noised numbers in this run for another request: they are not drawn again"


@pytest.mark.parametrize("edges", [[0, 64, 32, 128], [0, 64, 64, 128], [1, 128], [0, 127], [0], []])
def test_edges_that_do_not_rise_from_end_to_end_do_not_pass_the_gate(small_sites: Small, edges: list[int]):
    asking = three(small_sites, STUDY, epsilon=8.0)
    said = refused(asking.scores(edges=np.array(edges, dtype=np.int64)))
    assert said.startswith("the query.scores message does not fit the study: its section 'edges' has ")
    assert not asking.spent()


@pytest.mark.parametrize(
    "privacy",
    [{"privacy.name": "record-dp", "privacy.epsilon": 3.0, "privacy.sampling": 0.5, "plan.steps": 4},
     {"privacy.name": "site-dp", "privacy.noise": 1.0, "privacy.clip": 0.5, "privacy.delta": 0.02}],
    ids=["record-dp", "site-dp"],
)  # fmt: skip
def test_in_secure_sums_a_round_that_is_asked_again_has_the_same_vector_or_none(
    small_sites: Small, small_study: str, privacy: dict[str, Any]
):
    changes = {"secure-aggregation": "on", "strategy.rounds": ROUNDS, "plan.epochs": None, "plan.steps": 4, **privacy}
    policy = Policy(disclosure="open", resplit=True, delta=0.05)
    gated = Consortium(small_sites(3, rows=80, policy=policy), Study.parse(small_study).replace(changes))
    server = LyingServer(gated)
    server.keys()
    sent = {round: masked(server.train(SITE, round)).vector.tobytes() for round in (1, 2, 3)}
    gated.restart(SITE)
    assert server.train(SITE, 1).has_error()
    assert {round: masked(server.train(SITE, round)).vector.tobytes() for round in (2, 3)} == {
        round: sent[round] for round in (2, 3)
    }
    rounds = [line.facts["round"] for line in gated.lines(SITE) if line.kind == LINE]
    assert rounds == ([1, 2, 3] if privacy["privacy.name"] == "record-dp" else [])
