"""Run the notebooks of docs/tutorials anew, with their outputs: `make tutorials`. With `--check` nothing is written.

Each notebook runs in a process and a home of its own. `python -m docs.make.tutorials [--check] [NAME...]` ends with 1
where a cell fails, or prints something else than the stored output.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
BEGIN = (
    "import altair; altair.renderers.enable('png', scale_factor=1)",
    "import os; [os.environ.pop(name, None) for name in ('FORCE_COLOR', 'CLICOLOR_FORCE', 'CLICOLOR')]",
)
"""Charts as pictures, and commands without colours: pages without scripts show both, and so does GitHub."""
RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4,}")
"""A run's id."""
ANY = (
    RUN,
    re.compile(r"\b[a-z0-9]{4}(?:-[a-z0-9]{1,4}){7,}\b"),
    re.compile(r"SHA256:\S+|\b[0-9a-f]{12,}\b"),
    re.compile(r"/tmp/\S+"),
    re.compile(r"\d+(?:[.,:]\d+)*"),
)
"""Parts of outputs that differ between executions: ids, hashes, folders, and numbers, since floats may."""


def notebooks(names: list[str]) -> list[Path]:
    """Return the notebooks of these names, all of them without names."""
    return [FOLDER / f"{name}.ipynb" for name in names] if names else sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path) -> Any:
    """Return a notebook with new outputs.

    Raises
    ------
    CellExecutionError
        If a cell fails.
    """
    found = nbformat.read(path, as_version=4)
    arguments = [f"--IPKernelApp.exec_lines={line}" for line in BEGIN]
    with tempfile.TemporaryDirectory() as home:
        # The kernel has the caller's environment; `flfed` in a cell is that of this Python.
        os.environ |= {
            "FLFED_HOME": home,
            "COLUMNS": "110",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        client = NotebookClient(found, timeout=600, extra_arguments=arguments, resources={"metadata": {"path": home}})
        client.execute()
    for cell in found.cells:
        cell.metadata.pop("execution", None)  # when it ran
        cell.outputs = joined(cell.outputs) if cell.cell_type == "code" else None
        if cell.outputs is None:
            del cell["outputs"]
    found.metadata["language_info"] = {"name": "python"}
    return found


def joined(outputs: list[Any]) -> list[Any]:
    """Return outputs with joined streams, and without standard error, where progress depends on chance."""
    made: list[Any] = []
    for one in outputs:
        if one.get("name") == "stderr":
            continue
        if made and one.output_type == made[-1].output_type == "stream" and one.name == made[-1].name:
            made[-1].text += one.text
        else:
            made.append(one)
    return made


def words_of(notebook: Any) -> list[str]:
    """Return the outputs of each code cell, without parts that differ between executions."""
    said = []
    for cell in notebook.cells:
        texts = []
        for one in cell.get("outputs", ()):
            text = one.get("text") or one.get("data", {}).get("text/plain", "")
            for pattern in ANY:
                text = pattern.sub("#", text)
            texts.append(" ".join(re.sub(r"[─━-]{3,}", "—", text).split()))
        said += [" ".join(texts)] if cell.cell_type == "code" else []
    return said


def differences(stored: Any, made: Any) -> list[str]:
    """Return the new outputs of a notebook that differ from the stored ones, a line each.

    A cell with the tag "varies" is left out: its holdouts have a salt that is drawn anew.
    """
    cells = [cell for cell in made.cells if cell.cell_type == "code"]
    pairs = enumerate(zip(cells, words_of(stored), words_of(made), strict=True), start=1)
    return [
        f"cell {place}: {old!r} is stored, and now: {new!r}"
        for place, (cell, old, new) in pairs
        if old != new and "varies" not in cell.metadata.get("tags", ())
    ]


def main(words: list[str]) -> int:
    """Run notebooks, and write or compare them."""
    check, failed = "--check" in words, False
    for path in notebooks([word for word in words if word != "--check"]):
        try:
            made = executed(path)
        except CellExecutionError as error:
            print(f"{path.name}: a cell fails\n{error}", file=sys.stderr)
            return 1
        if not check:
            nbformat.write(made, path)
            print(path.relative_to(FOLDER.parents[1]))
            continue
        found = differences(nbformat.read(path, as_version=4), made)
        failed = failed or bool(found)
        print("\n".join([f"{path.name}: {'says something else' if found else 'as stored'}", *found]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
