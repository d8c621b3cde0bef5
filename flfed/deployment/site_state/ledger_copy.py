"""Copy of a site's ledger and receipts on a second disk.

Each line is in the copy before anything leaves for it. A ledger that comes from a backup is shorter than its copy. Then
nothing leaves until a person takes the copy back.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flfed.deployment.site_state.ledger_loss import end_runs, read_receipts, remove_states
from flfed.deployment.site_state.used_people import KEY
from flfed.files import locked, read_private, write_whole
from flfed.paths import SiteFolder, make_for_owner
from flfed.records.ledger import BLOCK, CUT, Ledger, LedgerError, ledger_of
from flfed.words import render, usage_error

CHUNK = 1 << 20
"""Bytes that are copied at once."""


@dataclass(frozen=True)
class LedgerCopy:
    """Copy of a site's ledger, its receipts and its key of people's hashes, in a folder of another disk.

    A marker beside the ledger says that there is a copy. Where it then is absent, as on a disk that is not mounted, no
    new copy is begun in its place.

    Parameters
    ----------
    site : SiteFolder
    folder : Path
    """

    site: SiteFolder
    folder: Path

    @property
    def is_on_same_disk(self) -> bool:
        """Whether the copy would be lost with the ledger."""
        return self.folder.stat().st_dev == self.site.gate.stat().st_dev

    @property
    def originals(self) -> tuple[Path, Path]:
        """The ledger and the receipts."""
        return (self.site.ledger, self.site.receipts)

    def path(self, original: Path) -> Path:
        """Return the copy of a file of the gate."""
        return self.folder / f"{self.site.site}-{original.relative_to(self.site.gate)}"

    def begin(self) -> None:
        """Bring the copies up to date, and make them where there was no copy so far.

        Raises
        ------
        LedgerError
            As for `update`.
        """
        create = 0 if self.site.ledger_copy.exists() else os.O_CREAT
        self.update(create)
        write_whole(self.site.ledger_copy, f"{self.folder}\n".encode())

    def update(self, create: int = 0) -> None:
        """Write what the copies lack; it is on the disk when this returns.

        Parameters
        ----------
        create : int
            `os.O_CREAT` to make absent copies, which are an error otherwise.

        Raises
        ------
        LedgerError
            If a copy is absent, cannot be written, has more lines than its original, or other ones.
        """
        # The key is written before the first line that depends on it.
        if (self._follow_each(create) or create) and (key := self.site.gate / KEY).exists():
            _copy_absent(key, self.path(key))

    def lacking(self) -> int:
        """Return how many bytes the copies lack; nothing is written.

        A receipt comes to the copy with the line after it.

        Raises
        ------
        LedgerError
            As for `update`.
        """
        return self._follow_each(0, write=False)

    def _follow_each(self, create: int, *, write: bool = True) -> int:
        """Append what the copies lack, and return how many bytes they lacked."""
        lacked = 0
        for original in self.originals:
            try:
                lacked += self._follow(original, create, write=write)
            except OSError as error:
                raise self._error("unwritten", original, why=error.strerror) from None
        return lacked

    def _follow(self, original: Path, create: int, *, write: bool) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        there = os.open(self.path(original), flags | create, 0o600)
        try:
            done = os.fstat(there).st_size
            if not original.exists():
                if done:
                    raise self._error("ahead", original)
                return 0
            with original.open("rb") as here:
                return self._append(here.fileno(), there, done, original, write=write)
        finally:
            os.close(there)

    def _append(self, here: int, there: int, done: int, original: Path, *, write: bool) -> int:
        """Append what follows the first `done` bytes, which must be the same in both files."""
        size = os.fstat(here).st_size
        # Each line has the hash of the one before, so equal ends of the common part mean that it is equal.
        common = min(done, size)
        start = max(0, common - BLOCK)
        if os.pread(here, common - start, start) != os.pread(there, common - start, start):
            raise self._error("other", original)
        if done > size:
            raise self._error("ahead", original)
        if not write or done == size:
            return size - done
        try:
            at = done
            while at < size:
                chunk = os.pread(here, min(CHUNK, size - at), at)
                at += os.write(there, chunk)
            os.fsync(there)
        except OSError:
            with suppress(OSError):
                os.ftruncate(there, done)
            raise
        return size - done

    def bring_key(self) -> None:
        """Copy the key of people's hashes to the site where it is absent."""
        if (copy := self.path(self.site.gate / KEY)).exists():
            _copy_absent(copy, self.site.gate / KEY)

    def _error(self, key: str, original: Path, **facts: object) -> LedgerError:
        copy = {"copy": self.path(original), "folder": self.folder, "site": self.site.site}
        return LedgerError(render(f"gate.copy.{key}", **copy, **facts))


def copy_of(site: SiteFolder) -> LedgerCopy | None:
    """Return the copy that a site's marker names, or None where it has none; raises FlfedError."""
    if not os.path.lexists(site.ledger_copy):
        return None
    return LedgerCopy(site, Path(os.fsdecode(read_private(site.ledger_copy)).strip()))


def _copy_absent(original: Path, copy: Path) -> None:
    """Copy a file that never changes; raises FlfedError."""
    if copy.exists():
        return
    make_for_owner(copy.parent.parent)
    make_for_owner(copy.parent)
    write_whole(copy, read_private(original, rows=True))


@dataclass(frozen=True)
class Taken:
    """Result of taking a copy back.

    Attributes
    ----------
    lines, receipts : int
        How many were added.
    runs : tuple of str
        Runs whose state is of the backup: they get no further answer.
    """

    lines: int
    receipts: int
    runs: tuple[str, ...]


def take_copy(site: SiteFolder, folder: Path, *, by: str) -> Taken:
    """Take a copy in place of a ledger that comes from a backup.

    Parameters
    ----------
    site : SiteFolder
    folder : Path
        That of `flfed site serve --ledger-copy`.
    by : str
        The person, for the lines about runs that end.

    Raises
    ------
    UsageError
        If the copy is absent, is not that of this ledger, was changed, or has nothing more.
    """
    copy = LedgerCopy(site, folder)
    coming = tuple(path.with_name(f"{path.stem}-coming.jsonl") for path in copy.originals)
    with locked(site.gate), ledger_of(site).lock():
        try:
            added = [_write_candidate(copy, *pair, by) for pair in zip(copy.originals, coming, strict=True)]
            _check(site, copy, any(added), *coming)
            copy.bring_key()
            runs = end_runs(site, Ledger(coming[0]), by=by)
        except BaseException:
            for candidate in coming:
                candidate.unlink(missing_ok=True)
            raise
        # The receipts first: after a crash in between, they show that the ledger lacks lines.
        os.replace(coming[1], site.receipts)
        os.replace(coming[0], site.ledger)
        remove_states(site)
    return Taken(lines=added[0], receipts=added[1], runs=runs)


def _write_candidate(copy: LedgerCopy, original: Path, candidate: Path, by: str) -> int:
    """Write a copy beside its original, and return how many lines the original lacks."""
    path = copy.path(original)
    facts = {"copy": path, "site": copy.site.site}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise usage_error("gate.copy.unread", why=error.strerror, **facts) from None
    before = original.read_bytes() if original.exists() else b""
    if not content.startswith(before):
        raise usage_error("gate.copy.apart", **facts)
    write_whole(candidate, content)
    ledger = Ledger(candidate, ordered=original == copy.site.ledger)
    # A crash may have torn the last line of the copy, whose message did not leave.
    if ledger.is_torn():
        ledger.repair(by=by, why=CUT)
    return content[len(before) :].count(b"\n")


def _check(site: SiteFolder, copy: LedgerCopy, longer: bool, ledger: Path, receipts: Path) -> None:
    """Refuse a copy that has nothing more, was changed, or whose owner nothing shows."""
    if not longer:
        raise usage_error("gate.copy.nothing", folder=copy.folder, site=site.site)
    signed = read_receipts(site, receipts)
    problems = [*signed.problems, *Ledger(ledger).problems(signed.all())]
    if problems:
        raise usage_error("gate.copy.changed", folder=copy.folder, problem=problems[0])
    # Beside an empty ledger only a receipt tells whose lines these are.
    if not signed.signed and not site.ledger.stat().st_size:
        raise usage_error("gate.copy.ownerless", folder=copy.folder, site=site.site)
