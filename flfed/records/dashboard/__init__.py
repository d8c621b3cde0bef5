"""Pages on recorded runs.

Each file of `pages/` is one page.
"""

from __future__ import annotations

from pathlib import Path

from flfed import records
from flfed.registry import kebab

APP_TOKEN = "FLFED_APP_TOKEN"
"""Environment variable with the token that the address of `flfed app` must hold."""


def logo_file(*, dark: bool) -> Path:
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
    ['runs', 'before-you-join']
    """
    return pages_in(Path(__file__).parent / "pages")


def pages_in(folder: Path) -> dict[str, Path]:
    """Return the pages of a folder by name: files named by a letter, a number and a name."""
    return {kebab(file.stem.split("_", 1)[1]): file for file in sorted(folder.glob("[a-z][0-9]*_*.py"))}
