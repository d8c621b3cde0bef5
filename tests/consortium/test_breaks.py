"""What breaks between a site and its coordinator, or ends at a site, stops no run and changes no array of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flfed.deployment.coordinator.certificates import Settings, initialise
from flfed.deployment.processes.child_processes import BUSY, Pulse
from flfed.paths import CoordinatorFolder
from tests.consortium.forwarder import Forwarder
from tests.machines import until

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]

LATER = ("delta",)
SITES = ["alpha", "beta", "gamma"]
BREAKS = {"wrong certificate": 6, "end of file": 3, "reset in mid-body": 3, "nothing": 20, "one-way loss": 12}
"""How connections of site alpha break, and for how many seconds."""
BACK_SECONDS, STARTS = 30.0, 15.0
"""Within how many seconds a site is back; on a busy machine so many times as long as a short command takes then."""


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
        self.file, self._output = consortium.file(text), ("", "")
        coordinator = consortium.coordinator
        flfed = [sys.executable, "-c", "from flfed.cli import main; main()"]
        self.process = subprocess.Popen(
            [*flfed, "coordinator", "run", str(self.file), "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=coordinator.environment, cwd=coordinator.exchange,
        )  # fmt: skip

    def wait(self, what: str, ready: Callable[[], object], seconds: float = 300.0, *, every: float = 0.2) -> None:
        """Wait until something is there, while the run goes on."""
        until(what, ready, seconds, every=every, process=self.process, said=self.said)

    def said(self) -> str:
        """Return what the sites' processes and, where it has ended, the run said."""
        logs = "".join(self.consortium.sites[name].log()[-2000:] for name in SITES)
        return f"{logs}\n{self.output() if self.process.poll() is not None else ''}"

    def output(self) -> tuple[str, str]:
        """Return what the run said once it has ended, on both streams."""
        if not any(self._output):
            self._output = self.process.communicate(timeout=400)
        return self._output

    def rounds(self, site: str = "alpha") -> int:
        """Return how many rounds a site has answered in all runs."""
        return sum(line["kind"] == "train" for line in self.consortium.sites[site].lines())

    def goes_on(self, rounds: int = 1) -> None:
        """Wait until so many rounds more were answered."""
        enough = self.rounds() + rounds
        self.wait("a round", lambda: self.rounds() >= enough)

    def end(self) -> dict[str, Any]:
        out, err = self.output()
        assert self.process.returncode == 0, (out[-2000:], err)
        return dict(json.loads(out))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.output()


def same_as_undisturbed(consortium: Any, going: Going, run: str) -> None:
    """The run's arrays are those of the same study in one process, to which nothing happened."""
    coordinator = consortium.coordinator
    sites = " ".join(f"--site {name}" for name in SITES)
    here = coordinator.json(f"study run {going.file} {sites}")
    compared = coordinator.json(f"run compare {run} {here['run']}")
    assert compared["arrays-max-difference"] <= 1e-6


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


def in_mid_round(machine: Any) -> bool:
    """Tell whether a site's gate answers a message."""
    return Pulse(machine.gate / "gate.pulse").seen() == BUSY


def kill_in_mid_round(going: Going, machine: Any, module: str) -> None:
    """Kill a process of a site while its gate answers a message; return once it was started anew.

    After a gate was killed its node ends by itself, at any moment: where it did just then, the next one is killed.
    """
    name = {"flfed.deployment.processes.executor": "the gate", "flfed.deployment.processes.node": "the node"}[module]
    killed = f"{name} ended (SIGKILL)"
    before = machine.log().count(killed)
    while machine.log().count(killed) == before:
        found = pids(machine, module)
        going.wait(f"a message at {machine.name}", lambda: in_mid_round(machine), every=0.002)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        going.wait(f"another {module}", lambda found=found: set(pids(machine, module)) - set(found))


def kill_caddy(consortium: Any) -> None:
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if words[0].endswith("caddy") and any(str(consortium.root) in word for word in words):
            os.kill(int(place.name), signal.SIGKILL)


def test_a_run_survives_what_networks_do(consortium: Any, forwarder: Forwarder):
    alpha = consortium.sites["alpha"]
    going = Going(consortium, ("rounds = 3", "rounds = 20\nquorum = 1.0"), ("epochs = 1", "epochs = 20"))
    try:
        for how, seconds in BREAKS.items():
            going.goes_on()
            # The next on the line is the beginning of its reply.
            going.wait("a message at alpha", lambda: in_mid_round(alpha), every=0.002)
            with forwarder.breaking(how):
                time.sleep(seconds)
            ended = time.monotonic()
            going.wait(f"back after {how}", lambda ended=ended: forwarder.answered > ended)
            back, began = forwarder.answered - ended, time.monotonic()
            if back > BACK_SECONDS:
                consortium.coordinator.serve("coordinator status").wait()
                assert back < STARTS * (time.monotonic() - began), how
        going.goes_on()
        kill_caddy(consortium)
        going.goes_on()
        report = going.end()
    finally:
        going.close()
    assert (report["status"], report["rounds"]) == ("completed", 20)
    same_as_undisturbed(consortium, going, report["run"])
    said = alpha.log()
    assert "a certificate that the coordinator's authority did not sign" in said
    assert len(said.splitlines()) < 60


def whose_site_starts_anew(consortium: Any, quorum: str) -> None:
    alpha = consortium.sites["alpha"]
    going = Going(consortium, ("rounds = 3", f"rounds = 8\nquorum = {quorum}"), ("epochs = 1", "epochs = 50"))
    try:
        for module in ("flfed.deployment.processes.executor", "flfed.deployment.processes.node"):
            going.goes_on()
            kill_in_mid_round(going, alpha, module)
        going.goes_on()
        report = going.end()
    finally:
        going.close()
    assert (report["status"], report["rounds"]) == ("completed", 8)
    same_as_undisturbed(consortium, going, report["run"])
    assert "the node ended (SIGKILL)" in alpha.log()
    assert "Every line is as it was written." in alpha.run("site ledger alpha --verify")


def test_a_run_survives_that_a_site_starts_anew(consortium: Any, forwarder: Forwarder):
    whose_site_starts_anew(consortium, "0.75")


def test_a_run_that_needs_every_site_survives_that_one_starts_anew(consortium: Any, forwarder: Forwarder):
    whose_site_starts_anew(consortium, "1.0")
