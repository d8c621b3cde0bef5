"""Commands that train nothing load no torch and no Flower: each in a fresh process, on a home with something in it."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flfed.cli import main
from flfed.deployment.coordinator.admission import admit
from flfed.paths import CoordinatorFolder, SiteFolder
from flfed.records.ledger import ledger_of

pytestmark = [pytest.mark.slow, pytest.mark.servers]  # each is a command in a process of its own

HEAVY = {"torch", "flwr", "sklearn", "streamlit"}
SITE, OTHERS = "kentucky-clinic", "minnesota-clinic,mississippi-clinic,new-york-clinic"
STUDY = """
format = 1
name = "preterm-dp"
purpose = "Test"
legal-basis = "public data"
[dataset]
name = "preterm-birth"
[model]
name = "logistic"
[plan]
lr = 0.1
steps = 2
[strategy]
name = "fedavg"
rounds = 1
[encode]
scaler = "schema"
[privacy]
name = "record-dp"
epsilon = 8.0
delta = 5e-4
sampling = 0.2
[compare]
resamples = 200
"""
SHOWN: dict[str, Callable[[Any], object]] = {
    "run list": lambda found: len(found["runs"]) == 1, "run show": lambda found: found["study"] == "preterm-dp",
    f"site status {SITE}": lambda found: [one["reason"] for one in found["studies"]] == ["", ""],
    f"site ledger {SITE}": lambda found: found["lines"] == 1,
    f"site ledger {SITE} --verify": lambda found: found["problems"] == [],
    f"site budget {SITE}": lambda found: found["spent"] > 1,
    "coordinator status": lambda found: SITE in [site["site"] for site in found["sites"]],
}  # fmt: skip
"""What an operator looks at from hour to hour, and what tells that it is there."""
BESIDES = (
    "--help", "site check --help", "site list", "data list", "study list", "study show preterm-birth",
    "site status river-bank", "run compare latest latest",
    "coordinator invite new-york-clinic --output {home}",
    f"site pause {SITE}", f"site pause {SITE} --resume",
    f"site withdraw preterm-dp --site {SITE}", f"site approve preterm-birth --site {SITE} --refuse",
)  # fmt: skip
CALL = """
import json, sys
sys.argv = ["flfed", *sys.argv[1:]]
from flfed.cli import main
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
print("\\n" + json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""


def ran(*words: str) -> None:
    """Run a command in this process, where all that is heavy is there already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["flfed", *words])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code, words


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a private run, a coordinator, and a site that has joined it, approved two studies and spent."""
    folder = tmp_path_factory.mktemp("lived-in")
    study = folder / "study.toml"
    study.write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLFED_HOME", str(folder / "home"))
        patch.chdir(folder)
        ran("coordinator", "init", "--title", "Preterm", "--address", "127.0.0.1:18443")
        ran("coordinator", "invite", SITE)
        ran("site", "join", f"{SITE}.kit.zip")
        admit(CoordinatorFolder.default(), folder / f"{SITE}.admission")
        ran("study", "run", str(study))
        for approved in (str(study), "preterm-birth"):
            ran("site", "approve", approved, "--site", SITE, "--with", OTHERS, "--yes")
        assert [line.kind for line in ledger_of(SiteFolder(SITE)).lines()] == ["spent"]
        yield folder


def call(home: Path, command: str, *more: str) -> tuple[dict[str, Any], str, float]:
    """Run a command in a fresh process: what it loaded, what it printed, and its user and system CPU seconds."""
    environment = {**os.environ, "FLFED_HOME": str(home / "home")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [*command.format(home=home).split(), *more]
    done = subprocess.run(
        [sys.executable, "-c", CALL, *words], capture_output=True, text=True, env=environment, cwd=home, timeout=120
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said, _, found = done.stdout.rstrip().rpartition("\n")
    assert done.returncode == 0 and found, done.stderr
    return json.loads(found), said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.proof
def test_the_status_of_a_site_costs_little_more_than_a_list_of_runs(lived_in: Path):
    # In turns and the least of several, for others use the machine meanwhile.
    seconds: dict[str, list[float]] = {"run list": [], f"site status {SITE}": []}
    for _ in range(3):
        for command, taken in seconds.items():
            taken.append(call(lived_in, command)[2])
    runs, status = (min(taken) for taken in seconds.values())
    assert status <= 1.5 * runs, seconds


@pytest.mark.parametrize("names", ["federate", "federate, resume, run"])
def test_the_first_cell_of_a_notebook_loads_nothing_that_a_call_needs(names: str):
    code = f"import sys\nfrom flfed import {names}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "flfed.notebook.federate" in loaded
    assert (HEAVY | {"pandas", "numpy", "scipy", "sqlalchemy"}) & loaded == set()


@pytest.mark.parametrize("command", SHOWN)
def test_what_an_operator_looks_at_loads_nothing_that_trains_or_shows_pages(lived_in: Path, command: str):
    found, said, _ = call(lived_in, command, "--json")
    assert found["code"] == 0 and SHOWN[command](json.loads(said))
    assert HEAVY & set(found["modules"]) == set()


@pytest.mark.parametrize("command", BESIDES)
def test_other_commands_that_read_no_table_load_none_of_it_either(lived_in: Path, command: str):
    found, said, _ = call(lived_in, command)
    assert (found["code"], bool(said.strip())) == (0, True)
    assert (HEAVY | {"pandas"}) & set(found["modules"]) == set()


def test_an_approval_describes_a_study_without_what_trains_it(lived_in: Path):
    found, said, _ = call(
        lived_in, f"site approve preterm-birth --site new-york-clinic --with {SITE},minnesota-clinic --yes"
    )
    assert found["code"] == 0 and "site withdraw preterm-birth" in said
    assert HEAVY & set(found["modules"]) == {"flwr"}
