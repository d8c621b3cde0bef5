"""Modes of the folders that a site's gate believes: who may write there could put other rows and approvals in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flfed.folders import SiteFolder
from flfed.packages import writable

BELIEVED = ("", "frozen", "approvals", "starts")
"""Names of folders in `gate`, itself first."""


def open_folder(folder: SiteFolder) -> str:
    """Return the first folder of a gate that other accounts may change, and the command that closes it.

    An empty text where there is none. Of a link it is the folder that it leads to; what is absent is none.
    """
    if os.name != "posix":
        return ""
    gate = folder.gate  # asked once: it is looked at with each message
    for place in (str(gate.parent), *(os.path.join(gate, name) for name in BELIEVED)):
        try:
            found = os.stat(place)
        except OSError:
            continue
        others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if others_write and (why := writable(Path(place), found)):
            return f"{Path(place)}: {why}; nothing is answered until then, and see what was changed meanwhile"
    return ""
