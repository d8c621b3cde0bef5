"""Append-only ledger of the messages that a site sends.

Each line is on the disk before its reply leaves, and no line changes later.

Each line's hash covers the line and the hash before it, so that a changed, removed, moved or inserted line shows. The
coordinator's receipts of earlier heads show that the last lines were cut off. A hash needs no secret: an account that
may write the file may rewrite it from any line on, which only the receipts show. Nothing is ever removed here, so the
file may be made append-only (`chattr +a`).

No line is of an earlier time than the line before it, so that a clock which is set back frees neither a day's bytes nor
a date. Up to five minutes back a line gets the time of the line before; further back no line is written.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flfed.callbacks import Now, now_utc, stamp
from flfed.errors import FlfedError
from flfed.paths import SiteFolder, give, sync_folder
from flfed.records.ledger_line import FORMAT, LONGEST, REPAIRED, START, Line, is_object, new_line, read_line

BLOCK = 16_384
"""Bytes read at once from the end: a ledger's last line is in the first block."""
VERIFY = "flfed site ledger NAME --verify"
CUT = "a crash cut its last line off"
"""Reason for the repair of a ledger of receipts."""


class LedgerError(FlfedError):
    """Error of a ledger that cannot be read or written, or was altered, possibly by a crash."""


@dataclass(frozen=True)
class LockedLedger:
    """A ledger that is open, under its lock.

    Parameters
    ----------
    file : int
        Its descriptor.
    size : int
        Number of its bytes, which never change.
    name, see : str
        For errors: the file's name, and the command with details.
    clock : callable
    ordered : bool
        As for `Ledger`.
    """

    file: int
    size: int
    name: str
    see: str
    clock: Now
    ordered: bool = True

    def backwards(self) -> Iterator[Line]:
        """Yield the lines from the last to the first, each checked against the one after it.

        Raises
        ------
        LedgerError
            Where a line so far was changed.
        """
        raws = _backwards(self.file, self.size)
        self._check_end(next(raws, b""))
        after: Line | None = None
        for raw in raws:
            line = read_line(raw)
            # Torn bytes are no break in the chain where a recorded repair covers them.
            if line is None and after is not None and after.sets_aside(raw):
                continue
            if line is None and after is None and not is_object(raw):
                raise self._torn()
            if line is None or not line.whole or not _ties(line, after):
                where = "its last line" if after is None else f"the line before line {after.n}"
                raise self._changed(where)
            yield line
            after = line
        if after is not None and (after.n, after.before) != (1, START):
            raise LedgerError(f"{self.name}: its first line is missing; see: {self.see}")

    def since(self, n: int, hash: str) -> tuple[list[Line], bool]:
        """Return the lines after line `n`, the last one first, and whether a line of this number and hash is there."""
        lines: list[Line] = []
        for line in self.backwards():
            if (line.n, line.hash) == (n, hash):
                return lines, True
            lines.append(line)
        return lines, False

    def _check_end(self, rest: bytes) -> None:
        """Refuse bytes after the last line end."""
        if not rest:
            return
        if not is_object(rest) or _whole(rest) is not None:
            raise self._torn()
        raise self._changed("its last line")

    def append(self, *, kind: str, **facts: Any) -> Line:
        """Append a line to the disk and return it (`Ledger.append`)."""
        return self._add(next(self.backwards(), None), kind, facts)

    def torn_end(self) -> bytes | None:
        """Return the bytes of a torn last line, with its line end where that was written; None of a whole line."""
        raws = _backwards(self.file, self.size)
        rest = next(raws, b"")
        if rest:
            return rest
        last = next(raws, None)
        return last + b"\n" if last is not None and not is_object(last) else None

    def repair(self, *, by: str, why: str) -> Line | None:
        """Set a torn last line aside, and add a line that records it (`Ledger.repair`)."""
        torn = self.torn_end()
        if torn is None:
            next(self.backwards(), None)  # raises where the last line was changed
            return None
        raw = torn.removesuffix(b"\n")
        # The chain continues from the last line before the torn bytes.
        before = replace(self, size=self.size - len(torn))
        last = next(before.backwards(), None)
        whole_line = _whole(raw)
        if whole_line is not None and (whole_line.n - 1, whole_line.before) == (_number(last), _hash(last)):
            last, raw = whole_line, b""  # only its end was missing
        elif is_object(raw):
            raise LedgerError(f"{self.name}: its last line was changed, which no crash does; it is not repaired")
        # The torn bytes remain in the file, so their length and hash identify them.
        facts = {"by": by, "why": why, "torn-bytes": len(raw), "torn-sha256": hashlib.sha256(raw).hexdigest()}
        return self._add(last, REPAIRED, facts, start=b"" if torn.endswith(b"\n") else b"\n")

    def next_line(self, last: Line | None, kind: str, facts: dict[str, Any]) -> Line:
        """Return the line that follows a line, or the file's last one; it is not written."""
        last = last or next(self.backwards(), None)
        at = self._time_after(last, kind)
        return new_line(_number(last) + 1, _hash(last), at, kind, facts, format=FORMAT if self.ordered else 1)

    def write(self, text: bytes) -> None:
        """Bring whole lines to the disk, all or none of them."""
        try:
            while text:
                text = text[os.write(self.file, text) :]
            os.fsync(self.file)
        except OSError as error:
            # No reply was sent for this line. If it cannot be removed either, it shows as torn.
            with suppress(OSError):
                os.ftruncate(self.file, self.size)
            raise LedgerError(f"{self.name}: cannot be written ({error.strerror}), so nothing may leave") from None

    def grown(self, more: int) -> LockedLedger:
        """Return the ledger with so many more bytes."""
        return replace(self, size=self.size + more)

    def _add(self, last: Line | None, kind: str, facts: dict[str, Any], start: bytes = b"") -> Line:
        at = self._time_after(last, kind)
        line = new_line(_number(last) + 1, _hash(last), at, kind, facts, format=FORMAT if self.ordered else 1)
        self.write(start + line.raw + b"\n")
        return line

    def _time_after(self, last: Line | None, kind: str) -> str:
        """Return the time of the next line; a repair may follow a line of any time."""
        now = self.clock()
        if not self.ordered or last is None or last.at <= stamp(now):
            return stamp(now)
        if kind != REPAIRED and last.is_ahead_of(now):
            raise LedgerError(f"{self.name}: {ahead_in_words(last)}, so nothing may leave; see: {self.see}")
        # A clock that is set back slightly neither stops the site nor frees a day's bytes.
        return last.at

    def _changed(self, where: str) -> LedgerError:
        return LedgerError(f"{self.name}: {where} is not as it was written; see: {self.see}")

    def _torn(self) -> LedgerError:
        return LedgerError(f"{self.name}: a crash cut its last line off, so nothing may leave; see: {self.see}")


class Ledger:
    """Ledger in a file that only its owner may read, made with its first line.

    Parameters
    ----------
    path : Path
    clock : callable
        Returns the time; tests pass their own.
    see : str
        The command that shows problems, for errors.
    ordered : bool
        Whether a line must not be of an earlier time than those before it. Receipts need not: their order is that of
        the lines that they sign, and a coordinator whose clock was wrong once must be able to sign again.

    Notes
    -----
    One process writes at a time, by a lock on the file that ends with the process. Readers see only whole lines. Keys
    that this version does not know are preserved, and the hash covers them.
    """

    def __init__(self, path: Path, *, clock: Now = now_utc, see: str = VERIFY, ordered: bool = True) -> None:
        self.path = path
        self._clock = clock
        self._see = see
        self._ordered = ordered

    def append(self, *, kind: str, **facts: Any) -> Line:
        """Append a line to the disk and return it.

        Parameters
        ----------
        kind : str
            Kind of the message: "train", "compare", "refused".
        **facts
            JSON values by key, in kebab-case or snake_case: study, run, round, bytes, sha256.

        Raises
        ------
        LedgerError
            If the line is not on the disk, for any reason: then nothing may leave.
        """
        with self.lock() as ledger:
            return ledger.append(kind=kind, **facts)

    @contextmanager
    def lock(self) -> Iterator[LockedLedger]:
        """Lock the ledger against other writing processes, to read lines and add one."""
        file = self._locked()
        try:
            yield self._opened(file, os.fstat(file).st_size)
        finally:
            os.close(file)

    def _locked(self) -> int:
        """Return the descriptor of the locked file, which has the ledger's name after the lock is acquired."""
        while True:
            file = self._open_to_write()
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Meanwhile another file may have replaced it: see `site_state.ledger_loss.restart`.
                if os.path.samestat(os.fstat(file), os.stat(self.path)):
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _opened(self, file: int, size: int) -> LockedLedger:
        return LockedLedger(file, size, self.path.name, self._see, self._clock, self._ordered)

    def last(self) -> Line | None:
        """Return the last line or None."""
        with self.reading() as ledger:
            return None if ledger is None else next(ledger.backwards(), None)

    def head(self) -> tuple[int, str]:
        """Return the number and hash of the last line, 0 and zeros where there is none."""
        last = self.last()
        return _number(last), _hash(last)

    def first(self) -> Line | None:
        """Return the first line, None where there is none.

        No lock is needed: a restarted ledger gets its name after this line.
        """
        try:
            with self.path.open("rb") as file:
                return read_line(file.readline(LONGEST + 1).removesuffix(b"\n"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be read ({error.strerror}); ask its owner") from None

    def loss_before(self) -> str:
        """Return the hash of a first line that records the loss of an earlier ledger, else ""."""
        first = self.first()
        return first.hash if first is not None and first.follows_loss else ""

    def is_ahead(self, last: Line | None) -> bool:
        """Return whether the last line is later than the clock, so that no line can follow it."""
        return last is not None and last.is_ahead_of(self._clock())

    def hash_at(self, n: int) -> str:
        """Return the hash of line `n`, which all later lines follow from; "" where the ledger is shorter."""
        with self.reading() as ledger:
            # Requested lines are mostly recent, so the search begins at the last one.
            for line in () if ledger is None or n == 0 else ledger.backwards():
                if line.n <= n:
                    return line.hash if line.n == n else ""
        return START if n == 0 else ""

    def lines(self) -> Iterator[Line]:
        """Yield the lines from the first to the last.

        Raises
        ------
        LedgerError
            At the first altered place, as sums over a part would mislead.
        """
        inspection = Inspection(ordered=self._ordered)
        checked_lines = inspection.look(self.raws())
        for n, line in enumerate(checked_lines, start=1):
            if inspection.problems or line.n != n:
                break
            yield line
        deque(checked_lines, maxlen=0)  # missing lines show at the end
        if inspection.problems:
            raise LedgerError(f"{self.path.name}: {inspection.problems[0]}; see: {self._see}")

    def problems(self, receipts: Iterable[Receipt] = ()) -> list[str]:
        """Return a sentence for each sign of tampering; only receipts show a cut tail."""
        inspection = Inspection(tuple(receipts), self._ordered)
        deque(inspection.look(self.raws()), maxlen=0)
        return inspection.problems + self.open_to_others()

    def open_to_others(self) -> list[str]:
        """Return a problem with the file's mode, as a list."""
        mode = stat.S_IMODE(self.path.stat().st_mode) if self.path.exists() else 0
        if not mode & 0o077:
            return []
        return [f"others may read or write the file (mode {mode:o}): chmod 600 {self.path}"]

    def raws(self) -> Iterator[bytes]:
        """Yield the file's lines unparsed, with their ends."""
        with self.reading() as ledger:
            if ledger is None:
                return
            # The size was read under the lock; later additions are not read.
            with os.fdopen(os.dup(ledger.file), "rb") as stream:
                stream.seek(0)
                left = ledger.size
                while left > 0:
                    raw = stream.readline(left)
                    if not raw:
                        break
                    left -= len(raw)
                    yield raw

    def repair(self, *, by: str, why: str) -> Line | None:
        """Set aside a last line that a crash tore, and return the line that records it; None of a whole last line.

        The torn bytes remain in their place: the new line has their number and their hash. A line that lacks only its
        end is kept.

        Parameters
        ----------
        by : str
            Person who requests the repair.
        why : str
        """
        with self.lock() as ledger:
            return ledger.repair(by=by, why=why)

    def is_torn(self) -> bool:
        """Return whether a crash cut the last line off, so that a repair is due."""
        with self.reading() as ledger:
            return ledger is not None and ledger.torn_end() is not None

    def _open_to_write(self) -> int:
        # O_NOFOLLOW refuses a link in place of the file.
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                file = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                file = os.open(self.path, flags)
            else:
                give(file, self.path.parent)
                sync_folder(self.path.parent)
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be opened ({error.strerror}), so nothing may leave") from None
        state = os.fstat(file)
        if not stat.S_ISREG(state.st_mode) or state.st_mode & 0o077:
            os.close(file)
            raise LedgerError(f"{self.path}: others may read or write it, so nothing may leave: chmod 600 {self.path}")
        return file

    @contextmanager
    def reading(self) -> Iterator[LockedLedger | None]:
        """Open the ledger for reading, which changes nothing; yields None where there is no file."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be read ({error.strerror}); ask its owner") from None
        try:
            fcntl.flock(file, fcntl.LOCK_SH)  # no line is half written while the size is read
            size = os.fstat(file).st_size
            fcntl.flock(file, fcntl.LOCK_UN)
            yield self._opened(file, size)
        finally:
            os.close(file)


def ahead_in_words(last: Line) -> str:
    """Return that the last line is later than the clock, as a clause."""
    return f"line {last.n} is of {last.at[:24]}, later than this machine's clock"


def _whole(raw: bytes) -> Line | None:
    """Return the line of unchanged bytes, or None."""
    line = read_line(raw)
    return line if line is not None and line.whole else None


def _number(last: Line | None) -> int:
    return 0 if last is None else last.n


def _hash(last: Line | None) -> str:
    return START if last is None else last.hash


def _ties(line: Line, after: Line | None) -> bool:
    """Return whether a line is the one before another, by its number and hash."""
    return after is None or (line.n, line.hash) == (after.n - 1, after.before)


def _backwards(file: int, size: int) -> Iterator[bytes]:
    """Yield the lines of a file backwards, without their ends; the first item is the rest after the last line end."""
    end, rest = size, b""
    while end:
        start = max(0, end - BLOCK)
        rest, *lines = (os.pread(file, end - start, start) + rest).split(b"\n")
        yield from reversed(lines)
        end = start
    if size:
        yield rest


def ledger_of(folder: SiteFolder, *, clock: Now = now_utc) -> Ledger:
    """Return the ledger of a site."""
    return Ledger(folder.ledger, clock=clock, see=f"flfed site ledger {folder.site} --verify")


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The coordinator's signed statement on a site's ledger.

    Attributes
    ----------
    site, run : str
    n : int
        Lines of the ledger at that time.
    head : str
        Hash of the last of them.
    """

    site: str
    run: str
    n: int
    head: str

    def facts(self) -> dict[str, str | int]:
        """Return the signed facts."""
        return dict(vars(self))


@dataclass
class Inspection:
    """Check of a ledger's lines in file order.

    Parameters
    ----------
    receipts : tuple of Receipt
        Only receipts reveal a tail that was cut off or rewritten.
    ordered : bool
        Whether no line's time may be before that of the line before; a file of receipts has no such order.

    Attributes
    ----------
    problems : list of str
        A sentence each, with its line.
    last : Line or None
        The line with the highest number so far.
    repairs : int
        Torn lines that a recorded repair set aside.
    """

    receipts: tuple[Receipt, ...] = ()
    ordered: bool = True
    problems: list[str] = field(default_factory=list)
    last: Line | None = None
    repairs: int = 0
    _seen: set[int] = field(default_factory=set)
    _signed: dict[int, str] = field(default_factory=dict)
    _torn: bytes | None = None
    _place: str = "at the start"

    def __post_init__(self) -> None:
        """Prepare for the lines whose hashes receipts have."""
        self._signed = dict.fromkeys((receipt.n for receipt in self.receipts), "")

    def look(self, raws: Iterable[bytes]) -> Iterator[Line]:
        """Yield every line that can be read, whole or changed; `problems` is complete at the end.

        Parameters
        ----------
        raws : iterable of bytes
            With their ends, which the last may lack.
        """
        for raw in raws:
            line = read_line(raw.removesuffix(b"\n"))
            if not raw.endswith(b"\n"):
                self._flush(None)
                self.problems.append(f"the file ends in the middle of a line, {self._place}")
            # The next line may have set aside bytes that are no line, so they are checked then.
            if line is None:
                self._flush(None)
                self._torn = raw.removesuffix(b"\n") if raw.endswith(b"\n") else None
                continue
            self._flush(line)
            self._take(line)
            yield line
        self._flush(None)
        self._missing()
        self._signatures()

    def _flush(self, line: Line | None) -> None:
        """Check a torn line before `line`, and `line` itself where it records a repair."""
        torn, self._torn = self._torn, None
        if torn is not None:
            if line is not None and line.whole and line.sets_aside(torn):
                self.repairs += 1
                return
            self.problems.append(f"bytes that are no line are {self._place}")
        # A repair without its torn bytes shows their later removal.
        if line is not None and line.kind == REPAIRED and line.facts.get("torn-bytes") != 0:
            self.problems.append(f"the bytes that line {line.n} set aside are missing before it")

    def _take(self, line: Line) -> None:
        if not line.whole:
            self.problems.append(f"line {line.n} was changed: its hash is not that of its content")
        elif self.ordered and line.format != FORMAT:
            self.problems.append(f"line {line.n} is of another format than this version writes")
        number = 0 if self.last is None else self.last.n
        # A missing number is reported at the end, after all lines.
        if line.n == number + 1:
            self._follows(line)
        elif line.n in self._seen:
            self.problems.append(f"a second line {line.n} is {self._place}: one of the two was inserted")
        elif line.n < number:
            self.problems.append(f"line {line.n} is out of order: it is {self._place}")
        self._seen.add(line.n)
        if line.n > number:
            self.last = line
        # A changed line's own hash is not trusted; the hash of its content is compared.
        if line.n in self._signed:
            self._signed[line.n] = line.hash if line.whole else line.content_hash()
        self._place = f"after line {line.n}"

    def _follows(self, line: Line) -> None:
        """Check a line against its predecessor by number."""
        if self.last is None:
            if line.before != START:
                self.problems.append("line 1 was changed: it is not the first of its ledger")
            return
        if self.ordered and line.at < self.last.at:
            self.problems.append(f"line {line.n} is of {line.at[:24]}, an earlier time than line {self.last.n}")
        # Where only a line's own hash was changed, the next one still follows its content.
        if line.before != self.last.hash and (self.last.whole or line.before != self.last.content_hash()):
            why = f"line {self.last.n} was changed or replaced, or line {line.n} was"
            self.problems.append(f"line {line.n} does not follow line {self.last.n}: {why}")

    def _missing(self) -> None:
        before = 0
        for n in sorted(self._seen):
            if n > before + 1:
                self.problems.append(f"{lines_between(before + 1, n - 1)} missing")
            before = n

    def _signatures(self) -> None:
        """Check the lines against the signed receipts; the problem has the first line that may differ."""
        agrees, number = 0, 0 if self.last is None else self.last.n
        # The lines up to the last receipt that agrees are unchanged.
        for receipt in sorted(self.receipts, key=lambda receipt: receipt.n):
            head = self._signed[receipt.n] or (START if receipt.n == 0 else "")
            if receipt.n > number:
                cut = lines_between(number + 1, receipt.n)
                signed = f"had {receipt.n} lines, as the coordinator signed at run {receipt.run}"
                self.problems.append(f"the ledger ends at line {number} but {signed}: {cut} cut off")
                return
            if head != receipt.head:
                changed = lines_between(agrees + 1, max(receipt.n, 1))
                why = f"not as the coordinator signed at run {receipt.run}: changed, removed or rewritten"
                self.problems.append(f"{changed} {why}")
                return
            agrees = receipt.n


def lines_between(first: int, last: int) -> str:
    """Return numbers of lines as words, with their verb.

    Examples
    --------
    >>> lines_between(4, 4), lines_between(4, 6)
    ('line 4 is', 'lines 4 to 6 are')
    """
    return f"line {last} is" if first >= last else f"lines {first} to {last} are"
