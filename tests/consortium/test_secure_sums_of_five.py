"""Secure sums of three and of five real sites: missing and killed ones, and a run given up and begun anew with all."""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flfed.updates.masking.rules import threshold
from tests.consortium.test_secure_sums import (
    KILLED,
    SUMS,
    a_coordinator_killed_after_the_first_opening,
    a_site_killed_between_the_exchanges_while_another_is_missing,
    begun,
    command,
    difference,
    kill,
    lists,
    sums_as_in_one_process,
    words,
)
from tests.machines import until

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]
MEMBERS = FIVE = ("alpha", "beta", "gamma", "delta", "epsilon")
THREE = FIVE[:3]
MISSING, WITHOUT = "epsilon", "alpha,beta,delta,gamma"
WAITED = 20.0
"""Seconds that the coordinator waits for a site that is away."""
LISTED = """
from flfed.updates.aggregation.secure_sum import SecureSums
from flfed.updates.messages.train import TRAIN
listed = SecureSums._listed

def of_those(self, asked, vectors, least):
    names = {by_round!r}.get(asked.number, self.cohort) if asked.kind == TRAIN else vectors
    return listed(self, asked, {{name: vectors[name] for name in names}}, least)

SecureSums._listed = of_those
"""
"""A rehearsal whose sums have the sites that those of a real run had."""


@pytest.fixture(scope="module")
def serving() -> dict[str, subprocess.Popen[bytes]]:
    """The processes that serve the sites."""
    return {}


def ready(consortium: Any, serving: dict[str, Any], names: Sequence[str], rates: Sequence[float]) -> list[str]:
    """Return studies that sites have approved, once these sites serve.

    Studies of other steps: their questions are others, so that no list binds the next one.
    """
    changes = (SUMS, ("rounds = 3", f"rounds = 3\ndeadline = {WAITED}"))
    studies = [consortium.study(*changes, ("lr = 0.1", f"lr = {rate}")) for rate in rates]
    pins = consortium.pins(names)
    for name in names:
        for study in studies:
            consortium.approve(name, study, names, sums=True, pins=pins)
        if name not in serving:
            serving[name] = consortium.sites[name].serve(f"site serve {name}")
    consortium.online(len(serving))
    return studies


def test_three_real_sites(consortium: Any, serving: dict[str, Any], tmp_path: Path):
    studies = ready(consortium, serving, THREE, (0.1, 0.2, 0.3))
    sums_as_in_one_process(consortium, studies[0], THREE)
    a_coordinator_killed_after_the_first_opening(consortium, studies[1], THREE)
    # Of three nobody may be missing: who is killed before the opening is waited for.
    run = a_site_killed_between_the_exchanges_while_another_is_missing(
        consortium, studies[2], serving, tmp_path, THREE, missing=""
    )
    assert difference(consortium, run, studies[2], THREE) == 0.0


def test_five_real_sites(consortium: Any, serving: dict[str, Any], tmp_path: Path):
    assert threshold(len(FIVE)) == 4
    studies = ready(consortium, serving, FIVE, (0.4, 0.5, 0.6, 0.7))
    sums_as_in_one_process(consortium, studies[0], FIVE)
    a_coordinator_killed_after_the_first_opening(consortium, studies[1], FIVE)
    run = a_site_killed_between_the_exchanges_while_another_is_missing(
        consortium, studies[2], serving, tmp_path / "killed", FIVE, MISSING
    )
    assert difference(consortium, run, studies[2], FIVE, as_listed(consortium, run)) == 0.0
    consortium.online(5)
    a_run_given_up_and_begun_anew_with_all(consortium, studies[3], serving, tmp_path / "given-up")


def a_run_given_up_and_begun_anew_with_all(consortium: Any, study: str, serving: dict[str, Any], there: Path) -> None:
    """Kill the coordinator after the first opening of a sum without one site; a new run with all takes that list."""
    conducting, said = begun(consortium, study, FIVE, there, KILLED)
    (there / "list-over").touch()
    until("round 2", (there / "train").exists, process=conducting, said=said)
    kill(serving, MISSING)
    (there / "train-over").touch()
    assert conducting.wait(300) == -signal.SIGKILL, said()
    serving[MISSING] = consortium.sites[MISSING].serve(f"site serve {MISSING}")
    consortium.online(5)
    ran, said_anew = command(consortium, words(consortium, study, FIVE))
    assert ran["status"] == "completed", said_anew
    of_rounds = listed(consortium, ran["run"])
    # After three rounds the last evaluation is summed up too.
    assert of_rounds[2] == WITHOUT and set(of_rounds) == {1, 2, 3, 4}
    one_list_a_question(consortium)
    # All five answered the second round, and the sum is of the four whose sum was opened before.
    assert {line["site"] for line in answers(consortium, ran["run"], 2)} == set(FIVE)
    assert difference(consortium, ran["run"], study, FIVE, as_listed(consortium, ran["run"])) == 0.0
    assert difference(consortium, ran["run"], study, FIVE) > 0.0


def answers(consortium: Any, run: str, number: int) -> list[dict[str, Any]]:
    """Return the ledgers' lines of a round's updates, each with its site."""
    return [
        {**line, "site": name}
        for name in FIVE
        for line in consortium.sites[name].lines()
        if (line["run"], line["kind"], line.get("round")) == (run, "train", number)
    ]


def listed(consortium: Any, run: str) -> dict[int, str]:
    """Return the list of each round of a run, which is one at all its sites."""
    lists(consortium, run, FIVE)
    found: dict[int, str] = {}
    for name in FIVE:
        for line in consortium.sites[name].lines():
            if line["run"] == run and line["kind"] == "unmask":
                assert found.setdefault(line["round"], line["listed"]) == line["listed"]
    return found


def as_listed(consortium: Any, run: str) -> str:
    """Return what makes a rehearsal sum up those whom a run summed up."""
    by_round = {number: names.split(",") for number, names in listed(consortium, run).items()}
    return LISTED.format(by_round=by_round)


def one_list_a_question(consortium: Any) -> None:
    """Check that no ledger has a second list of one question, over all runs."""
    for name in FIVE:
        found: dict[str, set[str]] = {}
        for line in consortium.sites[name].lines():
            if line["kind"] in ("list", "unmask"):
                found.setdefault(line["question-sha256"], set()).add(line["listed"])
        assert found and all(len(one) == 1 for one in found.values()), name
