"""Runs with secure sums whose sites and coordinator are killed: the same arrays, and no second vector."""

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
from flfed.records.store.writer import RunStore
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.rows.snapshots import snapshot
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import COMPARE
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.secure_sum import KEYS
from flfed.updates.messages.summarise import SUMMARISE
from flfed.updates.messages.train import EVALUATE, TRAIN
from tests.deployment.summing import Consortium, Coordinator, CoordinatorKilled, Fault, begun

ROUNDS = 3
LAST = "site-04"
Make = Callable[..., Consortium]
Arrays = dict[str, np.ndarray]
UNDISTURBED: dict[tuple[str, ...], Arrays] = {}
"""By sites: every test has the same rows and study."""


FAULTS = [*(pytest.param(fault, marks=pytest.mark.proof) for fault in ("killed", "left")), "kept"]


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Make:
    """A function that returns sites that approved a study with sums."""

    def make(sites: int = 4, text: str = small_study) -> Consortium:
        study = Study.parse(text).replace({"secure-aggregation": "on", "strategy.rounds": ROUNDS})
        return Consortium(small_sites(sites, rows=80, policy=Policy(disclosure="open", resplit=True)), study)

    return make


def undisturbed(consortium: Consortium) -> Arrays:
    """Return the arrays of the study in one process."""
    sites = tuple(sorted(consortium.sites))
    if sites not in UNDISTURBED:
        side = SiteClient(lambda name, _: consortium.sites[name])
        config = {"study": consortium.study.text, "repeat": 0, "run": "", "sites": ",".join(sites)}
        with RunStore.open() as store:
            recorder = Recorder(begun(store, consortium.study, "inprocess"), "roc_auc_score", ROUNDS)
            grid = InProcessGrid(side.app(), list(sites), config)
            UNDISTURBED[sites] = FederatedRun(grid, consortium.study, recorder).conduct().arrays
    return UNDISTURBED[sites]


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


def ended(run: RunEntry, status: str = "completed", rounds: int = ROUNDS) -> None:
    assert (run.status, run.rounds) == (status, rounds), run.reason


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "kind", [TRAIN, *(pytest.param(one, marks=pytest.mark.proof) for one in (SUMMARISE, EVALUATE))]
)
def test_sites_killed_before_or_after_their_answer_send_the_same_vector_when_they_are_back(consortium, kind, fault):
    found = consortium()
    # The question is asked once more of all that are missing, and both are back.
    run = Coordinator(found).run(absent=in_round(2 if kind == TRAIN else 1, "site-03,site-04", kind, fault))
    ended(run)
    assert difference(run, undisturbed(found)) == 0.0


def test_a_site_that_comes_back_at_the_resume_only_gives_the_same_arrays(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    ended(run := coordinator.run(absent=in_round(2, "site-03", TRAIN, "killed", times=9)), "stopped", 1)
    assert "site-03" in run.reason
    assert checkpoints.final(run.run).round == 1
    ended(run := coordinator.run(run.run))
    assert difference(run, undisturbed(found)) == 0.0


KILLED = {
    "keys": (1, "site-03", KEYS), "sums over rows": (1, "site-03", SUMMARISE), "first round": (1, "site-03", TRAIN),
    "second round": (2, "site-03", TRAIN), "last losses": (1, "site-03", EVALUATE),
    "comparison": (1, "site-03", COMPARE),
}  # fmt: skip
"""At which message of which site."""


@pytest.mark.studies
@pytest.mark.parametrize(
    "where",
    [one if one in ("second round", "comparison") else pytest.param(one, marks=pytest.mark.proof) for one in KILLED],
)
def test_a_coordinator_that_is_killed_goes_on_to_the_same_arrays(consortium: Make, where: str):
    found = consortium()
    coordinator = Coordinator(found)
    run = coordinator.run(absent=in_round(*KILLED[where], "crash"))
    assert run.status == "failed" and "killed" in run.reason
    ended(run := coordinator.run(run.run))
    assert difference(run, undisturbed(found)) == 0.0
    # Nothing of the run stays but its model.
    assert [path.name for path in checkpoints.folder_of(run.run).iterdir()] == ["final.safetensors"]


def killed_before_the_second_checkpoint(stage: str, number: int) -> None:
    """Kill the coordinator between the replies of the second round and what the store has of it."""
    if (stage, number) == ("checkpoint", 2):
        raise CoordinatorKilled("killed")


def test_a_coordinator_killed_between_replies_and_checkpoint_goes_on_from_the_round_before(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    run = coordinator.run(observer=killed_before_the_second_checkpoint)
    assert (run.status, run.rounds) == ("failed", 1)
    ended(run := coordinator.run(run.run))
    assert difference(run, undisturbed(found)) == 0.0


def test_a_resumed_run_waits_for_a_site_and_stops_with_its_model_until_it_is_back(consortium: Make):
    found = consortium()
    coordinator = Coordinator(found)
    run = coordinator.run(absent=in_round(2, "site-03", TRAIN, "crash"))
    # It is away for one message of each kind, and is asked again.
    away = [in_round(1, LAST, kind) for kind in (ENROL, KEYS, TRAIN)]
    ended(once := coordinator.run(run.run, absent=either(*away)))
    assert difference(once, undisturbed(found)) == 0.0
    run = coordinator.run(absent=in_round(2, "site-03", TRAIN, "crash"))
    ended(run := coordinator.run(run.run, absent=lambda site, kind: site == LAST), "stopped", 1)
    assert LAST in run.reason and difference(run, undisturbed(found)) > 0
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
    ended(coordinator.run())


GONE = f"site-03: {Refusal('step-answered', round=2)}"


def killed_in_the_second_round(coordinator: Coordinator) -> tuple[RunEntry, Site, Path]:
    """Begin a run of three sites that is killed in the second round; return it, the third site and its run's folder."""
    run = coordinator.run(observer=killed_before_the_second_checkpoint)
    return run, coordinator.consortium.sites["site-03"], run_folder("site-03", run.run)


def vectors(consortium: Consortium) -> int:
    """Return how many different answers of the third site to the second round left."""
    told = [line.facts for line in consortium.lines("site-03") if line.kind == "train"]
    return len({facts["sha256"] for facts in told if facts.get("round") == 2})


def test_under_another_policy_no_second_vector_leaves(consortium: Make):
    found = consortium(3)
    coordinator = Coordinator(found)
    run, site, _ = killed_in_the_second_round(coordinator)
    found.sites["site-03"] = replace(site, policy=site.policy.model_copy(update={"cell_minimum": 7}))
    found.restart("site-03")
    ended(run := coordinator.run(run.run), "stopped", 1)
    assert GONE in run.reason and vectors(found) == 1


def test_of_other_rows_no_second_vector_leaves(consortium: Make):
    found = consortium(3)
    coordinator = Coordinator(found)
    run, site, _ = killed_in_the_second_round(coordinator)
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
