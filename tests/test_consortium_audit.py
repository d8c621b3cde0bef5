"""An audit over the wire: each site attacks itself, figures come back, no row does, and the ledger has a line for each.

Real processes on loopback: SuperLink, Caddy, TLS, three sites with homes and keys of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flfed.apps.auditing import audit
from flfed.apps.checking import find_sites
from flfed.apps.running import run
from flfed.rows.workplace import Workplace
from flfed.study import Study
from flfed.updates import checkpoint as checkpoints
from tests.machines import COORDINATOR, SITE, Machine, all_online, begin, machines_of, take_in, until

SITES = ("cleveland", "hungary", "long-beach")
ATTACKS = ("membership-inference", "gradient-inversion")
ROUNDS = 2
CHOSEN = [word for name in ATTACKS for word in ("--attack", name)]


@pytest.fixture
def machines() -> Iterator[dict[str, Machine]]:
    with machines_of(SITES) as found:
        yield found


def rows_of(study: Study, name: str) -> set[bytes]:
    """Return what every row of a run's sites looks like as bytes: all its inputs, in both precisions and orders."""
    encoder, found = checkpoints.final(name).encoder, set[bytes]()
    for site in find_sites(study, SITES):
        x = Workplace(site, study).training(encoder).x
        assert len(np.unique(x, axis=0)) > 0.9 * len(x)
        found |= {row.astype(kind).tobytes() for row in x for kind in ("<f8", "<f4", ">f8")}
    return found


def standing(needles: set[bytes], home: Path) -> list[str]:
    """Return the files of a machine in which a row stands, but for what was downloaded."""
    contents = {
        path: path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and "data" not in path.relative_to(home).parts[:1]
    }
    assert len(contents) > 5
    return [str(path) for path, content in contents.items() if any(needle in content for needle in needles)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_audit_over_the_wire_gives_the_figures_of_one_in_this_process(machines, test_data, heart):
    coordinator = machines["coordinator"]
    begin(machines, test_data)
    path = coordinator.study("heart-disease", rounds=ROUNDS)
    for site in SITES:
        take_in(coordinator, machines[site])
        said = machines[site].run([path if word == "heart-disease" else word for word in SITE["site approve"]])
        assert "for each attack if the run is audited" in said
        machines[site].start(SITE["site serve"])
    until("three sites", lambda: all_online(coordinator, 3))
    words = [path if word == "heart-disease" else word for word in COORDINATOR["coordinator run"]]
    name = json.loads(coordinator.run([*words, "--json"]))["run"]
    before = {site: len(machines[site].ledger_lines()) for site in SITES}
    there = json.loads(coordinator.run(["audit", name, *CHOSEN, "--json"]))
    here_run = run(Study.load(path), sites=list(SITES)).run
    here = audit(here_run, attacks=ATTACKS).as_object()
    assert there["faults"] == here["faults"] == [] and len(there["findings"]) == len(here["findings"]) >= 18
    for one, other in zip(there["findings"], here["findings"], strict=True):
        assert [one[key] for key in ("attack", "site", "metric", "rows", "verdict")] == [
            other[key] for key in ("attack", "site", "metric", "rows", "verdict")
        ]
        assert other["low"] <= one["value"] <= other["high"]
        assert one["value"] == pytest.approx(other["value"], abs=0.01)  # the models differ by rounding
    for site in SITES:
        lines = machines[site].ledger_lines()[before[site] :]
        assert [line["kind"] for line in lines] == ["enrol", "audit", "audit", "seal", "sealed"]
        assert {line["run"] for line in lines} == {name}
        assert all(0 <= line["bytes"] < 20_000 for line in lines)
    needles = rows_of(Study.load(path), here_run)
    assert standing(needles, coordinator.home) == []
    control = coordinator.home / "control"
    control.write_bytes(b"a row: " + min(needles))
    assert standing(needles, coordinator.home) == [str(control)]  # what is looked for can be found
