"""Lines and bytes that left a site.

They are summed by study, by day, and by round and kind.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from flfed.callbacks import stamp
from flfed.errors import UsageError
from flfed.records.ledger.line import Line

Key = TypeVar("Key", bound=Hashable)


@dataclass
class Total:
    """Count of lines and of their bytes.

    The bytes are those of the messages' content, as the run store counts them.
    """

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
        Round 0 has what is of none: enrolment, sums, comparison, refusals.
    """

    all: Total = field(default_factory=Total)
    studies: dict[str, Total] = field(default_factory=dict)
    days: dict[str, Total] = field(default_factory=dict)
    rounds: dict[tuple[int, str], Total] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Count one line more."""
        self.all.add(line)
        _at(self.studies, study_of(line)).add(line)
        _at(self.days, line.first_at[:10]).add(line)
        _at(self.rounds, (round_of(line), line.kind)).add(line)


def bytes_of(line: Line) -> int:
    """Return how many bytes left with a line.

    It is 0 where the line tells of nothing that left.
    """
    found = line.facts.get("bytes")
    return found if type(found) is int else 0


def round_of(line: Line) -> int:
    """Return the round of a line or 0."""
    found = line.facts.get("round")
    return found if type(found) is int else 0


def study_of(line: Line) -> str:
    """Return the study's name or an empty text."""
    return str(line.facts.get("study") or "")


def moment_of(text: str) -> str:
    """Return a moment in the ledger's format.

    The text is a date or a time. A time without a zone is taken as UTC.

    Examples
    --------
    >>> moment_of("2026-11-20"), moment_of("2026-11-20T08:30:00+01:00")
    ('2026-11-20T00:00:00.000Z', '2026-11-20T07:30:00.000Z')
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no date and no time; such as 2026-11-20 or 2026-11-20T08:30:00Z") from None
    return stamp(found if found.tzinfo is not None else found.replace(tzinfo=UTC))


def _at(found: dict[Key, Total], key: Key) -> Total:
    return found.setdefault(key, Total())
