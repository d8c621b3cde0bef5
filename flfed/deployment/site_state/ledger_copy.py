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
from flfed.errors import FlfedError
from flfed.files import locked, write_whole
from flfed.paths import SiteFolder
from flfed.records.ledger import BLOCK, Ledger, LedgerError, ledger_of
from flfed.words import render, usage_error

CHUNK = 1 << 20
"""Bytes that are copied at once."""


@dataclass(frozen=True)
class LedgerCopy:
    """Copy of a site's ledger and receipts in a folder of another disk.

    Parameters
    ----------
    site : SiteFolder
    folder : Path
        It must be there: an absent disk is an error, and no new copy is begun in its place.
    """

    site: SiteFolder
    folder: Path

    @property
    def is_on_same_disk(self) -> bool:
        """Whether the copy would be lost with the ledger."""
        return self.folder.stat().st_dev == self.site.gate.stat().st_dev

    def path(self, original: Path) -> Path:
        """Return the copy of the ledger or of the receipts."""
        return self.folder / f"{self.site.site}-{original.name}"

    def begin(self) -> None:
        """Make absent copies, and bring them up to date.

        Raises
        ------
        LedgerError
            As for `update`.
        """
        self._update(os.O_CREAT)

    def update(self) -> None:
        """Write what the copies lack; it is on the disk when this returns.

        Raises
        ------
        LedgerError
            If a copy is absent, cannot be written, has more lines than its original, or other ones.
        """
        self._update(0)

    def _update(self, create: int) -> None:
        for original in (self.site.ledger, self.site.receipts):
            try:
                self._follow(original, create)
            except OSError as error:
                raise self._error("unwritten", original, why=error.strerror) from None

    def _follow(self, original: Path, create: int) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        there = os.open(self.path(original), flags | create, 0o600)
        try:
            done = os.fstat(there).st_size
            if not original.exists():
                if done:
                    raise self._error("ahead", original)
                return
            with original.open("rb") as here:
                self._append(here.fileno(), there, done, original)
        finally:
            os.close(there)

    def _append(self, here: int, there: int, done: int, original: Path) -> None:
        """Append what follows the first `done` bytes, which must be the same in both files."""
        size = os.fstat(here).st_size
        if done > size:
            raise self._error("ahead", original)
        # Each line has the hash of the one before, so equal ends mean equal files.
        start = max(0, done - BLOCK)
        if os.pread(here, done - start, start) != os.pread(there, done - start, start):
            raise self._error("other", original)
        if done == size:
            return
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

    def _error(self, key: str, original: Path, **facts: object) -> LedgerError:
        copy = {"copy": self.path(original), "folder": self.folder, "site": self.site.site}
        return LedgerError(render(f"gate.copy.{key}", **copy, **facts))


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
    originals = (site.ledger, site.receipts)
    coming = [path.with_name(f"{path.stem}-coming.jsonl") for path in originals]
    with locked(site.gate), ledger_of(site).lock():
        added = []
        for original, candidate in zip(originals, coming, strict=True):
            content, more = _continued(copy, original)
            write_whole(candidate, content)
            added.append(more.count(b"\n"))
        try:
            _check(site, copy, any(added), *coming)
        except FlfedError:
            for candidate in coming:
                candidate.unlink()
            raise
        runs = end_runs(site, Ledger(coming[0]), by=by)
        # The receipts first: after a crash in between, they show that the ledger lacks lines.
        os.replace(coming[1], site.receipts)
        os.replace(coming[0], site.ledger)
        remove_states(site)
    return Taken(lines=added[0], receipts=added[1], runs=runs)


def _continued(copy: LedgerCopy, original: Path) -> tuple[bytes, bytes]:
    """Return a copy's content, and what of it the original lacks."""
    path = copy.path(original)
    facts = {"copy": path, "site": copy.site.site}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise usage_error("gate.copy.unread", why=error.strerror, **facts) from None
    before = original.read_bytes() if original.exists() else b""
    if not content.startswith(before):
        raise usage_error("gate.copy.apart", **facts)
    return content, content[len(before) :]


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
