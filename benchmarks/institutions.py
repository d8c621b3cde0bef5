"""Three institutions on loopback, as real processes, by flfed's own commands: coordinator, Caddy, nodes and gates.

Every process is bound to the life of this one, and ended with its block.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import cpu_seconds
from flfed.study.study import Study

SITES = ("cleveland", "hungary", "long-beach")
FLFED = (sys.executable, "-c", "from flfed.cli import main; main()")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "PYTHONUNBUFFERED": "1"}
THREADS = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
COMMAND_SECONDS, READY_SECONDS, RUN_SECONDS, END_SECONDS = 120.0, 120.0, 240.0, 20.0
LOOK_SECONDS = 0.2


class Missing(RuntimeError):
    """A process that ended too early, or did not do in time what it is measured at."""


@dataclass
class Processes:
    """Processes of one side; the kernel kills each if this process dies."""

    folder: Path
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, words: Sequence[str], environment: Mapping[str, str]) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            words, capture_output=True, text=True, env={**os.environ, **QUIET, **THREADS, **environment},
            cwd=self.folder, timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Missing(f"{' '.join(words[-4:])}: {(done.stderr or done.stdout)[-300:]}")
        return done.stdout

    def start(self, name: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a process and leave it running."""
        bound = (sys.executable, "-m", "flfed.deployment.processes.supervisor", str(os.getpid()), *words)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.started[name] = subprocess.Popen(
                bound, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={**os.environ, **QUIET, **THREADS, **environment},
            )  # fmt: skip

    def check(self) -> None:
        """Refuse to go on where one of them failed."""
        for name, process in self.started.items():
            if process.poll():
                raise Missing(f"{name} has ended: {(self.folder / f'{name}.log').read_text()[-300:]}")

    def cpu(self) -> float:
        """Return the CPU seconds of all of them and of what they started, so far."""
        return sum(cpu_seconds(process.pid) for process in self.started.values())

    def end(self) -> None:
        """End them, the first one, which is the server, last: nodes say that they leave."""
        first, *others = self.started.values() or [None]
        for process in others:
            process.send_signal(signal.SIGTERM)
        for process in others:
            _ended(process)
        if first is not None:
            first.send_signal(signal.SIGTERM)
            _ended(first)


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process to end, and kill it, and what it left in its session, where it does not."""
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Ran:
    """Time and result of one run.

    Attributes
    ----------
    seconds : list of float
        From the end of one round to the end of the next: the first is not among them.
    cpu : float
        CPU seconds a round, of all processes.
    losses : list of float
        By round.
    arrays : dict of name to list
        The final model.
    """

    seconds: list[float]
    cpu: float
    losses: list[float]
    arrays: dict[str, list[float]]


@contextmanager
def ours(folder: Path, data: Path, text: str) -> Iterator[Callable[[], Ran]]:
    """Start flfed's coordinator and sites by their own commands; give what runs a study there.

    Parameters
    ----------
    folder, data : Path
        Folder of new files, and that of heart-disease's files.
    text : str
        The study.
    """
    side, homes = Processes(folder), {name: folder / name for name in ("coordinator", *SITES)}
    try:
        for home in homes.values():
            home.mkdir()
            side.run([*FLFED, "data", "get", "heart-disease", "--from", str(data)], {"FLFED_HOME": str(home)})
        study = folder / "ours.toml"
        study.write_text(text, encoding="utf-8")

        def at(name: str, *words: str) -> str:
            return side.run([*FLFED, *words], {"FLFED_HOME": str(homes[name])})

        at("coordinator", "coordinator", "init", "--title", "Bench", "--address", f"localhost:{free_port()}")
        side.start("coordinator", [*FLFED, "coordinator", "serve"], {"FLFED_HOME": str(homes["coordinator"])})
        for site in SITES:
            at("coordinator", "coordinator", "invite", site)
            key = json.loads(at(site, "site", "join", f"{site}.kit.zip", "--json"))["node-key"]
            at("coordinator", "coordinator", "admit", f"{site}.admission", "--fingerprint", f"{site}={key}")
        for site in SITES:
            others = ",".join(other for other in SITES if other != site)
            at(site, "site", "approve", str(study), "--site", site, "--with", others, "--yes")
            side.start(site, [*FLFED, "site", "serve", site], {"FLFED_HOME": str(homes[site])})
        until("sites of flfed online", lambda: _online(at("coordinator", "coordinator", "status", "--json")), side)

        def run() -> Ran:
            """Run the study from a process of its own, as `flfed coordinator run` does."""
            out = free_name(folder, "ours")
            words = [sys.executable, "-m", "benchmarks.conduct", str(study), str(out), *SITES]
            root = str(Path(__file__).resolve().parents[1])
            side.start("run", words, {"FLFED_HOME": str(homes["coordinator"]), "PYTHONPATH": root})
            try:
                return followed(out, Study.parse(text).rounds, side)
            finally:
                side.started.pop("run").wait(END_SECONDS)

        yield run
    finally:
        side.end()


def study_text(rounds: int) -> str:
    """Return the shipped study with so many rounds."""
    return re.sub(r"(?m)^rounds = \d+$", f"rounds = {rounds}", Study.load("heart-disease").text)


def _online(status: str) -> bool:
    sites = json.loads(status)["sites"]
    return len(sites) == len(SITES) and all(site["online-since"] for site in sites)


def followed(out: Path, rounds: int, side: Processes) -> Ran:
    """Wait for a run's rounds and result, with a look at the CPU seconds when the first and the last are over.

    Parameters
    ----------
    out : Path
        Where the result will be; the rounds stand beside it, a time on a line, once each is over.
    rounds : int
    side : Processes
    """
    end, cpu = time.monotonic() + RUN_SECONDS, dict[int, float]()
    while not out.exists():
        count = len(_marks(out))
        if count:
            cpu.setdefault(count, side.cpu())
        side.check()
        if time.monotonic() > end:
            raise Missing(f"{out.stem}: {count} of {rounds} rounds within {RUN_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
    marks, found = _marks(out), json.loads(out.read_text())
    if len(marks) != rounds:
        raise Missing(f"{out.stem}: {len(marks)} of {rounds} rounds")
    cpu.setdefault(rounds, side.cpu())
    first = min(cpu)
    seconds = [after - before for before, after in zip(marks, marks[1:], strict=False)]
    return Ran(seconds, (cpu[rounds] - cpu[first]) / max(1, rounds - first), found["losses"], found["arrays"])


def _marks(out: Path) -> list[float]:
    try:
        return [float(line) for line in out.with_suffix(".marks").read_text().splitlines()]
    except FileNotFoundError:
        return []


def until(what: str, ready: Callable[[], bool], side: Processes) -> None:
    """Wait for something, for as long as the processes of a side live."""
    end = time.monotonic() + READY_SECONDS
    while not ready():
        side.check()
        if time.monotonic() > end:
            raise Missing(f"{what}: not there within {READY_SECONDS:.0f} s")
        time.sleep(0.5)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    """Return whether a process listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_name(folder: Path, stem: str) -> Path:
    """Return a file of a folder that is not there yet."""
    return folder / f"{stem}-{sum(1 for _ in folder.glob(f'{stem}-*.json'))}.json"
