"""Private files: written whole, locked, and refused where other accounts may read them."""

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
from flfed.words import usage_error

PRIVATE = 0o600
SHARED = 0o640
"""Mode of files that the two users of a site share, in their `link` folder."""


def read_up_to(path: Path, most: int) -> bytes | None:
    """Return a file's content, or None where it has more than `most` bytes; an endless one is not read to its end."""
    with path.open("rb") as stream:
        # One byte more than allowed is enough to see that a file is too large.
        content = stream.read(most + 1)
    return content if len(content) <= most else None


def write_whole(path: Path, content: Content, *, mode: int = PRIVATE) -> None:
    """Write or replace a file atomically: a reader, or a crash, meets the old file or the new one.

    A file written by root gets the owner of its folder, so that the user of a service can read it.

    Raises
    ------
    FlfedError
        If it cannot be written; the old file remains.
    """
    try:
        replace_whole(path, content, mode=mode)
    except OSError as error:
        raise FlfedError(f"{path}: cannot be written ({error.strerror}); the earlier content remains") from None


def keep_files_private() -> None:
    """Make all later files of this process private to its owner."""
    os.umask(0o077)


@contextmanager
def made_with(mode: int) -> Iterator[None]:
    """Limit the mode of all files that are made while the block runs."""
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


OTHERS = 0o077
"""Bits of a mode for anybody but the owner."""


def read_private(path: Path, *, rows: bool = False) -> bytes:
    """Return the content of a private file, which only its owner may be able to open.

    Parameters
    ----------
    path : Path
    rows : bool
        Whether it concerns patients or customers; otherwise it is a secret of this program. The caller reports rows
        that cannot be opened.

    Raises
    ------
    OSError
        If rows cannot be opened.
    UsageError
        If a secret cannot be opened, or rows are no plain file, or other accounts may use them.
    FlfedError
        If a secret is no plain file, or other accounts may read or write it.
    """
    # The file may be neither a link, which misleads, nor a pipe, which blocks.
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            # The open handle is checked, not the path, so that nobody can swap the file in between.
            mode = os.fstat(stream.fileno()).st_mode
            if rows:
                if not stat.S_ISREG(mode):
                    raise UsageError(f"{path}: is no plain file; replace it by one that only its owner may read")
                refuse_others(path, mode, 0o600)
            elif not stat.S_ISREG(mode):
                raise FlfedError(f"{path}: must be a plain file")
            elif mode & OTHERS:
                # A secret that others could read may be known to them, so it is refused and not repaired.
                defect = f"{path}: others may read or write it (mode {stat.S_IMODE(mode):o})"
                raise FlfedError(f"{defect}; replace it if they may know it, else: chmod 600 {path}")
            return stream.read()
    except OSError as error:
        if rows:
            raise
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def state_of(folder: Path, pattern: str) -> tuple[tuple[str, int, int], ...]:
    """Return the state of the files in a folder that fit a pattern: name, time of change (ns) and inode.

    It changes when such a file is written, made or removed.
    """
    entries = []
    for path in sorted(folder.glob(pattern)):
        # A file may be removed between the listing and the look at it.
        with suppress(FileNotFoundError):
            facts = path.stat()
            entries.append((path.name, facts.st_mtime_ns, facts.st_ino))
    return tuple(entries)


@contextmanager
def locked(folder: Path, name: str = ".lock", *, taken: str = "", shared: bool = False) -> Iterator[None]:
    """Lock a file in a folder while the block runs; a second process waits or is refused.

    Parameters
    ----------
    folder : Path
    name : str
        Name of the file, which is made if absent, and not removed. The lock ends with the process.
    taken : str
        Refusal of the second process; without it, the second process waits.
    shared : bool
        Whether other processes may have the lock at the same time, if they share it too.

    Raises
    ------
    UsageError
        If another process has the lock, or the file cannot be made.
    """
    try:
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be used ({error.strerror})") from None
    try:
        # The user of a service must be able to lock a file that root has made.
        give(handle, folder)
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        if taken:
            how |= fcntl.LOCK_NB
        try:
            fcntl.flock(handle, how)
        except BlockingIOError:
            raise UsageError(taken) from None
        yield
    finally:
        os.close(handle)


def note(path: Path, at: datetime, what: str, **facts: object) -> None:
    """Append one JSON line to a private event log, which must have no secret."""
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
    """Refuse a path that other accounts may use; `right` is the mode that it should have."""
    if mode & OTHERS:
        shown = f"{stat.S_IMODE(mode):04o}"
        raise usage_error("commands.files.private", path=path, mode=shown, right=f"{right:o}")


@contextmanager
def folder_locked(folder: Path, *, writing: bool) -> Iterator[None]:
    """Lock a private folder while the block runs: one process writes, or several read.

    A writer makes it if absent.

    Raises
    ------
    UsageError
        If it cannot be opened, or (for reading) other accounts may use it.
    """
    try:
        if writing:
            # Each is made private: mkdir gives its mode only to the last folder.
            for missing in [path for path in (folder.parent, folder) if not path.is_dir()]:
                missing.mkdir(parents=True, mode=0o700, exist_ok=True)  # another process may have made it meanwhile
                give(missing, missing.parent)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise UsageError(f"{folder}: this user cannot use it ({error.strerror}); run this as its owner") from None
    try:
        if writing:
            os.fchmod(handle, 0o700)
        # The folder itself is locked, since a lock file in it could be replaced.
        refuse_others(folder, os.fstat(handle).st_mode, 0o700)
        how = fcntl.LOCK_EX if writing else fcntl.LOCK_SH
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)
