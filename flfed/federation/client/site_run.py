"""A site's part of one run, and what it answers about secure sums."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import Context, Message

from flfed.federation.client.packing import extra_shapes_of, model_shapes_of
from flfed.federation.client.redaction import NotTakingPart, redact_round
from flfed.federation.client.run_keys import Approving, Known, RunKeys
from flfed.federation.client.secure_sums import ModelRequest, SiteCiphers, SiteFigures, SiteSums
from flfed.federation.client.tree_sums import SiteTreeSums
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy, RoundFigures
from flfed.rows.own_parts import OwnArrays
from flfed.rows.session import SiteSession
from flfed.rows.study_model import first_model
from flfed.rows.training.requests import ComputeRequest
from flfed.rows.warm_start import FindSource, no_source, rewritten
from flfed.study.exchanges import grows
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, arrays_sha256
from flfed.updates.checkpoints.reply_cache import kept_replies
from flfed.updates.checkpoints.run_state import RunState, SiteModel, StateFiles, site_model
from flfed.updates.codec import arrays_defect
from flfed.updates.extra import ExtraShapes, own_arrays
from flfed.updates.masking.order import sum_name
from flfed.updates.masking.question import question_sha256, rows_question
from flfed.updates.messages.compare import COMPARE, CompareReply, CompareRequest
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.in_memory import read
from flfed.updates.messages.secure_sum import (
    KEYS,
    LIST,
    UNMASK,
    KeysReply,
    KeysRequest,
    ListReply,
    ListRequest,
    UnmaskReply,
    UnmaskRequest,
    joined,
    parted,
)
from flfed.updates.messages.secure_sum import SECTION as MASKED
from flfed.updates.messages.summarise import BINS, STATISTIC, SUMMARISE
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteRun:
    """What a site has of one run: its name there, its state, and what was approved of secure sums.

    Attributes
    ----------
    site, run : str
    repeat : int
    state : RunState
    approving : callable (study) → SumApproval or None, optional
        None where no institution's gate stands before the site.
    rows : str
        Says which rows the site has now, where they may change.
    source : callable (study) → Source or None
        What is here of the model that a study begins from.
    """

    site: str
    run: str
    repeat: int
    state: RunState
    approving: Approving | None
    rows: str = ""
    source: FindSource = no_source

    @classmethod
    def of(
        cls,
        context: Context,
        state: RunState,
        approving: Approving | None,
        rows: str = "",
        source: FindSource = no_source,
    ) -> SiteRun:
        """Return the run that a message belongs to."""
        config = context.run_config
        run = str(config.get("run") or config.get("run-here", ""))
        site, repeat = str(context.node_config["site"]), int(config.get("repeat", 0))
        return cls(site=site, run=run, repeat=repeat, state=state, approving=approving, rows=rows, source=source)

    def under(self, session: SiteSession) -> str:
        """Return what an answer that is kept depends on besides its request: seed, rows, policy and study."""
        policy = session.site.policy.model_dump_json()
        self.state.under = "\n".join((str(session.seed), self.rows, policy, session.study.text))
        return self.state.under

    def start(self, session: SiteSession, encoder: Encoder) -> Arrays | None:
        """Return what the run began with, for its encoder; None where that is no earlier model, or it is not here."""
        study = session.study
        source = self.source(study) if study.warm_start else None
        if source is None:
            return None
        first = first_model(study, session.schema, session.seed - study.seed)
        return rewritten(source, first, session.layout, encoder)

    def figures(self, study: Study) -> SiteFigures | None:
        """Return the site's half of the sum of figures, None where its own do not leave in one."""
        sums = self.sums(study)
        found = None if sums is None or isinstance(sums, SiteCiphers) else SiteFigures(sums.keys)
        return found if found is not None and found.are_summed() else None

    def sums(self, study: Study) -> SiteSums | None:
        """Return the site's half of a study's secure sums, None where its updates cross as they are."""
        if not study.aggregation.sums_updates:
            return None
        approval = None if self.approving is None else self.approving(study)
        # Institutions decide when they approve; one process rehearses where it is asked to.
        if approval is None and (self.approving is not None or study.aggregation.is_optional):
            return None
        keys = RunKeys(
            site=self.site, study=study, run=self.run, repeat=self.repeat, state=self.state, approval=approval
        )
        if study.aggregation.is_encrypted:
            return SiteCiphers(keys)
        return SiteTreeSums(keys) if grows(study) else SiteSums(keys)

    def before(self, round: int, session: SiteSession) -> Arrays:
        """Return the arrays that the site kept in its last round before this one."""
        self.under(session)
        return self.state.before(round)

    def last_own(self, session: SiteSession, shapes: ExtraShapes) -> Arrays:
        """Return what the site has of its own of the run's model, after its last round.

        A comparison may be asked again when the site has forgotten the rounds: it is with the run's model then.
        """
        self.under(session)
        if (found := own_arrays(self.state.last(), shapes)) or self.approving is None:
            return found
        known = site_model(self.site, self.run, self.repeat)
        return {} if known is None or arrays_defect(known.own, shapes.own) else known.own

    def opened(self, request: ModelRequest, study: Study) -> Arrays:
        """Return the model of a request, opened where it is a sum of ciphertexts.

        Raises
        ------
        NotTakingPart
            If the study has such sums, and the model is none of its run.
        """
        sums = self.sums(study) if study.aggregation.is_encrypted else None
        return sums.opened(request, model_shapes_of(study.text)) if isinstance(sums, SiteCiphers) else request.arrays

    def last_model(self, request: CompareRequest, study: Study, own: Arrays) -> Arrays:
        """Return the model of a comparison, and keep it where the coordinator lacks it or a part; raises NotKept.

        The site forgets the run's key, and its own part of the model, once it has compared; what is asked again is
        answered from what was kept.
        """
        if not (study.aggregation.is_encrypted or own):
            return request.arrays
        of = arrays_sha256(request.arrays)
        known = site_model(self.site, self.run, self.repeat)
        if known is not None and known.of == of:
            return known.arrays
        arrays = self.opened(request, study)
        self.keep_model(SiteModel(study=study.text, of=of, arrays=arrays, encoder=request.encoder, own=own))
        return arrays

    def keep_model(self, model: SiteModel) -> None:
        """Keep the run's last model at the site; raises NotKept."""
        # One process that rehearses has all sites, and its run has no place of theirs.
        if self.approving is not None:
            model.write(self.site, self.run, self.repeat)


def compared_model(request: CompareRequest, session: SiteSession, own: SiteRun) -> Arrays:
    """Return the model of a comparison, whose part of the site's own its session has then; raises NotKept."""
    shapes = extra_shapes_of(session.study.text)
    kept = own.last_own(session, shapes) if shapes.own else {}
    arrays = own.last_model(request, session.study, kept)
    session.own_arrays = own_part_of(kept, shapes, arrays)
    return arrays


def own_part_of(kept: Arrays, shapes: ExtraShapes, incoming: Arrays) -> OwnArrays:
    """Return what a site has of its own of the model; before its first round, what came stands for it."""
    if shapes.own_model:
        return OwnArrays(model=kept or incoming)
    return OwnArrays(part=kept, names=tuple(shapes.own_part))


SumReply = KeysReply | ListReply | UnmaskReply
_ANSWERS: dict[str, tuple[type[Any], Callable[[SiteSums, Any], SumReply]]] = {
    KEYS: (KeysRequest, lambda sums, request: sums.keys.take(request)),
    LIST: (ListRequest, lambda sums, request: sums.confirm(request)),
    UNMASK: (UnmaskRequest, lambda sums, request: sums.open(request)),
}
"""What a site is asked about its secure sums, and what it answers."""


def answer_sums(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, SumReply]:
    """Take the keys of the run's cohort, confirm a list to its sites, or open a sum."""
    kind, answered = _ANSWERS[message.metadata.message_type]
    request = read(kind, message.content)
    return answered(_half(own, open_session().study, request), request)
    yield


def _half(own: SiteRun, study: Study, request: KeysRequest | ListRequest | UnmaskRequest) -> SiteSums:
    """Return the site's half of the sums that a request is about; raises NotTakingPart where there is none."""
    of_figures = not isinstance(request, KeysRequest) and request.kind == COMPARE
    found = own.figures(study) if of_figures else own.sums(study)
    if found is None:
        raise NotTakingPart(Refusal("sums-unknown"))
    return found


def forget_compared(site: str, run: str) -> None:
    """Forget a site's state of a run that is over, where it was kept to open a sum of figures or of a statistic."""
    kept = kept_replies(site, run)
    if kept is not None and {sum_name(kind, 0) for kind in (COMPARE, STATISTIC)} & {*StateFiles(kept).names()}:
        kept.forget()


@dataclass(frozen=True, kw_only=True)
class InSum:
    """What a message is of its run's secure sums.

    Attributes
    ----------
    reserved : tuple of str
        Sites of the run that share figures in sums only.
    facts : mapping
        What a ledger's line says of the reply: question, pinned sites, and the list that it is for.
    question : str
        Hash of the question of sums that it is about; empty where there is none.
    known : Known
        What the ledger knew of the question when the message came.
    """

    reserved: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    question: str = ""
    known: Known = field(default_factory=Known)

    def facts_of(self, message: Message, reply: Message) -> Mapping[str, Any]:
        """Return what the ledger's line of a reply says: nothing where no figures leave in a sum."""
        stays = message.metadata.message_type in (COMPARE, EVALUATE) and MASKED not in reply.content
        return {} if stays else self.facts

    def is_known_as(self, now: Known) -> bool:
        """Tell whether a ledger knows no more by now than this answer, as another process of the site gave it."""
        facts, before = self.facts, self.known
        own_list = {parted(facts["listed"])} if "listed" in facts else set()
        own_pins = {parted(facts["pinned"])} if "pinned" in facts else set()
        own_beside = parted(facts["sums_only"]) if "sums_only" in facts else frozenset()
        new_lists = set(now.lists) ^ set(before.lists)
        new_pins = set(now.asked_with) ^ set(before.asked_with)
        new_beside = set(now.beside) ^ set(before.beside)
        if not (new_lists <= own_list and new_pins <= own_pins and new_beside <= own_beside):
            return False
        # Sums that leave by themselves were not alone before: that is this answer, too.
        alone = now.alone == before.alone or not facts
        return alone and now.after_loss == before.after_loss


NO_SUM = InSum()
"""Of a study whose updates cross as they are."""


def in_sum_of(message: Message, own: SiteRun, study: Study, policy: Policy) -> InSum:
    """Return what a message is of its run's secure sums; raises NotTakingPart for a sum that is not known here.

    Parameters
    ----------
    message : Message
    own : SiteRun
    study : Study
    policy : Policy
        Of the site. Before the keys are told and after the comparison no cohort
        is known here, and a site that shares figures in sums only shares none even then.
    """
    kind, sums = message.metadata.message_type, own.sums(study)
    if sums is None or sums.keys.approval is None:
        return NO_SUM
    facts: dict[str, Any] = {}
    reserved = sums.in_sums_only
    if policy.shares_in_sums_only(study.compare.share_metrics):
        reserved = tuple(sorted({*reserved, own.site}))
    if isinstance(sums, SiteCiphers):
        return InSum(reserved=reserved) if own.site in reserved else NO_SUM
    figures = kind == COMPARE and own.figures(study) is not None
    if kind in (TRAIN, EVALUATE, BINS, STATISTIC) or figures or (kind == SUMMARISE and reserved):
        asked = read(TrainRequest, message.content) if kind in (TRAIN, EVALUATE) else None
        pinned = joined(frozenset(sums.keys.approval.pinned))
        facts = {"question_sha256": question_sha256(study, kind, asked), "pinned": pinned}
        if reserved:
            facts["sums_only"] = joined(frozenset(reserved))
    elif kind in (LIST, UNMASK):
        of = read(ListRequest, message.content) if kind == LIST else read(UnmaskRequest, message.content)
        half = _half(own, study, of)
        facts = {"question_sha256": half.question(of.kind, of.round), "listed": of.listed}
        if isinstance(half, SiteTreeSums) and of.kind == TRAIN:
            facts |= half.place_of(of.round)
    # What leaves of Table 1 by itself depends on the sums that it was in before.
    question = rows_question(study.dataset.name) if kind == SUMMARISE else facts.get("question_sha256", "")
    known = sums.keys.approval.book.known(question, study.dataset.name)
    return InSum(reserved=reserved, facts=facts, question=question, known=known)


def without_figures(message: Message, reply: Message, *, reserved: bool, own: bool, rounds: RoundFigures) -> Message:
    """Return a reply without what may not leave under secure sums.

    Parameters
    ----------
    message, reply : Message
        What was asked, and what the site answers.
    reserved : bool
        Whether a site of the run shares figures in sums only.
    own : bool
        Whether this one is such a site, so that none of its figures leaves but under masks; of the others the sums
        over holdout rows stay, from which its own would follow by subtraction.
    rounds : {"exact", "rounded", "none"}
        How figures of rounds leave.
    """
    kind, record = message.metadata.message_type, reply.content
    rounds = "none" if own else rounds
    if kind in (TRAIN, EVALUATE) and rounds != "exact":
        record = redact_round(TrainReply.from_record(record), rounds).to_record()
    elif kind == COMPARE and reserved:
        compared = CompareReply.from_record(record)
        rows = {name: getattr(compared, name) for name in ("num_examples", "holdout_rows", "masked")}
        bare = CompareReply(arms=(), differences=(), **rows)
        record = (bare if own else replace(compared, summary=None)).to_record()
    else:
        return reply
    return Message(record, reply_to=message)
