"""Going on with a run that died: whose it is now, and which of its rows are kept."""

from __future__ import annotations

from sqlalchemy import Connection, delete, or_, select, update

from flfed.errors import UsageError
from flfed.records.alive import Writer, is_gone, this_process
from flfed.records.tables import Comparison, Event, Metric, Run, RunSite, Sent, Summary

OF_THE_ROUND = ("fit", "clock")
"""Arms that are written with their own round; scores of a round's model come with the next round."""


def take_over(connection: Connection, run: str) -> int:
    """Make this process the writer of a run, in the caller's transaction: only one can; return its rounds committed.

    Raises
    ------
    UsageError
        If the run is completed, or a living process writes it.
    """
    columns = (Run.status, Run.rounds, Run.host, Run.boot, Run.pid, Run.process)
    row = connection.execute(select(*columns).where(Run.id == run).with_for_update()).mappings().one()
    if row["status"] == "completed":
        raise UsageError(f"run {run} is completed: there is nothing to resume; see: flfed run show {run}")
    if row["status"] == "running" and not is_gone(Writer(row["host"], row["boot"], row["pid"], row["process"])):
        where = f"process {row['pid']} on {row['host']}"
        raise UsageError(f"run {run} is still running ({where}): wait for it, or end that process first")
    mine = this_process()
    again = {"status": "running", "reason": "", "finished": None, "seconds": None, "arrays_sha256": None}
    writer = {"host": mine.host, "boot": mine.boot, "pid": mine.pid, "process": mine.process}
    connection.execute(update(Run).where(Run.id == run).values(again | writer))
    return int(row["rounds"])


def rewind(connection: Connection, run: str, rounds: int) -> None:
    """Delete what was written after `rounds` committed rounds, in the caller's transaction.

    What a round's model scored stands under its round but came with the next one, so it goes with
    that. That a holdout was opened stays written down: it happened. With no round nothing else is kept.
    """
    connection.execute(update(Run).where(Run.id == run).values(rounds=rounds, best_round=None))
    connection.execute(delete(Comparison).where(Comparison.run_id == run))
    scored_later = (Metric.round == rounds) & Metric.arm.not_in(OF_THE_ROUND)
    connection.execute(delete(Metric).where(Metric.run_id == run, or_(Metric.round > rounds, scored_later)))
    events = delete(Event).where(Event.run_id == run, Event.kind != "holdout-opened")
    if rounds == 0:
        for table in (Sent, RunSite):
            connection.execute(delete(table).where(table.run_id == run))
        connection.execute(delete(Summary).where(Summary.run_id == run, Summary.name != "asked"))
        connection.execute(events)
        return
    connection.execute(delete(Sent).where(Sent.run_id == run, Sent.round > rounds))
    connection.execute(events.where(Event.round > rounds))
