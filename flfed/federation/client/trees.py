"""A site's answers where trees grow: rows by cell, and sums of gradients, under masks where the study asks for sums."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from flfed.federation.client.redaction import NotTakingPart, losses_of, said_by, scores_of, training_stays
from flfed.federation.client.secure_sums import SiteSums, losses_in_sum
from flfed.refusals import Refusal
from flfed.rows.session import SiteSession
from flfed.rows.site_trees import Level, cells_of_rows, grown
from flfed.rows.training.requests import ComputeRequest
from flfed.study.exchanges import refits
from flfed.updates.aggregation.loss_sums import Losses
from flfed.updates.checkpoints.run_state import OF_RUN
from flfed.updates.masking.rules import Sites
from flfed.updates.messages.fields import Arrays, MalformedMessage
from flfed.updates.messages.secure_sum import (
    ListReply,
    ListRequest,
    Masked,
    UnmaskReply,
    UnmaskRequest,
    joined,
    parted,
)
from flfed.updates.messages.summarise import BINS, SUMMARISE, BinsReply, BinsRequest
from flfed.updates.messages.train import (
    ASKED,
    EVALUATE,
    LAST,
    REFIT,
    SUMS,
    TRAIN,
    TREE,
    TREES_MISSING,
    TREES_SHA256,
    TrainReply,
    TrainRequest,
)

if TYPE_CHECKING:
    from flfed.federation.client.site_run import SiteRun

_CELLS, _LEVEL = "masked-cells", "masked-level-"
"""Names of what was masked there, which counts for the same rows, policy and study only."""
_LISTED = f"{OF_RUN}tree-list"
"""Name of the round whose list a site opened last, and of that list."""


@dataclass(frozen=True, eq=False)
class SiteTreeSums(SiteSums):
    """A site's half of the secure sums of a run of trees, each level of which is a sum.

    All levels of a tree have one list: a node's sums less those of one of its children are its other child's, and of
    two lists they would be those of a site that is in one of them only, too.
    """

    kinds: ClassVar[tuple[str, ...]] = (TRAIN, EVALUATE, BINS, SUMMARISE)

    def place_of(self, number: int) -> dict[str, int]:
        """Return round and level of an exchange, as a ledger's facts."""
        round, level = self.order.place(number)
        return {"round": round, "level": level}

    def masked_cells(self, counts: Arrays) -> Masked:
        """Return rows by cell under masks, the same each time they are asked for; raises NotTakingPart."""
        numbers = np.concatenate([values.ravel() for values in counts.values()])
        return self.once(self.asked(None, BINS), _CELLS, lambda: numbers.astype(np.uint64))

    def masked_level(self, request: TrainRequest, sums: np.ndarray, losses: Losses, seed: int) -> Masked:
        """Return the sums of a level under masks, the same each time they are asked for; raises NotTakingPart.

        Beside those of the roots stand the losses of the trees before the round.
        """
        # Modulo 2^64 a sum of whole numbers with signs is that of the same bits without.
        numbers, asked, state = sums.ravel().view(np.uint64), self.asked(request), self.keys.state
        if self.order.place(asked.number)[1] == 0:
            numbers = np.concatenate([numbers, losses_in_sum(self.keys, losses, self.rng(asked, seed))])
        made = self.once(asked, f"{_LEVEL}{asked.number:06d}", lambda: numbers)
        for name in [name for name in state.names() if name.startswith(_LEVEL)]:
            if int(name.removeprefix(_LEVEL)) <= asked.number - self.order.asked_again:
                state.remove(name)
        return made

    def list_refusal(self, kind: str, number: int, listed: Sites) -> Refusal | None:
        """Return why the site neither confirms nor opens a list, None where it does."""
        refused = super().list_refusal(kind, number, listed)
        if refused is not None or kind != TRAIN:
            return refused
        round, level = self.order.place(number)
        kept = self.keys.state.read(_LISTED)
        if kept is not None and kept["round"][0] == round:
            return None if parted(kept["listed"].tobytes().decode()) == listed else Refusal("list-differs")
        # Without the list of its root a tree goes on with none.
        return Refusal("list-differs") if level else None

    def confirm(self, request: ListRequest) -> ListReply:
        """Confirm a list to each of its sites; raises NotTakingPart."""
        reply = super().confirm(request)
        self._keep_list(request)
        return reply

    def open(self, request: UnmaskRequest) -> UnmaskReply:
        """Open a list's sum; raises NotTakingPart."""
        reply = super().open(request)
        self._keep_list(request)
        return reply

    def _keep_list(self, request: ListRequest | UnmaskRequest) -> None:
        """Keep the list of a tree's root, which all of its levels have; one that was not opened binds to nothing."""
        if request.kind != TRAIN:
            return
        round, level = self.order.place(request.round)
        if level == 0:
            listed = np.frombuffer(joined(parted(request.listed)).encode(), np.uint8)
            self.keys.state.write(_LISTED, {"round": np.array([round]), "listed": listed})


def count_cells(
    message: Message, open_session: Callable[[], SiteSession], own: SiteRun
) -> Generator[ComputeRequest, Any, BinsReply]:
    """Return the rows that are trained on by cell of a column."""
    BinsRequest.from_record(message.content)
    session = open_session()
    sums, counts = _sums_of(session, own), cells_of_rows(session, least_rows(session))
    return BinsReply(counts=counts) if sums is None else BinsReply(masked=sums.masked_cells(counts))
    yield


def _sums_of(session: SiteSession, own: SiteRun) -> SiteTreeSums | None:
    """Return the site's half of a run's secure sums, None where its sums cross as they are; raises NotTakingPart."""
    sums = own.sums(session.study)
    if isinstance(sums, SiteTreeSums):
        own.under(session)
        return sums
    # A study may ask for sums that nobody approved.
    if session.site.policy.disclosure != "open":
        raise NotTakingPart(Refusal("trees-single-rows"))
    return None


def grow(request: TrainRequest, session: SiteSession, own: SiteRun) -> Generator[ComputeRequest, Any, TrainReply]:
    """Return the sums of gradients of the nodes that are asked for; raises MalformedMessage where trees are lost."""
    sums = _sums_of(session, own)
    before = int(request.settings.get(REFIT, 0)) if refits(session.study) else 0
    if not 0 <= before < request.round:
        raise MalformedMessage(Refusal("settings-unfit", section="settings"))
    level = Level(
        round=request.round,
        before=before,
        score=request.score,
        forest=request.arrays,
        sha256=request.trees_sha256,
        last=request.extra[LAST],
        tree=request.extra[TREE],
        asked=request.extra[ASKED],
        cuts_sha256=request.cuts_sha256,
    )
    done = yield from grown(session, request.encoder, level, counted=least_rows(session) > 0)
    if done is None:
        raise MalformedMessage(TREES_MISSING)
    said, compact = said_by(session), bool(request.encoder_sha256)
    masked = None
    if sums is not None:
        losses = losses_of(done.rows, done.loss, done.scores, session)
        masked = sums.masked_level(request, done.sums, losses, session.seed)
    return TrainReply(
        delta={},
        num_examples=float(done.rows),
        loss=None if done.loss is None or training_stays(session) else said(done.loss),
        steps=1,
        scores=scores_of(done.scores, said, stays=training_stays(session), compact=compact),
        holdout=scores_of(done.holdout, said, compact=compact),
        extra={SUMS: done.sums} if sums is None else {},
        masked=masked,
    )


def grows(record: RecordDict) -> bool:
    """Tell whether a request asks for the sums of a tree."""
    config = record.get("config")
    return isinstance(config, ConfigRecord) and TREES_SHA256 in config


def least_rows(session: SiteSession) -> int:
    """Return the fewest rows of a code and of a leaf that the study asks for."""
    return int(session.study.strategy.settings.get("min-rows", 0))
