"""PostgreSQL as run store: a real server holds what SQLite holds, and every trouble with it is one sentence."""

import json
import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import NullPool, create_engine, func, select, text

from flfed import Limits, Sql, Study
from flfed.cli import main
from flfed.errors import FlfedError, UsageError
from flfed.federation.server.run import resume, run
from flfed.records.reports.report import report
from flfed.records.store.database import engine_to_read, store_url
from flfed.records.store.entries import SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import VERSION, Base, Metric, Run, Sent
from flfed.records.store.writer import ComparisonRow, EventRow, MetricRow, RunStore, RunWriter, SentRow
from tests.postgres import PASSWORD, Server, running_server

pytestmark = [pytest.mark.slow, pytest.mark.servers]

ROOT = Path(__file__).parents[2]
RUN = {"engine": "inprocess", "path": "one-by-one", "seed": 42, "rounds_planned": 3, "primary": "log_loss"}


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A running server of this test session."""
    yield from running_server()


@pytest.fixture
def url(server: Server) -> str:
    """A new database, instead of the SQLite file of the other tests."""
    return server.fresh()


def begun(store: RunStore, **more: Any) -> RunWriter:
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=1)
    return store.begin_run(series, task="binary", **RUN | more)


def python(code: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", code, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=variables, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def everything(url: str) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of all tables, less what differs from run to run: names by time, times, the process."""
    own = {"id", "run_id", "series_id", "started", "finished", "at", "seconds", "pid", "process"}
    engine = engine_to_read(store_url(url))
    found = {}
    with engine.connect() as connection:
        for table in [table for table in Base.metadata.sorted_tables if table.name != "flfed_version"]:
            rows = connection.execute(select(table)).mappings().all()
            keys = [column.name for column in table.primary_key]
            # Repeats go on side by side: which of them writes first is chance, and the order within each is not.
            rows = sorted(rows, key=lambda row: (row.get("run_id") or "", *(row[key] for key in keys)))
            kept = [{key: value for key, value in row.items() if key not in own} for row in rows]
            for row in kept:
                row |= {"value": None} if row.get("arm") == "clock" else {}
            # Long tables are compared in the order in which each run wrote, as ids count it.
            kept = sorted(kept, key=repr) if "id" not in table.c or table.name in ("run", "series") else kept
            found[table.name] = kept
    engine.dispose()
    return found


def test_a_store_is_made_once_and_one_of_another_version_is_refused(url, flfed, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", url)
    RunStore.open(url).close()
    RunStore.open(url).close()  # a second opening changes nothing
    engine = create_engine(url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT number FROM flfed_version")).scalars().all() == [VERSION]
        connection.execute(text("UPDATE flfed_version SET number = 9999"))
    engine.dispose()
    for words in (("run", "list"), ("run", "delete", "latest", "--yes"), ("study", "run", "wine")):
        code, out, err = flfed(*words)
        assert (code, out) == (2, "") and "tables of version 9999" in " ".join(err.split())
        assert PASSWORD not in err


def test_the_same_study_leaves_the_same_records_in_both_databases(url, small_sites, small_study, tmp_path, monkeypatch):
    monkeypatch.setenv("FLFED_CHECKPOINT_SECONDS", "1000")  # rounds are written together
    sites = small_sites(3, rows=80)
    spoiled = lambda number, frame: frame.assign(x1="Jane Roe") if number == 2 else frame  # noqa: E731 - a fault
    sites = [*sites[:2], small_sites(3, rows=80, change=spoiled)[2]]
    stores = (f"sqlite:///{tmp_path}/runs.db", url)
    results = [run(Study.parse(small_study), sites=sites, repeats=2, store=store) for store in stores]
    lite, postgres = (everything(store) for store in stores)
    counts = {name: len(rows) for name, rows in lite.items()}
    assert (counts["series"], counts["run"], counts["run_site"]) == (1, 2, 6)
    assert min(counts[name] for name in ("metric", "sent", "event", "comparison", "summary")) >= 4
    for name, rows in lite.items():
        assert postgres[name] == rows, name
    first, second = (result.report | {"run": "", "seconds": 0} for result in results)
    assert json.dumps(first) == json.dumps(second)
    assert first["status"] == "completed" and first["rounds"] == 5
    for store in stores:
        with RunReader.open(store) as reader:
            runs = [run.run for run in reader.runs()]
        with RunStore.open(store) as opened:
            opened.delete(runs[:1])
            assert len(everything(store)["series"]) == len(everything(store)["run"]) == 1
            opened.delete(runs[1:])
        assert not any(everything(store).values())


def test_numbers_flags_and_objects_come_back_as_written(url, tmp_path):
    looks = []
    for store in (f"sqlite:///{tmp_path}/runs.db", url):
        with RunStore.open(store) as opened:
            mine = begun(opened, seed=2**62, hashes={"b": [1, None, 0.1], "a": {"ü": True}})
            mine.sites([SiteRow("a", rows=3 * 10**10, resplit=True, title="x\0y", disclosure="d" * 50)])
            mine.sites([SiteRow("B", resplit=False)])
            mine.sites([SiteRow("a-b", reason="ends with a lone surrogate \ud800")])
            mine.round(1, metrics=[MetricRow("a", "training", "log_loss", math.nan, -math.inf, 1 / 3, 1e-300, 7)],
                       sent=[SentRow("a", "to-site", "arrays", 2**40)])  # fmt: skip
            mine.events([EventRow(None, None, "note", "a" * 5000)])
            mine.comparison([ComparisonRow(None, "global", "m" * 200, 0.1 + 0.2)], [])
        with RunReader.open(store) as reader:
            entry = reader.runs()[0]
            looks.append((entry.seed, list(entry.hashes["b"]), entry.hashes, reader.sites(mine.run),
                          reader.metrics(mine.run, 1), reader.bytes_sent([mine.run]),
                          reader.events([mine.run])[0].reason, reader.figures(mine.run)))  # fmt: skip
    lite, postgres = looks
    assert postgres == lite
    assert (postgres[0], postgres[5], postgres[7][0].value) == (2**62, {"to-site": 2**40}, 0.1 + 0.2)
    assert postgres[4] == [MetricRow("a", "training", "log_loss", None, None, 1 / 3, 1e-300, 7)]
    sites = {site.site: site for site in postgres[3]}
    assert list(sites) == ["B", "a", "a-b"]  # by bytes; the server itself sorts a, a-b, B
    assert (sites["a"].rows, sites["a"].resplit, sites["B"].resplit) == (3 * 10**10, True, False)
    assert (sites["a"].title, sites["a"].disclosure) == ("x\ufffdy", "d" * 19 + "…")
    assert len(postgres[7][0].metric) == 120


def test_a_reader_sees_only_whole_rounds_while_a_run_writes(url):
    rounds, sites = 40, [f"site-{number}" for number in range(25)]
    with RunStore.open(url) as store:
        mine = begun(store, rounds_planned=rounds)

        def write() -> None:
            for number in range(1, rounds + 1):
                rows = [MetricRow(site, "training", "log_loss", 0.5) for site in sites]
                sent = [SentRow(site, "to-site", "arrays", 8) for site in sites]
                mine.round(number, metrics=rows, sent=sent, durable=number % 5 == 0)
            mine.finish(status="completed")

        writer = threading.Thread(target=write)
        # One statement is one look: what the run says is committed, and what is there of it.
        counts = [select(func.count()).where(table.run_id == mine.run).scalar_subquery() for table in (Metric, Sent)]
        look = select(Run.rounds, *(count.label(name) for count, name in zip(counts, ("metrics", "sent"), strict=True)))
        looks = []
        with RunReader.open(url) as reader:
            writer.start()
            alive = True
            while alive:
                alive = writer.is_alive()
                [row] = reader.rows(look.where(Run.id == mine.run))
                looks.append((row["rounds"], row["metrics"], row["sent"]))
        writer.join()
    assert len(set(looks)) > 3 and max(looks)[0] == rounds
    for done, metrics, sent in looks:
        assert (metrics, sent) == (done * len(sites), done * len(sites))


def test_a_role_that_may_only_read_reads_and_is_told_that_it_cannot_write(url, server: Server, write):
    database = store_url(url).database or ""
    with RunStore.open(url) as store:
        name = write(store, store.begin_series(study="heart-disease", study_sha256="", study_text="")).run
    server.sql(f"CREATE ROLE {database}_reader LOGIN PASSWORD '{PASSWORD}'")
    reading = server.url(database, f"{database}_reader")
    with pytest.raises(UsageError, match="permission denied.*docs/run-store.md"):
        RunReader.open(reading)
    server.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {database}_reader", database)
    with RunReader.open(reading) as reader, RunReader.open(url) as owner:
        assert report(reader, name) == report(owner, name)
        assert reader.headlines([name]) == {name: 0.896}
        with pytest.raises(Exception, match="read-only transaction"), owner._engine.begin() as connection:
            connection.execute(text("DELETE FROM run"))  # a reader cannot write, whoever opened it
    with RunStore.open(reading) as store, pytest.raises(UsageError, match="permission denied for table series") as no:
        store.begin_series(study="s", study_sha256="", study_text="")
    assert PASSWORD not in str(no.value) and "\n" not in str(no.value)


def test_an_empty_database_reads_as_a_store_without_runs(url):
    with RunReader.open(url) as reader:
        assert reader.runs() == []
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar() == 0
    engine.dispose()


def test_programs_may_make_and_write_the_same_store_at_once(url):
    code = (
        "from flfed.records.store.writer import MetricRow, RunStore\n"
        "store = RunStore.open()\n"
        "series = store.begin_series(study='s', study_sha256='', study_text='')\n"
        "run = store.begin_run(series, engine='e', path='p', seed=1, rounds_planned=20, primary='m', task='t')\n"
        "for number in range(1, 21):\n"
        "    run.round(number, metrics=[MetricRow('a', 'fit', 'loss', float(number))] * 5)\n"
        "run.finish(status='completed')\n"
    )
    programs = [python(code, FLFED_STORE=url) for _ in range(3)]
    assert [program.communicate(timeout=120)[1] for program in programs] == [""] * 3
    with RunReader.open(url) as reader:
        runs = reader.runs()
        assert [(entry.status, entry.rounds) for entry in runs] == [("completed", 20)] * 3
        assert [len(reader.metrics(entry.run, 20)) for entry in runs] == [5] * 3
        [lost] = reader.rows(select(Metric.round).where(Metric.round == 21)) or [None]
        assert lost is None


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Call a command with a store; return exit code and standard error."""

    def call(store: str, *words: str) -> tuple[int, str]:
        monkeypatch.setenv("FLFED_STORE", store)
        monkeypatch.setattr(sys, "argv", ["flfed", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), capsys.readouterr().err

    return call


@pytest.mark.parametrize(("change", "says"), [
    (lambda url: url.replace(PASSWORD, "another-secret"), "check user and password in FLFED_STORE"),
    (lambda url: url.rpartition("/")[0] + "/no_such_database", "have the server's administrator make it"),
    (lambda url: url.replace(str(store_url(url).port), "1"), "check that the server runs"),
    (lambda url: url.replace("127.0.0.1", "no-such-host.invalid"), "check that the server runs"),
    (lambda url: url.replace(f"{PASSWORD}@", f"x@y:{PASSWORD}/"), "percent-encode @:/"),
    (lambda url: url.replace("owner:" + PASSWORD + "@", "") + f"?user=x&password={PASSWORD}", "user and password"),
    (lambda url: url.replace("postgresql+psycopg", "mysql"), "cannot be 'mysql'"),
], ids=["password", "database", "port", "host", "slash", "query", "mysql"])  # fmt: skip
def test_a_store_that_cannot_be_reached_is_one_sentence_and_exit_code_2(server: Server, said, change, says):
    for words in (("run", "list"), ("study", "run", "preterm-birth", "--set", "rounds=1", "--json")):
        code, err = said(change(server.url()), *words)
        assert code == 2, err
        assert says in err and len(err.splitlines()) == 1
        assert PASSWORD not in err and "another-secret" not in err


def test_an_address_without_a_driver_is_taken_and_a_missing_driver_names_the_extra(server: Server):
    url = server.url()
    with RunReader.open(url.replace("postgresql+psycopg", "postgresql")) as reader:
        assert reader.runs() == []
    code = (
        "import sys; sys.modules['psycopg'] = None; sys.argv = ['flfed', 'run', 'list']\n"
        "from flfed.cli import main; main()"
    )
    program = python(code, FLFED_STORE=url)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 2
    assert "pip install 'flfed[postgres]'" in err and len(err.splitlines()) == 1


STOPPING = """
import json, subprocess, sys
from flfed import Study, run
from flfed.errors import FlfedError
command, user = json.loads(sys.argv[1])
def progress(stage, done, of):
    if (stage, done) == ("rounds", 3):
        subprocess.run(command, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)
try:
    run(Study.load("preterm-birth").replace({"rounds": 6, "resamples": 200}), progress=progress)
except FlfedError as error:
    print(error)
"""


def test_a_server_that_stops_during_a_run_ends_it_with_one_sentence_and_loses_no_round(url, server: Server):
    command = json.dumps([server.stop_command(), server.user])
    program = python(STOPPING, command, FLFED_STORE=url)
    out, err = program.communicate(timeout=120)
    try:
        assert (program.returncode, len(out.splitlines())) == (0, 1), err
        assert "could not be written" in out and "what was committed is safe" in out and PASSWORD not in out
        with pytest.raises(FlfedError, match="could not be opened"):
            RunReader.open(url)
    finally:
        server.start()
    with RunReader.open(url) as reader:
        [entry] = reader.runs()
        assert (entry.status, entry.rounds) == ("interrupted", 3)
        assert [len(reader.metrics(entry.run, number)) > 4 for number in (1, 2, 3, 4)] == [True, True, True, False]
    again = resume(entry.run, store=url)
    assert (again.status, again.report["rounds"]) == ("completed", 6)


def test_the_roles_that_the_documentation_makes_may_write_and_read(server: Server):
    page = (ROOT / "docs" / "run-store.md").read_text()
    first, second = re.findall(r"^```sql\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    for statement in first.strip().split("\n"):
        server.sql(statement)
    server.sql(second, "flfed")
    with RunStore.open(server.url("flfed", "flfed_writer", "change-me")) as store:
        name = begun(store).run
    with RunReader.open(server.url("flfed", "flfed_reader", "change-me-too")) as reader:
        assert [(entry.run, entry.rounds) for entry in reader.runs()] == [(name, 0)]


@pytest.mark.proof
@pytest.mark.alone
def test_the_app_shows_each_round_that_is_written_to_the_server_within_2_seconds(window, going, lags):
    window.page.get_by_role("link", name="long-study").click()
    window.page.get_by_text("rounds ran").wait_for()
    assert max(lags(window)) < 2


def test_a_site_reads_a_query_in_parts_and_ends_one_that_returns_too_much_or_nothing(url, monkeypatch):
    monkeypatch.setenv("FLFED_SITE_URL", url)
    query = "SELECT g, g / 3.0 AS third, 't' || g AS words, NULL::int AS gap FROM generate_series(1, 1200) g;"
    with create_engine(url, poolclass=NullPool).connect() as connection:
        wanted = pd.read_sql_query(text(query), connection)
    pd.testing.assert_frame_equal(Sql(query).read(()), wanted, check_exact=True)
    with pytest.raises(UsageError, match="more than 20,000 rows, its bound"):
        Sql("SELECT generate_series(1, 100000000000)", limits=Limits(rows=20_000)).read(())
    with pytest.raises(UsageError, match="takes more than 1 seconds, its bound"):
        Sql("SELECT pg_sleep(600)", limits=Limits(seconds=1)).read(())


def test_a_sites_query_changes_nothing_in_the_database(url, monkeypatch):
    monkeypatch.setenv("FLFED_SITE_URL", url)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE ward AS SELECT g AS age FROM generate_series(1, 50) g"))
    for query in ("DELETE FROM ward", "DROP TABLE ward", "ALTER TABLE ward ADD name text"):
        with pytest.raises(UsageError, match="gives no table: write one SELECT"):
            Sql(query).read(())
    # A cursor of the server reads, and takes no statement that changes rows.
    gone = "WITH gone AS (DELETE FROM ward RETURNING age) SELECT * FROM gone"
    for query in ("SELECT age INTO other FROM ward", "WITH old AS (SELECT 1) DELETE FROM ward", gone):
        with pytest.raises(UsageError, match="the site's database query"):
            Sql(query).read(())
    with engine.connect() as connection:
        tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        assert tables.scalars().all() == ["ward"]
        assert connection.execute(text("SELECT count(*) FROM ward")).scalar() == 50
