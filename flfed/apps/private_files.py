"""Files that only their owner may read: written whole or not at all, refused where others could read them."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from flfed.errors import FlfedError, UsageError
from flfed.home import give, replace_whole

PRIVATE = 0o600
SHARED = 0o640
"""For what the two users of a gate share, in their `link` folder."""


def now_utc() -> datetime:
    """Return the time, with its zone; the one clock of keys, invitations and logs."""
    return datetime.now(UTC)


def write_whole(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Write or replace a file at once: a reader, or a crash, finds the old one or the new one.

    Written by root, the file belongs to whom its folder belongs to, so that the user of a service
    can read what an operator wrote for it.

    Raises
    ------
    FlfedError
        If it cannot be written; nothing of it is left.
    """
    try:
        replace_whole(path, content, mode=mode)
    except OSError as error:
        raise FlfedError(f"{path}: cannot be written ({error.strerror})") from None


def read_private(path: Path) -> bytes:
    """Return what a file holds that only its owner may read.

    Raises
    ------
    UsageError
        If it is absent.
    FlfedError
        If it is not a plain file, or others may read or write it.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise FlfedError(f"{path}: must be a plain file")
            if mode & 0o077:
                said = f"{path}: others may read or write it (mode {stat.S_IMODE(mode):o})"
                raise FlfedError(f"{said}; consider it known to them, else: chmod 600 {path}")
            return stream.read()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time read and then write what is in a folder."""
    with held(folder / ".lock"):
        yield


def state_of(folder: Path, pattern: str) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a file of a folder is written, made or removed."""
    found = []
    for path in sorted(folder.glob(pattern)):
        with suppress(FileNotFoundError):
            facts = path.stat()
            found.append((path.name, facts.st_mtime_ns, facts.st_ino))
    return tuple(found)


@contextmanager
def held(path: Path, taken: str = "") -> Iterator[None]:
    """Hold a file as long as the block runs: of two processes that want to, the second waits or is refused.

    Parameters
    ----------
    path : Path
        Made where it is absent, and left there; what counts is the lock, which ends with the process.
    taken : str
        The sentence for who comes second; where there is none, they wait.

    Raises
    ------
    UsageError
        If another process holds it, or it cannot be made.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise UsageError(f"{path.parent}: cannot be used ({error.strerror})") from None
    try:
        give(handle, path.parent)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if taken else 0))
        except BlockingIOError:
            raise UsageError(taken) from None
        yield
    finally:
        os.close(handle)


def note(path: Path, at: datetime, what: str, **facts: object) -> None:
    """Append one JSON line to a log of events, made private where it is absent; no secret belongs in it."""
    line = json.dumps({"at": at.isoformat(timespec="seconds"), "what": what, **facts}) + "\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(handle, "wb", buffering=0) as stream:
            give(stream.fileno(), path.parent)
            stream.write(line.encode())
    except OSError as error:
        raise FlfedError(f"{path}: cannot be written ({error.strerror})") from None
