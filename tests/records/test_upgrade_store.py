"""A run store of an earlier flfed: every command names the one that updates it, and that one copies it first."""

import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from flfed import Study, load
from flfed.errors import FlfedError, UsageError
from flfed.federation.server.run import run
from flfed.records.reports.report import report
from flfed.records.store import database
from flfed.records.store.database import upgrade_store
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import Base
from flfed.records.store.writer import RunStore

COMMANDS = (
    ("run", "list"), ("run", "show"), ("run", "log", "latest"), ("run", "note", "latest", "mine"),
    ("run", "delete", "latest"),
    ("run", "compare", "latest", "latest"), ("run", "export"), ("run", "report"), ("audit", "latest"),
    ("study", "run", "wine"), ("study", "resume", "latest"), ("demo",), ("app",), ("study", "verify", "wine"),
)  # fmt: skip
"""Commands that open the run store."""


FORMER = Path(__file__).with_name("store_of_d516c7c8.sql")
"""A store of revision m0004, as commit d516c7c8 wrote it."""
RUN = "20261125-215557-932a"
"""Its one run."""


def revision(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@pytest.fixture
def older(shown: str, tmp_path: Path) -> tuple[str, Path]:
    """A run in a store of revision m0004, and the store's file."""
    file = tmp_path / "runs.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # as flfed keeps its file
        connection.executescript(FORMER.read_text())
    return RUN, file


def at_revision(file: Path, found: str) -> None:
    """Say that a store is at another revision."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (found,))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_says_in_one_sentence_that_the_store_is_of_an_earlier_revision(older, flfed, words):
    before = older[1].read_bytes()
    code, out, err = flfed(*words)
    said = " ".join(err.split())
    assert (code, out) == (2, "")
    assert "the run store is of an earlier revision (m0004, this flfed needs m0005)" in said
    assert said.endswith("update it with `flfed run upgrade-store`")
    # A study run that updates the tables, as it did once, changes the file.
    assert (older[1].read_bytes(), revision(older[1])) == (before, "m0004")


def test_the_command_copies_the_file_and_then_brings_it_up_to_date(older, flfed, shown):
    name, file = older
    code, out, _ = flfed("run", "upgrade-store", "--json")
    told, copy = json.loads(out), file.with_name("runs.db.m0004")
    assert code == 0 and told == {"store": shown, "before": "m0004", "after": "m0005", "copy": str(copy)}
    assert (revision(copy), revision(file)) == ("m0004", "m0005")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT id FROM run").fetchall() == [(name,)]
    with RunReader.open() as reader:
        assert [(run.run, run.status) for run in reader.runs()] == [(name, "completed")]
    assert flfed("run", "show")[0] == 0
    code, out, _ = flfed("run", "upgrade-store")
    assert code == 0 and "revision m0005 is the newest; there is nothing to upgrade" in " ".join(out.split())
    # Put back, the copy is the store as it was.
    file.write_bytes(copy.read_bytes())
    assert flfed("run", "list")[0] == 2


def test_a_run_of_before_is_read_from_the_store_that_was_taken_on(older, shown):
    upgrade_store()
    engine = create_engine(shown)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert not inspect(connection).has_table("curve")
    engine.dispose()
    with RunReader.open() as reader:
        found = report(reader, RUN)
        assert [event.code for event in reader.events([RUN])] == ["", "", ""]
        sites = [(site.site, site.rows, site.holdout_rows) for site in reader.sites(RUN)]
    assert sites == [("site-01", 60, 23), ("site-02", 70, 21), ("site-03", 80, 35)]
    assert (found["status"], found["rounds"], found["privacy"]["mechanism"]) == ("completed", 2, "none")
    assert found["global"]["roc_auc_score"]["value"] == pytest.approx(0.7468965517)
    with RunStore.open() as store:  # and written into
        store.begin_series(study="s", study_sha256="", study_text="")


def test_renamed_summaries_and_keys_of_a_run_of_before_have_the_names_of_now(older, flfed):
    _, file = older
    before = {"trees": 3, "sites": {"site-01": {"rows": 12}}}
    noised = {"asked": 3, "reason": "", "all": None, "sites": {}}
    with closing(sqlite3.connect(file)) as connection, connection:
        lines = [(RUN, "told-outcomes", json.dumps(before)), (RUN, "noised-scores", json.dumps(noised))]
        connection.executemany("INSERT INTO summary VALUES(?, ?, ?)", lines)
        (histograms,) = connection.execute("SELECT payload FROM summary WHERE name = 'score-histograms'").fetchone()
    upgrade_store()
    with RunReader.open() as reader:
        assert reader.summary(RUN, "told-outcomes") is None
        assert reader.summary(RUN, "revealed-outcomes") == before
        assert reader.summary(RUN, "noised-scores") == {"requested-sites": 3, "reason": "", "all": None, "sites": {}}
        privacy, figures = reader.summary(RUN, "privacy"), reader.summary(RUN, "score-histograms")
    assert privacy is not None and "excludes-encoder" in privacy and "given-encoder" not in privacy
    earlier = json.loads(histograms)
    assert figures is not None and figures["requested-sites"] == earlier.pop("asked") == 3
    assert figures["combined-sites"] == earlier.pop("in-all")
    assert {key: figures[key] for key in earlier} == earlier
    shown = json.loads(flfed("run", "show", RUN, "--json")[1])
    assert shown["revealed-outcomes"] == before and shown["verdict-rule"]["minimum-gain"]["roc_auc_score"] == 0.005


def test_the_text_of_a_run_of_before_is_read_under_the_names_of_now(older):
    upgrade_store()
    study = load(RUN).study
    assert "draws = 200" in study.text and study.compare.resamples == 200
    with pytest.raises(UsageError, match="draws is now resamples"):
        Study.parse(study.text)


@pytest.mark.parametrize("found", ["m0001", "m0002", "m0003"])
def test_a_store_too_old_to_be_taken_on_is_refused_with_what_to_do(older, flfed, found):
    at_revision(older[1], found)
    before = older[1].read_bytes()
    for words in (("run", "list"), ("run", "upgrade-store"), ("study", "run", "wine")):
        code, out, err = flfed(*words)
        said = " ".join(err.split())
        assert (code, out) == (2, "") and f"the run store is at revision {found}, and this flfed updates m0004" in said
        assert "update it first with the flfed of m0004 (commit d516c7c8" in said
    assert older[1].read_bytes() == before


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
    copy = file.with_name("runs.db.m0004")
    copy.write_text("of last year")
    with pytest.raises(UsageError, match="already exists: move this earlier copy away"):
        upgrade_store()
    assert (copy.read_text(), revision(file)) == ("of last year", "m0004")
    copy.unlink()
    copy.with_name(f"{copy.name}.part").mkdir()
    with pytest.raises(FlfedError, match="could not be copied to .*nothing was changed"):
        upgrade_store()
    assert revision(file) == "m0004"


def test_a_new_store_is_made_by_any_run_and_by_no_update(tmp_path, small_sites, small_study, flfed, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", f"sqlite:///{tmp_path}/new.db")
    code, out, err = flfed("run", "upgrade-store")
    assert (code, out) == (2, "") and "there is no run store" in err and not (tmp_path / "new.db").exists()
    assert flfed("run", "list")[0] == 0
    assert run(Study.parse(small_study), sites=small_sites(3, rows=80)).report["status"] == "completed"
    assert revision(tmp_path / "new.db") == database.newest_revision()


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
    assert revision(path) == database.newest_revision()
