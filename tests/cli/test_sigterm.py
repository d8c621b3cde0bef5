"""SIGTERM stops a run as Ctrl-C does: with a sentence, exit code 3, and a record that says so."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import pytest

from flfed.federation.server.run import run
from flfed.records.store.reader import RunReader
from flfed.study.study import Study
from tests.machines import until

SLOW_ATTACK = '''
"""An attack that takes a minute."""
import time

class Slow:
    """Waits."""
    metrics = ("share-right",)
    def findings(self, attacked):
        time.sleep(60)
        yield []
        return ()
'''
ENDING = """
import os, signal, sys
class Ending:
    def find_spec(self, name, *rest):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Ending())
from flfed.cli import main
main()
"""
"""SIGTERM while torch is loaded: the first thing that a run needs."""
STOPS = {signal.SIGTERM: "stopped by SIGTERM", signal.SIGINT: "interrupted from the keyboard"}
BOTH = [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.proof)]
COMMAND = [sys.executable, "-c", "from flfed.cli import main; main()"]
LONG = ("--set", "rounds=1000000", "--set", "resamples=200")


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
@pytest.mark.studies
@pytest.mark.parametrize("repeats", [1, 2])
def test_sigterm_is_recorded_and_the_run_can_be_gone_on_with_and_stopped_again(home, repeats: int):
    code, _, err = stopped(["study", "run", "breast-cancer", *LONG, "--repeats", str(repeats)], after=0)
    assert code == 3 and "stopped by SIGTERM; all results so far are stored: flfed study resume " in err
    with RunReader.open() as reader:
        first = reader.runs()
    assert [(run.status, run.reason) for run in first] == [("stopped", "stopped by SIGTERM")] * repeats
    rounds = max(run.rounds for run in first)
    code, _, err = stopped(["study", "resume", "latest"], after=rounds)
    assert code == 3 and "stopped by SIGTERM" in err and err.count("\n") == 1
    with RunReader.open() as reader:
        assert all(run.status == "stopped" and run.rounds > rounds for run in reader.runs())


@pytest.mark.studies
def test_ctrl_c_says_that_it_was_the_keyboard(home):
    code, _, err = stopped(["study", "run", "breast-cancer", *LONG], after=0, by=signal.SIGINT)
    assert code == 3 and "interrupted from the keyboard; all results so far are stored" in err


def test_sigterm_before_a_run_began_is_said_too(home):
    words = [sys.executable, "-c", ENDING, "study", "run", "wine"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    # Where loading takes a second, it is named first.
    *loading, said = done.stderr.splitlines()
    assert (done.returncode, said) == (3, "flfed: stopped by SIGTERM before a run began")
    assert all(line.startswith("loading ") for line in loading)
    with RunReader.open() as reader:
        assert reader.runs() == []


def stopped_when(words: Sequence[str], ready: Callable[[], bool], by: signal.Signals) -> tuple[int, str, str]:
    """Run a command and stop it once something is there; return exit code and outputs. It ends within seconds."""
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until("what is waited for", ready, every=0.05, process=process)
    process.send_signal(by)
    began = time.monotonic()
    try:
        out, err = process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        # Python may lose a signal that comes within a callback of C; a person presses again.
        process.send_signal(by)
        out, err = process.communicate(timeout=120)
    assert time.monotonic() - began < 15 and "Traceback" not in err
    return process.returncode, out, err


@pytest.mark.proof
@pytest.mark.parametrize("by", BOTH)
def test_a_sweep_that_is_stopped_shows_the_points_that_were_tried(home, by: signal.Signals):
    def second_point_runs() -> bool:
        with RunReader.open() as reader:
            return len(reader.runs()) == 2 and reader.runs()[0].rounds > 3

    words = ("study", "sweep", "wine", "--set", "plan.validation=0.2", "--set", "rounds=500")
    code, out, err = stopped_when(
        [*words, "--grid", "plan.lr=0.1,0.2,0.3", "--jobs", "1", "--json"], second_point_runs, by
    )
    found = json.loads(out)
    assert code == 3 and [point["set"] for point in found["points"]] == [{"plan.lr": 0.1}]
    assert found["best"]["rounds"] == 500
    assert err.startswith(f"flfed: {STOPS[by]}; 1 of 3 points are done, and in the run store; to go on, ")
    with RunReader.open() as reader:
        assert [(run.status, run.reason) for run in reader.runs()] == [("stopped", STOPS[by]), ("completed", "")]
    assert not list(home.glob("runs/*"))


@pytest.mark.studies
@pytest.mark.parametrize("by", BOTH)
def test_a_verification_that_is_stopped_verifies_nothing_and_its_run_can_be_resumed(home, by: signal.Signals):
    code, out, err = stopped(["study", "verify", "wine", "--set", "rounds=1000000"], after=0, by=by)
    with RunReader.open() as reader:
        runs = reader.runs()
    assert (code, out) == (3, "") and {(run.status, run.reason) for run in runs} == {("stopped", STOPS[by])}
    assert err == (
        f"flfed: {STOPS[by]}; all results so far are stored: flfed study resume {runs[0].series} "
        "(nothing is verified: flfed study verify begins again)\n"
    )


@pytest.mark.studies
@pytest.mark.parametrize("by", BOTH)
def test_an_audit_that_is_stopped_keeps_whole_attacks_and_says_how_to_make_the_others(home, tmp_path, monkeypatch, by):
    (tmp_path / "flfed_slow.py").write_text(SLOW_ATTACK)
    about = tmp_path / "flfed_slow-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: flfed-slow\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[flfed.attack]\nslow = flfed_slow:Slow\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ended = run(Study.load("preterm-birth").replace({"rounds": 2})).run

    def first_attack_is_there() -> bool:
        with RunReader.open() as reader:
            return bool(reader.audits(ended))

    attacks = ("--attack", "membership-inference", "--attack", "slow")
    code, out, err = stopped_when(["audit", ended, *attacks], first_attack_is_there, by)
    assert (code, out) == (3, "")
    assert err.splitlines()[-1] == (
        f"flfed: {STOPS[by]}; 1 of 2 attacks are in the record of the run; to go on: flfed audit {ended} --attack slow"
    )
    with RunReader.open() as reader:
        assert {row.attack for row in reader.audits(ended)} == {"membership-inference"}
        assert reader.runs()[0].status == "completed"


@pytest.mark.studies
@pytest.mark.parametrize("words", [("study", "sweep", "wine"), ("study", "verify", "wine"), ("audit", "latest")])
def test_a_stop_before_anything_was_done_is_one_sentence(home, words: tuple[str, ...]):
    done = subprocess.run([sys.executable, "-c", ENDING, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3 and done.stderr.startswith("flfed: stopped by SIGTERM before ")
    assert done.stderr.count("\n") == 1
