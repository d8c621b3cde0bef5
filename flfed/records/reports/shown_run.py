"""Content of a run, or of the repeats of a series: what page and document both show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from flfed.records.objects import RunReport, run_of
from flfed.records.reports.report import primary_of, purpose_in_words, report
from flfed.records.statistics import Report
from flfed.records.statistics.own_models import without_outcome
from flfed.records.store.entries import EventEntry, RunEntry, SiteEntry
from flfed.records.store.reader import RunReader
from flfed.words import render


@dataclass(frozen=True)
class Seen:
    """A run, or the repeats of a series, one or more."""

    runs: list[RunEntry]

    @property
    def names(self) -> list[str]:
        """Ids of the repeats."""
        return [run.run for run in self.runs]

    @property
    def planned(self) -> int:
        """Rounds that the study asks for."""
        return self.runs[0].rounds_planned

    @property
    def trains(self) -> bool:
        """Whether the study has a model; else it asks for a statistic or an analysis."""
        return self.planned > 0

    @property
    def is_repeated(self) -> bool:
        """Whether figures are of several repeats."""
        return len(self.runs) > 1

    @property
    def none_rejected(self) -> str:
        """Sentence for a run without a rejected update and a refusal."""
        return render("pages.rejected.none" if self.trains else "pages.rejected.sites")


@dataclass(frozen=True)
class ShownRun(Seen):
    """Content of a run from one look at the store.

    Attributes
    ----------
    report : dict
        From `reports.report`.
    events : list of EventEntry
    sites : list of SiteEntry
        Of the first repeat, refused ones too.
    curve_names : dict of arm to metrics
        Curves by round.
    leaks : dict or None
        The object "leaks" of the first repeat.
    study_text : str
    """

    report: Report
    events: list[EventEntry]
    sites: list[SiteEntry]
    curve_names: dict[str, list[str]]
    leaks: dict[str, Any] | None
    study_text: str

    @classmethod
    def read(cls, reader: RunReader, name: str) -> Self:
        """Return the content of a run or series.

        Raises
        ------
        UsageError
            If there is no such run.
        """
        runs = reader.runs_of(name)
        names = [run.run for run in runs]
        return cls(
            runs=runs,
            report=report(reader, name),
            events=reader.events(names),
            sites=reader.sites(names[0]),
            curve_names=reader.curve_names(names),
            leaks=reader.summary(names[0], "leaks"),
            study_text=reader.series(names[0]).study_text,
        )

    @property
    def purpose(self) -> str:
        """The study's purpose as a sentence, "" where it has none."""
        return purpose_in_words(self.study_text)

    @property
    def has_model(self) -> bool:
        """Whether it has a model, which was trained or validated."""
        return self.trains or self.run.is_validation

    @cached_property
    def run(self) -> RunReport:
        """The report as an object."""
        return run_of(self.report)

    @property
    def compared_sites(self) -> list[SiteEntry]:
        """The sites without those that have columns alone, and so nothing to compare."""
        absent = without_outcome(self.report)
        return [site for site in self.sites if site.site not in absent]

    @cached_property
    def metric(self) -> str | None:
        """The primary metric, None where nothing was compared."""
        return primary_of(self.report)
