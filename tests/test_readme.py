"""The README and docs/predict.md run: every command line, in order, and every Python block."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def commands_of(page: str) -> list[list[str]]:
    """Return the words of each command of a page, without the first, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall(r"^\$ flfed (.*)$", text, flags=re.MULTILINE)]


def test_the_pages_have_commands_and_blocks_to_run():
    assert len(commands_of("README.md")) >= 8
    assert len(commands_of("docs/predict.md")) >= 4
    assert len(BLOCKS) >= 2


@pytest.mark.slow
@pytest.mark.servers
def test_every_command_of_the_readme_runs(flfed):
    for words in commands_of("README.md"):
        code, out, err = flfed(*words)
        assert (code, bool(out.strip())) == (0, True), (words, err)


@pytest.mark.slow
@pytest.mark.servers
def test_every_command_of_the_page_on_predicting_runs_in_an_empty_folder(flfed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in commands_of("docs/predict.md"):
        code, out, err = flfed(*words)
        assert (code, bool(out.strip())) == (0, True), (words, err)
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 209  # 208 patients and a header


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("place", range(len(BLOCKS)))
def test_every_python_block_of_the_readme_runs(place):
    done = subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", BLOCKS[place]],
                          capture_output=True, text=True, cwd=ROOT)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", TEXT):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
