"""Reader of many runs at once: a query for each table in place of several for each run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, select

from flfed.records.section import group
from flfed.records.store.database import in_words
from flfed.records.store.entries import (
    DIFFERENCES,
    FIGURES,
    ComparisonRow,
    DifferenceRow,
    RunEntry,
    SeriesEntry,
    SiteEntry,
)
from flfed.records.store.reader import RunReader
from flfed.records.store.tables import Comparison, Run, RunSite, Series, Summary
from flfed.records.store.visibility import of_study, of_summary


def _in_one_bin(payload: dict[str, Any]) -> dict[str, Any]:
    """Return counts of scores by site and class alone."""
    sites: dict[str, dict[str, Any]] = {}
    for site, classes in (payload.get("sites") or {}).items():
        sites[site] = {label: [[0, sum(count for _, count in bins)]] for label, bins in classes.items()}
    return {"sites": sites}


class ManyRuns:
    """The part of many runs that a list shows, as `reader` may see it.

    Parameters
    ----------
    reader : RunReader
        Open; it stays so.
    runs : sequence of RunEntry
        From it.
    objects : collection of str
        Named objects that are read; any other is None.

    Notes
    -----
    Counts of scores are in one bin. Figures are those of each run's primary metric: over all sites, or of the one site
    of the reader. Differences are those against the sites' own models: of the shared model, for the one site also of
    the adjusted one.
    """

    def __init__(self, reader: RunReader, runs: Sequence[RunEntry], objects: Collection[str]) -> None:
        self._reader = reader
        self._of_series = group((run.series, run) for run in runs)
        here = [run.run for run in runs]
        self._reader._names.read(select(Run.id, Run.series_id).where(Run.id.in_(here)))
        self._sites = self._read_sites(here)
        self._figures: dict[str, list[ComparisonRow]] = {}
        self._differences: dict[str, list[DifferenceRow]] = {}
        self._read_comparisons(here)
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._read_objects(here, objects)
        texts = select(Series.id, Series.study_text).where(Series.id.in_(list(self._of_series)))
        self._texts = {name: self._seen(name, text) for name, text in self._reader._fetch(texts)}

    def study_text(self, series: str) -> str:
        """Return a study's text as this reader may see it."""
        return self._texts[series]

    def series(self, name: str) -> SeriesEntry:
        """Return the series of that name, without its hash."""
        first = self._of_series[name][0]
        return SeriesEntry(name, first.study, "", self._texts[name], first.repeats, first.started)

    def looked_at(self, runs: Sequence[str]) -> int:
        """Return the number of sites that share their own figures, which verdicts depend on."""
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
        payload = self._objects.get((run, name))
        if payload is None or self._reader.only is None:
            return payload
        return of_summary(name, payload, self._reader.only or "", plain=self._reader._names.redactor(run))

    def _seen(self, series: str, text: str) -> str:
        if self._reader.only is None:
            return text
        return of_study(text, plain=self._reader._names.redactor(series))

    def _read_sites(self, runs: Sequence[str]) -> dict[str, list[SiteEntry]]:
        rows = self._reader.fetch(select(RunSite.__table__).where(RunSite.run_id.in_(runs)), site=RunSite.site)
        entries = group((run, SiteEntry(site, title, status, "", *rest)) for run, site, title, status, _, *rest in rows)
        return {run: sorted(sites, key=attrgetter("site")) for run, sites in entries.items()}

    def _read_objects(self, runs: Sequence[str], objects: Collection[str]) -> None:
        query = select(Summary.run_id, Summary.name, Summary.payload)
        query = query.where(Summary.run_id.in_(runs), Summary.name.in_(objects))
        with in_words(self._reader._url, "read"), self._reader._engine.connect() as connection:
            # One by one: all bins of 500 runs at once would take seconds of Python's garbage collection.
            for run, name, payload in connection.execute(query):
                self._objects[run, name] = _in_one_bin(payload) if name == "score-histograms" else payload

    def _read_comparisons(self, runs: Sequence[str]) -> None:
        columns = [Comparison.__table__.c[name] for name in dict.fromkeys((*FIGURES, *DIFFERENCES))]
        query = (
            select(Comparison.run_id, *columns)
            .join(Run, (Run.id == Comparison.run_id) & (Run.primary_metric == Comparison.metric))
            .where(Run.id.in_(runs))
            .order_by(Comparison.id)
        )
        is_figure: ColumnElement[bool] = Comparison.against.is_(None)
        is_difference: ColumnElement[bool] = Comparison.against == "local-only"
        if self._reader.only is None:
            is_figure &= Comparison.site.is_(None)
            is_difference &= Comparison.arm == "global"
        for row in self._reader.fetch(query.where(is_figure | is_difference), site=Comparison.site):
            cells = row._mapping
            if row.against is None:
                figure = ComparisonRow(*(cells[name] for name in FIGURES))
                self._figures.setdefault(row.run_id, []).append(figure)
            else:
                difference = DifferenceRow(*(cells[name] for name in DIFFERENCES))
                self._differences.setdefault(row.run_id, []).append(difference)


RunsReader = RunReader | ManyRuns
"""Reader of single runs, or of many at once."""
