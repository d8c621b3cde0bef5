"""Whether the server still holds a message for a node, or handed it to the process that the node is now.

Table of Flower 1.41 that is read: `message_ins`, with its columns `message_id` and `delivered_at`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

BUSY_SECONDS = 5.0
ASK = "SELECT delivered_at FROM message_ins WHERE message_id = ?"


def is_with(database: Path, number: str, since: str) -> bool:
    """Tell whether a node that came online at a time has a message, or is still to be given it.

    Parameters
    ----------
    database : Path
        Of the running SuperLink.
    number : str
        The message's, as the server gave it.
    since : str
        When the node came online, as the server says it.

    Returns
    -------
    there : bool
        False also where that cannot be found out: the message is asked again then.
    """
    try:
        where = f"file:{quote(str(database))}?mode=ro"
        with closing(sqlite3.connect(where, uri=True, timeout=BUSY_SECONDS)) as connection:
            found = connection.execute(
                "SELECT delivered_at FROM message_ins WHERE message_id = ?", (number,)
            ).fetchone()
        if found is None:
            return False
        return not found[0] or datetime.fromisoformat(found[0]) >= datetime.fromisoformat(since)
    except (sqlite3.Error, OSError, ValueError, TypeError):
        return False
