"""Secure sums at a site, of updates, figures, ciphertexts and trees.

They are masked vectors, confirmations and openings. The site's ledger has the opened lists, for all runs; the rest is
in its state of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from flfed.federation.client.run_keys import LISTED, Cohort, RunKeys
from flfed.refusals import NotTakingPart, Refusal, decline, or_refuse, refuse
from flfed.rows.training.requests import PackRequest
from flfed.updates.aggregation.losses import Losses, encode_losses
from flfed.updates.arrays import CIPHERTEXT, Arrays, Shapes, byte_array, flattened, is_encrypted
from flfed.updates.masking import protocol, rules
from flfed.updates.masking.ckks import RoundTags, decrypt_model, encrypt_model
from flfed.updates.masking.question import (
    FACTS,
    QuestionOrder,
    RunQuestion,
    SumContext,
    SumRequest,
    order_of,
    question_sha256,
    rounding_sha256,
    sum_name,
)
from flfed.updates.masking.rules import Sites
from flfed.updates.masks.ring import LARGEST_ENTRY
from flfed.updates.mechanism import largest_entry, noise_of_site
from flfed.updates.messages.compare import COMPARE, CompareRequest
from flfed.updates.messages.secure_sum import ListReply, ListRequest, Masked, UnmaskReply, UnmaskRequest, joined, parted
from flfed.updates.messages.summarise import BINS, STATISTIC, SUMMARISE, StatisticRequest
from flfed.updates.messages.train import EVALUATE, SUMS, TRAIN, TrainReply, TrainRequest

_LEVEL = "masked-level-"
"""Prefix of a level's masked numbers there, which are valid for the same rows, policy and study only."""


_FIRST = bytes(32)
"""In place of a binding, for the first model of a run."""
ModelRequest = TrainRequest | CompareRequest
"""A request that brings a model."""


@dataclass(frozen=True, eq=False)
class SiteSums:
    """A site's half of the secure sums of one run.

    Attributes
    ----------
    keys : RunKeys
        A rehearsal has none: vectors are rounded and added as under masks, but without masks.
    """

    keys: RunKeys
    kinds: ClassVar[tuple[str, ...]] = (TRAIN, EVALUATE, SUMMARISE, STATISTIC, COMPARE)
    """Kinds of the questions whose answers are masked."""

    def cohort(self) -> Cohort:
        """Return the sites that have masks with each other; raises NotTakingPart."""
        return self.keys.cohort()

    def least(self) -> int:
        """Return the threshold of a list, and of shares."""
        return self.keys.least(len(self.cohort().sites))

    @cached_property
    def order(self) -> QuestionOrder:
        """The order of the run's masked questions."""
        return order_of(self.keys.study)

    @property
    def context(self) -> SumContext:
        """Facts that the sites of a sum share; raises NotTakingPart."""
        keys = self.keys
        cohort = self.cohort()
        return SumContext(
            study_sha256=keys.study.sha256(),
            run=keys.run,
            repeat=keys.repeat,
            cohort=cohort.sites,
            most_rows=cohort.most_rows,
            largest_entry=largest_entry(keys.study, self.least()),
        )

    def masked(
        self, request: TrainRequest, reply: TrainReply, losses: Losses, *, model: Arrays
    ) -> Generator[PackRequest, Any, TrainReply]:
        """Yield the rounding request, and return a reply with a masked update.

        Parameters
        ----------
        request : TrainRequest
        reply, losses : TrainReply, mapping of part to RowLoss
            The update, and the losses to add up beside it.
        model : dict of name to array
            The start of the training.

        Raises
        ------
        NotTakingPart
            If an entry is too large for the ring, or the site has no keys of the run.
        """
        exchange = self.identify_exchange(request)
        cohort = self.cohort()
        strategy = self.keys.study.strategy.build("strategy")
        weight = strategy.relative_weight(reply, float(cohort.most_rows))
        entries = flattened(reply.delta)
        noise = noise_of_site(self.keys.study, self.least())
        # With noise every site counts the same, whatever the strategy says.
        if noise is not None:
            weight = 1.0
            entries = noise.clipped(entries)
        updates, sums = self.context.rings()
        rng = self.rng(exchange)
        vector = or_refuse((yield PackRequest(updates.pack, weight * entries, rng=rng)))
        if noise is not None:
            vector = noise.added(vector, updates, self.keys.chance(exchange.number).normal)
        weights = or_refuse(sums.encode(np.array([weight]), rng))
        beside = np.concatenate([weights, losses_in_sum(self.keys, losses, rng)])
        return replace(reply, delta={}, masked=self._mask(exchange, vector, beside))

    def masked_numbers(self, kind: str, numbers: np.ndarray, request: StatisticRequest | None = None) -> Masked:
        """Return sums under masks, the same for each request.

        A row adds 1 at most. The `request` is that of one visit of several.

        Raises NotTakingPart where the rows, the policy or the study changed since.
        """
        exchange = self.identify_exchange(request, kind)
        ring = self.context.ring_of_counts()
        rng = self.rng(exchange)
        name = f"masked-visit-{exchange.number:06d}" if request is not None else "masked-summary"
        return self.once(exchange, name, lambda: ring.encode(numbers, rng))

    def once(self, exchange: RunQuestion, name: str, numbers: Callable[[], np.ndarray | Refusal]) -> Masked:
        """Return numbers of 64 bits under masks.

        A repeated request gets the stored ones of a name.
        """
        if self.keys.approval is None:
            return self._mask(exchange, np.empty(0, np.uint32), or_refuse(numbers()))
        state = self.keys.state
        binding = byte_array(exchange.binding)
        arrays = state.read(name)
        if arrays is None:
            self.check_unused(exchange)
            made = self._mask(exchange, np.empty(0, np.uint32), or_refuse(numbers()))
            arrays = {"vector": made.vector, "sums": made.sums, "shares": made.shares, "binding": binding}
            state.write(name, arrays)
        # Another request would have other masks, and the stored vector has been sent.
        elif not np.array_equal(arrays.get("binding", binding), binding):
            decline("masks-used", round=self.order.place(exchange.number)[0])
        self.note(exchange)
        return Masked(**{part: arrays[part] for part in ("vector", "sums", "shares")}, opened=self._opened(exchange))

    def identify_exchange(self, request: SumRequest, kind: str = SUMMARISE) -> RunQuestion:
        """Return a question's place.

        The `kind` is of one without a request, for sums over training rows.
        """
        study = self.keys.study
        number = 0
        if isinstance(request, TrainRequest):
            kind = TRAIN if request.fit else EVALUATE
            number = self.order.number(request)
        elif isinstance(request, StatisticRequest):
            number = request.round
        elif request is not None:
            kind = COMPARE
        return RunQuestion(
            kind=kind,
            number=number,
            step=self.order.step(kind, number),
            question=question_sha256(study, kind, request),
            rounding=rounding_sha256(study, kind, request),
            binding=self.context.binding(kind, request),
        )

    def rng(self, exchange: RunQuestion) -> np.random.Generator:
        """Return the generator for rounding numbers to a ring.

        It follows from the run's seed, the site and the question. So every engine rounds alike, and a repeated question
        has the same bits.
        """
        return self.keys.rng(f"sum {exchange.rounding}")

    def _opened(self, exchange: RunQuestion) -> tuple[Sites, ...]:
        """Return the opened lists of a question.

        Raises NotTakingPart where the site may not answer it.
        """
        approval = self.keys.approval
        cohort = self.cohort()
        if approval is None:
            return ()
        history = approval.book.get_history(exchange.question)
        refuse(
            rules.answer_refusal(
                cohort=cohort.sites, pinned=approval.pinned, earlier_lists=history.earlier_pins, opened=history.lists
            )
        )
        return history.lists

    def as_of_now(self, exchange: RunQuestion, reply: TrainReply) -> TrainReply:
        """Return a stored reply with the lists opened by now.

        Other runs may have opened some since.
        """
        if reply.masked is None:
            return reply
        return replace(reply, masked=replace(reply.masked, opened=self._opened(exchange)))

    def _mask(self, exchange: RunQuestion, vector: np.ndarray, sums: np.ndarray) -> Masked:
        keys = self.keys
        cohort = self.cohort()
        if keys.approval is None:
            shares = np.zeros((0, 0), np.uint8)
            return Masked(vector=protocol.counted(vector), sums=protocol.counted(sums), shares=shares)
        opened = self._opened(exchange)
        links = _among(cohort, keys.move(exchange.step, self.order.repeatable_requests))
        binding = exchange.binding
        made = protocol.mask_vector(keys.site, vector, sums, links=links, binding=binding, least=self.least())
        shares = _rows([made.sealed[site] for site in cohort.sites])
        return Masked(vector=made.updates, sums=made.sums, shares=shares, opened=opened)

    def note(self, exchange: RunQuestion) -> None:
        """Record that the masks of a question are used.

        That is before its reply leaves. Raises StorageError.
        """
        if self.keys.approval is not None and self.keys.state.read(exchange.name) is None:
            self._write_facts(exchange)

    def _write_facts(self, exchange: RunQuestion) -> None:
        state = self.keys.state
        facts = {"question": byte_array(bytes.fromhex(exchange.question)), "binding": byte_array(exchange.binding)}
        state.write(exchange.name, facts | {"step": np.array([exchange.step])})
        # A question with links in the chain may not be masked a second time.
        for old in [name for name in state.names() if name.startswith(FACTS)]:
            earlier = state.read(old)
            if earlier is not None and earlier["step"][0] <= exchange.step - self.order.repeatable_requests:
                state.remove(old)

    def check_unused(self, exchange: RunQuestion) -> None:
        """Refuse to mask a second vector for a question; raises NotTakingPart.

        Two vectors under one mask reveal their difference.
        """
        if self.keys.approval is not None and self.keys.state.read(exchange.name) is not None:
            decline("masks-used", round=self.order.place(exchange.number)[0])

    def confirm(self, request: ListRequest) -> ListReply:
        """Confirm a list to each of its sites; raises NotTakingPart."""
        listed = parted(request.listed)
        links, binding = self._of_sum(request, listed)
        made = protocol.confirm_list(self.keys.site, listed, links=links, binding=binding)
        return ListReply(codes=_rows([made.get(site, bytes(32)) for site in sorted(listed)]))

    def open(self, request: UnmaskRequest) -> UnmaskReply:
        """Open a list's sum; raises NotTakingPart."""
        listed = parted(request.listed)
        links, binding = self._of_sum(request, listed)
        order = sorted(listed)
        if (len(request.shares), len(request.codes)) != (len(order), len(order)):
            decline("cohort-unfit")
        shares = {site: part.tobytes() for site, part in zip(order, request.shares, strict=True)}
        codes = {site: code.tobytes() for site, code in zip(order, request.codes, strict=True)}
        site = self.keys.site
        made = protocol.open_list(
            site, listed, shares, confirmations=codes, links=links, binding=binding, least=self.least()
        )
        opening = or_refuse(made)
        seeds = [opening.seeds[site] for site in sorted(opening.seeds)]
        return UnmaskReply(shares=_rows([opening.shares[site] for site in order]), seeds=_rows(seeds))

    def question(self, kind: str, number: int) -> str:
        """Return the question that the site answered; raises NotTakingPart."""
        return self._sum(kind, number)["question"].tobytes().hex()

    def list_refusal(self, kind: str, number: int, listed: Sites) -> Refusal | None:
        """Return why the site neither confirms nor opens a list, or None."""
        if (keys := self.keys).approval is None:
            return Refusal("sums-unknown")
        cohort = self.cohort()
        book = keys.approval.book
        question = self.question(kind, number)
        history = book.get_history(question)
        pinned = keys.approval.pinned
        # Lists may differ by a consenting site only where an honest site sees both: else others could be removed with
        # it.
        seen = all(rules.have_honest_opener(pinned, before) for before in history.earlier_pins)
        return rules.list_refusal(
            keys.site,
            listed,
            cohort=cohort.sites,
            least=self.least(),
            opened=history.lists,
            lifted=cohort.lifted if seen else (),
            newest=book.newest(question, (keys.run, keys.repeat, self.order.place(number)[0])),
            after_loss=history.after_loss and not (keys.has_all_pinned() and listed == {*cohort.sites}),
        )

    def place_of(self, number: int) -> dict[str, int]:
        """Return round and level of an exchange, as a ledger's facts.

        It is empty where an exchange is a round.
        """
        return {}

    def opened(self, request: ModelRequest, model: Shapes) -> Arrays:
        """Return the model of a request."""
        return request.arrays

    def _of_sum(self, request: ListRequest | UnmaskRequest, listed: Sites) -> tuple[dict[str, bytes], bytes]:
        """Return links and binding of a list's sum, if the site may open it."""
        refuse(self.list_refusal(request.kind, request.round, listed))
        facts = self._sum(request.kind, request.round)
        return _among(self.cohort(), self.keys.links(int(facts["step"][0]))), facts["binding"].tobytes()

    def _sum(self, kind: str, number: int) -> Arrays:
        arrays = self.keys.state.read(sum_name(kind, number)) if kind in self.kinds else None
        if arrays is None:
            decline("sums-unknown")
        return arrays


@dataclass(frozen=True, eq=False)
class SiteCiphers(SiteSums):
    """A site's half of the sums of one run under homomorphic encryption.

    No list is opened to the server. A site opens the sum of the round that it answered last, where it has the tags of
    one part of each site. Anything else in place of the model ends its part of the run.
    """

    def opened(self, request: ModelRequest, model: Shapes) -> Arrays:
        """Return the decrypted model of a request.

        It is the first one of the run, or the sum of a round. The first one follows from the study, and crosses in the
        clear.

        Raises
        ------
        NotTakingPart
            If it is another one. The site then has no key of the run any more.
        """
        # Where the site has lost its state of the run, no attack is assumed.
        self.keys.secret_context()
        arrays: Arrays | Refusal = Refusal("sum-unverified")
        binding = self._binding(request)
        if binding == _FIRST:
            arrays = request.arrays
        elif binding and is_encrypted(request.arrays):
            arrays = decrypt_model(self._tags(binding), request.arrays[CIPHERTEXT], model)
        if isinstance(arrays, Refusal):
            self.keys.destroy_shared()
            raise NotTakingPart(arrays)
        return arrays

    def masked(
        self, request: TrainRequest, reply: TrainReply, losses: Losses, *, model: Arrays
    ) -> Generator[PackRequest, Any, TrainReply]:
        """Return a reply with the site's part of the next model, encrypted.

        `model` is the opened earlier one.
        """
        exchange = self.identify_exchange(request)
        most_rows = float(self.keys.cohort().most_rows)
        strategy = self.keys.study.strategy.build("strategy")
        weight = strategy.relative_weight(reply, most_rows)
        # The weighted mean of these is FedAvg's next model: the earlier model, and its share of the mean update.
        rate = strategy.server_lr
        following = {name: value.astype(np.float64) + rate * reply.delta[name] for name, value in model.items()}
        tags = self._tags(exchange.binding)
        ciphertext = or_refuse(encrypt_model(tags, self.keys.site, following, weight, largest=LARGEST_ENTRY))
        # In one process no reply is stored, so the use is recorded here.
        if self.keys.approval is None:
            self._write_facts(exchange)
        return replace(reply, delta={}, encrypted=ciphertext)
        yield  # a generator, like the other half, which requests rounding

    def check_unused(self, exchange: RunQuestion) -> None:
        """Refuse to make a second part for a round.

        A part for an earlier round is refused, too. Raises NotTakingPart.
        """
        # Whoever can multiply gets from two parts under the same tags their difference.
        super().check_unused(exchange)
        if self.keys.approval is not None and exchange.number < self._last_answered():
            decline("masks-used", round=exchange.number)

    def _tags(self, binding: bytes) -> RoundTags:
        return RoundTags(self.keys.secret_context(), binding, self.keys.cohort().sites)

    def _binding(self, request: ModelRequest) -> bytes:
        """Return the binding of the sum that a request must bring.

        It is the binding of a round, and b"" where the request can bring none.
        """
        number = self._last_answered()
        if isinstance(request, TrainRequest) and request.fit:
            number = request.round - 1
            if number == 0 and not is_encrypted(request.arrays):
                return _FIRST
        facts = self.keys.state.read(sum_name(TRAIN, number))
        return b"" if facts is None else facts["binding"].tobytes()

    def _last_answered(self) -> int:
        """Return the last round that the site has trained in.

        It is 0 before the first.
        """
        start = f"{FACTS}{TRAIN}-"
        names = self.keys.state.names()
        return max((int(name.removeprefix(start)) for name in names if name.startswith(start)), default=0)


@dataclass(frozen=True, eq=False)
class SiteTreeSums(SiteSums):
    """A site's half of the secure sums of a run of trees.

    Each level of a tree is a sum. All levels of a tree have one list: a node's sums minus those of one child are its
    other child's. Of two lists they would also be those of a site that is in one of them only.
    """

    kinds: ClassVar[tuple[str, ...]] = (TRAIN, EVALUATE, BINS, SUMMARISE, COMPARE)

    def place_of(self, number: int) -> dict[str, int]:
        """Return round and level of an exchange, as a ledger's facts."""
        round, level = self.order.place(number)
        return {"round": round, "level": level}

    def masked_cells(self, counts: Arrays) -> Masked:
        """Return rows by cell under masks, the same for each request.

        Raises NotTakingPart.
        """
        numbers = np.concatenate([values.ravel() for values in counts.values()])
        return self.once(self.identify_exchange(None, BINS), "masked-cells", lambda: numbers.astype(np.uint64))

    def masked(
        self, request: TrainRequest, reply: TrainReply, losses: Losses, *, model: Arrays
    ) -> Generator[PackRequest, Any, TrainReply]:
        """Return a reply whose sums of a level are masked; raises NotTakingPart."""
        # Modulo 2^64 a sum of whole numbers with signs is that of the same bits without.
        numbers = reply.extra[SUMS].ravel().view(np.uint64)
        exchange = self.identify_exchange(request)
        state = self.keys.state
        if self.order.place(exchange.number)[1] == 0:
            numbers = np.concatenate([numbers, losses_in_sum(self.keys, losses, self.rng(exchange))])
        made = self.once(exchange, f"{_LEVEL}{exchange.number:06d}", lambda: numbers)
        for name in [name for name in state.names() if name.startswith(_LEVEL)]:
            if int(name.removeprefix(_LEVEL)) <= exchange.number - self.order.repeatable_requests:
                state.remove(name)
        return replace(reply, extra={}, masked=made)
        yield  # a generator, like that of an update, which requests rounding

    def list_refusal(self, kind: str, number: int, listed: Sites) -> Refusal | None:
        """Return why the site neither confirms nor opens a list, or None."""
        refused = super().list_refusal(kind, number, listed)
        if refused is not None or kind != TRAIN:
            return refused
        round, level = self.order.place(number)
        root_list = self.keys.state.read(LISTED)
        if root_list is not None and root_list["round"][0] == round:
            differs = parted(root_list["listed"].tobytes().decode()) != listed
        else:
            # Without the list of its root a tree cannot continue.
            differs = level > 0
        return Refusal("list-differs") if differs else None

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
        """Store the list of a tree's root.

        All levels of the tree have it; an unopened one does not bind.
        """
        if request.kind != TRAIN:
            return
        round, level = self.order.place(request.round)
        if level == 0:
            listed = byte_array(joined(parted(request.listed)).encode())
            self.keys.state.write(LISTED, {"round": np.array([round]), "listed": listed})


def sums_of(keys: RunKeys) -> SiteSums:
    """Return a site's half of the sums of a run, given its keys."""
    if keys.study.aggregation.is_encrypted:
        return SiteCiphers(keys)
    # Where rows are counted by cell, each level of a tree is a sum.
    return SiteTreeSums(keys) if order_of(keys.study).cells else SiteSums(keys)


def masked_losses(sums: SiteSums, request: TrainRequest, losses: Losses) -> Masked | None:
    """Return the masked losses of a model that is only scored.

    They are the same for each request. They are None where the run is over at the site, and under homomorphic
    encryption, since only the sites open a sum.

    Raises
    ------
    NotTakingPart
        If the rows, the policy or the request changed since.
    """
    keys = sums.keys
    if isinstance(sums, SiteCiphers) or keys.read_cohort() is None:
        return None
    exchange = sums.identify_exchange(request)
    return sums.once(exchange, "masked-losses", lambda: losses_in_sum(keys, losses, sums.rng(exchange)))


def losses_in_sum(keys: RunKeys, losses: Losses, rng: np.random.Generator) -> np.ndarray:
    """Return losses as numbers of 64 bits."""
    cohort = keys.cohort()
    numbers: np.ndarray = or_refuse(encode_losses(losses, sites=len(cohort.sites), most_rows=cohort.most_rows, rng=rng))
    return numbers


def _among(cohort: Cohort, links: Mapping[str, bytes]) -> dict[str, bytes]:
    return {site: links[site] for site in cohort.sites}


def _rows(parts: Sequence[bytes]) -> np.ndarray:
    """Return equally long bytes as a uint8 array [parts, bytes]."""
    length = len(parts[0]) if parts else 0
    return byte_array(b"".join(parts)).reshape(len(parts), length)
