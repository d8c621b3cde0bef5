"""A site's half of secure sums where trees grow: rows by cell, and the sums of each level, under masks."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from flfed.federation.client.secure_sums import SiteSums, losses_in_sum
from flfed.refusals import Refusal
from flfed.rows.training.requests import PackRequest
from flfed.updates.aggregation.loss_sums import Losses
from flfed.updates.checkpoints.run_state import OF_RUN
from flfed.updates.masking.rules import Sites
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.secure_sum import (
    ListReply,
    ListRequest,
    Masked,
    UnmaskReply,
    UnmaskRequest,
    joined,
    parted,
)
from flfed.updates.messages.summarise import BINS, SUMMARISE
from flfed.updates.messages.train import EVALUATE, SUMS, TRAIN, TrainReply, TrainRequest

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

    def masked(
        self, request: TrainRequest, reply: TrainReply, losses: Losses, seed: int, *, model: Arrays
    ) -> Generator[PackRequest, Any, TrainReply]:
        """Return a reply whose sums of a level are masked; raises NotTakingPart."""
        masked = self.masked_level(request, reply.extra[SUMS], losses, seed)
        return replace(reply, extra={}, masked=masked)
        yield  # as that of an update, which asks for rounding

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
