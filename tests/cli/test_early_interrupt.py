"""Ctrl-C before a run began: the end, in one line and without a traceback."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from flfed.records.store.reader import RunReader

STARTED = """
import os, signal, sys
class Pressing:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Pressing())
from flfed.cli import main
main()
"""


AT_THE_ENCODER = """
import os, signal, sys, threading
def press(frame, event, _):
    if event == "call" and frame.f_code.co_name == "fit_encoder":
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGINT)
sys.setprofile(press)
# Repeats side by side have a thread each.
threading.setprofile(press)
from flfed.cli import main
main()
"""
"""Ctrl-C after the sites have enrolled, and before the first round."""
BEFORE = "flfed: interrupted from the keyboard before a run began\n"
COMMANDS = (("study", "run", "wine"), ("study", "resume", "latest"), ("demo",), ("coordinator", "run", "wine"))


def pressed(module: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that gets a Ctrl-C where a module is imported."""
    command = [sys.executable, "-c", STARTED.format(module=module), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.servers
@pytest.mark.parametrize("module", ["click", "typer", "flfed.cli.study", "pandas", "sqlalchemy", "torch", "flwr"])
def test_ctrl_c_while_a_module_is_imported_ends_a_command_in_one_line(module: str, home):
    done = pressed(module, ("study", "run", "wine"))
    assert (done.returncode, done.stderr) in [(3, BEFORE), (3, "flfed: interrupted from the keyboard\n")]


def first_line(words: tuple[str, ...]) -> str:
    """Return what a command prints before it loads anything."""
    return "Running study loan-default, 3 repeats …\n" if words == ("demo",) else ""


@pytest.mark.servers
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_ctrl_c_before_the_first_round_is_one_line_of_every_command_that_runs_a_study(words: tuple[str, ...], home):
    done = pressed("torch", words)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", first_line(words) + BEFORE)


@pytest.mark.servers
@pytest.mark.parametrize(
    "words", [("study", "run", "breast-cancer"), pytest.param(("demo",), marks=pytest.mark.proof)], ids=" ".join
)
def test_ctrl_c_while_sites_are_asked_before_the_first_round_says_how_to_go_on(words: tuple[str, ...], home):
    command = [sys.executable, "-c", AT_THE_ENCODER, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    with RunReader.open() as reader:
        (run,) = reader.runs()
    said = f"flfed: interrupted from the keyboard; all results so far are stored: flfed study resume {run.series}\n"
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(first_line(words)) and done.stderr.endswith(said)
    assert (run.status, run.reason, run.rounds) == ("stopped", "interrupted from the keyboard", 0)


@pytest.mark.servers
@pytest.mark.parametrize("module", ["click", "streamlit.web.cli", "uvicorn", "pandas"])
def test_ctrl_c_while_the_app_starts_ends_it_without_a_traceback(module: str, home):
    code = STARTED.format(module=module).replace("flfed.cli", "flfed.records.dashboard.streamlit_command")
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", "app.py", "--server.port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert process.returncode in (0, 130)
    assert "Traceback" not in out + err and "Aborted" not in out + err
