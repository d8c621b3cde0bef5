"""After a real run: the ledgers and the coordinator's record agree, each round comes again, and no bytes are left."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from flfed.records.ledger import Ledger
from flfed.records.site_state import SiteState
from flfed.records.store.database import engine_to_read, store_url

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(600)]
HERE = Path(__file__).parent
THREE = ("alpha", "beta", "gamma")


@pytest.fixture(scope="module")
def ran(consortium: Any) -> dict[str, Any]:
    """A run of three sites that ended, by the commands; with the bytes that crossed in files."""
    study = consortium.file(consortium.study())
    for name in THREE:
        consortium.approve(name, consortium.study(), THREE)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)
    crossed = consortium.root / "crossed"
    crossed.mkdir()
    machine = consortium.coordinator
    words = ["coordinator", "run", str(study), "--site", "alpha", "--site", "beta", "--site", "gamma", "--json"]
    done = subprocess.run(
        [sys.executable, str(HERE / "recording.py"), str(crossed), *words],
        capture_output=True, text=True, env=machine.environment, cwd=machine.exchange, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "crossed": crossed}


def test_a_ledgers_bytes_are_those_of_the_coordinators_record(consortium: Any, ran: dict[str, Any]):
    with consortium.coordinator.here():
        engine = engine_to_read(store_url())
        asked = text(
            "SELECT site, kind, SUM(bytes) FROM sent WHERE direction = 'to-server' AND run_id = :run GROUP BY 1, 2"
        )
        with engine.connect() as connection:
            found = connection.execute(asked, {"run": ran["run"]}).fetchall()
        engine.dispose()
    sent = {(site, kind.rpartition(".")[2]): int(size) for site, kind, size in found}
    held: dict[tuple[str, str], int] = {}
    for name in THREE:
        for line in consortium.sites[name].lines():
            if line["kind"] == "snapshot":  # no message: it names the rows that are used
                continue
            assert line.get("run") == ran["run"]
            held[name, line["kind"]] = held.get((name, line["kind"]), 0) + line["bytes"]
    assert held == sent
    kinds = {"enrol", "summarise", "train", "evaluate", "compare"}
    assert {kind for _, kind in sent} == kinds and len(sent) == 3 * len(kinds)
    assert min(sent.values()) > 50


def test_no_update_is_left_at_the_server(consortium: Any, ran: dict[str, Any]):
    contents = [path.read_bytes() for path in ran["crossed"].iterdir() if not path.name.startswith("during")]
    during = [int(path.read_text()) for path in ran["crossed"].glob("during-*")]
    assert len(contents) > 30
    # They stood there while the run went on, so that the search would find them.
    assert sum(during) > 3
    folder = consortium.coordinator.home / "coordinator"
    left = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any(path.name == "flower.db" for path in left)
    # The nodes' signs of life go on: what is in the log of changes is searched too.
    pieces = {content[at : at + 16] for content in contents for at in range(0, len(content) - 15, 8)}
    # Two numbers side by side of an update: none of them by chance, and none that is zeros or ones.
    known = {piece for piece in pieces if len(set(piece)) > 8 and not telling_nothing(piece)}
    assert len(known) > 50
    for path, content in left.items():
        assert [piece for piece in known if piece in content] == [], path


def telling_nothing(piece: bytes) -> bool:
    """Tell whether both numbers are small whole ones, which stand in any file."""
    return bool(np.all(np.modf(np.frombuffer(piece))[0] == 0))


def test_any_line_that_is_changed_removed_moved_or_cut_is_found_by_the_command(consortium: Any, ran: dict[str, Any]):
    beta = consortium.sites["beta"]
    path = beta.gate / "ledger.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert "Every line is as it was written" in beta.run("site ledger beta --verify")
    middle = len(lines) // 2
    damaged = {
        "changed": [*lines[:middle], lines[middle].replace(b'"bytes":', b'"bytes":1', 1), *lines[middle + 1 :]],
        "removed": [*lines[:middle], *lines[middle + 1 :]],
        "moved": [*lines[:middle], lines[middle + 1], lines[middle], *lines[middle + 2 :]],
        "cut": lines[:-3],
    }  # fmt: skip
    try:
        for name, content in damaged.items():
            path.write_bytes(b"".join(content))
            said = beta.run("site ledger beta --verify", code=1)
            assert "Every line is as it was written" not in said, name
    finally:
        path.write_bytes(whole)
    assert "Every line is as it was written" in beta.run("site ledger beta --verify")


def test_a_folder_that_was_set_back_ends_the_next_run_at_its_beginning(consortium: Any, ran: dict[str, Any], tmp_path):
    """Ledger and state together are whole at the site: only the coordinator knows that there were more lines."""
    coordinator, alpha = consortium.coordinator, consortium.sites["alpha"]
    file = consortium.file(consortium.study())
    asked = f"coordinator run {file} --site alpha --site beta --site gamma"
    files = [alpha.gate / name for name in ("ledger.jsonl", "state.db")]
    for path in files:
        shutil.copy2(path, tmp_path)
    coordinator.run(asked)
    had = len(alpha.lines())
    for path in files:  # under a gate that goes on
        shutil.copy2(tmp_path / path.name, path)
    assert len(alpha.lines()) < had and "Every line is as it was" in alpha.run("site ledger alpha --verify")
    said = coordinator.run(asked, code=3)
    assert "no round was begun: the ledger of alpha does not continue line" in said
    assert "Ask alpha for the reason; then: flfed coordinator acknowledge alpha --why TEXT" in said
    kept = len((tmp_path / "ledger.jsonl").read_text().splitlines())
    assert [line["kind"] for line in alpha.lines()[kept:]] == ["enrol"]
    assert not {line["kind"] for line in alpha.lines()[kept:]} & {"summarise", "train"}
    found = coordinator.json("run show latest")
    assert (found["status"], found["rounds"]) == ("stopped", 0)
    # The site counts what it forgot as spent, the coordinator has it on record, and the run goes on.
    alpha.run("site ledger alpha --restart --why 'an older copy was put back'")
    said = coordinator.run(f"study resume {found['run']}", code=2)
    assert "the study was withdrawn here" in said
    consortium.approve("alpha", consortium.study(), THREE)
    assert "does not continue line" in coordinator.run(f"study resume {found['run']}", code=3)
    coordinator.run("coordinator acknowledge alpha --why 'told by telephone'")
    assert completed(coordinator.json(f"study resume {found['run']}"))
    assert completed(coordinator.json(asked))


def test_no_round_begins_by_a_clock_that_was_set_back(consortium: Any, ran: dict[str, Any]):
    coordinator, beta = consortium.coordinator, consortium.sites["beta"]
    asked = f"coordinator run {consortium.file(consortium.study())} --site alpha --site beta --site gamma"
    # As a clock wrote it that was a day ahead: for the gate, whose clock is right, it was set back by a day.
    state = SiteState(beta.gate / "state.db")
    ahead = Ledger(beta.gate / "ledger.jsonl", clock=lambda: datetime.now(UTC) + timedelta(days=1), state=state).append(
        kind="train"
    )
    said = coordinator.run(asked, code=2)
    # The policies of the other two need three sites.
    assert "only 2 sites take part, and a policy of theirs needs at least 3" in said
    assert f"line {ahead.n} of its ledger is of {ahead.at}, later than its clock, so nothing leaves the site" in said
    assert beta.lines()[-1]["n"] == ahead.n  # nothing was written after the line that is later than the clock
    assert f"line {ahead.n} of its ledger is of {ahead.at}" in beta.run("site ledger beta --verify", code=1)


def completed(found: dict[str, Any]) -> bool:
    return (found["status"], found["rounds"], len(found["sites"])) == ("completed", 3, 3)
