"""The gate's decisions about messages.

It decides whether a message is answered at all, and with which rows. No row is read for any of these decisions.
"""

from __future__ import annotations

import logging
import zlib
from collections import OrderedDict, deque
from functools import partial

from flwr.app import Context, Message

from flfed.callbacks import Today, today_utc
from flfed.deployment.gate.local_results import keep_result
from flfed.deployment.gate.message_check import message_defect
from flfed.deployment.gate.outbound import Leaving, error_reply
from flfed.deployment.gate.study_policy import STUDIES, Refused, StudyAdmission, reject, sha256_of
from flfed.deployment.site_state.approval import load_start
from flfed.deployment.site_state.cohorts import SumRecord
from flfed.deployment.site_state.used_people import use
from flfed.errors import FlfedError, UsageError
from flfed.federation.client.client import SiteClient
from flfed.federation.client.protection import LocalProtection
from flfed.files import locked
from flfed.paths import ANSWERING, SiteFolder
from flfed.records.ledger import Ledger, ledger_of
from flfed.records.site_state import SiteState
from flfed.refusals import Refusal, decline, refusal_of, refuse
from flfed.rows.data.site import Site
from flfed.rows.snapshots import snapshot
from flfed.study.study import Study
from flfed.updates.checkpoints.site_state import (
    StateFiles,
    encoder_refusal,
    forget_stopped,
    keep_encoder,
    run_state,
    whole_message,
)
from flfed.updates.messages.compare import CompareReply
from flfed.updates.messages.kinds import AUDIT, COMPARE, EVALUATE, KINDS, TRAIN

LOCKS = 8
"""Files of locks by a run's name, of which each run has one."""

LOG = logging.getLogger("flfed.site")


#   message ──► kind ──► site's name ──► present policy ──► study ──► sections ──► limits ──► client app
#                                                                        │                                 │
#      pause, approval of this exact text, expiry, the policy's limits, ◄┘                                 │
#      the frozen rows, the other sites of the run                                                         │
#                                                                                                          ▼
#   reply ◄── ledger's line ◄── byte limit of the day ◄── sections again ◄── decision and policy again ◄── reply
#
# The first defect is the answer, and no row is read before all checks have passed. A reply with a line in the ledger
# may have left; a reply without one has not.
class Gate:
    """Gate in front of one site's client app.

    It decides which messages get an answer, and which replies leave.

    Parameters
    ----------
    folder : SiteFolder
    site : Site
        As the institution installed it; its rows are served from a snapshot.
    today : callable
        Returns the date; tests pass their own.
    ledger : Ledger, optional
        Default: the site's own.
    """

    def __init__(
        self,
        folder: SiteFolder,
        site: Site,
        *,
        today: Today = today_utc,
        ledger: Ledger | None = None,
    ) -> None:
        if site.name != folder.site:
            raise UsageError(f"the folder is of site {folder.site!r}, the package of site {site.name!r}")
        self.folder = folder
        forget_stopped(folder.states)
        self._today = today
        self._studies = StudyAdmission(folder, site, today=today)
        self._ledger = ledger or ledger_of(folder)
        self._state = SiteState(folder.state, self._ledger)
        self._leaving = Leaving(site, self._state, self._ledger, today)
        self._own: deque[Refusal] = deque(maxlen=64)
        self._sides: OrderedDict[tuple[str, str, int], SiteClient] = OrderedDict()
        self._approving = lambda study: self._studies.sum_approval(study, SumRecord(self._state))

    @property
    def site(self) -> Site:
        """The site, with its present policy."""
        return self._studies.site

    def answer(self, message: Message, context: Context) -> Message:
        """Return the reply to a message, or an error.

        The reply is the installed client app's where it may leave; else an error reply states the reason.

        The ledger has its line before this returns. An erasure waits until then (`operator.purge`).
        """
        with locked(self.folder.gate, ANSWERING, shared=True):
            return self._answer(message, context)

    def _answer(self, message: Message, context: Context) -> Message:
        # Checks and hashes see the message as if its encoder had crossed whole.
        message = whole_message(message, run_state(self.folder.site, context))
        # Of two requests of a run at once, in whichever processes, the second one waits.
        lock = f"run-{zlib.crc32(str(context.run_config.get('run')).encode()) % LOCKS}.lock"
        with locked(self.folder.gate, lock):
            # Nothing is computed for a message that is refused.
            if reason := self.refusal(message, context):
                return self.leaving(message, error_reply(reason, message), context)
            if earlier := self._leaving.earlier(message, self._studies.facts(context.run_config)):
                return self.leaving(message, earlier, context, again=True)
            reply = self.leaving(message, self._side(context).app()(message, context), context)
            if not reply.has_error():
                self._end_step(message, context)
            return reply

    def _end_step(self, message: Message, context: Context) -> None:
        """Keep the encoder of a round that was answered; a run's keys and arrays go with its comparison."""
        state = run_state(self.folder.site, context)
        if message.metadata.message_type in (TRAIN, EVALUATE):
            keep_encoder(message, state)
        elif message.metadata.message_type == COMPARE and isinstance(state, StateFiles):
            state.forget()

    def refusal(self, message: Message, context: Context) -> Refusal | None:
        """Return why a message is refused.

        None where it is not. No row is read.

        Parameters
        ----------
        message : Message
        context : Context
            Its run config has the study's text, the repeat, the run's name and the requested sites.
        """
        try:
            self._check(message, context)
        except Refused as error:
            reason = refusal_of(error)
            # The gate's own sentences are stored: they may leave without a second check.
            self._own.append(reason)
            return reason
        return None

    def leaving(self, message: Message, reply: Message, context: Context, *, again: bool = False) -> Message:
        """Return the reply where it may leave, else an error.

        The ledger has its line before this returns.

        Parameters
        ----------
        message : Message
            The request.
        reply : Message
            Of the client app, or an error.
        context : Context
        again : bool
            Whether it left before: the site's people have its figures already.
        """
        facts = self._studies.facts(context.run_config)
        if reply.has_error():
            own_refusal = next((refusal for refusal in self._own if refusal == reply.error.reason), None)
            messages = self._studies.messages(facts["study_sha256"])
            return self._leaving.error(message, reply, facts, own=own_refusal, messages=messages)
        text = str(context.run_config.get("study", ""))
        messages = self._studies.messages(sha256_of(text))
        try:
            # A person may have paused, withdrawn, or changed the policy while it was computed.
            self._studies.check_decision(text)
            if self._studies.policy_now() != self.site.policy:
                reject("policy-changed")
        except Refused as error:
            return self._leaving.withhold(message, refusal_of(error), facts)
        if messages is None:
            return self._leaving.withhold(message, Refusal("not-let-in"), facts)
        leaves = reply
        if messages.study.compare.is_summed and not again:
            if message.metadata.message_type == AUDIT:
                return self._leaving.withhold(message, Refusal("figures-stay"), facts)
            if message.metadata.message_type == COMPARE:
                # A study that records one sum of figures gets masked numbers alone.
                masked = CompareReply.from_record(reply.content).masked
                masked_alone = CompareReply(num_examples=0, holdout_rows=0, arms=(), differences=(), masked=masked)
                leaves = Message(masked_alone.to_record(), reply_to=message)
        left = self._leaving.reply(message, leaves, facts, messages)
        if not left.has_error() and not again:
            keep_result(self.folder, message, reply, left, facts, messages)
        return left

    def find_site(self, name: str, study: Study) -> Site:
        """Return the site with its frozen rows.

        `SiteClient` asks for its site by this method.

        Raises
        ------
        UsageError
            If it is for another site, or the rows cannot be served.
        NotTakingPart
            If the frozen rows are not those of the study's approval, or may not be used beside those used before.
        """
        if name != self.folder.site:
            raise UsageError(f"this gate is of site {self.folder.site!r}, not {name!r}")
        # The rows that are opened must be those that the study was checked with, not later ones.
        frozen_site = snapshot.load(self.site.serving(study.dataset.name), self.folder.frozen)
        if frozen_site.snapshot.sha256 != self._studies.rows_sha256(study.sha256()):
            decline("rows-changed")
        try:
            refusal = use(self.folder, study, frozen_site, self._ledger)
        except FlfedError as error:
            LOG.error("%s", error)
            refusal = Refusal("use-unreadable")
        refuse(refusal)
        return frozen_site.with_withheld() if study.is_covered else frozen_site

    def _side(self, context: Context) -> SiteClient:
        """Return the client with a study's rows.

        Other frozen rows need another client.
        """
        sha256 = sha256_of(str(context.run_config["study"]))
        rows = self._studies.rows_sha256(sha256)
        key = (sha256, rows, int(context.run_config.get("repeat", 0)))
        if key not in self._sides:
            # Nobody may predict the noise, or who takes part in a step: neither comes from the study's seed.
            protect = LocalProtection.by_system(self._state)
            source = partial(load_start, self.folder)
            self._sides[key] = SiteClient(
                self.find_site, today=self._today, rows=rows, protect=protect, approval=self._approving, source=source
            )
            while len(self._sides) > STUDIES:
                self._sides.popitem(last=False)
        self._sides.move_to_end(key)
        return self._sides[key]

    def _adopt_policy(self) -> None:
        """Apply the present policy to messages; an unreadable one is refused."""
        try:
            changed = self._studies.adopt()
        except Refused:
            self._sides.clear()
            raise
        if changed:
            # Rows are opened again: the open ones are under the earlier policy.
            self._sides.clear()
            self._leaving = Leaving(self.site, self._state, self._ledger, self._today)

    def _check(self, message: Message, context: Context) -> None:
        """Refuse a message at its first defect.

        The sender is checked first, then the request. Raises `Refused`.
        """
        kind = message.metadata.message_type
        if kind not in KINDS:
            reject("kind-unknown", kind=kind[:40], known=", ".join(KINDS))
        if context.node_config.get("site") != self.folder.site:
            reject("other-site", site=self.folder.site)
        self._adopt_policy()
        messages = self._studies.check(context.run_config, kind)
        if not message.has_content():
            reject("no-content")
        if missing := encoder_refusal(message):
            raise Refused(missing)
        # The study determines what a request may hold: nothing else gets in.
        defect = message_defect(message.content, messages.incoming(kind))
        if defect:
            reject("message-unfit", kind=kind, defect=defect)
        if other := messages.brought_refusal(kind, message.content):
            raise Refused(other)
        if over := self._leaving.used_up(message, context, self._studies.facts(context.run_config), messages.study):
            raise Refused(over)
