"""A consortium of real processes on loopback: machines with homes and keys of their own, as docs/ has them set up."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from flfed import packages
from flfed.cli import main
from tests.terminal import Dialogue

ROOT = Path(__file__).resolve().parent.parent


def commands_of(page: str) -> dict[str, list[str]]:
    """Return the commands of a page by their first two words, in order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = [shlex.split(line) for line in re.findall(r"^\$ flfed (.*)$", text, flags=re.MULTILINE)]
    return {" ".join(words[:2]): words for words in found}


COORDINATOR, SITE = commands_of("run-a-consortium.md"), commands_of("join-as-a-site.md")
# The page's command asks a person at a terminal.
SITE["site approve"] += ["--yes"]


class Machine:
    """One institution's machine: a home of its own, and what it started."""

    def __init__(self, folder: Path, name: str, sites: Sequence[str]) -> None:
        self.name, self._sites, self._exchange, self._log = name, sites, folder / "exchange", folder / f"{name}.log"
        self.home = folder / name
        self.home.mkdir()
        # Packages of institutions are named, and never looked for in the current folder.
        self._environment = {**os.environ, "FLFED_HOME": str(self.home), "FLFED_PATH": str(self._exchange)}
        self._started: list[subprocess.Popen[bytes]] = []

    def _filled(self, words: list[str]) -> list[str]:
        others = ",".join(site for site in self._sites if site != self.name)
        return [word.replace("SITE", self.name).replace("OTHERS", others) for word in words]

    def run(self, words: list[str], *, code: int = 0) -> str:
        """Return what a command says, called in this process, at this machine: no start to wait for."""
        found, out, err = called(self._filled(words), self._environment, self._exchange)
        assert found == code, (words, out, err)
        return err if code in (1, 2) else out

    def json(self, words: list[str], *, code: int = 0) -> Any:
        return json.loads(self.run([*words, "--json"], code=code))

    def start(self, words: list[str], *, before: str = "", **more: str) -> subprocess.Popen[bytes]:
        """Start a command as a process of its own."""
        command = [sys.executable, "-c", f"{before}from flfed.cli import main; main()", *self._filled(words)]
        environment = {**self._environment, **more}
        with self._log.open("ab") as log:
            self._started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self._exchange))
        return self._started[-1]

    def dialogue(self, words: list[str]) -> Dialogue:
        """Start a command in a terminal, at which a person types."""
        made = Dialogue(*self._filled(words), environment=self._environment, folder=self._exchange)
        self._started.append(made.process)
        return made

    def ended(self) -> bool:
        """Tell whether something that was started has ended."""
        return any(process.poll() is not None for process in self._started)

    def end(self) -> None:
        """End all that was started: what serves is killed, and the kernel kills what it had started."""
        for process in self._started:
            process.kill()
        for process in self._started:
            process.wait(60)

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def ledger_lines(self) -> list[dict[str, object]]:
        path = self.home / "sites" / self.name / "gate" / "ledger.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def study(self, name: str, **changes: object) -> str:
        """Write a file of a shipped study with other values of some keys; return its path."""
        from flfed.study.study import Study

        text, path = Study.load(name).text, self.home / f"{name}.toml"
        for key, value in changes.items():
            text, found = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
            assert found == 1, key
        path.write_text(text, encoding="utf-8")
        return str(path)


def wait_online(machines: Mapping[str, Machine], count: int) -> None:
    """Wait until so many sites are online; fail at once where a process that serves has ended, with what it said."""
    ended = list[Machine]()

    def ready() -> bool:
        ended.extend(machine for machine in machines.values() if machine.ended())
        return bool(ended) or all_online(machines["coordinator"], count)

    until(f"{count} sites", ready, every=0.5, said=lambda: "".join(machine.log() for machine in machines.values()))
    assert not ended, [(machine.name, machine.log()[-2000:]) for machine in ended]


def called(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> tuple[int, str, str]:
    """Call a command in this process, as at a machine: return its exit code, its output and its errors."""
    with at(environment), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["flfed", *words])
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err, pytest.raises(SystemExit) as end:
            main()
    return int(end.value.code or 0), out.getvalue(), err.getvalue()


@contextmanager
def at(environment: Mapping[str, str]) -> Iterator[None]:
    """Let this process be at a machine: its home, and the packages that are named."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FLFED_HOME", "FLFED_PATH"):
            patch.setenv(name, environment[name])
        patch.setattr(packages, "_strict", False)  # what a command of an institution sets ends with it
        yield


@contextmanager
def machines_of(sites: Sequence[str]) -> Iterator[dict[str, Machine]]:
    """Give the coordinator's and the sites' machines; what they started ends with the block."""
    # A short path: the name of a Unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="flfed-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "exchange").mkdir()
        found = {name: Machine(Path(folder), name, sites) for name in ("coordinator", *sites)}
        try:
            yield found
        finally:
            for machine in found.values():
                machine.end()


def begin(machines: dict[str, Machine], test_data: Path) -> subprocess.Popen[bytes]:
    """Have all the data, and a coordinator that serves on a free port, which is returned."""
    for machine in machines.values():
        machine.run(["data", "get", "heart-disease", "--from", str(test_data)])
    coordinator = machines["coordinator"]
    coordinator.run([re.sub(r":\d+$", f":{free_port()}", word) for word in COORDINATOR["coordinator init"]])
    return coordinator.start(COORDINATOR["coordinator serve"])


def take_in(coordinator: Machine, machine: Machine) -> None:
    """Invite, join and admit a site, whose people read its fingerprint out."""
    coordinator.run([word.replace("SITE", machine.name) for word in COORDINATOR["coordinator invite"]])
    read_out = ["--fingerprint", f"{machine.name}={machine.json(SITE['site join'])['node-key']}"]
    coordinator.run([word.replace("SITE", machine.name) for word in COORDINATOR["coordinator admit"]] + read_out)


def all_online(coordinator: Machine, count: int) -> bool:
    """Tell whether there are so many sites, and all are online."""
    found = coordinator.json(COORDINATOR["coordinator status"])["sites"]
    return len(found) == count and all(site["online-since"] for site in found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_listening(host: str, port: int) -> bool:
    """Return whether someone answers at a port."""
    with socket.socket() as asking:
        return asking.connect_ex((host, port)) == 0


def until(
    what: str,
    ready: Callable[[], object],
    seconds: float = 120.0,
    *,
    every: float = 0.2,
    process: subprocess.Popen[Any] | None = None,
    said: Callable[[], str] = lambda: "",
) -> None:
    """Wait until something is there; fail at once where the process that would do it has ended, with what it `said`."""
    end = time.monotonic() + seconds
    while True:
        ended = process is not None and process.poll() is not None
        if ready():
            return
        assert not ended, f"{what} did not come: the process ended ({process.returncode}): {said()[-2000:]}"
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s: {said()[-2000:]}"
        time.sleep(every)
