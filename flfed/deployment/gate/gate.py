"""The gate's decisions about messages.

It decides whether a message is answered at all, and with which rows. No row is read for any of these decisions.
"""

from __future__ import annotations

import datetime
import hmac
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

from flwr.app import Context, Message

import flfed
from flfed.callbacks import Today
from flfed.deployment.gate.local_results import keep_result
from flfed.deployment.gate.message_schema import KINDS, StudyMessages
from flfed.deployment.gate.message_sections import message_defect
from flfed.deployment.gate.outbound import Leaving, error_reply
from flfed.deployment.gate.study_policy import (
    LONGEST_STUDY,
    Refused,
    cohort_refusal,
    name_of,
    parsed,
    sha256_of,
    study_policy_refusal,
)
from flfed.deployment.site_state import approval as decided
from flfed.deployment.site_state.approval import Approval
from flfed.deployment.site_state.coordinator_terms import other_coordinator
from flfed.deployment.site_state.freeze import list_changed
from flfed.deployment.site_state.ledger_loss import Continuity
from flfed.deployment.site_state.receipts import seal, sealed
from flfed.deployment.site_state.request_archive import keep
from flfed.errors import FlfedError, UsageError
from flfed.federation.client.client import SiteClient
from flfed.federation.client.protection import LocalProtection
from flfed.federation.client.redaction import NotTakingPart, redact
from flfed.folders import NAME, SiteFolder
from flfed.records.ledger.ledger import Ledger, ledger_of
from flfed.refusals import Refusal, refusal_of
from flfed.rows.data import datasets
from flfed.rows.data.policy import Policy
from flfed.rows.data.schema import parse_settings
from flfed.rows.data.site import Site
from flfed.rows.snapshots import snapshot
from flfed.rows.snapshots.snapshot import Frozen
from flfed.rows.training.one_by_one import run_client
from flfed.rows.training.private.noise import SystemNoise
from flfed.study.study import Study
from flfed.updates.checkpoints.reply_cache import RUN, NotKept
from flfed.updates.messages.countersign import SEAL, SEALED, SealedReply, SealReply

STUDIES = 4
"""Studies, each with its rows, that stay warm."""
REPEATS = 1_000_000
"""As a study's seed allows."""
MOST_SITES = 10_000
"""Names that a run config may list."""


SEALERS: dict[str, Callable[[Message, Callable[[], Any], str], Generator[Any, Any, Any]]] = {SEAL: seal, SEALED: sealed}
"""What answers for the ledger, by kind of message."""


def today_utc() -> datetime.date:
    """Return today's date in UTC, as the ledger has it."""
    return datetime.datetime.now(datetime.UTC).date()


#   message ──► bundle ──► kind ──► site's name ──► policy as it is now ──► study ──► sections ──► limits ──► client app
#                                                                             │                                 │
#      pause, approval of this very text, expiry, what the policy allows,  ◄──┘                                 │
#      the rows that were frozen for it, who else takes part                                                    │
#                                                                                                               ▼
#   reply ◄── ledger's line ◄── byte limit of the day ◄── sections again ◄── decision and policy again ◄────── reply
#
# The first thing that does not fit is the answer, and no row is read before all of it does. What the ledger has a line
# of may have left; what it has none of has not.
class Gate:
    """Gate in front of one site's client app.

    It decides what is answered, and what leaves.

    Parameters
    ----------
    folder : SiteFolder
    site : Site
        As the institution installed it; its rows are served from what is frozen.
    today : callable
        Returns the date; tests pass their own.
    expected_bundle : str
        SHA-256 of the bundle that a run must come with.
    ledger : Ledger, optional
        Default: the site's own.
    """

    def __init__(
        self,
        folder: SiteFolder,
        site: Site,
        *,
        today: Today = today_utc,
        expected_bundle: str,
        ledger: Ledger | None = None,
    ) -> None:
        if site.name != folder.site:
            raise UsageError(f"the folder is of site {folder.site!r}, the package of site {site.name!r}")
        self.folder = folder
        self.site = site
        self._today = today
        self._bundle = expected_bundle
        self._policy_file = site.folder / "policy.toml" if site.folder else None
        self._policy_of_none = None if self._policy_file and self._policy_file.is_file() else site.policy
        self._ledger = ledger or ledger_of(folder)
        self._continuity = Continuity(folder, self._ledger)
        self._leaving = Leaving(site, self._ledger, today, self._continuity)
        self._own: deque[Refusal] = deque(maxlen=64)
        self._known: OrderedDict[str, StudyMessages] = OrderedDict()
        self._rows: dict[str, str] = {}
        self._sides: OrderedDict[tuple[str, str, int], SiteClient] = OrderedDict()

    def answer(self, message: Message, context: Context, fab_sha256: str) -> Message:
        """Return the reply to a message, or an error.

        The reply is the installed client app's where it may leave; else an error reply says why not.

        The ledger has its line before this returns.
        """
        # Nothing is computed for a message that is refused.
        reason = self.refusal(message, context, fab_sha256)
        if not reason:
            try:
                # The request is kept before it is answered, so that a replay can answer it again.
                keep(self.folder, message, context)
            except NotKept as error:
                reason = refusal_of(error)
                self._own.append(reason)
        if reason:
            return self.leaving(message, error_reply(reason, message), context)
        # Questions about the ledger need no study's rows, so the client app is not opened for them.
        answers = self._sealing if message.metadata.message_type in SEALERS else self._side(context).app()
        return self.leaving(message, answers(message, context), context)

    def _sealing(self, message: Message, context: Context) -> Message:
        """Answer a message about the ledger.

        An engine without a gate has no ledger, so the client app does not know of these messages.
        """

        def answer(message: Message, context: Context) -> Message:
            handler = SEALERS[message.metadata.message_type](message, _no_rows, self.folder.site)
            reply: SealReply | SealedReply = run_client(handler)
            return Message(reply.to_record(), reply_to=message)

        return redact(message, context, answer)

    def refusal(self, message: Message, context: Context, fab_sha256: str) -> Refusal | None:
        """Return why a message is refused.

        None where it is not. No row is read.

        Parameters
        ----------
        message : Message
        context : Context
            Its run config has the study's text, the repeat, the run's name and the sites asked.
        fab_sha256 : str
            Of the bundle that the run came with. Nobody opens it.
        """
        try:
            self._check(message, context, fab_sha256)
        except Refused as error:
            # The gate's own sentences are remembered: they may leave without being read again.
            self._own.append(refusal_of(error))
            return refusal_of(error)
        return None

    def leaving(self, message: Message, reply: Message, context: Context) -> Message:
        """Return the reply where it may leave, else an error.

        The ledger has its line before this returns.

        Parameters
        ----------
        message : Message
            What was asked.
        reply : Message
            Of the client app, or an error.
        context : Context
        """
        facts = self._facts(message, context)
        if reply.has_error():
            own = next((refusal for refusal in self._own if refusal == reply.error.reason), None)
            return self._leaving.error(message, reply, facts, own=own)
        text = str(context.run_config.get("study", ""))
        messages = self._known.get(sha256_of(text))
        try:
            # A person may have paused, withdrawn, or changed the policy while it was computed.
            self._check_decision(text)
            if self._policy_now() != self.site.policy:
                raise Refused(Refusal("policy-changed"))
        except Refused as error:
            return self._leaving.withhold(message, refusal_of(error), facts)
        if messages is None:
            return self._leaving.withhold(message, Refusal("not-let-in"), facts)
        left = self._leaving.reply(message, reply, facts, messages)
        keep_result(self.folder, left, facts, messages)
        return left

    def find_site(self, name: str, study: Study) -> Site:
        """Return the site with its frozen rows.

        `SiteClient` asks for its site by this method.

        Raises
        ------
        UsageError
            If another site is asked for, or its rows cannot be served.
        NotTakingPart
            If other rows are frozen than the study was approved for.
        """
        if name != self.folder.site:
            raise UsageError(f"this gate is of site {self.folder.site!r}, not {name!r}")
        # The rows that are opened must be those that the study was checked with, not those that came since.
        found = snapshot.load(self.site.serving(study.dataset.name), self.folder.frozen)
        if found.snapshot.sha256 != self._rows.get(study.sha256()):
            raise NotTakingPart(Refusal("rows-changed"))
        return found

    def standing(self, approval: Approval) -> Refusal | None:
        """Return why a study would be refused now.

        All that is known at the site is considered. None where it would be answered.
        """
        # The approval's own sites stand in for a run's: that is the cohort that a person agreed to.
        names = ",".join(sorted({self.site.name, *approval.co_sites}))
        try:
            self._check_policy()
            self._check_study({"study": approval.text, "run": "status", "sites": names})
        except Refused as error:
            return refusal_of(error)
        return None

    def _side(self, context: Context) -> SiteClient:
        """Return the client that holds a study's rows.

        Where other rows are frozen, it is another client.
        """
        sha256 = sha256_of(str(context.run_config["study"]))
        key = (sha256, self._rows[sha256], int(context.run_config.get("repeat", 0)))
        if key not in self._sides:
            # Noise, and who takes part in a step, are nobody's to compute: not from the study's seed.
            protect = LocalProtection(ledger_of=lambda site: self._ledger, chance=SystemNoise, rows=self._rows[sha256])
            self._sides[key] = SiteClient(self.find_site, today=self._today, rows=self._rows[sha256], protect=protect)
            while len(self._sides) > STUDIES:
                self._sides.popitem(last=False)
        self._sides.move_to_end(key)
        return self._sides[key]

    def _facts(self, message: Message, context: Context) -> dict[str, Any]:
        """Return the ledger's facts about a message.

        They can be written whatever came in the message.
        """
        text = str(context.run_config.get("study", ""))
        sha256 = sha256_of(text)
        known, repeat = self._known.get(sha256), context.run_config.get("repeat", 0)
        return {
            "study": known.study.name if known else "",
            "dataset": known.study.dataset.name if known else "",
            "study_sha256": sha256,
            "run": str(context.run_config.get("run", ""))[:100],
            "repeat": repeat if type(repeat) is int and 0 <= repeat < REPEATS else None,
            "rows_sha256": self._rows.get(sha256, ""),
        }

    def _check(self, message: Message, context: Context, fab_sha256: str) -> None:
        """Refuse a message at its first defect.

        Checks go from whoever asks to what is asked. Raises `Refused`.
        """
        # Constant time: how long a comparison takes tells nothing of the hash that is expected.
        if not hmac.compare_digest(fab_sha256.encode(), self._bundle.encode()):
            raise Refused(Refusal("other-bundle", version=flfed.__version__))
        kind = message.metadata.message_type
        if kind not in KINDS:
            raise Refused(Refusal("kind-unknown", kind=kind[:40], known=", ".join(KINDS)))
        if context.node_config.get("site") != self.folder.site:
            raise Refused(Refusal("other-site", site=self.folder.site))
        self._check_policy()
        messages = self._check_study(context.run_config)
        if not message.has_content():
            raise Refused(Refusal("no-content"))
        # What a request may hold follows from the study: nothing else gets in.
        defect = message_defect(message.content, messages.incoming(kind))
        if defect:
            raise Refused(Refusal("message-unfit", kind=kind, defect=defect))
        over = self._leaving.used_up(message, self._facts(message, context))
        if over:
            raise Refused(over)

    def _check_policy(self) -> None:
        """Apply the policy as it stands now.

        A policy that cannot be read is refused, and what was opened under the one before is forgotten.
        """
        now = self._policy_now()
        if now == self.site.policy:
            return
        # Rows are opened anew: those at work were opened under the policy before.
        self._sides.clear()
        self._known.clear()
        if now is None:
            raise Refused(Refusal("policy-unreadable", site=self.site.name))
        self.site = replace(self.site, policy=now)
        self._leaving = Leaving(self.site, self._ledger, self._today, self._continuity)

    def _policy_now(self) -> Policy | None:
        """Return the present policy.

        None where its file cannot be read or is gone. A site that came without a file keeps the policy that it had.
        """
        try:
            if self._policy_file is not None and self._policy_file.exists():
                return parse_settings(Policy, self._policy_file)
            return self._policy_of_none
        except (FlfedError, OSError):
            return None

    def _check_study(self, config: Mapping[str, object]) -> StudyMessages:
        """Return the messages of a run config's study.

        Raises `Refused` where the run config brings none that may be answered.
        """
        text = config.get("study")
        repeat = config.get("repeat", 0)
        run = config.get("run")
        # The run config comes from the coordinator, so each value's type and size is checked before it is used.
        if not isinstance(text, str) or not 0 < len(text) <= LONGEST_STUDY:
            raise Refused(Refusal("no-study"))
        if type(repeat) is not int or not 0 <= repeat < REPEATS:
            raise Refused(Refusal("repeat-unfit", most=REPEATS - 1))
        if not isinstance(run, str) or not RUN.fullmatch(run):
            raise Refused(Refusal("run-unnamed"))
        # The decision comes first: a text that was refused is not parsed as a study.
        approval = self._check_decision(text)
        known = self._known.get(sha256_of(text))
        study = known.study if known is not None else parsed(text)
        if study.expires is not None and self._today() > study.expires:
            raise Refused(Refusal("expired", day=study.expires.isoformat()))
        refused = study_policy_refusal(study, self.site)
        if refused:
            raise Refused(refused)
        self._check_rows(study, approval)
        self._check_cohort(config.get("sites"), study, approval)
        return known or self._messages(study)

    def _check_decision(self, text: str) -> Approval | None:
        """Return the approval of a study's exact text.

        None where the policy asks for none. Raises `Refused` where the study may not be answered.
        """
        if decided.is_paused(self.folder):
            raise Refused(Refusal("paused"))
        try:
            found = decided.approval_of(self.folder, sha256_of(text))
            others = [] if found is not None else decided.approvals(self.folder)
        except FlfedError:
            raise Refused(Refusal("approvals-unsafe", site=self.site.name)) from None
        if found is not None and found.decision != "approved":
            word = "refused" if found.decision == "refused" else "withdrawn"
            raise Refused(Refusal("decided-against", decision=word, day=found.at[:10]))
        # An approval holds for the code and the coordinator that it was given for, and for no others.
        if found is not None:
            if not hmac.compare_digest(found.bundle_sha256, self._bundle):
                raise Refused(Refusal("approved-other-version"))
            if other_coordinator(self.folder, found.coordinator):
                raise Refused(Refusal("approved-other-coordinator"))
            return found
        # Also without a need for approval, a study that a person refused or withdrew stays refused when it is reworded.
        name, free = name_of(text), self.site.policy.approval == "none"
        if free and not any(other.study == name and other.decision != "approved" for other in others):
            return None
        if name and any(other.study == name for other in others):
            raise Refused(Refusal("study-changed", study=name[:60]))
        raise Refused(Refusal("not-approved"))

    def _check_rows(self, study: Study, approval: Approval | None) -> None:
        """Refuse a study whose columns or rows have changed.

        They are compared with those at the time of the approval.
        """
        schema_sha256 = datasets.load(study.dataset.name).schema.sha256()
        if approval is not None and approval.schema_sha256 != schema_sha256:
            raise Refused(Refusal("schema-changed-after-approval", dataset=study.dataset.name))
        rows = self._frozen(study)
        # Also without an approval, rows frozen under another schema mean something else.
        if rows.schema_sha256 != schema_sha256:
            raise Refused(Refusal("schema-changed-after-freeze", dataset=study.dataset.name))
        if approval is not None and rows.sha256 != approval.rows_sha256:
            raise Refused(Refusal("rows-changed"))
        self._rows[study.sha256()] = rows.sha256

    def _frozen(self, study: Study) -> Frozen:
        """Return what is known of the frozen rows."""
        try:
            found = snapshot.known(self.site.serving(study.dataset.name), self.folder.frozen)
            changed = found is not None and list_changed(self.folder, found)
        except FlfedError:
            raise Refused(Refusal("rows-unserved", site=self.site.name)) from None
        if found is None:
            raise Refused(Refusal("no-frozen-rows", dataset=study.dataset.name))
        if changed:
            raise Refused(Refusal("opt-outs-changed", site=self.site.name))
        return found

    def _check_cohort(self, given: object, study: Study, approval: Approval | None) -> None:
        """Refuse a cohort that is too small or unapproved.

        Approval and policy may each name the sites that may take part.
        """
        names = given.split(",") if isinstance(given, str) and given else []
        if not 0 < len(names) <= MOST_SITES or not all(map(NAME.fullmatch, names)):
            raise Refused(Refusal("sites-unnamed"))
        named = None if approval is None else approval.co_sites
        refused = cohort_refusal(names, self.site, named)
        if refused:
            raise Refused(refused)

    def _messages(self, study: Study) -> StudyMessages:
        found = StudyMessages(study, datasets.load(study.dataset.name).schema, self.site)
        try:
            _ = found.model  # made once, now: a model that cannot be made is refused, not tried
        except FlfedError as error:
            raise Refused(Refusal("model-unmade", error=error)) from None
        except (MemoryError, ValueError):
            raise Refused(Refusal("model-too-large")) from None
        self._known[sha256_of(study.text)] = found
        while len(self._known) > STUDIES:
            self._known.popitem(last=False)
        return found


def _no_rows() -> None:
    """Open nothing.

    Questions about the ledger need no rows.
    """
