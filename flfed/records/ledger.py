"""Append-only ledger of what left a site.

Each line is on the disk before its reply leaves, and none can change.

Each line's hash covers the line and the hash before it, so that a line that is changed, removed, moved
or inserted shows; that the last ones were cut off shows by the coordinator's receipts of earlier heads.
A hash needs no secret: who may write the file may write it anew from any line on, and only the
receipts tell. Nothing is ever removed here, so the file may be made append-only (`chattr +a`).

No line is of an earlier time than the line before it, so that a clock which is set back frees neither a day's
bytes nor a date: up to five minutes back a line takes the time of the one before, further back none is written.
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
from flfed.paths import SiteFolder
from flfed.records.ledger_line import FORMAT, LONGEST, REPAIRED, START, Line, is_object, new_line, read_line

BLOCK = 16_384
"""Bytes read at once from the end: a ledger's last line is in the first block."""
VERIFY = "flfed site ledger NAME --verify"
CUT = "a crash cut its last line off"
"""Why a ledger of receipts is repaired."""


class LedgerError(FlfedError):
    """Error of an unreadable, unwritable or altered ledger.

    A crash may be what altered it.
    """


@dataclass(frozen=True)
class LockedLedger:
    """A ledger that is open, under its lock.

    Parameters
    ----------
    file : int
        Its descriptor.
    size : int
        Bytes it has: what stands before that never changes.
    name, see : str
        For errors: the file's name, and what tells more.
    clock : callable
    ordered : bool
        As `Ledger` takes it.
    """

    file: int
    size: int
    name: str
    see: str
    clock: Now
    ordered: bool = True

    def backwards(self) -> Iterator[Line]:
        """Yield the lines from the last to the first.

        Each is checked against the one after it.

        Raises
        ------
        LedgerError
            Where the lines so far are not as they were written.
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

    def _check_end(self, rest: bytes) -> None:
        """Refuse what stands behind the last line end."""
        if not rest:
            return
        if not is_object(rest) or _whole(rest) is not None:
            raise self._torn()
        raise self._changed("its last line")

    def append(self, *, kind: str, **facts: Any) -> Line:
        """Append a line to the disk and return it.

        See `Ledger.append`.
        """
        return self._add(next(self.backwards(), None), kind, facts)

    def torn_end(self) -> bytes | None:
        """Return what a crash left of a last line.

        It has its line end where that was written. None where nothing is torn.
        """
        raws = _backwards(self.file, self.size)
        rest = next(raws, b"")
        if rest:
            return rest
        last = next(raws, None)
        return last + b"\n" if last is not None and not is_object(last) else None

    def repair(self, *, by: str, why: str) -> Line | None:
        """Set aside a last line that is torn.

        It is what a crash cut off. A line that says so is added. See `Ledger.repair`.
        """
        torn = self.torn_end()
        if torn is None:
            next(self.backwards(), None)  # which raises where the last line was changed
            return None
        raw = torn.removesuffix(b"\n")
        # The chain goes on from the last line before the torn bytes.
        before = replace(self, size=self.size - len(torn))
        last = next(before.backwards(), None)
        whole_line = _whole(raw)
        if whole_line is not None and (whole_line.n - 1, whole_line.before) == (_number(last), _hash(last)):
            last, raw = whole_line, b""  # only its end was missing
        elif is_object(raw):
            raise LedgerError(f"{self.name}: its last line was changed, which no crash does; it is not repaired")
        # The torn bytes stay in the file, so their length and hash are enough to recognise them.
        facts = {"by": by, "why": why, "torn-bytes": len(raw), "torn-sha256": hashlib.sha256(raw).hexdigest()}
        return self._add(last, REPAIRED, facts, start=b"" if torn.endswith(b"\n") else b"\n")

    def _add(self, last: Line | None, kind: str, facts: dict[str, Any], start: bytes = b"") -> Line:
        at = self._time_after(last, kind)
        line = new_line(_number(last) + 1, _hash(last), at, kind, facts, format=FORMAT if self.ordered else 1)
        text = start + line.raw + b"\n"
        try:
            while text:
                text = text[os.write(self.file, text) :]
            os.fsync(self.file)
        except OSError as error:
            # Nobody was told of this line. Where it cannot be taken back either, it shows as torn.
            with suppress(OSError):
                os.ftruncate(self.file, self.size)
            raise LedgerError(f"{self.name}: cannot be written ({error.strerror}), so nothing may leave") from None
        return line

    def _time_after(self, last: Line | None, kind: str) -> str:
        """Return the time of the line that follows.

        A repair may follow a line of any time.
        """
        now = self.clock()
        if not self.ordered or last is None or last.at <= stamp(now):
            return stamp(now)
        if kind != REPAIRED and last.is_ahead_of(now):
            raise LedgerError(f"{self.name}: {ahead_in_words(last)}, so nothing may leave; see: {self.see}")
        # A clock that is set back a little neither stops the site nor frees a day's bytes.
        return last.at

    def _changed(self, where: str) -> LedgerError:
        return LedgerError(f"{self.name}: {where} is not as it was written; see: {self.see}")

    def _torn(self) -> LedgerError:
        return LedgerError(f"{self.name}: a crash cut its last line off, so nothing may leave; see: {self.see}")


class Ledger:
    """Ledger in a file for its owner alone.

    The file is made with its first line.

    Parameters
    ----------
    path : Path
    clock : callable
        Returns the time; tests pass their own.
    see : str
        The command that tells what is wrong, for errors.
    ordered : bool
        Whether lines are held to the times of those before them. Receipts are not: their order is that of the
        lines that they sign, and a coordinator whose clock was wrong once must be able to sign again.

    Notes
    -----
    One process writes at a time, by a lock on the file that ends with the process. Readers see whole
    lines only. Keys that this version does not know are kept, and the hash covers them.
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
            What left: "train", "compare", "refused".
        **facts
            JSON values by key, in kebab-case or snake_case: study, run, round, bytes, sha256.

        Raises
        ------
        LedgerError
            If the line is not on the disk, for whatever reason: then nothing may leave.
        """
        with self.lock() as ledger:
            return ledger.append(kind=kind, **facts)

    @contextmanager
    def lock(self) -> Iterator[LockedLedger]:
        """Lock the ledger against every other writing process.

        Lines are read and one is added under the lock.
        """
        file = self._locked()
        try:
            yield self._opened(file, os.fstat(file).st_size)
        finally:
            os.close(file)

    def _locked(self) -> int:
        """Return the descriptor of the locked ledger file.

        It is that of the file which has the ledger's name once the lock is acquired.
        """
        while True:
            file = self._open_to_write()
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                # While this one waited, another may have been put in its place: see `site_state.ledger_loss.restart`.
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
        """Return the number and hash of the last line.

        They are 0 and zeros where there is none.
        """
        last = self.last()
        return _number(last), _hash(last)

    def loss_before(self) -> str:
        """Return the hash of the first line where it says that a ledger before was lost.

        An empty text where no ledger was. No lock is needed: a ledger that is begun anew has this line before its name.
        """
        try:
            with self.path.open("rb") as file:
                first = read_line(file.readline(LONGEST + 1).removesuffix(b"\n"))
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be read ({error.strerror}); ask its owner") from None
        return first.hash if first is not None and first.follows_loss else ""

    def is_ahead(self, last: Line | None) -> bool:
        """Tell whether the last line is ahead of time.

        It is where that line is later than the clock. None can follow such a line.
        """
        return last is not None and last.is_ahead_of(self._clock())

    def hash_at(self, n: int) -> str:
        """Return the hash of line `n`.

        All later lines follow from it. An empty text where the ledger is shorter.
        """
        with self.reading() as ledger:
            # From the last line on, as the lines that are asked for are mostly recent.
            for line in () if ledger is None or n == 0 else ledger.backwards():
                if line.n <= n:
                    return line.hash if line.n == n else ""
        return START if n == 0 else ""

    def lines(self) -> Iterator[Line]:
        """Yield the lines from the first to the last.

        Raises
        ------
        LedgerError
            At the first place that is not as it was written: sums over a part would mislead.
        """
        inspection = Inspection()
        checked_lines = inspection.look(self.raws())
        for n, line in enumerate(checked_lines, start=1):
            if inspection.problems or line.n != n:
                break
            yield line
        deque(checked_lines, maxlen=0)  # that a line is missing is known at the end
        if inspection.problems:
            raise LedgerError(f"{self.path.name}: {inspection.problems[0]}; see: {self._see}")

    def problems(self, receipts: Iterable[Receipt] = ()) -> list[str]:
        """Return a sentence for each sign of tampering.

        Without receipts no cut tail is found.
        """
        inspection = Inspection(tuple(receipts))
        deque(inspection.look(self.raws()), maxlen=0)
        return inspection.problems + self.open_to_others()

    def open_to_others(self) -> list[str]:
        """Return what is wrong with the file's mode."""
        mode = stat.S_IMODE(self.path.stat().st_mode) if self.path.exists() else 0
        return [f"others may read or write the file (mode {mode:o}): chmod 600 {self.path}"] if mode & 0o077 else []

    def raws(self) -> Iterator[bytes]:
        """Yield the file's lines unparsed, with their ends."""
        with self.reading() as ledger:
            if ledger is None:
                return
            # The size was taken under the lock: what is added since then is not read.
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
        """Set aside a torn last line and record it.

        It is what a crash left. None where nothing is torn.

        The torn bytes stay where they are: the new line holds their number and their hash. A line that
        lacked nothing but its end counts.

        Parameters
        ----------
        by : str
            Who has it repaired.
        why : str
        """
        with self.lock() as ledger:
            return ledger.repair(by=by, why=why)

    def is_torn(self) -> bool:
        """Tell whether a crash cut the last line off.

        A repair is then due.
        """
        with self.reading() as ledger:
            return ledger is not None and ledger.torn_end() is not None

    def _open_to_write(self) -> int:
        # O_NOFOLLOW refuses a link that was put in the file's place.
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                file = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                file = os.open(self.path, flags)
            else:
                _begin(file, self.path.parent)
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be opened ({error.strerror}), so nothing may leave") from None
        state = os.fstat(file)
        if not stat.S_ISREG(state.st_mode) or state.st_mode & 0o077:
            os.close(file)
            raise LedgerError(f"{self.path}: others may read or write it, so nothing may leave: chmod 600 {self.path}")
        return file

    @contextmanager
    def reading(self) -> Iterator[LockedLedger | None]:
        """Open the ledger for reading alone.

        Yields it as it is now. Nothing is made or changed. None where there is no file.
        """
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be read ({error.strerror}); ask its owner") from None
        try:
            fcntl.flock(file, fcntl.LOCK_SH)  # no line is half written while the size is taken
            size = os.fstat(file).st_size
            fcntl.flock(file, fcntl.LOCK_UN)
            yield self._opened(file, size)
        finally:
            os.close(file)


def ahead_in_words(last: Line) -> str:
    """Return "line N is later than the clock" in words.

    The words are a part of a sentence.
    """
    return f"line {last.n} is of {last.at[:24]}, later than this machine's clock"


def _whole(raw: bytes) -> Line | None:
    """Return the line of unchanged bytes, or None."""
    line = read_line(raw)
    return line if line is not None and line.whole else None


def _number(last: Line | None) -> int:
    return 0 if last is None else last.n


def _hash(last: Line | None) -> str:
    return START if last is None else last.hash


def _begin(made: int, folder: Path) -> None:
    """Give a new file its folder's owner and sync the folder.

    Only a file that root made changes its owner. The folder then keeps the file's name through a crash.
    """
    owner = folder.stat()
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
        os.fchown(made, owner.st_uid, owner.st_gid)
    # A new file's name is lost in a crash unless its folder is synced too.
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _ties(line: Line, after: Line | None) -> bool:
    """Tell whether a line is the one before another, by its number and hash alone."""
    return after is None or (line.n, line.hash) == (after.n - 1, after.before)


def _backwards(file: int, size: int) -> Iterator[bytes]:
    """Yield the lines of a file backwards.

    They come without their ends. The first item is what follows the last line end.
    """
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
    """What the coordinator signed of a site's ledger.

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
        """Return what the signature is over."""
        return {"site": self.site, "run": self.run, "n": self.n, "head": self.head}


@dataclass
class Inspection:
    """Check of a ledger's lines in file order.

    It notes what is wrong.

    Parameters
    ----------
    receipts : tuple of Receipt
        What was signed; only by them a cut tail, or one that was written anew, can be found.

    Attributes
    ----------
    problems : list of str
        One sentence each, with the line that it is about.
    notes : list of str
        Likewise, on what an earlier version let pass: lines of an earlier time than those before them.
    last : Line or None
        The line with the highest number so far.
    repairs : int
        Torn lines that a recorded repair set aside.
    """

    receipts: tuple[Receipt, ...] = ()
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last: Line | None = None
    repairs: int = 0
    _seen: set[int] = field(default_factory=set)
    _signed: dict[int, str] = field(default_factory=dict)
    _torn: bytes | None = None
    _place: str = "at the start"

    def __post_init__(self) -> None:
        """Note which lines' hashes will be asked for."""
        self._signed = dict.fromkeys((receipt.n for receipt in self.receipts), "")

    def look(self, raws: Iterable[bytes]) -> Iterator[Line]:
        """Yield every line that can be read.

        Whole and changed lines alike are yielded. `problems` is complete at the end.

        Parameters
        ----------
        raws : iterable of bytes
            With their ends, so that the last may lack its own.
        """
        for raw in raws:
            line = read_line(raw.removesuffix(b"\n"))
            if not raw.endswith(b"\n"):
                self._flush(None)
                self.problems.append(f"the file ends in the middle of a line, {self._place}")
            # What is no line may have been set aside by the next line, so it is judged then.
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
        """Check a torn line before `line`.

        `line` itself is checked too where it records a repair.
        """
        torn, self._torn = self._torn, None
        if torn is not None:
            if line is not None and line.whole and line.sets_aside(torn):
                self.repairs += 1
                return
            self.problems.append(f"something that is no line stands {self._place}")
        # A repair without its torn bytes shows that those were removed later.
        if line is not None and line.kind == REPAIRED and line.facts.get("torn-bytes") != 0:
            self.problems.append(f"what line {line.n} set aside no longer stands before it")

    def _take(self, line: Line) -> None:
        if not line.whole:
            self.problems.append(f"line {line.n} was changed: its hash is not that of its content")
        number = 0 if self.last is None else self.last.n
        # A number that is skipped is reported at the end, once all lines were seen.
        if line.n == number + 1:
            self._follows(line)
        elif line.n in self._seen:
            self.problems.append(f"a second line {line.n} stands {self._place}: one of the two was inserted")
        elif line.n < number:
            self.problems.append(f"line {line.n} is out of its order: it stands {self._place}")
        self._seen.add(line.n)
        if line.n > number:
            self.last = line
        # A changed line's own hash is not trusted: that of its content is compared.
        if line.n in self._signed:
            self._signed[line.n] = line.hash if line.whole else line.content_hash()
        self._place = f"after line {line.n}"

    def _follows(self, line: Line) -> None:
        """Check a line against its predecessor by number."""
        if self.last is None:
            if line.before != START:
                self.problems.append("line 1 was changed: it is not the first of its ledger")
            return
        # Earlier versions let clocks go back, so that in their lines it is only noted.
        if line.at < self.last.at:
            message = f"line {line.n} is of {line.at[:24]}, an earlier time than line {self.last.n}"
            (self.problems if line.format >= FORMAT else self.notes).append(message)
        # Where only a line's own hash was changed, the next one still follows its content.
        if line.before != self.last.hash and (self.last.whole or line.before != self.last.content_hash()):
            number = self.last.n
            self.problems.append(
                f"line {line.n} does not follow line {number} as it stands: line {number} was changed or replaced, "
                f"or line {line.n} was"
            )

    def _missing(self) -> None:
        before = 0
        for n in sorted(self._seen):
            if n > before + 1:
                self.problems.append(f"{lines_between(before + 1, n - 1)} missing")
            before = n

    def _signatures(self) -> None:
        """Check the lines against the signed receipts.

        The problem names where the first line that differs may begin.
        """
        agrees, number = 0, 0 if self.last is None else self.last.n
        # The lines up to the last receipt that agrees are as they were signed.
        for receipt in sorted(self.receipts, key=lambda receipt: receipt.n):
            signed = f"as the coordinator signed at run {receipt.run}"
            head = self._signed[receipt.n] or (START if receipt.n == 0 else "")
            if receipt.n > number:
                self.problems.append(
                    f"the ledger ends at line {number} but had {receipt.n}, {signed}: "
                    f"{lines_between(number + 1, receipt.n)} cut off"
                )
                return
            if head != receipt.head:
                self.problems.append(
                    f"{lines_between(agrees + 1, max(receipt.n, 1))} not {signed}: changed, removed or written anew"
                )
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
