"""A site that comes back from an older backup, at a real consortium: with a copy of its ledger, and without one."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from flfed.records.ledger_line import ENDED
from tests.consortium.conftest import Machine, table
from tests.consortium.test_one_epsilon import spent
from tests.consortium.test_packed_bytes import THREE
from tests.consortium.test_secure_sums import command, words

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]

PRIVATE = ("[compare]", '[privacy]\nname = "record-dp"\nepsilon = 1.0\nsampling = 0.2\n[compare]')
STEPS = ("epochs = 1", "steps = 4")
BUDGET = 3.0
LOST = "its ledger is lost or was cut"
POLICY = f'format = 1\ndisclosure = "institution"\nepsilon = {BUDGET}\ncompared-runs = 20\n'


@pytest.fixture(scope="module")
def study(consortium: Any) -> str:
    """Sites with a budget that have approved a study of record-level differential privacy, and serve."""
    text = str(consortium.study(PRIVATE, STEPS))
    for number, name in enumerate(THREE):
        folder = consortium.root / "packages/sites" / name
        table(2000, number).to_csv(folder / "rows.csv", index=False)
        (folder / "policy.toml").write_text(POLICY)
        consortium.approve(name, text, THREE)
    for name in THREE[1:]:
        consortium.sites[name].serve(f"site serve {name}")
    return text


def run(consortium: Any, study: str) -> None:
    ran, said = command(consortium, words(consortium, study, THREE))
    assert (ran["status"], ran["faults"]) == ("completed", []), said


def refused(consortium: Any, study: str) -> str:
    """Return why a run ends at its beginning: alpha takes no part, and two sites are fewer than each of them allows."""
    return command(consortium, words(consortium, study, THREE), code=2)[1]


def site_folder(machine: Machine) -> Path:
    return machine.home / "sites" / machine.name


def put_back(machine: Machine, saved: Path) -> None:
    """Have a disk fail, and its machine set up from an older backup."""
    machine.end()
    shutil.rmtree(site_folder(machine))
    shutil.copytree(saved, site_folder(machine), ignore=shutil.ignore_patterns("gate.sock"))


def verified(machine: Machine) -> dict[str, Any]:
    return dict(machine.json("site ledger alpha --verify"))


@pytest.fixture(scope="module")
def saved(consortium: Any, study: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a site's folder after the first of three runs; its ledger has a copy on another disk."""
    alpha, folder = consortium.sites["alpha"], tmp_path_factory.mktemp("backup")
    (folder / "disk").mkdir()
    serve = f"site serve alpha --ledger-copy {folder / 'disk'}"
    alpha.serve(serve)
    consortium.online(3)
    run(consortium, study)
    alpha.end()
    shutil.copytree(site_folder(alpha), folder / "saved", ignore=shutil.ignore_patterns("gate.sock"))
    alpha.serve(serve)
    consortium.online(3)
    for _ in range(2):
        run(consortium, study)
    return folder / "saved"


def test_with_a_copy_a_site_from_an_old_backup_goes_on_where_it_was(consortium: Any, study: str, saved: Path):
    alpha, copy = consortium.sites["alpha"], saved.with_name("disk")
    serve = f"site serve alpha --ledger-copy {copy}"
    whole, before = (alpha.gate / "ledger.jsonl").read_bytes(), spent(consortium, "alpha")
    receipts = (alpha.gate / "receipts.jsonl").read_bytes()
    assert (copy / "alpha-ledger.jsonl").read_bytes() == whole
    assert (copy / "alpha-receipts.jsonl").read_bytes() == receipts
    assert 1.2 < before <= BUDGET

    put_back(alpha, saved)
    assert spent(consortium, "alpha") < before - 0.2 and verified(alpha)["problems"] == []
    assert "has more lines than the ledger" in alpha.run(serve, code=1)
    taken = alpha.json(f"site ledger alpha --from-copy {copy}")
    assert taken["lines"] > 10 and taken["receipts"] == 2
    assert (alpha.gate / "ledger.jsonl").read_bytes() == whole
    assert (alpha.gate / "receipts.jsonl").read_bytes() == receipts
    assert spent(consortium, "alpha") == before
    assert "no more lines" in alpha.run(f"site ledger alpha --from-copy {copy}", code=2)
    alpha.serve(serve)
    consortium.online(3)
    run(consortium, study)
    assert verified(alpha)["receipts"] == 4 and verified(alpha)["problems"] == []


def test_without_one_the_coordinators_receipt_ends_all_replies(consortium: Any, study: str, saved: Path):
    alpha = consortium.sites["alpha"]
    before = spent(consortium, "alpha")
    put_back(alpha, saved)
    (alpha.home / "sites/alpha/runs/20261120-under-way").mkdir(parents=True)
    # The backup says that there is a copy: a person who gives it up says so.
    assert "--ledger-copy" in alpha.run("site serve alpha", code=2)
    (alpha.gate / "ledger-copy").unlink()
    alpha.serve("site serve alpha")
    consortium.online(3)
    assert "nothing to restart" in alpha.run("site ledger alpha --restart lost", code=2)
    had = len(alpha.lines())
    _, said = command(consortium, words(consortium, study, THREE), code=3)
    assert "no round was begun: alpha's ledger was cut" in said
    # The question for the head alone was answered; from the receipt on nothing is.
    lines = alpha.lines()
    assert [line["kind"] for line in lines[had:]] == ["enrol", "seal"]
    assert "the ledger is lost or was cut: a receipt has line" in (alpha.gate / "gate.log").read_text()
    assert "cut off" in alpha.run("site ledger alpha --verify", code=1)
    assert LOST in refused(consortium, study) and alpha.lines() == lines
    # The coordinator alone cannot have it forgotten.
    consortium.coordinator.run("coordinator ledger alpha --restart told")
    assert LOST in refused(consortium, study) and alpha.lines() == lines

    restarted = alpha.json("site ledger alpha --restart lost")
    assert restarted["ended-runs"] == ["20261120-under-way"] and not (alpha.home / "sites/alpha/runs").exists()
    assert spent(consortium, "alpha") >= max(before, BUDGET)
    assert [line["run"] for line in alpha.lines() if line["kind"] == ENDED] == ["20261120-under-way"]
    # Approved anew, a run beyond the budget is refused; the ledger is signed again.
    consortium.approve("alpha", study, THREE)
    had = len(alpha.lines())
    assert "privacy budget: " in refused(consortium, study)
    assert not any(line["kind"] in ("train", "spent", "snapshot") for line in alpha.lines()[had:])
    assert verified(alpha)["problems"] == []
