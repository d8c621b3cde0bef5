"""The notebooks of docs/tutorials: stored with what their cells say, and saying it again when they run."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from docs.make.tutorials import FOLDER, differences

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def test_there_are_five_notebooks_with_the_outputs_of_cells_that_ran_in_order():
    assert NAMES == ["consortium", "first-run", "own-model", "own-tables", "private-study"]
    for name in NAMES:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), name
        outputs = [output for cell in cells for output in cell.outputs]
        assert len(outputs) >= 4 and "error" not in [output.output_type for output in outputs]
        assert "\x1b[" not in str(outputs), name  # no colours, which a page would show as signs


def test_the_ten_lines_that_a_page_shows_are_those_of_the_tutorial():
    page = (ROOT / "docs" / "join-as-a-site.md").read_text(encoding="utf-8")
    shown = page.partition("```text\n")[2].partition("\n```")[0].splitlines()
    notebook = nbformat.read(FOLDER / "consortium.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and '"approve"' in cell.source]
    printed = cell.outputs[0].text.partition("Every detail")[0]
    assert len(shown) == 10 and shown == [line for line in printed.splitlines() if line]


def test_another_output_is_found_and_another_number_is_not():
    stored = nbformat.read(FOLDER / "first-run.ipynb", as_version=4)
    assert differences(stored, copy.deepcopy(stored)) == []
    for old, new, found in (("0.759", "0.748", 0), ("Joining improves", "Joining lowers", 1)):
        made = copy.deepcopy(stored)
        output = made.cells[1].outputs[0].data
        assert old in output["text/plain"]
        output["text/plain"] = output["text/plain"].replace(old, new)
        assert len(differences(stored, made)) == found


def checked(name: str) -> None:
    """Run a notebook, which must say what is stored."""
    done = subprocess.run(
        [sys.executable, "-m", "docs.make.tutorials", "--check", name], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.mark.proof
@pytest.mark.studies
@pytest.mark.parametrize("name", sorted({*NAMES} - {"consortium"}))
def test_a_tutorial_says_again_what_is_stored(name: str):
    checked(name)


@pytest.mark.proof
@pytest.mark.servers
def test_the_consortium_of_the_tutorial_runs_with_real_processes():
    checked("consortium")
