"""Frame of the site's pages.

It knows which site the app shows and who may look. It shows errors as sentences, and refreshes the page by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from flfed.callbacks import today_utc
from flfed.deployment.site_app.access import closed, named
from flfed.errors import FlfedError
from flfed.folders import SiteFolder
from flfed.records.dashboard.components import page_style
from flfed.records.dashboard.components.text import escape
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.site import Site

LOOK_SECONDS = 2.0
"""Between two looks at the site's folder: a look at its files' times costs less than a hundredth of a second."""
KEPT_SECONDS = 3600
State = tuple[str, int, int, int]
"""Name, number and size of a file, and when it last changed in any way: a time that nobody sets by hand, unlike that
of its content."""
Mark = tuple[State | int, ...]
"""The state of each file that the pages depend on, and the day: differs when there is more to see."""


@dataclass(frozen=True)
class Opened:
    """Site that the app shows, in its present state.

    Attributes
    ----------
    name : str
    mark : Mark
        What is read for a page is kept by it.
    """

    name: str
    mark: Mark

    @property
    def folder(self) -> SiteFolder:
        """Folders of the site."""
        return SiteFolder(self.name)

    @property
    def site(self) -> Site:
        """Site as its package and policy describe it now."""
        return sites.load(self.name)


def mark_of(folder: SiteFolder, site: Site) -> Mark:
    """Return the state that the pages depend on.

    It differs whenever they have more to show. No file is opened.
    """
    # Single files first, then whatever stands in the folders.
    places = [folder.join, folder.terms, folder.ledger, folder.receipts, folder.excluded, folder.gate / "paused"]
    for one in (folder.approvals, folder.frozen, folder.results, folder.gate / "released"):
        places += sorted(one.rglob("*"))
    places += [] if site.folder is None else [site.folder / "policy.toml"]
    # A day that passes can end a study, without any file changing.
    today = today_utc().toordinal()  # a study expires
    return (today, *(found for found in map(state_of, places) if found))


def state_of(path: Path) -> State | None:
    """Return the state of a file.

    It differs whenever content, mode or owner do, and is None where there is no file.
    """
    try:
        found = path.lstat()
    except OSError:
        return None
    return str(path), found.st_ino, found.st_size, found.st_ctime_ns


def show(title: str, parts: Callable[[Opened], None]) -> None:
    """Show a page of the site.

    Its parts are shown anew every two seconds.

    Parameters
    ----------
    title : str
    parts : callable
        Shows the page's parts, as the site is now, each in a place of its own.
    """
    page_style.close_up()
    try:
        site = sites.load(named())
        why = closed(SiteFolder(site.name))
    except FlfedError as error:
        st.title(title)
        st.error(escape(str(error)))
        return
    st.title(escape(title), anchor=False)
    st.caption(escape(f"{site.title or site.name}: from this site's own folder; nothing of other sites is here."))
    # The reason is shown in place of the page.
    if why:
        st.error(escape(why))
        return
    st.fragment(_body, run_every=LOOK_SECONDS)(site.name, parts)


def _body(name: str, parts: Callable[[Opened], None]) -> None:
    """Show the parts as the site is now."""
    try:
        parts(Opened(name, mark_of(SiteFolder(name), sites.load(name))))
    except FlfedError as error:
        st.error(escape(str(error)))
