"""Modes of the folders that a site's gate believes: who may write there could put other rows and approvals in."""

from __future__ import annotations

import os

from flfed.folders import SiteFolder
from flfed.packages import writable


def open_folder(folder: SiteFolder) -> str:
    """Return the first folder of a gate that other accounts may change, and the command that closes it.

    An empty text where there is none. Of a link it is the folder that it leads to; what is absent is none.
    """
    if os.name != "posix":
        return ""
    for place in (folder.root, folder.gate, folder.frozen, folder.approvals, folder.starts):
        try:
            found = os.stat(place)
        except OSError:
            continue
        if why := writable(place, found):
            return f"{place}: {why}; nothing is answered until then, and see what was changed meanwhile"
    return ""
