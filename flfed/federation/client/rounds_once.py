"""A round of training is answered once: who asks for it again gets the reply that was kept, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from flwr.app import RecordDict

from flfed.federation.client.privacy_budget import NotSpent
from flfed.federation.client.protection import draws_once
from flfed.federation.client.site_run import SiteRun
from flfed.refusals import Refusal
from flfed.rows.session import SiteSession
from flfed.rows.training.requests import ComputeRequest
from flfed.updates.checkpoints.reply_cache import KeptReplies, digest_of
from flfed.updates.messages.train import TrainReply, TrainRequest


def kept_or_trained(
    request: TrainRequest,
    session: SiteSession,
    own: SiteRun,
    kept: KeptReplies,
    trained: Callable[[], TrainReply],
) -> RecordDict:
    """Return the reply that a site's disk has of a request, else a new one, which is kept.

    Of two processes that are asked at once the second one waits for the first one's reply.

    Raises
    ------
    NotSpent
        If the round was answered to another request, and its noise cannot be drawn again.
    """
    if not request.fit:
        return trained().to_record()
    with kept.answering():
        under, sums = own.under(session), own.sums(session.study)
        earlier = kept.reply_to(request, under=under)
        if earlier is not None:
            if sums is None:
                return earlier
            asked = sums.asked(request)
            sums.note(asked)
            return sums.as_of_now(asked, TrainReply.from_record(earlier)).to_record()
        # Answered, to another request or under another policy.
        if draws_once(session.protection) and kept.has_reply(request.round):
            raise NotSpent(Refusal("round-drawn", round=request.round))
        if sums is not None:
            sums.check_unused(sums.asked(request))
        record = trained().to_record()
        kept.keep(request, record, under=under)
        # Written once the reply is kept: whatever is asked from here on, no other vector leaves under its masks.
        if sums is not None:
            sums.note(sums.asked(request))
        return record


@dataclass(frozen=True)
class LastUpdate:
    """A run's last update under noise that nobody can draw again, and the hash of its request."""

    round: int
    request: str
    reply: Any


class LastUpdates:
    """Last updates of the sites of one process, which keeps nothing of a round on a disk."""

    def __init__(self) -> None:
        self._of_run: dict[tuple[str, str, int], LastUpdate] = {}

    def once(
        self,
        request: TrainRequest,
        session: SiteSession,
        own: SiteRun,
        training: Generator[ComputeRequest, Any, Any],
    ) -> Generator[ComputeRequest, Any, Any]:
        """Return the last reply where the very same is asked again, else that of the training.

        Noise that follows from a seed is the same each time, and nothing is kept of it.

        Raises
        ------
        NotSpent
            If the round was answered to another request.
        """
        if not (request.fit and draws_once(session.protection)):
            return (yield from training)
        place, digest = (own.site, own.run, own.repeat), digest_of(request, under=own.under(session))
        last = self._of_run.get(place)
        if last is not None and last.round == request.round:
            if last.request != digest:
                raise NotSpent(Refusal("round-drawn", round=request.round))
            return last.reply
        reply = yield from training
        self._of_run[place] = LastUpdate(request.round, digest, reply)
        return reply
