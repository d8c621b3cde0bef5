"""Secure sums at a site: its key of a run, its masked vectors, and what it confirms and opens.

All that must outlive the process is in the site's state of the run; which lists were opened is in its ledger, which
outlives runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np

import flfed
from flfed.federation.client.redaction import NotTakingPart
from flfed.refusals import Refusal
from flfed.rows.training.requests import PackRequest
from flfed.seeds import generator
from flfed.signatures import canonical
from flfed.study.study import Study
from flfed.study.tables import Sharing
from flfed.updates.checkpoints.run_state import OF_RUN, RunState
from flfed.updates.codec import flattened
from flfed.updates.masking import protocol, rules
from flfed.updates.masking import statement as statements
from flfed.updates.masking.keys import Chain, RunKey, pair_secrets
from flfed.updates.masking.question import SumContext, question_sha256
from flfed.updates.masking.ring import Ring, rings
from flfed.updates.masking.rules import Sites
from flfed.updates.masking.statement import Statement
from flfed.updates.messages.fields import Arrays
from flfed.updates.messages.secure_sum import (
    KeysReply,
    KeysRequest,
    ListReply,
    ListRequest,
    Masked,
    UnmaskReply,
    UnmaskRequest,
    parted,
)
from flfed.updates.messages.train import EVALUATE, TRAIN, TrainReply, TrainRequest
from flfed.updates.strategies.fedavg import FedAvg

KEY, STATEMENT, COHORT, CHAIN = (f"{OF_RUN}{name}" for name in ("key", "statement", "cohort", "chain"))
"""Names in a site's state of a run."""
_SUM = f"{OF_RUN}of-"
"""Before kind and round, of the facts of a masked answer."""


Stated = dict[str, Statement]
Approving = Callable[[Study], "SumApproval | None"]
"""Returns what was approved of a study's secure sums, None where its updates may cross as they are."""


Place = tuple[str, int, int]
"""Run, repeat and round of an answer. Runs are named by the time at which they began."""


class ListBook(Protocol):
    """Lists that a site has confirmed or opened, in whatever run."""

    def lists(self, question: str) -> tuple[Sites, ...]:
        """Return the lists of a question."""
        ...

    def asked_with(self, question: str) -> tuple[Sites, ...]:
        """Return the pinned sites of the runs in which the site answered a question."""
        ...

    def newest(self, question: str, place: Place) -> bool:
        """Tell whether no later run, repeat or round has the site's answer to the question."""
        ...


@dataclass(frozen=True, kw_only=True)
class SumApproval:
    """What people at an institution approved of a study's secure sums.

    Attributes
    ----------
    pinned : mapping of site to fingerprint
        This site counted.
    lifted : tuple of str
        Sites by which lists may differ, as far as this site goes.
    signing_key : str
        Public key of the gate, as hex.
    sign : callable (statement) → signature
        By the gate's private key.
    book : ListBook
    """

    pinned: Mapping[str, str]
    lifted: tuple[str, ...]
    signing_key: str
    sign: Callable[[Statement], str]
    book: ListBook


@dataclass(frozen=True, kw_only=True)
class _Cohort:
    """What a site knows of its run's cohort since it has the keys.

    Attributes
    ----------
    sites : tuple of str
    most_rows : int
    lifted : tuple of str
        Sites by which lists may differ, by all statements.
    sha256 : str
        Of all that was told with the keys.
    """

    sites: tuple[str, ...]
    most_rows: int
    lifted: tuple[str, ...]
    sha256: str

    def arrays(self) -> Arrays:
        return {"facts": np.frombuffer(canonical(vars(self)), np.uint8)}

    @classmethod
    def of(cls, arrays: Arrays) -> _Cohort:
        given = json.loads(arrays["facts"].tobytes())
        facts: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
        }
        return cls(**facts)


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteSums:
    """A site's half of the secure sums of one run.

    Attributes
    ----------
    site : str
    study : Study
    run : str
    repeat : int
    state : RunState
    approval : SumApproval or None
        None where one process rehearses for all sites: vectors are rounded and added as under masks, and have none.
    """

    site: str
    study: Study
    run: str
    repeat: int
    state: RunState
    approval: SumApproval | None

    def statement(self, share_metrics: Sharing) -> bytes:
        """Return the signed statement of the site's key of this run, the same each time; b"" in a rehearsal."""
        if self.approval is None:
            return b""
        kept = self.state.read(STATEMENT)
        if kept is not None:
            return kept["packed"].tobytes()
        key = RunKey.new()
        made = Statement(
            study_sha256=self.study.sha256(),
            run=self.run,
            repeat=self.repeat,
            site=self.site,
            public_key=key.public.hex(),
            signing_key=self.approval.signing_key,
            pins=statements.pins_hash(self.approval.pinned),
            share_metrics=share_metrics,
            lifted=self.approval.lifted,
            flfed=flfed.__version__,
        )
        packed = statements.pack(made, self.approval.sign(made))
        self.state.write(KEY, {"private": _bytes(key.private)})
        self.state.write(STATEMENT, {"packed": _bytes(packed)})
        return packed

    def take_keys(self, request: KeysRequest) -> KeysReply:
        """Take the keys of the run's cohort, and begin the chain of links with each of them.

        Raises
        ------
        NotTakingPart
            If the cohort or a statement is not one that was approved, or the run has another cohort.
        """
        sites = tuple(request.cohort.split(","))
        told = [b"keys", request.cohort.encode(), str(request.most_rows).encode(), *request.statements]
        sha256 = hashlib.sha256(b"".join(len(one).to_bytes(4, "big") + one for one in told)).hexdigest()
        known = self._known()
        if known is not None and self.approval is not None:
            _refuse(None if known.sha256 == sha256 else Refusal("cohort-other"))
            return KeysReply(sha256=sha256, least=self._least(len(sites)))
        lifted: tuple[str, ...] = ()
        if self.approval is not None:
            found = _stated(self, sites, request.statements, self.approval)
            lifted = tuple(sorted(rules.lifted_sites({site: one.lifted for site, one in found.items()})))
            self._begin_chain({site: bytes.fromhex(one.public_key) for site, one in found.items()}, sha256)
        cohort = _Cohort(sites=sites, most_rows=request.most_rows, lifted=lifted, sha256=sha256)
        self.state.write(COHORT, cohort.arrays())
        # From the private key every link would follow.
        if self.approval is not None:
            self.state.remove(KEY)
        return KeysReply(sha256=sha256, least=self._least(len(sites)))

    def _begin_chain(self, publics: Mapping[str, bytes], sha256: str) -> None:
        kept = self.state.read(KEY)
        if kept is None:
            raise NotTakingPart(Refusal("sums-key-lost"))
        key = RunKey.of_private(kept["private"].tobytes())
        chain = Chain.start(_or_refuse(pair_secrets(self.site, key, publics, bytes.fromhex(sha256))))
        self.state.write(CHAIN, chain.to_arrays())

    def masked(
        self, request: TrainRequest, reply: TrainReply, strategy: FedAvg, seed: int
    ) -> Generator[PackRequest, Any, TrainReply]:
        """Return a reply whose update is masked; yields the request that rounds it.

        Parameters
        ----------
        request : TrainRequest
        reply : TrainReply
            With the update.
        strategy : FedAvg
            Whose weights count.
        seed : int
            Rounding follows from it, from the site and the question, so that every engine rounds alike, and a
            question that is asked again has the same bits.

        Raises
        ------
        NotTakingPart
            If an entry is too large for the ring, or the site has no keys of the run.
        """
        cohort, question = self._cohort(), question_sha256(self.study, TRAIN, request)
        if self.approval is not None:
            _check_pinned(self.approval, question, cohort.sites)
        weight = strategy.weight(reply) / strategy.weight(replace(reply, num_examples=float(cohort.most_rows)))
        updates, sums = rings(len(cohort.sites), self.study.largest_entry)
        rng = generator(seed, site=self.site, purpose=f"sum {question}")
        vector = _or_refuse((yield PackRequest(_packed_by(updates), weight * flattened(reply.delta), rng)))
        weights = _or_refuse(sums.encode(np.array([weight]), rng))
        return replace(reply, delta={}, masked=self._mask(request, vector, weights, question))

    def _mask(self, request: TrainRequest, vector: np.ndarray, weights: np.ndarray, question: str) -> Masked:
        if self.approval is None:
            return Masked(vector=_counted(vector), sums=_counted(weights), shares=np.zeros((0, 0), np.uint8))
        step = step_of(TRAIN, request.round, request.rounds)
        chain = self._chain().moved(step)
        self.state.write(CHAIN, chain.to_arrays())
        made = protocol.mask_vector(
            self.site,
            vector,
            weights,
            links=_or_refuse(chain.at(step)),
            binding=self._context.binding(TRAIN, request),
            least=self._least(len(self._cohort().sites)),
        )
        shares = _rows([made.sealed[site] for site in self._cohort().sites])
        opened = self.approval.book.lists(question)
        return Masked(vector=made.updates, sums=made.sums, shares=shares, opened=opened)

    def note(self, request: TrainRequest) -> None:
        """Write down that the masks of a round are used, before its reply leaves; raises NotKept."""
        name = _sum_name(TRAIN, request.round)
        if self.approval is None or self.state.read(name) is not None:
            return
        step = step_of(TRAIN, request.round, request.rounds)
        question = bytes.fromhex(question_sha256(self.study, TRAIN, request))
        binding = self._context.binding(TRAIN, request)
        facts = {"question": _bytes(question), "binding": _bytes(binding), "step": np.array([step])}
        self.state.write(name, facts)
        # The chain has no links for questions before the last two.
        for old in [
            one for one in self.state.names() if one.startswith(_SUM) and one < _sum_name(TRAIN, request.round - 1)
        ]:
            self.state.remove(old)

    def check_unused(self, round: int) -> None:
        """Refuse to mask a second vector for a round; raises NotTakingPart.

        Two vectors under one mask give their difference.
        """
        if self.approval is not None and self.state.read(_sum_name(TRAIN, round)) is not None:
            raise NotTakingPart(Refusal("masks-used", round=round))

    def confirm(self, request: ListRequest) -> ListReply:
        """Confirm a list to each of its sites; raises NotTakingPart."""
        listed = parted(request.listed)
        links, binding = self._of_sum(request, listed)
        made = protocol.confirm_list(self.site, listed, links=links, binding=binding)
        return ListReply(codes=_rows([made.get(site, bytes(32)) for site in sorted(listed)]))

    def open(self, request: UnmaskRequest) -> UnmaskReply:
        """Open a list's sum; raises NotTakingPart."""
        listed = parted(request.listed)
        links, binding = self._of_sum(request, listed)
        rows = (len(listed), len(listed))
        if (len(request.shares), len(request.codes)) != rows:
            raise NotTakingPart(Refusal("cohort-unfit"))
        order = sorted(listed)
        opening = _or_refuse(
            protocol.open_list(
                self.site,
                listed,
                {site: part.tobytes() for site, part in zip(order, request.shares, strict=True)},
                confirmations={site: code.tobytes() for site, code in zip(order, request.codes, strict=True)},
                links=links,
                binding=binding,
                least=self._least(len(self._cohort().sites)),
            )
        )
        seeds = [opening.seeds[site] for site in sorted(opening.seeds)]
        return UnmaskReply(shares=_rows([opening.shares[site] for site in order]), seeds=_rows(seeds))

    def question(self, kind: str, round: int) -> str:
        """Return the question that the site answered; raises NotTakingPart."""
        return self._sum(kind, round)["question"].tobytes().hex()

    def list_refusal(self, kind: str, round: int, listed: Sites) -> Refusal | None:
        """Return why the site neither confirms nor opens a list, None where it does."""
        if self.approval is None:
            return Refusal("sums-unknown")
        cohort, question, book = self._cohort(), self.question(kind, round), self.approval.book
        # Lists of other pinned sites have no honest site in common with these for certain.
        alike = all(before == set(self.approval.pinned) for before in book.asked_with(question))
        return rules.list_refusal(
            self.site,
            listed,
            cohort=cohort.sites,
            least=self._least(len(cohort.sites)),
            opened=book.lists(question),
            lifted=cohort.lifted if alike else (),
            newest=book.newest(question, (self.run, self.repeat, round)),
        )

    def _of_sum(self, request: ListRequest | UnmaskRequest, listed: Sites) -> tuple[dict[str, bytes], bytes]:
        """Return links and binding of the sum whose list this is, if the site may open it."""
        _refuse(self.list_refusal(request.kind, request.round, listed))
        facts = self._sum(request.kind, request.round)
        links = _or_refuse(self._chain().at(int(facts["step"][0])))
        return links, facts["binding"].tobytes()

    def _sum(self, kind: str, round: int) -> Arrays:
        found = self.state.read(_sum_name(kind, round)) if kind in (TRAIN, EVALUATE) else None
        if found is None:
            raise NotTakingPart(Refusal("sums-unknown"))
        return found

    def _known(self) -> _Cohort | None:
        arrays = self.state.read(COHORT)
        return None if arrays is None else _Cohort.of(arrays)

    def _cohort(self) -> _Cohort:
        found = self._known()
        if found is None:
            raise NotTakingPart(Refusal("sums-key-lost"))
        return found

    def _chain(self) -> Chain:
        arrays = self.state.read(CHAIN)
        if arrays is None:
            raise NotTakingPart(Refusal("sums-key-lost"))
        return Chain.from_arrays(arrays)

    def _least(self, cohort: int) -> int:
        """Return the threshold of the pinned sites, or of all where nobody is pinned."""
        return rules.threshold(cohort if self.approval is None else len(self.approval.pinned))

    @cached_property
    def _context(self) -> SumContext:
        cohort = self._cohort()
        return SumContext(
            study_sha256=self.study.sha256(),
            run=self.run,
            repeat=self.repeat,
            cohort=cohort.sites,
            most_rows=cohort.most_rows,
            largest_entry=self.study.largest_entry,
        )


def _stated(sums: SiteSums, sites: tuple[str, ...], packed: Sequence[bytes], approval: SumApproval) -> Stated:
    """Return the statement of each of a cohort, each of which is as it was approved."""
    if sites != tuple(sorted(set(sites))) or len(sites) != len(packed):
        raise NotTakingPart(Refusal("cohort-unfit"))
    _refuse(rules.cohort_refusal(sums.site, sites, approval.pinned))
    here: dict[str, Any] = {"study_sha256": sums.study.sha256(), "run": sums.run, "repeat": sums.repeat}
    own, found = sums.state.read(STATEMENT), {}
    for site, one in zip(sites, packed, strict=True):
        made, signature = _or_refuse(statements.read(one, **here))
        _refuse(statements.statement_refusal(made, signature, pinned=approval.pinned, **here))
        # A second key in this site's own name would be one that somebody else holds.
        if made.site != site or (site == sums.site and (own is None or own["packed"].tobytes() != one)):
            raise NotTakingPart(Refusal("cohort-unfit"))
        found[site] = made
    return found


def _check_pinned(approval: SumApproval, question: str, cohort: tuple[str, ...]) -> None:
    """Refuse to answer a question that other pinned sites were asked before, where no list holds the site."""
    asked_with, opened = approval.book.asked_with(question), approval.book.lists(question)
    _refuse(rules.answer_refusal(cohort=cohort, pinned=approval.pinned, asked_with=asked_with, opened=opened))


def step_of(kind: str, round: int, rounds: int) -> int:
    """Return the number of a masked question in its run: the rounds are counted from 1."""
    return rounds + 1 if kind == EVALUATE else round


# One function for all sites of a process, so that what they ask of it is answered together.
@lru_cache(maxsize=64)
def _packed_by(ring: Ring) -> Callable[[Sequence[np.ndarray], Sequence[np.random.Generator]], Sequence[Any]]:
    def pack(values: Sequence[np.ndarray], rngs: Sequence[np.random.Generator]) -> Sequence[np.ndarray | Refusal]:
        return ring.encode_all(np.stack(values), rngs)

    return pack


def _refuse(why: Refusal | None) -> None:
    """Raise NotTakingPart with a refusal, where there is one."""
    if why is not None:
        raise NotTakingPart(why)


def _or_refuse(found: Any) -> Any:
    """Return what was found, or raise NotTakingPart with the refusal that it is."""
    if isinstance(found, Refusal):
        raise NotTakingPart(found)
    return found


def _bytes(value: bytes) -> np.ndarray:
    return np.frombuffer(value, np.uint8)


def _rows(parts: Sequence[bytes]) -> np.ndarray:
    """Return equally long bytes as a uint8 array [parts, bytes]."""
    length = len(parts[0]) if parts else 0
    return np.frombuffer(b"".join(parts), np.uint8).reshape(len(parts), length)


def _counted(numbers: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones(1, numbers.dtype), numbers])


def _sum_name(kind: str, round: int) -> str:
    return f"{_SUM}{kind}-{round:06d}"
