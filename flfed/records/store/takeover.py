"""Ownership of a run: its takeover from a dead process, and its deletion."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, RowMapping, delete, or_, select, update

from flfed.errors import UsageError
from flfed.records.store.tables import Audit, Comparison, Event, Metric, Run, RunSite, Sent, Series, Summary


@dataclass(frozen=True)
class Writer:
    """The process that writes a run.

    Parameters
    ----------
    host : str
        Name of the machine.
    boot : str
        Identity of the machine's last start; "" where it is not known.
    pid : int
        Number of the process.
    process : str
        Start of the process in clock ticks since boot, as process numbers are reused; "" where it is not known.
    """

    host: str
    boot: str
    pid: int
    process: str

    @classmethod
    def of(cls, row: RowMapping) -> Self:
        """Return the process that wrote a row of the table `run`."""
        return cls(**{key: row[key] for key in cls.__match_args__})


def this_process() -> Writer:
    """Return the identity of the calling process."""
    pid = os.getpid()
    return Writer(socket.gethostname(), _boot(), pid, start_of(pid))


def is_gone(writer: Writer) -> bool:
    """Return whether `writer` has certainly ended; False where it ran on another machine.

    Examples
    --------
    >>> is_gone(this_process())
    False
    >>> is_gone(Writer("another-machine", "", 1, ""))
    False
    """
    if writer.host != socket.gethostname():
        return False
    if writer.boot != _boot():
        return True
    if not _exists(writer.pid):
        return True
    # Process numbers are reused: an equal start proves that it is the same process.
    return bool(writer.process) and start_of(writer.pid) != writer.process


def _exists(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # of another account
    return True


def _boot() -> str:
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.exists() else ""


def start_of(pid: int) -> str:
    """Return a process's start in clock ticks, field 22 of `/proc/PID/stat`.

    The command in field 2 may have spaces and brackets. A zombie, state Z, has ended, and has "".
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


OF_THE_ROUND = ("fit", "clock")
"""Arms that are written with their own round; scores of a round's model are written with the next round."""


def lock_run(connection: Connection, run: str) -> RowMapping:
    """Return a run's row, locked against a takeover until the caller's transaction ends.

    Raises
    ------
    UsageError
        If the run is completed, or a living process writes it.
    """
    row = connection.execute(select(Run.__table__).where(Run.id == run).with_for_update()).mappings().one()
    if row["status"] == "completed":
        raise UsageError(f"run {run} is completed: there is nothing to resume; see: flfed run show {run}")
    _refuse_living(run, row)
    return row


def take_over(connection: Connection, run: str) -> None:
    """Make this process the writer of a locked run."""
    again = {"status": "running", "reason": "", "finished": None, "seconds": None, "arrays_sha256": None}
    connection.execute(update(Run).where(Run.id == run).values(again | vars(this_process())))


def _refuse_living(run: str, row: RowMapping) -> None:
    """Refuse to touch a run that a living process writes."""
    if row["status"] == "running" and not is_gone(Writer.of(row)):
        where = f"process {row['pid']} on {row['host']}"
        raise UsageError(f"run {run} is still running ({where}): wait for it, or end that process first")


def rewind(connection: Connection, run: str, rounds: int) -> None:
    """Delete all records after the first `rounds` committed rounds, in the caller's transaction.

    Scores of a round's model have that round's number but were written with the next one, so they are deleted with the
    next one. The record that a holdout was opened is kept. Without a round, nothing else is kept.
    """
    connection.execute(update(Run).where(Run.id == run).values(rounds=rounds, best_round=None))
    connection.execute(delete(Comparison).where(Comparison.run_id == run))
    scored_later = (Metric.round == rounds) & Metric.arm.not_in(OF_THE_ROUND)
    connection.execute(delete(Metric).where(Metric.run_id == run, or_(Metric.round > rounds, scored_later)))
    events = delete(Event).where(Event.run_id == run, Event.kind != "holdout-opened")
    if rounds == 0:
        # The requested sites are kept, as their names must stay hidden from one another.
        for table in (Sent, RunSite):
            connection.execute(delete(table).where(table.run_id == run))
        connection.execute(delete(Summary).where(Summary.run_id == run, Summary.name != "asked"))
        connection.execute(events)
        return
    connection.execute(delete(Sent).where(Sent.run_id == run, Sent.round > rounds))
    connection.execute(events.where(Event.round > rounds))


OF_A_RUN = (Metric, Comparison, Summary, Event, Sent, Audit, RunSite)
"""Tables whose lines are of one run."""


def delete_runs(connection: Connection, runs: Sequence[str]) -> None:
    """Delete everything of some runs, and series without runs, in the caller's transaction.

    Raises
    ------
    UsageError
        If a living process writes one of them; nothing is deleted then.
    """
    # Locked rows cannot be taken over meanwhile.
    rows = connection.execute(select(Run.__table__).where(Run.id.in_(runs)).with_for_update()).mappings().all()
    for row in rows:
        _refuse_living(row["id"], row)
    for table in OF_A_RUN:
        connection.execute(delete(table).where(table.run_id.in_(runs)))
    connection.execute(delete(Run).where(Run.id.in_(runs)))
    for series in {row["series_id"] for row in rows}:
        if connection.execute(select(Run.id).where(Run.series_id == series)).first() is None:
            connection.execute(delete(Series).where(Series.id == series))
