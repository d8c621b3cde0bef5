"""From nothing to a finished study at four institutions, by the commands of docs/, as they stand there.

Real processes on loopback: SuperLink, Caddy, TLS, four sites with homes and keys of their own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SITES = ("cleveland", "hungary", "long-beach", "switzerland")
ROUNDS = 4
"""Of the run in the test: the study as it is shipped has 40, which takes minutes."""


def commands_of(page: str) -> dict[str, list[str]]:
    """Return the commands of a page by their first two words, in order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = [shlex.split(line) for line in re.findall(r"^\$ flfed (.*)$", text, flags=re.MULTILINE)]
    return {" ".join(words[:2]): words for words in found}


COORDINATOR, SITE = commands_of("run-a-consortium.md"), commands_of("join-as-a-site.md")


def test_a_site_needs_three_commands_and_a_coordinator_three_and_two_a_site():
    assert list(SITE) == ["site join", "site approve", "site serve"]
    assert list(COORDINATOR) == [
        "coordinator init", "coordinator serve", "coordinator invite", "coordinator admit",
        "coordinator status", "coordinator run",
    ]  # fmt: skip


class Machine:
    """One institution's machine: a home of its own, and what it started."""

    def __init__(self, folder: Path, name: str, exchange: Path) -> None:
        self.name, self._exchange, self._log = name, exchange, folder / f"{name}.log"
        self.home = folder / name
        self.home.mkdir()
        self._environment = {**os.environ, "FLFED_HOME": str(self.home)}
        self._started: list[subprocess.Popen[bytes]] = []

    def _words(self, words: list[str]) -> list[str]:
        others = ",".join(site for site in SITES if site != self.name)
        filled = [word.replace("SITE", self.name).replace("OTHERS", others) for word in words]
        return [sys.executable, "-c", "from flfed.cli import main; main()", *filled]

    def run(self, words: list[str], *, code: int = 0) -> str:
        done = subprocess.run(
            self._words(words), capture_output=True, text=True, env=self._environment, cwd=self._exchange, timeout=400
        )
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def start(self, words: list[str]) -> None:
        with self._log.open("ab") as log:
            self._started.append(
                subprocess.Popen(self._words(words), stdout=log, stderr=log, env=self._environment, cwd=self._exchange)
            )

    def end(self) -> None:
        for process in self._started:
            process.send_signal(signal.SIGTERM)
        for process in self._started:
            process.wait(60)

    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def machines() -> Iterator[dict[str, Machine]]:
    # A short path: the name of a Unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="flfed-", ignore_cleanup_errors=True) as folder:
        exchange = Path(folder) / "exchange"
        exchange.mkdir()
        found = {name: Machine(Path(folder), name, exchange) for name in ("coordinator", *SITES)}
        try:
            yield found
        finally:
            for machine in found.values():
                machine.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, ready, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s"
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_consortium_by_the_book(machines, test_data):
    coordinator = machines["coordinator"]
    for machine in machines.values():
        machine.run(["data", "get", "heart-disease", "--from", str(test_data)])
    init = [re.sub(r":\d+$", f":{free_port()}", word) for word in COORDINATOR["coordinator init"]]
    coordinator.run(init)
    coordinator.start(COORDINATOR["coordinator serve"])
    for site in SITES:
        machine = machines[site]
        coordinator.run([word.replace("SITE", site) for word in COORDINATOR["coordinator invite"]])
        machine.run(SITE["site join"])
        coordinator.run([word.replace("SITE", site) for word in COORDINATOR["coordinator admit"]])
        assert "Legal basis: public data" in machine.run(short(SITE["site approve"], machine))
        machine.start(SITE["site serve"])

    def online() -> bool:
        found = json.loads(coordinator.run([*COORDINATOR["coordinator status"], "--json"]))
        return len(found["sites"]) == 4 and all(site["online-since"] for site in found["sites"])

    until("four sites", online)
    deployed = json.loads(coordinator.run([*short(COORDINATOR["coordinator run"], coordinator), "--json"]))
    assert (deployed["status"], deployed["engine"], deployed["rounds"]) == ("completed", "deployment", ROUNDS)
    here = json.loads(coordinator.run([*short(["study", "run", "heart-disease"], coordinator), "--json"]))
    compared = json.loads(coordinator.run(["run", "compare", deployed["run"], here["run"], "--json"]))
    assert compared["arrays-max-difference"] <= 1e-6
    for site, found in here["sites"].items():
        assert deployed["sites"][site]["rows"] == found["rows"]
        for metric, value in found["global"].items():
            assert deployed["sites"][site]["global"][metric]["value"] == pytest.approx(value["value"], abs=1e-9)
    for site in SITES:
        verified = machines[site].run(["site", "ledger", "SITE", "--verify"])
        assert "1 receipt of the coordinator" in verified and "Every line is as it was written." in verified
        replayed = machines[site].run(["site", "replay", deployed["run"], "--round", "2", "--site", "SITE"])
        assert "bit for bit" in replayed
    refused_when_changed(machines, coordinator)


def refused_when_changed(machines: dict[str, Machine], coordinator: Machine) -> None:
    """A study of another text, which nobody approved, is refused by every site, and no row is read for it."""
    lines = {site: ledger_lines(machines[site]) for site in SITES}
    said = coordinator.run([*COORDINATOR["coordinator run"], "--set", "rounds=3"], code=1)
    assert said.count("was changed since it was decided about here: it needs a new approval") == 4
    for site in SITES:
        new = ledger_lines(machines[site])[len(lines[site]) :]
        assert [line["kind"] for line in new][0] == "refused"
        assert {line["kind"] for line in new} <= {"refused", "seal", "sealed"}


def ledger_lines(machine: Machine) -> list[dict[str, object]]:
    path = machine.home / "sites" / machine.name / "gate" / "ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def short(words: list[str], machine: Machine) -> list[str]:
    """Return a command with a file of the study's own in place of its name: the same with fewer rounds."""
    from flfed.study import Study

    path = machine.home / "heart-disease.toml"
    text = Study.load("heart-disease").text
    path.write_text(re.sub(r"(?m)^rounds = \d+$", f"rounds = {ROUNDS}", text), encoding="utf-8")
    return [str(path) if word == "heart-disease" else word for word in words]
