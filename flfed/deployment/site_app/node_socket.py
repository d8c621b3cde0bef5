"""Check for a running node of a site.

It is on this machine, and is not touched.
"""

from __future__ import annotations

from pathlib import Path

from flfed.folders import SiteFolder

LISTENING = "00010000"
"""The flag of a socket that waits for others, as Linux lists it."""


def node_listens(folder: SiteFolder, sockets: Path = Path("/proc/net/unix")) -> bool:
    """Tell whether a node listens at the gate's socket.

    The system's list of sockets tells, and nobody is asked.

    Parameters
    ----------
    folder : SiteFolder
    sockets : Path
        The list; where there is none, as on other systems than Linux, nobody is known to listen.
    """
    try:
        lines = sockets.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    # A path may contain blanks, and is the last of eight cells.
    found = (line.split(maxsplit=7) for line in lines)
    return any(len(cells) == 8 and cells[3] == LISTENING and cells[7] == str(folder.socket) for cells in found)
