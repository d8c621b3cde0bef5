"""Flower's simulation on Ray: the same arrays as in this process, the same faults, and nothing left behind."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flfed import Study, run
from flfed.errors import FlfedError
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.run import Result
from flfed.records.store.reader import RunReader
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame
from flfed.updates.checkpoints import checkpoint
from flfed.updates.checkpoints.site_state import NodeState
from tests.boosting import trees_study

QUICK = {"rounds": 3, "resamples": 200}


def arrays_of(result: Result) -> dict[str, np.ndarray]:
    return checkpoint.final(result.run).arrays


def processes_of(home: Path) -> list[str]:
    """The commands of other processes that were started with this home: Ray's inherit it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"FLFED_HOME={home}\0".encode() in (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mine and int(folder.name) != os.getpid():
            found.append(command)
    return found


@pytest.fixture
def nothing_left(home: Path) -> Iterator[None]:
    """Check after a test that no process of Ray outlives it, nor any of its settings."""

    def settings() -> object:
        environment = {key: value for key, value in os.environ.items() if key.startswith(("RAY", "PY", "OMP"))}
        environment.pop("PYTEST_CURRENT_TEST")
        return environment, signal.getsignal(signal.SIGTERM), logging.getLogger("flwr").level

    before = settings()
    yield
    assert settings() == before
    end = time.monotonic() + 30
    while (left := processes_of(home)) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == []


def refusing(like: Site) -> Site:
    """A site of the same dataset, whose table has none of its columns."""
    return replace(like, name="a-newcomer", source=Frame(pd.DataFrame({"x": ["P-0001"]})), folder=None)


@pytest.mark.servers
@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.proof) for name in ("preterm-birth", "diabetes")), "wine"]
)
def test_ray_gives_the_arrays_and_the_faults_of_the_process_itself(name: str, nothing_left, capfd):
    study = Study.load(name).replace(QUICK)
    # A site that refuses comes first in name order: the others' partitions are not their places in the roster.
    sites = [*find_sites(study)[::-1]] if study.dataset.partition is None else None
    sites = [*sites, refusing(sites[0])] if sites else None
    here, there = (run(study, engine=engine, sites=sites) for engine in ("inprocess", "ray"))
    assert "Traceback" not in (said := capfd.readouterr().err) and "ray" not in said.lower()
    assert (there.report["engine"], there.status) == ("ray", "completed")
    found = arrays_of(here)
    assert np.abs(found["weight"]).max() > 0.01
    for key, value in found.items():
        np.testing.assert_allclose(arrays_of(there)[key], value, rtol=0, atol=1e-6)
    assert there.report["faults"] == here.report["faults"]
    assert len(there.report["faults"]) == (0 if sites is None else 1)
    pd.testing.assert_frame_equal(there.sites, here.sites)
    # Only an engine that holds all tables has these.
    assert here.report["pooled"] and there.report["pooled"] is None


@dataclass(frozen=True, eq=False)
class Noted(Frame):
    """A frame that notes which processes read it."""

    folder: str = ""

    def read(self, folders: Sequence[Path]) -> pd.DataFrame:
        (Path(self.folder) / str(os.getpid())).touch()
        return super().read(folders)


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.parametrize("changes", [
    {"codec.name": "top-k", "codec.share": 0.4},
    {"strategy.name": "scaffold"},
    {"strategy.name": "fedper", "model.name": "mlp", "model.hidden": [8]},
    {"strategy.name": "ditto"}, {"codec.name": "int8"},
])  # fmt: skip
def test_codecs_variates_and_own_parts_give_what_the_process_itself_gives_though_messages_reach_several_processes(
    changes, small_sites, small_study, tmp_path, nothing_left, monkeypatch
):
    study = Study.parse(small_study).replace({"rounds": 8, **changes})
    sites = []
    for site in small_sites(3):
        (folder := tmp_path / site.name).mkdir()
        sites.append(replace(site, source=Noted(site.source.table, folder=str(folder))))
    there = run(study, engine="ray", sites=sites)
    assert there.status == "completed" and there.report["faults"] == []
    assert max(len(list((tmp_path / site.name).iterdir())) for site in sites) > 1
    found = arrays_of(there)
    here = run(study, sites=sites)
    for key, value in arrays_of(here).items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-6)
    for site in sites:  # what is their own of the model is here where it was trained too
        for arm in ("global", "personalised"):
            figures = [told.report["sites"][site.name][arm]["log_loss"]["value"] for told in (here, there)]
            assert figures[0] == pytest.approx(figures[1], abs=1e-6)
    if changes.get("codec.name") != "int8":  # of sites that forget what they kept the arrays would be others
        monkeypatch.setattr(NodeState, "before", lambda self, round: {})
        forgetful = arrays_of(run(study, sites=sites))
        if changes.get("strategy.name") == "ditto":  # its shared model does not follow from it
            assert all((forgetful[key] == value).all() for key, value in arrays_of(here).items())
            return
        assert max(np.abs(found[key] - value).max() for key, value in forgetful.items()) > 1e-3


@pytest.mark.proof
@pytest.mark.servers
def test_trees_are_those_of_the_process_itself(small_sites, small_study, nothing_left):
    chosen = {"strategy.select": "best", "strategy.patience": 3, "strategy.rounds": 8}
    study = Study.parse(trees_study(small_study, **chosen))
    sites = small_sites(3, rows=150)
    there, here = run(study, engine="ray", sites=sites), run(study, sites=sites)
    assert there.status == "completed" and there.report["faults"] == []
    assert there.report["rounds"] == here.report["rounds"]
    for key, value in arrays_of(here).items():
        np.testing.assert_array_equal(arrays_of(there)[key], value)


@dataclass(frozen=True, eq=False)
class Untakeable(Frame):
    """A frame that no other process can take: what goes wrong has a cell in its text."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("Jane Roe",)


@pytest.mark.proof
@pytest.mark.servers
def test_what_goes_wrong_in_rays_processes_is_one_sentence_without_a_trace(small_sites, small_study, nothing_left):
    sites = [replace(site, source=Untakeable(site.source.table)) for site in small_sites(2)]
    with pytest.raises(FlfedError) as failed:
        run(Study.parse(small_study), engine="ray", sites=sites)
    reason = "a node did not enrol: the process at this node failed: see Ray's logs"
    assert str(failed.value) == f"no site takes part, at least 2 are needed ({reason}; {reason})"
    with RunReader.open() as reader:
        assert reader.runs_of("latest")[0].status == "failed"


INTERRUPTED = """
import sys, time
from dataclasses import dataclass, replace
from flfed import Csv, Study, run
from flfed.federation.engines.engine import find_sites
from flfed.errors import RunStopped

@dataclass(frozen=True)
class Slow(Csv):
    def read(self, folders):
        open(sys.argv[1], "w").close()
        time.sleep(600)

study = Study.load("preterm-birth")
sites = [replace(site, source=Slow("rows.csv")) for site in find_sites(study)]
try:
    run(study, engine="ray", sites=sites)
except RunStopped as error:
    print(error)
"""


@pytest.mark.proof
@pytest.mark.servers
def test_an_interrupt_ends_a_run_whose_sites_are_busy_and_rays_processes_with_it(home, nothing_left, tmp_path):
    program, busy = tmp_path / "program.py", tmp_path / "busy"
    program.write_text(INTERRUPTED.replace("sys.argv[1]", repr(str(busy))))
    # As from a keyboard: the signal reaches every process of the group.
    running = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        while not busy.exists() and running.poll() is None:
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    # A program's own sites are not found by name, so a command could not resume it.
    assert "interrupted from the keyboard; all results so far are stored: resume it from Python, by" in out, err
    # While tables are read there is a sign of life every ten seconds, and nothing else.
    assert running.returncode == 0 and re.fullmatch(r"(reading tables, \d+ s\n)*", err)
    with RunReader.open() as reader:
        assert reader.runs_of("latest")[0].status == "stopped"


WITHOUT = """
import sys
import flfed.federation.server.run, flfed.federation.engines.ray
print(sum(name.partition(".")[0] == "ray" for name in sys.modules))
sys.modules["ray"] = None
try:
    flfed.run("preterm-birth", engine="ray")
except flfed.errors.UsageError as error:
    print(error)
"""


@pytest.mark.servers
def test_ray_is_not_needed_until_it_is_asked_for_and_then_named(home: Path):
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    loaded, said = done.stdout.splitlines()
    assert int(loaded) == 0
    assert said == "engine 'ray' needs an extra: pip install 'flfed[ray]'"
    assert not (home / "runs.db").exists()
