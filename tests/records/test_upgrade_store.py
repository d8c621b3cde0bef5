"""A run store of an earlier flfed: every command names the one that updates it, and that one copies it first."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from flfed import Study
from flfed.errors import FlfedError, UsageError
from flfed.federation.server.run import run
from flfed.records.store import revisions
from flfed.records.store.reader import RunReader
from flfed.records.store.upgrade import upgrade_store
from flfed.records.store.writer import EventRow, RunStore

COMMANDS = (
    ("run", "list"), ("run", "show"), ("run", "log", "latest"), ("run", "note", "latest", "mine"),
    ("run", "delete", "latest"),
    ("run", "compare", "latest", "latest"), ("run", "export"), ("run", "report"), ("audit", "latest"),
    ("study", "run", "wine"), ("study", "resume", "latest"), ("demo",), ("app",), ("study", "verify", "wine"),
)  # fmt: skip
"""Commands that open the run store."""


def of_revision(url: str, revision: str) -> str:
    """Take the tables of a store back to an earlier revision, and return its one run."""
    with RunStore.open(url) as store:
        series = store.begin_series(study="s", study_sha256="", study_text="", repeats=1)
        mine = store.begin_run(series, task="binary", engine="inprocess", path="one-by-one", seed=42,
                               rounds_planned=3, primary="log_loss")  # fmt: skip
        mine.events([EventRow(1, "bern", "refused", "its policy asks for another engine")])
        mine.finish(status="completed")
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(revisions.MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
    engine.dispose()
    return mine.run


def revision(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@pytest.fixture
def older(shown: str, tmp_path: Path) -> tuple[str, Path]:
    """A run in a store of the first revision, and the store's file."""
    return of_revision(shown, "m0001"), tmp_path / "runs.db"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_says_in_one_sentence_that_the_store_is_of_an_earlier_revision(older, flfed, words):
    before = older[1].read_bytes()
    code, out, err = flfed(*words)
    said = " ".join(err.split())
    assert (code, out) == (2, "")
    assert "the run store is of an earlier revision (m0001, this flfed needs m0005)" in said
    assert said.endswith("update it with `flfed run upgrade-store`")
    # A study run that updates the tables, as it did once, changes the file.
    assert (older[1].read_bytes(), revision(older[1])) == (before, "m0001")


def test_the_command_copies_the_file_and_then_brings_it_up_to_date(older, flfed, shown):
    name, file = older
    code, out, _ = flfed("run", "upgrade-store", "--json")
    told, copy = json.loads(out), file.with_name("runs.db.m0001")
    assert code == 0 and told == {"store": shown, "before": "m0001", "after": "m0005", "copy": str(copy)}
    assert (revision(copy), revision(file)) == ("m0001", "m0005")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT id FROM run").fetchall() == [(name,)]
    with RunReader.open() as reader:
        assert [(run.run, run.status) for run in reader.runs()] == [(name, "completed")]
    assert flfed("run", "show")[0] == 0
    code, out, _ = flfed("run", "upgrade-store")
    assert code == 0 and "revision m0005 is the newest, nothing is to be done" in " ".join(out.split())
    # Put back, the copy is the store as it was.
    file.write_bytes(copy.read_bytes())
    assert flfed("run", "list")[0] == 2


def test_what_is_only_in_the_log_beside_the_file_is_in_the_copy(older):
    _, file = older
    writer = sqlite3.connect(file)  # that is open, so that SQLite does not fold its log into the file
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("UPDATE series SET study = 'in the log'")
    writer.commit()
    assert b"in the log" not in file.read_bytes()  # a plain copy of the file would not have it
    done = upgrade_store()
    writer.close()
    assert done.copy is not None
    with closing(sqlite3.connect(done.copy)) as connection:
        assert connection.execute("SELECT study FROM series").fetchall() == [("in the log",)]


def test_no_copy_no_update(older):
    _, file = older
    copy = file.with_name("runs.db.m0001")
    copy.write_text("of last year")
    with pytest.raises(UsageError, match="is there already: move this earlier copy away"):
        upgrade_store()
    assert (copy.read_text(), revision(file)) == ("of last year", "m0001")
    copy.unlink()
    copy.with_name(f"{copy.name}.part").mkdir()
    with pytest.raises(FlfedError, match="could not be copied to .*nothing was changed"):
        upgrade_store()
    assert revision(file) == "m0001"


def test_a_new_store_is_made_by_any_run_and_by_no_update(tmp_path, small_sites, small_study, flfed, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", f"sqlite:///{tmp_path}/new.db")
    code, out, err = flfed("run", "upgrade-store")
    assert (code, out) == (2, "") and "there is no run store" in err and not (tmp_path / "new.db").exists()
    assert flfed("run", "list")[0] == 0
    assert run(Study.parse(small_study), sites=small_sites(3, rows=80)).report["status"] == "completed"
    assert revision(tmp_path / "new.db") == revisions.newest_revision()


def test_another_programs_file_has_no_runs_until_one_is_written(tmp_path, monkeypatch, flfed):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (n INTEGER)")
    monkeypatch.setenv("FLFED_STORE", f"sqlite:///{path}")
    with RunReader.open() as reader:
        assert reader.runs() == []
    code, _, err = flfed("run", "upgrade-store")
    assert code == 2 and "has no tables yet" in err
    RunStore.open().close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM theirs")).scalar() == 0
    engine.dispose()
    assert revision(path) == revisions.newest_revision()
