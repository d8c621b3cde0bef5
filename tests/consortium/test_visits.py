"""A model over visits at three real institutions, in secure sums: killed, resumed, one away; and what is where."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flfed.records.store.reader import RunReader
from flfed.rows.data import datasets
from flfed.rows.statistics.listed.glm import Glm
from flfed.updates.masks.ring import ring_of_counts
from tests.consortium.memory import Numbers, with_descendants
from tests.consortium.test_secure_sums import FOUR, KILLED, command, kill, newest, words
from tests.machines import until

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(900)]
THREE = FOUR[:3]
GLM = """
format = 1
name = "small-odds"
purpose = "Estimate odds"
legal-basis = "none needed"
[dataset]
name = "small"
[statistic]
name = "glm"
family = "binomial"
of = ["x1", "x2", "colour"]
[privacy]
secure-aggregation = "on"
"""
SHORT = """
from flfed.federation.server import run_setting
from flfed.updates.strategies.fedavg import FedAvg
run_setting.deadline_of, FedAvg.wait = lambda study: 60.0, 10.0
"""
"""A coordinator that waits a minute and ten seconds, where it would wait ten minutes and a day."""
POLICY = 'format = 1\ndisclosure = "institution"\noutputs = ["single-cells-in-sums"]\n'
WAITS = """
import json, os, time
from pathlib import Path
from flfed.rows.statistics.listed.glm import Glm
there, following = Path(os.environ["WAITS"]), Glm.next

def waiting(model, visits, schema):
    if len(visits) == 3 and not (there / "over").exists():
        numbers = {
            "points": [visit.point["coefficients"].tolist() for visit in visits],
            "sums": [{name: own.astype(float).tolist() for name, own in visit.sums.items()} for visit in visits],
        }
        (there / "visits.json").write_text(json.dumps(numbers))
        (there / "there").touch()
        while not (there / "over").exists():
            time.sleep(0.05)
    return following(model, visits, schema)

Glm.next = waiting
"""
"""A coordinator that waits after its third visit, whose sums it has."""
SETTINGS: dict[str, Any] = {"family": "binomial", "of": ["x1", "x2", "colour"]}
PARTS = ("gradient", "hessian")


@pytest.fixture(scope="module")
def serving(consortium: Any) -> dict[str, Any]:
    """The processes that serve three institutions, whose people have approved the study."""
    for name in FOUR:
        (consortium.root / "packages" / "sites" / name / "policy.toml").write_text(POLICY)
    found = {name: consortium.sites[name].serve(f"site serve {name}") for name in THREE}
    consortium.online(3)
    pins = consortium.pins(THREE)
    for name in THREE:
        consortium.approve(name, GLM, THREE, sums=True, pins=pins)
    return found


def own_sums(consortium: Any, points: list[list[float]]) -> dict[str, dict[str, np.ndarray]]:
    """Return each site's own sums, by visit and name, from its rows."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with consortium.coordinator.here():
        schema = datasets.load("small").schema
    for name in THREE:
        table = pd.read_csv(consortium.root / "packages" / "sites" / name / "rows.csv")
        found[name] = {}
        for visit, point in enumerate(points):
            sums = Glm(**SETTINGS).at({"coefficients": np.array(point)}).sums(table, schema)
            found[name] |= {f"{visit} {part}": sums[part] for part in PARTS}
    return found


def numbers_of(sums: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Return sums as they are, and as the ring of the sum has them."""
    scale = ring_of_counts(3, 999).scale
    # Of the first visit, at coefficients of 0, some are halves and quarters of counts.
    later = {key: values for key, values in sums.items() if not key.startswith("0")}
    found = {f"{name} {key}": values for key, values in later.items()}
    for key, values in later.items():
        found[f"{name} {key} in the ring"] = np.rint(values * scale).astype(np.int64)
    return found


def test_no_own_sums_are_in_the_coordinators_memory_database_or_log(
    consortium: Any, serving: dict[str, Any], tmp_path: Path
):
    machine = consortium.coordinator
    with (tmp_path / "log").open("wb") as log:
        conducting = subprocess.Popen(
            [sys.executable, "-c", f"{WAITS}\nfrom flfed.cli import main; main()", *words(consortium, GLM, THREE)],
            stdout=log, stderr=log, env={**machine.environment, "WAITS": str(tmp_path)}, cwd=machine.exchange,
        )  # fmt: skip
    said = (tmp_path / "log").read_text
    try:
        until("the third visit", (tmp_path / "there").exists, seconds=600, process=conducting, said=said)
        visits = json.loads((tmp_path / "visits.json").read_text())
        own = own_sums(consortium, visits["points"])
        added = {f"{visit} {part}": np.array(sums[part]) for visit, sums in enumerate(visits["sums"]) for part in PARTS}
        # The numbers that are looked for are the right ones: they add up to what the coordinator has.
        for key, values in added.items():
            np.testing.assert_allclose(sum(sums[key] for sums in own.values()), values, rtol=1e-9, atol=1e-9)
        secret = {}
        for name, sums in own.items():
            secret |= numbers_of(sums, name)
        coordinators = {pid for one in (*machine.started, conducting) for pid in with_descendants(one.pid)}
        found = {pid: Numbers(secret).in_process(pid) for pid in coordinators}
        assert set().union(*found.values()) == set(), found
        # The same search finds the added sums there, and a site's own in its process.
        shared = Numbers(numbers_of(added, "added")).in_process(conducting.pid)
        assert {f"added {visit} {part}" for visit in (1, 2) for part in PARTS} <= shared, shared
        at_alpha = Numbers(numbers_of(own["alpha"], "alpha"))
        there = set().union(*(at_alpha.in_process(pid) for pid in with_descendants(serving["alpha"].pid)))
        assert there
    finally:
        (tmp_path / "over").touch()
        assert conducting.wait(600) == 0, said()
    files = [path for path in machine.home.rglob("*") if path.is_file()]
    files += [machine.log_file, tmp_path / "log"]
    assert {str(path): names for path in files if (names := Numbers(secret).in_file(path))} == {}
    # The same search finds the coefficients in the database, and in what the command said.
    with machine.here(), RunReader.open() as reader:
        figures = reader.summary(newest(consortium).run, "statistics")
    assert figures is not None
    values = np.array([one["value"] for one in figures["coefficients"].values()])
    shown = [path.name for path in files if Numbers({"coefficient": values}).in_file(path)]
    assert {"runs.db", "log"} <= set(shown), shown


def test_a_killed_run_goes_on_to_the_same_figures_and_one_without_a_site_stops(
    consortium: Any, serving: dict[str, Any]
):
    whole, said = command(consortium, words(consortium, GLM, THREE))
    assert whole["status"] == "completed", said
    figures = whole["statistics"]
    assert (figures["sites"], figures["rows"]) == (3, 390) and "by-site" not in figures
    command(consortium, words(consortium, GLM, THREE), KILLED % 3, code=-9)
    begun = newest(consortium).run
    resumed, said = command(consortium, ["study", "resume", begun, "--json"])
    assert (resumed["run"], resumed["status"]) == (begun, "completed"), said
    assert resumed["statistics"] == figures
    for name in THREE:
        lines = [line for line in consortium.sites[name].lines() if line.get("run") == begun]
        visits = [(line["round"], line["asked-sha256"]) for line in lines if line["kind"] == "statistic"]
        # Visits before the kill are answered again, as they were.
        assert len(visits) > len(set(visits)) == figures["visits"]
    # One is away when the run goes on.
    command(consortium, words(consortium, GLM, THREE), KILLED % 2, code=-9)
    kill(serving, "gamma")
    consortium.online(2)
    _, said = command(consortium, ["study", "resume", newest(consortium).run, "--json"], SHORT, code=3)
    assert newest(consortium).status == "stopped", said
    assert "gamma" in newest(consortium).reason
