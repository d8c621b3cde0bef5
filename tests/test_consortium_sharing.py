"""What a coordinator's machine has of a site that shares its figures in sums only, after a run over the wire.

Real processes on loopback: SuperLink, Caddy, TLS, three sites with homes and keys of their own.
"""

import bisect
import json
import math
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from flfed.federation.server.run import run
from flfed.records.store.reader import RunReader
from flfed.study.study import Study
from tests.machines import COORDINATOR, ROOT, SITE, Machine, begin, machines_of, take_in, wait_online

SHARES = {"cleveland": "named", "hungary": "named", "long-beach": "aggregate-only"}
ROUNDS = 3


@pytest.fixture
def machines() -> Iterator[dict[str, Machine]]:
    with machines_of(list(SHARES)) as found:
        yield found


def packages(folder: Path) -> None:
    """Copy the sites' packages to where the commands run, each with a policy of its own."""
    for site, how in SHARES.items():
        package = site.replace("-", "_")
        shutil.copytree(ROOT / "sites" / package, folder / "sites" / package)
        policy = folder / "sites" / package / "policy.toml"
        policy.write_text(policy.read_text().replace('share-metrics = "named"', f'share-metrics = "{how}"'))


def figures(name: str, site: str) -> list[float]:
    """Return every figure of a site in the record of a run in which all are named."""
    with RunReader.open() as reader:
        [entry] = reader.runs_of(name)
        rows = [row for number in range(ROUNDS + 1) for row in reader.metrics(entry.run, number) if row.site == site]
        found = [value for row in rows for value in (row.value, row.variance)]
        compared = [row for row in (*reader.figures(entry.run), *reader.differences(entry.run)) if row.site == site]
        found += [value for row in compared for value in (row.value, row.low, row.high)]
    # A share such as 0.75 comes about by chance, and the loss of the first model is the same everywhere.
    plain = [value for value in found if value is not None and len(repr(value)) > 12]
    return sorted({value for value in plain if abs(value - math.log(2)) > 1e-12})


def numbers(home: Path) -> list[float]:
    """Return every number on a machine: in text of ten digits and more, and in the databases' columns."""
    found: list[float] = []
    for path in (path for path in home.rglob("*") if path.is_file()):
        content = path.read_bytes()
        found += [float(text) for text in re.findall(rb"-?\d*\.\d{10,}(?:e-?\d+)?", content)]
        if content.startswith(b"SQLite format 3"):
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                cells = [cell for table in tables for row in database.execute(f"SELECT * FROM {table}") for cell in row]
            found += [cell for cell in cells if isinstance(cell, float)]
    return sorted(found)


def standing(wanted: list[float], there: list[float]) -> int:
    """Return how many figures stand among numbers, to nine digits."""
    nearest = [
        (there[max(0, (i := bisect.bisect(there, value)) - 1)], there[min(i, len(there) - 1)]) for value in wanted
    ]
    return sum(
        any(math.isclose(value, other, rel_tol=1e-9) for other in near)
        for value, near in zip(wanted, nearest, strict=True)
    )


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.timeout(600)
def test_figures_in_sums_only_are_nowhere_on_the_coordinators_machine(machines, test_data, heart):
    coordinator = machines["coordinator"]
    packages(coordinator.home.parent / "exchange")
    begin(machines, test_data)
    path = coordinator.study("heart-disease", rounds=ROUNDS)
    for site in SHARES:
        take_in(coordinator, machines[site])
        words = [path if word == "heart-disease" else word for word in SITE["site approve"]]
        said = machines[site].run([*words, "--all"])
        assert ("to the coordinator's memory" in said) == (SHARES[site] == "aggregate-only")
        machines[site].start(SITE["site serve"])
    wait_online(machines, 3)
    words = [path if word == "heart-disease" else word for word in COORDINATOR["coordinator run"]]
    deployed = json.loads(coordinator.run([*words, "--json"]))
    here = run(Study.load(path), sites=list(SHARES))
    assert deployed["arrays-sha256"]
    assert deployed["sites"]["long-beach"]["global"] == {} and deployed["sites"]["long-beach"]["rows"] is None
    for site in ("cleveland", "hungary"):
        for metric, figure in here.report["sites"][site]["global"].items():
            assert deployed["sites"][site]["global"][metric]["value"] == pytest.approx(figure["value"], abs=1e-9)
    there = numbers(coordinator.home)
    own, named = figures(here.run, "long-beach"), figures(here.run, "cleveland")
    assert len(own) > 20 and standing(own, there) == 0
    assert standing(named, there) >= 0.9 * len(named)  # what is looked for can be found
    last = {
        site["site"]: site["last-run"]
        for site in json.loads(coordinator.run(["coordinator", "status", "--json"]))["sites"]
    }
    assert [last[site]["answer"] for site in SHARES] == ["accepted"] * 3
    assert all(figure["value"] is None for figure in deployed["global"].values())
