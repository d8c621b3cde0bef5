"""Client app of a node: it answers each kind of message for the node's site."""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections.abc import Callable, Generator
from functools import cache, partial
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

import flfed
from flfed.errors import TableError, UsageError
from flfed.federation.client.audit import attacked
from flfed.federation.client.masked import Approving, SiteSums
from flfed.federation.client.outbound_figures import redact_comparison
from flfed.federation.client.protection import LocalProtection, rows_band, rows_refusal, willing_site
from flfed.federation.client.redaction import redact, redacted, table_error
from flfed.federation.client.released.noised_answer import count_scores
from flfed.federation.client.site_run import SiteRun, compared_model, model_shapes_of, run_of, study_of
from flfed.federation.client.statistic import account_of, count_statistic
from flfed.federation.client.summed_replies import mask_figures
from flfed.federation.client.training import (
    LastUpdates,
    PartyKind,
    Round,
    RunKind,
    StatisticKind,
    Training,
    Validation,
)
from flfed.federation.client.trees import Trees, count_cells
from flfed.refusals import CROSSING, NotSpent, NotTakingPart, Refusal, decline, of_table, refusal_of, refuse
from flfed.rows.comparison.compare import compare
from flfed.rows.comparison.incumbent import refuse_without_score
from flfed.rows.data.site import Site, redraws
from flfed.rows.session import FIT, SiteSession
from flfed.rows.training.requests import ClientGenerator, Compute, ComputeRequest, run_client_by
from flfed.rows.warm_start import FindSource, no_source
from flfed.seeds import Draws
from flfed.study.study import Study
from flfed.updates.arrays import entries_of, flattened
from flfed.updates.checkpoints.site_state import (
    NodeState,
    RunState,
    keep_encoder,
    run_state,
    whole_message,
)
from flfed.updates.messages.compare import AUDIT, COMPARE, AuditReply, AuditRequest, CompareReply, CompareRequest
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.in_memory import InMemoryRecord, is_in_memory, read, replying
from flfed.updates.messages.kinds import asks
from flfed.updates.messages.secure_sum import KEYS, OPEN, KeysReply, KeysRequest, OpenReply, OpenRequest
from flfed.updates.messages.summarise import (
    BINS,
    SCORES,
    STATISTIC,
    SUMMARISE,
    BinsReply,
    BinsRequest,
    ScoresReply,
    ScoresRequest,
    StatisticReply,
    StatisticRequest,
    SummariseReply,
    SummariseRequest,
)
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest
from flfed.updates.messages.vertical import ALIGN, PARTIAL, RUN, AlignReply, AlignRequest, PartialReply, PartialRequest
from flfed.vertical.column_party import ColumnParty
from flfed.vertical.label_party import LabelParty

LOG = logging.getLogger("flfed.site")

FindSite = Callable[[str, Study], Site]
Sums = SummariseReply | BinsReply | StatisticReply | ScoresReply
Reply = EnrolReply | Sums | TrainReply | KeysReply | OpenReply | AlignReply | PartialReply | CompareReply | AuditReply
Replying = Generator[ComputeRequest, Any, Reply]
Handler = Callable[[Any, SiteSession, SiteRun], Replying]
ROUNDS = (TRAIN, EVALUATE)
"""Kinds of a round."""


class SiteClient:
    """Client side of one site or of many.

    Many may be in one process.

    Parameters
    ----------
    find_site : callable (name, study) → Site
        Returns the site of a node's `site` setting.
    today : callable
        Returns the date; tests pass their own.
    rows : str
        Version of a site's rows, where they may change: a reply that was stored for others is not sent again.
    protect : LocalProtection, optional
        How rows are protected where a study requires it, and where it is recorded. By default draws follow from the
        study's seed, and each site has its ledger on this machine.
    approval : callable (study) → SumApproval or None
        The approval of a study's secure sums by people at an institution. Elsewhere a study with sums rehearses them
        in one process.
    source : callable (study) → Source or None
        The site's copy of the earlier run's model that a study begins from: no message brings it.
    compute : callable
        Answers the requests of a message that is answered alone; by default one by one.

    Notes
    -----
    Handlers are generators: they yield fit and score requests and receive the results. So an engine may answer the
    requests of a whole cohort together.
    """

    def __init__(
        self,
        find_site: FindSite,
        *,
        today: Callable[[], datetime.date] = datetime.date.today,
        rows: str = "",
        protect: LocalProtection | None = None,
        approval: Approving | None = None,
        source: FindSource = no_source,
        compute: Compute | None = None,
    ) -> None:
        self._compute = compute
        self._find_site = find_site
        self._today = today
        self._run_of = partial(SiteRun.of, approving=approval, rows=rows, source=source)
        self._protect = LocalProtection() if protect is None else protect
        self.sessions: dict[tuple[str, str, int], SiteSession] = {}
        self._runs: dict[tuple[str, str, int], str] = {}
        self._last_updates = LastUpdates()
        self._draws_of = cache(lambda seed: Draws(seed, FIT))

    def app(self) -> ClientApp:
        """Return the Flower client app.

        Each message is answered alone.
        """
        app = ClientApp(mods=[redact])
        # Flower registers one function for each category and action.
        for kind in (ENROL, KEYS, *HANDLERS):
            category, _, action = kind.partition(".")
            register = {"query": app.query, "train": app.train, "evaluate": app.evaluate}[category]
            register(action or "default")(self._answer)
        return app

    def exchange(self, message: Message, context: Context) -> Generator[ComputeRequest, Any, Message]:
        """Yield the requests that answer one message.

        Return the reply, or the error that may cross.

        For an engine that computes for all its sites together. No reply is stored on a disk: such an engine's sites
        live in its process, and a repeated round gives the same bits. Of a round with noise of the operating system the
        last reply is kept in memory.
        """
        # An engine of many sites has no Flower app around the handler, so this is the border.
        try:
            own = self._run_of(context, NodeState(context.state))
            message = _whole(message, own.state)
            reply = yield from self._handled(message, context, own)
            return replying(InMemoryRecord(reply), message)
        except Exception as error:  # noqa: BLE001 - the border: nothing of an exception's text may cross
            return redacted(error, message, context)

    def _run(self, handler: ClientGenerator) -> Any:
        from flfed.rows.training.answer import compute_one_by_one  # it needs torch, and a gate that waits does without

        return run_client_by(handler, self._compute or compute_one_by_one)

    def _answer(self, message: Message, context: Context) -> Message:
        own = self._run_of(context, run_state(str(context.node_config["site"]), context))
        reply = self._run(self._handled(_whole(message, own.state), context, own))
        return Message(reply.to_record(), reply_to=message)

    def _handled(self, message: Message, context: Context, own: SiteRun) -> Replying:
        """Answer a message by its handler; training stores the message's encoder."""
        kind = message.metadata.message_type
        if kind == ENROL:
            request = read(EnrolRequest, message.content)
            return (yield from enrol(request, partial(self.session, context, kind), own))
        if kind == KEYS:
            return take_keys(read(KeysRequest, message.content), study_of(str(context.run_config["study"])), own)
        request_type, handler = HANDLERS[kind]
        request = read(request_type, message.content)
        session = self.session(context, kind)
        replying = handler(request, session, own)
        if kind not in ROUNDS:
            return (yield from replying)
        reply: Reply = yield from self._last_updates.once(request, session, own, replying)
        keep_encoder(message, own.state)
        return reply

    def session(self, context: Context, kind: str) -> SiteSession:
        """Return the open session of a node's site, for a message of a kind.

        Its table is read once for a study's run.

        Every handler comes through here, so that a server cannot bypass the site's own policy. An expired study, or one
        on another dataset, reads no row. Equal schemas on both sides are checked at enrolment only: that protects the
        result, not the site.

        Raises
        ------
        NotTakingPart
            By the site's own policy, or for a kind of message that the study does not have.
        """
        name = str(context.node_config["site"])
        text = str(context.run_config["study"])
        key = (name, text, int(context.run_config.get("repeat", 0)))
        opened = self.sessions.get(key)
        study = study_of(text)
        # The date is read each time, since a run may outlive its study.
        if study.expires is not None and self._today() > study.expires:
            decline("expired", day=study.expires.isoformat())
        if opened is None:
            draws = self._draws_of(study.seed + key[2])
            opened = self.sessions[key] = _opened(self._find_site(name, study), study, key[2], draws)
        run = run_of(context)
        if self._runs.get(key) != run:  # each run spends under its own name
            opened.protection = self._protect(opened.site, study, key[2], run)
            self._runs[key] = run
        if not asks(study, kind):
            decline("kind-of-another-study")
        return opened


def _whole(message: Message, state: RunState) -> Message:
    """Return a message with its encoder.

    A message within a process has it.
    """
    return message if is_in_memory(message.content) else whole_message(message, state)


def _opened(site: Site, study: Study, repeat: int, draws: Draws) -> SiteSession:
    """Open a site's session for a study.

    An error states why the site does not take part.
    """
    site = willing_site(site, study)
    try:
        return open_or_refuse(site, study, repeat, draws)
    except TableError as error:
        least = max(CROSSING, site.policy.cell_minimum)
        raise NotTakingPart(of_table(table_error(study, error), least)) from None


def open_or_refuse(site: Site, study: Study, repeat: int = 0, draws: Draws | None = None) -> SiteSession:
    """Open a site's session, or refuse a study by the site's rows; raises NotTakingPart."""
    session = SiteSession(site, study, repeat, draws=draws)
    refuse(rows_refusal(study, session.table, session.too_small()))
    refuse_without_score(session)
    return session


def run_kind(study: Study) -> RunKind:
    """Return the kind of a study's runs."""
    if study.is_statistic:
        return StatisticKind()
    if not study.train:
        return Validation()
    if study.is_vertical:
        return PartyKind()
    return Trees() if study.grows_trees else Training()


def enrol(request: EnrolRequest, open_session: Callable[[], SiteSession], own: SiteRun) -> Replying:
    """Return the site's enrolment.

    It has the site's name, and whether it takes part by its own policy.
    """
    site = own.site
    try:
        session = open_session()
        budget, spent = account_of(session)
    except (NotTakingPart, NotSpent) as error:
        return _refusal(site, refusal_of(error))
    except TableError as error:
        return _refusal(site, of_table(error, CROSSING))
    except UsageError:
        # Its text may have the path or the address of the site's table.
        return _refusal(site, Refusal("table-unopened", site=site))
    if session.schema.sha256() != request.schema_sha256:
        return _refusal(site, Refusal("other-schema", dataset=request.dataset))
    policy = session.site.policy
    low, high = rows_band(session.study, run_kind(session.study).count_rows(session))
    sums = own.sums(session.study)
    return EnrolReply(
        site=site,
        title=session.site.title or site,
        version=flfed.__version__,
        accepted=True,
        rows_low=low,
        rows_high=high,
        disclosure=policy.disclosure,
        resplit=redraws(session.study, session.site),
        epsilon_budget=budget,
        epsilon_spent=spent,
        signed_key=b"" if sums is None else _signed_key(sums, session, high),
        width=session.width,
        minimum_cohort=policy.minimum_cohort or 0,
    )
    yield  # a handler is a generator, also one without requests


def _signed_key(sums: SiteSums, session: SiteSession, rows_high: int) -> bytes:
    single_cells = session.site.policy.allows("single-cells-in-sums")
    return sums.keys.signed(single_cells=single_cells, width=session.width, rows_high=rows_high)


def _refusal(site: str, reason: Refusal) -> EnrolReply:
    return EnrolReply(site=site, title=site, version=flfed.__version__, accepted=False, reason=str(reason))


def summarise(request: SummariseRequest, session: SiteSession, own: SiteRun) -> Replying:
    """Return the sums over training rows that may leave, under masks where the site approved sums."""
    summary, sums = session.summary(), own.sums(session.study)
    if sums is None or summary is None:
        return SummariseReply(summary=summary)
    own.under(session)
    return SummariseReply(masked=sums.masked_counts(flattened(summary.arrays()), SUMMARISE))
    yield  # a handler is a generator, also one without requests


def train(request: TrainRequest, session: SiteSession, own: SiteRun) -> Round:
    """Score the incoming model, train from it, or both."""
    return run_kind(session.study).answer(request, session, own)


def judge(request: CompareRequest, session: SiteSession, own: SiteRun) -> Replying:
    """Compare all arms on the site's holdout."""
    if session.study.is_vertical:
        over_common = _joined_model(request, session, own)
        comparison = yield from compare(over_common, {}, request.encoder, bins=request.bins)
        return redact_comparison(over_common, comparison)
    whole = compared_model(request, session, own)
    arrays, encoder = whole.arrays, whole.encoder
    # A model that is only validated is compared with no earlier one, and none is let through as a beginning.
    start = own.start(session, encoder) if session.study.train else None
    comparison = yield from compare(session, arrays, encoder, request.deviation, request.bins, start=start)
    reply = redact_comparison(session, comparison)
    return mask_figures(request, session, own, reply, encoder)


def party_of(session: SiteSession, own: SiteRun) -> LabelParty | ColumnParty:
    """Return a site's half of a run over different columns of the same people."""
    own.under(session)
    kind = LabelParty if session.site.has_outcome else ColumnParty
    return kind(
        session=session, site=own.site, run=own.run, repeat=own.repeat, state=own.state,
        keys=own.party_keys(session.study), keep_model=own.keep_model,
    )  # fmt: skip


def align(request: AlignRequest, session: SiteSession, own: SiteRun) -> Replying:
    """Return a party's half of an exchange of the alignment."""
    return party_of(session, own).align(request)
    yield  # a handler is a generator, also one without requests


def exchange(request: PartialRequest, session: SiteSession, own: SiteRun) -> Replying:
    """Return a party's half of an exchange of a round."""
    return party_of(session, own).train(request)
    yield  # a handler is a generator, also one without requests


def _joined_model(request: CompareRequest, session: SiteSession, own: SiteRun) -> SiteSession:
    """Return the label party's session over its rows in common, with the joined model's predictions."""
    party = party_of(session, own)
    if not isinstance(party, LabelParty):
        decline("columns-only")
    # The hash names the run's model: under another name two models would count as one.
    if request.arrays[RUN].tobytes() != hashlib.sha256(own.run.encode()).digest():
        decline("exchange-unfit")
    return party.compared()


def take_keys(request: KeysRequest, study: Study, own: SiteRun) -> KeysReply:
    """Take the keys of a run's cohort; no row is read for that."""
    sums = own.sums(study)
    if sums is None:
        decline("sums-unknown")
    return sums.keys.take(request)


def open_round(request: OpenRequest, session: SiteSession, own: SiteRun) -> Replying:
    """Return the sum of a round under homomorphic encryption, opened and rounded."""
    sums = own.sums(session.study)
    if sums is None:
        decline("sums-unknown")
    return OpenReply(total=sums.open_round(request, entries_of(model_shapes_of(session.study.text))))
    yield  # a handler is a generator, also one without requests


HANDLERS: dict[str, tuple[type[Any], Handler]] = {
    SUMMARISE: (SummariseRequest, summarise),
    BINS: (BinsRequest, count_cells),
    STATISTIC: (StatisticRequest, count_statistic),
    SCORES: (ScoresRequest, count_scores),
    ALIGN: (AlignRequest, align),
    PARTIAL: (PartialRequest, exchange),
    **dict.fromkeys(ROUNDS, (TrainRequest, train)),
    OPEN: (OpenRequest, open_round),
    COMPARE: (CompareRequest, judge),
    AUDIT: (AuditRequest, attacked),
}
"""Handler of each kind of message once its session is open; enrolment opens it itself, and keys need none."""
