"""A run as strategies see it, its sites and who of them has the encoder, one round's state, and its record.

Python's garbage collector runs seldom while the messages of a run are alive.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Protocol

from flwr.app import Message

from flfed.callbacks import Clock
from flfed.refusals import BUDGET, Refusal
from flfed.seeds import generator
from flfed.study.plan import Plan
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.guard import BLOCK, GuardResult
from flfed.updates.aggregation.losses import MeanLosses
from flfed.updates.aggregation.summer import Summer, Unsummed
from flfed.updates.arrays import Arrays, Shapes, shapes_of
from flfed.updates.checkpoints.checkpoint import read_cohort, write_cohort
from flfed.updates.codec import Codec
from flfed.updates.mechanism import Mechanism, Normals
from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.messages.fields import reason_of, receive
from flfed.updates.messages.in_memory import InMemoryRecord, Sizes, addressed, read
from flfed.updates.messages.train import LOST, TRAIN, Replies, Scores, TrainReply, TrainRequest


@dataclass(frozen=True, kw_only=True)
class Participant:
    """A site that takes part in a run.

    Attributes
    ----------
    node_id : int
    rows_high : int
        Upper end of the band of rows it declared.
    version : str
        Of its flfed, as it reported; new fields of a message go only to sites that read them.
    signed_key : bytes
        Its key of the run as its gate signed it, where it approved secure sums.
    width : float
        Share of the model's hidden units that it trains.
    """

    node_id: int
    rows_high: int
    version: str = ""
    signed_key: bytes = b""
    width: float = 1.0

    @classmethod
    def of(cls, node: int, reply: EnrolReply) -> Participant:
        """Return the participant that enrolled by a reply."""
        return cls(
            node_id=node,
            rows_high=reply.rows_high,
            version=reply.version,
            signed_key=reply.signed_key,
            width=reply.width,
        )


Participants = Mapping[str, Participant]
"""Participants of a run, by site."""


def keep_cohort(run: str, participants: Participants) -> None:
    """Write down who enrolled at a run's start; raises FlfedError."""
    write_cohort(run, {site: asdict(one) | {"signed_key": one.signed_key.hex()} for site, one in participants.items()})


def load_cohort(run: str) -> dict[str, Participant]:
    """Return who enrolled at a run's start; nothing where the run has no keys yet. Raises as `read_cohort` does."""
    return read_cohort(run, lambda facts: Participant(**{**facts, "signed_key": bytes.fromhex(facts["signed_key"])}))


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """Record of one round, for observers.

    No arrays of any site are in it.

    Attributes
    ----------
    round : int
        From 1; `rounds + 1` is the last evaluation, without training.
    model_round : int
        After how many rounds of training the model that was scored came: `round - 1`.
    arrays : dict of name to array
        The global model after the round.
    scores : dict of site to Scores
        Of the model that came into the round, on validation (or training) rows.
    losses : dict of site to float or None
        Mean training loss over the steps of each site that trained; None where the site keeps it.
    refused, flagged : dict of site to Refusal
    sampled_sites : tuple of str
    bytes_to_site, bytes_to_server : dict of site to int
    seconds : float
    fit : bool
        Whether the sites were asked to train, not only to score.
    summed : bool
        False where good updates gave no sum, so that there is no new model.
    mean_losses : dict of str to float, as `MeanLosses` has them
    """

    round: int
    model_round: int
    arrays: Arrays
    scores: Mapping[str, Scores]
    losses: Mapping[str, float | None]
    refused: Mapping[str, Refusal]
    flagged: Mapping[str, Refusal]
    sampled_sites: tuple[str, ...]
    bytes_to_site: Mapping[str, int]
    bytes_to_server: Mapping[str, int]
    seconds: float
    fit: bool = True
    summed: bool = True
    mean_losses: Mapping[str, float] = field(default_factory=dict)


Observer = Callable[[RoundRecord], object]


def ignore(record: RoundRecord) -> None:
    """Observe nothing."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Context that a run gives its strategy.

    Attributes
    ----------
    participants : dict of site name to Participant
    encoder : Encoder
    plan : Plan
    rounds : int
    seed : int
    observer : callable
        Called with each round once it is complete; the rounds end where it returns true.
    mechanism : Mechanism, optional
        Changes a round's updates before the strategy sees them.
    chance : callable (round) → Normals, optional
        Where the server's own noise comes from; by default it follows from the seed, the study and the round.
    study : str
        What of the study seeded noise follows from.
    codec : Codec, optional
        What packs the sites' updates.
    outputs : int
        Of the model, where sites are asked for their offsets after the last round; 0 where they are not.
    sums : Summer, optional
        How the sites' updates are summed, where the server sees only sums.
    scored : bool
        Whether sites score the models of rounds, exactly: not where ε covers all releases.
    """

    participants: Participants
    encoder: Encoder
    plan: Plan
    rounds: int
    seed: int
    observer: Observer = field(default=ignore)
    mechanism: Mechanism | None = None
    chance: Callable[[int], Normals] | None = None
    study: str = ""
    codec: Codec | None = None
    outputs: int = 0
    sums: Summer | None = None
    scored: bool = True

    def rows_high(self) -> dict[str, int]:
        """Return the most rows that each site said it has."""
        return {site: enrolled.rows_high for site, enrolled in self.participants.items()}

    @cached_property
    def delivery(self) -> EncoderDelivery:
        """Which sites have the encoder, over all rounds of the run."""
        return EncoderDelivery(self.encoder)

    def unpacked(self, replies: Replies, model: Shapes) -> tuple[dict[str, TrainReply], dict[str, Refusal]]:
        """Return replies whose updates' arrays are like the model's, and why the others cannot be read."""
        if self.codec is None:
            return dict(replies), {}
        readable = dict(replies)
        faults = {}
        for site, reply in replies.items():
            if reply.delta and (defect := self.codec.defect(reply.delta, model)):
                faults[site] = defect
                del readable[site]
        packed = [site for site in readable if readable[site].delta]
        # Few at a time stay in a processor's cache.
        for start in range(0, len(packed), BLOCK):
            block = packed[start : start + BLOCK]
            read = self.codec.decode_all([readable[site].delta for site in block], model)
            for site, delta in zip(block, read, strict=True):
                readable[site] = replace(readable[site], delta=delta)
        return readable, faults

    def offset_sites(self) -> set[str]:
        """Return the sites that are asked for their offset after the last round."""
        return set(self.participants) if self.outputs > 0 else set()

    def merged(self, now: Round, good: Replies) -> Arrays | None:
        """Return the one update that stands for all of a round's.

        It is None where the strategy sees the sites' own: without a mechanism, and as `Mechanism.merged` says. It is
        also None where the server sees only sums and there is none of this round, which then has a reason why it is
        `unsummed`.
        """
        if self.sums is not None:
            try:
                mean, now.losses = self.sums.mean(good, now.incoming, now.number)
                return mean
            except Unsummed as error:
                now.lack_sum(error)
                return None
        if self.mechanism is None:
            return None
        normals = self.normals(now.number)
        deltas = {site: reply.delta for site, reply in good.items()}
        return self.mechanism.merged(deltas, plan=self.plan, rounds=self.rounds, asked=len(now.asked), normals=normals)

    def evaluated(self, now: Round, number: int, good: Replies) -> str:
        """Take note of the mean losses of a model that was scored without training; return why the run stops, or ""."""
        if self.sums is None:
            return ""
        try:
            why, now.losses = self.sums.evaluate(number, good, now.incoming)
        except Unsummed as error:
            now.lack_sum(error)
            return why_unsummed(number, error.why, now.result.refused)
        return f"round {number}: {why}" if why else ""

    def normals(self, round: int) -> Normals:
        """Return the server's noise source for a round."""
        # Institutions draw noise of their system's own, which nobody can draw again.
        if self.chance is not None:
            return self.chance(round)
        return generator(self.seed, site="", purpose=f"server-noise {self.study}", number=round).standard_normal


class Send(Protocol):
    """A grid's `send_and_receive`, or its `send_and_wait`."""

    def __call__(self, messages: Iterable[Message], *, timeout: float) -> Iterable[Message]:
        """Return the replies within the time."""


@dataclass(kw_only=True, eq=False)
class Round:
    """State of one round, over its attempts.

    Attributes
    ----------
    kind : {"train", "evaluate"}
    began : float
        Seconds on the run's clock.
    incoming : dict of name to array
        The model that the sites are sent.
    asked : dict of site to node
        In the last attempt.
    result : GuardResult
        Of the last attempt; what did not answer is among the refused.
    earlier : dict of site to reason
        Refused in the first attempt.
    spent : dict of site to reason
        Sites without privacy budget, which are not asked again.
    bytes_out, bytes_in : dict of site to int
        Of all attempts.
    ends_run : bool
        Whether the run's observer asked that no round follows.
    number : int
        Of the round, from 1.
    unsummed : Refusal or None
        Why the last attempt had no sum, where the server sees only sums.
    is_final : bool
        Whether asking again would give no sum either.
    losses : MeanLosses or None
        That a secure sum had beside the updates.
    send : callable (messages, timeout=seconds) → messages
        Of the last attempt.
    timeout : float, seconds
        That it had.
    """

    kind: str = TRAIN
    number: int = 0
    unsummed: Refusal | None = None
    is_final: bool = False
    losses: MeanLosses | None = None
    began: float = 0.0
    incoming: Arrays = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    result: GuardResult = field(default_factory=lambda: GuardResult(accepted={}))
    earlier: dict[str, Refusal] = field(default_factory=dict)
    spent: dict[str, Refusal] = field(default_factory=dict)
    bytes_out: dict[str, int] = field(default_factory=dict)
    bytes_in: dict[str, int] = field(default_factory=dict)
    ends_run: bool = False
    send: Send = field(init=False)
    timeout: float = field(init=False)
    _requests: dict[str, TrainRequest] = field(default_factory=dict)
    _run: RunContext = field(init=False)

    def messages(self, request: TrainRequest, run: RunContext, with_offset: Collection[str] = ()) -> list[Message]:
        """Return a message for each site that is asked.

        Parameters
        ----------
        request : TrainRequest
        run : RunContext
        with_offset : collection of str
            Sites that are asked for their own offset too.
        """
        sites = [site for site in self.asked if site not in self.spent]
        # Sites of one form are sent one request: it is written, and its arrays are read, once for all of them.
        form_of = {site: (site in run.delivery.holders, site in with_offset) for site in sites}
        requests = {form: replace(request, by_hash=form[0], offset=form[1]) for form in set(form_of.values())}
        self._run = run
        self.number = request.round
        self._requests = {site: requests[form] for site, form in form_of.items()}
        return self._addressed(sites)

    def _addressed(self, sites: Collection[str]) -> list[Message]:
        """Return the messages to some sites, and count their bytes."""
        sizes = Sizes()
        messages = list[Message]()
        first: Message | None = None
        for site in sites:
            # A record of its own for each site: one client's edit must not reach the next.
            request = self._requests[site]
            record = InMemoryRecord(request)
            # Messages differ in node and content alone, so that the others are made after the first.
            first = first or Message(record, dst_node_id=0, message_type=self.kind, group_id=str(request.round))
            self.bytes_out[site] = self.bytes_out.get(site, 0) + sizes.of(record)
            messages.append(addressed(first, self.asked[site], record))
        return messages

    def exchange(self, send: Send, messages: Iterable[Message], timeout: float, clock: Clock) -> list[Message]:
        """Send messages and return the replies within the time.

        A site that has lost the encoder is asked again, and gets it whole.

        Parameters
        ----------
        send : callable (messages, timeout=seconds) → messages
        messages : iterable of Message
        timeout : float, seconds
        clock : callable
        """
        self.send, self.timeout = send, timeout
        self.unsummed = None
        began = clock()
        sites = {node: site for site, node in self.asked.items()}
        replies = list[Message]()
        lacking = dict[str, Message]()
        for reply in send(messages, timeout=timeout):
            site = sites.get(reply.metadata.src_node_id, "")
            if self._run.delivery.answered(site, reply):
                lacking[site] = reply
            else:
                replies.append(reply)
        left = timeout - (clock() - began)
        # Where another site took the whole time there is none to answer in: the next request to it is whole.
        if not lacking or left <= 0:
            return [*replies, *lacking.values()]
        for site in lacking:
            self._requests[site] = replace(self._requests[site], by_hash=False)
        late_replies = self.exchange(send, self._addressed(lacking), left, clock)
        self.timeout = timeout
        return [*replies, *late_replies]

    def lack_sum(self, error: Unsummed) -> None:
        """Take note that the attempt has no sum."""
        self.unsummed = error.why
        self.is_final = error.final

    def note(self, faults: Mapping[str, Refusal]) -> None:
        """Count sites' faults among the refusals."""
        self.result = replace(self.result, refused=dict(sorted({**self.result.refused, **faults}.items())))

    def receive(
        self, replies: Iterable[Message], judge: Callable[[dict[str, TrainReply]], GuardResult]
    ) -> dict[str, TrainReply]:
        """Read the replies, judge them, and return the accepted ones by site."""
        sites = {node: site for site, node in self.asked.items()}
        came = receive(replies, sites, partial(read, TrainReply))
        for site, size in came.bytes.items():
            self.bytes_in[site] = self.bytes_in.get(site, 0) + size
        readable, defects = self._run.unpacked(came.replies, shapes_of(self.incoming))
        silent = {site for site, why in came.faults.items() if why.code == "no-reply"}
        # Whose budget is spent was not asked again; all others had the time to answer.
        spent = {site: reason for site, reason in self.spent.items() if site in silent}
        self.result = judge({site: readable[site] for site in sorted(readable)})
        self.note(came.faults | defects | spent)
        return self.result.accepted

    def failed(self) -> int:
        """Note an attempt that failed, and return how many sites can be asked again."""
        refused = self.result.refused
        self.earlier |= {site: Refusal("first-attempt", why=reason) for site, reason in refused.items()}
        self.spent = {site: reason for site, reason in refused.items() if reason.code in BUDGET}
        return len(self.asked) - len(self.spent)

    def record(self, number: int, arrays: Arrays, now: float) -> RoundRecord:
        """Return the record of the round, for observers.

        `now` is on the clock of `began`.
        """
        accepted = self.result.accepted
        return RoundRecord(
            round=number,
            model_round=number - 1,
            arrays=arrays,
            scores={site: reply.scores for site, reply in accepted.items() if reply.scores is not None},
            losses={site: reply.loss for site, reply in accepted.items() if reply.steps},
            refused={**self.earlier, **self.result.refused},
            flagged=self.result.flagged,
            sampled_sites=tuple(self.asked),
            bytes_to_site=self.bytes_out,
            bytes_to_server=self.bytes_in,
            seconds=now - self.began,
            fit=self.kind == TRAIN,
            summed=self.unsummed is None,
            mean_losses=self.losses.means if self.losses else {},
        )

    def why_stopped(self, needed: int) -> str:
        """Return why a run ends below its quorum of `needed` updates, or without a sum.

        Sites that have no privacy budget left are named first.

        Examples
        --------
        >>> refused = GuardResult(accepted={}, refused={"a": Refusal("no-reply")})
        >>> Round(number=3, asked={"a": 41, "b": 42}, result=refused).why_stopped(2)
        'round 3 had 0 good updates of 2 asked, 2 are needed (a: no reply before the deadline)'
        """
        refused = self.result.refused
        good = len(self.result.accepted)
        text = f"round {self.number} had {good} good updates of {len(self.asked)} asked, {needed} are needed"
        text = f"{text} ({_reasons(refused)})"
        if self.unsummed is not None and good >= needed:
            text = why_unsummed(self.number, self.unsummed, refused)
        # A spent budget goes before all else, since no further attempt can help.
        if spent := [site for site, reason in refused.items() if reason.code in BUDGET]:
            return Refusal("none-left", sites=", ".join(spent), why=text)
        diverged = {reason.code.split("-")[-1] for reason in refused.values()} == {"infinite"}
        return Refusal("diverged", why=text) if diverged else text


def why_unsummed(number: int, why: Refusal, refused: Mapping[str, Refusal]) -> str:
    """Return why a round has no sum, with what its sites said."""
    reasons = f" ({_reasons(refused)})" if refused else ""
    return f"round {number}: {why}{reasons}"


def _reasons(refused: Mapping[str, Refusal]) -> str:
    return "; ".join(f"{site}: {reason}" for site, reason in refused.items())


@dataclass(frozen=True, eq=False)
class EncoderDelivery:
    """Which sites have the encoder of a run since they enrolled.

    Attributes
    ----------
    encoder : Encoder
    holders : set of str
        Sites that answered a request which brought the encoder.
    """

    encoder: Encoder
    holders: set[str] = field(default_factory=set)

    def answered(self, site: str, reply: Message) -> bool:
        """Take note of a site's reply.

        Returns whether the site lacks the encoder.

        Such a site is asked again, and gets it whole.
        """
        if reply.has_error():
            return self.lost(site, reason_of(reply, site))
        self.holders.add(site)
        return False

    def lost(self, site: str, reason: Refusal) -> bool:
        """Take note of a site's error.

        Returns whether it says that it lacks the encoder, or trees.
        """
        if site not in self.holders or reason.cause not in LOST:
            return False
        self.holders.discard(site)
        return True


RARELY = (500_000, 50, 1000)
"""New objects between two searches, and between those that look at older objects too; Python's own are 700 and 10."""


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Run Python's cycle collector seldom.

    It does not search among the objects that are in memory now.

    A message is some seventy objects without a cycle, which go when nobody refers to them. While those of a cohort are
    alive, Python's search goes through all of them again and again. That takes half as long as all other work on a
    message.
    """
    before = gc.get_threshold()
    if before == RARELY:  # another run beside or around this one asked for it, and will end it
        yield
        return
    # Imported modules live until the end, so no search need visit it.
    gc.freeze()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
