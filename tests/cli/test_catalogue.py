"""`flfed run list` and `delete`, and tables in other forms, on a store of real runs."""

import csv
import io
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text

from flfed import Study, run
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.reports.report import report
from flfed.records.store.database import store_url
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.updates.checkpoints import checkpoint as checkpoints
from tests.terminal import in_terminal

QUICK = {"rounds": 3, "resamples": 200}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A home with three repeats of one study and one run of another; both series' ids."""
    home = tmp_path_factory.mktemp("ran")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLFED_HOME", str(home))
        patch.delenv("FLFED_STORE", raising=False)
        several = run(Study.load("preterm-birth").replace(QUICK), repeats=3).run
        return home, several, run(Study.load("breast-cancer").replace(QUICK)).run


@pytest.fixture
def here(ran: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The ids of both series, in whose home this test is."""
    monkeypatch.setenv("FLFED_HOME", str(ran[0]))
    return ran[1:]


def test_the_list_has_one_line_for_all_repeats_with_the_mean_over_them(here, flfed):
    several, single = here
    code, out, err = flfed("run", "list", "--format", "csv")
    assert (code, err) == (0, "")
    lines = {line["run"]: line for line in csv.DictReader(io.StringIO(out))}
    assert list(lines) == [single, several]
    with RunReader.open() as reader:
        values = [report(reader, f"{several}-r0{n}")["global"]["roc_auc_score"]["value"] for n in (1, 2, 3)]
        one = report(reader, single)["global"]["roc_auc_score"]
    mean, sd = (f"{of(values):.3f}" for of in (statistics.mean, statistics.stdev))
    assert (lines[several]["figure"], lines[several]["95 % CI"]) == (f"AUC {mean}", f"sd {sd}")
    assert (lines[several]["repeats"], lines[several]["rounds"], lines[several]["status"]) == ("3", "3", "completed")
    low, high = (f"{one[end]:.3f}" for end in ("low", "high"))
    assert lines[single]["95 % CI"] == f"{low} to {high}"
    found = json.loads(flfed("run", "list", "--json")[1])
    assert [line["run"] for line in found["runs"]] == [single, *(f"{several}-r0{n}" for n in (3, 2, 1))]
    assert found["series"][1]["value"] == pytest.approx(statistics.mean(values), abs=1e-12)
    every = list(csv.DictReader(io.StringIO(flfed("run", "list", "--all", "--format", "csv")[1])))
    assert [line["run"] for line in every] == [line["run"] for line in found["runs"]]


def test_the_list_has_at_most_as_many_lines_as_are_asked_for(here, flfed):
    found = json.loads(flfed("run", "list", "--limit", "1", "--json")[1])
    assert [line["run"] for line in found["series"]] == [line["run"] for line in found["runs"]] == [here[1]]


def left_of(run: str) -> dict[str, int]:
    """How many lines of each table name a run."""
    engine = create_engine(store_url())
    with engine.connect() as connection:
        found = {}
        for table in inspect(engine).get_table_names():
            columns = {column["name"] for column in inspect(engine).get_columns(table)} & {"run_id", "series_id", "id"}
            for column in columns:
                query = text(f"SELECT count(*) FROM {table} WHERE CAST({column} AS VARCHAR) LIKE :run")
                found[f"{table}.{column}"] = connection.execute(query, {"run": f"{run}%"}).scalar_one()
    engine.dispose()
    return {place: count for place, count in found.items() if count}


@pytest.mark.studies
def test_a_run_is_deleted_whole_and_no_ledger_changes(home, flfed):
    ids = [run(Study.load("preterm-birth").replace(QUICK), repeats=2).run for _ in range(2)]
    folder = SiteFolder("kentucky-clinic")
    folder.gate.mkdir(parents=True, mode=0o700)
    ledger_of(folder).append(kind="train", study="preterm-birth", run=f"{ids[0]}-r01", round=1, bytes=10)
    before = {file: file.read_bytes() for file in folder.root.rglob("*") if file.is_file()}
    other = left_of(ids[1])
    code, _, err = flfed("run", "delete", ids[0])  # nobody is there to agree
    assert code == 2 and f"flfed run delete {ids[0]} --yes" in err and left_of(ids[0]) != {}
    assert flfed("run", "delete", f"{ids[0]}-r02", "--yes") == (0, f"{ids[0]}-r02: deleted (1 run).\n", "")
    assert flfed("run", "list")[1].count(ids[0]) == 1 and "1 of 2" in flfed("run", "list")[1]
    assert not checkpoints.folder_of(f"{ids[0]}-r02").exists() and checkpoints.folder_of(f"{ids[0]}-r01").exists()
    assert json.loads(flfed("run", "delete", ids[0], "--yes", "--json")[1]) == {
        "run": f"{ids[0]}", "deleted": [f"{ids[0]}-r01"],
    }  # fmt: skip
    assert left_of(ids[0]) == {} and left_of(ids[1]) == other
    assert not checkpoints.folder_of(f"{ids[0]}-r01").exists() and checkpoints.final(f"{ids[1]}-r01").round == 3
    assert len(before) >= 1 and all(file.read_bytes() == content for file, content in before.items())
    assert flfed("run", "delete", ids[0], "--yes")[0] == 2


def test_a_run_that_a_living_process_writes_is_not_deleted_and_one_of_a_dead_one_is(home, flfed):
    code = "from flfed.records.store.writer import RunStore; import time\n"
    code += "s = RunStore.open(); g = s.begin_series(study='s', study_sha256='', study_text='')\n"
    code += (
        "s.begin_run(g, engine='inprocess', path='p', seed=1, rounds_planned=1, primary='r2_score', task='number')\n"
    )
    code += "print(g, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            name = process.stdout.readline().strip()
            code_, _, err = flfed("run", "delete", name, "--yes")
            assert code_ == 2 and f"is still running (process {process.pid} on " in err and left_of(name) != {}
        finally:
            process.kill()
    assert flfed("run", "delete", name, "--yes")[0] == 0 and left_of(name) == {}


def test_a_terminal_asks_before_a_run_is_deleted(home):
    with RunStore.open() as store:
        series = store.begin_series(study="s", study_sha256="", study_text="")
        begun: dict[str, Any] = {"engine": "inprocess", "path": "p", "seed": 1, "rounds_planned": 1}
        store.begin_run(series, **begun, primary="r2_score", task="number").finish(status="failed", reason="x")
    code, lines = in_terminal("run", "delete", series, typed="n\n")
    assert code == 2 and f"Delete {series} (s, 1 run) for good?" in "\n".join(lines) and left_of(series) != {}
    code, _ = in_terminal("run", "delete", series, typed="y\n")
    assert code == 0 and left_of(series) == {}


def test_tables_are_printed_as_markdown_and_as_csv_alone(here, flfed):
    several, _ = here
    out = flfed("run", "show", several, "--format", "md")[1]
    head = next(line for line in out.splitlines() if line.startswith("| site |"))
    rows = [line for line in out.splitlines() if line.startswith("| kentucky")]
    assert len(rows) == 1 and rows[0].count("|") == head.count("|") and "3 rounds ran" in out
    code, out, err = flfed("run", "show", several, "--format", "csv")
    tables = [list(csv.reader(io.StringIO(part))) for part in out.split("\n\n")]
    assert code == 0 and [table[0][0] for table in tables] == ["site", "over all sites"]
    assert all(len(row) == len(table[0]) for table in tables for row in table)
    assert "3 rounds ran" in err  # what is no table
    code, _, err = flfed("run", "show", several, "--format", "csv", "--json")
    assert code == 2 and "--format and --json exclude each other" in err
    assert flfed("site", "list", "--format", "csv")[1].startswith("site,title,dataset,disclosure\n")
