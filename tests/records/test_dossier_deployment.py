"""The dossier of a run by real servers, and its crate before rocrate-validator, which pip installs beside flfed."""

import json
import subprocess
import venv
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from flfed.records.dossier.dossier import is_answered, read_sheets
from tests.machines import COORDINATOR, SITE, begin, take_in, wait_online

SITES = ("cleveland", "hungary", "long-beach")
VALIDATOR = ["roc-validator>=0.13,<0.14", "rocrate>=0.15,<0.17"]
"""It wants an older `rich` than flfed allows: an environment of its own."""
VALIDATE = """
import json, sys
from types import SimpleNamespace
from rdflib.plugins.shared.jsonld import context
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester
words, *crates = sys.argv[1:]
vocabulary = open(words, "rb").read()
# The one thing that it would fetch comes from the package rocrate.
context.source_to_json = lambda *_, **__: (json.loads(vocabulary), None)
reply = SimpleNamespace(status_code=200, headers={"Content-Type": "application/ld+json"})
reply.json = lambda: json.loads(vocabulary)
HttpRequester.get = lambda *_, **__: reply
for crate in crates:
    wanted = {"profile_identifier": "process-run-crate-0.5", "requirement_severity": models.Severity.REQUIRED}
    result = services.validate({"rocrate_uri": crate, **wanted})
    print(json.dumps([issue.message for issue in result.get_issues()]))
"""


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with rocrate-validator, or a skip where pip cannot bring it."""
    folder = tmp_path_factory.mktemp("validator")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    if subprocess.run([python, "-m", "pip", "install", "--quiet", *VALIDATOR], timeout=300).returncode:
        pytest.skip("pip cannot bring roc-validator here")
    return python


def issues(python: Path, *crates: Path) -> list[list[str]]:
    """Return what the validator finds in each crate at the level *required*."""
    words = files("rocrate") / "data" / "ro-crate.jsonld"
    done = subprocess.run([python, "-c", VALIDATE, words, *crates], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def count_answered(folder: Path) -> tuple[dict[str, Any], int]:
    """Return a dossier's record, and how many of SATRE's 21 federation items it answers."""
    record = json.loads((folder / "record.json").read_text())
    (satre,) = [sheet for sheet in read_sheets() if sheet.name == "satre"]
    federation = [item for item in satre.items if item.number.startswith("5.")]
    assert len(federation) == 21
    return record, sum(is_answered(item, record) for item in federation)


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.timeout(900)
def test_a_deployed_run_answers_more_of_satre_than_a_simulation(machines, test_data, tmp_path, validator):
    coordinator = machines["coordinator"]
    begin(machines, test_data)
    for site in SITES:
        take_in(coordinator, machines[site])
        machines[site].run(SITE["site approve"])
        machines[site].start(SITE["site serve"])
    wait_online(machines, 3)
    coordinator.run(COORDINATOR["coordinator run"])
    folder = tmp_path / "deployed"
    coordinator.run(["run", "report", "latest", "--dossier", str(folder)])
    record, answered = count_answered(folder)
    assert answered >= 11
    members = coordinator.json(COORDINATOR["coordinator status"])["sites"]
    assert {member["gate-key"] for member in members} == {member["gate_key"] for member in record["members"]}
    # The same machine simulates, too.
    coordinator.run(["study", "run", "loan-default"])
    coordinator.run(["run", "report", "latest", "--dossier", str(tmp_path / "loan")])
    coordinator.run(["study", "run", "heart-disease"])
    coordinator.run(["run", "report", "latest", "--dossier", str(tmp_path / "heart")])
    assert all(count_answered(tmp_path / name)[1] < answered for name in ("loan", "heart"))
    assert issues(validator, folder, tmp_path / "loan", tmp_path / "heart") == [[], [], []]
    crate = folder / "ro-crate-metadata.json"
    crate.write_text(crate.read_text().replace('"instrument"', '"agent"', 1))
    assert any("instrument" in message for message in issues(validator, folder)[0])
