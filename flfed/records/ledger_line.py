"""Lines of a ledger as canonical JSON, and sums over them.

A line's hash covers all of it and the hash of the line before. Lines and bytes that a site sent are summed by study, by
day, and by round and kind.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from flfed.callbacks import stamp
from flfed.errors import UsageError
from flfed.signatures import HASH, canonical

START = "0" * 64
"""Value in place of the hash before the first line."""
LONGEST = 65_536
"""Bytes of a line."""
RESTARTED = "restarted"
"""The kind of a first line that records by whom and why a lost ledger was begun anew."""
ALLOWED = "allowed"
"""The kind of a line by which a person lets more runs of a dataset have replies."""
REFUSED = "refused"
ERROR = "error"
WITHHELD = "withheld"
"""Kinds of lines for refused requests, for errors, and for a reply that did not leave."""
STANDS_FOR = "stands-for"
"""Key of such a line in a flood of them: for how many refused messages of its kind or another it stands."""
SLACK = timedelta(minutes=5)
"""How far a clock may be behind the last line: the next line then gets that line's time."""
OWN = frozenset({"n", "at", "before", "hash"})
"""Keys that the ledger sets; all others come from the caller."""
KEY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


Run = tuple[str, str, int]
"""Key of a run in counts: the study's hash, the run's name, the repeat."""


#   {"at":…,"before":"9f…","bytes":5120,"hash":"4c…","kind":"train","n":7,"round":3,"run":…}      one line of the file
#              │                    │
#              │                    └─ SHA-256 of the canonical JSON of all the others
#              └─ the hash of line 6
#
# A changed, removed, moved or inserted line breaks a hash after it. That the last lines were cut off shows by n and
# hash of the last line, which the site's state and the coordinator know.
@dataclass(frozen=True)
class Line:
    """A line in a ledger.

    Attributes
    ----------
    n : int
        From 1.
    at : str
        UTC, ISO with milliseconds.
    kind : str
    before, hash : str
        SHA-256 as hex: of the line before, and of this line without its own.
    facts : mapping
        All its other keys, known or not.
    raw : bytes
        Its bytes, without the line end.
    whole : bool
        Whether its hash is that of its content, and its bytes are the canonical ones.
    """

    n: int
    at: str
    kind: str
    before: str
    hash: str
    facts: Mapping[str, Any]
    raw: bytes
    whole: bool = True

    def text(self, key: str) -> str:
        """Return a fact as text; it is empty where the line has no such fact."""
        return str(self.facts.get(key, ""))

    def is_ahead_of(self, now: datetime) -> bool:
        """Return whether this line is more than `SLACK` ahead of a clock, so that no line can follow it.

        A time that cannot be read counts as ahead.
        """
        try:
            return datetime.fromisoformat(self.at) - now > SLACK
        except (TypeError, ValueError):
            return True


def run_of(facts: Mapping[str, Any]) -> Run:
    """Return the run of a line's facts; without a repeat it is 0."""
    repeat = facts.get("repeat")
    return str(facts.get("study-sha256")), str(facts.get("run")), repeat if type(repeat) is int else 0


def new_line(n: int, before: str, at: str, kind: str, facts: Mapping[str, Any]) -> Line:
    """Return line `n`, after a line with the hash `before`.

    Raises
    ------
    UsageError
        If a line may not have a key, or would be too long.
    ValueError, TypeError
        If JSON has no such value.
    """
    named = {key.replace("_", "-"): value for key, value in facts.items()}
    # With a key of the ledger's own the caller could set a line's number, time or hash.
    wrong = sorted(key for key in named if not KEY.fullmatch(key) or key in OWN or key == "kind")
    if wrong:
        raise UsageError(f"ledger key {wrong[0]!r} must be of a-z, 0-9 and hyphens, and none of {', '.join(OWN)}, kind")
    # JSON is read back, as it makes text of a key that is a number, which then sorts as text.
    plain = json.loads(canonical({**named, "n": n, "at": at, "kind": kind, "before": before}))
    digest = hashlib.sha256(canonical(plain)).hexdigest()
    raw = canonical({**plain, "hash": digest})
    if len(raw) >= LONGEST:
        raise UsageError(f"a ledger line of {len(raw)} bytes is too long: at most {LONGEST - 1} are kept")
    facts = {key: value for key, value in plain.items() if key not in OWN and key != "kind"}
    return Line(n, at, kind, before, digest, facts, raw)


def read_line(raw: bytes) -> Line | None:
    """Return a line of a ledger, whole or changed; None of bytes that are no line."""
    facts = _json(raw)
    if not isinstance(facts, dict):
        return None
    n, at, kind, before, digest = (facts.pop(key, None) for key in ("n", "at", "kind", "before", "hash"))
    if type(n) is not int or n < 1 or not isinstance(at, str) or not isinstance(kind, str):
        return None
    if not _is_hash(before) or not _is_hash(digest):
        return None
    plain = {**facts, "n": n, "at": at, "kind": kind, "before": before}
    # A line is whole where its hash is right and its bytes are the canonical ones.
    try:
        right = hashlib.sha256(canonical(plain)).hexdigest() == digest
        whole = right and canonical({**plain, "hash": digest}) == raw
    except ValueError:  # NaN, which Python's reader accepts
        return None
    return Line(n, at, kind, before, digest, facts, raw, whole)


def _json(raw: bytes) -> Any:
    """Return the value of a JSON text, None of another text."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and HASH.fullmatch(value) is not None


Key = TypeVar("Key", bound=Hashable)


@dataclass
class Total:
    """Count of lines, and of the bytes of their messages' content, as in the run store."""

    lines: int = 0
    bytes: int = 0

    def add(self, line: Line) -> None:
        """Count one line more."""
        self.lines += 1
        self.bytes += bytes_of(line)


@dataclass
class Totals:
    """Sums over a ledger's lines.

    Attributes
    ----------
    all : Total
    studies, days : dict of name, and of ISO date, to Total
    rounds : dict of (round, kind) to Total
        Round 0 has messages without a round: enrolment, sums, comparison, refusals.
    """

    all: Total = field(default_factory=Total)
    studies: dict[str, Total] = field(default_factory=dict)
    days: dict[str, Total] = field(default_factory=dict)
    rounds: dict[tuple[int, str], Total] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Count one line more."""
        self.all.add(line)
        _at(self.studies, study_of(line)).add(line)
        _at(self.days, line.at[:10]).add(line)
        _at(self.rounds, (round_of(line), line.kind)).add(line)


def bytes_of(line: Line) -> int:
    """Return the number of bytes that a line records as sent, 0 of a line without a message."""
    size = line.facts.get("bytes")
    return size if type(size) is int else 0


def round_of(line: Line) -> int:
    """Return the round of a line or 0."""
    round_number = line.facts.get("round")
    return round_number if type(round_number) is int else 0


def study_of(line: Line) -> str:
    """Return the study's name, "" of none."""
    return str(line.facts.get("study") or "")


def moment_of(text: str) -> str:
    """Return a date or a time in the ledger's format; a time without a zone is in UTC.

    Examples
    --------
    >>> moment_of("2026-11-20"), moment_of("2026-11-20T08:30:00+01:00")
    ('2026-11-20T00:00:00.000Z', '2026-11-20T07:30:00.000Z')
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no date and no time; such as 2026-11-20 or 2026-11-20T08:30:00Z") from None
    return stamp(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))


def _at(totals: dict[Key, Total], key: Key) -> Total:
    return totals.setdefault(key, Total())
