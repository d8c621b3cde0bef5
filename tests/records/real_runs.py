"""A store of real runs of every kind that the pages may have to show, made by the commands of `flfed` themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from flfed.records.store.reader import RunReader

MANY = """
format = 1
name = "hundred-banks"
purpose = "A public table cut into a hundred banks"
legal-basis = "public data, CC BY 4.0"
seed = 1
[dataset]
name = "taiwan-credit"
partition = { by = "iid", sites = 100, seed = 1 }
[model]
name = "logistic"
[plan]
lr = 0.05
[strategy]
name = "fedavg"
rounds = 500
"""
"""500 rounds of 100 sites: fifteen seconds."""


SET = ["--set", "strategy.fraction=0.5", "--set", "compare.curve={rows=[10, 40], draws=4}"]
"""With a learning curve, and rounds in which half of the sites are asked."""


@dataclass(frozen=True)
class Runs:
    """Where the store is, and the series of each kind in it.

    Attributes
    ----------
    url : str
    home : Path
        The `FLFED_HOME` of who ran them.
    series : dict of kind to series id
    """

    url: str
    home: Path
    series: dict[str, str]


def begun(words: list[str], home: Path, url: str) -> subprocess.Popen[bytes]:
    """Return a command of flfed that runs, in a process of its own."""
    environment = os.environ | {"FLFED_HOME": str(home), "FLFED_STORE": url, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from flfed.cli import main; main()", *words]
    return subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(words: list[str], home: Path, url: str, *, code: int = 0) -> str:
    """Run a command of flfed to its end and return the id of the newest series."""
    found = begun(words, home, url).wait(600)
    assert found == code, (words, found)
    with RunReader.open(url) as reader:
        return next((entry.series for entry in reader.runs(limit=1)), "")


def make(folder: Path, data: Path | None) -> Runs:
    """Run a study of each kind into one store under `folder`; two of them need files of `data`.

    `demo` is the first study of `flfed demo`; `stopped` ends in its first round, as no update is
    finite; `failed` cannot write its checkpoint, since a file stands where the folder should be.
    """
    home, broken = folder / "home", folder / "broken"
    home.mkdir()
    broken.mkdir()
    (broken / "runs").touch()
    url = f"sqlite:///{folder}/runs.db"
    (folder / "many.toml").write_text(MANY)
    series = {
        "failed": run(["study", "run", "preterm-birth"], broken, url, code=1),
        "stopped": run(["study", "run", "diabetes", "--set", "plan.lr=1e200"], home, url, code=3),
        "regression": run(["study", "run", "diabetes", *SET], home, url),
        "multi-class": run(["study", "run", "wine"], home, url),
        "demo": run(["demo"], home, url),
        "protected": run(["study", "run", "breast-cancer-dp-3"], home, url),
    }
    run(["audit", series["protected"]], home, url)
    if data is not None:
        for name in ("taiwan-credit", "heart-disease"):
            run(["data", "get", name, "--from", str(data)], home, url)
        series["many"] = run(["study", "run", str(folder / "many.toml")], home, url)
        series["hospitals"] = run(["study", "run", "heart-disease", "--repeats", "3"], home, url)
    return Runs(url, home, series)
