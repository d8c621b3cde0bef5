"""SIGTERM stops a run as Ctrl-C does: with a sentence, exit code 3, and a record that says so."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from flfed.records.store.reader import RunReader

COMMAND = [sys.executable, "-c", "from flfed.cli import main; main()"]
LONG = ("--set", "rounds=1000000", "--set", "draws=200")


def stopped(words: Sequence[str], *, after: int, by: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
    """Run a command, end it once its newest run has so many rounds; return exit code, both outputs."""
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with RunReader.open() as reader:
            newest = reader.runs()
        if newest and newest[0].status == "running" and min(run.rounds for run in newest) > after:
            break
        time.sleep(0.1)
    process.send_signal(by)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.studies
@pytest.mark.parametrize("repeats", [1, 2])
def test_sigterm_is_recorded_and_the_run_can_be_gone_on_with_and_stopped_again(home, repeats: int):
    code, _, err = stopped(["study", "run", "breast-cancer", *LONG, "--repeats", str(repeats)], after=0)
    assert code == 3 and "stopped by SIGTERM; what was done so far is kept: flfed study resume " in err
    with RunReader.open() as reader:
        first = reader.runs()
    assert [(run.status, run.reason) for run in first] == [("stopped", "stopped by SIGTERM")] * repeats
    rounds = max(run.rounds for run in first)
    code, _, err = stopped(["study", "resume", "latest"], after=rounds)
    assert code == 3 and "stopped by SIGTERM" in err and err.count("\n") == 1
    with RunReader.open() as reader:
        assert all(run.status == "stopped" and run.rounds > rounds for run in reader.runs())


@pytest.mark.slow
@pytest.mark.studies
def test_ctrl_c_says_that_it_was_the_keyboard(home):
    code, _, err = stopped(["study", "run", "breast-cancer", *LONG], after=0, by=signal.SIGINT)
    assert code == 3 and "interrupted from the keyboard; what was done so far is kept" in err


def test_sigterm_before_a_run_began_is_said_too(home):
    # Sent while torch is loaded: the first thing that a run needs.
    pressing = """
import os, signal, sys
class Ending:
    def find_spec(self, name, *rest):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Ending())
from flfed.cli import main
main()
"""
    words = [sys.executable, "-c", pressing, "study", "run", "wine"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (3, "flfed: stopped by SIGTERM before a run began\n")
    with RunReader.open() as reader:
        assert reader.runs() == []
