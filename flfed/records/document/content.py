"""Content of a document, read from the store, and its sections on scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from flfed.records.charts.colours import Looks, site_looks
from flfed.records.objects import read_all
from flfed.records.reports.audit_headlines import Audit, AuditFigure
from flfed.records.reports.report import report
from flfed.records.reports.round_totals import nested_width
from flfed.records.reports.shown_run import ShownRun
from flfed.records.section import Section
from flfed.records.sections import scores
from flfed.records.statistics import Report, noised_scores, score_curves
from flfed.records.statistics.score_curves import CountsByName, drawn_first, is_together, read_score_counts
from flfed.records.store.entries import CrossedEntry, CurvePoint, RunEntry
from flfed.records.store.reader import CURVE_ARMS, RunReader
from flfed.words import render

POINTS = 200
"""Most points of a curve by round; paper cannot resolve more."""
SITES_DRAWN = 8
"""Most sites with a line of their own in a chart."""


@dataclass(frozen=True)
class Counted:
    """Score counts of one repeat, with the report of this repeat.

    Attributes
    ----------
    run : RunEntry
    report : dict
    payload : dict
        The object "score-histograms".
    """

    run: RunEntry
    report: Report
    payload: dict[str, Any]

    @cached_property
    def drawn(self) -> CountsByName:
        """The score counts of all sites together, and of those with most rows."""
        counts_by_name = read_score_counts(self.payload)
        first = set(drawn_first(counts_by_name))
        return {name: counts for name, counts in counts_by_name.items() if name in first or is_together(name)}


@dataclass(frozen=True)
class Rounds:
    """A figure by round.

    Attributes
    ----------
    arm, metric : str
    points : list of CurvePoint
    """

    arm: str
    metric: str
    points: list[CurvePoint]


@dataclass(frozen=True)
class Content:
    """Content of a document, from one look at the store.

    Attributes
    ----------
    shown : ShownRun
        What the app's pages show, too.
    study_sha256 : str
    table_1 : dict or None
        This object of the first repeat.
    counted : Counted or None
        Of the first repeat that has score counts.
    rounds : Rounds or None
    crossed : list of CrossedEntry
    """

    shown: ShownRun
    study_sha256: str
    table_1: dict[str, Any] | None
    counted: Counted | None
    rounds: Rounds | None
    crossed: list[CrossedEntry]

    @classmethod
    def read(cls, reader: RunReader, name: str) -> Self:
        """Return the content of a run or series.

        Raises
        ------
        UsageError
            If there is no such run.
        """
        shown = ShownRun.read(reader, name)
        first = shown.names[0]
        return cls(
            shown=shown,
            study_sha256=reader.series(first).study_sha256,
            table_1=reader.summary(first, "table-1"),
            counted=_counted(reader, shown.runs),
            rounds=_rounds(reader, shown),
            crossed=reader.crossed(shown.names),
        )

    @property
    def looks(self) -> Looks:
        """Colour and dash of each site."""
        return site_looks(site.site for site in self.shown.sites)

    @property
    def audit(self) -> Audit:
        """Figures of attacks."""
        return read_all(AuditFigure, self.shown.report["audit"])


def _counted(reader: RunReader, runs: list[RunEntry]) -> Counted | None:
    for run in runs:
        payload = reader.summary(run.run, "score-histograms")
        if payload is not None:
            return Counted(run, report(reader, run.run), payload)
    return None


def _rounds(reader: RunReader, shown: ShownRun) -> Rounds | None:
    """Return the primary metric by round, else another one's."""
    runs = shown.runs
    metrics_by_arm = shown.curve_names
    arm = next((arm for arm in CURVE_ARMS if metrics_by_arm.get(arm)), None)
    if arm is None:
        return None
    metric = runs[0].primary
    if metric not in metrics_by_arm[arm]:
        metric = metrics_by_arm[arm][0]
    width = nested_width(max(run.rounds for run in runs), POINTS)
    # With more sites than a reader can distinguish, only the figure of all together is drawn.
    drawn = [site.site for site in shown.sites if site.status != "refused"]
    if len(drawn) > SITES_DRAWN:
        drawn = []
    return Rounds(arm, metric, reader.curves(shown.names, arm=arm, metric=metric, sites=drawn, width=width))


def by_round(content: Content) -> Section | None:
    """Return the figure by round, of all sites together and of each."""
    rounds = content.rounds
    if rounds is not None:
        drawn = scores.course(
            rounds.points, rounds.metric, rounds.arm, content.looks, repeated=content.shown.is_repeated
        )
        if drawn is not None:
            return drawn
    why = noised_scores.wording(content.shown.report).no_rounds
    if why and content.shown.run.status == "completed":
        return Section(title=scores.COURSE, lead=(why,))
    return None


def curves(content: Content) -> Section:
    """Return ROC, precision and recall, with the areas below them."""
    counted = content.counted
    if content.shown.run.noised_scores is not None:
        return scores.noised(content.shown.report, lead=_alone(content))
    if counted is None:
        why = score_curves.no_curves_in_words(content.shown.runs[0], content.shown.report)
        return Section(title=scores.RANKS, lead=(why,))
    lead = [" ".join(score_curves.says_whose(counted.payload, content.shown.compared_sites))]
    if content.shown.is_repeated:
        facts = {"repeat": counted.run.repeat + 1, "repeats": len(content.shown.runs)}
        lead.insert(0, render("report.curves.repeat", **facts))
    there = {name: counts for name, counts in counted.drawn.items() if counts.has_both}
    return scores.ranking(counted.drawn, there, content.looks, counted.report, lead=lead)


def _alone(content: Content) -> list[str]:
    """Return a sentence on figures of one repeat, where there are several."""
    return ["These figures are of one repeat, the first that has them."] if content.shown.is_repeated else []


def calibrated(content: Content) -> Section | None:
    """Return observed against predicted probabilities, a chart for each of some sites."""
    if content.counted is None:
        return None
    counts_by_name = content.counted.drawn
    names = [name for name, counts in counts_by_name.items() if counts.rows >= score_curves.LEAST_ROWS]
    drawn = [[name] for name in names[: scores.DRAWN_BESIDE]]
    return scores.calibrated(counts_by_name, content.counted.report, content.looks, drawn, named=True)


def flagged(content: Content) -> Section | None:
    """Return the rows flagged at a threshold and at an alert budget, by the stored score counts."""
    if content.counted is None or not content.counted.drawn:
        return None
    return scores.flagged(content.counted.drawn)


def flagged_at_rates(content: Content) -> Section | None:
    """Return the counts at the false positive rates that the study names."""
    return scores.flagged_at_rates(content.shown.report.get("operating-points"), note=_alone(content))


def decision_curves(content: Content) -> Section | None:
    """Return net benefit by threshold: of the model, of flagging everybody, and of flagging nobody."""
    return None if content.counted is None else scores.decision_curves(content.counted.drawn, content.looks)


def by_group(content: Content) -> Section | None:
    """Return the model's discrimination within the groups that the study names, a few groups a table."""
    return scores.within_groups(content.shown.report.get("subgroups"), note=_alone(content))
