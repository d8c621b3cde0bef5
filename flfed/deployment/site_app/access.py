"""Access to the app of a site.

It says which site the app shows and who may look: who has the token in the address that `flfed site app` prints. It
loads nothing of the pages.
"""

from __future__ import annotations

import os
import pwd

from flfed.folders import SiteFolder
from flfed.records.dashboard.token import Guard

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


GUARD = Guard(TOKEN, "flfed site app NAME")
