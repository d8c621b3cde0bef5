"""Whether a site's node runs on this machine, told without touching it."""

from __future__ import annotations

from pathlib import Path

from flfed.folders import SiteFolder

LISTENING = "00010000"
"""The flag of a socket that waits for others, as Linux lists it."""


def node_listens(folder: SiteFolder, sockets: Path = Path("/proc/net/unix")) -> bool:
    """Tell whether somebody listens at the socket between node and gate, by the system's list: nobody is asked.

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
    found = (line.split(maxsplit=7) for line in lines)
    return any(len(cells) == 8 and cells[3] == LISTENING and cells[7] == str(folder.socket) for cells in found)
