"""Location of flfed's data folder.

It is the user's own, and for its owner alone.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from flfed.errors import FlfedError, UsageError


def home() -> Path:
    """Return the private data folder of flfed.

    It holds downloads, checkpoints, site state and `runs.db`. It is made if absent, and closed to others.

    `FLFED_HOME` if set, else the user's data folder of the operating system.
    """
    path = where()
    try:
        private_folder(path)
    except OSError as error:
        raise UsageError(f"FLFED_HOME: {path} cannot be used as a folder ({error.strerror}); set another") from None
    # A folder of another account may exist and still be of no use.
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"FLFED_HOME: {path} cannot be read and written by this user; set another")
    return path


def where() -> Path:
    """Return the path of the data folder.

    It need not exist or be usable: a caller that only reads may look into it.

    Raises
    ------
    UsageError
        If this user has no folder of their own.
    """
    given = os.environ.get("FLFED_HOME")
    try:
        return Path(given).expanduser() if given else _user_data() / "flfed"
    except RuntimeError:
        raise UsageError("FLFED_HOME: this user has no folder of their own; set it to another") from None


def private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter.

    This holds whatever the umask is and whoever made it.

    One of somebody else, or with the sticky bit (`/tmp`), is left as it is.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    if not path.is_dir():
        for absent in reversed([above for above in (path, *path.parents) if not above.is_dir()]):
            absent.mkdir(mode=0o700, exist_ok=True)
    found = path.stat()
    # A shared folder such as /tmp would break for everybody else if it were closed.
    if found.st_mode & 0o077 and not found.st_mode & stat.S_ISVTX:
        with suppress(OSError):
            path.chmod(0o700)


def _user_data() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def write_private(path: Path, text: str, *, advice: str) -> None:
    """Write a new file for its owner alone.

    It says something of each row.

    Parameters
    ----------
    path : Path
    text : str
    advice : str
        What to do where it cannot be written.

    Raises
    ------
    UsageError
        If the file is there already, or its folder is not.
    FlfedError
        If writing fails on the way; nothing is left of it.
    """
    try:
        # An exclusive open follows no link and replaces no file that somebody put there.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{path}: is there already; it is not replaced") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}): {advice}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise FlfedError(f"{path}: cannot be written ({error.strerror})") from None


def replace_whole(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write or replace a file atomically.

    It is written beside and renamed: a reader, or a crash, finds the old one or the new one.

    Written by root, it belongs to whom its folder belongs to.

    Raises
    ------
    OSError
        If it cannot be written; what was there stays, and nothing is left beside it.
    """
    handle, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)  # of mode 600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            give(handle, path.parent)
            # Owner and mode are right before the name appears, so that no reader meets a wrong one.
            os.fchmod(handle, mode)
            os.fsync(handle)
        os.replace(part, path)
    except OSError:
        Path(part).unlink(missing_ok=True)
        raise
    # The rename itself is safe from a power cut once the folder is on the disk.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def give(file: int | Path, folder: Path) -> None:
    """Give a path to the owner of its folder.

    It is an open file or a new folder that root made.
    """
    owner = folder.stat()
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
        # Not what a link names, which somebody may have put there meanwhile.
        os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=isinstance(file, int))
