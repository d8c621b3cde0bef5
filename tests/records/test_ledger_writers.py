"""Writers of a ledger: several at once, killed ones, a full disk, and a very long ledger."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flfed.records.ledger import Ledger
from flfed.records.ledger_line import START, new_line

FACTS = {"study": "heart-disease", "run": "r1", "round": 3, "bytes": 1024, "sha256": "ab" * 32}


def number(ledger: Ledger) -> int:
    """Return the number of the last line."""
    last = ledger.last()
    return 0 if last is None else last.n


def filled(path: Path, lines: int) -> Ledger:
    ledger = Ledger(path)
    for number in range(1, lines + 1):
        ledger.append(kind="train", **{**FACTS, "round": number})
    return ledger


FULL = """
import resource, signal, sys
from pathlib import Path
from flfed.records.ledger import Ledger, LedgerError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]))
size = ledger.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
try:
    ledger.append(kind="train", run="r1", sha256="ab" * 32)
except LedgerError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(ledger.path.stat().st_size - size, ledger.append(kind="train").n)
"""


def test_a_full_disk_leaves_no_half_line(tmp_path: Path):
    # A limit on the file's size: 100 bytes of the line are written, then no more, as on a full disk.
    ledger = filled(tmp_path / "ledger.jsonl", 3)
    done = subprocess.run([sys.executable, "-c", FULL, ledger.path], capture_output=True, text=True, check=True)
    sentence, rest = done.stdout.splitlines()
    assert sentence == "ledger.jsonl: cannot be written (File too large), so nothing may leave"
    assert (rest, ledger.problems()) == ("0 4", [])


WRITE = """
import sys
from pathlib import Path
from flfed.records.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    print(ledger.append(kind="train", by=sys.argv[2], number=number).n, flush=True)
"""


Start = Callable[[Path, str, int], "subprocess.Popen[str]"]


@pytest.fixture
def writer() -> Iterator[Start]:
    """A function that starts a process which waits for a word, then appends; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path, name: str, lines: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITE, str(path), name, str(lines)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.servers
def test_processes_that_append_at_once_all_succeed_in_order(tmp_path: Path, writer: Start):
    ledger = Ledger(tmp_path / "ledger.jsonl")  # not there yet: they race for making it, too
    processes = [writer(ledger.path, name, 60) for name in "abc"]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [list(map(int, process.communicate(timeout=60)[0].split())) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(n for numbers in told for n in numbers) == list(range(1, 181))
    assert all(numbers == sorted(numbers) for numbers in told)
    lines = list(ledger.lines())
    for name in "abc":
        assert [line.facts["number"] for line in lines if line.facts["by"] == name] == list(range(60))
    assert len({line.facts["by"] for line in lines[:120]}) >= 2
    assert ledger.problems() == []


@pytest.mark.servers
def test_a_killed_writer_loses_no_line_that_it_told_of_and_leaves_no_lock(tmp_path: Path, writer: Start):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for _ in range(3):
        before = number(ledger)
        process = writer(ledger.path, "a", 100_000)
        process.stdin.write("\n")
        process.stdin.flush()
        while number(ledger) < before + 20:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        told = process.communicate(timeout=60)[0].splitlines()
        assert len(told) >= 1
        assert number(ledger) >= int(told[-1])
        assert ledger.problems() == []
        assert ledger.append(kind="train").n == number(ledger)


def test_the_lock_makes_a_second_writer_wait(tmp_path: Path, writer: Start):
    ledger = filled(tmp_path / "ledger.jsonl", 1)
    process = writer(ledger.path, "b", 1)
    with ledger.lock() as held:
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(0.3)
        assert process.poll() is None
        assert held.append(kind="train").n == 2
    assert process.communicate(timeout=60)[0] == "3\n"


def many(path: Path, lines: int) -> Ledger:
    """Write a ledger fast: the lines as `append` makes them, without a sync each."""
    before, texts = START, []
    for n in range(1, lines + 1):
        line = new_line(n, before, "2026-11-20T15:30:12.005Z", "train", {**FACTS, "rows-sha256": "cd" * 32})
        before = line.hash
        texts.append(line.raw + b"\n")
    path.write_bytes(b"".join(texts))
    path.chmod(0o600)
    return Ledger(path, clock=lambda: datetime(2026, 11, 21, tzinfo=UTC))


@pytest.mark.servers
@pytest.mark.proof
def test_a_hundred_thousand_lines_are_appended_to_without_reading_them(tmp_path: Path):
    short, long = filled(tmp_path / "short.jsonl", 1), many(tmp_path / "long.jsonl", 100_000)

    def read_by(ledger: Ledger) -> int:
        before = int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])
        ledger.append(kind="train")
        with ledger.reading() as opened:
            opened.hash_at(number(ledger) - 1)
        return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0]) - before

    assert long.path.stat().st_size > 30_000_000
    assert read_by(short) < 100_000
    assert read_by(long) < 200_000
    began = time.process_time()
    for _ in range(100):
        long.append(kind="train")
    assert time.process_time() - began < 1.0  # 0.02 s where nothing else runs
    began = time.process_time()
    assert (long.problems(), long.last().n) == ([], 100_101)
    assert time.process_time() - began < 30.0  # 2 s where nothing else runs
