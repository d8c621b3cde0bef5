"""Commands and environments of child processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

PASSED_ON = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LANGUAGE", "XDG_DATA_HOME")
    + ("PYTHONDONTWRITEBYTECODE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
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
