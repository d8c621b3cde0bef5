"""App for the people of one site, a file of `pages/` for each page.

This module has the app's site and its access: everybody with the token in the address that `flfed site app` prints. It
loads no page.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from flfed.paths import SiteFolder
from flfed.records.dashboard import pages_in
from flfed.words import render

if TYPE_CHECKING:
    from flfed.records.dashboard.access import Guard


def page_files() -> dict[str, Path]:
    """Return the pages' files by name, in the order of their numbers (`s10_status.py`).

    Examples
    --------
    >>> list(page_files())[:2]
    ['status', 'ledger']
    """
    return pages_in(Path(__file__).parent / "pages")


SITE = "FLFED_SITE_APP"
"""Environment variable with the name of the site."""
TOKEN = "FLFED_SITE_APP_TOKEN"
"""Environment variable with the token of the app's address: other accounts cannot read a process's variables, but they
can read its command line."""


def named() -> str:
    """Return the name of the app's site, "" where `flfed site app` did not start the app."""
    return os.environ.get(SITE, "")


def closed(folder: SiteFolder) -> str:
    """Return why this user may not read a site's folder, or "".

    A site that has not joined has no folder yet, and its pages show how to join.
    """
    here = folder.gate
    # Listing the folder is the test, as its mode does not show access lists.
    try:
        os.scandir(here).close()
        return ""
    except FileNotFoundError:
        return ""
    except OSError:
        pass  # the sentences below name the owner
    facts = {"folder": here, "site": repr(folder.site), "name": folder.site}
    try:
        number = here.stat().st_uid
    except OSError as error:
        return render("site_app.closed.above", why=error.strerror, **facts)
    try:
        owner = pwd.getpwuid(number).pw_name
    except KeyError:
        owner = f"number {number}"
    return render("site_app.closed.owner", owner=owner, **facts)


def make_guard() -> Guard:
    """Return the guard that admits everybody with the token; only this loads Streamlit."""
    from flfed.records.dashboard.access import Guard

    return Guard(TOKEN, "flfed site app NAME")
