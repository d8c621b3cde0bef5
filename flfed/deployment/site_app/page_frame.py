"""Frame of the site's pages, and their charts: it shows errors as sentences, and refreshes the page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from flfed.callbacks import today_utc
from flfed.deployment.site_app import closed, named
from flfed.errors import FlfedError
from flfed.paths import SiteFolder
from flfed.records.charts.chart import Chart, Line, Spec, layer, legend_of, nominal, plot, quantitative
from flfed.records.charts.privacy import KIND_COLOURS, OTHER_COLOUR
from flfed.records.dashboard import sections
from flfed.records.ledger_line import Total
from flfed.records.reports.privacy_tables import KINDS as NAMES
from flfed.records.text import escape, size_in_words
from flfed.rows.data import site_discovery as sites
from flfed.rows.data.site import Site
from flfed.words import render, sentences

LOOK_SECONDS = 2.0
"""Seconds between two checks of the site's folder, which only read its files' times."""
CACHE_SECONDS = 3600
State = tuple[str, int, int, int]
"""Name, number and size of a file, and the time of its last change in any way, which nobody can set, unlike that of its
content."""
Mark = tuple[State | int, ...]
"""The state of each file that the pages depend on, and the day: it differs when pages have new content."""


@dataclass(frozen=True)
class Opened:
    """Site that the app shows, in its present state.

    Attributes
    ----------
    name : str
    mark : Mark
        Key of the cached content.
    """

    name: str
    mark: Mark

    @property
    def folder(self) -> SiteFolder:
        """Folders of the site."""
        return SiteFolder(self.name)

    @property
    def site(self) -> Site:
        """Site by its current package and policy."""
        return sites.load(self.name)


def mark_of(folder: SiteFolder, site: Site) -> Mark:
    """Return the state that the pages depend on, without opening a file; it differs when they have new content."""
    # Single files come first, then the content of folders.
    places = [folder.join, folder.terms, folder.ledger, folder.state, folder.excluded, folder.gate / "paused"]
    for one in (folder.approvals, folder.frozen, folder.results, folder.gate / "released"):
        places += sorted(one.rglob("*"))
    if site.folder is not None:
        places.append(site.folder / "policy.toml")
    # A new day can end a study, without any file changing.
    return (today_utc().toordinal(), *(state for state in map(state_of, places) if state))


def state_of(path: Path) -> State | None:
    """Return the state of a file, which depends on content, mode and owner; None where there is no file."""
    try:
        file_status = path.lstat()
    except OSError:
        return None
    return str(path), file_status.st_ino, file_status.st_size, file_status.st_ctime_ns


def show(title: str, parts: Callable[[Opened], None]) -> None:
    """Show a page of the site, and refresh its parts every two seconds.

    Parameters
    ----------
    title : str
    parts : callable
        Shows the page's parts for the current state of the site, each in a place of its own.
    """
    sections.close_up()
    try:
        site = sites.load(named())
        why = closed(SiteFolder(site.name))
    except FlfedError as error:
        st.title(title)
        st.error(escape(str(error)))
        return
    st.title(escape(title), anchor=False)
    st.caption(escape(render("site_app.frame.source", site=site.title or site.name)))
    if why:
        st.error(escape(why))
    else:
        st.fragment(_body, run_every=LOOK_SECONDS)(site.name, parts)


def warn(problems: Iterable[str]) -> None:
    """Show the problems of the site."""
    for problem in problems:
        st.error(escape(render("site_app.frame.problem", problem=problem)))


def _body(name: str, parts: Callable[[Opened], None]) -> None:
    """Show the parts for the current state of the site."""
    try:
        parts(Opened(name, mark_of(SiteFolder(name), sites.load(name))))
    except FlfedError as error:
        st.error(escape(str(error)))


KINDS = {kind.rpartition(".")[2]: (name, KIND_COLOURS.get(kind, OTHER_COLOUR)) for kind, name in NAMES.items()}
"""Name and colour of a kind of line that is a message, as on the coordinator's page Privacy."""
OTHERS = sentences("names", "lines")
MOST_DAYS = 60
HEIGHT = 320


def kind_of_line(kind: str) -> str:
    """Return the name of a kind of line.

    Examples
    --------
    >>> kind_of_line("compare"), kind_of_line("spent"), kind_of_line("new")
    ('comparison on test rows', 'privacy spent', 'new')
    """
    return KINDS[kind][0] if kind in KINDS else OTHERS.get(kind, kind)


def added_up(entries: Iterable[tuple[tuple[str, str], Total]]) -> list[tuple[tuple[str, str], Total]]:
    """Return the sums of lines and bytes by their keys, sorted."""
    totals: dict[tuple[str, str], Total] = {}
    for key, total in entries:
        into = totals.setdefault(key, Total())
        into.lines += total.lines
        into.bytes += total.bytes
    return sorted(totals.items())


def by_day(totals_by_key: Mapping[tuple[str, str, str], Total]) -> tuple[Chart | None, list[Line], str]:
    """Return bars of the kB sent by day and kind, their table, and their description.

    Parameters
    ----------
    totals_by_key : mapping of (day, study, kind) to Total
    """
    names = {kind: name for kind, (name, _) in KINDS.items()}
    totals = added_up(((day, names.get(kind, "other")), total) for (day, _, kind), total in totals_by_key.items())
    lines: list[Line] = []
    bytes_of_days: dict[str, int] = {}
    for (day, kind), total in totals:
        lines.append({"Day (UTC)": day, "What": kind, "Lines": total.lines, "Bytes": total.bytes})
        bytes_of_days[day] = bytes_of_days.get(day, 0) + total.bytes
    # More days would make the bars too thin to read; the table has them all.
    shown = dict(list(bytes_of_days.items())[-MOST_DAYS:])
    bars = [
        {"day": day, "kind": kind, "kB": total.bytes / 1e3, "size": size_in_words(total.bytes)}
        for (day, kind), total in totals
        if day in shown and total.bytes
    ]
    if not bars:
        return None, lines, ""
    says = "; ".join(f"{day}: {size_in_words(count)}" for day, count in shown.items())
    return Chart(pd.DataFrame(bars), _bars_by_day({bar["kind"] for bar in bars}, len(shown))), lines, says


def _bars_by_day(kinds: Collection[object], days: int) -> Spec:
    """Return bars of these kinds, in the order of `KINDS`; the legend omits kinds without bytes."""
    colours = dict(KINDS.values()) | {"other": OTHER_COLOUR}
    names = [name for name in colours if name in kinds]
    width: object = {"band": 0.7} if days > 6 else 48
    axis = {"title": "day (UTC)", "labelAngle": 0, "labelOverlap": True}
    scale = {"domain": names, "range": [colours[name] for name in names]}
    encoding = {
        "x": {"field": "day", "type": "ordinal", "axis": axis},
        "y": quantitative("kB", axis={"title": "kB", "tickCount": 5}),
        "color": nominal("kind", legend=legend_of(names), scale=scale),
        "tooltip": [nominal(name) for name in ("day", "kind", "size")],
    }
    return plot(HEIGHT) | layer("bar", encoding, width=width)
