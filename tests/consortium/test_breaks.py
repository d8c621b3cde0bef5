"""What breaks between a site and its coordinator, or ends at a site, stops no run and changes no array of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.folders import CoordinatorFolder
from tests.consortium.forwarder import Forwarder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LATER = ("delta",)
SITES = ["alpha", "beta", "gamma"]
BREAKS = {"wrong certificate": 6, "end of file": 3, "reset in mid-body": 3, "nothing": 20, "one-way loss": 12}
"""How connections of site alpha break, and for how many seconds."""
BACK_SECONDS, ROUND_SECONDS = 30.0, 75.0


@pytest.fixture(scope="module")
def forwarder(consortium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forwarder]:
    """Three sites that serve, of which alpha reaches the coordinator through the forwarder."""
    other = CoordinatorFolder(tmp_path_factory.mktemp("other") / "coordinator")
    initialise(other, Settings("Other", f"localhost:{consortium.port}"))
    made = Forwarder(consortium.port, certificate=other.keys / "server.crt", key=other.keys / "server.key")
    join = consortium.sites["alpha"].home / "sites/alpha/network/join.toml"
    join.write_text(join.read_text().replace(f"localhost:{consortium.port}", f"localhost:{made.port}"))
    try:
        for name in SITES:
            consortium.sites[name].serve(f"site serve {name}")
        consortium.online(len(SITES))
        yield made
    finally:
        made.close()


class Going:
    """A run of a study at the three sites, while something happens to it."""

    def __init__(self, consortium: Any, *changes: tuple[str, str]) -> None:
        self.consortium, text = consortium, consortium.study(*changes)
        for name in SITES:
            consortium.approve(name, text, SITES)
        self.file = consortium.file(text)
        coordinator = consortium.coordinator
        flfed = [sys.executable, "-c", "from flfed.cli import main; main()"]
        self.process = subprocess.Popen(
            [*flfed, "coordinator", "run", str(self.file), "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=coordinator.environment, cwd=coordinator.exchange,
        )  # fmt: skip

    def rounds(self, site: str = "alpha") -> int:
        """Return how many rounds a site has answered in all runs."""
        return sum(line["kind"] == "train" for line in self.consortium.sites[site].lines())

    def goes_on(self, wait_until: Callable[..., None], rounds: int = 1) -> None:
        """Wait until so many rounds more were answered."""
        enough = self.rounds() + rounds
        wait_until("a round", lambda: self.rounds() >= enough or self.process.poll() is not None, ROUND_SECONDS)
        assert self.process.poll() is None, self.process.communicate()

    def end(self) -> tuple[dict[str, Any], str]:
        out, err = self.process.communicate(timeout=400)
        assert self.process.returncode == 0, (out[-2000:], err)
        return json.loads(out), err

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def same_as_undisturbed(consortium: Any, going: Going, run: str) -> None:
    """The run's arrays are those of the same study in one process, to which nothing happened."""
    coordinator = consortium.coordinator
    sites = " ".join(f"--site {name}" for name in SITES)
    here = json.loads(_json(coordinator.run(f"study run {going.file} {sites} --json")))
    compared = coordinator.json(f"run compare {run} {here['run']}")
    assert compared["arrays-max-difference"] <= 1e-6


def _json(said: str) -> str:
    return said[said.index("{") :]


def pids(machine: Any, module: str) -> list[int]:
    """Return the ids of a machine's processes of a module."""
    found, own = [], f"FLFED_HOME={machine.home}"
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text().split("\0")
            if module in words and own in (place / "environ").read_text().split("\0"):
                found.append(int(place.name))
        except OSError:
            continue
    return found


def kill(machine: Any, module: str) -> None:
    (pid,) = pids(machine, module)
    os.kill(pid, signal.SIGKILL)


def wait_for_mid_round(machine: Any) -> None:
    """Wait until a site's gate answers a message."""
    pulse, end = machine.gate / "gate.pulse", time.monotonic() + 60
    while pulse.stat().st_mtime_ns:  # 0 while it answers
        assert time.monotonic() < end


def kill_in_mid_round(machine: Any, module: str, wait_until: Callable[..., None]) -> None:
    """Kill a process of a site while its gate answers a message."""
    (pid,) = pids(machine, module)
    wait_for_mid_round(machine)
    os.kill(pid, signal.SIGKILL)
    wait_until(f"another {module}", lambda: pids(machine, module) not in ([], [pid]), 60)


def kill_caddy(consortium: Any) -> None:
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if words[0].endswith("caddy") and any(str(consortium.root) in word for word in words):
            os.kill(int(place.name), signal.SIGKILL)


def test_a_run_survives_what_networks_do(consortium: Any, forwarder: Forwarder, wait_until: Callable[..., None]):
    going = Going(consortium, ("rounds = 3", "rounds = 30\nquorum = 1.0"), ("epochs = 1", "epochs = 20"))
    try:
        for how, seconds in BREAKS.items():
            going.goes_on(wait_until)
            wait_for_mid_round(consortium.sites["alpha"])  # the next on the line is the beginning of its reply
            with forwarder.breaking(how):
                time.sleep(seconds)
            ended = time.monotonic()
            wait_until(f"back after {how}", lambda ended=ended: forwarder.answered > ended, BACK_SECONDS)
        going.goes_on(wait_until)
        kill_caddy(consortium)
        going.goes_on(wait_until)
        report, _ = going.end()
    finally:
        going.close()
    assert (report["status"], report["rounds"]) == ("completed", 30)
    same_as_undisturbed(consortium, going, report["run"])
    said = consortium.sites["alpha"].log_file.read_text()
    assert "a certificate that the coordinator's authority did not sign" in said
    assert len(said.splitlines()) < 60


@pytest.mark.parametrize("quorum", ["1.0", "0.75"])
def test_a_run_survives_that_a_site_starts_anew(
    quorum: str, consortium: Any, forwarder: Forwarder, wait_until: Callable[..., None]
):
    alpha = consortium.sites["alpha"]
    going = Going(consortium, ("rounds = 3", f"rounds = 12\nquorum = {quorum}"), ("epochs = 1", "epochs = 50"))
    try:
        for module in ("flfed.deployment.processes.executor", "flfed.deployment.processes.node"):
            going.goes_on(wait_until)
            kill_in_mid_round(alpha, module, wait_until)
        going.goes_on(wait_until)
        report, _ = going.end()
    finally:
        going.close()
    assert (report["status"], report["rounds"]) == ("completed", 12)
    same_as_undisturbed(consortium, going, report["run"])
    assert re.search("the node ended \\(SIGKILL\\)", alpha.log_file.read_text())
    verified = alpha.run("site ledger alpha --verify")
    assert "Every line is as it was written." in verified
