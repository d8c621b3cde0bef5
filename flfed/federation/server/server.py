"""Server side of one run, from enrolment to comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from flwr.serverapp import Grid

from flfed.callbacks import Clock
from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.privacy_recorder import PrivacyRecord
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.run_record import Outcome
from flfed.federation.recording.source_model import UNCOVERED, source_facts, source_of, start_arrays
from flfed.federation.server.checkpoint_writer import (
    CheckpointWriter,
    RoundCallback,
    RunObserver,
    no_observer,
    restored,
)
from flfed.federation.server.codecs import packing_saves, restore_sites
from flfed.federation.server.comparison import Comparison
from flfed.federation.server.fan_out import ask, check_enough, deadline_of, log_bytes, nodes_of, unenrolled
from flfed.federation.server.preflight import check_cohort, of_own_version
from flfed.federation.server.site_offsets import offset_outputs
from flfed.federation.server.sums.noised_counts import noised_encoder, scored_under_noise
from flfed.federation.server.sums.row_sums import begun_forest
from flfed.federation.server.sums.secure_sums import rehearsed, summed_summary, sums_of, whole_cohort
from flfed.refusals import Refusal, path_of
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.study_model import first_model, study_layout
from flfed.seeds import noise_key
from flfed.study.coverage import covers_model
from flfed.study.exchanges import most_rounds
from flfed.study.study import Study
from flfed.summaries.leaks import leak_warnings, untested
from flfed.summaries.summary import (
    Encoder,
    Layout,
    Summary,
    arrays_sha256,
    fit_encoder,
    merge,
    one_class,
    sums_sha256,
)
from flfed.updates.aggregation.guard import summary_defect
from flfed.updates.aggregation.rounds import Participant, RunContext, ignore
from flfed.updates.aggregation.secure_sum import SecureSums
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.updates.checkpoints.sum_file import kept_cohort
from flfed.updates.codec import codec_of, download_of, shapes_of
from flfed.updates.extra import extra_shapes, own_facts
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.summarise import SUMMARISE, SummariseReply, SummariseRequest
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record

if TYPE_CHECKING:
    from flfed.federation.engines.pooled_reference import (
        PooledReference,  # a site's half, which a coordinator does without
    )

SAYS_WHERE = ("policy-unreadable", "table-unopened")
"""Codes of refusals that name `flfed site check` themselves."""
PER_SITE = (
    "every site scaled its rows by its own means (encode.scaler = 'per-site'): "
    "this reproduces others' results and costs accuracy; 'global' is right"
)


# enrol ──► summarise ──► encoder ──► rounds ──► last evaluation ──► compare
#   │           │            │          │
#   who         sums of      start      each one written by
#   takes       training     file       the checkpoint writer
#   part        rows
@dataclass(eq=False, repr=False)
class FederatedRun:
    """One federated run over a grid.

    Attributes
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
    callback : callable (figures), optional
        Told the figures of each round; the run ends after it where what it returns is true.
    clock : callable
        Seconds that are the run's own.
    each_round : bool
        Whether every round is a checkpoint: institutions train from one model in a round, and a round
        that is asked again after a crash must bring the same. Noise is the operating system's then, too.
    enrolled : callable (nodes by site)
        Told who takes part, each time the sites were enrolled; what it raises ends the run.
    """

    grid: Grid
    study: Study
    recorder: Recorder
    _: KW_ONLY
    repeat: int = 0
    tables: PooledReference | None = None
    checkpoint: Checkpoint | None = None
    observer: RunObserver = no_observer
    callback: RoundCallback | None = None
    clock: Clock = time.monotonic
    each_round: bool = False
    enrolled: Callable[[Mapping[str, int]], None] = lambda nodes: None

    def __post_init__(self) -> None:
        """Take up what a checkpoint knows."""
        done = self.checkpoint.facts["seconds"] if self.checkpoint else 0.0
        self.privacy = PrivacyRecord(self.study, self.recorder, deployed=self.each_round)
        self.privacy.restore(self.checkpoint)
        self.writer = CheckpointWriter(self, self.clock() - done, self.checkpoint)
        self.sums: SecureSums | None = None

    @cached_property
    def schema(self) -> Schema:
        """The schema of the study's dataset."""
        return datasets.load(self.study.dataset.name).schema

    @cached_property
    def layout(self) -> Layout:
        """The layout of the sites' sums."""
        return study_layout(self.study, self.schema)

    def conduct(self) -> Outcome:
        """Run every step of the study and return the outcome; raises FlfedError if too few sites take part."""
        participants, kept = self.begin() if self.checkpoint is None else self._resume(self.checkpoint)
        strategy, arrays = self.rounds(participants, kept.encoder, kept)
        outcome = Outcome(
            status="stopped" if strategy.stopped else "completed",
            reason=self.recorder.shared_as.text(strategy.stopped) or self.writer.ended,
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
            self.compare(participants, outcome, kept.start, strategy)
        return replace(outcome, seconds=self.writer.seconds())

    def _resume(self, checkpoint: Checkpoint) -> tuple[dict[str, Participant], Checkpoint]:
        """Return the participants that came back, and the common checkpoint."""
        self.recorder.share(checkpoint.sharing)
        if cohort := kept_cohort(self.recorder.writer.run):
            return self.whole(cohort)[0], checkpoint
        before = checkpoint.participants
        # A site that was missing at an earlier resume is not asked back.
        bands = {site: high for site, high in before.items() if site not in checkpoint.left}
        now = self.enrol(tuple(bands))
        participants = {site: replace(now[site], rows_high=bands[site]) for site in sorted(set(bands) & set(now))}
        gone = [f"{site}: did not come back" for site in sorted(set(bands) - set(now))]
        check_enough(participants, gone, self.recorder.shared_as)
        self.sums = sums_of(self, participants, participants)
        return participants, replace(checkpoint, left=tuple(sorted(set(before) - set(participants))))

    def begin(self) -> tuple[dict[str, Participant], Checkpoint]:
        """Return the participants and the common checkpoint of a new run."""
        # A run that ended before its first round may have told its sites who takes part.
        participants, back = self.whole(kept_cohort(self.recorder.writer.run))
        if covers_model(self.study):
            participants, encoder = noised_encoder(self, participants)
            return participants, self.write_start(participants, encoder, {})
        if self.sums is not None and self.sums.in_sums_only:
            summaries, merged = dict[str, Summary](), summed_summary(self, participants)
        else:
            summaries = self.summarise(back)
            merged = merge(list(summaries.values()))
        if self.sums is None:
            participants = {site: participants[site] for site in summaries}
        self.privacy.counted({site: float(summary.rows[0]) for site, summary in summaries.items()})
        self.recorder.leaks(leak_warnings(self.layout, merged), untested(self.layout, merged))
        sums = {"sha256": arrays_sha256(merged.arrays()), "rounded": sums_sha256(merged)}
        self.recorder.writer.summary("training-sums", sums, durable=False)
        note_parts(participants, self.recorder)
        note_beginnings(self)
        encoder = fit_encoder(self.layout, merged, self.study.encode.scaler)
        check_classes(self.layout, merged)
        if saved := packing_saves(self.study, self.first_arrays()):
            self.recorder.writer.summary("codec", saved, durable=False)
        return participants, self.write_start(participants, encoder, summaries)

    def whole(self, cohort: Mapping[str, Participant]) -> tuple[dict[str, Participant], dict[str, Participant]]:
        """Return the participants and those of them that are there, once they have keys where there are sums.

        Of the `cohort` of earlier nobody is dropped: who is not back is missing in a round, until it is.
        """
        back = self.enrol(tuple(cohort), cohort)
        participants = whole_cohort(cohort, back, self.grid)
        self.sums = sums_of(self, participants, back)
        return participants, back

    def write_start(
        self, participants: Mapping[str, Participant], encoder: Encoder, sums: Mapping[str, Summary]
    ) -> Checkpoint:
        """Write the start file and return the common checkpoint, without sums."""
        bands = {site: enrolled.rows_high for site, enrolled in participants.items()}
        return checkpoints.begin(self.recorder.writer.run, encoder, sums, bands, self.recorder.shared_as.sharing)

    def enrol(self, earlier: Sequence[str] = (), cohort: Collection[str] = ()) -> dict[str, Participant]:
        """Enrol the sites and return the participants in name order.

        Sites in `earlier` took part before the run was resumed; no other site takes part where it has a `cohort`.
        """
        request = EnrolRequest(dataset=self.study.dataset.name, schema_sha256=self.schema.sha256())
        nodes = {str(node): node for node in self.grid.get_node_ids()}
        answers = ask(self.grid, ENROL, request, nodes, EnrolReply.from_record, timeout=deadline_of(self.study))
        taking_part = [reply for reply in answers.replies.values() if reply.accepted]
        # Sharing is set before anything is recorded, since it decides under which name.
        self.recorder.share({reply.site: reply.share_metrics for reply in taking_part})
        names = {node: reply.site for node, reply in answers.replies.items()}
        log_bytes(self.recorder, ENROL, answers, {node: names.get(node, f"node {node}") for node in nodes})
        replies: dict[str, EnrolReply] = {}
        participants = {}
        for node, reply in sorted(answers.replies.items(), key=lambda item: item[1].site):
            if reply.site in replies:
                raise FlfedError(f"two nodes say they are site {reply.site!r}; a site's name must be unique")
            reply = replies[reply.site] = of_own_version(reply)
            if reply.accepted and (not cohort or reply.site in cohort):
                participants[reply.site] = Participant.of(nodes[node], reply)
        self.recorder.enrolled(replies, earlier)
        self.privacy.enrolled({site: replies[site] for site in participants})
        said, absent, unnamed = unenrolled(self.grid, answers.faults)
        if not earlier:
            check_cohort(participants, said, self.study)
        own = {reply.site: reply.reason for reply in replies.values() if not reply.accepted}
        whys = {**own, **said, **absent}
        gone = {site: whys.get(site, "") for site in earlier if site not in participants}
        self.recorder.events("fault", {site: _absence(why, stays=bool(cohort)) for site, why in gone.items()})
        self.recorder.unnamed_faults(unnamed)
        self.recorder.refused({site: why for site, why in said.items() if site not in earlier})
        self.recorder.events(
            "fault", {s: Refusal("not-there", why=why) for s, why in absent.items() if s not in earlier}
        )
        reasons = [f"{site}: {why}" for site, why in whys.items()]
        at_site = bool(own) and not any(path_of(reason) in SAYS_WHERE for reason in own.values())
        # Below their threshold sums stop by themselves, and may go on later.
        if not cohort:
            check_enough(
                participants, [*reasons, *unnamed], self.recorder.shared_as, refused=bool(own or said), at_site=at_site
            )
        self.enrolled(nodes_of(participants))
        return participants

    def summarise(self, participants: Mapping[str, Participant]) -> dict[str, Summary]:
        """Return the sums of the sites that can give them."""
        nodes, timeout = nodes_of(participants), deadline_of(self.study)
        answers = ask(self.grid, SUMMARISE, SummariseRequest(), nodes, SummariseReply.from_record, timeout=timeout)
        log_bytes(self.recorder, SUMMARISE, answers)
        faults, found = answers.faults, {}
        for site, reply in answers.replies.items():
            why = summary_defect(reply.summary, self.layout, participants[site].rows_high)
            if why:
                faults[site] = why
            elif reply.summary is not None:
                found[site] = reply.summary
        self.recorder.events("fault", faults)
        check_enough(found, [f"{site}: {reason}" for site, reason in faults.items()], self.recorder.shared_as)
        return found

    def rounds(
        self, participants: Mapping[str, Participant], encoder: Encoder, kept: Checkpoint | None = None
    ) -> tuple[FedAvg, Arrays]:
        """Run the rounds and return the strategy and final arrays.

        It starts from the checkpoint where there is one. Without `kept`, which all checkpoints share, neither
        checkpoint nor round is written.
        """
        strategy: FedAvg = self.study.strategy.build("strategy")
        strategy.clock = self.clock
        strategy.assign(
            RunContext(
                participants=participants,
                encoder=encoder,
                plan=self.study.plan,
                rounds=self.study.rounds,
                seed=self.study.seed + self.repeat,
                observer=ignore if kept is None else partial(self.writer.observe, strategy=strategy, common=kept),
                in_sums_only=self.recorder.shared_as.in_sums_only,
                mechanism=self.privacy.mechanism,
                chance=self.privacy.chance,
                study=noise_key(self.study.text),
                codec=codec_of(self.study),
                download=download_of(self.study),
                outputs=offset_outputs(self.study, self.schema),
                sums=rehearsed(self.grid, self.study, participants) if kept is None else self.sums,
                scored=not covers_model(self.study),
            )
        )
        if kept is None or self.checkpoint is None:
            first = begun_with(self, encoder, participants)
        else:
            first, of_sites = self.checkpoint.arrays, restored(self.checkpoint, strategy, self.sums)
            if forgotten := restore_sites(self.grid, self.checkpoint.round, of_sites, strategy, shapes_of(first)):
                self.recorder.note(forgotten)
        with nullcontext() if kept is None else self.privacy.during(participants):
            if kept is not None and self.checkpoint is None:
                self.writer.begin(first, strategy, kept)
            result = strategy.start(self.grid, to_record(first), most_rounds(self.study))
        return strategy, to_arrays(result.arrays)

    def compare(self, participants: Mapping[str, Participant], outcome: Outcome, start: str, strategy: FedAvg) -> None:
        """Compare the models at every site, or score the shared one under noise; `start` is the start file's hash."""
        if covers_model(self.study):
            scored_under_noise(self, participants, outcome)
        else:
            Comparison(self, participants, outcome).conduct(start, strategy)

    def first_arrays(self) -> Arrays:
        """Return the initial arrays in the plan's precision."""
        return first_model(self.study, self.schema, self.repeat)


def check_classes(layout: Layout, merged: Summary) -> None:
    """Refuse a run whose training rows have one class only; raises UsageError."""
    if one_class(layout, merged):
        raise UsageError(
            f"column {layout.target.name!r} has one class only in the training rows of all sites: "
            "no model can be learned from it; ask sites that have another class, or check their mappings"
        )


def begun_with(run: FederatedRun, encoder: Encoder, participants: Mapping[str, Participant]) -> Arrays:
    """Return the arrays that a run's first round is trained from."""
    if run.layout.plain:
        return begun_forest(run, participants)
    widths = widths_of(participants).values()
    return start_arrays(run.study, run.schema, encoder, run.repeat, widths, series=run.recorder.shared_as.series)


def note_beginnings(run: FederatedRun) -> None:
    """Record which model of an earlier run the study begins with, and what each site has of its own."""
    if run.study.encode.scaler == "per-site":
        run.recorder.note(PER_SITE)
    if (source := source_of(run.study, run.recorder.shared_as.series)) is not None:
        run.recorder.writer.summary("warm-start", source_facts(source, run.layout), durable=False)
        if run.study.privacy.name != "none":
            run.recorder.note(UNCOVERED)
    if own := own_facts(extra_shapes(run.study, shapes_of(run.first_arrays()))):
        run.recorder.writer.summary("own-parts", own, durable=False)


def widths_of(participants: Mapping[str, Participant]) -> dict[str, float]:
    """Return the share of the hidden units that each site trains."""
    return {site: one.width for site, one in participants.items()}


def note_parts(participants: Mapping[str, Participant], recorder: Recorder) -> None:
    """Note which sites train a part of the model, of those whose figures may be told."""
    parts = {site: width for site, width in widths_of(participants).items() if width < 1}
    told = [f"{site} ({width:g} of each hidden layer)" for site, width in recorder.shared_as.own(parts).items()]
    if told:
        recorder.note(
            f"trained in part by {', '.join(told)}: for its other units such a site counts as having changed nothing"
        )


def _absence(why: str, *, stays: bool) -> Refusal:
    """Return what is said of a site that took part before a run was resumed, whether it `stays` in the run or not."""
    if stays:
        return Refusal("away-because", why=why) if why else Refusal("away")
    return Refusal("left-because", why=why) if why else Refusal("left")
