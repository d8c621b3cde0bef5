"""docs/backup.md: site and coordinator are saved and brought back elsewhere by the commands of the page."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from flfed.records.store.database import store_url
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from tests.consortium.conftest import Machine
from tests.consortium.test_packed_bytes import THREE
from tests.consortium.test_secure_sums import command, words
from tests.postgres import PASSWORD, Server, programs
from tests.records.test_postgres import begun, server
from tests.test_readme import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]

__all__ = ["server"]
PAGE = (ROOT / "docs/backup.md").read_text(encoding="utf-8")


def blocks(title: str) -> list[str]:
    """Return the shell's blocks of a part of the page."""
    part = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", part, flags=re.DOTALL)


def do(title: str, folder: Path, environment: dict[str, str], *, postgres: bool = False) -> None:
    """Run the commands of a part of the page: those of PostgreSQL, or the others."""
    chosen = [block for block in blocks(title) if ("flfed.sql" in block) is postgres]
    assert chosen, title
    for block in chosen:
        script = f"set -eu\numask 022\n{block}".replace("SITE", "alpha")
        done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), (block, done.stderr)


def of_page(start: str) -> str:
    """Return a flfed command of the page."""
    (line,) = re.findall(rf"^ *\$ flfed ({start}.*)$", PAGE, flags=re.MULTILINE)
    return str(line).replace("SITE", "alpha")


def moved(machine: Machine, folder: Path, packages: Path) -> Machine:
    """Return another machine for the same institution, which has nothing yet."""
    made = Machine(folder, machine.name)
    made.exchange = machine.exchange
    made.home.rmdir()
    made.environment["FLFED_PATH"] = str(packages)
    return made


@pytest.mark.proof
def test_site_and_coordinator_come_back_elsewhere_and_the_next_run_goes_on(consortium: Any, tmp_path: Path):
    study = consortium.study()
    for name in (*THREE, "delta"):
        consortium.approve(name, study, (*THREE, "delta"))
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(4)
    before, said = command(consortium, words(consortium, study, (*THREE, "delta")))
    assert before["status"] == "completed", said

    old = {"alpha": consortium.sites["alpha"], "coordinator": consortium.coordinator}
    saved = {name: tmp_path / f"saved-{name}" for name in old}
    for name, machine in old.items():
        machine.end()
        saved[name].mkdir()
        title = "Save a coordinator" if name == "coordinator" else "Save a site"
        do(title, saved[name], machine.environment)
        # The files have keys and rows.
        assert {path.stat().st_mode & 0o777 for path in saved[name].iterdir()} == {0o600}
    # Revoked after the backup, and then both disks are lost.
    old["coordinator"].run("coordinator revoke delta")
    packages = consortium.root / "elsewhere-packages"
    (consortium.root / "elsewhere").mkdir()
    for name, machine in old.items():
        shutil.rmtree(machine.home)
        where = packages if name == "alpha" else consortium.root / "packages"
        there = moved(machine, consortium.root / "elsewhere", where)
        title = "Restore a coordinator" if name == "coordinator" else "Restore a site"
        do(title, saved[name], there.environment)
        if name == "alpha":
            consortium.sites[name] = there
        else:
            consortium.coordinator = there

    alpha, coordinator = consortium.sites["alpha"], consortium.coordinator
    assert (alpha.gate / "ledger.jsonl").stat().st_mode & 0o777 == 0o600
    assert alpha.run(of_page("site ledger")).count("Nothing") == 0
    assert alpha.json("site ledger alpha --verify")["problems"] == []
    # The backup still admits the revoked site; the page's command revokes it again.
    assert states(coordinator)["delta"] == "admitted"
    coordinator.run(of_page("coordinator revoke").replace("alpha", "delta"))
    assert states(coordinator)["delta"] == "revoked"

    with coordinator.here():
        page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
        assert not page.exception
    assert before["run"] in coordinator.run(of_page("run list") + " --all --json")
    consortium.serve()
    alpha.serve("site serve alpha")
    lines = alpha.json("site ledger alpha --verify")["lines"]
    # The revoked site stays out.
    consortium.online(len(THREE))
    assert f"the ledger's last line is line {lines:,} of {alpha.lines()[-1]['at'][:10]}" in alpha.log()
    for name in THREE:
        consortium.approve(name, study, THREE)
    after, said = command(consortium, words(consortium, study, THREE))
    assert (after["status"], after["faults"]) == ("completed", []), said
    verified = alpha.json("site ledger alpha --verify")
    assert verified["problems"] == [] and verified["lines"] > lines


def states(coordinator: Machine) -> dict[str, str]:
    return {site["site"]: site["status"] for site in coordinator.json(of_page("coordinator status"))["sites"]}


def test_a_store_in_postgresql_comes_back_by_the_page(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server.sql("CREATE DATABASE flfed")
    monkeypatch.setenv("FLFED_STORE", server.url("flfed"))
    with RunStore.open() as store:
        run = begun(store).run
    place = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "owner", "PGPASSWORD": PASSWORD}
    environment = {**os.environ, **place, "PATH": f"{programs()}:{os.environ['PATH']}"}
    do("Save a coordinator", tmp_path, environment, postgres=True)
    server.sql("DROP DATABASE flfed WITH (FORCE)")
    do("Restore a coordinator", tmp_path, environment, postgres=True)
    assert store_url().database == "flfed"
    with RunReader.open() as reader:
        assert [(one.run, one.rounds_planned) for one in reader.runs()] == [(run, 3)]
