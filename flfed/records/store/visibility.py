"""Visibility of the run store: a viewer, and the part of the store that they may see."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tomli_w
from sqlalchemy import Row, Select, or_, select

from flfed.records import objects
from flfed.records.store.entries import EventEntry, RunEntry, Status
from flfed.records.store.tables import Event, Run, RunSite, Sent, Series, Summary
from flfed.refusals import Refusal, read
from flfed.study.kinds import ANALYSIS
from flfed.study.study_text import parsed_study
from flfed.words import render

Fetched = Sequence[Row[*tuple[Any, ...]]]
Query = Select[*tuple[Any, ...]]
Fetch = Callable[[Query], Fetched]
"""Returns a query's rows."""
Redactor = Callable[[str], str]
"""Returns a text without other sites' names."""
Role = Literal["coordinator", "analyst", "site"]
"""`coordinator` sees the operation of the consortium, too; `analyst` all results; `site` one institution's own."""
ANOTHER = "another site"
VISIBLE_KEYS: dict[str, list[str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
"""Keys by named object that no row of a site affects: settings, and sentences that follow from the study."""
OF_SITES = (
    "score-histograms", "operating-points", "subgroups", "importances", "privacy", "own-models", "revealed-outcomes",
    "calibration", "validation",
)  # fmt: skip
"""Objects with a part for each site."""
NOT_OVER_ALL: Mapping[str, Mapping[str, Any]] = {
    # A histogram over all sites less the site's own is that of the others.
    "score-histograms": {"all": None},
    "operating-points": {"all": []},
    "importances": {"columns": []},
}
"""Values in place of figures over all sites."""
WITHOUT_NOTE = ("codec", "secure-sums", "own-parts", "training", "looked-at", "warm-start")
"""Objects with no part for each site and no note."""
LEAST_TOGETHER = 3
"""Least number of sites in a figure over all for people of one site: of two, the rest would be the other's."""
ANALYSED = ("counts-each", "deviation", "rows", "columns", "groups", "cross")
"""Figures of an analysis, over all sites or of one, each with noise that the privacy budget covers."""
COUNTED = ("counts", "edges", "deviation", "slope")
"""The same of counts of scores."""
TRAINING_ONLY = "Training rows only, for want of holdout rows that may be counted"
"""Beginning of the note on sums over rows, before the names of the sites that it applies to."""
NONE_MISSING = "0 (0 %)"
NOT_ENDED: tuple[Status, ...] = ("stopped", "failed", "interrupted")
"""States whose recorded reason may reveal facts on other sites, even on a single one where there are two."""
THAN_OTHERS = re.compile(r"norm of the update is \S+ times the cohort's median.*|update is not zero, most of the.*")
"""Reasons of the guard that compare an update with others of its round: a median of three is one site's norm."""
LARGER = "the update is much larger than most"


@dataclass(frozen=True)
class Viewer:
    """Person who reads the pages.

    Attributes
    ----------
    role : {"coordinator", "analyst", "site"}
    site : str or None
        The one site whose figures role "site" sees, and nothing else. From a figure over all sites, or from those of
        two runs, people of a site could subtract their own figure and get another's. Sums of replies with noise from
        three sites or more are shown: the remainder covers two others or more, with noise that the budget covers.
    name : str
        Name in the login; "" where nobody has to log in.
    """

    role: Role = "coordinator"
    site: str | None = None
    name: str = ""


def without_names(names: Iterable[str]) -> Redactor:
    """Return a function that replaces other sites' names in a sentence.

    Examples
    --------
    >>> without_names(["hungary", "hungary-2"])("hungary-2: no answer; vienna: none; hungary: none")
    'another site: no answer; vienna: none; another site: none'
    """
    # Longer names are replaced first, as one name may be part of another.
    words = sorted(filter(None, names), key=len, reverse=True)
    if not words:
        return str
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])", re.IGNORECASE)
    return lambda text: pattern.sub(ANOTHER, text)


@dataclass(frozen=True)
class _Summary:
    """Fields of a named object of a run, of any name."""

    rows: Any = ()
    columns: Any = ()
    warnings: Any = ()
    sites: Any = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class _Noised:
    """Object "statistics" of a run."""

    name: str = ""
    sites: int = 0
    by_site: Any = field(default_factory=dict)


@dataclass(frozen=True)
class _Scores:
    """Noised counts of scores that a run recorded."""

    requested_sites: int
    reason: str
    all: Any
    sites: Any


@dataclass(frozen=True)
class _RequestedSites:
    """Sites that the study requests."""

    names: Any = ()
    sites: Any = ()


@dataclass(frozen=True)
class _Column:
    """A column, its counts by site."""

    column: str = ""
    unit: str | None = None
    towards: str | None = None
    sites: Any = field(default_factory=dict)


@dataclass(frozen=True)
class _ColumnCounts:
    rows: Any = None
    missing: Any = None


def of_summary(name: str, payload: dict[str, Any], site: str, *, plain: Redactor) -> dict[str, Any] | None:
    """Return a summary, a named object of a run, as one site may see it; None of an unknown name.

    Parameters
    ----------
    name : str
    payload : dict
    site : str
    plain : callable
        Removes the names of other sites from a sentence.
    """
    if name == "statistics":
        return _of_analysis(payload, site, plain)
    if name == "noised-scores":
        return _of_scores(payload, site)
    if name not in VISIBLE_KEYS:
        return None
    of = objects.read(_Summary, payload)
    summary = {key: without_in(payload[key], plain) for key in VISIBLE_KEYS[name] if key in payload}
    if name == "table-1":
        # A line of missing values that only other sites have would reveal theirs.
        own = [row for row in of.rows if row.get(site, NONE_MISSING) != NONE_MISSING]
        summary["rows"] = [_only(row, ("Characteristic", site)) for row in own]
    if name == "columns":
        summary["columns"] = _own_columns(of.columns, site)
    if name == "privacy":
        summary["warnings"] = [warning for warning in of.warnings if _is_own(warning)]
    summary |= NOT_OVER_ALL.get(name, {})
    if name in OF_SITES:
        summary["sites"] = _only(of.sites, [site])
    elif name not in WITHOUT_NOTE:
        summary["note"] = _own_note(of.note, site)
    return summary


def _of_analysis(payload: dict[str, Any], site: str, plain: Redactor) -> dict[str, Any] | None:
    """Return an analysis as one site may see it: its own figures, and those over all of `LEAST_TOGETHER` sites or more.

    A statistic without noise is hidden: exact sums over all minus the site's own are those of the others, and figures
    of one site may follow from the sums of all. A figure over all that names another site, such as a group that is a
    place, is hidden, too. Without figures over all, the site's own replace them.
    """
    of = objects.read(_Noised, payload)
    if of.name != ANALYSIS:
        return None
    figures = {}
    if site in of.by_site:
        figures[site] = _only(of.by_site[site], ANALYSED)
    whole = _only(payload, ANALYSED)
    text = json.dumps(whole, ensure_ascii=False)
    if of.sites >= LEAST_TOGETHER and plain(text) == text:
        return {"name": "analysis", "sites": of.sites, **whole, "by-site": figures}
    if not figures:
        return None
    return {"name": "analysis", "sites": 1, **without_in(figures[site], plain), "by-site": {}}


def _of_scores(payload: dict[str, Any], site: str) -> dict[str, Any]:
    """Return noised counts of scores as one site may see them: its own, and those over enough sites."""
    of = objects.read(_Scores, payload)
    whole = None
    if of.all is not None and of.requested_sites >= LEAST_TOGETHER:
        whole = _only(of.all, COUNTED)
    own = {name: _only(counts, COUNTED) for name, counts in _only(of.sites, [site]).items()}
    return {"requested-sites": of.requested_sites, "reason": of.reason, "all": whole, "sites": own}


def _only(payload: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: payload[key] for key in keys if key in payload}


def _is_own(warning: str) -> bool:
    # These two count sites.
    parsed_warning = read(warning)
    return parsed_warning is None or parsed_warning.code not in ("more-spent", "close-delta")


def of_run(run: RunEntry) -> RunEntry:
    """Return a run as one site may see it, with a fixed sentence as the reason why it did not end well."""
    if run.status in NOT_ENDED:
        return replace(run, reason=render(f"store.ended.{run.status}"))
    return replace(run, reason="")


def of_event(event: EventEntry, *, plain: Redactor) -> EventEntry | None:
    """Return an event as one site's people may see it.

    Parameters
    ----------
    event : EventEntry
        Of the site itself, or of no site.
    plain : callable
        Removes the names of other sites from a sentence.

    Returns
    -------
    EventEntry or None
        Without comparisons of a site's own update with others'. None of an event on the whole run, which may have
        figures over all sites or another's fault, unless it reports something missing: only that is kept.

    Examples
    --------
    >>> event = EventEntry("r", "", None, None, "note", "no Table 1: its file is lost", "no-table-1")
    >>> str(of_event(event, plain=str).reason)
    'no Table 1: ask the coordinator why'
    """
    if event.site is not None:
        return replace(event, reason=THAN_OTHERS.sub(LARGER, plain(event.reason)))
    if event.kind != "note" or event.code != "no-table-1":
        return None
    return replace(event, reason=Refusal(event.code, why="ask the coordinator why"))


def _own_note(note: str, site: str) -> str:
    """Return the part of a note on sums over rows that applies to one site."""
    begin, _, names = note.partition(".")[0].partition(": ")
    if begin != TRAINING_ONLY or site not in names.split(", "):
        return ""
    return f"{TRAINING_ONLY}."


def _own_columns(columns: Sequence[Any], site: str) -> list[dict[str, Any]]:
    """Return a site's own counts of those columns that it has, without differences."""
    lines = []
    for column in objects.read_all(_Column, columns):
        if site in column.sites:
            of = objects.read(_ColumnCounts, column.sites[site])
            # A difference reveals the sums of the other sites, so none is kept.
            own = {"rows": of.rows, "missing": of.missing, "difference": None, "chance": None}
            own["reason"] = render("store.hidden.others")
            line = {"column": column.column, "unit": column.unit, "towards": column.towards, "sites": {site: own}}
            lines.append(line)
    return lines


def of_study(text: str, *, plain: Redactor) -> str:
    r"""Return a study without sites, expected figures and comments.

    Parameters
    ----------
    text : str
        TOML; nothing of any other text is shown.
    plain : callable
        Removes the names of other sites from a sentence.

    Examples
    --------
    >>> print(of_study('seed = 1 # as in Geneva\n[dataset]\nsites = ["a"]\n[expected]\nglobal = 0.9', plain=str))
    seed = 1
    <BLANKLINE>
    [dataset]
    <BLANKLINE>
    """
    # Expected figures may be those of other sites, and the list of sites names them.
    study = {key: without_in(table, plain) for key, table in parsed_study(text).items() if key != "expected"}
    study.get("dataset", {}).pop("sites", None)
    return tomli_w.dumps(study)


def without_in(payload: Any, plain: Redactor) -> Any:
    """Return JSON or TOML without other sites' names in its texts."""
    if isinstance(payload, dict):
        return {key: without_in(of, plain) for key, of in payload.items()}
    if isinstance(payload, list):
        return [without_in(of, plain) for of in payload]
    if isinstance(payload, str):
        return plain(payload)
    return payload


class OtherNames:
    """Names of the other sites of a run, which sentences must not contain.

    Parameters
    ----------
    fetch : callable
    only : str or None
        The one site whose people read; None for readers of everything.
    """

    def __init__(self, fetch: Fetch, only: str | None) -> None:
        self._fetch = fetch
        self._only = only
        self._redactors: dict[str, Redactor] = {}

    def redactor(self, name: str) -> Redactor:
        """Return a function that removes other sites' names and titles from a sentence, for people of one site.

        `name` is a run or a series.
        """
        if self._only is None:
            return str
        if name not in self._redactors:
            self.read(select(Run.id, Run.series_id).where(or_(Run.id == name, Run.series_id == name)))
        return self._redactors.get(name, str)

    def read(self, runs: Query) -> None:
        """Read the names of some runs, of which a query returns id and series; of a series all repeats count."""
        if self._only is None:
            return
        rows = self._fetch(runs)
        names = self._others({series for _, series in rows})
        for run, series in rows:
            self._redactors[run] = self._redactors[series] = without_names(names[series])

    def _others(self, series: set[str]) -> dict[str, set[str]]:
        """Return the other sites' names and titles in each series."""
        names: dict[str, set[str | None]] = {one: set() for one in series}
        here = Run.series_id.in_(series)
        own: dict[str, set[str]] = {one: set() for one in series}
        for row in self._fetch(self._of(here, RunSite, RunSite.site, RunSite.title)):
            names[row.series_id] |= {row.site, row.title}
            if row.site == self._only:
                own[row.series_id].add(row.title)
        asked = self._of(here, Sent, Sent.site).where(Sent.round == 0)  # to enrol
        for query in (self._of(here, Event, Event.site).distinct(), asked.distinct()):
            for row in self._fetch(query):
                names[row.series_id].add(row.site)
        # Sites that were requested and never replied may be only in this object.
        for row in self._fetch(self._of(here, Summary, Summary.payload).where(Summary.name == "asked")):
            payload = objects.read(_RequestedSites, row.payload)
            names[row.series_id].update(payload.names or (), payload.sites or ())
        # The study's text may name sites as well.
        for row in self._fetch(select(Series.id, Series.study_text).where(Series.id.in_(series))):
            names[row.id].update(parsed_study(row.study_text).get("dataset", {}).get("sites", ()))
        return {one: {name for name in names[one] if name} - {self._only} - own[one] for one in series}

    @staticmethod
    def _of(here: Any, table: Any, *columns: Any) -> Query:
        """Return the query for columns of the runs of some series, with the series."""
        return select(Run.series_id, *columns).join(table, table.run_id == Run.id).where(here)
