"""Which site the app shows, and who may look; loads nothing of the pages."""

from __future__ import annotations

import os
import pwd

from flfed.apps.gate.folder import SiteFolder

SITE = "FLFED_SITE_APP"
"""The environment's variable with the name of the site."""


def closed(folder: SiteFolder) -> str:
    """Return why this user cannot look at a site, in a sentence; "" where nothing is in the way.

    A site that has not joined has no folder yet, and its pages say what to do.
    """
    here = folder.gate
    try:
        os.scandir(here).close()
        return ""
    except FileNotFoundError:
        return ""
    except OSError:
        pass  # said below, with whom to ask
    try:
        owner = pwd.getpwuid(here.stat().st_uid).pw_name
    except KeyError:
        owner = f"number {here.stat().st_uid}"
    return (
        f"{here}: only user {owner}, who has the data of site {folder.site!r}, may look at it; "
        f"as that user: flfed site app {folder.site}"
    )
