"""Rounds on their way into the run store: as lines of its tables, several in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from flfed.records.bulk import insert_all, insert_columns
from flfed.records.entries import EventRow, MetricRow, SentRow
from flfed.records.tables import Event, Metric, Run, Sent

Line = tuple[Any, ...]
Numbered = tuple[int, Sequence[MetricRow | SentRow]]
"""The number of a round, and rows of it."""
EVENTS = ("at", *(field.name for field in fields(EventRow)))
COUNT = update(Run).where(Run.id == bindparam("of"), Run.rounds < bindparam("first")).values(rounds=bindparam("last"))
"""Counts rounds, unless the first of them is counted already."""


@dataclass(frozen=True)
class HeldRound:
    """One round as tuples in lists of its own, so that nothing the caller changes later gets into the store.

    Attributes
    ----------
    number : int
    metrics, scores : lists of MetricRow
        The scores are of the model before the round.
    sent : list of SentRow
    events : list of tuples
        In the order of `EVENTS`.
    """

    number: int
    metrics: list[MetricRow]
    scores: list[MetricRow]
    sent: list[SentRow]
    events: list[Line]


def event_lines(at: str, rows: Iterable[EventRow]) -> list[Line]:
    """Return events in the order of `EVENTS`; they happened `at`."""
    return [(at, *vars(row).values()) for row in rows]


def write_rounds(connection: Connection, run: str, rounds: Sequence[HeldRound]) -> None:
    """Write rounds that follow each other, in the caller's transaction.

    Raises
    ------
    ValueError
        If the first of them, or a later round, is committed already.
    """
    first, last = rounds[0].number, rounds[-1].number
    if not connection.execute(COUNT, {"of": run, "first": first, "last": last}).rowcount:
        done = connection.execute(select(Run.rounds).where(Run.id == run)).scalar_one()
        raise ValueError(f"round {first} of run {run} is committed already (last: {done})")
    figures = [part for held in rounds for part in ((held.number, held.metrics), (held.number - 1, held.scores))]
    insert_numbered(connection, Metric, figures, run)
    insert_numbered(connection, Sent, [(held.number, held.sent) for held in rounds], run)
    insert_all(connection, Event, EVENTS, chain.from_iterable(held.events for held in rounds), {"run_id": run})


def insert_numbered(
    connection: Connection, table: type[Metric] | type[Sent], parts: Sequence[Numbered], run: str
) -> None:
    """Insert figures of rounds, or bytes that crossed in them."""
    names = MetricRow._fields if table is Metric else SentRow._fields
    rounds = [number for number, rows in parts for _ in rows]
    columns = zip(*chain.from_iterable(rows for _, rows in parts), strict=True)
    insert_columns(connection, table, {"round": rounds, **dict(zip(names, columns, strict=False))}, {"run_id": run})
