"""The run store's database: address, file and engines.

Opening it for writing makes the tables of a new store. Only its owner may read an SQLite file, unless a group of
readers is named. A store whose tables are of another version is refused.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from flfed.errors import FlfedError, UsageError
from flfed.paths import home, private_folder, where
from flfed.records.store.tables import VERSION, Base, RunSite, Series, Version

GROUP = "FLFED_STORE_GROUP"
"""Environment variable with the group whose accounts may read the store."""
BESIDE = ("", "-wal", "-shm", "-journal")
"""Ends of the names of SQLite's files: the store, its log, the log's index, and an older kind of log."""


class StoreFile:
    """A run store's file, and SQLite's files beside it.

    Parameters
    ----------
    path : Path

    Raises
    ------
    UsageError
        If the group that `FLFED_STORE_GROUP` names does not exist, or could not reach the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._named = path, os.environ.get(GROUP, "")
        self._readers = self._number() if self._named and os.name == "posix" else None

    def _number(self) -> int:
        import grp

        if self._path.resolve().is_relative_to(where().resolve()):
            raise UsageError(
                "FLFED_STORE_GROUP: the run store is in FLFED_HOME, which is closed to others; give it a folder of its "
                "own: FLFED_STORE=sqlite:////srv/flfed/runs.db"
            )
        try:
            return grp.getgrnam(self._named).gr_gid
        except KeyError:
            raise UsageError(f"{GROUP}: there is no group {self._named!r} on this machine") from None

    def make(self) -> None:
        """Make the file, and its folder, where they are absent, and close them to others.

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
        # An existing file is never opened: closing it would drop the locks that SQLite holds in this process.
        with suppress(OSError):  # SQLite reports why it cannot be made
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self.close_to_others()

    def close_to_others(self) -> None:
        """Close the files to all but owner and readers' group."""
        for end in BESIDE:
            path = self._path.with_name(self._path.name + end)
            with suppress(OSError):  # absent, or another account's
                mode = stat.S_IMODE(path.stat().st_mode)
                if self._readers is None and mode & 0o077:
                    path.chmod(mode & 0o700)
                self._give(path, mode & 0o700 | 0o040)

    def _give(self, path: Path, mode: int) -> None:
        """Give the readers' group, where one is named, its rights."""
        if self._readers is None:
            return
        try:
            # Correct files are not changed, as only their owner may do so.
            if path.stat().st_gid != self._readers:
                os.chown(path, -1, self._readers)
        except PermissionError:
            raise UsageError(f"{GROUP}: this user is not in group {self._named!r}, or does not own {path}") from None
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


POSTGRES = "postgresql+psycopg"
"""Dialect and driver of a run store's server."""
OTHERS = ("mysql", "mysql+pymysql", "mariadb", "oracle", "mssql", "mssql+pyodbc", "postgresql+psycopg2")
"""Databases that may be named in an error; anything else before "://" may be part of a secret."""
MALFORMED = (
    "the run store (FLFED_STORE) must be a database URL such as sqlite:////srv/flfed/runs.db or "
    "postgresql+psycopg://user:password@host/flfed; percent-encode @:/ in the password (%40 %3A %2F)"
)
PARTS = (re.compile(r"[\w.%-]*|[0-9A-Fa-f:.%]*"), re.compile(r"[^@:?#]*"))
"""Forms of host and database; text after an unencoded "@" of a password has another form."""
SQLITE_PARAMETERS = {"uri", "mode", "cache", "immutable", "nolock", "psow", "vfs", "timeout"}
PARAMETER = re.compile(
    r"(host|hostaddr|port|user|password|passfile|dbname|options|service\w*|replication|ssl[a-z_]+|gss[a-z]+|requirepeer|krb\w+|"
    r"keepalives\w*|(application|fallback|client|connect|tcp|target|load|channel|require|min|max|scram|oauth)_[a-z_]+)"
)
"""Form of libpq's settings, after the "?"."""
BUSY_SECONDS = 30
"""Longest wait of a writer for another one; a round's transaction takes milliseconds."""

CONNECT_SECONDS = 10
"""Longest wait for a server's reply; a network that drops packets would block a command for minutes."""
MISUSED = ("permission denied", "read-only", "readonly")
"""Words of messages on wrong use, which may follow even where the store could be opened."""


def store_url(url: str | None = None) -> URL:
    """Return the address of the run store: `url`, else `FLFED_STORE`, else `runs.db` under `home()`.

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
        # No error repeats any part of an address that cannot be read: a password may stand anywhere in it.
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
    """Return whether an address is well formed: a malformed part may contain some of a password."""
    if url.get_backend_name() == "sqlite":
        return not (url.username or url.password or url.host or url.port or url.query.keys() - SQLITE_PARAMETERS)
    parts = (url.host, url.database)
    return (
        all(part is None or form.fullmatch(part) for part, form in zip(parts, PARTS, strict=True))
        and (url.port is None or 0 < url.port < 65536)
        and all(PARAMETER.fullmatch(name) for name in url.query)
    )


ADVICE = {
    "locked": "another program is writing to it: wait, or end that program",
    "is full": "free some disk space; what was committed is safe",
    "No space left": "free some disk space on the server; what was committed is safe",
    "readonly": "check that you may write to this file and its folder",
    "unable to open": "check that the folder exists and that you may write to it",
    "malformed": "the file is damaged: put a back-up in its place, or move it away; flfed then starts an empty store",
    "disk I/O error": "check that it is a file, and the disk's health; a back-up may be needed",
    "not a database": "move the file away; flfed then starts an empty store",
    "authentication failed": "check user and password in FLFED_STORE",
    "no password": "give the password in FLFED_STORE, in PGPASSWORD or in a file `.pgpass`",
    "pg_hba.conf": "the server does not let this user in from this machine: ask its administrator",
    "does not exist": "have the server's administrator make it, or correct FLFED_STORE",
    "permission denied": "this user lacks a right on flfed's tables: docs/run-store.md lists the rights it needs",
    "read-only": "this server or user may only read: use one that may write, see docs/run-store.md",
    "too many": "the server has no connection left: close other programs or raise max_connections",
    "terminat": "the server is being stopped: start it again; what was committed is safe",
    "closed the connection": "start the server again; what was committed is safe",
    "connection is lost": "start the server again; what was committed is safe",
    "onnection": "check that the server runs and that FLFED_STORE has its address; what was committed is safe",
    "resolve": "check that the server runs and that FLFED_STORE has its address; what was committed is safe",
}
"""What to do about an error of the database, by words of its own message; the first that fits."""


@contextmanager
def in_words(url: URL, verb: str) -> Iterator[None]:
    """Turn a database error into one sentence with the failure, its place, and advice.

    A store that cannot be opened, or only be read by a writer, is wrong use: exit code 2.
    """
    try:
        yield
    except (TypeError, ValueError, ArgumentError):
        if verb != "opened":
            raise
        raise UsageError(MALFORMED) from None  # a driver refused a part, and quotes it
    except ImportError:
        why = "the run store is on PostgreSQL and its driver is not installed: pip install 'flfed[postgres]'"
        raise UsageError(why) from None
    except DBAPIError as error:
        # Later lines of PostgreSQL's messages quote values.
        message = (str(error.orig).splitlines() or [""])[0].strip()
        # psycopg reports a failed connection twice, and names the server's process.
        message = re.sub(r"^(?:connection failed: )?(?:consuming input failed: )?", "", message)
        fitting = (todo for word, todo in ADVICE.items() if word in message)
        advice = next(fitting, "see the database's log")
        # The query may contain a password, too.
        where = url.set(query={}).render_as_string(hide_password=True)
        misused = verb == "opened" or any(word in message for word in MISUSED)
        kind = UsageError if misused else FlfedError
        raise kind(f"the run store {where} could not be {verb} ({message}): {advice}") from None


_POOLED: WeakSet[Engine] = WeakSet()
"""Engines of this process that keep connections open."""


@contextmanager
def _closed_if_refused(engine: Engine) -> Iterator[None]:
    """Dispose of an engine that cannot be used."""
    try:
        yield
    except (DBAPIError, FlfedError):
        engine.dispose()
        raise


def engine_to_write(url: URL) -> Engine:
    """Return an engine for writing, with private SQLite files."""
    if url.get_backend_name() != "sqlite":
        return _postgres(url)
    # Only the owner may read the new file, which is in WAL mode.
    if url.database and url.database != ":memory:":
        own = StoreFile(Path(url.database))
        own.make()
        # SQLite makes files beside the store at each connection, which are then closed to others.
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "connect", lambda *_: own.close_to_others())
    else:
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return _closed_before_forks(engine)


def _closed_before_forks(engine: Engine) -> Engine:
    """Return an engine whose connections no forked process gets; the next query opens them again."""
    _close_before_forks()
    _POOLED.add(engine)
    return engine


@cache
def _close_before_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_close_connections)


def _close_connections() -> None:
    for engine in list(_POOLED):
        engine.dispose()


def _postgres(url: URL, **options: Any) -> Engine:
    """Return an engine on PostgreSQL that reconnects when dropped."""
    # Settings in the address precede flfed's defaults.
    seconds = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
    names = {} if "application_name" in url.query else {"application_name": "flfed"}
    engine = create_engine(url, pool_pre_ping=True, connect_args={**seconds, **names}, execution_options=options)
    return _closed_before_forks(engine)


@lru_cache(maxsize=4)
def _postgres_reader(url: URL) -> Engine:
    """Return the engine that reads PostgreSQL, one a process, as its compiled statements serve later reads."""
    return _postgres(url, postgresql_readonly=True)


@lru_cache(maxsize=16)
def _sqlite_reader(address: str) -> Engine:
    """Return the engine that reads an SQLite file, one a process; it opens the file again for each query."""
    return create_engine(address, poolclass=NullPool)


class OpenStore:
    """A run store that is open, to be closed at the end of the block.

    Parameters
    ----------
    engine : Engine
    url : URL
        Its address, for error sentences.
    """

    def __init__(self, engine: Engine, url: URL) -> None:
        self._engine = engine
        self._url = url

    @property
    def address(self) -> str:
        """Address by which another reader opens it."""
        return self._url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Close the connections to the database."""
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
    """Take the write lock at once, as a later upgrade of a read lock fails without waiting.

    A durable transaction waits for the disk, for itself and all before it; another does not wait.
    """
    waits = connection.get_execution_options().get("durable", True)
    connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if waits else 'NORMAL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def engine_to_read(url: URL) -> Engine:
    """Return an engine that cannot write.

    An absent SQLite file, or a database without flfed's tables, reads as empty. Another user may read a WAL database
    with `mode=ro` only while its writer has it open, and later only with `immutable=1`. An immutable connection does
    not see later writes, so readers open the store again for each read.
    """
    if url.get_backend_name() != "sqlite":
        engine = _postgres_reader(url)
        with _closed_if_refused(engine), engine.connect() as connection:
            if version_of(connection) is not None:
                return engine
        engine.dispose()
        return _empty()
    path = Path(url.database or ":memory:")
    try:
        if not path.exists() or not path.stat().st_size:
            return _empty()
    except PermissionError:
        raise UsageError(
            f"the run store {path} could not be opened (Permission denied): only its owner may read it; to let others "
            "read it: FLFED_STORE_GROUP, see docs/run-store.md"
        ) from None
    name = path.resolve().as_uri()
    # An immutable connection comes second, as it would miss later writes.
    for way in ("mode=ro", "mode=ro&immutable=1"):
        engine = _sqlite_reader(f"sqlite:///{name}?{way}&uri=true")
        try:
            with engine.connect() as connection:
                version = version_of(connection)
        except DBAPIError:
            continue
        if version is None:  # its first writer has made the file, but no tables yet
            engine.dispose()
            return _empty()
        return engine
    return engine


def _empty() -> Engine:
    """Return a store in memory without runs."""
    empty = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(empty)
    return empty


MAKING = 7_236_331
"""Key of the lock under which PostgreSQL's tables are made: any number that no other program uses."""


def make_tables(engine: Engine) -> None:
    """Make the tables of a new store, in one transaction.

    A store that is there takes a single query.

    Raises
    ------
    UsageError
        If its tables are of another version.
    """
    with _closed_if_refused(engine), engine.begin() as connection:
        version = version_of(connection)
        if version is None:
            # SQLite's writers always wait for one another.
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MAKING})
            # Another process may have made them while this one waited for the lock.
            version = version_of(connection)
        if version is None:
            Base.metadata.create_all(connection)
            connection.execute(insert(Version).values(number=VERSION))
        else:
            refuse_other(version)


def check_readable(engine: Engine) -> None:
    """Refuse to read a store of another version.

    Raises
    ------
    UsageError
        If its tables are of another version.
    """
    if engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:"):
        return
    with _closed_if_refused(engine), engine.connect() as connection:
        version = version_of(connection)
        if version is not None:
            refuse_other(version)
        # Reading one row checks that this user may read.
        connection.execute(select(Series.id).limit(1))


def version_of(connection: Connection) -> int | None:
    """Return the version of a store's tables, None where it has none yet; tables without a version are of version 0."""
    there = inspect(connection)
    if there.has_table(Version.__tablename__):
        return connection.execute(select(Version.number)).scalar()
    return 0 if there.has_table(RunSite.__tablename__) else None


def refuse_other(version: int) -> None:
    """Refuse a store whose tables are of another version.

    Raises
    ------
    UsageError
        If they are.
    """
    if version != VERSION:
        raise UsageError(
            f"the run store has tables of version {version}, and this flfed reads version {VERSION}: read it with the "
            "flfed that wrote it, or name another store with FLFED_STORE"
        )
