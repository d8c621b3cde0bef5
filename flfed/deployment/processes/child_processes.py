"""Child processes: commands, environments, signs of life, and memory.

They share the secret that shows the node its gate. A process touches a file as a sign of life, and its supervisor
looks at it. A table that needs too much memory ends the gate, or its message, and not the machine.
"""

from __future__ import annotations

import json
import os
import re
import resource
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flfed.errors import FlfedError
from flfed.files import SHARED, read_private, write_whole
from flfed.paths import SiteFolder
from flfed.words import flfed_error, usage_error

LOOPBACK = "127.0.0.1"
PASSED_ON = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LANGUAGE", "XDG_DATA_HOME")
    + ("PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    # With other kernels a gate would not compute the same bits as its operator's commands.
    + ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
)
"""Variables that a process of a consortium gets, where the caller has them."""
PREFIXES = ("FLFED_", "LC_")
"""Prefixes of further variables that it gets: flfed's own, where a site package finds its settings, too."""


def passed_on(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables for a child process.

    No search path of Python, no library to preload and no proxy is among them.

    Examples
    --------
    >>> passed_on({"PATH": "/usr/bin", "FLFED_HOME": "/srv", "PYTHONPATH": ".", "LD_PRELOAD": "x.so"})
    {'PATH': '/usr/bin', 'FLFED_HOME': '/srv'}
    """
    return {name: text for name, text in environment.items() if name in PASSED_ON or name.startswith(PREFIXES)}


def python(module: str, *words: str) -> tuple[str, ...]:
    """Return the command line that runs a module.

    With -P, Python does not look for modules in the current folder.

    Examples
    --------
    >>> python("flfed.deployment.processes.node", "cleveland")[1:]
    ('-P', '-m', 'flfed.deployment.processes.node', 'cleveland')
    """
    return (sys.executable, "-P", "-m", module, *words)


def free_port(wanted: int = 0) -> int:
    """Return a free port of the loopback, preferably the wanted one."""
    for port in (wanted, 0):
        with socket.socket() as listener, suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LOOPBACK, port))
            return int(listener.getsockname()[1])
    raise FlfedError("no port of 127.0.0.1 is free")


def node_command(folder: SiteFolder, port: int) -> list[str]:
    """Return the SuperNode's command line.

    It names files and contains no secret.

    Raises
    ------
    UsageError, FlfedError
        If the site has not joined, or others may read its key.
    """
    from flfed.deployment.operator.join import joined

    membership = joined(folder)
    address = membership.get("address")
    # The address comes from a file, so it is checked before a command line is made of it.
    if not isinstance(address, str) or membership.get("site") != folder.site:
        raise flfed_error("processes.files.join", file=folder.join)
    read_private(folder.node_key)
    words = ["flower-supernode", "--superlink", address, "--root-certificates", str(folder.authority)]
    words += ["--auth-supernode-private-key", str(folder.node_key), "--node-config", f"site={json.dumps(folder.site)}"]
    words += ["--isolation", "process", "--superexec-auth-secret-file", str(folder.secret)]
    return [*words, "--host", LOOPBACK, "--port", str(port)]


def make_secret(folder: SiteFolder) -> None:
    """Create the shared secret of node and gate, if absent."""
    if not folder.secret.exists():
        write_whole(folder.secret, secrets.token_hex(32).encode(), mode=SHARED)


def shared_secret(folder: SiteFolder) -> bytes:
    """Return the shared secret of node and gate.

    It is refused where others than the two users may read or write it.
    """
    try:
        with open(os.open(folder.secret, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
            # Checked on the open file, so that it cannot be exchanged between the check and the reading.
            if os.fstat(stream.fileno()).st_mode & 0o037:
                raise flfed_error("processes.files.secret", file=folder.secret)
            return stream.read()
    except OSError as error:
        raise usage_error("processes.files.unread", file=folder.secret, why=error.strerror) from None


BUSY = 0
"""The file's time during work that may take any time; it needs no disk space."""


@dataclass(frozen=True)
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

    path: Path

    def beat(self) -> None:
        """Show that this process is alive now."""
        with suppress(OSError):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Mark this process as busy during the block.

        However long the block takes, the process counts as alive.
        """
        self.beat()
        with suppress(OSError):
            os.utime(self.path, ns=(BUSY, BUSY))
        try:
            yield
        finally:
            self.beat()

    def seen(self) -> int | None:
        """Return the time of the last sign of life.

        It is in nanoseconds; BUSY during work, None where there is none yet.
        """
        with suppress(OSError):
            return self.path.stat().st_mtime_ns
        return None

    def note(self, undone: str) -> None:
        """Write down what this process has not done from now on, in words that follow its name; "" for nothing."""
        with suppress(OSError):
            if self.path.read_text("utf-8").partition(" ")[2] != undone:
                self.path.write_text(f"{time.time():.0f} {undone}" if undone else "", "utf-8")

    def forget(self) -> None:
        """Remove the file of a process that has ended."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


VARIABLE = "FLFED_GATE_MEMORY"
"""Of the gate's process, set by its supervisor: bytes of memory."""
OPEN_FILES = 1024
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)", re.IGNORECASE)
LEAST = 512 << 20
"""Below this a gate does not even load its packages."""


def bytes_of(size: str) -> int:
    """Return a size such as "4G" in bytes.

    "" is half of this machine's memory.

    Raises
    ------
    UsageError
        If it is malformed, or less than a gate needs.

    Examples
    --------
    >>> bytes_of("4G"), bytes_of("700m"), bytes_of("600000000")
    (4294967296, 734003200, 600000000)
    """
    if not size:
        return max(half_of_machine(), LEAST)
    match = SIZE.fullmatch(size)
    if match is None:
        raise usage_error("processes.memory.size", size=size)
    count = int(match[1]) * UNITS[match[2].upper()]
    if count < LEAST:
        raise usage_error("processes.memory.least", size=size, least=LEAST >> 20)
    return count


def half_of_machine() -> int:
    """Return half of this machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def limit_process() -> int:
    """Limit memory and open files of this process.

    The limits are for good, and also for child processes. Return the bytes.

    The limit is RLIMIT_DATA: the process's own writable memory. Beyond it an allocation fails, which Python raises as
    `MemoryError`.
    """
    count = int(os.environ.get(VARIABLE, "0")) or bytes_of("")
    limits = {resource.RLIMIT_DATA: count, resource.RLIMIT_NOFILE: OPEN_FILES}
    for kind, most in limits.items():
        # A lower limit of the system stays: this process could not raise it.
        hard = resource.getrlimit(kind)[1]
        limits[kind] = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limits[kind], limits[kind]))
    return limits[resource.RLIMIT_DATA]
