"""A store of real runs of every kind that the pages may have to show, made by the commands of `flfed` themselves."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


SET = ["--set", "strategy.fraction=0.5"]
"""With rounds in which half of the sites are asked."""
QUICK = ["--set", "compare.site-model=same", "--set", "compare.resamples=200"]


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


COMMANDS = """
import json, os, sys
from flfed.cli import main
from flfed.records.store.reader import RunReader
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
for line in sys.stdin:
    os.environ["FLFED_HOME"], *words = json.loads(line)
    sys.argv, code = ["flfed", *words], 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    with RunReader.open() as reader:
        newest = next((entry.series for entry in reader.runs(limit=1)), "")
    print(json.dumps([code, newest]), file=answers, flush=True)
"""
"""Runs one command after the other in one process; says of each its exit code and the newest series then."""


@contextmanager
def commands(home: Path, url: str) -> Iterator[Callable[..., str]]:
    """Give a function that runs a command as `run` does, all in one process: what they load is loaded once."""
    environment = os.environ | {"FLFED_STORE": url, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        [sys.executable, "-c", COMMANDS], cwd=home, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def one(*words: str, code: int = 0, home: Path = home) -> str:
        print(json.dumps([str(home), *words]), file=started.stdin, flush=True)
        found, newest = json.loads(started.stdout.readline())
        assert found == code, (words, found)
        return newest

    with started:
        yield one


CALLS = """
import sys
from sklearn.datasets import load_breast_cancer
from flfed import Frame, Holdout, Policy, Site, Study, federate, run
rows = load_breast_cancer(as_frame=True).frame
if sys.argv[1] == "frames":
    federate({"north": rows[0::3], "south": rows[1::3], "west": rows[2::3]}, target="target", rounds=20)
else:
    rows["diagnosis"] = rows.pop("target").map({0: "malignant", 1: "benign"})
    sites = []
    for place, name in enumerate(("north", "south", "west", "quiet")):
        policy = Policy(disclosure="open", resplit=True)
        table = rows[place::4].reset_index(drop=True)
        sites.append(Site(
            name=name, dataset="breast-cancer", source=Frame(table), policy=policy, holdout=Holdout(salt=name)
        ))
    run(Study(dataset="breast-cancer", model="logistic", rounds=10, lr=1.0), sites=sites)
"""
"""Runs from Python: of data frames, and of sites."""


def called(kind: str, home: Path, url: str) -> str:
    """Make one of the runs of `CALLS` and return its series."""
    environment = os.environ | {"FLFED_HOME": str(home), "FLFED_STORE": url, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", CALLS, kind], cwd=home, env=environment, check=True, capture_output=True)
    with RunReader.open(url) as reader:
        return reader.runs(limit=1)[0].series


def interrupted(home: Path, url: str, rounds: int = 20) -> str:
    """Begin a run, end its program after some rounds, and return its series."""
    with RunReader.open(url) as reader:
        before = reader.runs(limit=1)[0].series
    process = begun(["study", "run", "loan-default", "--set", "strategy.rounds=3000"], home, url)
    for _ in range(1200):
        time.sleep(0.25)
        with RunReader.open(url) as reader:
            newest = reader.runs(limit=1)[0]
        if newest.series != before and newest.rounds >= rounds:
            break
    process.kill()
    process.wait()
    assert newest.series != before
    return newest.series


def make(folder: Path, data: Path | None) -> Runs:
    """Run a study of each kind into one store under `folder`; two of them need files of `data`.

    `demo` is the first study of `flfed demo`, run once; `stopped` ends in its first round, as no update is
    finite; `failed` cannot write its checkpoint, since a file stands where the folder should be.
    """
    home, broken = folder / "home", folder / "broken"
    home.mkdir()
    broken.mkdir()
    (broken / "runs").touch()
    url = f"sqlite:///{folder}/runs.db"
    (folder / "many.toml").write_text(MANY)
    with commands(home, url) as one:
        series = {
            "failed": one("study", "run", "preterm-birth", home=broken, code=1),
            "stopped": one("study", "run", "diabetes", "--set", "plan.lr=1e200", code=3),
            "regression": one("study", "run", "diabetes", *SET, *QUICK),
            "multi-class": one("study", "run", "wine", *QUICK), "demo": one("study", "run", "loan-default"),
            "protected": one("study", "run", "breast-cancer-dp-3"),
        }  # fmt: skip
        one("audit", series["protected"])
        if data is not None:
            for name in ("taiwan-credit", "heart-disease"):
                one("data", "get", name, "--from", str(data))
            series["secure"] = one("study", "run", "loan-default", "--set", 'privacy.secure-aggregation="on"')
            series["births"] = one("study", "run", "preterm-birth")
            series["statistic"] = one("study", "run", "loan-table")
            series["trees"] = one("study", "run", "taiwan-credit-trees", "--set", "rounds=10", *QUICK)
            series["many"] = one("study", "run", str(folder / "many.toml"))
            series["hospitals"] = one("study", "run", "heart-disease", "--repeats", "3")
            series["covers"] = one("study", "run", "breast-cancer-dp-3", "--set", 'privacy.covers="study"')
    if data is not None:
        series |= {name: called(name, home, url) for name in ("shared", "frames")}
        series["unfinished"] = interrupted(home, url)
    return Runs(url, home, series)
