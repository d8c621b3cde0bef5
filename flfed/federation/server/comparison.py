"""Comparison of a run's final model with others, over the sites' holdouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from flfed.errors import FlfedError
from flfed.federation.recording.pooled_figures import SCORE_BINS, importances, score_bins
from flfed.federation.recording.run_record import Outcome, recorded_training
from flfed.federation.server.rounds import rehearse_rounds
from flfed.federation.server.run_setting import Answers, RunSetting
from flfed.federation.server.secure_sums import add_figures
from flfed.federation.server.site_arrays import SITE_OFFSETS, has_whole_model, offset_deviation
from flfed.federation.server.trees import record_gains
from flfed.records.statistics.verdict import metric_name, number
from flfed.refusals import Refusal
from flfed.rows.comparison.pooled import Reference
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.features.encode import input_names
from flfed.summaries.drift import encoder_moved
from flfed.summaries.score_bins import ScoreBins
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.guard import comparison_defect, summary_defect
from flfed.updates.aggregation.rounds import EncoderDelivery, Participants
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.messages.compare import COMPARE, TRAINED_UNKNOWN, CompareReplies, CompareReply, CompareRequest
from flfed.updates.messages.train import Scores
from flfed.updates.strategies.fedavg import FedAvg
from flfed.words import flfed_error, render

if TYPE_CHECKING:
    from flfed.federation.engines.pooled_reference import PooledReference

FAR = 0.1
"""Standard deviations by which a column's centre may move before the record names it."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison:
    """Comparison of a run's models at every site.

    Attributes
    ----------
    run : RunSetting
    participants : mapping of site to Participant
    outcome : Outcome
        With the final model.
    strategy : FedAvg
        After its last round.
    tables : PooledReference or None
        Of an engine that has every site's table.
    once : callable (name, facts) → facts
        Returns facts as the sites may have received them, as `CheckpointWriter.once` does.
    scores : mapping of site to Scores
        Of the last round.
    """

    run: RunSetting
    participants: Participants
    outcome: Outcome
    strategy: FedAvg
    tables: PooledReference | None
    once: Callable[[str, dict[str, Any]], dict[str, Any]]
    scores: Mapping[str, Scores]

    def conduct(self, start: str) -> None:
        """Compare the models and record it.

        Figures that need all tables are added. `start` is the start file's hash.
        """
        request = self._request()
        recorder = self.run.recorder
        estimate = score_bins(self.scores)
        bins = ScoreBins(**self.once(SCORE_BINS, asdict(estimate)))
        recorder.progress("compare", 0, 1)
        replies = self._replies(request, bins)
        if not replies and not self.run.study.compare.is_summed:
            raise flfed_error("run.failures.compared")
        reference = self._reference(replies, request.deviation)
        recorder.comparison(replies, reference, bins)
        training = recorded_training(recorder.writer, recorder.primary, self.run.study, reference)
        if training is not None:
            recorder.summary("training", training)
        self._coefficients()
        if self.run.layout.plain:
            record_gains(self.run, self.outcome, self.strategy.round.incoming, self.tables, list(replies))
        importance_summary = importances(replies, requested_columns(self.run))
        if importance_summary is not None:
            loss = "half the squared error" if self.run.layout.task == "regression" else "log loss"
            settings = {"loss": loss, "permutations": self.run.study.compare.importance}
            recorder.summary("importances", settings | importance_summary)
        self._table_one(start, replies)
        recorder.progress("compare", 1, 1)

    def _request(self) -> CompareRequest:
        """Return the request to compare: with the model, or the last total of which sites make it themselves."""
        request = CompareRequest(arrays=self.outcome.arrays, encoder=self.outcome.encoder)
        sums = self.run.sums
        if sums is not None and sums.verified:
            request = request.of_total(sums.total)
        if not self.run.study.adjusts_intercept():
            return request
        offsets = self.strategy.offsets
        facts = self.once(SITE_OFFSETS, {"sites": len(offsets), "deviation": offset_deviation(offsets)})
        self.run.recorder.summary(SITE_OFFSETS, facts)
        # NaN stands for an unknown one: each site adjusts as without it.
        deviation = math.nan if facts["deviation"] is None else facts["deviation"]
        return replace(request, offset_deviation=deviation)

    def _coefficients(self) -> None:
        """Record a linear model's coefficients, which every site has received."""
        if not has_whole_model(self.run):
            return
        model = self.run.study.model.build("model")
        layers: Any = getattr(model, "layers", ())  # which a linear model of another package may lack
        if not model.linear or len(layers) != 1 or self.run.layout.task != "binary":
            return
        weight, bias = (self.outcome.arrays[name].astype(float) for name in layers[0])
        coefficients = {
            "inputs": list(input_names(self.run.layout)),
            "coefficients": weight[:, 0].tolist(),
            "intercept": float(bias[0]),
        }
        self.run.recorder.summary("coefficients", coefficients)

    def _replies(self, request: CompareRequest, bins: ScoreBins) -> CompareReplies:
        """Return the sites' usable comparisons, with figures of their own."""
        recorder = self.run.recorder
        # Verdicts depend on the number of participants whose figures are looked at.
        sites = 1 if self.run.study.compare.is_summed else len(self.participants)
        looked_at = self.once("looked-at", {"sites": sites})
        recorder.summary("looked-at", looked_at)
        request = replace(request, sites=int(looked_at["sites"]), trained=self._trained())
        if bins.centre is not None and bins.spread is not None:
            request = replace(request, odds_centre=bins.centre, odds_spread=bins.spread)
        answers = self._ask(request, self.strategy.run.delivery)
        faults = {site: Refusal("no-comparison", why=reason) for site, reason in answers.faults.items()}
        self.run.recorder.events("fault", faults)
        if self.run.sums is not None and self.run.study.compare.is_summed:
            add_figures(self.run, self.run.sums, answers.replies, self.outcome.encoder)
            return {}
        return self._usable(answers.replies)

    def _trained(self) -> str:
        """Return whether the model was trained enough, for the sites.

        The losses that left the sites decide it.
        """
        training = recorded_training(self.run.recorder.writer, self.run.recorder.primary, self.run.study)
        words = {True: "enough", False: "not-enough", None: TRAINED_UNKNOWN}
        enough = training["enough"] if training else None
        return words[enough]

    def _ask(self, request: CompareRequest, delivery: EncoderDelivery) -> Answers[CompareReply]:
        """Return the sites' replies.

        A site that lost the encoder is asked again, and gets it whole.
        """
        # Sites that have the encoder get one request, which is written once, and so do the others.
        written = {by_hash: replace(request, by_hash=by_hash) for by_hash in (False, True)}
        sent = {site: written[site in delivery.holders] for site in self.participants}
        answers = self.run.ask(COMPARE, sent, self.participants, CompareReply.from_record)
        faults = answers.faults
        lacking = {site: self.participants[site] for site, why in faults.items() if delivery.lost(site, why)}
        if not lacking:
            return answers
        requests = {site: replace(sent[site], by_hash=False) for site in lacking}
        again = self.run.ask(COMPARE, requests, lacking, CompareReply.from_record)
        left = {site: reason for site, reason in faults.items() if site not in lacking}
        return replace(again, replies={**answers.replies, **again.replies}, faults={**left, **again.faults})

    def _usable(self, replies: CompareReplies) -> dict[str, CompareReply]:
        """Return credible comparisons, without sums that cannot be merged."""
        usable = {}
        faults = {}
        groups = requested_groups(self.run)
        for site, reply in replies.items():
            defect = comparison_defect(reply)
            if defect:
                faults[site] = Refusal("no-comparison", why=defect)
                continue
            usable[site] = select_requested(self.run, reply, groups)
            if reply.summary is not None and (defect := summary_defect(reply.summary, self.run.layout)):
                faults[site] = Refusal("holdout-sums", why=defect)
                usable[site] = replace(usable[site], summary=None)
        self.run.recorder.events("fault", faults)
        return usable

    def _reference(self, replies: CompareReplies, deviation: float | None) -> Reference | None:
        """Return the pooled reference, or None."""
        tables = self.tables
        if tables is None or self.run.study.compare.is_summed:
            return None
        # Without a site's holdout the comparison would be another one; and a failure there is one here.
        if len(replies) < len(self.participants):
            self.run.recorder.note(Refusal("no-pooled-reference", why="not every site could be compared"))
            return None
        self.run.recorder.progress("pooled reference", 0, 1)
        reference = tables.reference(list(self.participants), self.outcome.arrays, self.outcome.encoder, deviation)
        self.run.recorder.progress("pooled reference", 1, 1)
        self._disclosure_cost(tables, reference.exact_encoder)
        return reference

    def _disclosure_cost(self, tables: PooledReference, exact: Encoder) -> None:
        """Record how suppression and coarse sums moved encoder and result."""
        used = self.outcome.encoder
        if exact.sha256() == used.sha256() or self.run.study.encode.scaler != "global":
            return
        if self.run.study.privacy.name != "none" or not has_whole_model(self.run):
            return  # its rounds would be spent, or sites' own parts made, once more
        columns = encoder_moved(self.run.layout, used, exact)
        far = sorted((name for name, by in columns.items() if by > FAR), key=lambda name: -columns[name])
        self.run.recorder.progress("rounds with exact sums", 0, 1)
        strategy, other = rehearse_rounds(self.run, self.participants, exact)
        self.run.recorder.progress("rounds with exact sums", 1, 1)
        if strategy.stopped:
            return
        moved = tables.primary_moved(list(self.participants), self.outcome.arrays, used, other, exact)
        self.run.recorder.writer.summary("disclosure", {"columns-moved": columns, "primary-moved": moved})
        figure = f"by {number(moved, signed=True)}" if math.isfinite(moved) else "(not defined there)"
        most = f" (most: {', '.join(far[:3])})" if far else ""
        facts = {"figure": figure, "far": len(far), "columns": len(columns), "by": FAR, "most": most}
        recorder = self.run.recorder
        recorder.note(render("run.notes.disclosure", primary=metric_name(recorder.primary), **facts))

    def _table_one(self, start: str, replies: CompareReplies) -> None:
        """Record Table 1 from the training and holdout sums."""
        if self.run.sums is not None:
            self.run.recorder.note(Refusal("no-table-1", why=Refusal("sums-masked")))
            return
        try:
            summaries = checkpoints.summaries_of(self.run.name, start)
        except FlfedError as error:
            # The rest of the run is complete, and is not given up for it.
            self.run.recorder.note(Refusal("no-table-1", why=error))
        else:
            self.run.recorder.table_one(self.run.layout, summaries, replies)


def requested_columns(run: RunSetting) -> list[str]:
    """Return the columns whose importance a study requests."""
    return [column.name for column in run.layout.features] if run.study.compare.importance else []


def record_replies(run: RunSetting, answers: Answers[CompareReply]) -> dict[str, CompareReply]:
    """Record and return the sites' figures of a model that is compared with no pooled one; raises FlfedError."""
    if not answers.replies:
        raise flfed_error("run.failures.compared")
    groups = requested_groups(run)
    replies = {site: select_requested(run, reply, groups) for site, reply in answers.replies.items()}
    run.recorder.comparison(replies, None)
    return replies


def requested_groups(run: RunSetting) -> set[tuple[str, str]]:
    """Return the groups, by column and label, whose figures a study requests."""
    groups: set[tuple[str, str]] = set()
    for one in groupings(run.study.compare.subgroups, run.schema):
        groups.update((one.column, label) for label in one.labels)
    return groups


def select_requested(run: RunSetting, reply: CompareReply, groups: Collection[tuple[str, str]]) -> CompareReply:
    """Return a reply with the figures that a run's study requests.

    A site may not add others to the record.
    """
    compare = run.study.compare
    columns = requested_columns(run)
    return replace(
        reply,
        points=tuple(point for point in reply.points if point.rate in compare.false_positive_rates),
        groups=tuple(one for one in reply.groups if (one.column, one.group) in groups),
        importance=tuple(one for one in reply.importance if one.column in columns),
        withheld=tuple(one for one in reply.withheld if one.column in columns),
        calibration=reply.calibration if compare.calibration else (),
    )
