"""Files for their owner alone.

They are written whole, locked, and refused where others may read them.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from flfed.errors import FlfedError, UsageError
from flfed.paths import Content, give, replace_whole

PRIVATE = 0o600
SHARED = 0o640
"""For what the two users of a gate share, in their `link` folder."""


def write_whole(path: Path, content: Content, *, mode: int = PRIVATE) -> None:
    """Write or replace a file atomically.

    A reader, or a crash, finds the old file or the new one.

    Written by root, the file belongs to whom its folder belongs to, so that the user of a service
    can read what an operator wrote for it.

    Raises
    ------
    FlfedError
        If it cannot be written; what was there stays.
    """
    try:
        replace_whole(path, content, mode=mode)
    except OSError as error:
        raise FlfedError(f"{path}: cannot be written ({error.strerror}); what was there before stays") from None


def keep_files_private() -> None:
    """Let all files that this process makes from now on be for its owner only."""
    os.umask(0o077)


@contextmanager
def made_with(mode: int) -> Iterator[None]:
    """Give what is made while the block runs no bits but those of a mode."""
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


OTHERS = 0o077
"""The bits of a mode that let anybody in besides the owner."""


def read_private(path: Path, *, rows: bool = False) -> bytes:
    """Return the content of a private file.

    Only its owner may be able to open it.

    Parameters
    ----------
    path : Path
    rows : bool
        Whether it concerns patients or customers; else it is a secret of this program. Whoever reads rows says
        what it means that they cannot be opened.

    Raises
    ------
    OSError
        If rows cannot be opened.
    UsageError
        If a secret cannot be opened, or rows are no plain file, or others may use them.
    FlfedError
        If a secret is no plain file, or others may read or write it.
    """
    # Neither a link nor a pipe may stand in for the file: the first misleads, the second blocks.
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            # The open handle is checked, not the path, so that nobody can swap the file in between.
            mode = os.fstat(stream.fileno()).st_mode
            if rows:
                if not stat.S_ISREG(mode):
                    raise UsageError(f"{path}: is no plain file; put one there that only its owner may read")
                refuse_others(path, mode, 0o600)
            elif not stat.S_ISREG(mode):
                raise FlfedError(f"{path}: must be a plain file")
            elif mode & OTHERS:
                # A secret that others could read counts as known to them, so it is refused and not repaired.
                defect = f"{path}: others may read or write it (mode {stat.S_IMODE(mode):o})"
                raise FlfedError(f"{defect}; consider it known to them, else: chmod 600 {path}")
            return stream.read()
    except OSError as error:
        if rows:
            raise
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def state_of(folder: Path, pattern: str) -> tuple[tuple[str, int, int], ...]:
    """Return the state of the files in a folder.

    It changes when a file that fits the pattern is written, made or removed. Each entry is name, time of change
    (ns) and inode.
    """
    entries = []
    for path in sorted(folder.glob(pattern)):
        # A file may be removed between the listing and the look at it.
        with suppress(FileNotFoundError):
            facts = path.stat()
            entries.append((path.name, facts.st_mtime_ns, facts.st_ino))
    return tuple(entries)


@contextmanager
def locked(folder: Path, name: str = ".lock", *, taken: str = "") -> Iterator[None]:
    """Lock a file in a folder while the block runs.

    Of two processes that want to, the second waits or is refused.

    Parameters
    ----------
    folder : Path
    name : str
        Of the file. It is made where it is absent, and left there; what counts is the lock, which ends with the
        process.
    taken : str
        The sentence for who comes second; where there is none, they wait.

    Raises
    ------
    UsageError
        If another process holds it, or it cannot be made.
    """
    try:
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be used ({error.strerror})") from None
    try:
        # The service's user must be able to lock what an operator as root made.
        give(handle, folder)
        how = fcntl.LOCK_EX | fcntl.LOCK_NB if taken else fcntl.LOCK_EX
        try:
            fcntl.flock(handle, how)
        except BlockingIOError:
            raise UsageError(taken) from None
        yield
    finally:
        os.close(handle)


def note(path: Path, at: datetime, what: str, **facts: object) -> None:
    """Append one JSON line to an event log.

    The log is made private where it is absent. No secret belongs in it.
    """
    line = json.dumps({"at": at.isoformat(timespec="seconds"), "what": what, **facts}) + "\n"
    try:
        # One unbuffered write in append mode keeps lines of several processes apart.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(handle, "wb", buffering=0) as stream:
            give(stream.fileno(), path.parent)
            stream.write(line.encode())
    except OSError as error:
        raise FlfedError(f"{path}: cannot be written ({error.strerror})") from None


def refuse_others(path: Path, mode: int, right: int) -> None:
    """Refuse a path that other accounts may use.

    `right` is the mode that the file or folder should have.
    """
    if mode & OTHERS:
        raise UsageError(
            f"{path}: others than its owner may use it (mode {stat.S_IMODE(mode):04o}) and it concerns patients or "
            f"customers; see who did, then: chmod {right:o} {path}"
        )


@contextmanager
def folder_locked(folder: Path, *, writing: bool) -> Iterator[None]:
    """Lock a private folder while the block runs.

    One process writes in it, or several read. A writer makes it where it is absent.

    Raises
    ------
    UsageError
        If it cannot be opened, or (to read) its mode lets in others.
    """
    try:
        if writing:
            # Both are made closed: mkdir gives its mode to the last folder only.
            for missing in [path for path in (folder.parent, folder) if not path.is_dir()]:
                missing.mkdir(parents=True, mode=0o700, exist_ok=True)  # another process may have made it meanwhile
                give(missing, missing.parent)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be used by this user ({error.strerror}); run it as its owner") from None
    try:
        if writing:
            os.fchmod(handle, 0o700)
        # The lock is taken on the folder itself: a lock file in it could be replaced.
        refuse_others(folder, os.fstat(handle).st_mode, 0o700)
        how = fcntl.LOCK_EX if writing else fcntl.LOCK_SH
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)
