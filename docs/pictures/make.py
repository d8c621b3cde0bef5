"""Make the pictures of the app that README.md and docs/install.md show: `make pictures`, with Debian's chromium.

It runs the studies itself, in a store of its own; the files of heart-disease are downloaded, or taken
from the folder of data files that `FLFED_TEST_DATA` names. `python -m docs.pictures.make NAME...`
makes some alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from flfed.records.store.reader import RunReader
from tests.browser import CHARTS, opened, served

HERE = Path(__file__).resolve().parent
HEIGHT = 900
STUDIES = {"loan-default": "3", "breast-cancer-dp-3": "1", "heart-disease": "10"}
"""Repeats of each study; those of loan-default are the demo's."""
PICTURES = {
    "overview": "overview?run={loan-default}",
    "sites": "sites?run={heart-disease}&site=hungary",
    "rounds": "rounds?run={heart-disease}",
    "curves": "curves?run={heart-disease}",
    "data": "data?run={heart-disease}",
    "privacy": "privacy?run={breast-cancer-dp-3}",
}
"""The name of each picture and the address it shows."""


def flfed(words: list[str], environment: dict[str, str]) -> None:
    """Run a command of flfed to its end."""
    subprocess.run([sys.executable, "-c", "from flfed.cli import main; main()", *words], env=environment, check=True)


def take(address: str, path: str, file: Path) -> None:
    """Take one picture of a page of the app, once it stands and its charts are drawn."""
    with opened(address, height=HEIGHT) as window:
        window.page.goto(f"{address}/{path}")
        window.page.locator(CHARTS).first.wait_for()
        window.drawn()
        window.page.wait_for_timeout(1000)
        window.page.screenshot(path=file)
    print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")


def main(names: list[str]) -> None:
    """Run the studies, open the app and take the pictures of these names, all of them without names."""
    pictures = {name: PICTURES[name] for name in names or PICTURES}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"FLFED_HOME": folder, "FLFED_STORE": f"sqlite:///{folder}/runs.db"}
        data = os.environ.get("FLFED_TEST_DATA")
        if any("heart-disease" in path for path in pictures.values()):
            flfed(["data", "get", "heart-disease", *(["--from", data] if data else [])], environment)
        for study, repeats in STUDIES.items():
            if any(study in path for path in pictures.values()):
                flfed(["study", "run", study, "--repeats", repeats], environment)
        with RunReader.open(environment["FLFED_STORE"]) as reader:
            series = {run.study: run.series for run in reader.runs()}
        with served(environment) as address:
            for name, path in pictures.items():
                take(address, path.format(**series), HERE / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
