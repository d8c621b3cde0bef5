"""Ctrl-C while a command is still being loaded: the end, without a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("module", ["click", "typer", "flfed.cli.study", "pandas", "sqlalchemy", "torch", "flwr"])
def test_ctrl_c_while_a_module_is_imported_ends_a_command_without_a_word(module: str, home):
    words = [sys.executable, "-c", STARTED.format(module=module), "study", "run", "wine"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.slow
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
