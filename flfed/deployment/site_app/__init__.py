"""App of one site's own people.

Each file of `pages/` is one page.
"""

from __future__ import annotations

from pathlib import Path

from flfed.records.dashboard import pages_in


def page_files() -> dict[str, Path]:
    """Return the pages as name to file.

    They are in the order of the number in the file name (`s10_status.py`).

    Examples
    --------
    >>> list(page_files())[:2]
    ['status', 'ledger']
    """
    return pages_in(Path(__file__).parent / "pages")
