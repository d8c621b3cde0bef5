"""The run store: what is written is read back, whole rounds only, on one schema, by many at once."""

import grp
import math
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from flfed.errors import FlfedError, UsageError
from flfed.paths import home
from flfed.records.store.database import store_url
from flfed.records.store.entries import ComparisonRow, DifferenceRow, EventRow, MetricRow, SentRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import VERSION
from flfed.records.store.takeover import Writer, is_gone, start_of, this_process
from flfed.records.store.writer import RunStore
from tests.another_account import NOBODY, account

ROOT = Path(__file__).parents[2]
RUN = {"engine": "inprocess", "path": "one-by-one", "seed": 42, "rounds_planned": 3, "primary": "log_loss"}


def begun(store: RunStore, *, repeats: int = 1, repeat: int = 0):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=repeats)
    return store.begin_run(series, repeat=repeat, task="binary", **RUN)


def python(code: str, other: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        [*other, sys.executable, "-c", code], env=variables, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_run_is_read_back_as_it_was_written(store, url, heart):
    with RunReader.open(url) as reader:
        run = reader.runs_of(heart)[0]
        assert (run.status, run.rounds, run.rounds_planned, run.seconds) == ("completed", 40, 40, 8.4)
        assert run.versions == {"flfed": "0.1.0", "torch": "2.13.0"}
        assert run.arrays_sha256 == "ef" * 32
        assert [site.site for site in reader.sites(heart)] == [
            "basel", "cleveland", "hungary", "long-beach", "switzerland",
        ]  # fmt: skip
        assert reader.sites(heart)[0].status == "refused"
        assert reader.summary(heart, "table-1")["rows"][0]["all sites"] == "920"
        assert reader.summary(heart, "absent") is None
        assert [event.kind for event in reader.events([heart])] == ["fault", "fault", "flag", "leak"]
        assert reader.bytes_sent([heart]) == {"to-site": 40 * 4 * 1200, "to-server": 40 * 4 * 1500}
        assert reader.series(heart).study_text == 'name = "heart-disease"\n'
        assert reader.headlines([heart]) == {heart: 0.896}


def test_figures_and_differences_come_back_equal(store, url):
    run = begun(store)
    figures = [ComparisonRow("a", "global", "log_loss", 0.5, 0.4, 0.6, 30, "bootstrap")]
    differences = [DifferenceRow("a", "global", "local-only", "log_loss", -0.1, -0.2, 0.0, 0.05, "paired", "x")]
    run.comparison(figures, differences)
    run.comparison(figures, differences)  # a second writing replaces the first
    with RunReader.open(url) as reader:
        assert reader.figures(run.run) == figures
        assert reader.differences(run.run) == differences


def test_numbers_that_are_not_finite_are_stored_as_unknown(store, url):
    run = begun(store)
    run.round(1, metrics=[MetricRow("a", "training", "log_loss", math.nan, -math.inf, 0.5, None, 7)])
    run.summary("encoder", {"scale": [1.0, math.inf]})
    with RunReader.open(url) as reader:
        assert reader.metrics(run.run, 1) == [MetricRow("a", "training", "log_loss", None, None, 0.5, None, 7)]
        assert reader.summary(run.run, "encoder") == {"scale": [1.0, None]}


def test_many_rows_of_any_kind_of_number_and_word_are_stored_as_one_row_would_be(store, url):
    run = begun(store)
    numbers = [None, 1, 0.1 + 0.2, math.inf, np.float32(0.5), np.float64(-1 / 3), np.float64("nan"), np.array(2.0)]
    words = ["a", "\u00e9", "x\0y", "\ud800", "s" * 130]
    rows = [MetricRow(word, "a" * 41, "m", value, n=np.int64(7)) for value in numbers for word in words]
    run.round(1, metrics=rows, sent=[SentRow("a", "to-site", "arrays", np.int64(2**40))])
    stored = {"x\0y": "x\ufffdy", "\ud800": "?", "s" * 130: "s" * 119 + "…"}
    known = [None, 1.0, 0.1 + 0.2, None, 0.5, -1 / 3, None, 2.0]
    with RunReader.open(url) as reader:
        assert reader.metrics(run.run, 1) == [
            MetricRow(stored.get(word, word), "a" * 39 + "…", "m", value, n=7) for value in known for word in words
        ]
        assert reader.bytes_sent([run.run]) == {"to-site": 2**40}
    row = MetricRow("a", "fit", "loss", 0.5)
    run.round(2, metrics=[row], scores=[row], seconds=1.5)
    with RunReader.open(url) as reader:
        assert reader.metrics(run.run, 2) == [row, MetricRow(None, "clock", "seconds", 1.5)]
        assert reader.metrics(run.run, 1)[-1] == row


def test_a_round_that_fails_midway_leaves_nothing_behind(store, url):
    run = begun(store)
    run.round(1, metrics=[MetricRow(None, "training", "log_loss", 0.7)])
    broken = SentRow("a", "to-site", "arrays", None)  # type: ignore[arg-type]  # the table refuses it
    with pytest.raises(FlfedError, match="could not be written"):
        run.round(2, metrics=[MetricRow(None, "training", "log_loss", 0.6)], sent=[broken])
    with RunReader.open(url) as reader:
        assert reader.metrics(run.run, 2) == []
        assert reader.runs()[0].rounds == 1


def test_no_round_is_counted_twice(store):
    run = begun(store)
    run.round(2)
    with pytest.raises(ValueError, match="round 2 .* committed already"):
        run.round(2)
    with pytest.raises(ValueError, match="round 1 .* committed already"):
        run.round(1)


def test_figures_after_the_last_round_do_not_count_as_a_round(store, url):
    run = begun(store)
    run.round(3, seconds=0.5)
    run.metrics(4, [MetricRow(None, "validation", "log_loss", 0.4)])
    with RunReader.open(url) as reader:
        assert reader.runs()[0].rounds == 3
        assert reader.metrics(run.run, 4)[0].value == 0.4
        assert reader.metrics(run.run, 3)[0] == MetricRow(None, "clock", "seconds", 0.5)


def test_a_second_call_for_a_site_changes_only_what_it_names(store, url):
    run = begun(store)
    run.sites([SiteRow("a", title="Clinic A", rows=200, resplit=True)])
    run.sites([SiteRow("a", holdout_rows=60)])
    run.sites([SiteRow("a")])
    with RunReader.open(url) as reader:
        site = reader.sites(run.run)[0]
    assert (site.title, site.rows, site.holdout_rows, site.resplit) == ("Clinic A", 200, 60, True)


def test_many_sites_are_written_as_one_by_one(store, url):
    long = "s" * 130
    runs = [begun(store), begun(store)]
    calls = [
        [
            SiteRow("a", title="Clinic A", resplit=True), SiteRow("b", status="refused", reason="few rows"),
            SiteRow(long),
        ],
        [SiteRow("b"), SiteRow("a", rows=200, holdout_rows=60), SiteRow(long, rows=5), SiteRow("c", rows=1)],
        [SiteRow("d", rows=3), SiteRow("d", title="D"), SiteRow("a", title="A"), SiteRow("c", title="C", rows=2)],
    ]  # fmt: skip
    for rows in calls:
        runs[0].sites(rows)
        for row in rows:
            runs[1].sites([row])
    with RunReader.open(url) as reader:
        together, alone = (reader.sites(run.run) for run in runs)
    assert together == alone and [site.site for site in together] == ["a", "b", "c", "d", "s" * 119 + "…"]
    found = {site.site[0]: (site.title, site.status, site.rows, site.holdout_rows, site.resplit) for site in together}
    assert found["a"] == ("A", "accepted", 200, 60, True) and found["b"] == ("b", "refused", None, None, False)
    assert found["c"] == ("C", "accepted", 2, None, False) and found["d"] == ("D", "accepted", 3, None, False)
    assert found["s"] == (long, "accepted", 5, None, False)


def test_runs_are_named_after_their_series_and_listed_newest_first(store, url):
    single = begun(store).run
    series = store.begin_series(study="t", study_sha256="", study_text="", repeats=12)
    names = [store.begin_run(series, repeat=k, task="binary", **RUN).run for k in (0, 1, 11)]
    assert names == [f"{series}-r01", f"{series}-r02", f"{series}-r12"]
    with RunReader.open(url) as reader:
        assert [run.run for run in reader.runs()] == [*reversed(names), single]
        assert [run.run for run in reader.runs(search="T", limit=1)] == [names[2]]
        assert [run.run for run in reader.runs_of(series)] == names
        assert [run.run for run in reader.runs_of("latest")] == names
        assert reader.runs_of(single)[0].run == reader.runs_of(single)[0].series == single
        with pytest.raises(UsageError, match="did you mean"):
            reader.runs_of(single + "x")
    with pytest.raises(ValueError, match="no repeat=12"):
        store.begin_run(series, repeat=12, task="binary", **RUN)


def test_curves_are_averaged_over_repeats_by_the_database(store, url):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=2)
    names = []
    for repeat, values in enumerate([(0.6, 0.4), (0.8, 0.2)]):
        run = store.begin_run(series, repeat=repeat, task="binary", **RUN)
        for number, value in enumerate(values, start=1):
            rows = [MetricRow(site, "validation", "log_loss", value) for site in (None, "a", "b")]
            run.round(number, metrics=rows)
        names.append(run.run)
    with RunReader.open(url) as reader:
        points = reader.curves(names, arm="validation", metric="log_loss", sites=["a"])
        assert [(p.round, p.site) for p in points] == [(1, None), (1, "a"), (2, None), (2, "a")]
        assert [p.value for p in points] == pytest.approx([0.7, 0.7, 0.3, 0.3], abs=1e-12)
        (mine, *_) = reader.curves(names, arm="validation", metric="log_loss", sites=["a"], width=2)
        assert (mine.first, mine.round, mine.site) == (1, 2, None)
        assert (mine.value, mine.least, mine.most) == pytest.approx((0.5, 0.3, 0.7), abs=1e-12)
        assert reader.curve_names(names) == {"validation": ["log_loss"]}


def test_a_run_whose_program_ended_without_a_word_is_interrupted(store, url):
    code = (
        "from flfed.records.store.writer import RunStore\n"
        "store = RunStore.open()\n"
        "series = store.begin_series(study='s', study_sha256='', study_text='')\n"
        "run = store.begin_run(series, engine='e', path='p', seed=1, rounds_planned=2, primary='m', task='t')\n"
        "run.round(1)\n"
    )
    mine = begun(store)
    assert python(code, FLFED_STORE=url).returncode == 0
    with RunReader.open(url) as reader:
        assert {run.run == mine.run: run.status for run in reader.runs()} == {True: "running", False: "interrupted"}


def test_a_process_number_used_again_is_not_taken_for_the_writer():
    mine = this_process()
    assert not is_gone(mine)
    assert is_gone(Writer(mine.host, mine.boot, mine.pid, "1"))
    assert is_gone(Writer(mine.host, "another boot", mine.pid, mine.process))
    assert not is_gone(Writer("another-host", mine.boot, 1, "1"))


def test_a_killed_writer_is_gone_before_its_parent_has_waited_for_it():
    mine = this_process()
    with subprocess.Popen(["sleep", "60"]) as child:
        writer = Writer(mine.host, mine.boot, child.pid, start_of(child.pid))
        alive = not is_gone(writer)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
        assert alive and is_gone(writer)


def test_opening_a_store_that_is_up_to_date_takes_under_a_tenth_of_a_second(store, url):
    took = list[float]()
    for _ in range(5):
        start = time.process_time()
        RunStore.open(url).close()
        took.append(time.process_time() - start)
    assert min(took) < 0.1


@pytest.mark.servers
def test_two_programs_may_make_the_same_store_at_once(url):
    code = (
        "from flfed.records.store.writer import RunStore\n"
        "RunStore.open().begin_series(study='s', study_sha256='', study_text='')"
    )
    command = [sys.executable, "-c", code]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "FLFED_STORE": url}
    processes = [subprocess.Popen(command, env=variables, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate(timeout=60)[1] for process in processes] == [b"", b"", b""]
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT count(*) FROM series").fetchone() == (3,)
    connection.close()


COMMANDS = (
    ("run", "list"), ("run", "show"), ("run", "delete", "latest"), ("run", "compare", "latest", "latest"),
    ("run", "export"), ("run", "report"), ("audit", "latest"),
    ("study", "run", "wine"), ("study", "resume", "latest"), ("demo",), ("app",), ("study", "verify", "wine"),
)  # fmt: skip
"""Commands that open the run store."""


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_refuses_a_store_of_another_version(store, url, flfed, words, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", url)
    with create_engine(url).begin() as connection:
        connection.execute(text("UPDATE flfed_version SET number = 9999"))
    store.close()
    file = Path(url.removeprefix("sqlite:///"))
    before = file.read_bytes()
    code, out, err = flfed(*words)
    said = " ".join(err.split())
    assert (code, out) == (2, "")
    assert f"the run store has tables of version 9999, and this flfed reads version {VERSION}" in said
    assert said.endswith("or name another store with FLFED_STORE")
    assert file.read_bytes() == before


def test_tables_without_a_version_are_refused_and_those_of_another_program_are_not(store, url, tmp_path, monkeypatch):
    with create_engine(url).begin() as connection:
        connection.execute(text("DROP TABLE flfed_version"))
    for open_it in (RunStore.open, RunReader.open):
        with pytest.raises(UsageError, match="tables of version 0"):
            open_it(url)
    other = f"sqlite:///{tmp_path}/other.db"
    with create_engine(other).begin() as connection:
        connection.execute(text("CREATE TABLE theirs (n INTEGER)"))
    with RunReader.open(other) as reader:
        assert reader.runs() == []
    RunStore.open(other).close()
    with create_engine(other).connect() as connection:
        assert connection.execute(text("SELECT number FROM flfed_version")).scalars().all() == [VERSION]
        assert connection.execute(text("SELECT count(*) FROM theirs")).scalar() == 0


def test_an_unknown_run_is_answered_with_the_nearest_one_or_with_where_to_look(store, url):
    run = begun(store).run
    with RunReader.open(url) as reader:
        with pytest.raises(UsageError) as near:
            reader.runs_of(run[:-1] + "x")
        with pytest.raises(UsageError) as far:
            reader.runs_of("???")
    assert str(near.value) == f"run {run[:-1] + 'x'!r} is not in the store; did you mean {run!r}?"
    assert str(far.value) == "run '???' is not in the store; `flfed run list` shows what there is."


def test_a_reader_cannot_write_and_an_absent_store_is_empty(store, url, tmp_path):
    begun(store)
    with RunReader.open(url) as reader, pytest.raises(Exception, match="readonly"):
        reader._engine.connect().execute(text("DELETE FROM run"))
    absent = tmp_path / "none" / "runs.db"
    with RunReader.open(f"sqlite:///{absent}") as reader:
        assert reader.runs() == []
    assert not absent.exists()


def test_a_run_is_taken_over_at_the_rounds_that_the_store_has_then_and_a_refusal_changes_nothing(store, url):
    run = begun(store)
    for number in (1, 2, 3):
        run.round(
            number, metrics=[MetricRow(None, "fit", "loss", 0.5)], events=[EventRow(1, "a", "holdout-opened", "x")]
        )
    run.finish(status="stopped", reason="a quorum")
    told: list[int] = []

    def refuse(rounds: int) -> int:
        told.append(rounds)
        raise UsageError("no checkpoint")

    with pytest.raises(UsageError, match="no checkpoint"):
        store.resume_run(run.run, refuse)
    with RunReader.open(url) as reader:
        entry = reader.runs_of(run.run)[0]
        assert (told, entry.status, entry.rounds, entry.reason) == ([3], "stopped", 3, "a quorum")
    store.resume_run(run.run, lambda rounds: 0)
    with RunReader.open(url) as reader:
        assert (reader.runs_of(run.run)[0].rounds, reader.metrics(run.run, 2)) == (0, [])
        assert {event.kind for event in reader.events([run.run])} == {"holdout-opened"}  # it happened


def test_two_processes_do_not_begin_the_same_repeat(store):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=2)
    store.begin_run(series, repeat=1, task="binary", **RUN)
    with pytest.raises(UsageError, match="was begun by another process"):
        store.begin_run(series, repeat=1, task="binary", **RUN)


def test_another_user_of_the_named_group_reads_the_store_while_and_after_it_is_written(monkeypatch):
    code = "from flfed.records.store.reader import RunReader\nprint(len(RunReader.open().runs()))\n"
    other = account(NOBODY) if os.geteuid() == 0 else []
    monkeypatch.setenv("FLFED_STORE_GROUP", grp.getgrgid(NOBODY if other else os.getegid()).gr_name)
    with tempfile.TemporaryDirectory() as name:
        url, folder = f"sqlite:///{name}/runs.db", Path(name)
        with RunStore.open(url) as opened:
            begun(opened)
            folder.chmod(0o555)  # nobody but root may make the files that WAL wants
            while_open = python(code, other, FLFED_STORE=url)
            folder.chmod(0o755)
        folder.chmod(0o555)
        after = python(code, other, FLFED_STORE=url)
        folder.chmod(0o755)
        assert stat.S_IMODE((folder / "runs.db").stat().st_mode) == 0o640
    assert (while_open.stdout, after.stdout) == ("1\n", "1\n"), while_open.stderr + after.stderr


def test_a_locked_or_broken_store_is_answered_with_what_to_do(tmp_path):
    broken = tmp_path / "runs.db"
    broken.write_text("this is not a database at all, but long enough to look like one" * 20)
    for open_it in (RunStore.open, RunReader.open):
        with pytest.raises(FlfedError, match="move the file away"):
            open_it(f"sqlite:///{broken}")
    with pytest.raises(FlfedError, match="cannot be made"):
        RunStore.open(f"sqlite:///{broken}/deeper/runs.db")


def test_the_address_comes_from_the_argument_then_the_environment_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("FLFED_HOME", str(tmp_path))
    monkeypatch.delenv("FLFED_STORE", raising=False)
    assert home() == tmp_path
    assert store_url().database == str(tmp_path / "runs.db")
    monkeypatch.setenv("FLFED_STORE", "sqlite:////srv/x.db")
    assert store_url().database == "/srv/x.db"
    assert store_url("sqlite:////srv/y.db").database == "/srv/y.db"
    with pytest.raises(UsageError, match="must be a database URL") as caught:
        store_url("secret-password@host")
    assert "secret" not in str(caught.value)


def test_home_is_the_users_data_folder(monkeypatch):
    monkeypatch.delenv("FLFED_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "/data/me")
    assert home() == Path("/data/me/flfed") or sys.platform != "linux"


def test_events_are_stamped_with_the_clock_that_was_passed_in(store, url):
    run = begun(store)
    run.events([EventRow(1, "a", "note", "x")])
    with RunReader.open(url) as reader:
        assert reader.events([run.run])[0].at.startswith("2026-11-20T15:30:1")
        assert reader.events([run.run])[0].at.endswith("Z")
