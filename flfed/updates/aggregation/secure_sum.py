"""Secure sums at the server: which list is summed, what is asked for it, and what is made of the sum."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from flfed.errors import FlfedError
from flfed.refusals import Refusal
from flfed.updates.aggregation.guard import GuardResult, reply_defect
from flfed.updates.codec import Shapes, entries_of, unflattened
from flfed.updates.masking import protocol
from flfed.updates.masking.protocol import MaskedVector, Opening, Totals
from flfed.updates.masking.ring import rings
from flfed.updates.masking.rules import Sites, choose_list
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.in_memory import Crossing
from flfed.updates.messages.secure_sum import (
    LIST,
    UNMASK,
    ListReply,
    ListRequest,
    Masked,
    UnmaskReply,
    UnmaskRequest,
    joined,
)
from flfed.updates.messages.train import TrainReply

GROWTH = 10.0
"""Times the last mean loss that the next may be: under masks nobody sees whose update made the model worse."""
Reply = TypeVar("Reply", bound=Crossing)


class Unsummed(FlfedError):
    """A sum that could not be had, or may not be used.

    Attributes
    ----------
    final : bool
        Whether asking again would give the same.
    """

    def __init__(self, why: Refusal, *, final: bool = False) -> None:
        super().__init__(why)
        self.why, self.final = why, final


class Exchange(Protocol):
    """A round, as far as its sum asks further questions."""

    @property
    def kind(self) -> str:
        """Kind of the question."""
        ...

    @property
    def number(self) -> int:
        """Its round."""
        ...

    def ask(self, kind: str, requests: Mapping[str, Crossing], read: type[Reply]) -> dict[str, Reply]:
        """Ask some sites, and return the replies that came and can be read."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ListedVectors:
    """The list of a sum, and the masked vectors of its sites.

    Attributes
    ----------
    kind : str
    round : int
    listed : frozenset of str
    vectors : dict of site to Masked
    """

    kind: str
    round: int
    listed: Sites
    vectors: Mapping[str, Masked]


class SumStore:
    """Where a list and its vectors are kept until their sum is had; this one keeps them in memory."""

    def __init__(self) -> None:
        self._kept: ListedVectors | None = None

    def keep(self, found: ListedVectors) -> None:
        """Keep a list with its vectors, in place of the one before."""
        self._kept = found

    def of(self, kind: str, round: int) -> ListedVectors | None:
        """Return what was kept of a question, None where nothing was."""
        kept = self._kept
        return kept if kept is not None and (kept.kind, kept.round) == (kind, round) else None


@dataclass(kw_only=True, eq=False)
class SecureSums:
    """The server's half of the secure sums of one run.

    Attributes
    ----------
    cohort : tuple of str
        Sites that enrolled at the start, in name order.
    least : int
        The threshold of the pinned sites.
    lifted : mapping of site to collection of str
        By which sites each site lets lists differ.
    largest_entry : float
    most_rows : int
        Upper end of the widest band of rows.
    in_sums_only : frozenset of str
        Sites that share figures in sums only, by their statements: the summaries of all are summed then.
    masked : bool
        False where one process rehearses for all sites: the vectors have no masks, and there are no lists.
    store : SumStore
    norm : float
        Of the last sum that was not zero; 0 where there was none.
    loss : float
        Mean loss of the last model that was scored; NaN where there was none.
    before : dict of name to array
        The last model whose loss was right, empty at first.
    spoilt : bool
        Whether the loss of the model after it was not.
    """

    cohort: tuple[str, ...]
    least: int
    lifted: Mapping[str, Collection[str]] = field(default_factory=dict)
    largest_entry: float
    most_rows: int = 1
    in_sums_only: frozenset[str] = frozenset()
    masked: bool
    store: SumStore = field(default_factory=SumStore)
    norm: float = 0.0
    loss: float = math.nan
    before: Arrays = field(default_factory=dict)
    spoilt: bool = False

    def guard(self, replies: Mapping[str, TrainReply], model: Shapes, rows_high: Mapping[str, int]) -> GuardResult:
        """Sort masked replies into accepted and refused; what is under the masks is checked at the sites."""
        entries = entries_of(model)
        defects = {
            site: reply_defect(reply, rows_high[site]) or self._vector_defect(reply.masked, entries)
            for site, reply in sorted(replies.items())
        }
        refused = {site: reason for site, reason in defects.items() if reason}
        return GuardResult(accepted={s: r for s, r in sorted(replies.items()) if s not in refused}, refused=refused)

    def _vector_defect(self, masked: Masked | None, entries: int) -> Refusal | None:
        if masked is None:
            return Refusal("vector-unfit")
        cohort = self.cohort if self.masked else ()
        return protocol.vector_defect(_vector(masked, cohort), updates=entries, sums=1, cohort=cohort)

    def mean(self, exchange: Exchange, good: Mapping[str, TrainReply], model: Shapes, needed: int) -> Arrays:
        """Return the weighted mean of the updates of a list of sites.

        Parameters
        ----------
        exchange : Exchange
        good : mapping of site to TrainReply
            That the guard accepted.
        model : mapping of name to (shape, dtype)
        needed : int
            Updates that the strategy's quorum needs.

        Raises
        ------
        Unsummed
            Why there is none; asked again, the same list is asked for.
        """
        vectors = {site: reply.masked for site, reply in good.items() if reply.masked is not None}
        totals = self.totals(exchange, vectors, needed)
        updates, sums = rings(len(self.cohort), self.largest_entry)
        entries, weight = updates.decode(totals.updates), float(sums.decode(totals.sums)[0])
        self._check_norm(entries, weight)
        return {name: value.astype(np.float64) for name, value in unflattened(entries / weight, _floats(model)).items()}

    def totals(self, exchange: Exchange, vectors: Mapping[str, Masked], needed: int = 0) -> Totals:
        """Return the sums of a list's vectors; parameters and errors are those of `mean`."""
        kept = self.store.of(exchange.kind, exchange.number)
        if kept is None:
            kept = self._listed(exchange, vectors, max(self.least, needed))
        totals = self._unmasked(exchange, kept) if self.masked else self._added(kept)
        if isinstance(totals, Refusal):
            raise Unsummed(totals, final=totals.code == "sum-miscounted")
        return totals

    def _listed(self, exchange: Exchange, vectors: Mapping[str, Masked], least: int) -> ListedVectors:
        """Return the list of a sum with its vectors, which are kept before anybody hears of the list."""
        answered = {site: masked.opened for site, masked in vectors.items()}
        listed = choose_list(answered, cohort=self.cohort, least=least, lifted=self.lifted)
        if isinstance(listed, Refusal):
            raise Unsummed(listed, final=listed.code == "list-site-gone")
        chosen = {site: vectors[site] for site in sorted(listed)}
        kept = ListedVectors(kind=exchange.kind, round=exchange.number, listed=listed, vectors=chosen)
        self.store.keep(kept)
        return kept

    def _added(self, kept: ListedVectors) -> Totals | Refusal:
        """Return the sums of vectors without masks."""
        updates, sums = rings(len(self.cohort), self.largest_entry)
        total = Totals(
            updates.add(masked.vector for masked in kept.vectors.values()),
            sums.add(masked.sums for masked in kept.vectors.values()),
        )
        if any(int(part[0]) != len(kept.listed) for part in (total.updates, total.sums)):
            return Refusal("sum-miscounted", sites=len(kept.listed))
        return Totals(total.updates[1:], total.sums[1:])

    def _unmasked(self, exchange: Exchange, kept: ListedVectors) -> Totals | Refusal:
        """Return the sums of a list, for which its sites are asked."""
        order = sorted(kept.listed)
        asked: dict[str, Any] = {"kind": kept.kind, "round": kept.round, "listed": joined(kept.listed)}
        confirmed: dict[str, ListReply] = {}
        if kept.listed != set(self.cohort):
            confirmed = exchange.ask(LIST, dict.fromkeys(order, ListRequest(**asked)), ListReply)
            fit = {site: reply for site, reply in confirmed.items() if reply.codes.shape == (len(order), 32)}
            if len(fit) < self.least:
                return Refusal("list-unconfirmed", had=len(fit), least=self.least)
            confirmed = fit
        none = np.zeros(32, np.uint8)
        requests = {}
        for place, site in enumerate(order):
            codes = [confirmed[sender].codes[place] if sender in confirmed else none for sender in order]
            sealed = [kept.vectors[sender].shares[self.cohort.index(site)] for sender in order]
            requests[site] = UnmaskRequest(**asked, shares=np.stack(sealed), codes=np.stack(codes))
        replies = exchange.ask(UNMASK, requests, UnmaskReply)
        missing = sorted(set(self.cohort) - kept.listed)
        openings = {
            site: Opening(
                {owner: share.tobytes() for owner, share in zip(order, reply.shares, strict=False)},
                {peer: seed.tobytes() for peer, seed in zip(missing, reply.seeds, strict=False)},
            )
            for site, reply in replies.items()
        }
        vectors = {site: _vector(masked, self.cohort) for site, masked in kept.vectors.items()}
        return protocol.unmask(vectors, openings, cohort=self.cohort, listed=kept.listed, least=self.least)

    def _check_norm(self, entries: np.ndarray, weight: float) -> None:
        norm = float(np.linalg.norm(entries))
        why = None if weight > 0 else Refusal("sum-weightless")
        why = why or protocol.norm_refusal(
            norm, last=self.norm, sites=len(self.cohort), largest=self.largest_entry, entries=entries.size
        )
        if why is not None:
            raise Unsummed(why, final=True)
        self.norm = norm or self.norm

    def loss_refusal(self, replies: Mapping[str, TrainReply], incoming: Arrays) -> Refusal | None:
        """Return why the model that was scored is not used, None where it is.

        Its mean loss is not finite, or many times that of the one before; `before` is the last good model then.
        """
        scored = [reply.scores for reply in replies.values() if reply.scores is not None]
        known = [(one.num_examples, one.metrics["loss"]) for one in scored if "loss" in one.metrics]
        rows = sum(count for count, _ in known)
        if not rows:
            return None
        loss = math.fsum(count * value for count, value in known) / rows
        limit = GROWTH * self.loss if self.loss > 0 else math.inf
        self.spoilt = bool(self.before) and not (math.isfinite(loss) and loss <= limit)
        if self.spoilt:
            return Refusal("loss-grown", times=f"{GROWTH:g}")
        self.loss, self.before = loss, dict(incoming)
        return None

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides `before`."""
        return {"norm": self.norm, "loss": None if math.isnan(self.loss) else self.loss}

    def restore(self, facts: Mapping[str, Any], before: Arrays) -> None:
        """Go on from a checkpoint."""
        self.norm, self.before = float(facts["norm"]), dict(before)
        self.loss = math.nan if facts["loss"] is None else float(facts["loss"])


def _vector(masked: Masked, cohort: Collection[str]) -> MaskedVector:
    """Return a message's vectors, shares by receiver."""
    shares = [row.tobytes() for row in masked.shares] if masked.shares.ndim == 2 else []
    sealed = dict(zip(sorted(cohort), shares, strict=True)) if len(shares) == len(cohort) else {}
    return MaskedVector(masked.vector, masked.sums, sealed)


def _floats(model: Shapes) -> Shapes:
    return {name: (shape, np.dtype(np.float64)) for name, (shape, _) in model.items()}
