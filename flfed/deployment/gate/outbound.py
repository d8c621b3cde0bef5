"""Last check and accounting of outbound replies.

A reply is checked again, counted, and written into the ledger before it goes.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict

from flfed.callbacks import Today
from flfed.deployment.gate.message_check import LONGEST, may_leave, message_defect
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.gate.run_limits import asked_of, attempts_refusal, note_answer, run_refusal
from flfed.deployment.site_state.ledger_restart import ledger_refusal
from flfed.errors import FlfedError
from flfed.federation.client.journal import Answer, find_answer
from flfed.federation.client.outbound_figures import rounded_comparison
from flfed.federation.client.protection import is_charged
from flfed.federation.client.redaction import SITE_ERROR
from flfed.records.ledger import Ledger
from flfed.records.ledger_line import ERROR, REFUSED, STANDS_FOR, START, WITHHELD
from flfed.records.site_state import SiteState, Step
from flfed.refusals import CONTROL, Refusal
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.checkpoints.site_state import record_bytes, record_of_bytes
from flfed.updates.messages.compare import IMPORTANCE, CompareReply
from flfed.updates.messages.enrol import EnrolRequest
from flfed.updates.messages.fields import content_sha256
from flfed.updates.messages.in_memory import count_bytes
from flfed.updates.messages.kinds import COMPARE, ENROL, SCORES, STATISTIC, TRAIN
from flfed.updates.messages.secure_sum import SECTION as MASKED
from flfed.updates.messages.train import OFFSET
from flfed.words import render

Facts = Mapping[str, Any]
LOG = logging.getLogger("flfed.site")
CHARGED = {TRAIN: "arrays", STATISTIC: "sums", SCORES: "scores"}
"""Section of a reply that a study's mechanism may charge, by kind; under secure sums it is the masked one."""
OF_ROWS = frozenset({"row-outweighs", "row-outweighs-first", "error"})
"""Codes of errors that depend on rows: they are answers to a step."""
FULL = 1000
"""Records of refusals of a day that stand for one each; after them each stands for twice as many as the one before."""


class Leaving:
    """Outbound control of one site's replies and errors.

    Parameters
    ----------
    site : Site
    state : SiteState
        With its ledger: nothing is written to one that is lost.
    ledger : Ledger
    today : callable
    """

    def __init__(self, site: Site, state: SiteState, ledger: Ledger, today: Today) -> None:
        self._site = site
        self._state = state
        self._ledger = ledger
        self._today = today
        self._unwritten = (0, 0)  # refusals without a record so far, and their bytes

    def used_up(self, message: Message, context: Context, facts: Facts, study: Study) -> Refusal | None:
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
        study : Study
        """
        if anew := attempts_refusal(message, context):
            return anew
        try:
            asked = asked_of(message, self._site.policy, facts)
            with self._state.transaction() as step:
                step.check_time()
                over = self._too_much(step.tables, 1)
                over = over or run_refusal(step.tables, self._site.policy, study, message, asked, facts)
                found = find_answer(step.tables, asked) if asked is not None else None
                return over or (found if isinstance(found, Refusal) else None)
        except FlfedError as error:
            return self._no_line(error)

    def earlier(self, message: Message, facts: Facts) -> Message | None:
        """Return the reply that left for this very request before; None where there is none."""
        asked = asked_of(message, self._site.policy, facts)
        if asked is None:
            return None
        try:
            with self._state.transaction() as step:
                found = find_answer(step.tables, asked)
        except FlfedError as error:
            return error_reply(self._no_line(error), message)
        if not isinstance(found, Answer):
            return None
        if found.content is None:
            return error_reply(found.error, message)
        return Message(record_of_bytes(found.content), reply_to=message)

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
        reply = self._rounded(message, reply)
        if kind == ENROL:
            # The line has bytes and hash of a reply with zeros there: its own hash cannot be in it.
            _set_head(reply, 0, START, START)
        line = _line_of(message, reply, facts, messages)
        asked = asked_of(message, self._site.policy, facts)
        if asked is not None:
            line |= {"asked_sha256": asked.request, "level": asked.place.level}
        try:
            # All limits, the answer and its line are one step: another process of the site may have answered this run
            # since the first check, or used the last bytes.
            with self._state.transaction() as step:
                found = find_answer(step.tables, asked) if asked is not None else None
                content = record_bytes(reply.content)
                over = found if isinstance(found, Refusal) else None
                if isinstance(found, Answer) and found.content != content and asked is not None:
                    over = Refusal("step-answered", round=asked.place.round)
                over = over or self._too_much(step.tables, line["bytes"])
                over = over or run_refusal(step.tables, self._site.policy, messages.study, message, asked, facts)
                if not over:
                    known = EnrolRequest.from_record(message.content).known_line if kind == ENROL else 0
                    known_hash = step.hash_at(known) if kind == ENROL else ""
                    written = step.append(kind=kind.rpartition(".")[2], **line)
                    if kind == ENROL and written is not None:
                        _set_head(reply, written.n, written.hash, known_hash)
                    _add_to_day(step.tables, self._today().isoformat(), size=line["bytes"])
                    if found is None:
                        at = "" if written is None else written.at
                        note_answer(step.tables, message, asked, Answer(content), facts, messages, at)
        except FlfedError as error:
            return error_reply(self._no_line(error), message)
        return self.withhold(message, over, facts) if over else reply

    def _rounded(self, message: Message, reply: Message) -> Message:
        """Return an institution's comparison with three digits a figure, and any other reply as it is."""
        if message.metadata.message_type != COMPARE or self._site.policy.is_open:
            return reply
        comparison = rounded_comparison(CompareReply.from_record(reply.content))
        return Message(comparison.to_record(), reply_to=message)

    def withhold(self, message: Message, reason: Refusal, facts: Facts) -> Message:
        """Return an error reply in place of a withheld reply.

        The reason is one of the gate's own sentences.
        """
        return self._record_error(WITHHELD, message, reason, facts)

    def error(
        self, message: Message, reply: Message, facts: Facts, *, own: Refusal | None, messages: StudyMessages | None
    ) -> Message:
        """Return an error reply whose text may leave.

        Parameters
        ----------
        message : Message
        reply : Message
            An error.
        facts : mapping
        own : Refusal or None
            The gate's own sentence; any other text is checked as a whole before it leaves.
        messages : StudyMessages or None
            Of the study, where it was let in.
        """
        if own is not None:
            return self._record_error(REFUSED, message, own, facts)
        text = reply.error.reason or ""
        # A text that is no refusal is replaced as a whole: no part of it is safe alone.
        reason = may_leave(text, self._site)
        if reason is None:
            LOG.error(render("gate.log.withheld", length=len(text)))
        reason = reason or Refusal("error-untold")
        return self._record_error(ERROR, message, reason, facts, messages if reason.code in OF_ROWS else None)

    def _record_error(
        self, kind: str, message: Message, reason: Refusal, facts: Facts, messages: StudyMessages | None = None
    ) -> Message:
        """Write an error into the ledger and return it; with `messages`, as the answer to its step.

        It is short, so the byte limit of the day does not apply. In a flood of errors a line stands for several.
        """
        text = CONTROL.sub(" ", reason)[:LONGEST]
        sha256 = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        request_facts = {"asked": message.metadata.message_type[:40], "round": _round_of(message).get("round", 0)}
        line = {**facts, **request_facts, "bytes": len(text), "sha256": sha256, "reason": text}
        try:
            with self._state.transaction() as step:
                if messages is None:
                    self._append_thinned(step, kind, line)
                else:
                    asked = asked_of(message, self._site.policy, facts)
                    written = step.append(kind=kind, **line)
                    if asked is not None and find_answer(step.tables, asked) is None:
                        at = "" if written is None else written.at
                        note_answer(step.tables, message, asked, Answer(None, text), facts, messages, at)
        except FlfedError as error:
            text = self._no_line(error)
        return error_reply(text, message)

    def _no_line(self, error: FlfedError) -> Refusal:
        LOG.error("%s", error)
        return ledger_refusal(error, self._site.name)

    def _append_thinned(self, step: Step, kind: str, line: dict[str, Any]) -> None:
        """Append an error's line, or let a later line stand for it too."""
        day = self._today().isoformat()
        number, size = self._unwritten
        number, size = number + 1, size + line["bytes"]
        (errors,) = step.tables.execute("SELECT coalesce(max(errors), 0) FROM days WHERE day = ?", (day,)).fetchone()
        self._unwritten = (number, size)
        if number < 1 << max(errors - FULL + 1, 0):
            return
        if number > 1:
            line |= {STANDS_FOR: number, "bytes": size}
        step.append(kind=kind, **line)
        _add_to_day(step.tables, day, errors=1)
        self._unwritten = (0, 0)

    def _enrol_defect(self, record: RecordDict) -> Refusal | None:
        config = record["config"]
        accepted = config["accepted"]
        reason = config["reason"]
        # A reason beside an acceptance would be free text without a reader.
        if accepted and reason:
            return Refusal("accepted-with-reason")
        return None if accepted or may_leave(str(reason), self._site) else Refusal("reason-unknown")

    def _too_much(self, tables: sqlite3.Connection, more: int) -> Refusal | None:
        # Days that a clock was ahead of count as well.
        of_days = "SELECT coalesce(sum(bytes), 0) FROM days WHERE day >= ?"
        (used,) = tables.execute(of_days, (self._today().isoformat(),)).fetchone()
        most = self._site.policy.daily_bytes
        return Refusal("too-many-bytes", most=most, used=used) if used + more > most else None


def _add_to_day(tables: sqlite3.Connection, day: str, *, size: int = 0, errors: int = 0) -> None:
    """Count what leaves on a day."""
    tables.execute("INSERT OR IGNORE INTO days VALUES (?, 0, 0)", (day,))
    tables.execute("UPDATE days SET bytes = bytes + ?, errors = errors + ? WHERE day = ?", (size, errors, day))


def _line_of(message: Message, reply: Message, facts: Facts, messages: StudyMessages) -> dict[str, Any]:
    """Return the ledger's line of a reply.

    It has these facts of the study, the run and its sums.
    """
    kind = message.metadata.message_type
    # Of an update the budget was charged for the arrays alone: the figures beside them have no noise. Where noise
    # covers everything there are no such figures, and the rest of a message is names and shapes.
    left = {"bytes": count_bytes(reply.content), "sha256": content_sha256(reply.content)}
    line = {"round": _round_of(message).get("round", 0), **facts, **left, "charged_bytes": 0}
    if kind in CHARGED and is_charged(messages.study):
        update = MASKED if MASKED in reply.content else CHARGED[kind]
        paid = reply.content if messages.study.is_covered else {update: reply.content[update]}
        line["charged_bytes"] = count_bytes(paid)
    if OFFSET in reply.content:
        line["offset"] = True
    if IMPORTANCE in reply.content:
        line["importances"] = True
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
