"""Last check and accounting of outbound replies.

A reply is checked again, counted, and written into the ledger before it goes.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from flwr.app import Context, Error, Message, RecordDict

from flfed.callbacks import Today
from flfed.deployment.gate import run_limits
from flfed.deployment.gate.message_check import LONGEST, may_leave, message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.site_state.cohorts import CHANGED, COHORT_SHA256, MODEL, is_over_rows
from flfed.deployment.site_state.comparisons import Comparisons, Facts
from flfed.deployment.site_state.ledger_restart import ledger_refusal
from flfed.errors import FlfedError
from flfed.federation.client.protection import charge_of
from flfed.federation.client.redaction import SITE_ERROR
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, LockedLedger
from flfed.records.ledger_line import ERROR, REFUSED, STANDS_FOR, START, WITHHELD, run_of_new
from flfed.refusals import CONTROL, Refusal
from flfed.rows.data.site import Site
from flfed.updates.messages.compare import IMPORTANCE
from flfed.updates.messages.enrol import EnrolRequest
from flfed.updates.messages.fields import content_sha256
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.kinds import AUDIT, COMPARE, ENROL, SCORES, STATISTIC, TRAIN
from flfed.updates.messages.secure_sum import SECTION as MASKED
from flfed.updates.messages.train import OFFSET
from flfed.words import render

LOG = logging.getLogger("flfed.site")
ERRORS = (REFUSED, ERROR, WITHHELD)
CHARGED = {TRAIN: "arrays", STATISTIC: "sums", SCORES: "scores"}
"""Section of a reply that a study's mechanism may charge, by kind; under secure sums it is the masked one."""
FULL = 1000
"""Records of refusals of a day that stand for one each; after them each stands for twice as many as the one before."""


@dataclass
class Thinning:
    """Count of a day's refusals, and of its records.

    Attributes
    ----------
    day : str
        ISO date; the count begins anew with each.
    records : int
        How many were written on this day.
    pending, pending_bytes : int
        Refusals without a record so far, and their bytes.
    """

    day: str = ""
    records: int = 0
    pending: int = 0
    pending_bytes: int = 0

    def begin(self, day: str, records: int) -> None:
        """Begin a day with the records that it has already; refusals of the day before stay pending."""
        self.day = day
        self.records = records

    def add(self, size: int) -> None:
        """Count one refusal with its bytes."""
        self.pending += 1
        self.pending_bytes += size

    @property
    def is_due(self) -> bool:
        """Whether a record is due for the pending refusals.

        Examples
        --------
        >>> thinning = Thinning("2026-11-28", records=FULL)
        >>> thinning.add(10)
        >>> thinning.is_due
        False
        """
        return self.pending >= 1 << max(self.records - FULL + 1, 0)

    def written(self) -> None:
        """Note that a record of all pending refusals was written."""
        self.records += 1
        self.pending = 0
        self.pending_bytes = 0


class Leaving:
    """Outbound control of one site's replies and errors.

    Parameters
    ----------
    site : Site
    folder : SiteFolder
    ledger : Ledger
        The site's own. Nothing is written to one that is lost.
    today : callable
    """

    def __init__(self, site: Site, folder: SiteFolder, ledger: Ledger, today: Today) -> None:
        self._site = site
        self._ledger = ledger
        self._today = today
        self._errors = Thinning()
        self._counted: dict[tuple[str, int, str], int] = {}  # of a day, up to a line by its number and hash
        self._limits = run_limits.RunLimits(site.policy.runs, site.policy.alignments)
        self.sum_ledger = run_limits.SumLedger(ledger, self._limits)
        self._comparisons = Comparisons(folder, site.policy, ledger, self._limits.compared)

    def used_up(self, message: Message, context: Context, facts: Facts) -> Refusal | None:
        """Return why a message gets no reply, or None.

        Reasons are the state of the ledger, the bytes of the day, and earlier replies to the message's run.

        Parameters
        ----------
        message : Message
            A request that fits the study.
        context : Context
            It names the run's sites.
        facts : mapping
            The ledger's facts about the study and the run.
        """
        if anew := run_limits.attempts_refusal(message, context):
            return anew
        try:
            with self._ledger.lock() as locked_ledger:
                locked_ledger.check_time(locked_ledger.last())
                over = self._too_much(locked_ledger, 1) or self._over(locked_ledger, message, facts)
                return over or self._comparisons.over(locked_ledger, message, facts, AUDIT)
        except FlfedError as error:
            return self._unwritten(error)

    def reply(self, message: Message, reply: Message, facts: Facts, messages: StudyMessages) -> Message:
        """Return a reply that fits, else an error reply.

        It fits where it has the form of its kind, and the day's bytes allow it.

        Parameters
        ----------
        message : Message
            A request that fits the study.
        reply : Message
            Of the client app.
        facts : mapping
            The ledger's facts about the study.
        messages : StudyMessages
        """
        kind = message.metadata.message_type
        # A figure without a request may not be in the reply, even where the study allows it.
        flags = _round_of(message)
        wanted = {"score": flags.get("score") is not False, "offset": flags.get("offset") is True}
        defect = message_defect(reply.content, messages.leaving(kind, **wanted))
        if not defect and kind == ENROL:
            defect = self._enrol_defect(reply.content)
        if defect:
            return self.withhold(message, Refusal("reply-unfit", kind=kind, defect=defect), facts)
        came = reply
        study_facts = facts
        reply, facts = self._comparisons.leaving(message, reply, facts)
        facts = {**facts, **run_limits.exchange_of(message)}
        if kind == ENROL:
            # The line has bytes and hash of a reply with zeros there: its own hash cannot be in it.
            _set_head(reply, 0, START, START)
        line = _line_of(message, reply, facts, messages)
        size = line["bytes"]
        try:
            # All limits and the line are one step under the lock. Since the first check another process of the site may
            # have answered this run, from another model, or used the last bytes.
            with self._ledger.lock() as locked_ledger:
                over = self._too_much(locked_ledger, size) or self._over(locked_ledger, message, facts)
                late = self._comparisons.over(locked_ledger, message, facts, COMPARE)
                if not over and not late:
                    known = EnrolRequest.from_record(message.content).known_line if kind == ENROL else 0
                    known_hash = locked_ledger.hash_at(known)
                    written = locked_ledger.append(kind=kind.rpartition(".")[2], **line)
                    if kind == ENROL:
                        _set_head(reply, written.n, written.hash, known_hash)
                    return reply
        except FlfedError as error:
            return error_reply(self._unwritten(error), message)
        if over:
            return self.withhold(message, over, facts)
        # Another process took the last comparison meanwhile: this one leaves without its figures.
        return self.reply(message, came, study_facts, messages)

    def _over(self, locked_ledger: LockedLedger, message: Message, facts: Facts) -> Refusal | None:
        """Return why the locked ledger allows the message's run no answer, or None."""
        if is_over_rows(message.metadata.message_type, facts):
            cohorts = self._limits.cohorts(locked_ledger)
            cohort = str(facts.get(COHORT_SHA256, ""))
            if other := cohorts.refusal(str(facts["dataset"]), cohort, changed=CHANGED in facts):
                return other
            model = run_limits.model_of(message)
            if model and cohorts.trained_elsewhere(str(facts["dataset"]), model, cohort):
                return Refusal("start-trained-before")
        asks, rows = str(facts["asks_sha256"]), str(facts["rows_sha256"])
        return self._limits.refusal(locked_ledger, message, run_of_new(facts), asks, rows)

    def withhold(self, message: Message, reason: Refusal, facts: Facts) -> Message:
        """Return an error reply in place of a withheld reply.

        The reason is one of the gate's own sentences.
        """
        return self._record_error(WITHHELD, message, reason, facts)

    def error(self, message: Message, reply: Message, facts: Facts, *, own: Refusal | None) -> Message:
        """Return an error reply whose text may leave.

        Parameters
        ----------
        message : Message
        reply : Message
            An error.
        facts : mapping
        own : Refusal or None
            The gate's own sentence; any other text is checked as a whole before it leaves.
        """
        if own is not None:
            return self._record_error(REFUSED, message, own, facts)
        text = reply.error.reason or ""
        # A text that is no refusal is replaced as a whole: no part of it is safe alone.
        reason = may_leave(text, self._site)
        if reason is None:
            LOG.error(render("gate.log.withheld", length=len(text)))
        if message.metadata.message_type == STATISTIC and (chosen := run_limits.request_sha256(message)):
            # A visit that a site refuses is a visit all the same.
            facts = {**facts, "asked_sha256": chosen}
        return self._record_error(ERROR, message, reason or Refusal("error-untold"), facts)

    def _record_error(self, kind: str, message: Message, reason: Refusal, facts: Facts) -> Message:
        """Write an error into the ledger and return it.

        It is short, so the byte limit of the day does not apply. In a flood of errors a line stands for several.
        """
        text = CONTROL.sub(" ", reason)[:LONGEST]
        sha256 = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        request_facts = {"asked": message.metadata.message_type[:40], "round": _round_of(message).get("round", 0)}
        line = {**facts, **request_facts, "bytes": len(text), "sha256": sha256, "reason": text}
        try:
            if "asked_sha256" in facts:
                self._ledger.append(kind=kind, **line)  # a visit counts one by one
            else:
                self._append_thinned(kind, line)
        except FlfedError as error:
            text = self._unwritten(error)
        return error_reply(text, message)

    def _unwritten(self, error: FlfedError) -> Refusal:
        LOG.error("%s", error)
        return ledger_refusal(error, self._site.name)

    def _append_thinned(self, kind: str, line: dict[str, Any]) -> None:
        """Append an error's line, or let a later line stand for it too."""
        day = self._today().isoformat()
        with self._ledger.lock() as locked_ledger:
            if self._errors.day != day:
                of_day = takewhile(lambda one: one.at[:10] >= day, locked_ledger.backwards())
                self._errors.begin(day, sum(one.kind in ERRORS for one in of_day))
            self._errors.add(line["bytes"])
            if not self._errors.is_due:
                return
            if self._errors.pending > 1:
                line |= {STANDS_FOR: self._errors.pending, "bytes": self._errors.pending_bytes}
            locked_ledger.append(kind=kind, **line)
            self._errors.written()

    def _enrol_defect(self, record: RecordDict) -> Refusal | None:
        config = record["config"]
        accepted = config["accepted"]
        reason = config["reason"]
        # A reason beside an acceptance would be free text without a reader.
        if accepted and reason:
            return Refusal("accepted-with-reason")
        return None if accepted or may_leave(str(reason), self._site) else Refusal("reason-unknown")

    def _used(self, locked_ledger: LockedLedger) -> int:
        """Return how many bytes left today.

        A line of a later day, after a clock was set back, counts too.

        Only lines since the last count are read, by whichever process they were written. Where the counted lines are
        gone from the ledger, all lines of the day are read.
        """
        day = self._today().isoformat()
        used = 0
        newest = None
        for line in locked_ledger.backwards():
            newest = newest or line
            if (day, line.n, line.hash) in self._counted:
                used += self._counted[day, line.n, line.hash]
                break
            if line.at[:10] < day:
                break
            size = line.facts.get("bytes", 0)
            # Errors are short and always leave: they do not count.
            if isinstance(size, int) and line.kind not in ERRORS:
                used += size
        if newest is not None:
            self._counted = {(day, newest.n, newest.hash): used}
        return used

    def _too_much(self, locked_ledger: LockedLedger, more: int) -> Refusal | None:
        used = self._used(locked_ledger)
        most = self._site.policy.daily_bytes
        return Refusal("too-many-bytes", most=most, used=used) if used + more > most else None


def _line_of(message: Message, reply: Message, facts: Facts, messages: StudyMessages) -> dict[str, Any]:
    """Return the ledger's line of a reply.

    It has these facts of the study, the run and its sums.
    """
    kind = message.metadata.message_type
    # Of an update the budget was charged for the arrays alone: the figures beside them have no noise. Where noise
    # covers everything there are no such figures, and the rest of a message is names and shapes.
    left = {"bytes": count_bytes(reply.content), "sha256": content_sha256(reply.content)}
    line = {"round": _round_of(message).get("round", 0), **facts, **left, "charged_bytes": 0}
    if kind in CHARGED and charge_of(messages.study) is not None:
        update = MASKED if MASKED in reply.content else CHARGED[kind]
        paid = reply.content if messages.study.is_covered else {update: reply.content[update]}
        line["charged_bytes"] = count_bytes(paid)
    # The line names the coordinator's choice, so that a later request with another model is recognised.
    if chosen := run_limits.request_sha256(message):
        line["asked_sha256"] = chosen
    if OFFSET in reply.content:
        line["offset"] = True
    if IMPORTANCE in reply.content:
        line["importances"] = True
    choices = {**run_limits.choices_of(message), **run_limits.trained_from(message, messages.study)}
    if kind == TRAIN and not messages.study.grows_trees:
        is_first = line["round"] == 1
        first = messages.first_sha256(int(facts.get("repeat", 0))) if is_first else ""
        choices[MODEL] = first or run_limits.model_of(message) or None
    line |= {name.replace("-", "_"): value for name, value in choices.items() if value is not None}
    return line


def _round_of(message: Message) -> dict[str, Any]:
    """Return the requested round and its flags.

    The flags state whether scores and an offset were requested. Values that are not plain are left out.
    """
    config = message.content.get("config") if message.has_content() else None
    if config is None:
        return {}
    # Only small plain numbers reach the ledger: the request may not have been checked yet.
    flags = {key: config.get(key) for key in ("round", "score", "offset")}
    return {key: value for key, value in flags.items() if isinstance(value, (int, bool)) and abs(value) < 2**53}


def error_reply(reason: str, message: Message) -> Message:
    """Return an error reply with its reason.

    The reason is a refusal, or its text without control characters.
    """
    return Message(Error(code=SITE_ERROR, reason=str(reason)), reply_to=message)


def _set_head(reply: Message, n: int, head: str, known_hash: str) -> None:
    """Set the end of the ledger in the reply to an enrolment, and the hash of the line that the coordinator knows."""
    config = reply.content.config_records["config"]
    config["ledger-lines"], config["ledger-head"], config["known-hash"] = n, head, known_hash
