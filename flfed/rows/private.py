"""Files that hold an institution's rows: for their owner alone, written whole, refused where others may read them."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flfed.errors import FlfedError, UsageError
from flfed.home import give, replace_whole

OTHERS = 0o077
"""The bits of a mode that let anybody in besides the owner."""


def private_bytes(path: Path) -> bytes:
    """Return the content of a file that only its owner may open.

    Raises
    ------
    UsageError
        If it is no plain file, or its mode lets others read or write it.
    OSError
        If it is not there, a link, or not readable by this user.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as stream:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{path}: is no plain file; put one there that only its owner may read")
        refuse_others(path, found.st_mode, 0o600)
        return stream.read()


def refuse_others(path: Path, mode: int, right: int) -> None:
    """Refuse a file or folder whose mode lets in others than its owner; `right` is the mode it should have."""
    if mode & OTHERS:
        raise UsageError(
            f"{path}: others than its owner may use it (mode {stat.S_IMODE(mode):04o}) and it concerns patients or "
            f"customers; see who did, then: chmod {right:o} {path}"
        )


def write_private_bytes(path: Path, whole: bytes) -> None:
    """Write a file for its owner alone, beside and renamed: after a crash it is as before, or as it should be.

    Raises
    ------
    FlfedError
        If it cannot be written; what was there stays.

    Notes
    -----
    Written by root, it belongs to whom its folder belongs to: to the user of the gate.
    """
    try:
        replace_whole(path, whole)
    except OSError as error:
        raise FlfedError(f"{path}: cannot be written ({error.strerror}); what was there before stays") from None


@contextmanager
def locked(folder: Path, *, writing: bool) -> Iterator[None]:
    """Hold a folder for its owner alone, while one writes in it or several read; a writer makes it if absent.

    Raises
    ------
    UsageError
        If it cannot be opened, or (to read) its mode lets in others.
    """
    try:
        if writing:
            for missing in [path for path in (folder.parent, folder) if not path.is_dir()]:
                missing.mkdir(parents=True, mode=0o700)
                give(missing, missing.parent)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be used by this user ({error.strerror}); run it as its owner") from None
    try:
        if writing:
            os.fchmod(handle, 0o700)
        refuse_others(folder, os.fstat(handle).st_mode, 0o700)
        fcntl.flock(handle, fcntl.LOCK_EX if writing else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)
