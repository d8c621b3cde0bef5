"""The README runs: every command line and every Python block of it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (flfed .*)$", TEXT, flags=re.MULTILINE)
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_the_readme_has_commands_and_blocks_to_run():
    assert len(COMMANDS) >= 8
    assert len(BLOCKS) >= 2


@pytest.mark.slow
def test_every_command_of_the_readme_runs():
    program = "import sys; from flfed.cli import main; sys.argv[0] = 'flfed'; main()"
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.strip(), command


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(BLOCKS)))
def test_every_python_block_of_the_readme_runs(place):
    done = subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", BLOCKS[place]],
                          capture_output=True, text=True, cwd=ROOT)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", TEXT):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
