"""The commands of docs/predict.md run as they stand, in order, in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = re.findall(
    r"^\$ (flfed .*)$", (ROOT / "docs" / "predict.md").read_text(encoding="utf-8"), flags=re.MULTILINE
)


@pytest.mark.slow
def test_every_command_of_the_page_on_predicting_runs(tmp_path):
    program = "import sys; from flfed.cli import main; sys.argv[0] = 'flfed'; main()"
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.strip(), command
    assert len(COMMANDS) >= 4
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 209  # 208 patients and a header
