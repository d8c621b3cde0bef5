"""`flfed rehearse` with real processes: its result, and what is left of it however it ends."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flfed.deployment.processes.child_processes import python
from flfed.deployment.rehearsal.consortium import OPERATOR, TITLE
from tests.machines import called, until

pytestmark = [pytest.mark.proof, pytest.mark.servers, pytest.mark.timeout(900)]
COMMAND = (sys.executable, "-c", "from flfed.cli import main; main()")
MOST_SECONDS = 180.0
"""From the command to its end after the run, on two idle cores."""
FEW_ROUNDS = ("--set", "rounds=5")
ROUNDS = r"rounds[:,] \d of 5"
MOMENTS = {
    "the folder is there": r"Rehearsal of",
    "the first approval is written": r"automatic operator approves",
    "processes start": r"Starting 4 commands",
    "the first site is online": r"is online \(1 of 3\)",
    "the first round is over": ROUNDS,
}


@dataclass
class Rehearsing:
    """A command that rehearses, as a terminal starts it, and every process that came of it."""

    words: Sequence[str]
    home: Path
    folder: Path
    seen: dict[int, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        environment = {**os.environ, "FLFED_HOME": str(self.home)}
        bound = python("flfed.deployment.processes.supervisor", str(os.getpid()))  # it ends with the tests
        self.process = subprocess.Popen(
            [*bound, *COMMAND, "rehearse", *self.words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            stdin=subprocess.DEVNULL, cwd=self.folder, env=environment, start_new_session=True,
        )  # fmt: skip
        self.lines, self.out = list[str](), list[str]()
        pairs = ((self.process.stderr, self.lines), (self.process.stdout, self.out))
        self._readers = [threading.Thread(target=lines.extend, args=(stream,), daemon=True) for stream, lines in pairs]
        for reader in self._readers:
            reader.start()

    @property
    def said(self) -> str:
        return "".join(self.lines)

    @property
    def place(self) -> Path:
        """The rehearsal's folder."""
        found = re.search(r", in (\S+)\.$", self.said, re.MULTILINE)
        assert found, self.said
        return Path(found[1])

    def wait_for(self, pattern: str) -> None:
        """Wait for a line, and note every process meanwhile."""

        def there() -> bool:
            self.seen |= descendants(self.process.pid)
            return re.search(pattern, self.said) is not None

        until(pattern, there, 300.0, every=0.1, process=self.process, said=lambda: self.said)

    def wait(self) -> int:
        """Wait for the end, and note every process meanwhile."""
        end = time.monotonic() + 400.0
        while self.process.poll() is None:
            self.seen |= descendants(self.process.pid)
            assert time.monotonic() < end, self.said
            time.sleep(0.1)
        for reader, stream in zip(self._readers, (self.process.stderr, self.process.stdout), strict=True):
            reader.join(10.0)
            stream.close()
        self.seconds = time.monotonic() - self.began
        return self.process.returncode

    def left(self) -> dict[int, str]:
        """Return the processes of the rehearsal that are alive: by descent, and by what their arguments name."""
        alive = {pid: name for pid, name in self.seen.items() if started(pid) == name}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                facts = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
                if str(self.place).encode() in facts:
                    alive[int(path.name)] = facts.decode(errors="replace")[:300]
        return alive


def started(pid: int) -> str:
    """Return the start of a process in ticks and its name, "" for one that has ended: a pid may be used again."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return ""
    words = rest.split()
    return "" if words[0] == "Z" else f"{words[19]} {name.partition('(')[2]}"


def descendants(root: int) -> dict[int, str]:
    """Return the processes below one, with `started` of each."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = {root}
    for _ in range(8):  # levels: command, what serves, its node, the node's programs
        found |= {pid for pid, parent in parents.items() if parent in found}
    return {pid: started(pid) for pid in found - {root} if started(pid)}


def digest(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def compared(home: Path, run: str, words: Sequence[str], folder: Path) -> float:
    """Return the largest difference of the arrays of a rehearsal from those of the run in one process."""
    environment = {**os.environ, "FLFED_HOME": str(home), "FLFED_PATH": str(folder)}

    def said(*more: str) -> Any:
        code, out, err = called([*more, "--json"], environment, folder)
        assert code == 0, err
        return json.loads(out)

    here = said("study", "run", *words)
    return float(said("run", "compare", run, here["run"])["arrays-max-difference"])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in which `flfed data new` wrote dataset, sites and study from one CSV file."""
    with tempfile.TemporaryDirectory(prefix="csv-") as made:
        rng, path = np.random.default_rng(3), Path(made)
        lines = ["site,age,pressure,smoker,died"]
        for number in range(600):
            age, pressure, smoker = rng.normal(60, 10), rng.normal(130, 15), rng.random() < 0.3
            died = rng.random() < 1 / (1 + np.exp(-((age - 60) / 10 + (pressure - 130) / 30 + smoker - 1)))
            cells = (f"{age:.1f}", f"{pressure:.0f}", "yes" if smoker else "no", "yes" if died else "no")
            lines.append(",".join([("north", "south", "east")[number % 3], *cells]))
        (path / "rows.csv").write_text("\n".join(lines) + "\n")
        words = [*COMMAND, "data", "new", "rows.csv", "--target", "died", "--by", "site"]
        done = subprocess.run(words, cwd=path, capture_output=True, text=True, check=True, timeout=120)
        assert "flfed rehearse rows-first.toml" in done.stdout  # the second of two commands
        yield path


@pytest.fixture(scope="module")
def kept(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rehearsing, dict[str, Any]]]:
    """A rehearsal of that study to its end, and its result; its folder stays for the module."""
    home = tmp_path_factory.mktemp("home")
    rehearsing = Rehearsing(["rows-first.toml", "--keep", "--json"], home, folder)  # without a terminal it ends
    try:
        assert rehearsing.wait() == 0, rehearsing.said
        yield rehearsing, json.loads("".join(rehearsing.out))
    finally:
        subprocess.run(["rm", "-r", str(rehearsing.place)], check=True)


@pytest.mark.alone
def test_a_rehearsal_of_a_csv_gives_the_arrays_of_one_process_within_three_minutes(kept, folder: Path):
    rehearsing, result = kept
    place = rehearsing.place
    assert (result["status"], result["engine"]) == ("completed", "deployment")
    assert compared(place / "coordinator", result["run"], ["rows-first.toml"], folder) <= 1e-6
    assert result["rehearsal"]["sites"]["north"] == str(place / "2")
    assert rehearsing.left() == {} and (place.stat().st_mode & 0o777) == 0o700
    assert rehearsing.seconds <= MOST_SECONDS


def test_the_record_and_every_approval_say_that_it_was_a_rehearsal(kept, folder: Path):
    rehearsing, result = kept
    place = rehearsing.place
    assert f"To look again: FLFED_HOME={place}/coordinator flfed app" in rehearsing.said
    environment = {**os.environ, "FLFED_HOME": str(place / "coordinator"), "FLFED_PATH": str(folder)}
    shown = called(["run", "show", result["run"]], environment, folder)[1]
    assert "Rehearsal: all sites were processes of one machine" in shown
    for number, site in enumerate(("east", "north", "south"), start=1):
        gate = place / str(number) / "sites" / site / "gate"
        (file,) = (gate / "approvals").glob("*.json")
        decided = json.loads(file.read_text())
        assert (decided["by"], decided["coordinator"]) == (OPERATOR, TITLE)
        # Of three sites the updates are sent for sums, by the fingerprints of the rehearsal's own gates.
        assert decided["sums"] and sorted(decided["pins"]) == ["east", "north", "south"]
        assert "asks" in (place / str(number) / "approval.txt").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_leaves_no_process_and_no_folder(kept, folder: Path, moment: str, number: int):
    home = kept[0].place / "2"  # of a site that has a ledger and an approval
    before = digest(home)
    rehearsing = Rehearsing(["rows-first.toml", *FEW_ROUNDS], home, folder)
    rehearsing.wait_for(MOMENTS[moment])
    if number == signal.SIGINT:
        os.killpg(rehearsing.process.pid, number)  # as a terminal does
    else:
        rehearsing.process.send_signal(number)
    assert (rehearsing.wait(), rehearsing.place.exists()) == (3, False), rehearsing.said
    # A process that was only just begun ends by itself, when it sees that its parent has.
    until("no process", lambda: rehearsing.left() == {}, 60.0, said=lambda: str(rehearsing.left()))
    assert "in the middle of the rehearsal" in rehearsing.lines[-1] and "Traceback" not in rehearsing.said
    assert digest(home) == before


def test_ctrl_c_beside_both_apps_is_the_end_that_was_meant_and_a_real_ledger_is_as_before(kept, folder: Path):
    home = kept[0].place / "2"
    before = digest(home)
    assert any(name.endswith("ledger.jsonl") for name in before)
    rehearsing = Rehearsing(["rows-first.toml", "--apps", *FEW_ROUNDS], home, folder)
    rehearsing.wait_for("Ctrl-C ends")
    addresses = re.findall(r"http://\S+", rehearsing.said)
    for address in addresses:
        done = subprocess.run(["curl", "-sfL", address], capture_output=True, check=False, timeout=30)
        assert done.returncode == 0, done
    os.killpg(rehearsing.process.pid, signal.SIGINT)
    assert (rehearsing.wait(), rehearsing.left(), rehearsing.place.exists()) == (0, {}, False), rehearsing.said
    assert len(addresses) == 2 and len(rehearsing.seen) >= 12  # both apps; server, Caddy, nodes and gates
    # The run is removed at the end: all is printed, and no command names it.
    out = "".join(rehearsing.out)
    assert "Not covered, since" in out and "flfed run show" not in out
    assert digest(home) == before


def test_a_rehearsal_that_is_killed_leaves_no_process_and_the_next_one_removes_its_folder(kept, folder: Path):
    home = kept[0].place / "2"
    before = digest(home)
    rehearsing = Rehearsing(["rows-first.toml", *FEW_ROUNDS], home, folder)
    rehearsing.wait_for(ROUNDS)
    assert len(rehearsing.left()) >= 10
    rehearsing.process.kill()
    rehearsing.wait()
    until("the end of all", lambda: not rehearsing.left(), 10.0, said=lambda: str(rehearsing.left()))
    assert rehearsing.place.exists()
    following = Rehearsing(["rows-first.toml", *FEW_ROUNDS], home, folder)
    following.wait_for("Rehearsal of")
    following.process.send_signal(signal.SIGHUP)  # its terminal is closed
    assert following.wait() == 3
    assert f"{rehearsing.place} was left by a rehearsal that was killed" in following.said
    assert not rehearsing.place.exists() and kept[0].place.exists() and digest(home) == before


@pytest.mark.alone
def test_a_rehearsal_of_the_lenders_gives_the_arrays_of_one_process_within_three_minutes(home: Path, tmp_path: Path):
    rehearsing = Rehearsing(["loan-default", "--no-apps", "--keep", "--json"], home, tmp_path)
    try:
        assert rehearsing.wait() == 0, rehearsing.said
        result = json.loads("".join(rehearsing.out))
        assert rehearsing.seconds <= MOST_SECONDS
        assert compared(rehearsing.place / "coordinator", result["run"], ["loan-default"], tmp_path) <= 1e-6
        assert rehearsing.left() == {} and digest(home) == {}
    finally:
        subprocess.run(["rm", "-r", str(rehearsing.place)], check=True)
