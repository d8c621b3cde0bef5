"""A run that ended early goes on: same arrays, same record, nothing twice; what cannot go on says why."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from flfed.errors import FlfedError, RunStopped, UsageError
from flfed.federation.server.run import resume, run
from flfed.paths import home
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Policy
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.train import TRAIN

Record = Callable[[str], dict[str, Any]]
STRATEGIES = {
    "plain": {},
    "best": {"strategy.select": "best", "plan.validation": 0.3, "plan.lr": 2.0},
    "patience": {"strategy.patience": 2, "plan.validation": 0.3, "plan.lr": 2.0, "strategy.rounds": 9},
    "plateau": {"plan.schedule": "plateau", "plan.plateau-patience": 1, "plan.validation": 0.3, "plan.lr": 2.0},
    "half": {"strategy.fraction": 0.5, "strategy.quorum": 0.5, "plan.schedule": "cosine"},
}


class Killed(KeyboardInterrupt):
    """Ends a run from within, as a kill would, at a stage of a round."""


def killer(stage: str, round: int) -> Callable[[str, int], None]:
    def observer(told: str, number: int) -> None:
        if (told, number) == (stage, round):
            raise Killed

    return observer


def newest() -> str:
    with RunReader.open() as reader:
        return reader.runs(limit=1)[0].run


ESSENTIAL = {"plain", "best"}
SLOW = [pytest.mark.slow, pytest.mark.studies]


@pytest.mark.studies
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in ESSENTIAL else SLOW) for name in STRATEGIES])
def test_a_run_that_was_ended_goes_on_to_the_same_arrays_and_the_same_record(name, small_sites, small_study, record):
    study, sites = Study.parse(small_study).replace(STRATEGIES[name]), small_sites(4 if name == "half" else 2)
    whole = run(study, sites=sites)
    for stage, round in (("round", 1), ("checkpoint", 3)):
        with pytest.raises(RunStopped, match="federate"):
            run(study, sites=sites, observer=killer(stage, round))
        ended = newest()
        assert resume(ended, sites=sites).report["arrays-sha256"] == whole.report["arrays-sha256"]
        first, second = record(whole.run), record(ended)
        for part in ("event", "metric", "sent", "comparison", "run_site", "summary", "run"):
            assert second[part] == first[part], part


def test_a_run_with_few_checkpoints_goes_back_to_the_last_one_and_ends_the_same(
    small_sites, small_study, record: Record, monkeypatch: pytest.MonkeyPatch
):
    study, sites = Study.parse(small_study), small_sites(2)
    whole = run(study, sites=sites)
    monkeypatch.setenv("FLFED_CHECKPOINT_SECONDS", "1000")  # after the first round, and no more
    with pytest.raises(RunStopped):
        run(study, sites=sites, observer=killer("round", 4))
    ended = newest()
    kept = checkpoints.newest(ended, 4)
    assert kept is not None and kept.round == 1
    with RunReader.open() as reader:
        assert reader.runs_of(ended)[0].rounds == 4
    assert resume(ended, sites=sites).report["arrays-sha256"] == whole.report["arrays-sha256"]
    first, second = record(whole.run), record(ended)
    for part in ("metric", "sent", "comparison", "run_site", "run"):
        assert second[part] == first[part], part


@pytest.mark.parametrize("given", ["often", "-1", "inf", "nan"])
def test_a_distance_of_checkpoints_that_is_no_number_is_refused(small_sites, small_study, monkeypatch, given: str):
    monkeypatch.setenv("FLFED_CHECKPOINT_SECONDS", given)
    with pytest.raises(UsageError, match=f"FLFED_CHECKPOINT_SECONDS={given} must be a number"):
        run(Study.parse(small_study), sites=small_sites(2))


def test_a_resumed_run_says_so_and_counts_its_seconds_over_both_processes(small_sites, small_study):
    sites = small_sites(3)
    with pytest.raises(RunStopped):
        run(Study.parse(small_study), sites=sites, observer=killer("round", 4))
    ended = newest()
    kept = checkpoints.newest(ended, 4)
    assert kept is not None and kept.facts["seconds"] > 0
    done = resume("latest", sites=sites)
    assert done.run == ended and done.report["rounds"] == 5
    assert done.report["seconds"] > kept.facts["seconds"]
    with RunReader.open() as reader:
        notes = [(e.round, e.reason) for e in reader.events([ended]) if e.kind == "note"]
    assert notes == [(4, "resumed after round 4; before: interrupted from the keyboard")]


@pytest.mark.studies
def test_a_run_that_ended_before_its_first_round_or_while_comparing_goes_on(small_sites, small_study, record: Record):
    study, sites = Study.parse(small_study), small_sites(2)
    whole = run(study, sites=sites)

    def progress(stage: str, done: int, of: int) -> None:
        if stage == "compare":
            raise Killed

    for broken in (
        {"observer": killer("checkpoint", 1)},
        {"observer": killer("evaluation", 6)},
        {"progress": progress},
    ):
        with pytest.raises(RunStopped):
            run(study, sites=sites, **broken)
        ended = newest()
        resume(ended, sites=sites)
        assert record(ended) == record(whole.run)


@pytest.mark.studies
def test_a_series_goes_on_with_the_repeat_that_ended_and_those_that_are_left(small_sites, small_study, record: Record):
    study, sites = Study.parse(small_study), small_sites(3)
    whole = run(study, sites=sites, repeats=3, stacked=False)
    begun: list[int] = []

    def observer(stage: str, round: int) -> None:
        begun.append(round)
        if begun.count(2) == 4:  # round 2 of the second repeat: "checkpoint" and "round" of the first before
            raise Killed

    with pytest.raises(RunStopped):
        run(study, sites=sites, repeats=3, stacked=False, observer=observer)
    with RunReader.open() as reader:
        assert [(e.repeat, e.status) for e in reader.runs_of("latest")] == [(0, "completed"), (1, "stopped")]
    done = resume("latest", sites=sites)
    assert done.report["repeats"] == 3 and done.report["status"] == "completed"
    for number in (1, 2, 3):
        assert record(f"{done.run}-r0{number}") == record(f"{whole.run}-r0{number}")
    assert done.report["global"] == whole.report["global"]


@pytest.mark.studies
def test_a_store_that_is_ahead_of_its_checkpoints_is_rewound(small_sites, small_study, record: Record):
    study, sites = Study.parse(small_study), small_sites(2)
    whole = run(study, sites=sites)
    with pytest.raises(RunStopped):
        run(study, sites=sites, observer=killer("round", 4))
    ended = newest()
    (checkpoints.folder_of(ended) / "round-000004.safetensors").write_bytes(b"damaged")
    resume(ended, sites=sites)
    assert record(ended) == record(whole.run)
    with RunReader.open() as reader:
        assert "resumed after round 3" in {e.reason.partition(";")[0] for e in reader.events([ended])}


@pytest.mark.studies
@pytest.mark.parametrize("apart", ["0", "1000"])
def test_a_quorum_that_was_missed_keeps_the_last_good_model_and_a_resume_goes_on_from_it(
    small_sites, small_study, conduct, record: Record, monkeypatch: pytest.MonkeyPatch, apart: str
):
    monkeypatch.setenv("FLFED_CHECKPOINT_SECONDS", apart)
    study, sites = Study.parse(small_study), small_sites(3)
    whole = run(study, sites=sites, stacked=False)
    replies: list[int] = []

    def silent_from_round_3(reply: Message) -> Message | None:
        replies.extend([1] * (reply.metadata.message_type == TRAIN))
        return None if len(replies) > 2 * 3 and reply.metadata.src_node_id == 2 else reply

    stopped = conduct(sites, study.replace({"strategy.quorum": 1.0}).text, change=silent_from_round_3)
    assert (stopped.outcome.status, stopped.outcome.rounds) == ("stopped", 2)
    kept, good = checkpoints.final(stopped.run), checkpoints.newest(stopped.run, 2)
    assert kept.round == good.round == 2
    np.testing.assert_array_equal(kept.arrays["weight"], good.arrays["weight"])
    with RunReader.open() as reader:
        assert reader.runs_of(stopped.run)[0].rounds == 2
    assert resume(stopped.run, sites=sites).report["arrays-sha256"] == whole.report["arrays-sha256"]
    assert not (home() / "sites" / "site-02" / "runs" / stopped.run).exists()


def ended_at(study: Study, sites: list[Any], round: int, **options: Any) -> str:
    """Run a study that is ended after a round, and return its run."""
    with pytest.raises(RunStopped):
        run(study, sites=sites, observer=killer("round", round), **options)
    return newest()


@pytest.mark.studies
def test_a_run_whose_checkpoints_are_elsewhere_is_left_as_it_is(
    small_sites, small_study, record: Record, monkeypatch, tmp_path
):
    study, sites, store = Study.parse(small_study), small_sites(2), f"sqlite:///{home() / 'runs.db'}"
    ended, there = ended_at(study, sites, 3), home()
    before = record(ended)
    monkeypatch.setenv("FLFED_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"has 3 rounds in the store and no checkpoint .*set FLFED_HOME to where"):
        resume(ended, sites=sites, store=store)
    monkeypatch.setenv("FLFED_HOME", str(there))
    assert record(ended) == before and before["run"][0].status == "stopped"
    assert resume(ended, sites=sites).status == "completed"


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_run_whose_start_file_is_lost_is_left_as_it_is_and_says_so(harm: str, small_sites, small_study):
    study, sites = Study.parse(small_study), small_sites(2)
    start = checkpoints.folder_of(ended := ended_at(study, sites, 2)) / "start.safetensors"
    whole = start.read_bytes()
    start.unlink() if harm == "missing" else start.write_bytes(whole[:-8] + bytes(8))
    with pytest.raises(FlfedError, match=f"start.safetensors: is {harm}.* run the study anew") as refused:
        resume(ended, sites=sites)
    assert "\n" not in str(refused.value)
    start.write_bytes(whole)
    assert resume(ended, sites=sites).report["rounds"] == 5 and not start.exists()


@pytest.mark.studies
def test_a_stop_after_a_resume_leaves_no_model_of_an_earlier_end(small_sites, small_study):
    study, sites = Study.parse(small_study), small_sites(2)
    ended = ended_at(study, sites, 2)
    earlier = checkpoints.newest(ended, 2)
    assert earlier is not None
    checkpoints.write(ended, earlier, final=True)  # as a missed quorum would
    with pytest.raises(RunStopped):
        resume(ended, sites=sites, observer=killer("round", 4))
    with pytest.raises(FlfedError, match="it has not ended"):
        checkpoints.final(ended)
    with RunReader.open() as reader:
        seconds = reader.runs_of(ended)[0].seconds
    assert seconds is not None and seconds > checkpoints.newest(ended, 4).facts["seconds"]


@pytest.mark.studies
def test_a_series_goes_on_with_the_sites_that_it_began_with(small_sites, small_study, record: Record):
    study, sites = Study.parse(small_study), small_sites(4)
    whole = run(study, sites=sites[1:], repeats=2, stacked=False)
    for others, more in ((sites, ""), (sites[:3], "site-04")):
        ended = ended_at(study, sites[1:], 5, repeats=2, stacked=False).removesuffix("-r01")
        done = resume(ended, sites=others[::-1])
        if not more:
            assert set(done.report["sites"]) == {"site-02", "site-03", "site-04"}
            assert record(f"{ended}-r02") == record(f"{whole.run}-r02")
            continue
        with RunReader.open() as reader:
            notes = {e.reason for e in reader.events([f"{ended}-r02"]) if e.kind == "note"}
        assert f"without {more}: part of the series when it began, and absent now" in notes


def test_a_study_whose_name_ends_in_sweep_is_no_sweep(small_sites, small_study):
    study, sites = Study.parse(small_study).replace({"name": "lr-sweep"}), small_sites(2)
    assert resume(ended_at(study, sites, 2), sites=sites).status == "completed"


@pytest.mark.studies
def test_a_site_that_refuses_after_a_resume_is_a_fault_with_its_reason_and_stays_one_that_took_part(
    small_sites, small_study
):
    sites = small_sites(3)
    ended = ended_at(Study.parse(small_study), sites, 2)
    closed = replace(sites[2], policy=Policy(cell_minimum=1000))
    done = resume(ended, sites=[*sites[:2], closed])
    (fault,) = done.report["faults"]
    assert (fault["round"], fault["site"]) == (2, "site-03")
    assert fault["reason"].startswith("did not come back after the run was resumed: it has fewer than 1000 training")
    with RunReader.open() as reader:
        assert {site.site: site.status for site in reader.sites(ended)}["site-03"] == "accepted"


def test_a_run_that_is_compared_leaves_no_reply_at_a_site(small_sites, small_study):
    done = run(Study.parse(small_study), sites=small_sites(3, rows=80, policy=Policy()))
    # The rerun with exact sums, which says what disclosure cost, comes after the comparison.
    with RunReader.open() as reader:
        assert reader.summary(done.run, "disclosure") is not None
    assert [str(path) for path in home().glob("sites/*/runs/*")] == []


def test_a_completed_a_running_and_an_unknown_run_are_not_resumed(small_sites, small_study):
    study, sites = Study.parse(small_study), small_sites(2)
    done = run(study, sites=sites)
    with pytest.raises(UsageError, match="is completed: there is nothing to resume"):
        resume(done.run, sites=sites)
    with pytest.raises(UsageError, match="is not in the store"):
        resume("20200101-000000-abcd")
    told: list[str] = []

    def observer(stage: str, round: int) -> None:
        with pytest.raises(UsageError, match=r"is still running \(process \d+ on ") as error:
            resume(newest(), sites=sites)
        told.append(str(error.value))

    run(study.replace({"rounds": 1}), sites=sites, observer=observer)
    assert len(told) == 3  # checkpoint, round, evaluation


def test_sites_that_a_program_gave_must_be_given_again(small_sites, small_study):
    sites = small_sites(2)
    with pytest.raises(RunStopped):
        run(Study.parse(small_study), sites=sites, observer=killer("round", 2))
    with pytest.raises(UsageError, match=r"resume\(.latest., sites=\[\.\.\.\]\)"):
        resume("latest")


@pytest.mark.studies
def test_a_site_that_does_not_come_back_is_named_and_the_others_go_on(small_sites, small_study):
    sites = small_sites(3)
    with pytest.raises(RunStopped):
        run(Study.parse(small_study), sites=sites, observer=killer("round", 2))
    done = resume("latest", sites=sites[:2])
    assert done.status == "completed"
    assert {"round": 2, "site": "site-03", "reason": "did not come back after the run was resumed"} in (
        done.report["faults"]
    )
    with pytest.raises(FlfedError, match="only one site takes part"):
        with pytest.raises(RunStopped):
            run(Study.parse(small_study), sites=sites, observer=killer("round", 2))
        resume("latest", sites=sites[:1])


@pytest.mark.studies
def test_a_disk_that_is_full_fails_the_run_and_it_goes_on_once_there_is_room(small_sites, small_study):
    sites = small_sites(2)
    whole = run(Study.parse(small_study), sites=sites)

    def observer(stage: str, round: int) -> None:
        if (stage, round) == ("round", 2):
            (checkpoints.folder_of(newest()) / "round-000003.safetensors").mkdir()

    with pytest.raises(FlfedError, match="free some disk space"):
        run(Study.parse(small_study), sites=sites, observer=observer)
    ended = newest()
    with RunReader.open() as reader:
        assert (reader.runs_of(ended)[0].status, reader.runs_of(ended)[0].rounds) == ("failed", 2)
    (checkpoints.folder_of(ended) / "round-000003.safetensors").rmdir()
    assert resume(ended, sites=sites).report["arrays-sha256"] == whole.report["arrays-sha256"]
