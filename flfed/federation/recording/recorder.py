"""Recorder of rounds, comparison and Table 1."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import chain
from typing import Any

import numpy as np

from flfed.callbacks import Progress, no_progress
from flfed.federation.recording.pooled_figures import (
    MEANS,
    auc_interval,
    calibrations,
    flagged_at_rates,
    overall_figures,
    score_histograms,
    subgroups,
    tables_of,
    weighted_mean,
)
from flfed.records.store.entries import ComparisonRow, DifferenceRow, EventRow, MetricRow, SentRow, SiteRow
from flfed.records.store.tables import finite
from flfed.records.store.writer import RunWriter
from flfed.refusals import Refusal, path_of
from flfed.rows.comparison.pooled import Reference
from flfed.summaries.score_bins import EVEN_ODDS, ScoreBins, auc_of_histogram
from flfed.summaries.summary import Layout, LeakWarning, Summary
from flfed.updates.aggregation.rounds import RoundRecord
from flfed.updates.messages.compare import CompareReplies, Figure
from flfed.updates.messages.enrol import EnrolReply
from flfed.words import counted

OVER_PEOPLE = ("bootstrap over groups", "Hanley-McNeil over people")
"""Methods of figures over people, who may have several rows."""
NOT_ALL = "not every site's policy lets it be computed over all sites"
"""Reason for a missing figure over all rows, where no rule gives another."""
RANKINGS = ("roc_auc_score", "average_precision_score", "recall_at_alert_budget")
"""Metrics over all sites that do not follow from the sites' own: they compare rows across sites."""


@dataclass
class Recorder:
    """Recorder of one run.

    Attributes
    ----------
    writer : RunWriter
    primary : str
    rounds : int
        Planned, for the progress.
    progress : callable
    series : str
        The run's, whose repeats begin from one model.
    taking_part : set of str
        The sites that enrolled last.
    """

    writer: RunWriter
    primary: str
    rounds: int
    progress: Progress = no_progress
    series: str = ""
    taking_part: set[str] = field(default_factory=set, init=False)
    _latest: int = field(default=0, init=False)
    _resumed: bool = field(default=False, init=False)

    def resumed(self, round: int, reason: str) -> None:
        """Record that the run is resumed after `round`, and the reason for its earlier end."""
        self._latest = round
        self._resumed = True
        self.note(Refusal("resumed", round=round, why=reason))
        self.progress("rounds", round, self.rounds)

    def enrolled(self, replies: Mapping[str, EnrolReply], earlier: Collection[str] = ()) -> None:
        """Record the participants and the refusals.

        `earlier` are the sites of a resumed run: the record keeps that one which refuses now took part before.
        """
        self.taking_part = {site for site, reply in replies.items() if reply.accepted}
        recorded_replies = {site: reply for site, reply in replies.items() if reply.accepted or site not in earlier}
        self.writer.sites(self._site_row(reply) for reply in recorded_replies.values())
        # A resumed run has these entries from before.
        if not self._resumed:
            self.events("refused", {s: r.reason for s, r in replies.items() if not r.accepted})

    def _site_row(self, reply: EnrolReply) -> SiteRow:
        status = "accepted" if reply.accepted else "refused"
        disclosure = reply.disclosure if reply.accepted else ""
        return SiteRow(
            reply.site,
            title=reply.title,
            status=status,
            reason=reply.reason,
            disclosure=disclosure,
            resplit=reply.resplit,
        )

    def summary(self, name: str, payload: Mapping[str, Any]) -> None:
        """Write or replace a named object, which the next durable record brings to the disk."""
        self.writer.summary(name, payload, durable=False)

    def after(self, round: int) -> None:
        """Set the round of later entries; an audit comes after the last round."""
        self._latest = round

    def refused(self, reasons: Mapping[str, str]) -> None:
        """Record the sites whose gate refused; a gate reports nothing of its site but the reason."""
        self.writer.sites(SiteRow(site, status="refused", reason=why, disclosure="") for site, why in reasons.items())
        self.events("refused", reasons)

    def events(self, kind: Any, reasons: Mapping[str, str]) -> None:
        """Record one event a site at the latest round."""
        self.writer.events(self._events(self._latest or None, kind, reasons))

    def _events(self, round: int | None, kind: Any, reasons: Mapping[str, str]) -> list[EventRow]:
        return [EventRow(round, site, kind, reason, path_of(reason)) for site, reason in reasons.items()]

    def unnamed_faults(self, reasons: Sequence[str]) -> None:
        """Record the faults of nodes without a known site."""
        self.writer.events([EventRow(None, None, "fault", reason, path_of(reason)) for reason in reasons])

    def crossed(self, kind: str, to_site: Mapping[str, int], to_server: Mapping[str, int]) -> None:
        """Record the bytes of a request and its replies at the latest round, or at round 0 before the rounds."""
        self.writer.sent(self._latest, self._sent(kind, to_site, to_server))

    def note(self, reason: str) -> None:
        """Record a note on the whole run."""
        self.writer.events([EventRow(self._latest or None, None, "note", reason, path_of(reason))])

    def leaks(self, warnings: Sequence[LeakWarning], untested: Sequence[str] = ()) -> None:
        """Record the leak warnings, and the columns with too few gaps, or values, for the test."""
        columns = [{"column": w.column, "reason": w.reason, "value": w.value} for w in warnings]
        facts = {"warnings": [str(warning) for warning in warnings], "found": columns, "untested": [*untested]}
        self.summary("leaks", facts)
        self.writer.events([EventRow(None, None, "leak", str(warning)) for warning in warnings])

    def round(self, record: RoundRecord, *, trained: bool, durable: bool = True) -> None:
        """Record one round; the strategy calls it as its observer.

        Parameters
        ----------
        record : RoundRecord
        trained : bool
            Whether the round gave a new model, from a quorum of valid updates. The last evaluation, and a round at
            which the run stops, are recorded but not counted.
        durable : bool
            As for `RunWriter.round`.
        """
        self._latest = record.round
        scored = []
        for site, scores in record.scores.items():
            for name, value in scores.metrics.items():
                variance = scores.variances.get(name)
                scored.append(MetricRow(site, scores.rows, name, value, None, None, variance, scores.num_examples))
        overall = overall_figures(record)
        events = self._events(record.round, "fault", record.refused)
        events += self._events(record.round, "flag", record.flagged)
        kind = "train" if record.fit else "evaluate"
        sent = self._sent(kind, record.bytes_to_site, record.bytes_to_server)
        # An evaluation belongs to the model that it scored, from an earlier round.
        if not trained:
            self.writer.metrics(record.model_round, scored + overall)
            self.writer.events(events)
            self.writer.sent(record.round, sent)
            return
        losses_by_site = {site: loss for site, loss in record.losses.items() if loss is not None}
        losses = [MetricRow(site, "fit", "loss", loss) for site, loss in losses_by_site.items()]
        if "fit" in record.mean_losses:
            losses.append(MetricRow(None, "fit", "loss", record.mean_losses["fit"]))
        self.writer.round(
            record.round,
            metrics=losses,
            scores=scored + overall,
            seconds=record.seconds,
            sent=sent,
            events=events,
            durable=durable,
        )
        self.progress("rounds", record.round, self.rounds)

    def table_one(self, layout: Layout, training: Mapping[str, Summary], replies: CompareReplies) -> None:
        """Record Table 1 over training and holdout rows."""
        holdouts = {site: reply.summary for site, reply in replies.items()}
        for name, payload in tables_of(layout, training, holdouts).items():
            self.summary(name, payload)

    def comparison(self, replies: CompareReplies, reference: Reference | None, bins: ScoreBins = EVEN_ODDS) -> None:
        """Record the comparison at each site and overall, with rows counted in these bins."""
        figures = []
        differences = []
        self.writer.sites(
            SiteRow(site, rows=reply.num_examples + reply.holdout_rows, holdout_rows=reply.holdout_rows)
            for site, reply in replies.items()
        )
        notes = {site: reply.note for site, reply in replies.items() if reply.note}
        self.writer.events([EventRow(self._latest or None, site, "note", note) for site, note in notes.items()])
        for site, reply in replies.items():
            figures += [_site_figure(site, figure, reply.holdout_rows) for figure in reply.arms]
            differences += [_site_difference(site, figure) for figure in reply.differences]
        figures += [*sites_mean(replies, len(replies)), *sites_mean(replies, len(replies), "personalised")]
        figures += self._over_all(replies, reference)
        summaries = {
            "own-models": _own_models(replies, reference),
            "score-histograms": score_histograms(replies, bins),
            "operating-points": flagged_at_rates(replies),
            "subgroups": subgroups(replies),
            "calibration": calibrations(replies),
        }
        for name, summary in summaries.items():
            if summary is not None:
                self.summary(name, summary)
        self.events("holdout-opened", dict.fromkeys(replies, "compare"))
        self.writer.comparison(figures, differences)

    def _over_all(self, replies: CompareReplies, reference: Reference | None) -> list[ComparisonRow]:
        """Return the figures over all rows, from an engine with all tables, else from the replies."""
        if reference is None:
            return from_replies(replies)
        withheld = {(one.arm, one.metric) for one in _arms(replies) if one.method.startswith("withheld")}
        return from_reference(reference, withheld)

    def _sent(self, kind: str, to_site: Mapping[str, int], to_server: Mapping[str, int]) -> list[SentRow]:
        rows = [SentRow(site, "to-site", kind, size) for site, size in to_site.items()]
        return rows + [SentRow(site, "to-server", kind, size) for site, size in to_server.items()]


def _own_models(replies: CompareReplies, reference: Reference | None) -> dict[str, Any] | None:
    """Return the kinds of the best models at the sites and over all rows, None where none is known."""
    families = {site: reply.own_family for site, reply in replies.items() if reply.own_family is not None}
    pooled = reference.pooled_family if reference is not None else None
    return {"sites": families, "pooled": pooled} if families or pooled is not None else None


def _arms(replies: CompareReplies) -> list[Figure]:
    """Return the figures of all sites."""
    return [*chain.from_iterable(reply.arms for reply in replies.values())]


def _site_figure(site: str, figure: Figure, rows: int) -> ComparisonRow:
    value, low, high = map(finite, (figure.value, figure.low, figure.high))
    return ComparisonRow(site, figure.arm, figure.metric, value, low, high, rows, figure.method)


def _site_difference(site: str, figure: Figure) -> DifferenceRow:
    a, _, b = figure.arm.partition(" - ")
    value, low, high, p = map(finite, (figure.value, figure.low, figure.high, figure.extra))
    return DifferenceRow(site, a, b, figure.metric, value, low, high, p, figure.method)


def sites_mean(replies: CompareReplies, of: int, arm: str = "global") -> list[ComparisonRow]:
    """Return the unweighted mean of an arm over the sites with that figure, of `of` sites compared."""
    rows = []
    name = "sites-mean" if arm == "global" else f"{arm}-sites-mean"
    figures = _arms(replies)
    for metric in dict.fromkeys(figure.metric for figure in figures):
        values = [figure.value for figure in figures if (figure.metric, figure.arm) == (metric, arm)]
        finite_values = [value for value in values if math.isfinite(value)]
        left = of - len(finite_values)
        method = f"mean of {counted(len(finite_values), 'site')}"
        if left:
            method = Refusal("mean-with-gaps", sites=len(finite_values), left=left)
        mean = float(np.mean(finite_values)) if finite_values else None
        rows.append(ComparisonRow(None, name, metric, mean, method=method))
    return rows


def from_reference(reference: Reference, withheld: Collection[tuple[str, str]]) -> list[ComparisonRow]:
    """Return exact pooled figures over the union of holdouts, from an engine with all tables.

    Parameters
    ----------
    reference : Reference
    withheld : collection of (arm, metric)
        Figures that some site withheld. An arm's figure over all rows minus those of the other sites would reveal such
        a figure, unless the metric ranks rows of all sites.
    """
    follows = "withheld: a figure that a site withheld would follow"
    arms = {
        "global": reference.union,
        "personalised": reference.personalised,
        "pooled": reference.pooled,
        "pooled-same": reference.pooled_same,
        "own-model-everywhere": reference.own_everywhere,
    }
    rows = []
    for arm, estimates in arms.items():
        for metric, e in estimates.items():
            row = ComparisonRow(None, arm, metric, None, n=reference.rows, method=follows)
            if (arm, metric) not in withheld or metric in RANKINGS:
                row = replace(row, value=finite(e.value), low=finite(e.low), high=finite(e.high), method=e.method)
            rows.append(row)
    return rows


def from_replies(replies: CompareReplies) -> list[ComparisonRow]:
    """Return pooled figures over the union of holdouts, from the sites' replies.

    AUC comes from class-wise score histograms where every site sent one; it has no interval where a site's rows come in
    groups, which histograms do not show. Means over rows are exact, without an interval.
    """
    metrics = dict.fromkeys(figure.metric for figure in _arms(replies))
    return [_from_replies(metric, replies) for metric in metrics]


def _from_replies(metric: str, replies: CompareReplies) -> ComparisonRow:
    """Return the pooled figure of one metric."""
    rows = sum(reply.holdout_rows for reply in replies.values())
    pooled = ComparisonRow(None, "global", metric, None, n=rows)
    if metric == "roc_auc_score":
        return _merged_auc(pooled, replies)
    parts = []
    for reply in replies.values():
        values = [one.value for one in reply.arms if (one.metric, one.arm) == (metric, "global")]
        # A site that sends a figure twice counts once.
        parts += [(reply.holdout_rows, value) for value in values[-1:]]
    if metric in MEANS and all(math.isfinite(value) for _, value in parts):
        return replace(pooled, value=weighted_mean(parts), method="mean over sites weighted by rows")
    return replace(pooled, method=NOT_ALL)


def _merged_auc(pooled: ComparisonRow, replies: CompareReplies) -> ComparisonRow:
    """Return the AUC from the sum of all sites' histograms."""
    counts = [reply.histogram for reply in replies.values() if reply.histogram is not None]
    if not counts or len(counts) < len(replies):
        return replace(pooled, method=NOT_ALL)
    whole = reduce(np.add, counts)
    value = auc_of_histogram(whole)
    if any(figure.method in OVER_PEOPLE for figure in _arms(replies)):
        how = ", which do not tell which rows are of one person"
        return replace(pooled, value=value, method=Refusal("merged-histograms", how=how))
    low, high = auc_interval(whole)
    return replace(pooled, value=value, low=low, high=high, method=Refusal("merged-histograms", how=""))
