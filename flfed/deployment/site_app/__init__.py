"""App of one site's own people.

Each file of `pages/` is one page. Which site the app shows and who may look stands here: who has the token in the
address that `flfed site app` prints. Nothing of the pages is loaded for it.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from flfed.paths import SiteFolder
from flfed.records.dashboard import pages_in

if TYPE_CHECKING:
    from flfed.records.dashboard.access import Guard


def page_files() -> dict[str, Path]:
    """Return the pages as name to file.

    They are in the order of the number in the file name (`s10_status.py`).

    Examples
    --------
    >>> list(page_files())[:2]
    ['status', 'ledger']
    """
    return pages_in(Path(__file__).parent / "pages")


SITE = "FLFED_SITE_APP"
"""The environment's variable with the name of the site."""
TOKEN = "FLFED_SITE_APP_TOKEN"
"""The environment's variable with what the app's address must hold: other accounts cannot read a process's variables,
but they can read its command line."""


def named() -> str:
    """Return the name of the app's site.

    It is "" where the app was not started by `flfed site app`.
    """
    return os.environ.get(SITE, "")


def closed(folder: SiteFolder) -> str:
    """Return why this user cannot look at a site.

    It is a sentence, or "" where nothing is in the way.

    A site that has not joined has no folder yet, and its pages say what to do.
    """
    here = folder.gate
    # Listing it is the test: rights alone do not tell of access lists.
    try:
        os.scandir(here).close()
        return ""
    except FileNotFoundError:
        return ""
    except OSError:
        pass  # said below, with whom to ask
    try:
        number = here.stat().st_uid
    except OSError as error:
        return (
            f"{here}: a folder above it is closed to this user ({error.strerror}); only the user that has the data "
            f"of site {folder.site!r} may look at it; as that user: flfed site app {folder.site}"
        )
    # The owner is named, since that is whom to ask.
    try:
        owner = pwd.getpwuid(number).pw_name
    except KeyError:
        owner = f"number {number}"
    return (
        f"{here}: only user {owner}, who has the data of site {folder.site!r}, may look at it; "
        f"as that user: flfed site app {folder.site}"
    )


def make_guard() -> Guard:
    """Return what lets in who has the token; it loads Streamlit, which the command that starts the app does not."""
    from flfed.records.dashboard.access import Guard

    return Guard(TOKEN, "flfed site app NAME")
