"""Pages on recorded runs.

Each file of `pages/` is one page.
"""

from __future__ import annotations

from pathlib import Path

from flfed import records
from flfed.registry import kebab

APP_TOKEN = "FLFED_APP_TOKEN"
"""Environment variable with the token that the address of `flfed app` must hold."""
GROUPS = {"1": "", "2": "Run results", "6": "Data and privacy", "8": "Proof"}
"""Headings of the navigation by the first digit of a page's number; other digits belong to the heading before.

Pages under "" stand at the top without a heading, which above a single link would repeat its label and fold it away.
"""


def logo_file(*, dark: bool = False) -> Path:
    """Return the logo with the name, for a light page or a dark one; the docs have the same.

    Examples
    --------
    >>> logo_file(dark=True).name
    'dark.svg'
    """
    return Path(records.__file__).parent / "logo" / ("dark.svg" if dark else "light.svg")


def page_files() -> dict[str, Path]:
    """Return the pages' files by name, in the order of their numbers (`p10_runs.py`).

    Examples
    --------
    >>> list(page_files())[:2]
    ['runs', 'overview']
    """
    return pages_in(Path(__file__).parent / "pages")


def pages_in(folder: Path) -> dict[str, Path]:
    """Return the pages of a folder by name: files named by a letter, a number and a name."""
    return {kebab(file.stem.split("_", 1)[1]): file for file in sorted(folder.glob("[a-z][0-9]*_*.py"))}


def page_groups() -> dict[str, dict[str, Path]]:
    """Return the pages by heading.

    Examples
    --------
    >>> [list(pages)[0] for pages in page_groups().values()][:2]
    ['runs', 'overview']
    """
    pages_by_group: dict[str, dict[str, Path]] = {}
    for name, file in page_files().items():
        heading = max(digit for digit in GROUPS if digit <= file.stem[1])
        pages_by_group.setdefault(GROUPS[heading], {})[name] = file
    return pages_by_group
