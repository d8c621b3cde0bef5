"""Recorder of rounds, comparison and Table 1."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np

from flfed.callbacks import Progress, no_progress
from flfed.federation.recording.pooled_figures import auc_interval, score_histograms
from flfed.federation.recording.pseudonyms import WITHHELD, SharedAs
from flfed.records.reports.report import MERGED
from flfed.records.store.entries import (
    ComparisonRow,
    DifferenceRow,
    EventRow,
    LearningPoint,
    MetricRow,
    SentRow,
    SiteRow,
)
from flfed.records.store.visibility import TRAINING_ONLY
from flfed.records.store.writer import RunWriter
from flfed.rows.comparison.pooled import Reference
from flfed.rows.evaluation.scoring import auc_between, auc_of_histogram
from flfed.study.tables import Sharing
from flfed.summaries.drift import columns_of
from flfed.summaries.leaks import LeakWarning
from flfed.summaries.score_bins import EVEN_ODDS, ScoreBins
from flfed.summaries.summary import Layout, Summary, merge
from flfed.summaries.table_one import table_one
from flfed.updates.aggregation.rounds import RoundRecord
from flfed.updates.messages.compare import CompareReply, Figure
from flfed.updates.messages.enrol import ENROL, EnrolReply
from flfed.updates.messages.train import Scores

RANKINGS = ("roc_auc_score", "average_precision_score", "recall_at_alert_budget")
"""Metrics over all sites that do not follow from the sites' own: they compare rows across sites."""
MEANS = ("loss", "log_loss", "brier_score_loss", "accuracy_score", "mean_absolute_error")
"""Metrics that are means over rows: their mean over sites, weighted by rows, is exact."""


class Slowest:
    """Progress of the slowest of several repeats.

    They run side by side, and those that ended do not count.

    Parameters
    ----------
    progress : callable
    repeats : collection of int
    """

    def __init__(self, progress: Progress, repeats: Collection[int]) -> None:
        self._progress = progress
        self._going = set(repeats)
        self._repeats = len(repeats)
        self._known: dict[str, dict[int, int]] = {}
        self._told: dict[str, tuple[int, int]] = {}

    def of(self, repeat: int) -> Progress:
        """Return the progress callable of one repeat."""

        def told(stage: str, done: int, of: int) -> None:
            self._known.setdefault(stage, {})[repeat] = done
            self._tell(stage, of)

        return told

    def over(self, repeat: int) -> None:
        """Remove a repeat that has ended."""
        self._going.discard(repeat)
        for stage, (_, of) in list(self._told.items()):
            self._tell(stage, of)

    def _tell(self, stage: str, of: int) -> None:
        known = self._known[stage]
        before, _ = self._told.get(stage, (-1, of))
        # Until each repeat has told this stage, the slowest of them is not known.
        now = min(known[repeat] for repeat in self._going) if self._going <= known.keys() and self._going else before
        self._told[stage] = (max(before, now), of)
        if now > before:
            # Else a person would expect as many rounds again for every repeat.
            self._progress(f"{stage} of {self._repeats} repeats" if len(known) > 1 else stage, now, of)


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
    shared_as : SharedAs
        How the sites are written down: `share` adds to it.
    taking_part : set of str
        Who enrolled last.
    """

    writer: RunWriter
    primary: str
    rounds: int
    progress: Progress = no_progress
    shared_as: SharedAs = field(default_factory=SharedAs)
    taking_part: set[str] = field(default_factory=set, init=False)
    _latest: int = field(default=0, init=False)
    _resumed: bool = field(default=False, init=False)
    _opened: set[str] = field(default_factory=set, init=False)

    def share(self, sharing: Mapping[str, Sharing]) -> None:
        """Add the sites' sharing policies.

        Call it before anything of them is recorded.
        """
        self.shared_as = self.shared_as.and_with(sharing)

    def resumed(self, round: int, reason: str) -> None:
        """Record that the run is resumed after `round`.

        The reason for which it had ended is recorded, too.
        """
        self._latest, self._resumed = round, True
        self.note(f"resumed after round {round}; before: {reason}")
        self.progress("rounds", round, self.rounds)

    def enrolled(self, replies: Mapping[str, EnrolReply], earlier: Collection[str] = ()) -> None:
        """Record the participants and the refusals.

        `earlier` are the sites of a run that is gone on with: one that refuses now took part before,
        which stays written down.
        """
        self.taking_part = {site for site, reply in replies.items() if reply.accepted}
        told = {site: reply for site, reply in replies.items() if reply.accepted or site not in earlier}
        self.writer.sites(
            SiteRow(
                name,
                title=reply.title if name == reply.site else name,
                status="accepted" if reply.accepted else "refused",
                reason=reply.reason,
                disclosure=reply.disclosure if reply.accepted else "",
                shared_as=self.shared_as.sharing.get(reply.site, "named"),
                resplit=reply.resplit,
            )
            for name, reply in self.shared_as.under_names(told).items()
        )
        # A resumed run has these entries from before.
        if not self._resumed:
            self.events("refused", {s: r.reason for s, r in replies.items() if not r.accepted})
            if self.shared_as.in_sums_only:
                self.note(self.shared_as.reserve())

    def after(self, round: int) -> None:
        """Set the round that later entries belong to.

        An audit comes after the last one.
        """
        self._latest = round

    def refused(self, reasons: Mapping[str, str]) -> None:
        """Record the sites whose gate refused.

        A gate says nothing of its site but why.
        """
        self.writer.sites(SiteRow(site, status="refused", reason=why, disclosure="") for site, why in reasons.items())
        self.events("refused", reasons)

    def events(self, kind: Any, reasons: Mapping[str, str]) -> None:
        """Record one event a site at the latest round."""
        self.writer.events(self._events(self._at(), kind, reasons))

    def _events(self, round: int | None, kind: Any, reasons: Mapping[str, str]) -> list[EventRow]:
        said = self.shared_as.under_names(reasons).items()
        return [EventRow(round, site, kind, self.shared_as.text(reason)) for site, reason in said]

    def _at(self) -> int | None:
        """Return the round of an event.

        It is None before the rounds.
        """
        return self._latest or None

    def unnamed_faults(self, reasons: list[str]) -> None:
        """Record the faults of nodes without a known site."""
        self.writer.events([EventRow(None, None, "fault", self.shared_as.text(reason)) for reason in reasons])

    def crossed(self, kind: str, to_site: Mapping[str, int], to_server: Mapping[str, int]) -> None:
        """Record the bytes sent and received.

        They are of a request and its replies, at the latest round.

        Not of an enrolment under a pseudonym, whose size goes with the length of the name.

        Round 0 is what comes before the rounds.
        """
        if kind == ENROL:
            to_site, to_server = self.shared_as.named(to_site), self.shared_as.named(to_server)
        self.writer.sent(self._latest, self._sent(kind, to_site, to_server))

    def note(self, reason: str) -> None:
        """Record a note on the whole run."""
        self.writer.events([EventRow(self._at(), None, "note", self.shared_as.text(reason))])

    def leaks(self, warnings: Sequence[LeakWarning], untested: Sequence[str] = ()) -> None:
        """Record the leak warnings and the untested columns.

        Those columns have too few gaps, or values, for the test.
        """
        found = [{"column": w.column, "reason": w.reason, "value": w.value} for w in warnings]
        said = {"warnings": [str(warning) for warning in warnings], "found": found, "untested": [*untested]}
        self.writer.summary("leaks", said, durable=False)
        self.writer.events([EventRow(None, None, "leak", str(warning)) for warning in warnings])

    def round(self, record: RoundRecord, *, trained: bool, durable: bool = True) -> None:
        """Record one round.

        The strategy calls it as its observer.

        Parameters
        ----------
        record : RoundRecord
        trained : bool
            Whether the round gave a new model: it has a quorum of good updates. The last
            evaluation, and a round the run stops at, are written down but not counted.
        durable : bool
            As `RunWriter.round` takes it.
        """
        self._latest = record.round
        scored = [
            MetricRow(site, scores.rows, name, value, None, None, scores.variances.get(name), scores.num_examples)
            for by_site in map(self.shared_as.own, (record.scores, record.holdout))
            for site, scores in by_site.items()
            for name, value in scores.metrics.items()
        ]
        overall = [*self._global(record.scores), *self._global(record.holdout)]
        events = self._events(record.round, "fault", record.refused)
        events += [*self._events(record.round, "flag", record.flagged), *self._opened_now(record)]
        kind = "train" if trained or record.losses or not record.scores else "evaluate"
        sent = self._sent(kind, record.bytes_to_site, record.bytes_to_server)
        # An evaluation belongs to the model that it scored, which an earlier round made.
        if not trained:
            self.writer.metrics(record.model_round, scored + overall)
            self.writer.events(events)
            self.writer.sent(record.round, sent)
            return
        told = {site: loss for site, loss in record.losses.items() if loss is not None}
        losses = [MetricRow(site, "fit", "loss", loss) for site, loss in self.shared_as.own(told).items()]
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

    def _opened_now(self, record: RoundRecord) -> list[EventRow]:
        """Return an event for each newly opened holdout.

        A site's holdout was read for the curve by round, for the first time.
        """
        sites = sorted(set(record.holdout) - self._opened)
        self._opened.update(sites)
        return self._events(record.round, "holdout-opened", dict.fromkeys(sites, "holdout-curve"))

    def _global(self, scores: Mapping[str, Scores]) -> list[MetricRow]:
        """Return figures over all sites without their rows.

        They are the round's.

        A site too small for validation rows scores training rows: the two are never mixed.
        """
        found = []
        for kind in dict.fromkeys(s.rows for s in scores.values()):
            alike = {site: s for site, s in scores.items() if s.rows == kind and s.num_examples > 0}
            for name in dict.fromkeys(name for s in alike.values() for name in s.metrics if name in MEANS):
                # A sum with a single site in sums only would give that site's figure away.
                with_it = self.shared_as.summable([site for site, s in alike.items() if name in s.metrics])
                parts = [(alike[site].num_examples, alike[site].metrics[name]) for site in with_it]
                total = sum(n for n, _ in parts)
                if parts:
                    found.append(MetricRow(None, kind, name, math.fsum(n * v for n, v in parts) / total, n=total))
            counted = [alike[site] for site in self.shared_as.summable(alike)]
            counts = [s.histogram for s in counted if s.histogram is not None]
            # Without one site's counts it would not be the AUC over these sites.
            if counts and len(counts) == len(counted):
                rows = sum(s.num_examples for s in counted)
                found.append(MetricRow(None, kind, "roc_auc_score", *auc_between(reduce(np.add, counts)), n=rows))
        return found

    def table_one(self, layout: Layout, training: Mapping[str, Summary], replies: Mapping[str, CompareReply]) -> None:
        """Record Table 1 over training and holdout rows.

        A site in sums only has no column.
        """
        training = {site: training[site] for site in self.shared_as.summable(training)}
        holdouts = {site: reply.summary for site, reply in replies.items()}
        parts = self.shared_as.under_names(
            {
                site: [summary, *([own] if (own := holdouts.get(site)) is not None else [])]
                for site, summary in training.items()
            }
        )
        hidden = self.shared_as.in_sums_only
        alone = [site for site in training if site not in hidden and holdouts.get(site) is None]
        note = f"{TRAINING_ONLY}: {', '.join(alone)}." if alone else ""
        notes = [note, f"{self.shared_as.reserve()}." if hidden else ""]
        rows = [{k: cell for k, cell in row.items() if k not in hidden} for row in table_one(layout, parts)]
        said = self.shared_as.text(" ".join(filter(None, notes)))
        self.writer.summary("table-1", {"rows": rows, "note": said}, durable=False)
        told = {site: merge(summaries) for site, summaries in parts.items() if site not in hidden}
        self.writer.summary("columns", {"columns": columns_of(layout, told), "note": said}, durable=False)

    def comparison(
        self, replies: Mapping[str, CompareReply], reference: Reference | None, bins: ScoreBins = EVEN_ODDS
    ) -> None:
        """Record the comparison at each site and overall.

        Rows were counted in these bins.
        """
        figures = []
        differences = []
        own = self.shared_as.own(replies)
        self.writer.sites(
            SiteRow(site, rows=reply.num_examples + reply.holdout_rows, holdout_rows=reply.holdout_rows)
            for site, reply in own.items()
        )
        self.writer.events([EventRow(self._at(), site, "note", r.note) for site, r in own.items() if r.note])
        for site, reply in own.items():
            figures += [_site_figure(site, figure, reply.holdout_rows) for figure in reply.arms]
            differences += [_site_difference(site, figure) for figure in reply.differences]
        # Weighted otherwise than the figures over all rows: of the sites in sums only, both would tell too much.
        figures += [*sites_mean(own, len(replies)), *sites_mean(own, len(replies), "personalised")]
        if not self.shared_as.are_whole(replies):
            figures += [replace(row, value=None, n=None, method=WITHHELD) for row in from_replies(replies)]
        else:
            figures += from_reference(reference, withheld_figures(replies)) if reference else from_replies(replies)
        families = {site: reply.own_family for site, reply in own.items() if reply.own_family is not None}
        if families or (reference is not None and reference.pooled_family is not None):
            pooled = None if reference is None else reference.pooled_family
            self.writer.summary("own-models", {"sites": families, "pooled": pooled}, durable=False)
        if (histograms := score_histograms(replies, self.shared_as, bins)) is not None:
            self.writer.summary("score-histograms", histograms, durable=False)
        self.events("holdout-opened", dict.fromkeys(replies, "compare"))
        self.writer.comparison(figures, differences)

    def learning_curve(self, points: Sequence[LearningPoint]) -> None:
        """Record the learning curve of the series.

        It has the sites that share figures of their own.
        """
        shared = [p for p in points if p.site not in self.shared_as.in_sums_only]
        self.events("holdout-opened", dict.fromkeys(sorted({point.site for point in points}), "learning-curve"))
        self.writer.learning_curve([replace(point, site=self.shared_as.name(point.site)) for point in shared])

    def _sent(self, kind: str, to_site: Mapping[str, int], to_server: Mapping[str, int]) -> list[SentRow]:
        rows = [SentRow(site, "to-site", kind, size) for site, size in self.shared_as.under_names(to_site).items()]
        back = self.shared_as.under_names(to_server).items()
        return rows + [SentRow(site, "to-server", kind, size) for site, size in back]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _site_figure(site: str, figure: Figure, rows: int) -> ComparisonRow:
    value, low, high = map(_known, (figure.value, figure.low, figure.high))
    return ComparisonRow(site, figure.arm, figure.metric, value, low, high, rows, figure.method)


def _site_difference(site: str, figure: Figure) -> DifferenceRow:
    a, _, b = figure.arm.partition(" - ")
    value, low, high, p = map(_known, (figure.value, figure.low, figure.high, figure.extra))
    return DifferenceRow(site, a, b, figure.metric, value, low, high, p, figure.method)


def sites_mean(replies: Mapping[str, CompareReply], of: int, arm: str = "global") -> list[ComparisonRow]:
    """Return the unweighted mean over sites of an arm.

    It is over the sites with that figure, while `of` sites were compared.
    """
    found, name = [], "sites-mean" if arm == "global" else f"{arm}-sites-mean"
    for metric in dict.fromkeys(f.metric for reply in replies.values() for f in reply.arms):
        values = [f.value for r in replies.values() for f in r.arms if (f.metric, f.arm) == (metric, arm)]
        known = [value for value in values if math.isfinite(value)]
        left = of - len(known)
        method = f"mean of {len(known)} sites" + (f"; {left} without this figure left out" if left else "")
        found.append(ComparisonRow(None, name, metric, float(np.mean(known)) if known else None, method=method))
    return found


def withheld_figures(replies: Mapping[str, CompareReply]) -> set[tuple[str, str]]:
    """Return arm and metric of the withheld figures.

    Some site withheld each of them.
    """
    return {
        (figure.arm, figure.metric)
        for reply in replies.values()
        for figure in reply.arms
        if figure.method.startswith("withheld")
    }


def from_reference(reference: Reference, withheld: Collection[tuple[str, str]] = ()) -> list[ComparisonRow]:
    """Return pooled figures from an engine with all tables.

    They are exact, over the union of holdouts.

    Parameters
    ----------
    reference : Reference
    withheld : collection of (arm, metric)
        Of figures that some site withheld. An arm's figure over all rows, less those of the other
        sites, would give such a figure away, unless the metric ranks rows of all sites.
    """
    follows = "withheld: a figure that a site withheld would follow"
    arms = {
        "global": reference.union,
        "personalised": reference.personalised,
        "pooled": reference.pooled,
        "pooled-same": reference.pooled_same,
        "own-model-everywhere": reference.own_everywhere,
    }
    return [
        ComparisonRow(None, arm, metric, None, n=reference.rows, method=follows)
        if (arm, metric) in withheld and metric not in RANKINGS
        else ComparisonRow(None, arm, metric, _known(e.value), _known(e.low), _known(e.high), reference.rows, e.method)
        for arm, estimates in arms.items()
        for metric, e in estimates.items()
    ]


def from_replies(replies: Mapping[str, CompareReply]) -> list[ComparisonRow]:
    """Return pooled figures from the sites' replies.

    They are over the union of holdouts.

    AUC from class-wise score histograms where every site gave one; without an interval where a site's rows
    come in groups, which the histograms do not tell. Means over rows exactly, without an interval.
    """
    rows = {site: reply.holdout_rows for site, reply in replies.items()}
    found = []
    for metric in dict.fromkeys(f.metric for reply in replies.values() for f in reply.arms):
        values = {s: f.value for s, r in replies.items() for f in r.arms if (f.metric, f.arm) == (metric, "global")}
        counts = [reply.histogram for reply in replies.values() if reply.histogram is not None]
        value = None
        low = None
        high = None
        # This reason stands where no rule below gives the figure.
        method = "not every site's policy lets it be computed over all sites"
        if metric in MEANS and all(map(math.isfinite, values.values())):
            value = math.fsum(rows[s] * v for s, v in values.items()) / sum(rows[s] for s in values)
            method = "mean over sites weighted by rows"
        elif metric == "roc_auc_score" and counts and len(counts) == len(replies):
            value, method = auc_of_histogram(reduce(np.add, counts)), MERGED
            if any("groups" in figure.method for reply in replies.values() for figure in reply.arms):
                method += ", which do not tell which rows are of one person"
            else:
                low, high = auc_interval(reduce(np.add, counts))
        found.append(ComparisonRow(None, "global", metric, value, low, high, sum(rows.values()), method))
    return found
