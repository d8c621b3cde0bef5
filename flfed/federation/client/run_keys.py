"""A site's keys of one run with secure sums.

They are its own, those of its peers, and the chain of links with them. All of it is in the site's state of the run, and
survives the process.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import flfed
from flfed.refusals import Refusal, decline, or_refuse, refuse
from flfed.rows.training.private_noise import NoiseSource, SeededNoise, SystemNoise
from flfed.seeds import generator, noise_key
from flfed.signatures import canonical
from flfed.study.study import Study
from flfed.updates.arrays import Arrays, byte_array
from flfed.updates.checkpoints.site_state import OF_RUN, RunState
from flfed.updates.masking import rules
from flfed.updates.masking import statement as statements
from flfed.updates.masking.ckks import SecretContext, open_context, seal_context
from flfed.updates.masking.keys import CHAIN_LINKS, Chain, RunKey, joined, pair_secrets
from flfed.updates.masking.rules import Sites
from flfed.updates.masking.statement import Statement
from flfed.updates.messages.secure_sum import KeysReply, KeysRequest, SharedKey

KEY, STATEMENT, COHORT, CHAIN = (f"{OF_RUN}{name}" for name in ("key", "statement", "cohort", "chain"))
"""Names in a site's state of a run."""
SHARED = f"{OF_RUN}ckks"
"""The run's key of homomorphic encryption there; at the first site with its sealed copies for the others."""
LISTED = f"{OF_RUN}tree-list"
"""Name of the round whose list a site opened last, and of that list."""
ENDED = f"{OF_RUN}ended"
"""Set where a model was no sum of one part of each site."""
REHEARSAL = b"flfed rehearsal"
"""Source of all links in a rehearsal: there is no secret, and on Ray no common process."""
Place = tuple[str, int, int]
"""Run, repeat and round of an answer. Runs are named by their start, by the coordinator's clock."""


@dataclass(frozen=True, kw_only=True)
class QuestionHistory:
    """A site's ledger history of a question of secure sums.

    Attributes
    ----------
    lists : tuple of frozenset of str
        Lists that the site confirmed or opened for it.
    earlier_pins : tuple of frozenset of str
        The pinned sites of the runs in which it answered.
    after_loss : bool
        Whether an earlier ledger was lost: then the history is incomplete.
    """

    lists: tuple[Sites, ...] = ()
    earlier_pins: tuple[Sites, ...] = ()
    after_loss: bool = False


class ListBook(Protocol):
    """Lists that a site has confirmed or opened, in any run."""

    def get_history(self, question: str) -> QuestionHistory:
        """Return the history of a question."""
        ...

    def newest(self, question: str, place: Place) -> bool:
        """Return whether the site's answer to a question is its newest.

        No later run, repeat or round has one then.
        """
        ...

    def has_keys(self, run: str) -> bool:
        """Return whether the site took the keys of a run."""
        ...


@dataclass(frozen=True, kw_only=True)
class SumApproval:
    """Approval of a study's secure sums by people at an institution.

    Attributes
    ----------
    pinned : mapping of site to fingerprint
        This site counted.
    lifted : tuple of str
        Sites by which lists may differ, with this site's consent.
    signing_key : str
        Public key of the gate, as hex.
    sign : callable (statement) → signature
        By the gate's private key.
    lasting_secret : bytes
        Of that key: the same in all runs.
    book : ListBook
    """

    pinned: Mapping[str, str]
    lifted: tuple[str, ...]
    signing_key: str
    sign: Callable[[Statement], str]
    lasting_secret: bytes = field(repr=False)
    book: ListBook

    @classmethod
    def by_gate(
        cls, key: Ed25519PrivateKey, *, pinned: Mapping[str, str], lifted: tuple[str, ...], book: ListBook
    ) -> SumApproval:
        """Return the approval, with the gate's key to sign with."""
        signing_key = key.public_key().public_bytes_raw().hex()
        sign = partial(statements.sign, key=key)
        secret = hmac.digest(key.private_bytes_raw(), b"flfed offsets", "sha256")
        return cls(pinned=pinned, lifted=lifted, signing_key=signing_key, sign=sign, lasting_secret=secret, book=book)


Approving = Callable[[Study], SumApproval | None]
"""Returns the approval of a study's secure sums, None where its updates may cross in the clear."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Facts about a run's cohort at a site with its keys.

    Attributes
    ----------
    sites : tuple of str
        In name order.
    most_rows : int
        Upper end of the widest band of rows.
    lifted : tuple of str
        Sites by which lists may differ, by all statements.
    single_cells : bool
        Whether all of them let cells of few rows into sums, by their statements.
    sha256 : str
        Of the whole request with the keys.
    pins : str
        `pins_hash` of the sites that the approval pinned then; empty in a rehearsal.
    """

    sites: tuple[str, ...]
    most_rows: int
    lifted: tuple[str, ...] = ()
    single_cells: bool = False
    sha256: str
    pins: str = ""

    def arrays(self) -> Arrays:
        """Return the cohort as bytes."""
        return {"facts": byte_array(canonical(vars(self)))}

    @classmethod
    def of(cls, arrays: Arrays) -> Cohort:
        """Return the cohort in the bytes of `arrays`."""
        facts = json.loads(arrays["facts"].tobytes())
        lists: dict[str, Any] = {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
        return cls(**{**facts, **lists})


@dataclass(frozen=True, kw_only=True, eq=False)
class RunKeys:
    """A site's keys of one run.

    Attributes
    ----------
    site : str
    study : Study
    run : str
    repeat : int
    state : RunState
    approval : SumApproval or None
        None where one process rehearses for all sites: there are no keys.
    """

    site: str
    study: Study
    run: str
    repeat: int
    state: RunState
    approval: SumApproval | None

    def statement(self, *, single_cells: bool = False) -> bytes:
        """Return the signed statement of the site's key of this run.

        It is the same each time, and b"" in a rehearsal.
        """
        if self.approval is None:
            return b""
        arrays = self.state.read(STATEMENT)
        if arrays is not None:
            return arrays["packed"].tobytes()
        key = RunKey.new()
        made = Statement(
            study_sha256=self.study.sha256(),
            run=self.run,
            repeat=self.repeat,
            site=self.site,
            public_key=key.public.hex(),
            signing_key=self.approval.signing_key,
            pins=statements.pins_hash(self.approval.pinned),
            single_cells=single_cells,
            lifted=self.approval.lifted,
            flfed=flfed.__version__,
        )
        packed = statements.pack(made, self.approval.sign(made))
        self.state.write(KEY, {"private": byte_array(key.private)})
        self.state.write(STATEMENT, {"packed": byte_array(packed)})
        return packed

    def take(self, request: KeysRequest) -> KeysReply:
        """Take the keys of the run's cohort.

        A chain of links begins with each of its sites.

        Raises
        ------
        NotTakingPart
            If the cohort or a statement differs from the approval, or the run has another cohort.
        """
        sites = tuple(request.cohort.split(","))
        parts = [b"keys", request.cohort.encode(), str(request.most_rows).encode(), *request.statements]
        sha256 = hashlib.sha256(joined(*parts)).hexdigest()
        cohort = self.read_cohort()
        if self.approval is None:
            self.state.write(COHORT, Cohort(sites=sites, most_rows=request.most_rows, sha256=sha256).arrays())
        elif cohort is None:
            self._begin(request, sites, sha256, self.approval)
        elif cohort.sha256 != sha256:
            decline("cohort-other")
        # Every link would follow from the private key; after a crash it may still exist.
        if self.state.read(KEY) is not None:
            self.state.remove(KEY)
        shared = self._share(request.shared, sites, bytes.fromhex(sha256))
        return KeysReply(sha256=sha256, least=self.least(len(sites)), shared=shared)

    def _share(self, shared_key: SharedKey | None, sites: tuple[str, ...], binding: bytes) -> SharedKey | None:
        """Make or take the run's key of homomorphic encryption.

        The first site makes it, the others take it. It is made and taken once: a repeated request gets the same bytes.
        """
        if not self.study.aggregation.is_encrypted:
            return None
        arrays = self._shared()
        first = sites[0]
        rehearsed = dict.fromkeys(sites, hashlib.sha256(REHEARSAL + binding).digest())
        # Under homomorphic encryption the chain never moves.
        links = rehearsed if self.approval is None else self.links(0)
        if self.site == first:
            if arrays is None:
                context = SecretContext.new().to_bytes()
                made = seal_context(self.site, context, links=links, binding=binding)
                packed = [made.keys[site] for site in sites if site != first]
                parts = {"context": context, "sealed": made.sealed, "keys": b"".join(packed)}
                arrays = {name: byte_array(part) for name, part in parts.items()}
                self.state.write(SHARED, arrays)
            each = arrays["keys"].reshape(len(sites) - 1, -1)
            return SharedKey(sealed=arrays["sealed"].tobytes(), keys=tuple(one.tobytes() for one in each))
        if arrays is None:
            if shared_key is None or len(shared_key.keys) != 1:
                decline("ckks-key-unfit")
            ways: dict[str, Any] = {"link": links[first], "binding": binding, "sender": first, "receiver": self.site}
            opened = or_refuse(open_context(shared_key.sealed, shared_key.keys[0], **ways))
            self.state.write(SHARED, {"context": byte_array(opened.to_bytes())})
        return None

    def secret_context(self) -> SecretContext:
        """Return the run's key of homomorphic encryption.

        Raises NotTakingPart where it is missing.
        """
        check_lasting(self.state)
        context: SecretContext = or_refuse(_context_of(self._stored(SHARED)["context"].tobytes()))
        return context

    def _stored(self, name: str) -> Arrays:
        arrays = self.state.read(name)
        if arrays is None:
            decline("sums-key-lost")
        return arrays

    def _shared(self) -> Arrays | None:
        """Return the run's stored key of homomorphic encryption.

        Raises NotTakingPart once it was destroyed.
        """
        check_lasting(self.state)
        return self.state.read(SHARED)

    def destroy_shared(self) -> None:
        """Destroy the run's key of homomorphic encryption.

        After that the site answers nothing in the run.
        """
        if self.state.read(SHARED) is not None:
            self.state.remove(SHARED)
        self.state.write(ENDED, {"ended": np.ones(1, np.uint8)})

    def _begin(self, request: KeysRequest, sites: tuple[str, ...], sha256: str, approval: SumApproval) -> None:
        # After the comparison, or where its state is lost, the site has no second key in a run.
        if approval.book.has_keys(self.run):
            decline("sums-key-lost")
        statement_by_site = stated(self, sites, request.statements, approval)
        refuse(rules.cohort_refusal(self.site, sites, approval.pinned))
        key = RunKey.of_private(self._stored(KEY)["private"].tobytes())
        publics = {site: bytes.fromhex(one.public_key) for site, one in statement_by_site.items()}
        chain = Chain.start(or_refuse(pair_secrets(self.site, key, publics, bytes.fromhex(sha256))))
        self.state.write(CHAIN, chain.to_arrays())
        cohort = Cohort(
            sites=sites,
            most_rows=request.most_rows,
            lifted=tuple(sorted(rules.lifted_sites({site: one.lifted for site, one in statement_by_site.items()}))),
            single_cells=all(one.single_cells for one in statement_by_site.values()),
            sha256=sha256,
            pins=statements.pins_hash(approval.pinned),
        )
        self.state.write(COHORT, cohort.arrays())

    def read_cohort(self) -> Cohort | None:
        """Return the run's cohort, None before its keys came."""
        arrays = self.state.read(COHORT)
        return None if arrays is None else Cohort.of(arrays)

    def cohort(self) -> Cohort:
        """Return the run's cohort.

        Raises NotTakingPart where its keys are missing, or the pins have changed since. The pinned sites determine the
        threshold, and a run has one.
        """
        cohort = Cohort.of(self._stored(COHORT))
        if self.approval is not None and cohort.pins != statements.pins_hash(self.approval.pinned):
            decline("cohort-other")
        return cohort

    def has_all_pinned(self) -> bool:
        """Return whether each site that the approval pins is in the run."""
        return self.approval is not None and {*self.cohort().sites} == {*self.approval.pinned}

    def chain(self) -> Chain:
        """Return the links with each of the cohort.

        Raises NotTakingPart where they are missing.
        """
        return Chain.from_arrays(self._stored(CHAIN))

    def move(self, step: int, link_count: int = CHAIN_LINKS) -> dict[str, bytes]:
        """Return the links of a masked question.

        All links but the last so many are deleted.
        """
        chain = self.chain().moved(step, link_count)
        self.state.write(CHAIN, chain.to_arrays())
        return self.links(step, chain)

    def links(self, step: int, chain: Chain | None = None) -> dict[str, bytes]:
        """Return the links of a masked question.

        Raises NotTakingPart where they are deleted.
        """
        links: dict[str, bytes] = or_refuse((chain or self.chain()).at(step))
        return links

    def rng(self, purpose: str, number: int = 0) -> np.random.Generator:
        """Return a generator of the site's draws for a purpose."""
        return generator(self.study.seed + self.repeat, site=self.site, purpose=purpose, number=number)

    def chance(self, number: int) -> NoiseSource:
        """Return the source of a question's noise.

        It is the operating system, except in a rehearsal.
        """
        if self.approval is not None:
            return SystemNoise()
        return SeededNoise(self.rng(f"site-noise {noise_key(self.study.text)}", number))

    def least(self, cohort: int) -> int:
        """Return the threshold of the pinned sites.

        It is that of the cohort where no site is pinned.
        """
        return rules.threshold(cohort if self.approval is None else len(self.approval.pinned))


# Every question of a run needs it, and reading it takes a few milliseconds.
@lru_cache(maxsize=2)
def _context_of(data: bytes) -> SecretContext | Refusal:
    return SecretContext.of_bytes(data)


def stated(
    run: RunKeys, sites: tuple[str, ...], packed: Sequence[bytes], approval: SumApproval
) -> dict[str, Statement]:
    """Return the statements of a cohort, each of them as approved; raises NotTakingPart for any other."""
    if sites != tuple(sorted(set(sites))) or len(sites) != len(packed):
        decline("cohort-unfit")
    here: dict[str, Any] = {"study_sha256": run.study.sha256(), "run": run.run, "repeat": run.repeat}
    own = run.state.read(STATEMENT)
    statement_by_site = {}
    for site, one in zip(sites, packed, strict=True):
        made, signature = or_refuse(statements.read(one, **here))
        refuse(statements.statement_refusal(made, signature, pinned=approval.pinned, **here))
        # A second key in this site's own name would belong to somebody else, or be one that the site has lost.
        if site == run.site and (own is None or own["packed"].tobytes() != one):
            decline("sums-key-lost")
        if made.site != site:
            decline("cohort-unfit")
        statement_by_site[site] = made
    return statement_by_site


def check_lasting(state: RunState) -> None:
    """Raise NotTakingPart where a false sum ended the run here.

    The site's part of the run is over then.
    """
    if state.read(ENDED) is not None:
        decline("sum-unverified")
