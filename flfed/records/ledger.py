"""Append-only ledger of the messages that a site sends.

Each line is on the disk before its reply leaves, and no line changes later.

Each line's hash covers the line and the hash before it, so that a changed, removed, moved or inserted line shows. A
hash needs no secret: an account that may write the file may rewrite it from any line on. The site's state knows where
its ledger ends (`site_state`), and the coordinator where it ended at the last enrolment.

Bytes after the last line end are of a line whose reply never left: they are cut off before the next line is written.

No line is of an earlier time than the line before it, so that a clock which is set back frees neither a day's bytes nor
a date. Up to five minutes back a line gets the time of the line before; further back no line is written.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flfed.callbacks import Now, now_utc, stamp
from flfed.errors import FlfedError
from flfed.paths import SiteFolder, give, sync_folder
from flfed.records.ledger_line import START, Line, new_line, read_line

if TYPE_CHECKING:
    from flfed.records.site_state import SiteState

BLOCK = 16_384
"""Bytes read at once from the end: a ledger's last line is in the first block."""
VERIFY = "flfed site ledger NAME --verify"


class LedgerError(FlfedError):
    """Error of a ledger that cannot be read or written, or was altered."""


class LedgerLost(LedgerError):
    """Error of a ledger that does not end where the site's state says, so that lines or state are lost."""


class LedgerAhead(LedgerError):
    """Error of a ledger whose last line is later than the clock."""

    def __init__(self, message: str, line: Line) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class LockedLedger:
    """A ledger that is open, under its lock.

    Parameters
    ----------
    file : int
        Its descriptor.
    size : int
        Bytes up to the end of its last line, which never change.
    name, see : str
        For errors: the file's name, and the command with details.
    clock : callable
    note : callable (line, size), optional
        Called before a line is written, with the line and the size of the ledger with it.
    """

    file: int
    size: int
    name: str
    see: str
    clock: Now
    note: Callable[[Line, int], None] | None = None

    def backwards(self) -> Iterator[Line]:
        """Yield the lines from the last to the first, each checked against the one after it.

        Raises
        ------
        LedgerError
            Where a line so far was changed.
        """
        raws = _backwards(self.file, self.size)
        next(raws, None)  # what follows the last line end
        after: Line | None = None
        for raw in raws:
            line = read_line(raw)
            if line is None or not line.whole or (after and (line.n, line.hash) != (after.n - 1, after.before)):
                where = "its last line" if after is None else f"the line before line {after.n}"
                raise LedgerError(f"{self.name}: {where} is not as it was written; see: {self.see}")
            yield line
            after = line
        if after is not None and (after.n, after.before) != (1, START):
            raise LedgerError(f"{self.name}: its first line is missing; see: {self.see}")

    def last(self) -> Line | None:
        """Return the last line or None."""
        return next(self.backwards(), None)

    def head(self) -> tuple[int, str]:
        """Return the number and hash of the last line, 0 and zeros where there is none."""
        last = self.last()
        return (0, START) if last is None else (last.n, last.hash)

    def hash_at(self, n: int) -> str:
        """Return the hash of line `n`, which all later lines follow from; "" where the ledger is shorter."""
        # Requested lines are mostly recent, so the search begins at the last one.
        for line in self.backwards() if n else ():
            if line.n <= n:
                return line.hash if line.n == n else ""
        return "" if n else START

    def since(self, n: int, hash: str) -> tuple[list[Line], bool]:
        """Return the lines after line `n`, the last one first, and whether a line of this number and hash is there."""
        lines: list[Line] = []
        for line in self.backwards():
            if (line.n, line.hash) == (n, hash):
                return lines, True
            lines.append(line)
        return lines, False

    def append(self, *, kind: str, **facts: Any) -> Line:
        """Append a line to the disk and return it (`Ledger.append`)."""
        line = self.next_line(None, kind, facts)
        if self.note is not None:
            self.note(line, self.size + len(line.raw) + 1)
        self.write(line.raw + b"\n")
        return line

    def next_line(self, last: Line | None, kind: str, facts: dict[str, Any]) -> Line:
        """Return the line that follows a line, or the file's last one; it is not written."""
        last = last or self.last()
        now = self.check_time(last)
        if last is None:
            return new_line(1, START, now, kind, facts)
        # A clock that is set back slightly neither stops the site nor frees a day's bytes.
        return new_line(last.n + 1, last.hash, max(last.at, now), kind, facts)

    def check_time(self, last: Line | None) -> str:
        """Return the time; raise LedgerAhead where the last line is later, so that no line can follow it."""
        now = self.clock()
        if last is not None and last.is_ahead_of(now):
            late = f"line {last.n} is of {last.at[:24]}, later than this machine's clock"
            raise LedgerAhead(f"{self.name}: {late}, so nothing may leave; see: {self.see}", last)
        return stamp(now)

    def write(self, text: bytes) -> None:
        """Bring whole lines to the disk, all or none of them."""
        try:
            while text:
                text = text[os.write(self.file, text) :]
            os.fsync(self.file)
        except OSError as error:
            with suppress(LedgerError):  # no reply was sent for this line, and the next one comes in its place
                self.cut()
            raise LedgerError(f"{self.name}: cannot be written ({error.strerror}), so nothing may leave") from None

    def cut(self) -> None:
        """Cut bytes off that follow the last line."""
        try:
            os.ftruncate(self.file, self.size)
        except OSError as error:
            raise LedgerError(f"{self.name}: cannot be cut ({error.strerror}), so nothing may leave") from None

    def grown(self, more: int) -> LockedLedger:
        """Return the ledger with so many more bytes."""
        return replace(self, size=self.size + more)


class Ledger:
    """Ledger in a file that only its owner may read, made with its first line.

    Parameters
    ----------
    path : Path
    clock : callable
        Returns the time; tests pass their own.
    see : str
        The command that shows problems, for errors.
    state : SiteState, optional
        The site's state, which knows where the ledger ends.

    Notes
    -----
    One process writes at a time, by a lock on the file that ends with the process. Readers see only whole lines. Keys
    that this version does not know are preserved, and the hash covers them.
    """

    def __init__(self, path: Path, *, clock: Now = now_utc, see: str = VERIFY, state: SiteState | None = None) -> None:
        self.path = path
        self.state = state
        self._clock = clock
        self._see = see

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
        """Lock the ledger against other writing processes, to read lines and add one.

        Raises
        ------
        LedgerLost
            If it does not end where the site's state says.
        """
        with self.locked_file() as ledger:
            yield ledger if self.state is None else replace(self.state.mend(ledger), note=self.state.note)

    @contextmanager
    def locked_file(self) -> Iterator[LockedLedger]:
        """Lock the file without a look at the site's state, and cut a torn last line off."""
        file = self._locked()
        try:
            ledger = self._opened(file)
            if os.fstat(file).st_size > ledger.size:
                ledger.cut()
            yield ledger
        finally:
            os.close(file)

    def _locked(self) -> int:
        """Return the descriptor of the locked file, which has the ledger's name after the lock is acquired."""
        while True:
            file = self._open_to_write()
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Meanwhile another file may have replaced it: see `site_state.ledger_restart`.
                if os.path.samestat(os.fstat(file), os.stat(self.path)):
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _opened(self, file: int) -> LockedLedger:
        size = os.fstat(file).st_size
        torn = next(_backwards(file, size), b"")
        return LockedLedger(file, size - len(torn), self.path.name, self._see, self._clock)

    def lines(self) -> Iterator[Line]:
        """Yield the lines from the first to the last.

        Raises
        ------
        LedgerError
            At the first altered place, as sums over a part would mislead.
        """
        last: Line | None = None
        for raw in self._raws():
            line = read_line(raw)
            n, before, at = (0, START, "") if last is None else (last.n, last.hash, last.at)
            if line is None or not line.whole or (line.n, line.before) != (n + 1, before) or line.at < at:
                place = f"after line {n}" if n else "at the start"
                raise LedgerError(f"{self.path.name}: the line {place} is not as it was written; see: {self._see}")
            yield line
            last = line

    def _raws(self) -> Iterator[bytes]:
        """Yield the file's lines unparsed, as they were when the first one was read."""
        with self.reading() as ledger, os.fdopen(os.dup(ledger.file), "rb") as stream:
            stream.seek(0)
            left = ledger.size
            while left > 0 and (raw := stream.readline(left)):
                left -= len(raw)
                yield raw.removesuffix(b"\n")

    def last(self) -> Line | None:
        """Return the last line or None."""
        with self.reading() as ledger:
            return ledger.last()

    def problems(self) -> list[str]:
        """Return a sentence about the first line that is not as it was written, and about the file's mode."""
        try:
            deque(self.lines(), maxlen=0)
        except LedgerError as error:
            return [str(error), *self.open_to_others()]
        return self.open_to_others()

    def open_to_others(self) -> list[str]:
        """Return a problem with the file's mode, as a list."""
        mode = stat.S_IMODE(self.path.stat().st_mode) if self.path.exists() else 0
        if not mode & 0o077:
            return []
        return [f"others may read or write the file (mode {mode:o}): chmod 600 {self.path}"]

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
    def reading(self) -> Iterator[LockedLedger]:
        """Open the ledger for reading, which changes nothing; an absent one has no lines."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            file = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LedgerError(f"{self.path}: cannot be read ({error.strerror}); ask its owner") from None
        try:
            fcntl.flock(file, fcntl.LOCK_SH)  # no line is half written while the size is read
            ledger = self._opened(file)
            fcntl.flock(file, fcntl.LOCK_UN)
            yield ledger
        finally:
            os.close(file)


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
    """Return the ledger of a site, whose state knows where it ends."""
    from flfed.records.site_state import SiteState  # SQLite, which a reader of lines does not need

    see = f"flfed site ledger {folder.site} --verify"
    return Ledger(folder.ledger, clock=clock, see=see, state=SiteState(folder.state))
