"""Journal of a site's runs: each step of a run is answered once.

The same request for an answered step gets the bytes of its reply again. Another request for it, or one for an earlier
step, is refused; later steps may be left out, as where a site was away or a run ends early.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from flfed.callbacks import stamp
from flfed.refusals import Refusal
from flfed.updates.messages import kinds

PHASES = {
    kinds.SUMMARISE: 1, kinds.ALIGN: 1, kinds.BINS: 2, kinds.TRAIN: 3, kinds.OPEN: 3, kinds.PARTIAL: 3,
    kinds.STATISTIC: 3, kinds.SCORES: 4, kinds.EVALUATE: 4, kinds.COMPARE: 5, kinds.AUDIT: 6,
}  # fmt: skip
"""Place of each kind of message in a run; enrolment and keys may be asked at any time."""
OPENING = 1_000_000
"""Attempt of the opening of a round, which follows its training."""
KEPT_DAYS = 30
KEPT_ROUNDS = 2
"""Rounds whose replies stay: a coordinator that was killed asks for no earlier one."""


class Place(NamedTuple):
    """Place of a step in the order of a run."""

    phase: int
    round: int = 0
    attempt: int = 0
    level: int = 0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request for a step.

    Attributes
    ----------
    run : str
    repeat : int
    kind : str
        Kind of the message; of an attack, with its name.
    place : Place
    request : str
        Hash of the whole request, and of what else the reply depends on.
    model : str
        Hash of the model that it brings; "" where it cannot be identified.
    """

    run: str
    repeat: int
    kind: str
    place: Place
    request: str
    model: str = ""


@dataclass(frozen=True)
class Answer:
    """A reply that left: its content as bytes, or the text of an error."""

    content: bytes | None
    error: str = ""


def place_of(kind: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Place | None:
    """Return the place of a request that fits its study; None of a kind that may be asked at any time."""
    if kind not in PHASES:
        return None
    phase, round = PHASES[kind], int(config.get("round", 0))
    if kind in (kinds.ALIGN, kinds.PARTIAL):
        return Place(phase, round, 0, int(config.get("exchange", 0)))
    if kind == kinds.OPEN:
        return Place(phase, round, OPENING)
    if kind == kinds.TRAIN:
        return Place(phase, round, int(settings.get("attempt", 0)), int(settings.get("level", 0)))
    if kind == kinds.STATISTIC:
        # Of a study with a model its counts come before the rounds.
        return Place(phase, round)
    return Place(phase)


def find_answer(tables: sqlite3.Connection, asked: Asked) -> Answer | Refusal | None:
    """Return the answer to a request, or why it gets none; None of a step that was not answered yet."""
    of_run = (asked.run, asked.repeat)
    step = "(run, repeat, phase, round, attempt, level, kind) = (?,?,?,?,?,?,?)"
    query = f"SELECT request, reply, error FROM steps WHERE {step}"
    found = tables.execute(query, (*of_run, *asked.place, asked.kind)).fetchone()
    if found is not None:
        is_same = found[0] == asked.request and (found[1] is not None or found[2])
        return Answer(*found[1:]) if is_same else Refusal("step-answered", round=asked.place.round)
    places = tables.execute("SELECT phase, round, attempt, level FROM steps WHERE (run, repeat) = (?,?)", of_run)
    passed = max((Place(*place) for place in places), default=Place(0)) > asked.place
    return Refusal("step-passed", round=asked.place.round) if passed else None


def add_answer(tables: sqlite3.Connection, asked: Asked, answer: Answer, at: str) -> None:
    """Note an answer that is about to leave; bytes of rounds before the last two are removed."""
    values = (asked.run, asked.repeat, *asked.place, asked.kind, asked.request, asked.model)
    tables.execute(f"INSERT INTO steps VALUES ({', '.join('?' * 12)})", (*values, answer.content, answer.error, at))
    if asked.kind == kinds.TRAIN:
        tables.execute(
            "UPDATE steps SET reply = NULL WHERE (run, repeat) = (?,?) AND kind IN (?,?) AND round <= ?",
            (asked.run, asked.repeat, kinds.TRAIN, kinds.OPEN, asked.place.round - KEPT_ROUNDS),
        )


def models_of(tables: sqlite3.Connection, run: str, repeat: int, *of_kinds: str) -> set[str]:
    """Return the hashes of the models with which a run had an answer, by kind of message."""
    places = ", ".join("?" * len(of_kinds))
    query = f"SELECT model FROM steps WHERE (run, repeat) = (?,?) AND error = '' AND kind IN ({places})"
    return {model for (model,) in tables.execute(query, (run, repeat, *of_kinds))}


def forget_replies(tables: sqlite3.Connection, at: str) -> None:
    """Remove the bytes of replies of 30 days before a time: such a run cannot be resumed, nor answered anew."""
    before = datetime.fromisoformat(at) - timedelta(days=KEPT_DAYS)
    tables.execute("UPDATE steps SET reply = NULL WHERE at < ?", (stamp(before),))
