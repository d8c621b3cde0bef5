"""What a run at institutions spent is counted over its crashes: sites draw once, a server draws anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from flwr.app import Message

from flfed.errors import FlfedError
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.preflight import check
from flfed.federation.server.server import FederatedRun
from flfed.records.reports.report import report
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.summaries.summary import arrays_sha256
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.in_memory import read
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainRequest
from flfed.updates.privacy.site_dp import site_epsilon

ROUNDS, STEPS = 4, 3
RECORD_DP = {"name": "record-dp", "epsilon": 4.0, "delta": 1e-3, "sampling": 0.2}
SITE_DP = {"name": "site-dp", "epsilon": 6.0, "delta": 0.02}


class Killed(KeyboardInterrupt):
    """Ends a run from within, as a kill would."""


@dataclass
class Seen:
    """The models that were sent on, by the rounds they had been through; and when to end."""

    models: dict[int, set[str]] = field(default_factory=dict)
    kill_in: int = 0
    answered: bool = False
    kept: list[tuple[int, int, bool]] = field(default_factory=list)


class CrashingGrid(InProcessGrid):
    """The in-process grid, which looks at what is on the disk when a model is sent on, and ends the run when told."""

    def __init__(self, sites: list[Site], study: Study, run: str, seen: Seen) -> None:
        by_name = {site.name: site for site in sites}
        side = SiteClient(lambda name, _: by_name[name])
        super().__init__(side.app(), list(by_name), {"study": study.text, "repeat": 0})
        self.run_id, self.seen = run, seen

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        asked, seen = list(messages), self.seen
        kind = asked[0].metadata.message_type
        if kind not in (TRAIN, EVALUATE):
            return super().send_and_receive(asked, timeout=timeout)
        request = read(TrainRequest, asked[0].content)
        sent = arrays_sha256(request.arrays)
        seen.models.setdefault(request.round - 1, set()).add(sent)
        with RunReader.open() as reader:
            committed = reader.runs_of(self.run_id)[0].rounds
        kept = checkpoints.newest(self.run_id, committed)
        if kept is not None:
            seen.kept.append((request.round - 1, kept.round, arrays_sha256(kept.arrays) == sent))
        replies = super().send_and_receive(asked, timeout=timeout) if seen.answered or not self._is_due(request) else []
        if self._is_due(request):
            raise Killed
        return replies

    def _is_due(self, request: TrainRequest) -> bool:
        return request.round == self.seen.kill_in


@pytest.fixture
def private(small_study: str) -> Callable[..., Study]:
    """A function that makes the small study ask for a mechanism."""

    def make(mechanism: dict[str, Any]) -> Study:
        given = {f"privacy.{key}": value for key, value in mechanism.items()}
        given |= {"plan.steps": STEPS, "strategy.rounds": ROUNDS, "privacy.secure-aggregation": "off"}
        return Study.parse(small_study).replace(given)

    return make


def go(study: Study, sites: list[Site], seen: Seen, run: str = "", *, each_round: bool = True) -> str:
    """Conduct a run as the engine of institutions does, or go on with one, and return its name."""
    facts, checkpoint = check(study), None

    def keep(rounds: int) -> int:
        nonlocal checkpoint
        checkpoint = checkpoints.newest(run, rounds)
        return checkpoint.round if checkpoint else 0

    with RunStore.open() as store:
        if run:
            writer = store.resume_run(run, keep)
            checkpoints.reopen(run, checkpoint.round if checkpoint else 0)
        else:
            series = store.begin_series(study=study.name, study_sha256="", study_text=study.text, repeats=1)
            writer = store.begin_run(
                series, engine="deployment", path="", seed=study.seed, rounds_planned=study.rounds,
                primary=facts["primary"], task=facts["task"], hashes={"schema": facts["schema"]},
            )  # fmt: skip
        recorder = Recorder(writer, facts["primary"], study.rounds)
        grid = CrashingGrid(sites, study, writer.run, seen)
        status = "stopped"
        try:
            FederatedRun(grid, study, recorder, checkpoint=checkpoint, each_round=each_round).conduct()
            status = "completed"
        except Killed:
            pass
        writer.finish(status=status)
    return writer.run


def told(run: str) -> dict[str, Any]:
    with RunReader.open() as reader:
        return report(reader, run)["privacy"]


@pytest.mark.parametrize("each_round", [True, False])
def test_at_institutions_a_model_is_on_the_disk_before_it_is_sent_on(small_sites, private, monkeypatch, each_round):
    monkeypatch.setenv("FLFED_CHECKPOINT_SECONDS", "1000")  # of a simulation: after the first round and the last
    seen = Seen()
    go(private(SITE_DP), small_sites(3), seen, each_round=each_round)
    assert [sent for sent, _, _ in seen.kept] == [1, 2, 3, 4]
    same = [(sent, kept, alike) for sent, kept, alike in seen.kept if kept == sent and alike]
    assert [sent for sent, _, _ in same] == ([1, 2, 3, 4] if each_round else [1, 4])


@pytest.mark.studies
@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("kill_in", [1, 3, 5])
def test_of_a_site_each_model_that_was_sent_on_counts_once(small_sites, private, kill_in: int, answered: bool):
    study, sites, seen = private(SITE_DP), small_sites(3), Seen(kill_in=kill_in, answered=answered)
    run = go(study, sites, seen)
    assert (checkpoints.folder_of(run) / checkpoints.REQUEST_FILE).exists()
    seen.kill_in = 0
    assert go(study, sites, seen, run) == run
    # The first one has no noise and nothing of any site.
    sent_on = sum(len(models) for rounds, models in seen.models.items() if rounds)
    found = told(run)
    assert sent_on == ROUNDS and [line["steps"] for line in found["sites"].values()] == [ROUNDS] * 3
    assert {line["epsilon"] for line in found["sites"].values()} == {found["epsilon"]}
    assert not any("done again" in said for said in found["warnings"])


def test_models_that_are_made_anew_after_they_were_sent_on_are_spent_beyond_the_promise_and_the_record_says_so(
    small_sites, private
):
    study, sites, seen = private(SITE_DP), small_sites(3), Seen(kill_in=4)
    run = go(study, sites, seen)
    (checkpoints.folder_of(run) / "round-000003.safetensors").write_bytes(b"lost")  # so that it goes on after round 2
    seen.kill_in = 0
    go(study, sites, seen, run)
    assert [len(seen.models[rounds]) for rounds in range(1, ROUNDS + 1)] == [1, 1, 2, 1]
    found = told(run)
    expected = site_epsilon(found["noise"], ROUNDS + 1, 0.02)
    assert expected > 1.05 * found["epsilon"]
    for line in found["sites"].values():
        assert (line["steps"], line["epsilon"]) == (ROUNDS + 1, pytest.approx(expected, rel=1e-9))
    (said,) = [said for said in found["warnings"] if "done again" in said]
    assert said.startswith("More than planned may have been spent, since rounds were done again: at 3 of 3 sites ")
    assert "up to 5 rounds instead of 4" in said


@pytest.mark.studies
@pytest.mark.parametrize("kill_in", [1, 3])
def test_a_round_that_was_lost_is_answered_by_what_sites_kept_and_counted_once(small_sites, private, kill_in: int):
    study, sites, seen = private(RECORD_DP), small_sites(2), Seen(kill_in=kill_in, answered=True)
    run = go(study, sites, seen)
    halfway = [line["steps"] for line in told(run)["sites"].values()]
    assert halfway == [kill_in * STEPS] * 2
    seen.kill_in = 0
    go(study, sites, seen, run)
    found = told(run)
    for line in found["sites"].values():
        assert (line["steps"], line["epsilon"]) == (ROUNDS * STEPS, pytest.approx(found["epsilon"], rel=1e-9))
    assert not any("more than" in said.lower() for said in found["warnings"])


@pytest.mark.studies
def test_crashes_of_the_coordinator_count_no_round_twice(small_sites, private):
    study, sites, seen = private(RECORD_DP), small_sites(2), Seen(kill_in=2, answered=True)
    run = go(study, sites, seen)
    for kill_in in (2, 5, 0):
        seen.kill_in = kill_in
        go(study, sites, seen, run)
    assert {line["steps"] for line in told(run)["sites"].values()} == {ROUNDS * STEPS}


def test_what_was_asked_is_not_taken_for_nothing_where_it_cannot_be_read(small_sites, private):
    study, sites, seen = private(SITE_DP), small_sites(3), Seen(kill_in=2)
    run = go(study, sites, seen)
    file = checkpoints.folder_of(run) / checkpoints.REQUEST_FILE
    whole = json.loads(file.read_text())
    assert (whole["round"], whole["asked"]) == (2, {"site-01": 1, "site-02": 1, "site-03": 1})
    assert whole["going-on"] == ["site-01", "site-02", "site-03"]
    file.write_text(file.read_text()[:-9])
    with pytest.raises(FlfedError, match="cannot be read, so requests are not known"):
        go(study, sites, seen, run)
    checkpoints.settle(run)
    assert not file.exists()


def test_a_simulation_keeps_no_such_file_for_its_noise_is_the_same_again(small_sites, private):
    seen = Seen(kill_in=3, answered=True)
    study, sites = private(RECORD_DP), small_sites(2)
    run = go(study, sites, seen, each_round=False)
    assert not (checkpoints.folder_of(run) / checkpoints.REQUEST_FILE).exists()
    assert {line["steps"] for line in told(run)["sites"].values()} == {3 * STEPS}
