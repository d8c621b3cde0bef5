"""Secure aggregation at the server: the list of sites, the requests for its sum, and the use of the sum.

Sites whose shares are none for others are left out of a list. A sum of ciphertexts has a server without key or model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from flfed.errors import FlfedError
from flfed.refusals import Refusal
from flfed.study.kinds import exchange_number
from flfed.updates.aggregation.guard import GuardResult, judged, reply_defect
from flfed.updates.aggregation.losses import ENTRIES, LossCheck, MeanLosses, decode_losses
from flfed.updates.arrays import CIPHERTEXT, Arrays, unflattened
from flfed.updates.checkpoints.sum_file import ListedVectors, SumStore
from flfed.updates.masking import ckks, protocol
from flfed.updates.masking.ckks import PublicContext, vector_entries
from flfed.updates.masking.protocol import NAMED, MaskedVector, Opening, Totals
from flfed.updates.masking.rules import Sites, choose_list
from flfed.updates.masks.ring import ring_of_counts, rings
from flfed.updates.messages.fields import receive
from flfed.updates.messages.in_memory import Crossing, InMemoryRecord, Sizes, read
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
from flfed.updates.messages.train import Replies, TrainReply

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
        self.why = why
        self.final = final


class Send(Protocol):
    """A grid's `send_and_receive`, or its kin."""

    def __call__(self, messages: Iterable[Message], *, timeout: float) -> Iterable[Message]:
        """Return the replies within the time."""


def _unsent(messages: Iterable[Message], *, timeout: float) -> list[Message]:
    """Reach nobody."""
    return []


@dataclass(kw_only=True, eq=False)
class SumQuestions:
    """Questions that the sum of a round's answers asks its sites, and what crossed for them.

    Attributes
    ----------
    kind : str
        Of the round's own question.
    number : int
        Of the round.
    nodes : mapping of site to node
    send, wait : callable (messages, timeout=seconds) → replies
        A grid's `send_and_receive`, and what waits for sites that are away.
    timeout : float, seconds
        That an exchange has.
    faults : dict of site to Refusal
        Why sites did not answer when they were asked last.
    crossed : dict of kind to (dict of site to int, dict of site to int)
        Bytes to sites and to the server.
    incoming : dict of name to array
        The model that the sites were sent.
    losses : MeanLosses or None
        That the sum had beside the updates.
    """

    kind: str = ""
    number: int = 0
    nodes: Mapping[str, int] = field(default_factory=dict)
    send: Send = _unsent
    wait: Send = _unsent
    timeout: float = 0.0
    faults: dict[str, Refusal] = field(default_factory=dict)
    crossed: dict[str, tuple[dict[str, int], dict[str, int]]] = field(default_factory=dict)
    incoming: Arrays = field(default_factory=dict)
    losses: MeanLosses | None = None

    @property
    def mean_losses(self) -> Mapping[str, float]:
        """Mean losses of the sum, none where it had none."""
        return self.losses.means if self.losses else {}

    @classmethod
    def over(cls, grid: Grid, **keywords: Any) -> SumQuestions:
        """Return questions that a grid sends; other attributes are given by name."""
        return cls(send=grid.send_and_receive, wait=getattr(grid, "send_and_wait", grid.send_and_receive), **keywords)

    def answers(
        self, kind: str, requests: Mapping[str, Crossing], reply: type[Reply], fits: Callable[[Reply], bool], least: int
    ) -> dict[str, Reply]:
        """Return the sites' answers to one exchange.

        Where fewer than `least` are fit, the sites without one are asked the same again, and waited for.

        Parameters
        ----------
        kind : str
        requests : mapping of site to message
        reply : class of the replies
        fits : callable reply → bool
        least : int
        """
        good_replies = dict[str, Reply]()
        for send in (self.send, self.wait):
            silent = {site: request for site, request in requests.items() if site not in good_replies}
            answered = self._ask(send, kind, silent, reply)
            good_replies |= {site: one for site, one in answered.items() if fits(one)}
            if len(good_replies) >= least:
                break
        return {site: good_replies[site] for site in sorted(good_replies)}

    def _ask(self, send: Send, kind: str, requests: Mapping[str, Crossing], reply: type[Reply]) -> dict[str, Reply]:
        """Return the replies that came and can be read.

        Why others did not is among the faults.
        """
        sizes = Sizes()
        messages = []
        to_site, to_server = self.crossed.setdefault(kind, ({}, {}))
        for site, request in requests.items():
            record = InMemoryRecord(request)
            to_site[site] = to_site.get(site, 0) + sizes.of(record)
            node = self.nodes[site]
            messages.append(Message(record, dst_node_id=node, message_type=kind, group_id=str(self.number)))
        sites = {self.nodes[site]: site for site in requests}
        came = receive(send(messages, timeout=self.timeout), sites, partial(read, reply))
        for site, size in came.bytes.items():
            to_server[site] = to_server.get(site, 0) + size
        others = {site: why for site, why in self.faults.items() if site not in requests}
        self.faults = others | came.faults
        return came.replies


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
    masked : bool
        False where one process rehearses for all sites: the vectors have no masks, and there are no lists.
    exchanges : int
        Of a round: one, or one a level of a tree.
    store : SumStore
    norm : float
        Of the last sum that was not zero; 0 where there was none.
    check : LossCheck
        The known losses of the run's models.
    """

    cohort: tuple[str, ...]
    least: int
    lifted: Mapping[str, Collection[str]] = field(default_factory=dict)
    largest_entry: float
    most_rows: int = 1
    masked: bool
    exchanges: int = 1
    store: SumStore = field(default_factory=SumStore)
    norm: float = 0.0
    check: LossCheck = field(default_factory=LossCheck)

    def decode_counts(self, totals: np.ndarray) -> np.ndarray:
        """Return the float64 array [numbers] that a sum over rows stands for."""
        return ring_of_counts(len(self.cohort), self.most_rows).decode(totals)

    def guard(self, replies: Replies, rows_high: Mapping[str, int], *, updates: int, sums: int = 1) -> GuardResult:
        """Sort masked replies into accepted and refused.

        Sites check the numbers under the masks.

        Parameters
        ----------
        replies : mapping of site to TrainReply
        rows_high : mapping of site to int
        updates, sums : int
            Numbers of 32 and of 64 bits that were asked for; beside an update stand losses, too.
        """
        if updates:
            sums += ENTRIES
        defects = {
            site: reply_defect(reply, rows_high[site]) or self._update_defect(reply, updates, sums)
            for site, reply in sorted(replies.items())
        }
        return judged(replies, defects)

    def _update_defect(self, reply: TrainReply, updates: int, sums: int) -> Refusal | None:
        if reply.masked is None:
            return Refusal("vector-unfit")
        cohort = self.cohort if self.masked else ()
        return protocol.vector_defect(_vector(reply.masked, cohort), updates=updates, sums=sums, cohort=cohort)

    def mean(self, questions: SumQuestions, good: Replies, needed: int) -> Arrays:
        """Return the weighted mean of the updates of a list of sites.

        Parameters
        ----------
        questions : SumQuestions
            Which has the mean losses of the list afterwards.
        good : mapping of site to TrainReply
            That the guard accepted.
        needed : int
            Updates that the strategy's quorum needs.

        Raises
        ------
        Unsummed
            Why there is none; a run that goes on later asks for the same list.
        """
        totals, listed = self.summed(questions, masked_vectors(good), needed)
        updates, sums = rings(len(self.cohort), self.largest_entry)
        # The updates made from a spoilt model may be too large: by its loss it is known as the one to take back.
        self.take_losses(questions, totals.sums[1:], listed)
        self.check_loss(questions)
        entries = updates.decode(totals.updates)
        weight = float(sums.decode(totals.sums[:1])[0])
        self._check_norm(entries, weight)
        model = {name: (value.shape, np.dtype(np.float64)) for name, value in questions.incoming.items()}
        return unflattened(entries / weight, model)

    def take_losses(self, questions: SumQuestions, total: np.ndarray, listed: Sites) -> None:
        """Take the mean losses of a list, which stand beside its sum."""
        questions.losses = decode_losses(total, listed, sites=len(self.cohort), scored=self.check.scored)

    def check_loss(self, questions: SumQuestions) -> None:
        """Raise Unsummed where the model that was scored is spoilt."""
        if why := self.check.refusal(questions.mean_losses, questions.incoming):
            raise Unsummed(why, final=True)

    def evaluate(self, questions: SumQuestions, good: Replies) -> Refusal | None:
        """Return why a model that was scored without training is not used.

        Parameters are those of `mean`.

        A run that goes on has the losses that it had: after the comparison its sites open no sum.
        """
        questions.number = exchange_number(questions.number, 0, self.exchanges)
        evaluated = self.check.evaluated
        if evaluated is not None and evaluated[0] == questions.number:
            questions.losses = evaluated[1]
        else:
            self._sum_losses(questions, good)
        return self.check.refusal(questions.mean_losses, questions.incoming)

    def _sum_losses(self, questions: SumQuestions, good: Replies) -> None:
        """Take the mean losses of a model that was only scored, where its sites have a sum."""
        there = {site: reply for site, reply in good.items() if site not in self.store.excluded}
        fit = {site: reply for site, reply in there.items() if self._update_defect(reply, 0, ENTRIES) is None}
        try:
            totals, listed = self.summed(questions, masked_vectors(fit))
        except Unsummed:
            # Nothing follows from the model but a comparison: it goes on without its loss.
            return
        self.take_losses(questions, totals.sums, listed)
        if questions.losses is not None:
            self.check.evaluated = (questions.number, questions.losses)

    def summed(self, questions: SumQuestions, vectors: Mapping[str, Masked], needed: int = 0) -> tuple[Totals, Sites]:
        """Return the sums of a list's vectors, and the sites of the list.

        Where sites' shares are none, and none of the others has opened the list, it is asked for without them, once.
        Parameters and errors are those of `mean`.
        """
        listed_vectors = self._listed(questions, vectors, needed)
        totals = self._unmasked(questions, listed_vectors) if self.masked else self._added(listed_vectors)
        if isinstance(totals, Refusal):
            smaller = self._without_spoilt(questions, listed_vectors, needed)
            if smaller is not None:
                listed_vectors = smaller
                totals = self._unmasked(questions, listed_vectors)
        # The sites were waited for: that they are asked for their vectors once more would give no other sum.
        if isinstance(totals, Refusal):
            raise Unsummed(totals, final=True)
        return totals, listed_vectors.listed

    def _without_spoilt(
        self, questions: SumQuestions, listed_vectors: ListedVectors, needed: int
    ) -> ListedVectors | None:
        """Return a list without the sites whose shares are none, kept in place of the one before; None without one."""
        named = named_sites(listed_vectors.listed, questions.faults)
        rest = smaller_list(listed_vectors, named, cohort=self.cohort, least=max(self.least, needed))
        if rest is None:
            return None
        smaller = self.store.leave_out(listed_vectors, listed_vectors.listed - rest)
        questions.faults |= left_out_faults(listed_vectors.listed - rest, named, excluded=self.store.excluded)
        return smaller

    def _listed(self, questions: SumQuestions, vectors: Mapping[str, Masked], needed: int) -> ListedVectors:
        """Return the list of a sum with its vectors, which are kept before anybody hears of the list."""
        if (listed_vectors := self.store.of(questions.kind, questions.number)) is not None:
            return listed_vectors
        least = max(self.least, needed)
        answered = {site: masked.opened for site, masked in vectors.items()}
        listed = choose_list(answered, cohort=self.cohort, least=least, lifted=self.lifted)
        if isinstance(listed, Refusal):
            raise Unsummed(listed, final=listed.code == "list-site-gone")
        chosen = {site: vectors[site] for site in sorted(listed)}
        listed_vectors = ListedVectors(kind=questions.kind, round=questions.number, listed=listed, vectors=chosen)
        self.store.keep(listed_vectors)
        return listed_vectors

    def _added(self, listed_vectors: ListedVectors) -> Totals | Refusal:
        """Return the sums of vectors without masks."""
        updates, sums = rings(len(self.cohort), self.largest_entry)
        total = Totals(
            updates.add(masked.vector for masked in listed_vectors.vectors.values()),
            sums.add(masked.sums for masked in listed_vectors.vectors.values()),
        )
        if any(int(part[0]) != len(listed_vectors.listed) for part in (total.updates, total.sums) if part.size):
            return Refusal("sum-miscounted", sites=len(listed_vectors.listed))
        return Totals(total.updates[1:], total.sums[1:])

    def _unmasked(self, questions: SumQuestions, listed_vectors: ListedVectors) -> Totals | Refusal:
        """Return the sums of a list, for which its sites are asked."""
        order = sorted(listed_vectors.listed)
        whole = listed_vectors.listed == set(self.cohort)
        about: dict[str, Any] = {
            "kind": listed_vectors.kind,
            "round": listed_vectors.round,
            "listed": joined(listed_vectors.listed),
        }
        confirmed: dict[str, ListReply] = {}
        if not whole:
            requests = dict.fromkeys(order, ListRequest(**about))
            shape = (len(order), 32)
            confirmed = questions.answers(LIST, requests, ListReply, lambda one: one.codes.shape == shape, self.least)
            if len(confirmed) < self.least:
                return Refusal("list-unconfirmed", had=len(confirmed), least=self.least)
        # Of each sender a code for each site; zeros of one that confirmed nothing.
        codes = np.zeros((len(order), len(order), 32), np.uint8)
        for sender, confirmation in confirmed.items():
            codes[order.index(sender)] = confirmation.codes
        opening = {}
        for place, site in enumerate(order):
            sealed = [listed_vectors.vectors[sender].shares[self.cohort.index(site)] for sender in order]
            opening[site] = UnmaskRequest(**about, shares=np.stack(sealed), codes=codes[:, place].copy())
        # Where a site is missing, each site of the list has seeds that no other has.
        least = self.least if whole else len(order)
        replies = questions.answers(UNMASK, opening, UnmaskReply, lambda one: len(one.shares) == len(order), least)
        missing = sorted(set(self.cohort) - listed_vectors.listed)
        openings = {site: _opening(reply, order, missing) for site, reply in replies.items()}
        vectors = {site: _vector(masked, self.cohort) for site, masked in listed_vectors.vectors.items()}
        return protocol.unmask(vectors, openings, cohort=self.cohort, listed=listed_vectors.listed, least=self.least)

    def _check_norm(self, entries: np.ndarray, weight: float) -> None:
        norm = float(np.linalg.norm(entries))
        why = None if weight > 0 else Refusal("sum-weightless")
        why = why or protocol.norm_refusal(
            norm, last=self.norm, sites=len(self.cohort), largest=self.largest_entry, entries=entries.size
        )
        if why is not None:
            raise Unsummed(why, final=True)
        self.norm = norm or self.norm

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides the model before."""
        return {"least": self.least, "norm": self.norm, **self.check.facts()}

    def restore(self, facts: Mapping[str, Any], before: Arrays) -> None:
        """Go on from a checkpoint."""
        self.least = int(facts.get("least", self.least))
        self.norm = float(facts["norm"])
        self.check.restore(facts, before)


def masked_vectors(replies: Replies) -> dict[str, Masked]:
    """Return the masked vectors of the replies that have some."""
    return {site: reply.masked for site, reply in replies.items() if reply.masked is not None}


def _vector(masked: Masked, cohort: Collection[str]) -> MaskedVector:
    """Return a message's vectors, shares by receiver."""
    shares = [row.tobytes() for row in masked.shares] if masked.shares.ndim == 2 else []
    sealed = dict(zip(sorted(cohort), shares, strict=True)) if len(shares) == len(cohort) else {}
    return MaskedVector(masked.vector, masked.sums, sealed)


def _opening(reply: UnmaskReply, order: Sequence[str], missing: Sequence[str]) -> Opening:
    """Return what a site opens: shares of the sites of a list, and seeds with those that are missing."""
    shares = {owner: share.tobytes() for owner, share in zip(order, reply.shares, strict=False)}
    seeds = {peer: seed.tobytes() for peer, seed in zip(missing, reply.seeds, strict=False)}
    return Opening(shares, seeds)


@dataclass(kw_only=True, eq=False)
class CipherSums(SecureSums):
    """The server's half of the sums of one run under homomorphic encryption.

    There are neither lists nor masks. The sites open the sum of one part of each of them, and no other.

    Attributes
    ----------
    entries : int
        Of the model.
    context : PublicContext
        Which adds, and opens nothing.
    """

    entries: int
    context: PublicContext

    def _update_defect(self, reply: TrainReply, updates: int, sums: int) -> Refusal | None:
        if reply.encrypted is None:
            return Refusal("ciphertext-unfit")
        entries = vector_entries(self.entries)
        chunks = ckks.unpacked(reply.encrypted, entries)
        return chunks if isinstance(chunks, Refusal) else self.context.defect(chunks, entries)

    def _sum_losses(self, questions: SumQuestions, good: Replies) -> None:
        """Take none: only sites open a sum."""

    def mean(self, questions: SumQuestions, good: Replies, needed: int) -> Arrays:
        """Return the next model, as the ciphertexts of a sum that the sites can open.

        Parameters and errors are those of `SecureSums.mean`; nothing further is asked.
        """
        if missing := sorted(set(self.cohort) - good.keys()):
            raise Unsummed(Refusal("sum-incomplete", sites=", ".join(missing[:3])))
        entries = vector_entries(self.entries)
        sent = [good[site].encrypted for site in sorted(good)]
        parts = [ckks.unpacked(one, entries) for one in sent if one is not None]
        total = self.context.add([part for part in parts if not isinstance(part, Refusal)], entries)
        if isinstance(total, Refusal):
            raise Unsummed(total)
        return {CIPHERTEXT: ckks.packed(total)}


CODES = frozenset({"share-unreadable", "shares-unreadable"})
"""Codes of sites that opened nothing, since shares were none for them."""
Named = Mapping[str, Sites]
"""By site that opened nothing, the sites that it named."""


def named_sites(listed: Sites, faults: Mapping[str, Refusal]) -> Named:
    """Return whose shares were none, by the site that says so.

    Parameters
    ----------
    listed : frozenset of str
        Only its sites are looked at: a site may name whom it likes.
    faults : mapping of site to Refusal
    """
    sites_by_reporter: dict[str, Sites] = {}
    for site in sorted(listed & faults.keys()):
        cause = faults[site].cause
        if cause.code in CODES:
            text = cause.facts.get("site") or cause.facts["sites"]
            sites_by_reporter[site] = listed.intersection(text.split(", "))
    return sites_by_reporter


def list_without(listed: Sites, named: Named) -> Sites:
    """Return the sites of a list of which none names another, most of those of the list.

    A site whose keys are wrong names all others, and they name it: it goes, and they stay. So who has to do with most
    pairs goes first; of two, who is named more often.

    Parameters
    ----------
    listed : frozenset of str
    named : mapping of site to frozenset of str

    Examples
    --------
    >>> others = frozenset("abc")
    >>> sorted(list_without(frozenset("abcd"), {"a": frozenset("d"), "b": frozenset("d"), "d": others}))
    ['a', 'b', 'c']
    """
    left = set(listed)
    while pairs := _pairs(left, named):
        left.remove(max(sorted(left), key=lambda site: _weight(site, pairs)))
    return frozenset(left)


def _pairs(left: set[str], named: Named) -> list[tuple[str, str]]:
    """Return the pairs of sites of which the first names the other."""
    pairs: list[tuple[str, str]] = []
    for site in left & named.keys():
        pairs += [(site, other) for other in named[site] & left]
    return pairs


def smaller_list(listed_vectors: ListedVectors, named: Named, *, cohort: Collection[str], least: int) -> Sites | None:
    """Return the list that is asked for in place of one that was not opened, None where none may be.

    A site that opened the larger list refuses a smaller one, and those that did not would be bound to it. So each of
    the others must have said that it opened nothing. Who did not answer may have.

    Parameters
    ----------
    listed_vectors : ListedVectors
    named : mapping of site to frozenset of str
    cohort : collection of str
        Of less than the cohort the others have confirmed the list already.
    least : int
    """
    rest = list_without(listed_vectors.listed, named)
    if listed_vectors.listed != set(cohort) or rest == listed_vectors.listed or len(rest) < least:
        return None
    opened_none = all(site in named and not listed_vectors.vectors[site].opened for site in rest)
    return rest if opened_none else None


def left_out_faults(sites: Sites, named: Named, *, excluded: Sites) -> dict[str, Refusal]:
    """Return the record of sites that are left out: who named them, and whether further sums are without them."""
    reasons = {}
    for site in sorted(sites):
        at = ", ".join([other for other in sorted(named) if site in named[other]][:NAMED])
        if site in excluded:
            reasons[site] = Refusal("shares-spoilt-again", sites=at)
        else:
            reasons[site] = Refusal("shares-spoilt", sites=at)
    return reasons


def _weight(site: str, pairs: Collection[tuple[str, str]]) -> tuple[int, int]:
    """Return in how many pairs a site is, and in how many it is named."""
    return sum(site in pair for pair in pairs), sum(site == other for _, other in pairs)
