"""What a site's version of flfed reads in a message, and writes in its reply.

What is new crosses only to sites that read it: an earlier version refuses a field that it does not know.
"""

from __future__ import annotations

import re

OFFSETS = (0, 2)
"""The first version that is asked for its offset, and reads what is estimated of all."""
COMPACT = (0, 3)
"""The first version that keeps the encoder, reads packed arrays, and counts in small whole numbers."""


def reads_offset(version: str) -> bool:
    """Tell whether a site's version knows of offsets.

    Such a site is asked for its offset, and is sent the deviation over sites.

    Examples
    --------
    >>> [reads_offset(version) for version in ("0.1.0", "0.1", "", "0.2.0.dev1", "0.10.3", "1.0")]
    [False, False, False, True, True, True]
    """
    return _since(version, OFFSETS)


def reads_compact(version: str) -> bool:
    """Tell whether a site's version reads compact requests.

    Such a site is sent the encoder once, and its hash from then on.

    Examples
    --------
    >>> [reads_compact(version) for version in ("0.2.0", "", "0.3.0", "1.0")]
    [False, False, True, True]
    """
    return _since(version, COMPACT)


def _since(version: str, first: tuple[int, int]) -> bool:
    # A version that cannot be read counts as an early one.
    found = re.match(r"(\d{1,6})\.(\d{1,6})", version)
    return found is not None and (int(found[1]), int(found[2])) >= first
