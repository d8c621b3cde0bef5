"""Secure sums at the server: it adds up what all sites of a run send under masks, or as ciphertexts, or has no sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from flfed.errors import FlfedError
from flfed.refusals import Refusal
from flfed.study.study import Study
from flfed.updates.aggregation.guard import GuardResult, judged, reply_defect
from flfed.updates.aggregation.losses import ENTRIES, LossCheck, MeanLosses, decode_losses
from flfed.updates.arrays import CIPHERTEXT, Arrays, unflattened
from flfed.updates.masks import ckks
from flfed.updates.masks.ckks import PublicContext, vector_entries
from flfed.updates.masks.pairs import TAG_ENTRIES, opener_of
from flfed.updates.masks.ring import ring_of_counts, rings
from flfed.updates.mechanism import largest_entry
from flfed.updates.messages.secure_sum import Masked, OpenReply, OpenRequest
from flfed.updates.messages.train import Replies, TrainReply

GROWTH = 10.0
"""Times the last sum's norm that a sum may have, and the part of the largest possible that the first may have."""
SITES_NAMED = 3
BEFORE, TOTAL = "sums-before", "sums-total"
"""Names of a run's sums in a checkpoint."""


class Unsummed(FlfedError):
    """A sum that could not be had, or may not be used; `final` where asking again would give the same."""

    def __init__(self, why: Refusal, *, final: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.final = final


@dataclass(kw_only=True, eq=False)
class Summer:
    """The server's half of the secure sums of one run.

    Attributes
    ----------
    cohort : tuple of str
        All sites of a sum, in name order.
    largest_entry : float
        Largest absolute entry of one site's update, its weight counted in.
    most_rows : int
        Upper end of the widest band of rows.
    norm : float
        Of the last sum that was not zero; 0 where there was none.
    check : LossCheck
        The known losses of the run's models.
    tagged : bool
        Whether a tag stands behind the numbers of 64 bits: not where one process rehearses.
    verified : bool
        Whether sites make the models themselves, of totals whose tags they check.
    total : Masked or None
        The last sum as it was added, counts and tag included: sites make the next model of it.
    """

    cohort: tuple[str, ...]
    largest_entry: float
    most_rows: int = 1
    norm: float = 0.0
    check: LossCheck = field(default_factory=LossCheck)
    tagged: bool = False
    verified: bool = False
    total: Masked | None = None

    @classmethod
    def of_study(cls, study: Study, cohort: tuple[str, ...], most_rows: int, **more: Any) -> Self:
        """Return that of a study; `more` are further attributes."""
        return cls(
            cohort=cohort,
            largest_entry=largest_entry(study, len(cohort)),
            most_rows=most_rows,
            check=LossCheck(scored="validation" if study.plan.validation else "training"),
            **more,
        )

    @property
    def _tags(self) -> int:
        return TAG_ENTRIES if self.tagged else 0

    def guard(self, replies: Replies, rows_high: Mapping[str, int], *, updates: int, sums: int = 1) -> GuardResult:
        """Sort masked replies into accepted and refused; sites check the numbers under the masks.

        `updates` and `sums` are the numbers of 32 and of 64 bits that were asked for, without counts; beside an update
        stand losses, too.
        """
        if updates:
            sums += ENTRIES
        defects = {
            site: reply_defect(reply, rows_high[site]) or self._defect(reply, updates, sums)
            for site, reply in sorted(replies.items())
        }
        return judged(replies, defects)

    def _defect(self, reply: TrainReply, updates: int, sums: int) -> Refusal | None:
        return None if self.fits(reply.masked, updates=updates, sums=sums) else Refusal("vector-unfit")

    def fits(self, masked: Masked | None, *, sums: int, updates: int = 0) -> bool:
        """Return whether a masked answer has so many numbers of 32 and of 64 bits, counts before and a tag behind."""
        if masked is None:
            return False
        shapes = ((updates + (updates > 0),), (sums + (sums > 0) + self._tags,))
        have_types = masked.vector.dtype == np.uint32 and masked.sums.dtype == np.uint64
        return have_types and (masked.vector.shape, masked.sums.shape) == shapes

    def add(self, vectors: Mapping[str, Masked | None]) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of all sites' numbers of 32 and of 64 bits.

        Raises
        ------
        Unsummed
            If a site's vector is missing, or masks stayed on: then a site was sent another request, or other keys.
        """
        self.total = self._added(vectors)
        return self.total.vector[1:], self.total.sums[1 : self.total.sums.size - self._tags]

    def _added(self, vectors: Mapping[str, Masked | None]) -> Masked:
        """Return the total of all sites' numbers, with counts and tag; raises Unsummed."""
        there = {site: vectors[site] for site in self.cohort if vectors.get(site) is not None}
        if missing := sorted(set(self.cohort) - there.keys()):
            raise Unsummed(Refusal("sum-incomplete", sites=", ".join(missing[:SITES_NAMED])))
        parts = [masked for masked in there.values() if masked is not None]
        totals = [
            np.add.reduce([masked.vector for masked in parts], dtype=np.uint32),
            np.add.reduce([masked.sums for masked in parts], dtype=np.uint64),
        ]
        if any(int(total[0]) != len(self.cohort) for total in totals if total.size):
            raise Unsummed(Refusal("sum-miscounted", sites=len(self.cohort)), final=True)
        return Masked(vector=totals[0], sums=totals[1])

    def mean(self, good: Replies, incoming: Arrays, round: int) -> tuple[Arrays, MeanLosses | None]:
        """Return the weighted mean of all sites' updates, and their mean losses.

        Parameters
        ----------
        good : mapping of site to TrainReply
            That the guard accepted.
        incoming : dict of name to array
            The model that the sites were sent.
        round : int

        Raises
        ------
        Unsummed
        """
        return self.decode_mean(*self.add({site: reply.masked for site, reply in good.items()}), incoming)

    def decode_mean(self, total: np.ndarray, beside: np.ndarray, incoming: Arrays) -> tuple[Arrays, MeanLosses | None]:
        """Return what `mean` does of a sum: updates of 32 bits, and of 64 bits the weights and losses beside them."""
        updates, sums = rings(len(self.cohort), self.largest_entry)
        # The updates made from a spoilt model may be too large: by its loss it is known as the one to take back.
        losses = self.losses(beside[1:], incoming)
        entries = updates.decode(total)
        weight = float(sums.decode(beside[:1])[0])
        self._check_norm(entries, weight)
        model = {name: (value.shape, np.dtype(np.float64)) for name, value in incoming.items()}
        return unflattened(entries / weight, model), losses

    def losses(self, total: np.ndarray, incoming: Arrays) -> MeanLosses | None:
        """Return the mean losses that stand beside a sum; raises Unsummed where the scored model is spoilt."""
        losses = decode_losses(total, sites=len(self.cohort), scored=self.check.scored)
        if why := self.check.refusal(losses.means if losses else {}, incoming):
            raise Unsummed(why, final=True)
        return losses

    def is_evaluated(self, round: int) -> bool:
        """Return whether the losses of the model that was scored in a round, without training, are known."""
        return self.check.evaluated is not None and self.check.evaluated[0] == round

    def evaluate(self, round: int, good: Replies, incoming: Arrays) -> tuple[Refusal | None, MeanLosses | None]:
        """Return why a model that was scored without training is not used, and its mean losses.

        A run that goes on has the losses that it had: after the comparison its sites answer nothing more. Where sites
        make the compared model of this sum there has to be one: raises Unsummed.
        """
        losses = None
        if self.check.evaluated is not None and self.is_evaluated(round):
            losses = self.check.evaluated[1]
        else:
            fit = {site: reply.masked for site, reply in good.items() if self.fits(reply.masked, sums=ENTRIES)}
            # Else nothing follows from the model but a comparison: without a sum it goes on without its loss.
            with nullcontext() if self.verified else suppress(Unsummed):
                losses = decode_losses(self.add(fit)[1], sites=len(self.cohort), scored=self.check.scored)
            if losses is not None:
                self.check.evaluated = (round, losses)
        return self.check.refusal(losses.means if losses else {}, incoming), losses

    def decode_counts(self, total: np.ndarray) -> np.ndarray:
        """Return the float64 array [numbers] that a sum over rows stands for."""
        return ring_of_counts(len(self.cohort), self.most_rows).decode(total)

    def _check_norm(self, entries: np.ndarray, weight: float) -> None:
        """Refuse a sum of no weight, or one whose norm is many times that of the last one."""
        norm = float(np.linalg.norm(entries))
        if not weight > 0:
            raise Unsummed(Refusal("sum-weightless"), final=True)
        # Of numbers that a mask stayed on, the norm is about 0.58 · sites · largest · √entries.
        largest = len(self.cohort) * self.largest_entry * np.sqrt(entries.size) / GROWTH
        limit = GROWTH * self.norm if self.norm > 0 else largest
        if not norm <= limit:
            raise Unsummed(Refusal("sum-norm", norm=f"{norm:.3g}", limit=f"{limit:.3g}"), final=True)
        self.norm = norm or self.norm

    def state(self) -> dict[str, Arrays]:
        """Return the arrays of a checkpoint: the last model whose loss was right, and the last total."""
        return {BEFORE: self.check.before, TOTAL: {} if self.total is None else self.total.arrays()}

    def facts(self) -> dict[str, Any]:
        """Return the facts of a checkpoint."""
        return {BEFORE: {"norm": self.norm, **self.check.facts()}}

    def restore(self, facts: Mapping[str, Any], state: Mapping[str, Arrays]) -> None:
        """Go on from a checkpoint."""
        if BEFORE not in facts:
            return
        total = state.get(TOTAL, {})
        self.total = Masked(**total) if total else None
        self.norm = float(facts[BEFORE]["norm"])
        self.check.restore(facts[BEFORE], state.get(BEFORE, {}))


@dataclass(kw_only=True, eq=False)
class CipherSummer(Summer):
    """The server's half of the sums of one run under homomorphic encryption.

    It adds up ciphertexts of the updates; a site opens their sum, and returns the total as masks would give it.

    Attributes
    ----------
    entries : int
        Of the model.
    context : PublicContext
        Which adds, and opens nothing.
    ask_opener : callable (site, request) → OpenReply or Refusal
        It waits for a site that is away.
    """

    entries: int
    context: PublicContext
    ask_opener: Callable[[str, OpenRequest], OpenReply | Refusal]

    def _defect(self, reply: TrainReply, updates: int, sums: int) -> Refusal | None:
        if not updates:
            return super()._defect(reply, updates, sums)
        if reply.encrypted is None:
            return Refusal("ciphertext-unfit")
        entries = vector_entries(self.entries)
        chunks = ckks.unpacked(reply.encrypted, entries)
        wrong = chunks if isinstance(chunks, Refusal) else self.context.defect(chunks, entries)
        return wrong or super()._defect(reply, 0, sums)

    def mean(self, good: Replies, incoming: Arrays, round: int) -> tuple[Arrays, MeanLosses | None]:
        """Return what `Summer.mean` does, once a site has opened the sum of the updates."""
        beside = self._added({site: reply.masked for site, reply in good.items()})
        entries = vector_entries(self.entries)
        parts = [ckks.unpacked(reply.encrypted, entries) for reply in good.values() if reply.encrypted is not None]
        ciphertexts = self.context.add([part for part in parts if not isinstance(part, Refusal)], entries)
        if isinstance(ciphertexts, Refusal):
            raise Unsummed(ciphertexts)
        opener = opener_of(self.cohort, round)
        request = OpenRequest(round=round, encrypted={CIPHERTEXT: ckks.packed(ciphertexts)}, total=beside)
        opened = self.ask_opener(opener, request)
        if isinstance(opened, Refusal):
            raise Unsummed(Refusal("sum-unopened", site=opener, why=opened), final=opened.code == "total-unverified")
        total = opened.total
        # What it opens is the updates alone: weights and losses stay as they were added.
        sums = total.sums.size - self._tags
        if not self.fits(total, updates=self.entries, sums=ENTRIES + 1) or not (
            int(total.vector[0]) == len(self.cohort) and np.array_equal(total.sums[:sums], beside.sums[:sums])
        ):
            raise Unsummed(Refusal("sum-miscounted", sites=len(self.cohort)), final=True)
        self.total = total
        return self.decode_mean(total.vector[1:], total.sums[1:sums], incoming)
