"""Where the run store is, and how it is opened: for writing (brought up to date) or for reading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool, StaticPool

from flfed.errors import FlfedError, UsageError
from flfed.home import home
from flfed.records.tables import Base, Series

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
"""How long a writer waits for another one; a round's transaction takes milliseconds."""

ADVICE = (
    ("locked", "another program is writing to it: wait, or end that program"),
    ("full", "free some disk space; what was committed is safe"),
    ("readonly", "check that you may write to this file and its folder"),
    ("unable to open", "check that the folder exists and that you may write to it"),
    ("not a database", "move the file away; flfed then starts an empty store"),
)
"""What to do, by a word of the database's own message."""


def store_url(url: str | None = None) -> URL:
    """Return the address of the run store: `url`, else `FLFED_STORE`, else `runs.db` under `home()`.

    Raises
    ------
    UsageError
        If the address is not a database URL. The address is not repeated: it may hold a password.
    """
    given = url or os.environ.get("FLFED_STORE")
    if not given:
        return URL.create("sqlite", database=str(home() / "runs.db"))
    try:
        return make_url(given)
    except ArgumentError:
        example = "sqlite:////srv/flfed/runs.db"
        raise UsageError(f"the run store (FLFED_STORE) must be a database URL such as {example}") from None


@contextmanager
def in_words(url: URL, verb: str) -> Iterator[None]:
    """Turn an error of the database into one sentence: what failed, where, and what to do."""
    try:
        yield
    except NoSuchModuleError:
        raise UsageError(f"run store: no driver for {url.drivername!r} is installed") from None
    except DBAPIError as error:
        said = (str(error.orig).splitlines() or [""])[0]  # later lines of PostgreSQL's quote values
        advice = next((todo for word, todo in ADVICE if word in said), "see the database's own log")
        where = url.render_as_string(hide_password=True)
        raise FlfedError(f"the run store {where} could not be {verb} ({said}): {advice}") from None


def engine_to_write(url: URL) -> Engine:
    """Return an engine for writing; an SQLite file is put in WAL mode, its folder is made."""
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    if url.database and url.database != ":memory:":
        folder = Path(url.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise FlfedError(f"the folder {folder} of the run store cannot be made: {why}") from None
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    else:
        engine = create_engine(url, poolclass=StaticPool)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Leave transactions to SQLAlchemy's begin event (the driver would not cover DDL)."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at once: a later upgrade of a read lock fails without waiting."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def engine_to_read(url: URL) -> Engine:
    """Return an engine that cannot write; an absent SQLite file reads as an empty store.

    Another user may read a WAL database with `mode=ro` only while its writer has it open; after
    that `immutable=1` is what works (measured). An immutable connection does not see later writes,
    so readers open anew for each look.
    """
    if url.get_backend_name() != "sqlite":
        return create_engine(url, poolclass=NullPool)
    path = Path(url.database or ":memory:")
    if not path.exists() or not path.stat().st_size:
        empty = create_engine("sqlite://", poolclass=StaticPool)
        Base.metadata.create_all(empty)
        return empty
    name = path.resolve().as_uri()
    for way in ("mode=ro", "mode=ro&immutable=1"):
        engine = create_engine(f"sqlite:///{name}?{way}&uri=true", poolclass=NullPool)
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT count(*) FROM sqlite_master"))
        except DBAPIError:
            continue
        return engine
    return engine


def newest_revision() -> str:
    """Return the revision this version of flfed writes: the last file of `migrations/versions/`.

    Examples
    --------
    >>> newest_revision() >= "m0001"
    True
    """
    return max(_revisions())


def _revisions() -> list[str]:
    """Return the revisions this version knows, oldest first, from file names alone (no Alembic import)."""
    return sorted(file.stem.split("_")[0] for file in (MIGRATIONS / "versions").glob("m[0-9]*.py"))


def revision_of(connection: Connection) -> str | None:
    """Return the revision a database is at, or None where it has no flfed tables."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(engine: Engine) -> None:
    """Bring the tables up to date in one transaction; a single query where they already are.

    Raises
    ------
    FlfedError
        If a newer flfed wrote this store.
    """
    with engine.begin() as connection:
        found = revision_of(connection)
        if found == newest_revision():
            return
        _refuse_unknown(found)
        _run_migrations(connection)


def _refuse_unknown(found: str | None) -> None:
    if found is not None and found not in _revisions():
        raise FlfedError(
            f"the run store is at revision {found}, this flfed knows up to {newest_revision()}: update flfed"
        )


def _run_migrations(connection: Connection) -> None:
    """Run Alembic's `upgrade head` on an open connection (imported here: it takes a third of a second)."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def check_readable(engine: Engine) -> None:
    """Refuse to read a store of another revision, and say what to do.

    Raises
    ------
    UsageError, FlfedError
        If an older or a newer flfed wrote it.
    """
    if engine.url.database in (None, "", ":memory:"):
        return
    with engine.connect() as connection:
        found = revision_of(connection)
        if found == newest_revision():
            connection.execute(select(Series.id).limit(1))
            return
    _refuse_unknown(found)
    raise UsageError("the run store was written by an older flfed: any study run (`flfed demo`) updates it")
