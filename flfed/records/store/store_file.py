"""The SQLite file of a run store.

It is its owner's alone, unless a group of readers is named.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from flfed.errors import UsageError
from flfed.paths import private_folder, where

GROUP = "FLFED_STORE_GROUP"
"""The environment's variable that names the group whose accounts may read the store."""
BESIDE = ("", "-wal", "-shm", "-journal")
"""What SQLite adds to the file's name: its log, the log's index, and an older kind of log."""


class StoreFile:
    """A run store's file, with what SQLite keeps beside it.

    Parameters
    ----------
    path : Path

    Raises
    ------
    UsageError
        If the group that `FLFED_STORE_GROUP` names is not there, or could not come to the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._named = path, os.environ.get(GROUP, "")
        self._readers = self._number() if self._named and os.name == "posix" else None

    def _number(self) -> int:
        import grp

        if self._path.resolve().is_relative_to(where().resolve()):
            raise UsageError(
                f"{GROUP}: the run store is in FLFED_HOME, where nobody else may enter; give it a folder of its own: "
                "FLFED_STORE=sqlite:////srv/flfed/runs.db"
            )
        try:
            return grp.getgrnam(self._named).gr_gid
        except KeyError:
            raise UsageError(f"{GROUP}: there is no group {self._named!r} on this machine") from None

    def make(self) -> None:
        """Make the file where it is absent.

        The folder is made as well. Files of an earlier version are closed to others.

        Raises
        ------
        UsageError
            If the folder cannot be made.
        """
        folder = self._path.parent
        if not folder.is_dir():
            try:
                private_folder(folder)
            except OSError as error:
                why = error.strerror or type(error).__name__
                todo = "set FLFED_STORE to a file where you may write"
                raise UsageError(f"the folder {folder} of the run store cannot be made ({why}): {todo}") from None
            self._give(folder, 0o2750)
        # Never opened where it is there: closing it again would drop the locks that SQLite holds in this process.
        with suppress(OSError):  # SQLite says why it cannot be made
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self.close_to_others()

    def close_to_others(self) -> None:
        """Close the files to all but owner and readers' group."""
        for end in BESIDE:
            path = self._path.with_name(self._path.name + end)
            # A file that is absent, or somebody else's, is passed over.
            with suppress(OSError):  # absent, or somebody else's
                mode = stat.S_IMODE(path.stat().st_mode)
                if self._readers is None and mode & 0o077:
                    path.chmod(mode & 0o700)
                self._give(path, mode & 0o700 | 0o040)

    def _give(self, path: Path, mode: int) -> None:
        """Give the readers' group, where one is named, its rights."""
        if self._readers is None:
            return
        try:
            # Nothing is changed where all is as it should be: another than the owner may not.
            if path.stat().st_gid != self._readers:
                os.chown(path, -1, self._readers)
        except PermissionError:
            raise UsageError(f"{GROUP}: this user is not in group {self._named!r}, or does not own {path}") from None
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)
