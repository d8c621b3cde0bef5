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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flfed.callbacks import Now, now_utc, stamp
from flfed.errors import FlfedError
from flfed.folders import SiteFolder
from flfed.records.ledger.line import FORMAT, LONGEST, REPAIRED, START, Line, is_object, new_line, read_line
from flfed.records.ledger.verify import Inspection, Receipt

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
class HeldLedger:
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
        rest = next(raws, b"")
        if rest and (not is_object(rest) or _whole(rest) is not None):
            raise self._torn()
        if rest:
            raise self._changed("its last line")
        after: Line | None = None
        for raw in raws:
            line = read_line(raw)
            # Torn bytes are no break in the chain where a recorded repair covers them.
            if line is None and after is not None and after.sets_aside(raw):
                continue
            if line is None and after is None and not is_object(raw):
                raise self._torn()
            # Only the number and the hash of the line before tie two lines together.
            followed = after is None or (line is not None and (line.n, line.hash) == (after.n - 1, after.before))
            if line is None or not line.whole or not followed:
                raise self._changed("its last line" if after is None else f"the line before line {after.n}")
            yield line
            after = line
        if after is not None and (after.n, after.before) != (1, START):
            raise LedgerError(f"{self.name}: its first line is missing; see: {self.see}")

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
        kept = _whole(raw)
        if kept is not None and (kept.n - 1, kept.before) == (_number(last), _hash(last)):
            last, raw = kept, b""  # only its end was missing
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
        with self.held() as held:
            return held.append(kind=kind, **facts)

    @contextmanager
    def held(self) -> Iterator[HeldLedger]:
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

    def _opened(self, file: int, size: int) -> HeldLedger:
        return HeldLedger(file, size, self.path.name, self._see, self._clock, self._ordered)

    def last(self) -> Line | None:
        """Return the last line or None."""
        with self.reading() as found:
            return None if found is None else next(found.backwards(), None)

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
        with self.reading() as found:
            # From the last line on, as the lines that are asked for are mostly recent.
            for line in () if found is None or n == 0 else found.backwards():
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
        found = inspection.look(self.raws())
        for n, line in enumerate(found, start=1):
            if inspection.problems or line.n != n:
                break
            yield line
        deque(found, maxlen=0)  # that a line is missing is known at the end
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
        with self.reading() as found:
            if found is None:
                return
            # The size was taken under the lock: what is added since then is not read.
            with os.fdopen(os.dup(found.file), "rb") as stream:
                stream.seek(0)
                left = found.size
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
        with self.held() as held:
            return held.repair(by=by, why=why)

    def is_torn(self) -> bool:
        """Tell whether a crash cut the last line off.

        A repair is then due.
        """
        with self.reading() as found:
            return found is not None and found.torn_end() is not None

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
    def reading(self) -> Iterator[HeldLedger | None]:
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
