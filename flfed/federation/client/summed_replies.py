"""A site's replies about its run's secure sums.

They are on keys and lists.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message

from flfed.federation.client.run_keys import QuestionHistory
from flfed.federation.client.secure_sums import SiteSums
from flfed.federation.client.site_run import SiteRun
from flfed.refusals import decline
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.study.study import Study
from flfed.updates.checkpoints.site_state import StateFiles, open_reply_cache
from flfed.updates.masking.question import question_sha256, sum_name
from flfed.updates.messages.compare import COMPARE, CompareReply
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
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainRequest

SumReply = KeysReply | ListReply | UnmaskReply
SumRequest = KeysRequest | ListRequest | UnmaskRequest
LIST_REQUESTS: dict[str, type[ListRequest | UnmaskRequest]] = {LIST: ListRequest, UNMASK: UnmaskRequest}
SUM_REQUESTS: dict[str, type[SumRequest]] = {KEYS: KeysRequest, **LIST_REQUESTS}


def answer_sums(request: SumRequest, session: SiteSession, own: SiteRun) -> Generator[ComputeRequest, Any, SumReply]:
    """Answer a request of the secure sums of a run."""
    sums = _half(own, session.study)
    if isinstance(request, KeysRequest):
        return sums.keys.take(request)
    return sums.confirm(request) if isinstance(request, ListRequest) else sums.open(request)
    yield  # a handler is a generator, also one without requests


def _half(own: SiteRun, study: Study) -> SiteSums:
    """Return the site's half of a study's sums.

    Raises NotTakingPart where there is none.
    """
    half = own.sums(study)
    if half is None:
        decline("sums-unknown")
    return half


def forget_compared(site: str, run: str) -> None:
    """Delete a site's state of a finished run.

    It was kept to open a sum of figures or of a statistic.
    """
    cache = open_reply_cache(site, run)
    if cache is not None and {sum_name(kind, 0) for kind in (COMPARE, STATISTIC)} & {*StateFiles(cache).names()}:
        cache.forget()


@dataclass(frozen=True, kw_only=True)
class InSum:
    """A message's part in its run's secure sums.

    Attributes
    ----------
    facts : mapping
        For the ledger's line of the reply: question, pinned sites, and the list that it is for.
    question : str
        Hash of the question of its sums; empty where there is none.
    history : QuestionHistory
        The ledger's history of the question when the message came.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    question: str = ""
    history: QuestionHistory = field(default_factory=QuestionHistory)

    def facts_of(self, message: Message, reply: Message) -> Mapping[str, Any]:
        """Return the facts for the ledger's line of a reply.

        It is empty where no figures leave in a sum.
        """
        stays = message.metadata.message_type in (COMPARE, EVALUATE) and MASKED not in reply.content
        return {} if stays else self.facts

    def matches_history(self, now: QuestionHistory) -> bool:
        """Return whether a ledger's history grew by this answer alone.

        Another process of the site may have added one.
        """
        facts = self.facts
        before = self.history
        own_list = {parted(facts["listed"])} if "listed" in facts else set()
        own_pins = {parted(facts["pinned"])} if "pinned" in facts else set()
        new_lists = set(now.lists) ^ set(before.lists)
        new_pins = set(now.earlier_pins) ^ set(before.earlier_pins)
        return new_lists <= own_list and new_pins <= own_pins and now.after_loss == before.after_loss


NO_SUM = InSum()
"""Of a study whose updates cross in the clear."""


def in_sum_of(message: Message, own: SiteRun, study: Study) -> InSum:
    """Return a message's part in its run's secure sums.

    Raises NotTakingPart for a sum that is unknown here.
    """
    kind = message.metadata.message_type
    sums = own.sums(study)
    if sums is None or sums.keys.approval is None or study.aggregation.is_encrypted:
        return NO_SUM
    facts: dict[str, Any] = {}
    if kind in LIST_REQUESTS:
        facts = _facts_of_list(message, own, study)
    elif kind in (TRAIN, EVALUATE, BINS, STATISTIC, SUMMARISE) or (kind == COMPARE and study.compare.is_summed):
        request = TrainRequest.from_record(message.content) if kind in (TRAIN, EVALUATE) else None
        pinned = joined(frozenset(sums.keys.approval.pinned))
        facts = {"question_sha256": question_sha256(study, kind, request), "pinned": pinned}
    question = facts.get("question_sha256", "")
    return InSum(facts=facts, question=question, history=sums.keys.approval.book.get_history(question))


def _facts_of_list(message: Message, own: SiteRun, study: Study) -> dict[str, Any]:
    """Return the facts for a ledger's line of a list.

    The list is confirmed or opened. Raises NotTakingPart.
    """
    of = LIST_REQUESTS[message.metadata.message_type].from_record(message.content)
    half = _half(own, study)
    facts = {"question_sha256": half.question(of.kind, of.round), "listed": of.listed}
    return facts | half.place_of(of.round) if of.kind == TRAIN else facts


def update_section(reply: Message, plain: str) -> str:
    """Return the name of the section with a reply's update.

    It is `plain` where the update leaves alone.
    """
    return MASKED if MASKED in reply.content else plain


def without_figures(message: Message, reply: Message) -> Message:
    """Return a comparison as it leaves a study that records one sum of figures: masked numbers alone."""
    masked = CompareReply.from_record(reply.content).masked
    left = CompareReply(num_examples=0, holdout_rows=0, arms=(), differences=(), masked=masked)
    return Message(left.to_record(), reply_to=message)
