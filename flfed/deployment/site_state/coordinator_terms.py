"""Reader of the coordinator's terms at a site.

The user of the network wrote `terms.toml`, and the gate trusts it no further than that.

Who is that user can name another signing key there. What it would gain is a receipt that looks like the
coordinator's; it could send the gate whatever an approved coordinator may send anyway (docs/security.md).
"""

from __future__ import annotations

import os
import stat
from typing import Any

from flfed.errors import UsageError
from flfed.folders import SiteFolder
from flfed.parsers import parse_toml

LARGEST = 65_536
"""Bytes; real terms have about 500."""
WRITABLE = 0o022
"""Modes that let others than the user of the network change it."""


def coordinator_of(folder: SiteFolder) -> str:
    """Return the title of the site's coordinator.

    The text is empty where it has joined none.

    Raises
    ------
    UsageError
        If the terms are there and cannot be read.
    """
    return str(read_terms(folder).get("coordinator", "")) if os.path.lexists(folder.terms) else ""


def other_coordinator(folder: SiteFolder, approved_for: str) -> bool:
    """Tell whether a study's approval names another coordinator.

    Where the terms cannot be read, it counts as another.
    """
    try:
        # An approval from before the site had joined anybody holds for the coordinator that it joined.
        return approved_for not in ("", coordinator_of(folder))
    except UsageError:
        return True


def read_terms(folder: SiteFolder) -> dict[str, Any]:
    """Return the coordinator's terms, from kit or renewal.

    They are those of the last renewal, or of the kit where there was none.

    Raises
    ------
    UsageError
        If it is absent, damaged, a link, no plain file, or others than its owner may change it; nothing
        of its content is said.
    """
    path, again = folder.terms, "at the site: flfed site join KIT"
    try:
        # A pipe in its place would hold the gate up, a link would have it read what only the gate may read.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            # Looked at through the open file: between a check by path and the reading, the file could be exchanged.
            found = os.fstat(stream.fileno())
            if found.st_mode & WRITABLE:
                raise UsageError(f"{path}: others may change it; first: chmod 640 {path}")
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
                raise UsageError(f"{path}: is not what joining writes; {again}")
            content = stream.read(LARGEST)
    except OSError:
        raise UsageError(f"{path}: cannot be read; {again}") from None
    try:
        return parse_toml(content, str(path))
    except UsageError:
        raise UsageError(f"{path}: cannot be read; {again}") from None
