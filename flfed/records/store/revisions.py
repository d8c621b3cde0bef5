"""Revision of a run store's tables: which one they have, and the steps to the newest."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from flfed.errors import FlfedError, UsageError

MIGRATIONS = Path(__file__).parent / "migrations"
UPGRADE = "flfed run upgrade-store"
"""The command that updates a store of an earlier revision."""
FORMER = "m0004"
"""Revision of the one earlier store that is taken on: that of commit d516c7c8."""
TOO_OLD = ("m0001", "m0002", "m0003")
"""Revisions before it, which are taken on no longer."""
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


def refuse_other(found: str) -> None:
    """Refuse a store of another revision; the error says what to do.

    Raises
    ------
    UsageError, FlfedError
        If an older or a newer flfed wrote it.
    """
    refuse_unknown(found)
    if found != newest_revision():
        raise UsageError(
            f"the run store is of an earlier revision ({found}, this flfed needs {newest_revision()}): "
            f"update it with `{UPGRADE}`"
        )


def refuse_unknown(found: str) -> None:
    """Refuse a store that a newer flfed wrote, or one too old to be taken on.

    Raises
    ------
    UsageError, FlfedError
        If it is such a store; the error says what to do.
    """
    if found in TOO_OLD:
        raise UsageError(
            f"the run store is at revision {found}, and this flfed takes on {FORMER} and later: update it first with "
            f"the flfed of {FORMER} (commit d516c7c8: `{UPGRADE}`), or name another store with FLFED_STORE"
        )
    if found not in (FORMER, *_revisions()):
        raise FlfedError(
            f"the run store is at revision {found}, this flfed knows up to {newest_revision()}: update flfed"
        )


def take_on(connection: Connection) -> None:
    """Take on a store of revision `FORMER`, without its table of curves."""
    connection.execute(text("DROP TABLE curve"))
    connection.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": "m0005"})


def run_migrations(connection: Connection) -> None:
    """Run Alembic's `upgrade head` on an open connection."""
    # Imported here: it takes a third of a second.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
