"""Update of a run store that an earlier flfed wrote, after a copy of it was made."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from flfed.errors import FlfedError, UsageError
from flfed.records.store import database, revisions
from flfed.records.store.store_file import StoreFile


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
    where = database.store_url(url)
    name = where.set(query={}).render_as_string(hide_password=True)
    if where.get_backend_name() == "sqlite" and not (where.database and Path(where.database).exists()):
        raise UsageError(f"there is no run store {name} yet: the first study run makes it")
    with database.in_words(where, "opened"):
        engine = database.engine_to_write(where)
    try:
        with database.in_words(where, "updated"), engine.begin() as connection:
            revisions.lock_tables(connection)
            before = revisions.revision_of(connection)
            if before is None:
                raise UsageError(f"the run store {name} has no tables yet: the first study run makes them")
            revisions.refuse_unknown(before)
            after, copy = revisions.newest_revision(), None
            if before != after:
                copy = _copy_of(where, name, before, backed_up=backed_up)
                if before == revisions.FORMER:
                    revisions.take_on(connection)
                revisions.run_migrations(connection)
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
        f"`{revisions.UPGRADE} --backed-up`"
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
