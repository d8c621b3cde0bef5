"""Reader of the run store, which cannot write, and opens the store again for each read.

Reader of many runs at once: a query for each table in place of several for each run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Self

from sqlalchemy import Integer, Row, RowMapping, Select, func, literal, or_, select
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData

from flfed.errors import UsageError, nearest
from flfed.records.section import group
from flfed.records.store.database import OpenStore, check_readable, engine_to_read, in_words, store_url
from flfed.records.store.entries import (
    DIFFERENCES,
    FIGURES,
    AuditEntry,
    ComparisonRow,
    CrossedEntry,
    CurvePoint,
    DifferenceRow,
    EventEntry,
    MetricRow,
    RunEntry,
    SeriesEntry,
    SiteEntry,
)
from flfed.records.store.tables import Audit, Comparison, Event, Metric, Run, RunSite, Sent, Series, Summary
from flfed.records.store.takeover import Writer, is_gone

Fetched = Sequence[Row[*tuple[Any, ...]]]
Query = Select[*tuple[Any, ...]]
RUNS: Query = select(Run.__table__, Series.study, Series.repeats).join(Series, Run.series_id == Series.id)
ANONYMOUS = "FLFED_ANONYMOUS"
"""Environment variable of a process that shows no name of a site."""
CURVE_ARMS = ("validation", "training")
"""Arms of the curves by round, the more informative first."""


class RunReader(OpenStore):
    """A run store open for reading."""

    names: Mapping[str, str] = MappingProxyType({})
    """What is read in place of sites' names and titles; nothing is by default."""

    @classmethod
    def open(cls, url: str | None = None, *, anonymous: str = "") -> Self:
        """Open the store at `url`, else `FLFED_STORE`, else `runs.db` under `home()`, for reading.

        An absent SQLite file reads as a store without runs. Of an `anonymous` run or series, "site 1", "site 2" and so
        on stand in place of the sites' names, and of all runs where the environment has `FLFED_ANONYMOUS`.

        Raises
        ------
        FlfedError
            If it cannot be read, or another version of flfed wrote it, with advice.
        """
        where = store_url(url)
        with in_words(where, "opened"):
            engine = engine_to_read(where)
            check_readable(engine)
        reader = cls(engine, where)
        if anonymous or os.environ.get(ANONYMOUS):
            query = select(RunSite.site, RunSite.title).join(Run, Run.id == RunSite.run_id).distinct()
            if anonymous:
                query = query.where(or_(Run.id == anonymous, Run.series_id == anonymous))
            rows = reader.fetch(query)
            number = {site: f"site {place}" for place, site in enumerate(sorted({row.site for row in rows}), 1)}
            reader.names = number | {row.title: number[row.site] for row in rows}
        return reader

    def runs(self, *, search: str = "", limit: int | None = None) -> list[RunEntry]:
        """Return the runs, newest first, whose id, study or status has `search`."""
        query = RUNS.order_by(Run.started.desc(), Run.repeat.desc(), Run.id.desc())
        if not search:
            return self._entries(query.limit(limit))
        word = search.lower()
        conditions = [func.lower(column).like(f"%{word}%") for column in (Run.id, Series.study, Run.status)]
        # The status "interrupted" is not stored: it follows from the process of a running run.
        entries = self._entries(query.where(or_(*conditions, Run.status == "running")))
        return [run for run in entries if word in f"{run.run}\n{run.study}\n{run.status}".lower()][:limit]

    def runs_of(self, name: str) -> list[RunEntry]:
        """Return the runs of `name`, a run, a series or "latest", by repeat.

        Raises
        ------
        UsageError
            If there is no such run, with the nearest name.
        """
        if name == "latest":
            name = next((run.series for run in self.runs(limit=1)), name)
        entries = self._entries(RUNS.where(or_(Run.id == name, Run.series_id == name)).order_by(Run.repeat))
        if not entries:
            raise _unknown_run(name, [run.run for run in self.runs(limit=500)])
        return entries

    def series(self, name: str) -> SeriesEntry:
        """Return the series of a run, or the one called `name`."""
        wanted = self.runs_of(name)[0].series
        row = self.rows(select(Series.__table__).where(Series.id == wanted))[0]
        return SeriesEntry(series=wanted, **_without(row, "id"))

    def sites(self, run: str) -> list[SiteEntry]:
        """Return the sites of a run by name, refused ones too."""
        query = select(RunSite.__table__).where(RunSite.run_id == run)
        # Databases differ in the order of names, above all of hyphens and capitals.
        sites = [SiteEntry(**_without(row, "run_id")) for row in self.rows(query)]
        return sorted(sites, key=attrgetter("site"))

    def looked_at(self, runs: Sequence[str]) -> int:
        """Return the number of sites that took part, which verdicts depend on."""
        taking_part = RunSite.status != "refused"
        return len(self.fetch(select(RunSite.site).where(RunSite.run_id.in_(runs), taking_part).distinct()))

    def figures(self, run: str) -> list[ComparisonRow]:
        """Return each arm's figures on the holdouts."""
        query = _comparison(run, FIGURES).where(Comparison.against.is_(None))
        return [ComparisonRow(*row.values()) for row in self.rows(query)]

    def differences(self, run: str) -> list[DifferenceRow]:
        """Return the paired differences between arms."""
        query = _comparison(run, DIFFERENCES).where(Comparison.against.is_not(None))
        return [DifferenceRow(*row.values()) for row in self.rows(query)]

    def metrics(self, run: str, number: int) -> list[MetricRow]:
        """Return the figures of one round."""
        columns = [column for column in Metric.__table__.c if column.name not in ("id", "run_id", "round")]
        query = select(*columns).where(Metric.run_id == run, Metric.round == number).order_by(Metric.id)
        return [MetricRow(**row) for row in self.rows(query)]

    def curve_names(self, runs: Sequence[str]) -> dict[str, list[str]]:
        """Return the metrics with a curve by arm, the more informative arm first.

        They are searched by name in some rounds only, as a long run with many sites has very many figures.
        """
        # A metric with a curve has figures near the start, the middle or the end.
        newest = self.fetch(select(func.max(Run.rounds).label("rounds")).where(Run.id.in_(runs)))[0].rounds or 0
        rounds = sorted({0, 1, 2, newest // 2, *range(max(newest - 3, 0), newest + 2)})
        pairs = set()
        for metric in _metric_names(self, runs):
            here = (Metric.run_id.in_(runs), Metric.metric == metric, Metric.round.in_(rounds))
            query = select(Metric.arm).where(*here, Metric.arm.in_(CURVE_ARMS)).distinct()
            pairs |= {(row.arm, metric) for row in self.fetch(query)}
        metrics_by_arm = {arm: sorted(metric for of, metric in pairs if of == arm) for arm in CURVE_ARMS}
        return {arm: metrics for arm, metrics in metrics_by_arm.items() if metrics}

    def headlines(self, runs: Sequence[str]) -> dict[str, float | None]:
        """Return the shared model's primary metric on the holdouts by run."""
        return {run: row.value for run, row in self.headline_rows(runs).items()}

    def headline_rows(self, runs: Sequence[str]) -> dict[str, ComparisonRow]:
        """Return the same with its interval."""
        query = (
            select(Run.id, *(Comparison.__table__.c[name] for name in FIGURES))
            .join(Comparison, (Comparison.run_id == Run.id) & (Comparison.metric == Run.primary_metric))
            .where(Run.id.in_(runs), Comparison.against.is_(None), Comparison.arm == "global")
            .where(Comparison.site.is_(None))
        )
        return {run: ComparisonRow(*figures) for run, *figures in self.fetch(query)}

    def curves(
        self,
        runs: Sequence[str],
        *,
        arm: str,
        metric: str,
        sites: Sequence[str] | None = None,
        width: int = 1,
        between: tuple[int, int] | None = None,
    ) -> list[CurvePoint]:
        """Return one figure by round and site, averaged over `runs`.

        Parameters
        ----------
        runs : sequence of str
            The repeats to average over.
        sites : sequence of str
            Sites, all by default; the figure of all sites together is always included.
        width : int, >= 1
            Number of rounds that one point stands for: 1 to `width`, the next `width`, and so on; round 0 by itself.
        between : two ints, optional
            The first and the last round to read, all by default.
        """
        if self.names and sites is not None:
            sites = [name for name, shown in self.names.items() if shown in sites]
        query = _curve(runs, arm, metric, sites, between)
        if width > 1:
            query = _by_block(query.subquery().c, width)
        points = (CurvePoint(**row) for row in self.rows(query))
        return sorted(points, key=lambda point: (point.round, point.site or "", point.arm))

    def events(self, runs: Sequence[str]) -> list[EventEntry]:
        """Return the events of some runs in order of writing."""
        columns = (Event.run_id.label("run"), Event.at, Event.round, Event.site, Event.kind, Event.reason, Event.code)
        query = select(*columns).where(Event.run_id.in_(runs)).order_by(Event.run_id, Event.id)
        return [EventEntry(**row) for row in self.rows(query)]

    def summary(self, run: str, name: str) -> dict[str, Any] | None:
        """Return a named object of a run, or None."""
        query = select(Summary.payload).where(Summary.run_id == run, Summary.name == name)
        return next((dict(row.payload) for row in self.fetch(query)), None)

    def audits(self, run: str) -> list[AuditEntry]:
        """Return a run's last figure of each attack, site and metric."""
        query = select(*(Audit.__table__.c[field.name] for field in fields(AuditEntry))).where(Audit.run_id == run)
        # Rows come in the order of writing, so that a later figure replaces an earlier one.
        entries = [AuditEntry(**row) for row in self.rows(query.order_by(Audit.id))]
        entry_by_key = {(entry.attack, entry.site or "", entry.metric): entry for entry in entries}
        return [entry_by_key[key] for key in sorted(entry_by_key)]

    def bytes_sent(self, runs: Sequence[str]) -> dict[str, int]:
        """Return all bytes sent, by direction."""
        query = select(Sent.direction, func.sum(Sent.bytes)).where(Sent.run_id.in_(runs)).group_by(Sent.direction)
        return {direction: int(size) for direction, size in self.fetch(query)}

    def crossed(self, runs: Sequence[str]) -> list[CrossedEntry]:
        """Return the sent bytes and messages by site, direction and kind."""
        place = (Sent.site, Sent.direction, Sent.kind)
        totals = (func.sum(Sent.bytes).label("bytes"), func.count().label("messages"))
        query = select(*place, *totals).where(Sent.run_id.in_(runs)).group_by(*place)
        # Some databases return a sum as a decimal.
        entries = [CrossedEntry(**{**row, "bytes": int(row["bytes"])}) for row in self.rows(query)]
        return sorted(entries, key=attrgetter("site", "direction", "kind"))

    def rows(self, query: Query) -> Sequence[RowMapping]:
        """Return a query's rows as mappings."""
        return [row._mapping for row in self.fetch(query)]

    def fetch(self, query: Query) -> Fetched:
        """Return a query's rows, whose columns are attributes."""
        return [*self.each(query)]

    def each(self, query: Query) -> Iterator[Row[*tuple[Any, ...]]]:
        """Yield a query's rows one by one."""
        with in_words(self._url, "read"), self._engine.connect() as connection:
            result = connection.execute(query)
            if not self.names:
                yield from result
                return
            every = "|".join(map(re.escape, sorted(self.names, key=len, reverse=True)))
            named = re.compile(rf"(?<![\w-])(?:{every})(?![\w-])")
            renamed = (tuple(_renamed(cell, named, self.names) for cell in row) for row in result)
            yield from IteratorResult(SimpleResultMetaData([*result.keys()]), renamed)

    def _entries(self, query: Query) -> list[RunEntry]:
        return [_run_entry(row) for row in self.fetch(query)]


def _renamed(value: Any, named: re.Pattern[str], names: Mapping[str, str]) -> Any:
    """Return a cell, or what stands in it, with other names of sites, also within texts."""
    if isinstance(value, str):
        return named.sub(lambda found: names[found[0]], value)
    if isinstance(value, dict):
        return {_renamed(key, named, names): _renamed(one, named, names) for key, one in value.items()}
    return [_renamed(one, named, names) for one in value] if isinstance(value, list) else value


def _unknown_run(name: str, runs: list[str]) -> UsageError:
    hint = nearest(name, runs)
    if not runs:
        hint = ": there are no runs yet; start one with: flfed demo"
    elif hint == ".":  # nothing is close
        hint = "; `flfed run list` shows what there is."
    return UsageError(f"run {name!r} is not in the store{hint}")


def _metric_names(reader: RunReader, runs: Sequence[str]) -> list[str]:
    """Return the names of all figures by round."""
    names = set()
    for run in runs:
        last: str | None = ""
        # Each query jumps to the next name in the index, instead of reading every figure.
        while last is not None:
            query = select(func.min(Metric.metric).label("name"))
            last = reader.fetch(query.where(Metric.run_id == run, Metric.metric > last))[0].name
            if last:
                names.add(last)
    return sorted(names)


def _curve(
    runs: Sequence[str], arm: str, metric: str, sites: Sequence[str] | None, between: tuple[int, int] | None
) -> Query:
    """Return the query for the means over runs, by round and site."""
    averaged = (Metric.value, Metric.low, Metric.high, Metric.variance)
    means = [func.avg(column).label(column.key) for column in averaged]
    query = (
        select(Metric.round, Metric.site, Metric.arm, *means)
        .where(Metric.run_id.in_(runs), Metric.arm == arm, Metric.metric == metric)
        .group_by(Metric.round, Metric.site, Metric.arm)
    )
    # The figure of all sites together has no site, and is always included.
    if sites is not None:
        query = query.where(or_(Metric.site.is_(None), Metric.site.in_(sites)))
    if between is not None:
        query = query.where(Metric.round.between(*between))
    return query


def _by_block(of: Any, width: int) -> Query:
    """Return the query for the means of each `width` rounds."""
    means = [func.avg(of[key]).label(key) for key in ("value", "low", "high", "variance")]
    # The ends of a block show the spread of its rounds.
    ends = [func.min(of.value).label("least"), func.max(of.value).label("most")]
    rounds = [func.min(of.round).label("first"), func.max(of.round).label("round")]
    # Round 0 falls into a block of its own.
    block = (of.round + literal(width - 1, Integer)) // literal(width, Integer)
    return select(*rounds, of.site, of.arm, *means, *ends).group_by(block, of.site, of.arm)


def _comparison(run: str, names: Sequence[str]) -> Query:
    columns = [Comparison.__table__.c[name] for name in names]
    return select(*columns).where(Comparison.run_id == run).order_by(Comparison.id)


def _without(row: RowMapping, *names: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names}


def _run_entry(row: Row[*tuple[Any, ...]]) -> RunEntry:
    """Return a run, "interrupted" where its process is gone."""
    fields = _without(row._mapping, "id", "series_id", "primary_metric", *Writer.__match_args__)
    entry = RunEntry(run=row.id, series=row.series_id, primary=row.primary_metric, **fields)
    if entry.status != "running" or not is_gone(Writer.of(row._mapping)):
        return entry
    return replace(entry, status="interrupted", reason=entry.reason or "its program ended without a message")


def _in_one_bin(payload: dict[str, Any]) -> dict[str, Any]:
    """Return counts of scores by site and class alone."""
    sites = {}
    for site, classes in (payload.get("sites") or {}).items():
        sites[site] = {label: [[0, sum(count for _, count in bins)]] for label, bins in classes.items()}
    return {"sites": sites}


class ManyRuns:
    """The part of many runs that a list shows: named objects of `objects`, and figures of the primary metric.

    Counts of scores are in one bin. Figures are those over all sites; differences are those of the shared model against
    the sites' own models.
    """

    def __init__(self, reader: RunReader, runs: Sequence[RunEntry], objects: Collection[str]) -> None:
        self._reader = reader
        self._of_series = group((run.series, run) for run in runs)
        here = [run.run for run in runs]
        self._sites = self._read_sites(here)
        self._figures: dict[str, list[ComparisonRow]] = {}
        self._differences: dict[str, list[DifferenceRow]] = {}
        self._read_comparisons(here)
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._read_objects(here, objects)
        texts = select(Series.id, Series.study_text).where(Series.id.in_(list(self._of_series)))
        self._texts: dict[str, str] = {row.id: row.study_text for row in reader.fetch(texts)}

    def study_text(self, series: str) -> str:
        """Return a study's text."""
        return self._texts[series]

    def series(self, name: str) -> SeriesEntry:
        """Return the series of that name, without its hash."""
        first = self._of_series[name][0]
        return SeriesEntry(name, first.study, "", self._texts[name], first.repeats, first.started)

    def looked_at(self, runs: Sequence[str]) -> int:
        """Return the number of sites that took part, which verdicts depend on."""
        return self._reader.looked_at(runs)

    def sites(self, run: str) -> list[SiteEntry]:
        """Return the sites of a run by name, without the reasons of refusals."""
        return self._sites.get(run, [])

    def figures(self, run: str) -> list[ComparisonRow]:
        """Return each arm's figures of the primary metric."""
        return self._figures.get(run, [])

    def differences(self, run: str) -> list[DifferenceRow]:
        """Return the differences of the primary metric against the sites' own models."""
        return self._differences.get(run, [])

    def summary(self, run: str, name: str) -> dict[str, Any] | None:
        """Return one of the named objects of a run, or None."""
        return self._objects.get((run, name))

    def _read_sites(self, runs: Sequence[str]) -> dict[str, list[SiteEntry]]:
        rows = self._reader.fetch(select(RunSite.__table__).where(RunSite.run_id.in_(runs)))
        entries = group((run, SiteEntry(site, title, status, "", *rest)) for run, site, title, status, _, *rest in rows)
        return {run: sorted(sites, key=attrgetter("site")) for run, sites in entries.items()}

    def _read_objects(self, runs: Sequence[str], objects: Collection[str]) -> None:
        query = select(Summary.run_id, Summary.name, Summary.payload)
        query = query.where(Summary.run_id.in_(runs), Summary.name.in_(objects))
        # One by one: all bins of 500 runs at once would take seconds of Python's garbage collection.
        for run, name, payload in self._reader.each(query):
            self._objects[run, name] = _in_one_bin(payload) if name == "score-histograms" else payload

    def _read_comparisons(self, runs: Sequence[str]) -> None:
        columns = [Comparison.__table__.c[name] for name in dict.fromkeys((*FIGURES, *DIFFERENCES))]
        query = (
            select(Comparison.run_id, *columns)
            .join(Run, (Run.id == Comparison.run_id) & (Run.primary_metric == Comparison.metric))
            .where(Run.id.in_(runs))
            .order_by(Comparison.id)
        )
        is_figure = Comparison.against.is_(None) & Comparison.site.is_(None)
        is_difference = (Comparison.against == "local-only") & (Comparison.arm == "global")
        for row in self._reader.fetch(query.where(is_figure | is_difference)):
            cells = row._mapping
            if row.against is None:
                figure = ComparisonRow(*(cells[name] for name in FIGURES))
                self._figures.setdefault(row.run_id, []).append(figure)
            else:
                difference = DifferenceRow(*(cells[name] for name in DIFFERENCES))
                self._differences.setdefault(row.run_id, []).append(difference)


RunsReader = RunReader | ManyRuns
"""Reader of single runs, or of many at once."""
