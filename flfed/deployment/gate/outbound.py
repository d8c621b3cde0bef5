"""Last check and accounting of outbound replies.

A reply is checked again, counted, and written into the ledger before it goes.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Error, Message, RecordDict

from flfed.deployment.gate.error_texts import HELD_BACK, LONGEST, is_ours
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.gate.message_sections import message_defect
from flfed.deployment.gate.run_limits import ERROR, REFUSED, WITHHELD, RunLimits, asked_sha256, chosen_numbers
from flfed.deployment.site_state.ledger_loss import Continuity
from flfed.deployment.site_state.request_archive import content_sha256
from flfed.errors import FlfedError
from flfed.federation.client.privacy_budget import NO_LEDGER
from flfed.federation.client.protection import charge_of
from flfed.federation.client.redaction import SITE_ERROR
from flfed.folders import SiteFolder
from flfed.records.ledger.ledger import HeldLedger, Ledger
from flfed.rows.data.site import Site
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.in_memory_arrays import count_bytes
from flfed.updates.messages.offset import SECTION as OFFSET
from flfed.updates.messages.sentences import CONTROL
from flfed.updates.messages.train import TRAIN

LOG = logging.getLogger("flfed.site")
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Counted:
    """Bytes of one day up to a ledger line.

    The line is known by its number and its hash.
    """

    day: str = ""
    n: int = 0
    hash: str = ""
    used: int = 0


class Leaving:
    """Outbound control of one site's replies and errors.

    Parameters
    ----------
    site : Site
    ledger : Ledger
    today : callable
        Returns the date in UTC, as the ledger's lines have it.
    continuity : Continuity, optional
        Tells where the ledger was lost: then nothing is written into what is there in its place.
    """

    def __init__(
        self, site: Site, ledger: Ledger, today: Callable[[], datetime.date], continuity: Continuity | None = None
    ) -> None:
        self._site = site
        self._ledger = ledger
        self._today = today
        self._continuity = continuity or Continuity(SiteFolder(site.name), ledger)
        self._counted, self._limits = Counted(), RunLimits(site.policy.runs)

    def used_up(self, message: Message, facts: Facts) -> str:
        """Return why a message gets no reply.

        An empty text where it gets one. Reasons are the state of the ledger, the bytes of the day, and what its run
        already had.

        Parameters
        ----------
        message : Message
            What is asked; it fits the study.
        facts : mapping
            What the ledger says of the study, and of the run.
        """
        run = (str(facts["study_sha256"]), str(facts["run"]), int(facts["repeat"] or 0))
        try:
            lost = self._continuity.refusal()
            if lost:
                return lost
            with self._ledger.held() as held:
                return self._too_much(self._used(held), 1) or self._limits.refusal(held, message, run)
        except FlfedError as error:
            LOG.error("%s", error)
            return NO_LEDGER

    def reply(self, message: Message, reply: Message, facts: Facts, messages: StudyMessages) -> Message:
        """Return a reply that fits, else an error reply.

        It fits where it is what its kind may be, and the day's bytes allow it.

        Parameters
        ----------
        message : Message
            What was asked; it fits the study.
        reply : Message
            Of the client app.
        facts : mapping
            What the ledger says of the study.
        messages : StudyMessages
        """
        kind = message.metadata.message_type
        # What was not asked for may not be in the reply, even where the study knows it.
        asked = _round_of(message)
        wanted = {"score": asked.get("score") is not False, "offset": asked.get("offset") is True}
        defect = message_defect(reply.content, messages.leaving(kind, **wanted))
        if not defect and kind == ENROL:
            defect = self._enrol_defect(reply.content)
        if defect:
            return self.withhold(message, f"its {kind} reply is held back: {defect}", facts)
        size = count_bytes(reply.content)
        # Of an update the arrays alone were charged to the budget: the figures beside them have no noise.
        charged = kind == TRAIN and charge_of(messages.study) is not None
        line = {**facts, "round": asked.get("round", 0), "bytes": size, "sha256": content_sha256(reply.content)}
        line["charged_bytes"] = count_bytes({"arrays": reply.content["arrays"]}) if charged else 0
        # The line names what the coordinator chose, so that a later question by another model is recognised.
        if chosen := asked_sha256(message):
            line["asked_sha256"] = chosen
        if OFFSET in reply.content:
            line["offset"] = True
        line |= {name.replace("-", "_"): value for name, value in chosen_numbers(message).items()}
        try:
            lost = self._continuity.refusal()
            if lost:
                return error_reply(lost, message)
            # The count and the line are one step under the lock: two replies at once cannot both take the last bytes.
            with self._ledger.held() as held:
                over = self._too_much(self._used(held), size)
                if not over:
                    held.append(kind=kind.rpartition(".")[2], **line)
                    return reply
        except FlfedError as error:
            LOG.error("%s", error)
            return error_reply(NO_LEDGER, message)
        return self.withhold(message, over, facts)

    def withhold(self, message: Message, reason: str, facts: Facts) -> Message:
        """Return an error reply in a withheld reply's place.

        The reason is one of the gate's own sentences.
        """
        return self._said(WITHHELD, message, reason, facts)

    def error(self, message: Message, reply: Message, facts: Facts, *, ours: bool) -> Message:
        """Return an error reply whose text may leave.

        Parameters
        ----------
        message : Message
        reply : Message
            An error.
        facts : mapping
        ours : bool
            Whether the gate itself said it; what anything else said is read word for word.
        """
        reason = reply.error.reason or ""
        plain = reason.removeprefix(f"{self._site.name}: ")
        # A sentence that is not known is replaced as a whole: no part of it is safe by itself.
        if not ours and not is_ours(plain, self._site):
            LOG.error("an error of %d characters was held back", len(reason))
            reason = HELD_BACK
        return self._said(REFUSED if ours else ERROR, message, reason, facts)

    def _said(self, kind: str, message: Message, reason: str, facts: Facts) -> Message:
        """Write an error into the ledger and return it.

        It is short, so the byte limit of the day does not apply.
        """
        reason = CONTROL.sub(" ", reason)[:LONGEST]
        sha256 = hashlib.sha256(reason.encode("utf-8", "replace")).hexdigest()
        asked = {"asked": message.metadata.message_type[:40], "round": _round_of(message).get("round", 0)}
        line = {**facts, **asked, "bytes": len(reason), "sha256": sha256, "reason": reason}
        try:
            lost = self._continuity.refusal()
            if lost:
                reason = lost  # and no line: it would be the first of a ledger that nobody began anew
            else:
                self._ledger.append(kind=kind, **line)
        except FlfedError as error:
            LOG.error("%s", error)
            reason = NO_LEDGER
        return error_reply(reason, message)

    def _enrol_defect(self, record: RecordDict) -> str:
        config = dict(record["config"].items())
        accepted, reason = config["accepted"], config["reason"]
        # A reason beside an acceptance would be free text that nobody reads.
        if accepted and reason:
            return "it accepts, and gives a reason"
        return "" if accepted or is_ours(str(reason), self._site) else "its reason is no sentence of ours"

    def _used(self, held: HeldLedger) -> int:
        """Return how many bytes left today.

        A line of a later day, after a clock was set back, counts too.

        Only lines that came since the last count are read, whoever wrote them; where what was counted is
        not in the ledger any more, all of the day's are.
        """
        day = self._today().isoformat()
        counted = self._counted
        used = 0
        newest = None
        for line in held.backwards():
            newest = newest or line
            if (day, line.n, line.hash) == (counted.day, counted.n, counted.hash):
                used += counted.used
                break
            if line.at[:10] < day:
                break
            size = line.facts.get("bytes", 0)
            # Errors are short and always leave; they do not use the day's bytes up.
            used += size if isinstance(size, int) and line.kind not in (REFUSED, ERROR, WITHHELD) else 0
        if newest is not None:
            self._counted = Counted(day, newest.n, newest.hash, used)
        return used

    def _too_much(self, used: int, more: int) -> str:
        most = self._site.policy.daily_bytes
        if used + more <= most:
            return ""
        return f"its policy lets {most} bytes leave in a day, and {used} have left: it answers again after midnight UTC"


def _round_of(message: Message) -> dict[str, Any]:
    """Return the requested round and its flags.

    The flags say whether scores and an offset were asked for. Values that are not plain are left out.
    """
    config = message.content.get("config") if message.has_content() else None
    if config is None:
        return {}
    # Only small plain numbers reach the ledger: the request may not have been checked yet.
    found = {key: config.get(key) for key in ("round", "score", "offset")}
    return {key: value for key, value in found.items() if isinstance(value, (int, bool)) and abs(value) < 2**53}


def error_reply(reason: str, message: Message) -> Message:
    """Return the reply that says why a message is not answered."""
    return Message(Error(code=SITE_ERROR, reason=reason), reply_to=message)
