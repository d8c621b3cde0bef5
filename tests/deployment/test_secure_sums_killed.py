"""Runs with secure sums whose sites and coordinator are killed: the same list, the same arrays, no second list."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.federation.recording.recorder import Recorder
from flfed.federation.server.server import FederatedRun
from flfed.paths import home
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.snapshots import snapshot
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.masking.question import rows_question
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.secure_sum import KEYS, LIST, UNMASK
from flfed.updates.messages.summarise import SUMMARISE
from flfed.updates.messages.train import TRAIN
from tests.deployment.summing import Consortium, Coordinator, CoordinatorKilled, Fault, begun

ROUNDS = 3
ALL = "site-01,site-02,site-03,site-04"
THREE = "site-01,site-02,site-03"
LAST = "site-04"
Make = Callable[..., Consortium]
Arrays = dict[str, np.ndarray]
UNDISTURBED: dict[tuple[tuple[str, ...], int], Arrays] = {}
"""By sites and the round that the last one misses: every test has the same rows and study."""


FAULTS = [*(pytest.param(fault, marks=pytest.mark.proof) for fault in ("killed", "left")), "kept"]


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Make:
    """A function that returns sites that approved a study with sums."""

    def make(sites: int = 4, text: str = small_study) -> Consortium:
        study = Study.parse(text).replace({"secure-aggregation": "on", "strategy.rounds": ROUNDS})
        return Consortium(small_sites(sites, rows=80, policy=Policy(disclosure="open", resplit=True)), study)

    return make


def undisturbed(consortium: Consortium, missing: int = 0) -> Arrays:
    """Return the arrays of the study in one process, where the last site misses a round, or none."""
    sites = tuple(sorted(consortium.sites))
    if (sites, missing) not in UNDISTURBED:
        UNDISTURBED[sites, missing] = arrays_without(consortium, in_round(missing, LAST, TRAIN))
    return UNDISTURBED[sites, missing]


def arrays_without(consortium: Consortium, absent: Fault) -> Arrays:
    """Return the arrays of the study in one process, where sites miss what a fault says."""
    side = SiteClient(lambda name, _: consortium.sites[name])
    app = side.app()
    config = {"study": consortium.study.text, "repeat": 0, "run": "", "sites": ",".join(consortium.sites)}

    class Grid(InProcessGrid):
        def send_and_receive(self, messages, *, timeout=None):  # type: ignore[no-untyped-def]
            here = [m for m in messages if not absent(str(self.context_of(m).node_config["site"]), kind_of(m))]
            return super().send_and_receive(here, timeout=timeout)

    with RunStore.open() as store:
        writer = begun(store, consortium.study, "inprocess")
        recorder = Recorder(writer, "roc_auc_score", ROUNDS)
        return FederatedRun(Grid(app, sorted(consortium.sites), config), consortium.study, recorder).conduct().arrays


def kind_of(message: object) -> str:
    return str(message.metadata.message_type)  # type: ignore[attr-defined]


def in_round(number: int, sites: str, kind: str, fault: bool | str = True, times: int = 1) -> Fault:
    """Return a fault of some sites when they are asked for the nth time, and so often from then on."""
    asked = Counter[tuple[str, str]]()

    def go(site: str, what: str) -> bool | str:
        asked[site, what] += 1
        there = number <= asked[site, what] < number + times
        return fault if site in sites.split(",") and what == kind and there else False

    return go


def either(*faults: Fault) -> Fault:
    """Return what the first of some faults says."""

    def go(site: str, kind: str) -> bool | str:
        found = [fault(site, kind) for fault in faults]
        return next((one for one in found if one), False)

    return go


def difference(run: RunEntry, expected: Arrays) -> float:
    found = checkpoints.final(run.run).arrays
    return max(float(np.abs(found[name] - expected[name]).max()) for name in expected)


def lists_by_question(consortium: Consortium) -> dict[str, set[str]]:
    """Return the lists that the ledgers of all sites have of each question but Table 1."""
    found: dict[str, set[str]] = {}
    for site in consortium.sites:
        for line in consortium.lines(site):
            if "listed" in line.facts and line.facts["question-sha256"] != rows_question(consortium.study.dataset.name):
                found.setdefault(str(line.facts["question-sha256"]), set()).add(str(line.facts["listed"]))
    return found


def lists(consortium: Consortium) -> list[str]:
    """Return the one list of each question, in order; no question has two."""
    by_question = lists_by_question(consortium)
    assert all(len(found) == 1 for found in by_question.values())
    return sorted(next(iter(found)) for found in by_question.values())


def ended(run: RunEntry, status: str = "completed", rounds: int = ROUNDS) -> None:
    assert (run.status, run.rounds) == (status, rounds), run.reason


@pytest.mark.parametrize("fault", FAULTS)
def test_sites_killed_before_or_after_their_answer_send_the_same_vector_in_the_second_attempt(consortium, fault):
    found = consortium()
    # With two of four missing the round is asked once more, and both are back.
    run = Coordinator(found).run(absent=in_round(2, "site-03,site-04", TRAIN, fault))
    ended(run)
    assert difference(run, undisturbed(found)) == 0.0
    assert lists(found) == [ALL] * (ROUNDS + 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_site_killed_between_the_exchanges_is_in_the_sum(consortium: Make, fault: str):
    found = consortium()
    ended(run := Coordinator(found).run(absent=in_round(2, "site-03", UNMASK, fault)))
    assert difference(run, undisturbed(found)) == 0.0
    assert lists(found) == [ALL] * (ROUNDS + 1)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", [pytest.param(LIST, marks=pytest.mark.proof), UNMASK])
def test_a_site_killed_while_another_is_missing_is_waited_for(consortium: Make, fault: str, kind: str):
    found = consortium()
    missing = in_round(2, LAST, TRAIN)
    # The first list is that of round 2, and the second opening.
    ended(run := Coordinator(found).run(absent=either(missing, in_round(1 + (kind == UNMASK), "site-03", kind, fault))))
    assert difference(run, undisturbed(found, 2)) == 0.0
    assert lists(found) == [THREE, ALL, ALL, ALL]


def test_a_site_that_comes_back_at_the_resume_only_finds_the_same_list(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    gone = in_round(2, "site-03", UNMASK, "killed", times=9)
    ended(run := coordinator.run(absent=either(in_round(2, LAST, TRAIN), gone)), "stopped", 1)
    assert "2 sites opened the list of the sum, 3 are needed" in run.reason and "site-03" in run.reason
    assert checkpoints.final(run.run).round == 1
    # Site 04 is back as well, and is not in the list of round 2 all the same.
    ended(run := coordinator.run(run.run))
    assert difference(run, undisturbed(found, 2)) == 0.0
    assert lists(found) == [THREE, ALL, ALL, ALL]


KILLED = {
    "first list": (1, "site-01", LIST), "second confirmation": (1, "site-02", LIST),
    "first opening": (2, "site-02", UNMASK), "first opening of all": (2, "site-02", UNMASK),
    "answers to train": (2, "site-03", TRAIN), "first round": (1, "site-03", TRAIN),
    "first opening of the first round": (1, "site-02", UNMASK), "sums over rows": (1, "site-03", SUMMARISE),
    "keys": (1, "site-03", KEYS), "comparison": (1, "site-03", COMPARE),
}  # fmt: skip
"""At which message of which site; site 4 is missing in the second round of the first three."""


@pytest.mark.studies
@pytest.mark.parametrize(
    "where",
    [one if one in ("first opening", "comparison") else pytest.param(one, marks=pytest.mark.proof) for one in KILLED],
)
def test_a_coordinator_that_is_killed_goes_on_with_the_same_list_to_the_same_arrays(consortium: Make, where: str):
    found, missing = consortium(), where in ("first list", "second confirmation", "first opening")
    coordinator, crash = Coordinator(found), in_round(*KILLED[where], "crash")
    run = coordinator.run(absent=either(in_round(2, LAST, TRAIN), crash) if missing else crash)
    assert run.status == "failed" and "killed" in run.reason
    ended(run := coordinator.run(run.run))
    assert difference(run, undisturbed(found, 2 if missing else 0)) == 0.0
    assert lists(found) == ([THREE, ALL, ALL, ALL] if missing else [ALL] * (ROUNDS + 1))
    # Nothing of the run stays but its model.
    assert [path.name for path in checkpoints.folder_of(run.run).iterdir()] == ["final.safetensors"]


def test_a_coordinator_killed_after_a_checkpoint_goes_on_from_the_round_that_the_store_has(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)

    def killed(stage: str, number: int) -> None:
        if (stage, number) == ("checkpoint", 2):
            raise CoordinatorKilled("killed")

    run = coordinator.run(observer=killed)
    assert (run.status, run.rounds) == ("failed", 1)
    ended(run := coordinator.run(run.run))
    assert difference(run, undisturbed(found)) == 0.0
    assert lists(found) == [ALL] * (ROUNDS + 1)


@pytest.mark.parametrize("crash", [
    pytest.param((1, "site-03", SUMMARISE), marks=pytest.mark.proof), (1, "site-03", TRAIN),
    pytest.param((2, "site-03", TRAIN), marks=pytest.mark.proof),
])  # fmt: skip
def test_a_resume_drops_nobody_and_who_is_not_back_is_missing_until_it_is(consortium, crash):
    found = consortium()
    coordinator = Coordinator(found)
    run = coordinator.run(absent=in_round(*crash, "crash"))
    away = either(in_round(1, LAST, ENROL), in_round(1, LAST, KEYS), in_round(1, LAST, TRAIN))
    away = either(away, in_round(1, LAST, SUMMARISE))
    ended(run := coordinator.run(run.run, absent=away))
    # It is asked from the next round on, in which the list has it again.
    assert lists(found) == [THREE, ALL, ALL, ALL]
    with RunReader.open() as reader:
        assert {e.site for e in reader.events([run.run]) if "is not back yet" in e.reason} == {LAST}
    if crash[2] == TRAIN:
        assert difference(run, undisturbed(found, crash[0])) == 0.0


def test_below_the_threshold_a_resumed_run_stops_with_its_model_and_can_be_resumed_again(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    run = coordinator.run(absent=in_round(2, "site-03", TRAIN, "crash"))
    gone = ("site-02", "site-03", "site-04")
    ended(run := coordinator.run(run.run, absent=lambda site, kind: site in gone), "stopped", 1)
    assert "round 2 had 1 good updates of 4 asked" in run.reason
    first = difference(run, undisturbed(found))
    assert first > 0
    ended(run := coordinator.run(run.run))
    assert difference(run, undisturbed(found)) == 0.0


def run_folder(site: str, run: str) -> Path:
    return home() / "sites" / site / "runs" / run


@pytest.mark.parametrize("at", [pytest.param("train", marks=pytest.mark.proof), "resume"])
def test_a_site_that_lost_its_state_says_so_and_without_it_nothing_is_summed(consortium: Make, at: str):
    found = consortium(3)
    coordinator = Coordinator(found)
    if at == "train":

        def lost(stage: str, number: int) -> None:
            if (stage, number) == ("round", 1):
                for folder in (home() / "sites" / "site-03" / "runs").iterdir():
                    shutil.rmtree(folder)

        ended(run := coordinator.run(observer=lost), "stopped", 1)
    else:
        run = coordinator.run(absent=in_round(2, "site-02", TRAIN, "crash"))
        shutil.rmtree(run_folder("site-03", run.run))
        ended(run := coordinator.run(run.run), "stopped", 1)
    assert "site-03: the site's key of this run is not here: begin the run anew" in run.reason
    assert lists(found) == [THREE]
    ended(run := coordinator.run())
    assert lists(found) == [THREE] * (ROUNDS + 1)


GONE = "site-03: a masked answer to round 2 left before, and it is not here any more: begin the run anew"


def killed_in_the_second_opening(coordinator: Coordinator) -> tuple[RunEntry, Site, Path]:
    """Begin a run of three sites that is killed in the second round; return it, the third site and its run's folder."""
    run = coordinator.run(absent=in_round(3, "site-02", UNMASK, "crash"))
    return run, coordinator.consortium.sites["site-03"], run_folder("site-03", run.run)


def vectors(consortium: Consortium) -> int:
    """Return how many different answers of the third site to the second round left."""
    told = [line.facts for line in consortium.lines("site-03") if line.kind == "train"]
    return len({facts["sha256"] for facts in told if facts.get("round") == 2})


def test_a_damaged_reply_is_not_masked_anew(consortium: Make):
    found = consortium(3)
    coordinator = Coordinator(found)
    run, _, folder = killed_in_the_second_opening(coordinator)
    path = folder / "round-000002.safetensors"
    path.write_bytes(path.read_bytes()[:-9] + bytes(9))
    ended(run := coordinator.run(run.run), "stopped", 1)
    assert GONE in run.reason and vectors(found) == 1
    # What is written down of the mask's use is what refuses: without it a second vector leaves.
    (noted,) = folder.glob("sums-of-train-*2.safetensors")
    noted.unlink()
    coordinator.run(run.run)
    assert vectors(found) == 2


def test_under_another_policy_no_second_vector_leaves(consortium: Make):
    found = consortium(3)
    coordinator = Coordinator(found)
    run, site, _ = killed_in_the_second_opening(coordinator)
    found.sites["site-03"] = replace(site, policy=site.policy.model_copy(update={"cell_minimum": 7}))
    found.restart("site-03")
    ended(run := coordinator.run(run.run), "stopped", 1)
    assert GONE in run.reason and vectors(found) == 1


def test_of_other_rows_no_second_vector_leaves(consortium: Make):
    found = consortium(3)
    coordinator = Coordinator(found)
    run, site, _ = killed_in_the_second_opening(coordinator)
    found.sites["site-03"] = replace(site, source=Frame(site.source.read(()).iloc[:-1]))
    snapshot.freeze(found.sites["site-03"], found.folders["site-03"].frozen, None)
    found.restart("site-03")
    ended(run := coordinator.run(run.run), "stopped", 1)
    assert "site-03: " in run.reason and vectors(found) == 1
    # Approved again with the rows of now, they are other rows than the vector is of.
    found.approve("site-03")
    found.restart("site-03")
    ended(run := coordinator.run(run.run), "stopped", 1)
    assert GONE in run.reason and vectors(found) == 1
