"""Noise that is drawn once where no gate stands before the site: in one process, and as Ray's processes answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.server.run import resume, run
from flfed.paths import SiteFolder
from flfed.records.site_state import SiteState
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.study_model import first_model, study_layout
from flfed.study.study import Study
from flfed.summaries.summary import schema_encoder
from flfed.updates.messages.fields import ndarrays
from flfed.updates.messages.kinds import SCORES
from flfed.updates.messages.summarise import ScoresRequest
from flfed.updates.messages.train import TRAIN, TrainRequest
from tests.federation.test_covered_study import STUDY, lines, spent
from tests.federation.test_resume import newest

Small = Callable[..., list[Site]]
PLAIN = STUDY.replace('covers = "study"', "") + '[encode]\nscaler = "schema"\n'


@dataclass
class Process:
    """A process with one site, and what a server asks it; Ray's give a run a name, by which replies are kept."""

    site: Site
    study: Study
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.restart()
        schema = datasets.load("small").schema
        self.arrays = first_model(self.study, schema)
        self.encoder = schema_encoder(study_layout(self.study, schema))

    def restart(self) -> None:
        side = SiteClient(lambda name, _: self.site)
        self.grid = InProcessGrid(side.app(), [self.site.name], {"study": self.study.text, "repeat": 0, **self.config})

    def ask(self, kind: str, request: Any) -> Message:
        (reply,) = self.grid.send_and_receive([Message(request.to_record(), dst_node_id=1, message_type=kind)])
        return reply

    def round(self, round: int, shift: float = 0.0) -> Any:
        """Return a round's update as bytes, or the refusal."""
        moved = {name: value + np.asarray(shift, value.dtype) for name, value in self.arrays.items()}
        reply = self.ask(TRAIN, TrainRequest(arrays=moved, encoder=self.encoder, round=round, rounds=3, score=False))
        if reply.has_error():
            return reply.error.reason
        return b"".join(value.tobytes() for _, value in sorted(ndarrays(reply.content, "arrays").items()))

    def drawn(self) -> list[str]:
        return drawn_at(self.site)


def drawn_at(site: Site) -> list[str]:
    """Return the rounds and answers whose noise was drawn, in their order."""
    with SiteState(SiteFolder(site.name).state).transaction() as step:
        return [row[0] for row in step.tables.execute("SELECT step FROM drawn ORDER BY rowid")]


def drawn(round: int) -> str:
    return f"the noise of round {round} was drawn before in this run: it is not drawn again"


@pytest.fixture
def site(small_sites: Small) -> Site:
    return replace(small_sites(1, rows=1500)[0], policy=Policy(epsilon=4.0))


@pytest.mark.parametrize(
    ("config", "again"), [({"run-here": "a-run"}, [drawn(1), drawn(2)]), ({"run": "a-run"}, [drawn(1), drawn(2)])]
)
def test_the_systems_noise_is_drawn_once_in_one_process_and_on_ray(site, config, again):
    process = Process(site, Study.parse(STUDY), config)
    first = [process.round(round) for round in (1, 2, 3)]
    assert all(isinstance(update, bytes) for update in first)
    expected = [said or update for said, update in zip(again, first[:2], strict=True)]
    assert [process.round(round) for round in (1, 2, 3)] == [*expected, first[2]]
    assert process.round(3, shift=0.5) == drawn(3)
    scored = process.ask(SCORES, ScoresRequest(arrays=process.arrays, encoder=process.encoder, centre=0.0))
    assert not scored.has_error()
    process.restart()
    assert process.round(1) == drawn(1) and process.drawn() == ["counts", "1", "2", "3", "scores"]
    assert spent(site) <= 3.0 and len(lines(site.name)) == 1


def test_after_a_crash_no_round_is_drawn_once_more(site: Site):
    process = Process(site, Study.parse(STUDY), {"run-here": "a-run"})
    assert all(isinstance(process.round(round), bytes) for round in (1, 2))
    process.restart()  # the process keeps nothing
    assert [process.round(round) for round in (1, 2)] == [drawn(1), drawn(2)]
    assert isinstance(process.round(3), bytes)
    assert len(lines(site.name)) == 1


def test_noise_of_a_seed_repeats_its_bits_and_is_charged_once(site: Site):
    process = Process(site, Study.parse(PLAIN), {"run-here": "a-run"})
    first = [process.round(round) for round in (1, 2, 3)]
    process.restart()
    assert [process.round(round) for round in (1, 2, 3)] == first
    assert len(lines(site.name)) == 1 and process.drawn() == []


def test_a_covered_run_that_is_killed_after_ten_rounds_goes_on(small_sites: Small):
    sites = [replace(site, policy=Policy(epsilon=3.2)) for site in small_sites(3, rows=2000)]
    study = Study.parse(STUDY.replace("rounds = 3", "rounds = 12"))

    def kill(stage: str, round: int) -> None:
        if (stage, round) == ("round", 10):
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        run(study, sites=sites, observer=kill)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    # Ten rounds take less than a second: with a checkpoint a second it would begin anew, at rounds that were drawn.
    assert resume(newest(), sites=sites).report["status"] == "completed"
    for site in sites:
        assert [step for step in drawn_at(site) if step.isdigit()] == [str(round) for round in range(1, 13)]
        assert len(lines(site.name)) == 1 and spent(site) <= 3.0


@pytest.mark.proof
@pytest.mark.servers
def test_a_covered_study_runs_on_ray_and_is_charged_as_approved(small_sites: Small):
    sites = [replace(site, policy=Policy(epsilon=3.2)) for site in small_sites(3, rows=2000)]
    assert run(Study.parse(STUDY), sites=sites, engine="ray").report["status"] == "completed"
    for site in sites:
        assert len(lines(site.name)) == 1 and spent(site) <= 3.0
