"""The run store's database: address, file, engines and update.

It is opened for writing, which makes the tables of a new one, or for reading. An SQLite file is its owner's alone,
unless a group of readers is named. A store that an earlier flfed wrote is updated after a copy of it was made.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from flfed.errors import FlfedError, UsageError
from flfed.paths import home, private_folder, where
from flfed.records.store import database
from flfed.records.store.tables import Base, Series, Summary

GROUP = "FLFED_STORE_GROUP"
"""The environment's variable that names the group whose accounts may read the store."""
BESIDE = ("", "-wal", "-shm", "-journal")
"""What SQLite adds to the file's name: its log, the log's index, and an older kind of log."""


class StoreFile:
    """A run store's file, with what SQLite keeps beside it.

    Parameters
    ----------
    path : Path

    Raises
    ------
    UsageError
        If the group that `FLFED_STORE_GROUP` names is not there, or could not come to the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._named = path, os.environ.get(GROUP, "")
        self._readers = self._number() if self._named and os.name == "posix" else None

    def _number(self) -> int:
        import grp

        if self._path.resolve().is_relative_to(where().resolve()):
            raise UsageError(
                f"{GROUP}: the run store is in FLFED_HOME, where nobody else may enter; give it a folder of its own: "
                "FLFED_STORE=sqlite:////srv/flfed/runs.db"
            )
        try:
            return grp.getgrnam(self._named).gr_gid
        except KeyError:
            raise UsageError(f"{GROUP}: there is no group {self._named!r} on this machine") from None

    def make(self) -> None:
        """Make the file where it is absent.

        The folder is made as well. Files of an earlier version are closed to others.

        Raises
        ------
        UsageError
            If the folder cannot be made.
        """
        folder = self._path.parent
        if not folder.is_dir():
            try:
                private_folder(folder)
            except OSError as error:
                why = error.strerror or type(error).__name__
                todo = "set FLFED_STORE to a file where you may write"
                raise UsageError(f"the folder {folder} of the run store cannot be made ({why}): {todo}") from None
            self._give(folder, 0o2750)
        # Never opened where it is there: closing it again would drop the locks that SQLite holds in this process.
        with suppress(OSError):  # SQLite says why it cannot be made
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self.close_to_others()

    def close_to_others(self) -> None:
        """Close the files to all but owner and readers' group."""
        for end in BESIDE:
            path = self._path.with_name(self._path.name + end)
            # A file that is absent, or somebody else's, is passed over.
            with suppress(OSError):  # absent, or somebody else's
                mode = stat.S_IMODE(path.stat().st_mode)
                if self._readers is None and mode & 0o077:
                    path.chmod(mode & 0o700)
                self._give(path, mode & 0o700 | 0o040)

    def _give(self, path: Path, mode: int) -> None:
        """Give the readers' group, where one is named, its rights."""
        if self._readers is None:
            return
        try:
            # Nothing is changed where all is as it should be: another than the owner may not.
            if path.stat().st_gid != self._readers:
                os.chown(path, -1, self._readers)
        except PermissionError:
            raise UsageError(f"{GROUP}: this user is not in group {self._named!r}, or does not own {path}") from None
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


POSTGRES = "postgresql+psycopg"
"""Dialect and driver of a run store's server."""
MALFORMED = (
    "the run store (FLFED_STORE) must be a database URL such as sqlite:////srv/flfed/runs.db or "
    f"{POSTGRES}://user:password@host/flfed; percent-encode @ : / in the password (%40 %3A %2F)"
)
"""Said of an address that cannot be read, without any of it: a password may stand anywhere in it."""
OTHERS = ("mysql", "mysql+pymysql", "mariadb", "oracle", "mssql", "mssql+pyodbc", "postgresql+psycopg2")
"""Databases that may be named in an error; anything else before "://" may be part of a secret."""
PARTS = (re.compile(r"[\w.%-]*|[0-9A-Fa-f:.%]*"), re.compile(r"[^@:?#]*"))
"""Host and database: what follows an "@" of a password that was not encoded has another form."""
SQLITE_PARAMETERS = {"uri", "mode", "cache", "immutable", "nolock", "psow", "vfs", "timeout"}
PARAMETER = re.compile(
    r"(host|hostaddr|port|user|password|passfile|dbname|options|service\w*|replication|ssl[a-z_]+|gss[a-z]+|requirepeer|krb\w+|"
    r"keepalives\w*|(application|fallback|client|connect|tcp|target|load|channel|require|min|max|scram|oauth)_[a-z_]+)"
)
"""Form of libpq's settings, after the "?"."""
BUSY_SECONDS = 30
"""How long a writer waits for another one; a round's transaction takes milliseconds."""

CONNECT_SECONDS = 10
"""How long a server may take to answer at all; a network that drops packets would keep a command for minutes."""

ADVICE = (
    ("locked", "another program is writing to it: wait, or end that program"),
    ("is full", "free some disk space; what was committed is safe"),
    ("No space left", "free some disk space on the server; what was committed is safe"),
    ("readonly", "check that you may write to this file and its folder"),
    ("unable to open", "check that the folder exists and that you may write to it"),
    ("malformed", "the file is damaged: put a back-up in its place, or move it away; flfed then starts an empty store"),
    ("disk I/O error", "check that it is a file, and the disk's health; a back-up may be needed"),
    ("not a database", "move the file away; flfed then starts an empty store"),
    ("authentication failed", "check user and password in FLFED_STORE"),
    ("no password", "give the password in FLFED_STORE, PGPASSWORD or a .pgpass file"),
    ("pg_hba.conf", "the server does not let this user in from this machine: ask its administrator"),
    ("does not exist", "have the server's administrator make it, or correct FLFED_STORE"),
    ("permission denied", "this user lacks a right on flfed's tables: docs/run-store.md says which it needs"),
    ("read-only", "this server or user may only read: use one that may write, see docs/run-store.md"),
    ("too many", "the server has no connection left: close other programs or raise max_connections"),
    ("terminat", "the server is being stopped: start it again; what was committed is safe"),
    ("closed the connection", "start the server again; what was committed is safe"),
    ("connection is lost", "start the server again; what was committed is safe"),
    ("onnection", "check that the server runs and that FLFED_STORE has its address; what was committed is safe"),
    ("resolve", "check that the server runs and that FLFED_STORE has its address; what was committed is safe"),
)
"""What to do, by a word of the database's own message; the first that fits."""
MISUSED = ("permission denied", "read-only", "readonly")
"""Words of what is wrong use even where the store could be opened."""


def store_url(url: str | None = None) -> URL:
    """Return the address of the run store.

    That is `url`, else `FLFED_STORE`, else `runs.db` under `home()`.

    Raises
    ------
    UsageError
        If the address is not a database URL, or of a database other than SQLite and PostgreSQL.
        The address is not repeated: it may hold a password.

    Examples
    --------
    >>> str(store_url("postgresql://ana@db.example/flfed"))
    'postgresql+psycopg://ana@db.example/flfed'
    """
    location = url or os.environ.get("FLFED_STORE")
    if not location:
        return URL.create("sqlite", database=str(home() / "runs.db"))
    try:
        address = make_url(location)
    except (ArgumentError, ValueError, TypeError):  # ValueError: a port that is no number
        raise UsageError(MALFORMED) from None
    if address.drivername in ("postgres", "postgresql"):
        address = address.set(drivername=POSTGRES)
    # A driver's name is repeated only where it is known: else it may be part of a password.
    if address.drivername not in ("sqlite", "sqlite+pysqlite", POSTGRES):
        kind = repr(address.drivername) if address.drivername in OTHERS else "of that kind"
        raise UsageError(f"the run store (FLFED_STORE) cannot be {kind}: use sqlite:///FILE or {POSTGRES}://…")
    if not _is_whole(address):
        raise UsageError(MALFORMED)
    return address


def _is_whole(url: URL) -> bool:
    """Tell whether an address is well formed.

    Where a part is not of its own form, some of a password may stand in it.
    """
    if url.get_backend_name() == "sqlite":
        return not (url.username or url.password or url.host or url.port or url.query.keys() - SQLITE_PARAMETERS)
    parts = (url.host, url.database)
    return (
        all(part is None or form.fullmatch(part) for part, form in zip(parts, PARTS, strict=True))
        and (url.port is None or 0 < url.port < 65536)
        and all(PARAMETER.fullmatch(name) for name in url.query)
    )


@contextmanager
def in_words(url: URL, verb: str) -> Iterator[None]:
    """Turn a database error into one sentence.

    It says what failed, where, and what to do.

    A store that cannot be opened, or only be read where one writes, is wrong use: exit code 2.
    """
    try:
        yield
    except (TypeError, ValueError, ArgumentError):
        if verb != "opened":
            raise
        raise UsageError(MALFORMED) from None  # a driver refused a part of the address, and quotes it
    except ImportError:
        raise UsageError(
            "the run store is on PostgreSQL and its driver is not installed: pip install 'flfed[postgres]'"
        ) from None
    except DBAPIError as error:
        message = _first_words(error)
        advice = next((todo for word, todo in ADVICE if word in message), "see the database's own log")
        # Without its query, where a password may stand as well.
        where = url.set(query={}).render_as_string(hide_password=True)
        misused = verb == "opened" or any(word in message for word in MISUSED)
        kind = UsageError if misused else FlfedError
        raise kind(f"the run store {where} could not be {verb} ({message}): {advice}") from None


def _first_words(error: DBAPIError) -> str:
    """Return the first line of a database's message."""
    # Later lines of PostgreSQL's messages quote values.
    message = (str(error.orig).splitlines() or [""])[0].strip()
    # psycopg says twice that it could not connect, and names the server's process.
    return re.sub(r"^(?:connection failed: )?(?:consuming input failed: )?", "", message)


@contextmanager
def _closed_if_refused(engine: Engine) -> Iterator[None]:
    """Dispose of an engine that turns out to be unusable."""
    try:
        yield
    except (DBAPIError, FlfedError):
        engine.dispose()
        raise


def engine_to_write(url: URL) -> Engine:
    """Return an engine for writing, with private SQLite files."""
    if url.get_backend_name() != "sqlite":
        return _postgres(url)
    # The file is made for its owner alone, and put in WAL mode.
    if url.database and url.database != ":memory:":
        own = StoreFile(Path(url.database))
        own.make()
        # SQLite makes its files beside the store on connecting, so these are closed to others each time.
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "connect", lambda *_: own.close_to_others())
    else:
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _postgres(url: URL, **options: Any) -> Engine:
    """Return an engine on PostgreSQL that reconnects when dropped."""
    # What the address itself sets goes before flfed's defaults.
    seconds = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
    names = {} if "application_name" in url.query else {"application_name": "flfed"}
    return create_engine(url, pool_pre_ping=True, connect_args={**seconds, **names}, execution_options=options)


@lru_cache(maxsize=4)
def _postgres_reader(url: URL) -> Engine:
    """Return the engine that reads PostgreSQL.

    There is one a process, as the statements that it has compiled serve the next look.
    """
    return _postgres(url, postgresql_readonly=True)


@lru_cache(maxsize=16)
def _sqlite_reader(address: str) -> Engine:
    """Return the engine that reads an SQLite file.

    There is one a process as well. It opens the file anew for each question.
    """
    return create_engine(address, poolclass=NullPool)


class OpenStore:
    """A run store that is open, to be closed at the end of the block.

    Parameters
    ----------
    engine : Engine
    url : URL
        Where it is, for error sentences.
    """

    def __init__(self, engine: Engine, url: URL) -> None:
        self._engine = engine
        self._url = url

    @property
    def address(self) -> str:
        """Where it is, by which another reader opens it."""
        return self._url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        """Return the store, to be closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Leave transactions to SQLAlchemy's begin event."""
    # The driver itself would not cover DDL.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at once.

    A later upgrade of a read lock fails without waiting.

    A transaction that need not be durable does not wait for the disk; one that is waits for all before it.
    """
    waits = connection.get_execution_options().get("durable", True)
    connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if waits else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def engine_to_read(url: URL) -> Engine:
    """Return an engine that cannot write.

    An absent SQLite file, or a database without flfed's tables, reads as empty.

    Another user may read a WAL database with `mode=ro` only while its writer has it open; after
    that `immutable=1` is what works (measured). An immutable connection does not see later writes,
    so readers open anew for each look.
    """
    if url.get_backend_name() != "sqlite":
        engine = _postgres_reader(url)
        # A PostgreSQL database without revision has no flfed tables yet, and reads as empty.
        with _closed_if_refused(engine), engine.connect() as connection:
            if revision_of(connection):
                return engine
        engine.dispose()
        return _empty()
    path = Path(url.database or ":memory:")
    try:
        if not path.exists() or not path.stat().st_size:
            return _empty()
    except PermissionError:
        todo = "it is its owner's alone; to let others read it: FLFED_STORE_GROUP, see docs/run-store.md"
        raise UsageError(f"the run store {path} could not be opened (Permission denied): {todo}") from None
    name = path.resolve().as_uri()
    # An immutable connection comes second: it would miss what a writer at work adds.
    for way in ("mode=ro", "mode=ro&immutable=1"):
        engine = _sqlite_reader(f"sqlite:///{name}?{way}&uri=true")
        try:
            with engine.connect() as connection:
                revision = revision_of(connection)
        except DBAPIError:
            continue
        if revision is None:  # its first writer has only just made the file
            engine.dispose()
            return _empty()
        return engine
    return engine


def _empty() -> Engine:
    """Return a store in memory without runs."""
    empty = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(empty)
    return empty


def make_tables(engine: Engine) -> None:
    """Make the tables of a new store, in one transaction.

    A store that is up to date takes a single query.

    Raises
    ------
    UsageError, FlfedError
        If an older or a newer flfed wrote this store.
    """
    with _closed_if_refused(engine), engine.begin() as connection:
        revision = revision_of(connection)
        if revision is None:
            database.lock_tables(connection)
            # Another process may have made them while this one waited for the lock.
            revision = revision_of(connection)
        if revision is None:
            database.make_newest(connection)
        else:
            refuse_other(revision)


def check_readable(engine: Engine) -> None:
    """Refuse to read a store of another revision.

    Raises
    ------
    UsageError, FlfedError
        If an older or a newer flfed wrote it.
    """
    if engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:"):
        return
    with _closed_if_refused(engine), engine.connect() as connection:
        revision = revision_of(connection)
        if revision is not None:
            refuse_other(revision)
        # Reading one row finds out whether this user may read at all.
        connection.execute(select(Series.id).limit(1))


@dataclass(frozen=True)
class Upgrade:
    """What an update of the run store did.

    Attributes
    ----------
    store : str
        The store's address, without a password.
    before, after : str
        Its revisions; the same where there was nothing to do.
    copy : Path or None
        The file as it was before; None where flfed made no copy.
    """

    store: str
    before: str
    after: str
    copy: Path | None


def upgrade_store(url: str | None = None, *, backed_up: bool = False) -> Upgrade:
    """Bring the tables of the run store up to date, in one transaction.

    An SQLite file is copied first, beside itself.

    Parameters
    ----------
    url : str, optional
        As of `store_url`.
    backed_up : bool
        Whether the operator has made a copy of a store on a server.

    Raises
    ------
    UsageError, FlfedError
        If there is no store, a newer flfed wrote it, or it has no copy; nothing is changed then.
    """
    where = store_url(url)
    name = where.set(query={}).render_as_string(hide_password=True)
    if where.get_backend_name() == "sqlite" and not (where.database and Path(where.database).exists()):
        raise UsageError(f"there is no run store {name} yet: the first study run makes it")
    with in_words(where, "opened"):
        engine = engine_to_write(where)
    try:
        with in_words(where, "updated"), engine.begin() as connection:
            database.lock_tables(connection)
            before = database.revision_of(connection)
            if before is None:
                raise UsageError(f"the run store {name} has no tables yet: the first study run makes them")
            database.refuse_unknown(before)
            after, copy = database.newest_revision(), None
            if before != after:
                copy = _copy_of(where, name, before, backed_up=backed_up)
                if before == database.FORMER:
                    database.take_on(connection)
                database.run_migrations(connection)
    finally:
        engine.dispose()
    return Upgrade(name, before, after, copy)


def _copy_of(url: URL, name: str, revision: str, *, backed_up: bool) -> Path | None:
    """Return the copy of an SQLite file that is made here, None for a server's database that has one."""
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        return copy_file(path, path.with_name(f"{path.name}.{revision}"))
    if backed_up:
        return None
    raise UsageError(
        f"the run store {name} is on a server, and flfed makes no copy of it: make one with pg_dump, then run "
        f"`{database.UPGRADE} --backed-up`"
    )


def copy_file(path: Path, copy: Path) -> Path:
    """Copy an SQLite file whose write lock is held; the copy is its owner's alone, as the file is.

    Raises
    ------
    UsageError, FlfedError
        If the copy is there already, or cannot be made.
    """
    if copy.exists():
        raise UsageError(f"{copy} is there already: move this earlier copy away, then update the run store again")
    # Under another name until it is whole: what a kill leaves is no copy.
    part = copy.with_name(f"{copy.name}.part")
    try:
        part.unlink(missing_ok=True)
        StoreFile(part).make()
        # SQLite's own copy has what is in the log beside the file, too.
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
        part.replace(copy)
    except (sqlite3.Error, OSError) as error:
        if part.is_file():
            part.unlink()
        raise FlfedError(
            f"the run store could not be copied to {copy} ({error}): free some disk space; nothing was changed"
        ) from None
    return copy


MIGRATIONS = Path(__file__).parent / "migrations"
UPGRADE = "flfed run upgrade-store"
"""The command that updates a store of an earlier revision."""
FORMER = "m0004"
"""Revision of the one earlier store that is taken on: that of commit d516c7c8."""
TOO_OLD = ("m0001", "m0002", "m0003")
"""Revisions before it, which are taken on no longer."""
RENAMED_SUMMARIES = {"told-outcomes": "revealed-outcomes"}
"""Names of summaries in such a store, and those of now."""
RENAMED_KEYS = {
    "score-histograms": {"asked": "requested-sites", "in-all": "combined-sites"},
    **dict.fromkeys(("operating-points", "subgroups", "importances", "noised-scores"), {"asked": "requested-sites"}),
    "privacy": {"given-encoder": "excludes-encoder", "kept-back": "unspent"},
}
"""Keys of summaries in such a store, and those of now."""
MIGRATING = 7_236_331
"""Key of the lock under which PostgreSQL's tables are made: any number that no other program takes."""


def newest_revision() -> str:
    """Return the revision of the last file of `migrations/versions/`.

    Examples
    --------
    >>> newest_revision() >= "m0001"
    True
    """
    return max(_revisions())


def _revisions() -> list[str]:
    """Return the known revisions, oldest first, from file names alone."""
    return sorted(file.stem.split("_")[0] for file in (MIGRATIONS / "versions").glob("m[0-9]*.py"))


def revision_of(connection: Connection) -> str | None:
    """Return a database's revision, None where it has no flfed tables."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def lock_tables(connection: Connection) -> None:
    """Wait until no other process makes or updates the tables; it lasts as long as the transaction."""
    if connection.dialect.name == "postgresql":  # SQLite's writers wait for one another anyway
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})


def refuse_other(revision: str) -> None:
    """Refuse a store of another revision; the error says what to do.

    Raises
    ------
    UsageError, FlfedError
        If an older or a newer flfed wrote it.
    """
    refuse_unknown(revision)
    if revision != newest_revision():
        raise UsageError(
            f"the run store is of an earlier revision ({revision}, this flfed needs {newest_revision()}): "
            f"update it with `{UPGRADE}`"
        )


def refuse_unknown(revision: str) -> None:
    """Refuse a store that a newer flfed wrote, or one too old to be taken on.

    Raises
    ------
    UsageError, FlfedError
        If it is such a store; the error says what to do.
    """
    if revision in TOO_OLD:
        raise UsageError(
            f"the run store is at revision {revision}, and this flfed takes on {FORMER} and later: "
            f"update it first with the flfed of {FORMER} (commit d516c7c8: `{UPGRADE}`), "
            "or name another store with FLFED_STORE"
        )
    if revision not in (FORMER, *_revisions()):
        raise FlfedError(
            f"the run store is at revision {revision}, this flfed knows up to {newest_revision()}: update flfed"
        )


def take_on(connection: Connection) -> None:
    """Take on a store of revision `FORMER`, without its table of curves, under the names of now."""
    connection.execute(text("DROP TABLE curve"))
    for name, now in RENAMED_SUMMARIES.items():
        connection.execute(update(Summary).where(Summary.name == name).values(name=now))
    columns = (Summary.run_id, Summary.name, Summary.payload)
    for run, name, payload in connection.execute(select(*columns).where(Summary.name.in_(RENAMED_KEYS))).all():
        renamed = {RENAMED_KEYS[name].get(key, key): value for key, value in payload.items()}
        this = (Summary.run_id == run) & (Summary.name == name)
        connection.execute(update(Summary).where(this).values(payload=renamed))
    connection.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": "m0005"})


def make_newest(connection: Connection) -> None:
    """Make the tables as they are declared, and Alembic's note that they are of the newest revision."""
    from alembic import command  # here: it takes a third of a second

    Base.metadata.create_all(connection)
    command.stamp(_config(connection), "head")


def run_migrations(connection: Connection) -> None:
    """Run Alembic's `upgrade head` on an open connection."""
    from alembic import command

    command.upgrade(_config(connection), "head")


def _config(connection: Connection) -> Any:
    """Return what Alembic needs to know."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
