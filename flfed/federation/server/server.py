"""Server side of one run, from enrolment to comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from flwr.app import RecordDict
from flwr.serverapp import Grid

from flfed.callbacks import Clock
from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.pooled_figures import SCORE_BINS, score_bins
from flfed.federation.recording.privacy_recorder import PrivacyRecord
from flfed.federation.recording.pseudonyms import WITHHELD
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.fan_out import NOT_THERE, Answers, Reply, ask, ask_each, unenrolled
from flfed.federation.server.site_offsets import SITE_OFFSETS, SiteOffsets, offset_outputs, site_offsets
from flfed.records.reports.faults import FEW_SITES, SITES_NAMED
from flfed.records.store.entries import NO_TABLE_1
from flfed.rows.baselines import first_arrays
from flfed.rows.comparison.pooled import Reference
from flfed.rows.data import datasets
from flfed.rows.features.encode import input_names
from flfed.rows.session import study_layout, study_trainable
from flfed.study.study import Study
from flfed.summaries.leaks import leak_warnings, untested
from flfed.summaries.score_bins import EVEN_ODDS, ScoreBins
from flfed.summaries.summary import (
    Encoder,
    Layout,
    Summary,
    arrays_sha256,
    encoder_moved,
    fit_encoder,
    merge,
    one_class,
    sums_sha256,
)
from flfed.updates.aggregation.guard import comparison_defect, summary_defect
from flfed.updates.aggregation.rounds import Participant, RoundRecord, RunContext
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.updates.messages.compare import COMPARE, CompareReply, CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.offset import reads_offset
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply, SummariseRequest
from flfed.updates.messages.train import Scores
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record

if TYPE_CHECKING:
    from flfed.federation.engines.pooled_reference import (
        PooledReference,  # a site's half, which a coordinator does without
    )

LEAST_SITES = 2
LEFT = "did not come back after the run was resumed"
FAR = 0.1
"""Standard deviations by which a column's centre may move before the record names it."""
PER_SITE = (
    "every site scaled its rows by its own means (encode.scaler = 'per-site'): "
    "this reproduces others' results and costs accuracy; 'global' is right"
)
RunObserver = Callable[[str, int], None]
"""Told a stage of a round and its number: "checkpoint", "round", "evaluation"."""


def no_observer(stage: str, round: int) -> None:
    """Ignore the stage."""


# enrol ──► summarise ──► encoder ──► rounds ──► last evaluation ──► compare
#   │           │            │          │
#   who         sums of      start      a round that is due:  1. its checkpoint on the disk, whole or not at all
#   takes       training     file                             2. the round in the store, committed
#   part        rows                                          3. the observer is told
#
# In this order, so that a run which is killed at any point goes on from a round that both have. Rounds between two
# checkpoints are in the store only, and are computed again: with the same seeds, to the same bits.
class FederatedRun:
    """One federated run over a grid.

    Parameters
    ----------
    grid : Grid
    study : Study
    recorder : Recorder
    repeat : int
    tables : PooledReference, optional
        Of an engine that holds every site's table.
    checkpoint : Checkpoint, optional
        Of the round after which the run goes on.
    observer : callable (stage, round), optional
        Told "checkpoint" once a round's file is on the disk, "round" once it is in the store.
    clock : callable
        Seconds that are the run's own.
    each_round : bool
        Whether every round is a checkpoint: institutions train from one model in a round, and a round
        that is asked again after a crash must bring the same. Noise is the operating system's then, too.
    enrolled : callable (nodes by site)
        Told who takes part, each time the sites were enrolled; what it raises ends the run.
    """

    def __init__(
        self,
        grid: Grid,
        study: Study,
        recorder: Recorder,
        *,
        repeat: int = 0,
        tables: PooledReference | None = None,
        checkpoint: Checkpoint | None = None,
        observer: RunObserver = no_observer,
        clock: Clock = time.monotonic,
        each_round: bool = False,
        enrolled: Callable[[Mapping[str, int]], None] = lambda nodes: None,
    ) -> None:
        self.grid = grid
        self.study = study
        self.recorder = recorder
        self.tables = tables
        self.seed = study.seed + repeat
        self.checkpoint = checkpoint
        self.observer = observer
        self._enrolled = enrolled
        self._clock, self._began = clock, clock() - (checkpoint.facts["seconds"] if checkpoint else 0.0)
        self._last, self._each_round = checkpoint, each_round
        self._scores: Mapping[str, Scores] = {}
        self._next_checkpoint, self._apart = 0.0, 0.0 if each_round else checkpoints.seconds_apart()
        self.privacy = PrivacyRecord(study, recorder, deployed=each_round)
        self.privacy.restore(checkpoint)
        self.schema = datasets.load(study.dataset.name).schema
        self.layout: Layout = study_layout(study, self.schema)
        self.model = study.model.build("model")

    def conduct(self) -> Outcome:
        """Run every step of the study and return the outcome.

        Raises
        ------
        FlfedError
            If too few sites take part.
        """
        if self.checkpoint is None:
            participants, kept = self.begin()
        else:
            self.recorder.share(self.checkpoint.sharing)
            # A site that was missing at an earlier resume is not asked back.
            left = set(self.checkpoint.left)
            participants = self.return_of(
                {s: high for s, high in self.checkpoint.participants.items() if s not in left}
            )
            kept = replace(self.checkpoint, left=tuple(sorted(set(self.checkpoint.participants) - set(participants))))
        strategy, arrays = self.rounds(participants, kept.encoder, kept)
        outcome = Outcome(
            status="stopped" if strategy.stopped else "completed",
            reason=self.recorder.shared_as.text(strategy.stopped),
            arrays=arrays,
            encoder=kept.encoder,
            rounds=strategy.rounds_done,
            best_round=strategy.best_round,
            sites=tuple(participants),
        )
        # With its schema, so that the model can be used where nobody has the dataset's folder.
        facts = {"schema": self.schema.model_dump(mode="json", by_alias=True, exclude_none=True)}
        result = Checkpoint(round=outcome.best_round, arrays=arrays, encoder=kept.encoder, facts=facts)
        checkpoints.write(self.recorder.writer.run, result, final=True)
        if not strategy.stopped:
            self.compare(participants, outcome, kept.start, self.offsets(strategy), self.score_bins(participants))
        return replace(outcome, seconds=self._clock() - self._began)

    def begin(self) -> tuple[dict[str, Participant], Checkpoint]:
        """Return the participants and the common checkpoint of a new run."""
        participants = self.enrol()
        summaries = self.summarise(participants)
        participants = {site: participants[site] for site in summaries}
        merged = merge(list(summaries.values()))
        self.privacy.counted({site: float(summary.rows[0]) for site, summary in summaries.items()})
        self.recorder.leaks(leak_warnings(self.layout, merged), untested(self.layout, merged))
        sums = {"sha256": arrays_sha256(merged.arrays()), "rounded": sums_sha256(merged)}
        self.recorder.writer.summary("training-sums", sums, durable=False)
        if self.study.encode.scaler == "per-site":
            self.recorder.note(PER_SITE)
        encoder = fit_encoder(self.layout, merged, self.study.encode.scaler)
        if one_class(self.layout, merged):
            raise UsageError(
                f"column {self.layout.target.name!r} has one class only in the training rows of all sites: "
                "no model can be learned from it; ask sites that have another class, or check their mappings"
            )
        return participants, self.write_start(participants, encoder, summaries)

    def write_start(
        self, participants: Mapping[str, Participant], encoder: Encoder, sums: Mapping[str, Summary]
    ) -> Checkpoint:
        """Write the start file and return the common checkpoint, without sums."""
        bands = {site: enrolled.rows_high for site, enrolled in participants.items()}
        return checkpoints.begin(self.recorder.writer.run, encoder, sums, bands, self.recorder.shared_as.sharing)

    def return_of(self, bands: Mapping[str, int]) -> dict[str, Participant]:
        """Return the earlier participants that came back after a resume.

        Parameters
        ----------
        bands : mapping of site to int
            Upper ends of the bands of rows they declared at first.
        """
        now = self.enrol(tuple(bands))
        participants = {site: replace(now[site], rows_high=bands[site]) for site in sorted(set(bands) & set(now))}
        self._enough(participants, [f"{site}: did not come back" for site in sorted(set(bands) - set(now))])
        return participants

    def enrol(self, earlier: Sequence[str] = ()) -> dict[str, Participant]:
        """Enrol the sites and return the participants in name order.

        Sites in `earlier` took part before the run was resumed.
        """
        request = EnrolRequest(dataset=self.study.dataset.name, schema_sha256=self.schema.sha256())
        nodes = {str(node): node for node in self.grid.get_node_ids()}
        answers = self._ask(ENROL, request, nodes, EnrolReply.from_record)
        taking_part = [reply for reply in answers.replies.values() if reply.accepted]
        # Sharing is set before anything is recorded, since it decides under which name.
        self.recorder.share({reply.site: reply.share_metrics for reply in taking_part})
        names = {node: reply.site for node, reply in answers.replies.items()}
        self._crossed(ENROL, answers, {node: names.get(node, f"node {node}") for node in nodes})
        replies: dict[str, EnrolReply] = {}
        participants = {}
        for node, reply in sorted(answers.replies.items(), key=lambda item: item[1].site):
            if reply.site in replies:
                raise FlfedError(f"two nodes say they are site {reply.site!r}; a site's name must be unique")
            replies[reply.site] = reply
            if reply.accepted:
                participants[reply.site] = Participant(
                    node_id=nodes[node], rows_high=reply.rows_high, version=reply.version
                )
        self.recorder.enrolled(replies, earlier)
        self.privacy.enrolled({site: replies[site] for site in participants})
        said, absent, unnamed = unenrolled(self.grid, answers.faults)
        own = {reply.site: reply.reason for reply in replies.values() if not reply.accepted}
        whys = {**own, **said, **absent}
        gone = {site: whys.get(site, "") for site in earlier if site not in participants}
        self.recorder.events("fault", {site: f"{LEFT}: {why}" if why else LEFT for site, why in gone.items()})
        self.recorder.unnamed_faults(unnamed)
        self.recorder.refused({site: why for site, why in said.items() if site not in earlier})
        self.recorder.events("fault", {s: f"{NOT_THERE}{why}" for s, why in absent.items() if s not in earlier})
        reasons = [f"{site}: {why}" for site, why in whys.items()]
        self._enough(participants, reasons + unnamed, refused=bool(own or said), at_site=bool(own))
        self._enrolled(_nodes(participants))
        return participants

    def summarise(self, participants: Mapping[str, Participant]) -> dict[str, Summary]:
        """Return the sums of the sites that can give them."""
        answers = self._ask(SUMMARISE, SummariseRequest(), _nodes(participants), SummariseReply.from_record)
        self._crossed(SUMMARISE, answers)
        faults, found = answers.faults, {}
        for site, reply in answers.replies.items():
            why = summary_defect(reply.summary, self.layout, participants[site].rows_high)
            if why:
                faults[site] = why
            else:
                found[site] = reply.summary
        self.recorder.events("fault", faults)
        self._enough(found, [f"{site}: {reason}" for site, reason in faults.items()])
        return found

    def rounds(
        self, participants: Mapping[str, Participant], encoder: Encoder, kept: Checkpoint | None = None
    ) -> tuple[FedAvg, Arrays]:
        """Run the rounds and return the strategy and final arrays.

        It starts from the checkpoint where there is one. The first round, the last, the last good one before a
        stop, and one in every `checkpoints.seconds_apart` is a checkpoint on the disk before it is in the store.
        Without `kept`, which all checkpoints share, neither is written.
        """
        strategy: FedAvg = self.study.strategy.build("strategy")
        strategy.clock = self._clock
        checkpoint = None if kept is None else self.checkpoint
        behind: list[RoundRecord] = []  # the last good round, where it is no checkpoint yet

        def observer(record: RoundRecord) -> None:
            if kept is None:
                return
            self._scores = record.scores
            trained = len(record.losses) >= strategy.needed(len(record.asked))
            # A round that failed may be the last one, so the good one before it is written first.
            if not trained and behind:
                self._keep(behind.pop(), strategy, kept)  # the run may end here, and is gone on with from there
            self.privacy.asked(record, trained=trained)
            due = trained and (time.monotonic() >= self._next_checkpoint or record.round == self.study.rounds)
            behind[:] = [record] if trained and not due else []
            if due:
                self._keep(record, strategy, kept)
            self.recorder.round(record, trained=trained, durable=due or not trained)
            self.privacy.goes_on(record, trained=trained)
            self.observer("round" if trained else "evaluation", record.round)

        strategy.assign(
            RunContext(
                participants=participants,
                encoder=encoder,
                plan=self.study.plan,
                rounds=self.study.rounds,
                seed=self.seed,
                observer=observer,
                in_sums_only=self.recorder.shared_as.in_sums_only,
                mechanism=self.privacy.mechanism,
                chance=self.privacy.chance,
                outputs=offset_outputs(self.study, self.schema),
            )
        )
        first = self.first_arrays()
        if checkpoint is not None:
            first = checkpoint.arrays
            strategy.restore(checkpoint.round, checkpoint.state, checkpoint.facts["strategy"])
        with nullcontext() if kept is None else self.privacy.during(participants):
            result = strategy.start(self.grid, to_record(first), self.study.rounds)
        return strategy, to_arrays(result.arrays)

    def _keep(self, record: RoundRecord, strategy: FedAvg, kept: Checkpoint) -> None:
        """Write the round's checkpoint."""
        state, facts = strategy.state()
        facts = {"strategy": facts, "seconds": self._clock() - self._began, "privacy": self.privacy.facts()}
        checkpoint = replace(kept, round=record.round, arrays=record.arrays, state=state, facts=facts)
        checkpoints.write(self.recorder.writer.run, checkpoint)
        self._last = checkpoint
        self.privacy.checkpoint()
        self._next_checkpoint = time.monotonic() + self._apart
        self.observer("checkpoint", record.round)

    def first_arrays(self) -> Arrays:
        """Return the initial arrays in the plan's precision."""
        given = study_trainable(self.study, self.schema, self.model, seed=self.seed)
        return first_arrays(given, len(input_names(self.layout)))

    def offsets(self, strategy: FedAvg) -> SiteOffsets:
        """Return the estimate of the sites' intercepts."""
        if not strategy.run.outputs:
            return SiteOffsets()
        found = SiteOffsets(**self._once(SITE_OFFSETS, site_offsets(strategy.offsets).facts()))
        self.recorder.writer.summary(SITE_OFFSETS, found.facts(), durable=False)
        return found

    def score_bins(self, participants: Mapping[str, Participant]) -> ScoreBins:
        """Return the score bins that all sites can read."""
        all_read = all(reads_offset(enrolled.version) for enrolled in participants.values())
        found = score_bins(self._scores, self.recorder.shared_as) if all_read else EVEN_ODDS
        return ScoreBins(**self._once(SCORE_BINS, asdict(found)))

    def _once(self, name: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Return facts as the sites may have heard them.

        A site compares in one way in a run, and after a crash another set of sites may answer.
        """
        last = self._last
        if last is None:
            return facts
        # Written before it is sent: after a crash the sites hear the same again.
        if name not in last.facts and self._each_round:
            self._last = replace(last, facts={**last.facts, name: facts})
            checkpoints.write(self.recorder.writer.run, self._last)
        found: dict[str, Any] = last.facts.get(name, facts)
        return found

    def compare(
        self,
        participants: Mapping[str, Participant],
        outcome: Outcome,
        start: str,
        offsets: SiteOffsets,
        bins: ScoreBins,
    ) -> None:
        """Compare the models at every site and record it.

        What only all tables show is added. `start` is the start file's hash.
        """
        self.recorder.progress("compare", 0, 1)
        plain = CompareRequest(arrays=outcome.arrays, encoder=outcome.encoder)
        knowing = {site for site, enrolled in participants.items() if reads_offset(enrolled.version)}
        known = replace(plain, offset_deviation=offsets.sent())
        if bins.centre is not None and bins.spread is not None:
            known = replace(known, odds_centre=bins.centre, odds_spread=bins.spread)
        requests = {site: known if site in knowing else plain for site in participants}
        answers = ask_each(
            self.grid, COMPARE, requests, _nodes(participants), CompareReply.from_record, timeout=self._deadline()
        )
        self._crossed(COMPARE, answers)
        self.recorder.events("fault", {site: f"no comparison: {reason}" for site, reason in answers.faults.items()})
        replies = self._usable(answers.replies)
        for site in () if bins == EVEN_ODDS else replies.keys() - knowing:  # of those it knows: it came with a resume
            replies[site] = replace(replies[site], histogram=None)
        if not replies:
            raise FlfedError("no site could compare the models: see the faults in the run record")
        reference = None
        # Figures of a site that shares in sums only could be computed from the pooled ones.
        if self.tables is not None and not self.recorder.shared_as.are_whole(replies):
            self.recorder.note(f"no pooled reference: {WITHHELD}")
        elif self.tables is not None and len(replies) == len(participants):
            reference = self.tables.reference(list(participants), outcome.arrays, outcome.encoder, offsets.deviation)
            self._disclosure_cost(participants, outcome, reference)
        elif self.tables is not None:
            # Without a site's holdout it would compare with something else; and what fails there fails here.
            self.recorder.note("no pooled reference: not every site could be compared")
        self.recorder.comparison(replies, reference, bins)
        self._table_one(start, replies)
        self.recorder.progress("compare", 1, 1)

    def _table_one(self, start: str, replies: Mapping[str, CompareReply]) -> None:
        """Record Table 1 from the training and holdout sums."""
        try:
            summaries = checkpoints.summaries_of(self.recorder.writer.run, start)
        except FlfedError as error:
            self.recorder.note(f"{NO_TABLE_1}: {error}")  # all else of the run is there, and is not given up for it
        else:
            self.recorder.table_one(self.layout, summaries, replies)

    def _usable(self, replies: Mapping[str, CompareReply]) -> dict[str, CompareReply]:
        """Return credible comparisons, without sums that cannot be merged."""
        usable, faults = {}, {}
        for site, reply in replies.items():
            why = comparison_defect(reply)
            sums = summary_defect(reply.summary, self.layout) if reply.summary is not None else ""
            if why:
                faults[site] = f"no comparison: {why}"
                continue
            if sums:
                faults[site] = f"holdout rows: {sums}"
            usable[site] = replace(reply, summary=None) if sums else reply
        self.recorder.events("fault", faults)
        return usable

    def _disclosure_cost(self, participants: Mapping[str, Participant], outcome: Outcome, reference: Reference) -> None:
        """Record how suppression and coarse sums moved encoder and result."""
        exact, used = reference.exact_encoder, outcome.encoder
        if self.tables is None or exact.sha256() == used.sha256() or self.study.encode.scaler != "global":
            return
        if self.study.privacy.name != "none":
            return  # its rounds would be spent once more, for a difference that the noise alone makes
        columns = encoder_moved(self.layout, used, exact)
        far = sorted((name for name, by in columns.items() if by > FAR), key=lambda name: -columns[name])
        _, other = self.rounds(participants, exact)
        moved = self.tables.primary_moved(list(participants), outcome.arrays, used, other, exact)
        self.recorder.writer.summary("disclosure", {"columns-moved": columns, "primary-moved": moved})
        figure = f"by {moved:+.4f}" if math.isfinite(moved) else "(not defined there)"
        most = f" (most: {', '.join(far[:3])})" if far else ""
        self.recorder.note(
            f"disclosure 'institution', against exact sums, moved {self.recorder.primary} over all holdouts {figure}; "
            f"in the encoder {len(far)} of {len(columns)} columns moved by more than {FAR:g} standard deviations{most}"
        )

    def _ask(
        self, kind: str, request: Any, nodes: Mapping[str, int], read: Callable[[RecordDict], Reply]
    ) -> Answers[Reply]:
        """Ask every node and return the answers before the deadline."""
        return ask(self.grid, kind, request, nodes, read, timeout=self._deadline())

    def _crossed(self, kind: str, answers: Answers[Any], names: Mapping[str, str] | None = None) -> None:
        """Record the bytes sent under names, else under keys."""
        to_site, to_server = (
            {names[key] if names else key: size for key, size in sizes.items()}
            for sizes in (answers.to_node, answers.to_server)
        )
        self.recorder.crossed(kind, to_site, to_server)

    def _deadline(self) -> float:
        return float(self.study.strategy.settings.get("deadline", 600.0))

    def _enough(
        self, found: Mapping[str, object], reasons: list[str], *, refused: bool = False, at_site: bool = False
    ) -> None:
        """Refuse to continue with too few sites.

        The input is at fault where they `refused`, or where no more were asked.
        """
        if len(found) < LEAST_SITES:
            more = [f"{len(reasons) - SITES_NAMED} more"] if len(reasons) > FEW_SITES else []
            why = f" ({'; '.join([*reasons[: SITES_NAMED if more else None], *more])})" if reasons else ""
            few = "no site takes part" if not found else "only one site takes part"
            todo = "; see, at each site: flfed site check NAME" if at_site and "flfed site check" not in why else ""
            sentence = f"{few}, at least {LEAST_SITES} are needed{why}{todo}"
            sentence = self.recorder.shared_as.text(sentence)
            raise UsageError(sentence) if refused or not reasons else FlfedError(sentence)


def _nodes(participants: Mapping[str, Participant]) -> dict[str, int]:
    return {site: enrolled.node_id for site, enrolled in participants.items()}
