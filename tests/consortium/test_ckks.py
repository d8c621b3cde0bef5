"""Real runs of ciphertexts: the model of plain averaging, a killed first site and a killed coordinator."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from flfed.records.store.reader import RunReader
from flfed.updates.checkpoints import checkpoint as checkpoints
from tests.consortium.test_packed_bytes import held, sent
from tests.machines import called, until

pytest.importorskip("tenseal")
pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]
THREE = ("alpha", "beta", "delta")
FIRST = THREE[0]
CKKS = ("[compare]", '[privacy]\nsecure-aggregation = "ckks"\n[compare]')
HELD = """
import os, time
from pathlib import Path
from flfed.updates.strategies.fedavg import FedAvg
there, configure = Path(os.environ["HELD"]), FedAvg.configure_train

def configuring(self, server_round, *given):
    if server_round == 2 and not (there / "round").exists():
        (there / "round").touch()
        while not (there / "over").exists():
            time.sleep(0.05)
    return configure(self, server_round, *given)

FedAvg.configure_train = configuring
"""
"""A coordinator that waits before it asks the second round's sites to train."""


def started(consortium: Any, study: str, there: Path, before: str = "") -> subprocess.Popen[bytes]:
    """Start a run in a process of its own at the coordinator's machine."""
    machine = consortium.coordinator
    words = [
        "coordinator", "run", str(consortium.file(study)), *(w for name in THREE for w in ("--site", name)), "--json",
    ]  # fmt: skip
    with (there / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", f"{before}\nfrom flfed.cli import main; main()", *words],
            stdout=log, stderr=log, env={**machine.environment, "HELD": str(there)}, cwd=machine.exchange,
        )  # fmt: skip


def newest(consortium: Any) -> Any:
    with consortium.coordinator.here(), RunReader.open() as reader:
        return next(iter(reader.runs()))


def taken_out(consortium: Any, name: str, run: str) -> dict[str, np.ndarray]:
    """Return the arrays of the last model as the people of a site take it out."""
    machine = consortium.sites[name]
    folder = machine.exchange / f"model-{name}-{run}"
    code, out, said = called(
        ["site", "model", name, run, "--output", str(folder), "--json"], machine.environment, machine.exchange
    )
    assert code == 0, (out, said)
    return load_file(folder / "model.safetensors")


def of_plain(consortium: Any, study: str) -> dict[str, np.ndarray]:
    """Return the model of the same study without ciphertexts, in one process."""
    machine, text = consortium.coordinator, study.replace('secure-aggregation = "ckks"', 'secure-aggregation = "off"')
    words = ["study", "run", str(consortium.file(text)), *(w for name in THREE for w in ("--site", name)), "--json"]
    code, out, said = called(words, machine.environment, machine.exchange)
    assert code == 0, said
    with machine.here():
        return checkpoints.final(json.loads(out)["run"]).arrays


def far(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    assert set(b) <= set(a)
    return max(float(np.abs(a[name] - b[name]).max()) for name in b)


def test_ciphertexts_of_real_sites(consortium: Any, tmp_path: Path):
    pins = consortium.pins(THREE)
    studies = [consortium.study(CKKS, ("lr = 0.1", f"lr = {lr}")) for lr in (0.1, 0.2, 0.3)]
    serving = {}
    for name in THREE:
        for study in studies:
            consortium.approve(name, study, THREE, sums=True, pins=pins)
        serving[name] = consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)
    for place, part in enumerate(
        (the_model_of_plain_averaging, a_first_site_that_is_killed, a_coordinator_that_is_killed)
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        part(consortium, studies[place], folder, serving)


def the_model_of_plain_averaging(consortium: Any, study: str, there: Path, serving: dict[str, Any]) -> None:
    assert started(consortium, study, there).wait(400) == 0, (there / "log").read_text()
    run = newest(consortium)
    assert (run.status, run.rounds) == ("completed", 3), run.reason
    assert held(consortium, run.run, THREE) == sent(consortium, run.run)
    kinds = Counter(kind for _, kind in held(consortium, run.run, THREE))
    assert kinds["keys"] == kinds["train"] == 3
    assert kinds["open"] == 3
    models = {name: taken_out(consortium, name, run.run) for name in THREE}
    with consortium.coordinator.here():
        own = checkpoints.final(run.run).arrays
    assert far(own, of_plain(consortium, study)) < 3e-6
    assert all(far(models[name], own) == 0 for name in THREE)


def a_first_site_that_is_killed(consortium: Any, study: str, there: Path, serving: dict[str, Any]) -> None:
    conducting = started(consortium, study, there, HELD)
    until(
        "round 2", (there / "round").exists, seconds=300, process=conducting, said=lambda: (there / "log").read_text()
    )
    serving[FIRST].kill()
    serving[FIRST].wait()
    (there / "over").touch()
    serving[FIRST] = consortium.sites[FIRST].serve(f"site serve {FIRST}")
    assert conducting.wait(500) == 0, (there / "log").read_text()
    run = newest(consortium)
    assert (run.status, run.rounds) == ("completed", 3), run.reason
    assert far(taken_out(consortium, FIRST, run.run), of_plain(consortium, study)) < 3e-6


def a_coordinator_that_is_killed(consortium: Any, study: str, there: Path, serving: dict[str, Any]) -> None:
    conducting = started(consortium, study, there, HELD)
    until(
        "round 2", (there / "round").exists, seconds=300, process=conducting, said=lambda: (there / "log").read_text()
    )
    os.kill(conducting.pid, 9)
    conducting.wait()
    machine = consortium.coordinator
    code, _, said = called(["study", "resume", "latest", "--json"], machine.environment, machine.exchange)
    assert code == 0, said
    run = newest(consortium)
    assert (run.status, run.rounds) == ("completed", 3), run.reason
    assert far(taken_out(consortium, FIRST, run.run), of_plain(consortium, study)) < 3e-6
