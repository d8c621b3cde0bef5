"""Shared state of a run's steps at the server.

It sends requests to all sites, and sorts their replies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.privacy_recorder import PrivacyRecord
from flfed.federation.recording.recorder import Recorder
from flfed.records.reports.faults import FEW_SITES, SITES_NAMED
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.study_model import first_model, study_layout
from flfed.study.study import Study
from flfed.summaries.summary import Arrays, Encoder, Layout, schema_encoder
from flfed.updates.aggregation.rounds import Participants, Send
from flfed.updates.aggregation.summer import Summer
from flfed.updates.messages.enrol import ENROL, EnrolReply, EnrolRequest
from flfed.updates.messages.fields import receive
from flfed.updates.messages.in_memory import count_bytes, own_copy
from flfed.updates.strategies.fedavg import FedAvg, waiting
from flfed.words import render

Reply = TypeVar("Reply")
LEAST_SITES = 2


@dataclass(frozen=True, eq=False)
class Answers(Generic[Reply]):
    """Replies and faults of one request, by node.

    Attributes
    ----------
    replies : dict of key to reply, in key order
    faults : dict of key to Refusal, in key order
        Of the nodes without a usable reply.
    to_node, to_server : dict of key to int
        Bytes of the messages' content; an error has none.
    """

    replies: dict[str, Reply]
    faults: dict[str, Refusal]
    to_node: dict[str, int]
    to_server: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class RunSetting:
    """Shared state of a run's steps at the server.

    Attributes
    ----------
    grid : Grid
    study : Study
    recorder : Recorder
    repeat : int
    clock : callable
        Seconds of the run itself.
    each_round : bool
        Whether every round is a checkpoint: institutions train from one model in a round, and a request that is
        repeated after a crash must bring the same. The noise then comes from the operating system, too.
    resumed : bool
        Whether the run continues from a checkpoint.
    privacy : PrivacyRecord
    sums : Summer or None
        Secure sums, once the sites have each other's keys; None where updates cross in the clear.
    """

    grid: Grid
    study: Study
    recorder: Recorder
    _: KW_ONLY
    repeat: int = 0
    clock: Callable[[], float] = time.monotonic
    each_round: bool = False
    resumed: bool = field(default=False, init=False)
    privacy: PrivacyRecord = field(init=False)
    sums: Summer | None = field(default=None, init=False)

    @cached_property
    def schema(self) -> Schema:
        """The schema of the study's dataset."""
        return datasets.load(self.study.dataset.name).schema

    @cached_property
    def layout(self) -> Layout:
        """The layout of the sites' sums."""
        return study_layout(self.study, self.schema)

    @property
    def name(self) -> str:
        """The run's id."""
        return self.recorder.writer.run

    @property
    def deadline(self) -> float:
        """Seconds that sites have for an answer."""
        return deadline_of(self.study)

    def schema_encoder(self) -> Encoder:
        """Return the encoder of the schema alone, for which no row was read."""
        return schema_encoder(self.layout)

    def first_arrays(self) -> Arrays:
        """Return the initial arrays in the plan's precision."""
        return first_model(self.study, self.schema, self.repeat)

    def ask(
        self,
        kind: str,
        request: Any,
        participants: Participants,
        read: Callable[[RecordDict], Reply],
        *,
        wait: bool = False,
    ) -> Answers[Reply]:
        """Send sites a message, collect their replies, and record the bytes that crossed.

        Parameters
        ----------
        kind : str
            The message's type.
        request : a message of `flfed.updates.messages`, or a mapping of site to one
        participants : mapping of site to Participant
        read : callable
            Turns a reply's content into the reply, or raises MalformedMessage.
        wait : bool
            Whether to wait for sites that are not there.
        """
        timeout = self.deadline
        send: Send = self.grid.send_and_receive
        if wait:
            timeout = float(self.study.strategy.settings.get("wait", FedAvg.wait))
            send = waiting(self.grid)
        answers = ask(self.grid, kind, request, nodes_of(participants), read, timeout=timeout, send=send)
        self.recorder.crossed(kind, answers.to_node, answers.to_server)
        return answers

    def ask_checked(
        self,
        kind: str,
        request: Any,
        participants: Participants,
        read: Callable[[RecordDict], Reply],
        defect: Callable[[str, Reply], Refusal | None],
    ) -> Answers[Reply]:
        """Send sites a message and record sites without a usable reply.

        Parameters are as for `ask`.

        Parameters
        ----------
        kind, request, participants, read
        defect : callable (site, reply) → Refusal or None
            Returns why a reply is unusable.
        """
        return self.check_replies(self.ask(kind, request, participants, read), defect)

    def check_replies(self, answers: Answers[Reply], defect: Callable[[str, Reply], Refusal | None]) -> Answers[Reply]:
        """Return answers without unusable replies, and record their sites; `defect` is that of `ask_checked`."""
        defects = {site: why for site, reply in answers.replies.items() if (why := defect(site, reply))}
        good = {site: reply for site, reply in answers.replies.items() if site not in defects}
        faults = {**answers.faults, **defects}
        self.recorder.events("fault", faults)
        return replace(answers, replies=good, faults=faults)

    def check_enough(
        self, sites: int, reasons: Sequence[str], *, refused: bool = False, todo: str = "", least: int = LEAST_SITES
    ) -> None:
        """Refuse to continue with too few sites, and add what to do.

        The input is at fault where sites `refused`, or where no others were asked.
        """
        if sites >= least:
            return
        if len(reasons) > FEW_SITES:
            reasons = [*reasons[:SITES_NAMED], f"{len(reasons) - SITES_NAMED} more"]
        why = f" ({'; '.join(reasons)})" if reasons else ""
        few = ("none", "one", "some")[min(sites, 2)]
        sentence = render(f"run.few.{few}", sites=sites, least=least, why=why, todo=todo)
        if refused or not reasons:
            raise UsageError(sentence)
        raise FlfedError(sentence)

    def check_answers(self, answers: Answers[Any]) -> None:
        """Refuse to continue where too few sites sent a usable reply."""
        # What a gate says begins with its site's name.
        reasons = [f"{site}: " + why.removeprefix(f"{site}: ") for site, why in answers.faults.items()]
        self.check_enough(len(answers.replies), reasons)


def ask(
    grid: Grid,
    kind: str,
    request: Any,
    nodes: Mapping[str, int],
    read: Callable[[RecordDict], Reply],
    *,
    timeout: float,
    send: Callable[..., Iterable[Message]] | None = None,
) -> Answers[Reply]:
    """Send all nodes a message and collect replies.

    Replies within `timeout` seconds count.

    Parameters
    ----------
    grid : Grid
    kind : str
        The message's type.
    request : a message of `flfed.updates.messages`, or a mapping of key to one
    nodes : mapping of key to node id
    read : callable
        Turns a reply's content into the reply, or raises MalformedMessage.
    timeout : float, seconds
    send : callable (messages, timeout=seconds) → messages, optional
        In place of the grid's `send_and_receive`.
    """
    requests = request if isinstance(request, Mapping) else dict.fromkeys(nodes, request)
    # A message is written once, and each node gets its own record: one client's edit must not reach the next.
    written = {id(one): one.to_record() for one in requests.values()}
    sizes = {number: count_bytes(record) for number, record in written.items()}
    messages = [
        Message(own_copy(written[id(requests[key])]), dst_node_id=node, message_type=kind)
        for key, node in nodes.items()
    ]
    keys = {node: key for key, node in nodes.items()}
    came = receive((send or grid.send_and_receive)(messages, timeout=timeout), keys, read, named=kind != ENROL)
    return Answers(
        replies=dict(sorted(came.replies.items())),
        faults=dict(sorted(came.faults.items())),
        to_node={key: sizes[id(requests[key])] for key in nodes},
        to_server=came.bytes,
    )


def ask_enrolment(grid: Grid, study: Study, schema: Schema) -> tuple[dict[str, int], Answers[EnrolReply]]:
    """Return all nodes by key, and their replies to the first request of a run."""
    nodes = {str(node): node for node in grid.get_node_ids()}
    request = EnrolRequest(dataset=study.dataset.name, schema_sha256=schema.sha256())
    # Only an engine of institutions knows ledgers, and the site of a node before it has answered.
    heads = getattr(grid, "heads", None)
    known = {} if heads is None else heads.lines()
    sites = {str(node): site for site, node in getattr(grid, "nodes", {}).items()}
    requests = {key: replace(request, known_line=known[site]) for key, site in sites.items() if site in known}
    requests = dict.fromkeys(nodes, request) | requests
    return nodes, ask(grid, ENROL, requests, nodes, EnrolReply.from_record, timeout=deadline_of(study))


def check_ledgers(grid: Grid, replies: Iterable[EnrolReply]) -> None:
    """End a run where the ledger of a site does not continue what the coordinator knows of it; raises RunStopped."""
    heads = getattr(grid, "heads", None)
    if heads is not None:
        heads.check(replies)


def deadline_of(study: Study) -> float:
    """Return the seconds that sites have for an answer."""
    return float(study.strategy.settings.get("deadline", 600.0))


def nodes_of(participants: Participants) -> dict[str, int]:
    """Return the node of each site."""
    return {site: enrolled.node_id for site, enrolled in participants.items()}
