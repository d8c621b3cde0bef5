"""Lines of a ledger as canonical JSON, and what they add up to.

A line's hash covers all of it and the hash of the line before. Lines and bytes that left a site are summed by study,
by day, and by round and kind.
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
"""What stands for the hash before the first line."""
LONGEST = 65_536
"""Bytes of a line."""
REPAIRED = "repaired"
"""The kind of a line that sets aside what a crash left of the line before it."""
RECEIPT = "receipt"
"""The kind of a line of a site's receipts: the coordinator's signature of a head."""
RESTARTED = "restarted"
"""The kind of a first line that tells of a ledger before it, which was lost."""
QUESTION = "question-sha256"
PINNED, LISTED, BESIDE = "pinned", "listed", "sums-only"
"""Keys of a line about secure sums: the question that was answered, the sites whose keys were pinned then, the list
that was confirmed or opened, and the sites of the run that share figures in sums only."""
ASKS = "asks-sha256"
"""The key of what a line's study asks, whatever its text calls it: its runs are counted by this hash."""
COMPARED_HASH, STAYED = "asked-sha256", "figures-stayed"
"""Keys of a line of a comparison: the hash of the model that was compared, and that none of its figures left."""
ADDED = "compared-added"
"""The kind of a line by which a person adds comparisons of further models, of one dataset."""
CARRIED, CARRIED_AT = "carried-from", "carried-at"
"""Keys of a line that was carried over from such a ledger: the number and the time that it had there."""
COMPLETE = "complete"
"""The key of such a first line where no line was lost: the ledger before was later than the clock, and no more."""
REFUSED = "refused"
ERROR = "error"
WITHHELD = "withheld"
"""Kinds of lines for what was not answered, for what failed, and for a reply that did not leave."""
FORMAT = 2
"""Of lines whose time is held to that of the line before; those of earlier versions name no format, and are of 1."""
SLACK = timedelta(minutes=5)
"""How far a clock may be behind the last line: the next line then takes that one's time."""
OWN = frozenset({"n", "at", "before", "hash", "format"})
"""What a line says of itself; all else comes from who appends it."""
KEY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


Run = tuple[str, str, int]
"""A run as it is counted: the study's hash, the run's name, the repeat."""


#   {"at":…,"before":"9f…","bytes":5120,"hash":"4c…","kind":"train","n":7,"round":3,"run":…}      one line of the file
#              │                    │
#              │                    └─ SHA-256 of the canonical JSON of all the others
#              └─ the hash of line 6
#
# A line that is changed, removed, moved or inserted breaks a hash behind it. That the last lines were cut off shows by
# a receipt: the coordinator signs n and hash after each run.
@dataclass(frozen=True)
class Line:
    """A line as it stands in a ledger.

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
        The line as it stands there, without its end.
    whole : bool
        Whether its hash is that of its content, and its bytes are those that were written.
    format : int
        From `FORMAT` on its time is held to that of the line before.
    """

    n: int
    at: str
    kind: str
    before: str
    hash: str
    facts: Mapping[str, Any]
    raw: bytes
    whole: bool = True
    format: int = 1

    @property
    def first_at(self) -> str:
        """The time at which it was first written, also where it was carried over since."""
        return str(self.facts.get(CARRIED_AT, self.at))

    @property
    def follows_loss(self) -> bool:
        """Whether it begins a ledger in place of one that was lost, in whole or in part."""
        return self.kind == RESTARTED and self.facts.get(COMPLETE) is not True

    def content_hash(self) -> str:
        """Return the hash that this content should have.

        Of a line that is not whole it is the hash of the content that stands there.
        """
        plain = {"n": self.n, "at": self.at, "kind": self.kind, "before": self.before, **_named(self.format)}
        return hashlib.sha256(canonical({**self.facts, **plain})).hexdigest()

    def is_ahead_of(self, now: datetime) -> bool:
        """Tell whether this line is ahead of a clock.

        No line can follow one that is more than `SLACK` later. A time that cannot be read counts as ahead.
        """
        try:
            return datetime.fromisoformat(self.at) - now > SLACK
        except (TypeError, ValueError):
            return True

    def sets_aside(self, torn: bytes) -> bool:
        """Tell whether this line sets aside `torn`.

        It then records that the bytes before it are what a crash left.
        """
        torn_facts = (self.facts.get("torn-bytes"), self.facts.get("torn-sha256"))
        return self.kind == REPAIRED and torn_facts == (len(torn), hashlib.sha256(torn).hexdigest())


def run_of(facts: Mapping[str, Any]) -> Run:
    """Return the run of a line's facts.

    Lines from before repeats were named are of repeat 0.
    """
    repeat = facts.get("repeat")
    return str(facts.get("study-sha256")), str(facts.get("run")), repeat if type(repeat) is int else 0


def run_of_new(facts: Mapping[str, Any]) -> Run:
    """Return the run that the facts of a line to be written name."""
    return str(facts["study_sha256"]), str(facts["run"]), int(facts["repeat"] or 0)


def new_line(n: int, before: str, at: str, kind: str, facts: Mapping[str, Any], *, format: int = 1) -> Line:
    """Return the line that follows `n - 1` lines.

    The last of those has the hash `before`.

    Raises
    ------
    UsageError
        If a key is none that a line may have, or the line would be too long.
    ValueError, TypeError
        If a value is none that JSON has.
    """
    named = {key.replace("_", "-"): value for key, value in facts.items()}
    # A key of its own would let the caller write a line's number, time or hash.
    wrong = sorted(key for key in named if not KEY.fullmatch(key) or key in OWN or key == "kind")
    if wrong:
        raise UsageError(f"ledger key {wrong[0]!r} must be of a-z, 0-9 and hyphens, and none of {', '.join(OWN)}, kind")
    # Twice through JSON: a key that is a number becomes text there, and sorts as text from then on.
    plain = json.loads(canonical({**named, "n": n, "at": at, "kind": kind, "before": before, **_named(format)}))
    digest = hashlib.sha256(canonical(plain)).hexdigest()
    raw = canonical({**plain, "hash": digest})
    if len(raw) >= LONGEST:
        raise UsageError(f"a ledger line of {len(raw)} bytes is too long: at most {LONGEST - 1} are kept")
    facts = {key: value for key, value in plain.items() if key not in OWN and key != "kind"}
    return Line(n, at, kind, before, digest, facts, raw, format=format)


def is_object(raw: bytes) -> bool:
    """Tell whether bytes are a JSON object.

    Its content is not looked at. What a crash leaves of a line is no object.
    """
    return isinstance(_json(raw), dict)


def read_line(raw: bytes) -> Line | None:
    """Return a line of a ledger, whole or changed.

    None where the bytes are no line at all.
    """
    facts = _json(raw)
    if not isinstance(facts, dict):
        return None
    n, at, kind, before, digest = (facts.pop(key, None) for key in ("n", "at", "kind", "before", "hash"))
    if type(n) is not int or n < 1 or not isinstance(at, str) or not isinstance(kind, str):
        return None
    if not _is_hash(before) or not _is_hash(digest):
        return None
    # The format is part of what the hash covers, except in lines from before it was named.
    format = facts.pop("format") if type(facts.get("format")) is int and facts["format"] >= FORMAT else 1
    plain = {**facts, "n": n, "at": at, "kind": kind, "before": before, **_named(format)}
    # A line is whole where its hash is right and its bytes are the canonical ones.
    try:
        right = hashlib.sha256(canonical(plain)).hexdigest() == digest
        whole = right and canonical({**plain, "hash": digest}) == raw
    except ValueError:  # NaN, which Python's reader takes
        return None
    return Line(n, at, kind, before, digest, facts, raw, whole, format)


def _named(format: int) -> dict[str, int]:
    """Return the entry that names a line's format.

    Lines of the first format have none.
    """
    return {"format": format} if format > 1 else {}


def _json(raw: bytes) -> Any:
    """Return the value of a JSON text.

    None where the text is no JSON.
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and HASH.fullmatch(value) is not None


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
    size = line.facts.get("bytes")
    return size if type(size) is int else 0


def round_of(line: Line) -> int:
    """Return the round of a line or 0."""
    round_number = line.facts.get("round")
    return round_number if type(round_number) is int else 0


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
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no date and no time; such as 2026-11-20 or 2026-11-20T08:30:00Z") from None
    return stamp(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))


def _at(totals: dict[Key, Total], key: Key) -> Total:
    return totals.setdefault(key, Total())
