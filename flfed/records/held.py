"""Rounds on their way into the run store: as lines of its tables, several in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Self

from sqlalchemy import Connection, bindparam, select, update

from flfed.records.bulk import insert_all
from flfed.records.entries import EventRow, MetricRow, SentRow
from flfed.records.tables import Event, Metric, Run, Sent

Line = tuple[Any, ...]
METRICS = ("round", *MetricRow._fields)
SENT = ("round", *SentRow._fields)
EVENTS = ("at", *(field.name for field in fields(EventRow)))
COUNT = update(Run).where(Run.id == bindparam("of"), Run.rounds < bindparam("first")).values(rounds=bindparam("last"))
"""Counts rounds, unless the first of them is counted already."""


@dataclass(frozen=True)
class HeldRound:
    """One round as lines of the tables, so that nothing the caller changes later gets into the store.

    Attributes
    ----------
    number : int
    metrics, sent, events : lists of tuples
        In the order of `METRICS`, `SENT` and `EVENTS`.
    """

    number: int
    metrics: list[Line]
    sent: list[Line]
    events: list[Line]

    @classmethod
    def of(
        cls,
        number: int,
        *,
        metrics: Iterable[MetricRow],
        scores: Iterable[MetricRow],
        sent: Iterable[SentRow],
        events: Iterable[EventRow],
        at: str,
    ) -> Self:
        """Return the round as lines; the scores are of the model before it, the events happened `at`."""
        figures = round_lines(number, metrics) + round_lines(number - 1, scores)
        return cls(number, figures, round_lines(number, sent), event_lines(at, events))


def round_lines(number: int, rows: Iterable[MetricRow | SentRow]) -> list[Line]:
    """Return figures of a round, or bytes that crossed in it, in the order of `METRICS` or `SENT`."""
    return [(number, *row) for row in rows]


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
    same = {"run_id": run}
    insert_all(connection, Metric, METRICS, chain.from_iterable(held.metrics for held in rounds), same)
    insert_all(connection, Sent, SENT, chain.from_iterable(held.sent for held in rounds), same)
    insert_all(connection, Event, EVENTS, chain.from_iterable(held.events for held in rounds), same)
