"""The pages that show what runs wrote down; each file of `pages/` is one page."""

from __future__ import annotations

from pathlib import Path

from flfed.listing import kebab


def page_files() -> dict[str, Path]:
    """Return the pages as name to file, in the order of the number in the file name (`p10_runs.py`).

    Examples
    --------
    >>> list(page_files())[:2]
    ['runs', 'overview']
    """
    found = sorted((Path(__file__).parent / "pages").glob("p[0-9]*_*.py"))
    return {kebab(file.stem.split("_", 1)[1]): file for file in found}
