"""Signs of life of a process.

The process touches a file, and its supervisor looks at it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BUSY = 0
"""The file's time while work goes on that may take any time; no disk space is needed to say so."""


class Pulse:
    """Sign of life by the time of a file.

    Parameters
    ----------
    path : Path
        Of the file; only its time is read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pulse = Pulse(Path(folder) / "pulse")
    ...     before = pulse.seen()
    ...     pulse.beat()
    ...     with pulse.busy():
    ...         during = pulse.seen()
    ...     before, during, pulse.seen() not in (None, BUSY)
    (None, 0, True)
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def beat(self) -> None:
        """Tell that this process is alive now."""
        with suppress(OSError):
            try:
                os.utime(self._path)
            except FileNotFoundError:
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Mark this process as busy during the block.

        However long that takes, it counts as alive.
        """
        self.beat()
        with suppress(OSError):
            os.utime(self._path, ns=(BUSY, BUSY))
        try:
            yield
        finally:
            self.beat()

    def seen(self) -> int | None:
        """Return the time of the last sign of life.

        It is in nanoseconds; BUSY during work, None where there is none yet.
        """
        with suppress(OSError):
            return self._path.stat().st_mtime_ns
        return None

    def forget(self) -> None:
        """Remove what a process left that has ended."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
