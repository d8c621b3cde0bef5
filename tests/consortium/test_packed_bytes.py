"""Real runs with int8 and with top-k: ledgers and record agree, and sites keep nothing of a run."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from flfed.records.store.database import engine_to_read, store_url

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(600)]
THREE = ("alpha", "beta", "gamma")
CODECS = {"int8": 'name = "int8"', "top-k": 'name = "top-k"\nshare = 0.4'}


def test_with_codecs_a_ledgers_bytes_are_those_of_the_coordinators_record_and_sites_keep_nothing(consortium: Any):
    machine = consortium.coordinator
    chosen = [word for name in THREE for word in ("--site", name)]
    texts = {name: consortium.study(("[compare]", f"[codec]\n{table}\n[compare]")) for name, table in CODECS.items()}
    for name in THREE:
        for study in texts.values():
            consortium.approve(name, study, THREE)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)
    for codec, study in texts.items():
        done = subprocess.run(
            [sys.executable, "-c", "from flfed.cli import main; main()", "coordinator", "run",
             str(consortium.file(study)), *chosen, "--json"],
            capture_output=True, text=True, env=machine.environment, cwd=machine.exchange, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        ran = json.loads(done.stdout)
        assert (ran["status"], ran["faults"]) == ("completed", []), codec
        assert held(consortium, ran["run"]) == sent(consortium, ran["run"])
        # What top-k left out, and the encoder, go with the comparison.
        left = [path for name in THREE for path in consortium.sites[name].home.rglob(f"runs/{ran['run']}/*")]
        assert [path.name for path in left] == []


def held(consortium: Any, run: str, sites: Sequence[str] = THREE) -> dict[tuple[str, str], int]:
    """Return the bytes that the sites' ledgers have of a run, by site and kind."""
    found: dict[tuple[str, str], int] = {}
    for name in sites:
        for line in consortium.sites[name].lines():
            # A snapshot is no message: it names the rows that a run uses.
            if line.get("run") == run and line["kind"] not in ("snapshot", "spent"):
                found[name, line["kind"]] = found.get((name, line["kind"]), 0) + line["bytes"]
    return found


def sent(consortium: Any, run: str) -> dict[tuple[str, str], int]:
    """Return the bytes that the coordinator's record has of a run, by site and kind."""
    with consortium.coordinator.here():
        engine = engine_to_read(store_url())
        asked = text(
            "SELECT site, kind, SUM(bytes) FROM sent WHERE direction = 'to-server' AND run_id = :run GROUP BY 1, 2"
        )
        with engine.connect() as connection:
            found = connection.execute(asked, {"run": run}).fetchall()
        engine.dispose()
    return {(site, kind.rpartition(".")[2]): int(size) for site, kind, size in found}
