"""Real runs with secure sums: the sum of one process, ledgers that agree with the wire, and killed processes."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flfed.records.store.reader import RunReader
from tests.consortium.test_packed_bytes import held, sent
from tests.machines import until

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]
FOUR = ("alpha", "beta", "gamma", "delta")
SUMS = ("[compare]", '[privacy]\nsecure-aggregation = "on"\n[compare]')
IN_ONE_SUM = ("[compare]", SUMS[1] + '\nshare = "sum"')
BEST = (("epochs = 1", "epochs = 1\nvalidation = 0.3"), ("rounds = 3", 'rounds = 3\nselect = "best"'))
"""Of whose rounds the best one is chosen, by the sum of the losses that these institutions keep."""
LOSS = ("log_loss", "global")
KILLED = """
import os, signal
from flfed.updates.aggregation.summer import Summer
add, added = Summer.add, []

def adding(self, vectors):
    added.append(self)
    if len(added) == %d:
        os.kill(os.getpid(), signal.SIGKILL)
    return add(self, vectors)

Summer.add = adding
"""
"""A coordinator that is killed where it has all replies to that question, and has not added them up."""
HELD = """
import os, time
from pathlib import Path
from flfed.updates.strategies.fedavg import FedAvg
there, configure = Path(os.environ["HELD"]), FedAvg.configure_train

def configuring(self, server_round, *given):
    if server_round == 2 and not (there / "train").exists():
        (there / "train").touch()
        while not (there / "over").exists():
            time.sleep(0.05)
    return configure(self, server_round, *given)

FedAvg.configure_train = configuring
"""
"""A coordinator that waits before it asks the second round's sites to train."""


def words(consortium: Any, study: str, names: Sequence[str] = FOUR) -> list[str]:
    chosen = [word for name in names for word in ("--site", name)]
    return ["coordinator", "run", str(consortium.file(study)), *chosen, "--json"]


def command(consortium: Any, given: list[str], before: str = "", code: int = 0) -> tuple[dict[str, Any], str]:
    """Run a command in a process of its own at the coordinator's machine; return its JSON and what it said."""
    machine = consortium.coordinator
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\nfrom flfed.cli import main; main()", *given],
        capture_output=True, text=True, env=machine.environment, cwd=machine.exchange, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stderr[-3000:])
    return (json.loads(done.stdout) if done.stdout.strip() else {}), done.stderr


def here(consortium: Any, study: str, names: Sequence[str] = FOUR, before: str = "") -> str:
    """Return a run of the same study in one process, which rehearses the sums."""
    chosen = [word for name in names for word in ("--site", name)]
    given = ["study", "run", str(consortium.file(study)), *chosen, "--one-by-one", "--json"]
    return str(command(consortium, given, before)[0]["run"])


def difference(consortium: Any, run: str, study: str, names: Sequence[str] = FOUR, before: str = "") -> float:
    compared, _ = command(consortium, ["run", "compare", run, here(consortium, study, names, before), "--json"])
    return float(compared["arrays-max-difference"])


def cohorts(consortium: Any, run: str, names: Sequence[str] = FOUR) -> set[str]:
    """Return the sites over which replies of a run are added up, by the lines of all ledgers that have some."""
    lines = [line for name in names for line in consortium.sites[name].lines()]
    return {line["cohort"] for line in lines if line.get("run") == run and "cohort" in line}


def newest(consortium: Any) -> Any:
    with consortium.coordinator.here(), RunReader.open() as reader:
        return next(iter(reader.runs()))


def test_sums_of_real_sites(consortium: Any, tmp_path: Path):
    pins = consortium.pins(FOUR)
    waits = ("rounds = 3", "rounds = 3\ndeadline = 10\nwait = 20")
    studies = [consortium.study(SUMS, ("lr = 0.1", f"lr = {lr}"), *BEST) for lr in (0.1, 0.2, 0.3)]
    studies.append(consortium.study(SUMS, ("lr = 0.1", "lr = 0.5"), waits))
    studies.append(consortium.study(IN_ONE_SUM, ("lr = 0.1", "lr = 0.4")))
    serving = {}
    for name in FOUR:
        for study in studies:
            consortium.approve(name, study, FOUR, sums=True, pins=pins)
        serving[name] = consortium.sites[name].serve(f"site serve {name}")
    consortium.online(4)
    sums_as_in_one_process(consortium, studies[0])
    a_coordinator_killed_before_it_adds_up_a_round(consortium, studies[1])
    a_site_killed_in_a_round(consortium, studies[2], serving, tmp_path)
    a_site_away_for_longer_than_the_run_waits(consortium, studies[3], serving, tmp_path / "away")
    # Last: after it no figure of these rows leaves but in sums.
    no_sum_of_figures_of_small_sites(consortium, studies[4])


def no_sum_of_figures_of_small_sites(consortium: Any, study: str) -> None:
    """Run a study that records one sum of figures, of sites too small for it: each has its own, and nobody else."""
    ran, said = command(consortium, words(consortium, study))
    assert (ran["status"], ran["faults"]) == ("completed", []), said
    assert held(consortium, ran["run"], FOUR) == sent(consortium, ran["run"])
    kinds = Counter(
        line["kind"] for name in FOUR for line in consortium.sites[name].lines() if line.get("run") == ran["run"]
    )
    # One exchange for the sums over rows, for each of three rounds, for the last model's losses and the comparison.
    assert [kinds[kind] for kind in ("summarise", "train", "evaluate", "compare")] == [4, 12, 4, 4]
    assert cohorts(consortium, ran["run"]) == {"alpha,beta,delta,gamma"}
    results = [
        json.loads(path.read_text()) for name in FOUR for path in consortium.sites[name].home.rglob("results/*.json")
    ]
    own = [result for result in results if result["run"] == ran["run"]]
    assert len([one for result in own for one in result["arms"] if (one["metric"], one["arm"]) == LOSS]) == 4
    # With 27 test rows no site has an accuracy that may leave, and of a part of the figures there is no sum.
    assert "summed-figures" not in ran
    # What opened the sum is gone once the run is sealed.
    assert [path for name in FOUR for path in consortium.sites[name].home.rglob(f"runs/{ran['run']}/*")] == []


def sums_as_in_one_process(consortium: Any, study: str) -> None:
    ran, said = command(consortium, words(consortium, study))
    assert (ran["status"], ran["faults"]) == ("completed", []), said
    assert held(consortium, ran["run"], FOUR) == sent(consortium, ran["run"])
    kinds = Counter(kind for _, kind in held(consortium, ran["run"], FOUR))
    assert kinds["keys"] == kinds["train"] == len(FOUR)
    assert cohorts(consortium, ran["run"]) == {",".join(sorted(FOUR))}
    assert difference(consortium, ran["run"], study) == 0.0


def a_coordinator_killed_before_it_adds_up_a_round(consortium: Any, study: str) -> None:
    # The sums over rows, and the rounds: the third sum is that of the second round.
    command(consortium, words(consortium, study), KILLED % 3, code=-9)
    killed = newest(consortium)
    assert killed.rounds == 1
    command(consortium, ["study", "resume", "latest", "--json"])
    run = newest(consortium)
    assert (run.run, run.status, run.rounds) == (killed.run, "completed", 3), run.reason
    assert difference(consortium, run.run, study) == 0.0


def begun(
    consortium: Any, study: str, names: Sequence[str], there: Path, before: str = ""
) -> tuple[subprocess.Popen[bytes], Callable[[], str]]:
    """Begin a run that waits where `HELD` says, with its files in a folder; return it, and what tells what it said."""
    machine = consortium.coordinator
    there.mkdir(exist_ok=True)
    with (there / "log").open("wb") as log:
        conducting = subprocess.Popen(
            [sys.executable, "-c", f"exec({before!r}, {{}})\n{HELD}\nfrom flfed.cli import main; main()",
             *words(consortium, study, names)],
            stdout=log, stderr=log, env={**machine.environment, "HELD": str(there)}, cwd=machine.exchange,
        )  # fmt: skip
    return conducting, lambda: (there / "log").read_text()


def a_site_killed_in_a_round(
    consortium: Any, study: str, serving: dict[str, subprocess.Popen[bytes]], there: Path
) -> None:
    conducting, said = begun(consortium, study, FOUR, there)
    until("round 2", (there / "train").exists, process=conducting, said=said)
    kill(serving, "alpha")
    (there / "over").touch()
    time.sleep(5)
    serving["alpha"] = consortium.sites["alpha"].serve("site serve alpha")
    assert conducting.wait(500) == 0, said()
    run = newest(consortium)
    assert (run.status, run.rounds) == ("completed", 3), run.reason
    assert difference(consortium, run.run, study) == 0.0


def a_site_away_for_longer_than_the_run_waits(
    consortium: Any, study: str, serving: dict[str, subprocess.Popen[bytes]], there: Path
) -> None:
    conducting, said = begun(consortium, study, FOUR, there)
    until("round 2", (there / "train").exists, process=conducting, said=said)
    kill(serving, "delta")
    (there / "over").touch()
    assert conducting.wait(300) == 3, said()
    stopped = newest(consortium)
    assert (stopped.status, stopped.rounds) == ("stopped", 1) and "delta" in stopped.reason
    serving["delta"] = consortium.sites["delta"].serve("site serve delta")
    consortium.online(4)
    command(consortium, ["study", "resume", stopped.run, "--json"])
    run = newest(consortium)
    assert (run.run, run.status, run.rounds) == (stopped.run, "completed", 3), run.reason
    assert difference(consortium, run.run, study) == 0.0


def kill(serving: dict[str, subprocess.Popen[bytes]], name: str) -> None:
    serving[name].kill()
    serving[name].wait()
