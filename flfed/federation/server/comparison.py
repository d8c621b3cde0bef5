"""Comparison of a run's final model with others, over the sites' holdouts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from flfed.errors import FlfedError
from flfed.federation.recording.pooled_figures import SCORE_BINS, importances, score_bins, together
from flfed.federation.recording.pseudonyms import WITHHELD
from flfed.federation.recording.run_record import Outcome
from flfed.federation.recording.training_record import recorded_training
from flfed.federation.server.fan_out import Answers, ask, deadline_of, log_bytes, nodes_of
from flfed.federation.server.site_offsets import SITE_OFFSETS, SiteOffsets, site_offsets
from flfed.federation.server.sums.secure_sums import summed_figures
from flfed.refusals import Refusal
from flfed.rows.comparison.pooled import Reference
from flfed.rows.comparison.subgroups import groupings
from flfed.rows.data import datasets
from flfed.rows.features.encode import input_names
from flfed.summaries.drift import encoder_moved
from flfed.summaries.score_bins import ScoreBins
from flfed.summaries.summary import Encoder
from flfed.trees.forest import forest_of, gains_by_column
from flfed.updates.aggregation.encoder_delivery import EncoderDelivery
from flfed.updates.aggregation.guard import comparison_defect, summary_defect
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.codec import is_encrypted, shapes_of
from flfed.updates.extra import ExtraShapes, extra_shapes
from flfed.updates.masking.figure_sums import FigureLayout
from flfed.updates.messages.compare import COMPARE, NOT_KNOWN, CompareReply, CompareRequest
from flfed.updates.messages.fields import Arrays
from flfed.updates.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    from flfed.federation.engines.pooled_reference import PooledReference
    from flfed.federation.server.server import FederatedRun

FAR = 0.1
"""Standard deviations by which a column's centre may move before the record names it."""
ENCRYPTED = "the server has the run's models as ciphertexts only"


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Comparison of a run's models at every site.

    Attributes
    ----------
    run : FederatedRun
    participants : mapping of site to Participant
    outcome : Outcome
        With the final model.
    """

    run: FederatedRun
    participants: Mapping[str, Participant]
    outcome: Outcome

    def conduct(self, start: str, strategy: FedAvg) -> None:
        """Compare the models and record it.

        What only all tables show is added. `start` is the start file's hash.
        """
        offsets, bins = self._offsets(strategy), self._score_bins()
        recorder = self.run.recorder
        recorder.progress("compare", 0, 1)
        replies = self._replies(offsets, bins, strategy.run.delivery)
        # Where all sites share figures in sums only, each of them stays or is in their sum.
        if not replies and not (self.run.sums is not None and self.run.sums.in_sums_only):
            raise FlfedError("no site could compare the models: see the faults in the run record")
        reference = self._reference(replies, offsets)
        recorder.comparison(replies, reference, bins)
        training = recorded_training(recorder.writer, recorder.primary, self.run.study, reference)
        if training is not None:
            recorder.writer.summary("training", training, durable=False)
        self._coefficients()
        self._gains()
        self._told(replies, strategy.round.incoming)
        self._importances(replies)
        self._table_one(start, replies)
        recorder.progress("compare", 1, 1)

    def _coefficients(self) -> None:
        """Record a linear model's coefficients, which every site has been sent."""
        if is_encrypted(self.outcome.arrays) or self._own.own_part:
            return
        model = self.run.study.model.build("model")
        layers: Any = getattr(model, "layers", ())  # which a linear model of another package may lack
        if not model.linear or len(layers) != 1 or self.run.layout.task != "binary":
            return
        weight, bias = (self.outcome.arrays[name].astype(float) for name in layers[0])
        found = {
            "inputs": list(input_names(self.run.layout)),
            "coefficients": weight[:, 0].tolist(),
            "intercept": float(bias[0]),
        }
        self.run.recorder.writer.summary("coefficients", found, durable=False)

    def _gains(self) -> None:
        """Record what the splits of each column gain, where the model is trees."""
        if not self.run.layout.plain:
            return
        forest, names = forest_of(self.outcome.arrays), [column.name for column in self.run.layout.features]
        gains = gains_by_column(forest, len(names)).tolist()
        columns = [{"column": name, "gain": gain} for name, gain in zip(names, gains, strict=True)]
        found = {"trees": sum(map(len, forest)), "columns": columns}
        self.run.recorder.writer.summary("gains", found, durable=False)

    def _told(self, replies: Mapping[str, CompareReply], grown: Arrays) -> None:
        """Record how many outcomes the sums of the first trees told, where this engine holds the tables.

        `grown` are all trees: validation rows may have chosen none of them, and their sums have left all the same.
        """
        shared = self.run.recorder.shared_as
        if not self.run.layout.plain or self.run.tables is None or not shared.are_whole(replies):
            return
        told = self.run.tables.told_outcomes(list(replies), grown, self.outcome.encoder)
        self.run.recorder.writer.summary("told-outcomes", told | {"sites": shared.own(told["sites"])}, durable=False)

    def _importances(self, replies: Mapping[str, CompareReply]) -> None:
        """Record each column's importance, where the study asks for it."""
        found = importances(replies, self.run.recorder.shared_as, self._columns)
        if found is not None:
            loss = "half the squared error" if self.run.layout.task == "regression" else "log loss"
            told = {"loss": loss, "permutations": self.run.study.compare.importance}
            self.run.recorder.writer.summary("importances", told | found, durable=False)

    @property
    def _own(self) -> ExtraShapes:
        """What of the model is each site's own."""
        return extra_shapes(self.run.study, shapes_of(self.run.first_arrays()))

    @property
    def _columns(self) -> list[str]:
        """Columns whose importance the study asks for."""
        return [column.name for column in self.run.layout.features] if self.run.study.compare.importance else []

    def _offsets(self, strategy: FedAvg) -> SiteOffsets:
        """Return the estimate of the sites' intercepts."""
        if not strategy.run.outputs:
            return SiteOffsets()
        found = SiteOffsets(**self.run.writer.once(SITE_OFFSETS, site_offsets(strategy.offsets).facts()))
        self.run.recorder.writer.summary(SITE_OFFSETS, found.facts(), durable=False)
        return found

    def _score_bins(self) -> ScoreBins:
        """Return the score bins of the comparison."""
        found = score_bins(self.run.writer.scores, self.run.recorder.shared_as)
        return ScoreBins(**self.run.writer.once(SCORE_BINS, asdict(found)))

    def _replies(self, offsets: SiteOffsets, bins: ScoreBins, delivery: EncoderDelivery) -> dict[str, CompareReply]:
        """Return the sites' comparisons that can be used."""
        request = CompareRequest(
            arrays=self.outcome.arrays,
            encoder=self.outcome.encoder,
            sites=self._looked_at(),
            trained=self._trained(),
            offset_deviation=offsets.sent(),
        )
        if bins.centre is not None and bins.spread is not None:
            request = replace(request, odds_centre=bins.centre, odds_spread=bins.spread)
        answers = self._ask(request, delivery)
        self.run.recorder.events(
            "fault", {site: Refusal("no-comparison", why=reason) for site, reason in answers.faults.items()}
        )
        replies = self._usable(answers.replies)
        if (sums := self.run.sums) is not None and (reserved := sorted(sums.in_sums_only & replies.keys())):
            self.run.recorder.note(Refusal("figures-kept", sites=", ".join(reserved[:3])))
            self._together(replies)
            replies = {site: reply for site, reply in replies.items() if site not in reserved}
        return replies

    def _trained(self) -> str:
        """Return whether the model was trained enough, as its sites are told: by the losses that left them."""
        training = recorded_training(self.run.recorder.writer, self.run.recorder.primary, self.run.study)
        if training is None or training["enough"] is None:
            return NOT_KNOWN
        return "enough" if training["enough"] else "not-enough"

    def _looked_at(self) -> int:
        """Return how many sites take part and share figures of their own, and record it: verdicts go by it."""
        sharing = len(self.run.recorder.shared_as.own(self.participants))
        found = self.run.writer.once("looked-at", {"sites": max(sharing, 1)})
        self.run.recorder.writer.summary("looked-at", found, durable=False)
        return int(found["sites"])

    def _together(self, replies: Mapping[str, CompareReply]) -> None:
        """Record the figures of all sites that share them in sums only, which no site's own follow from."""
        run, recorder = self.run, self.run.recorder
        layout = FigureLayout.of(run.layout.task, run.study.compare.points, self.outcome.encoder)
        found = summed_figures(run, self.participants, replies, layout)
        if isinstance(found, Refusal):
            recorder.note(Refusal("figures-unsummed", why=found))
        elif found is not None:
            recorder.note(Refusal("figures-summed", sites=found.sites))
            recorder.writer.summary("sums-only", together(found), durable=False)

    def _ask(self, request: CompareRequest, delivery: EncoderDelivery) -> Answers[CompareReply]:
        """Return the sites' answers; who has lost the encoder is asked again, and gets it whole."""
        nodes, timeout = nodes_of(self.participants), deadline_of(self.run.study)
        # Sites that have the encoder are sent one request, which is written once, and so are the others.
        written = {by_hash: replace(request, by_hash=by_hash) for by_hash in (False, True)}
        sent = {site: written[site in delivery.holders] for site in self.participants}
        answers = ask(self.run.grid, COMPARE, sent, nodes, CompareReply.from_record, timeout=timeout)
        log_bytes(self.run.recorder, COMPARE, answers)
        lacking = {site: nodes[site] for site, reason in answers.faults.items() if delivery.lost(site, reason)}
        if not lacking:
            return answers
        whole = {site: replace(sent[site], by_hash=False) for site in lacking}
        again = ask(self.run.grid, COMPARE, whole, lacking, CompareReply.from_record, timeout=timeout)
        log_bytes(self.run.recorder, COMPARE, again)
        left = {site: reason for site, reason in answers.faults.items() if site not in lacking}
        return replace(again, replies={**answers.replies, **again.replies}, faults={**left, **again.faults})

    def _usable(self, replies: Mapping[str, CompareReply]) -> dict[str, CompareReply]:
        """Return credible comparisons, without sums that cannot be merged."""
        usable, faults = {}, {}
        study = self.run.study
        schema = datasets.load(study.dataset.name).schema
        known = {(one.column, label) for one in groupings(study.compare.by, schema) for label in one.labels}
        for site, reply in replies.items():
            why = comparison_defect(reply)
            sums = summary_defect(reply.summary, self.run.layout) if reply.summary is not None else ""
            if why:
                faults[site] = Refusal("no-comparison", why=why)
                continue
            if sums:
                faults[site] = Refusal("holdout-sums", why=sums)
            # What the study does not ask for is of no site's policy, and is not written down.
            points = tuple(point for point in reply.points if point.point in study.compare.points)
            groups = tuple(one for one in reply.groups if (one.column, one.group) in known)
            importance = tuple(one for one in reply.importance if one.column in self._columns)
            withheld = tuple(one for one in reply.withheld if one.column in self._columns)
            asked_for = replace(reply, points=points, groups=groups, importance=importance, withheld=withheld)
            usable[site] = replace(asked_for, summary=None) if sums else asked_for
        self.run.recorder.events("fault", faults)
        return usable

    def _reference(self, replies: Mapping[str, CompareReply], offsets: SiteOffsets) -> Reference | None:
        """Return the pooled reference, None where there is none."""
        if self.run.tables is None:
            return None
        if is_encrypted(self.outcome.arrays):
            self.run.recorder.note(Refusal("no-pooled-reference", why=ENCRYPTED))
            return None
        # Figures of a site that shares in sums only could be computed from the pooled ones.
        if not self.run.recorder.shared_as.are_whole(replies):
            self.run.recorder.note(Refusal("no-pooled-reference", why=WITHHELD))
            return None
        # Without a site's holdout it would compare with something else; and what fails there fails here.
        if len(replies) < len(self.participants):
            self.run.recorder.note(Refusal("no-pooled-reference", why="not every site could be compared"))
            return None
        arrays, encoder = self.outcome.arrays, self.outcome.encoder
        reference = self.run.tables.reference(list(self.participants), arrays, encoder, offsets.deviation)
        self._disclosure_cost(self.run.tables, reference.exact_encoder)
        return reference

    def _disclosure_cost(self, tables: PooledReference, exact: Encoder) -> None:
        """Record how suppression and coarse sums moved encoder and result."""
        used = self.outcome.encoder
        if exact.sha256() == used.sha256() or self.run.study.encode.scaler != "global":
            return
        if self.run.study.privacy.name != "none" or self._own.own_part:
            return  # its rounds would be spent, or sites' own parts made, once more
        columns = encoder_moved(self.run.layout, used, exact)
        far = sorted((name for name, by in columns.items() if by > FAR), key=lambda name: -columns[name])
        _, other = self.run.rounds(self.participants, exact)
        moved = tables.primary_moved(list(self.participants), self.outcome.arrays, used, other, exact)
        self.run.recorder.writer.summary("disclosure", {"columns-moved": columns, "primary-moved": moved})
        figure = f"by {moved:+.4f}" if math.isfinite(moved) else "(not defined there)"
        most = f" (most: {', '.join(far[:3])})" if far else ""
        primary = self.run.recorder.primary
        self.run.recorder.note(
            f"disclosure 'institution', against exact sums, moved {primary} over all holdouts {figure}; "
            f"in the encoder {len(far)} of {len(columns)} columns moved by more than {FAR:g} standard deviations{most}"
        )

    def _table_one(self, start: str, replies: Mapping[str, CompareReply]) -> None:
        """Record Table 1 from the training and holdout sums."""
        if self.run.sums is not None and self.run.sums.in_sums_only:
            self.run.recorder.note(Refusal("no-table-1", why=Refusal("sums-masked")))
            return
        try:
            summaries = checkpoints.summaries_of(self.run.recorder.writer.run, start)
        except FlfedError as error:
            # All else of the run is there, and is not given up for it.
            self.run.recorder.note(Refusal("no-table-1", why=error))
        else:
            self.run.recorder.table_one(self.run.layout, summaries, replies)
