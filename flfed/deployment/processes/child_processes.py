"""Commands and environments of child processes, and what they share.

It is the secret by which the node knows the gate.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress

from flfed.errors import FlfedError, UsageError
from flfed.files import SHARED, read_private, write_whole
from flfed.folders import SiteFolder

LOOPBACK = "127.0.0.1"
PASSED_ON = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LANGUAGE", "XDG_DATA_HOME")
    + ("PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    # With other kernels a gate would not compute the bits that its operator's commands compute.
    + ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
)
"""Variables that a process of a consortium is given, where the caller has them (docs/security.md)."""
PREFIXES = ("FLFED_", "LC_")
"""What the names of others begin with that it is given: our own, where a site package finds its settings, too."""


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

    With -P no module is looked for in the current folder.

    Examples
    --------
    >>> python("flfed.deployment.processes.node", "cleveland")[1:]
    ('-P', '-m', 'flfed.deployment.processes.node', 'cleveland')
    """
    return (sys.executable, "-P", "-m", module, *words)


def free_port(wanted: int = 0) -> int:
    """Return a free port of the loopback, preferably the wanted one."""
    for port in (wanted, 0):
        with socket.socket() as found, suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((LOOPBACK, port))
            return int(found.getsockname()[1])
    raise FlfedError("no port of 127.0.0.1 is free")


def node_command(folder: SiteFolder, port: int) -> list[str]:
    """Return the SuperNode's command line.

    It names files and holds no secret.

    Raises
    ------
    UsageError, FlfedError
        If the site has not joined, or its key may be read by others.
    """
    from flfed.deployment.operator.join import joined

    known = joined(folder)
    address = known.get("address")
    # The address comes from a file, so it is checked before a command line is made of it.
    if not isinstance(address, str) or known.get("site") != folder.site:
        raise FlfedError(f"{folder.join}: does not say the coordinator's address and this site's name; join again")
    read_private(folder.node_key)
    words = ["flower-supernode", "--superlink", address, "--root-certificates", str(folder.authority)]
    words += ["--auth-supernode-private-key", str(folder.node_key), "--node-config", f"site={json.dumps(folder.site)}"]
    words += ["--isolation", "process", "--superexec-auth-secret-file", str(folder.secret)]
    return [*words, "--host", LOOPBACK, "--port", str(port)]


def make_secret(folder: SiteFolder) -> None:
    """Create the node's and gate's shared secret if absent."""
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
                raise FlfedError(f"{folder.secret}: others may read or change it; remove it, and serve again")
            return stream.read()
    except OSError as error:
        raise UsageError(f"{folder.secret}: cannot be read ({error.strerror})") from None
