"""Status codes of a server that is away.

A request that such a server answered is sent again.
"""

from __future__ import annotations

TOO_MANY, SERVER_ERRORS = 429, 500
"""Status codes: too many requests; from here on the fault is the server's."""


def is_away(status: int) -> bool:
    """Tell whether a status code asks for another try.

    The server is away, has too much to do, or failed for now.

    Examples
    --------
    >>> [is_away(status) for status in (200, 404, 412, 413, 429, 500, 503, 507)]
    [False, False, False, False, True, True, True, True]
    """
    return status == TOO_MANY or status >= SERVER_ERRORS
