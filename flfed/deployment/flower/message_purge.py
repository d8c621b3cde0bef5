"""Removal of finished messages from Flower's database.

Updates must not outlive their run there.

Tables of Flower 1.42 that are written to: `message_ins`, `message_res`, `objects`, `object_children`,
`run_objects`, `object_push_sessions`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from flfed.words import flfed_error

BUSY_SECONDS = 30.0
"""How long Flower's own work may keep the database busy."""
BY_RUN = ("message_res", "message_ins", "run_objects", "object_push_sessions")


def remove_bodies(
    database: Path, *, over: Collection[int], seconds: float = BUSY_SECONDS, only_if_any: bool = False
) -> int:
    """Remove every message of runs that are over.

    Return how many stored objects were removed.

    SQLite leaves deleted bytes in its file until they are overwritten, and in its log until that is truncated. So the
    file is rewritten (VACUUM), and the log truncated.

    Parameters
    ----------
    database : Path
        Of a SuperLink that may be running.
    over : collection of int
        Flower's numbers of these runs; those of all others, such as one begun meanwhile, remain.
    seconds : float
        How long to wait for Flower's own work on the database.
    only_if_any : bool
        Whether to leave the file as it is where there is nothing to remove. An unfinished removal is always
        finished.

    Raises
    ------
    FlfedError
        If it fails, so that the bytes may still be in the file.
    """
    if not database.exists():
        return 0
    # The marker survives a crash, so that the next call finishes an unfinished removal.
    begun = database.with_name(f"{database.name}.removing")
    try:
        where = f"file:{quote(str(database))}?mode=rw"
        with closing(sqlite3.connect(where, uri=True, timeout=seconds, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")
            # With nothing to remove, rewriting the file would only cost time.
            if only_if_any and not begun.exists() and not _any(connection, over):
                return 0
            begun.touch(mode=0o600)
            removed = _delete(connection, over)
            _rewrite(connection, time.monotonic() + seconds)
            begun.unlink()
    except (sqlite3.Error, OSError) as error:
        raise flfed_error("coordinator.server.unpurged", database=database, why=error) from None
    return removed


def _any(connection: sqlite3.Connection, over: Collection[int]) -> bool:
    """Return whether the database has anything of these runs."""
    of = f"WHERE run_id IN ({_list(over)})"
    return any(connection.execute(f"SELECT 1 FROM {table} {of} LIMIT 1").fetchone() for table in BY_RUN)


def _delete(connection: sqlite3.Connection, over: Collection[int]) -> int:
    """Delete rows and correct the reference counts.

    Flower counts the parents of an object, so the counts of the remaining objects are computed again.
    """
    connection.execute("BEGIN IMMEDIATE")
    for table in BY_RUN:
        connection.execute(f"DELETE FROM {table} WHERE run_id IN ({_list(over)})")
    # An object may belong to several runs: it is deleted where no run has it any more.
    removed = connection.execute("DELETE FROM objects WHERE object_id NOT IN (SELECT object_id FROM run_objects)")
    count = removed.rowcount
    parents = "SELECT count(*) FROM object_children WHERE child_id = objects.object_id"
    connection.execute(f"UPDATE objects SET ref_count = ({parents})")
    connection.execute("COMMIT")
    return count


def _rewrite(connection: sqlite3.Connection, end: float) -> None:
    """Rewrite the file and truncate its log.

    The log can be truncated when no process reads from it.
    """
    connection.execute("VACUUM")
    while True:
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            return
        if time.monotonic() > end:
            raise sqlite3.OperationalError("its log is in use")
        time.sleep(0.05)


def _list(runs: Collection[int]) -> str:
    return ",".join(str(signed_number(number)) for number in runs)


def signed_number(number: int) -> int:
    """Return a number as the database stores it.

    Flower's numbers have 64 bits without a sign; SQLite's have one.

    Examples
    --------
    >>> signed_number(2**64 - 1), signed_number(7)
    (-1, 7)
    """
    return number - 2**64 if number >= 2**63 else number
