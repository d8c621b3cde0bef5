"""What every step of a run needs at the server: requests to all sites, and their sorted replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from flfed.callbacks import Clock
from flfed.errors import FlfedError, UsageError
from flfed.federation.recording.privacy_recorder import PrivacyRecord
from flfed.federation.recording.pseudonyms import SharedAs
from flfed.federation.recording.recorder import Recorder
from flfed.records.reports.faults import FEW_SITES, SITES_NAMED
from flfed.refusals import NO_ANSWER, Refusal
from flfed.rows.data import datasets
from flfed.rows.data.schema import Schema
from flfed.rows.study_model import first_model, study_layout
from flfed.study.study import Study
from flfed.summaries.summary import Layout
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.arrays import Arrays
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.fields import receive
from flfed.updates.messages.in_memory import count_bytes, own_copy

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


@dataclass(kw_only=True, eq=False, repr=False)
class RunSetting:
    """What every step of a run needs at the server.

    Attributes
    ----------
    grid : Grid
    study : Study
    recorder : Recorder
    privacy : PrivacyRecord
    clock : callable
        Seconds that are the run's own.
    repeat : int
    each_round : bool
        Whether every round is a checkpoint, since the sites are institutions.
    resumed : bool
        Whether the run goes on after a checkpoint.
    """

    grid: Grid
    study: Study
    recorder: Recorder
    privacy: PrivacyRecord
    clock: Clock
    repeat: int = 0
    each_round: bool = False
    resumed: bool = False

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

    def first_arrays(self) -> Arrays:
        """Return the initial arrays in the plan's precision."""
        return first_model(self.study, self.schema, self.repeat)

    def ask(
        self, kind: str, request: Any, participants: Mapping[str, Participant], read: Callable[[RecordDict], Reply]
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
        """
        answers = ask(self.grid, kind, request, nodes_of(participants), read, timeout=self.deadline)
        log_bytes(self.recorder, kind, answers)
        return answers


def ask(
    grid: Grid,
    kind: str,
    request: Any,
    nodes: Mapping[str, int],
    read: Callable[[RecordDict], Reply],
    *,
    timeout: float,
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
    """
    requests = request if isinstance(request, Mapping) else dict.fromkeys(nodes, request)
    # A message is written once, and each node gets a record of its own: one client's edit must not reach the next.
    written = {id(one): one.to_record() for one in requests.values()}
    sizes = {number: count_bytes(record) for number, record in written.items()}
    messages = [
        Message(own_copy(written[id(requests[key])]), dst_node_id=node, message_type=kind)
        for key, node in nodes.items()
    ]
    keys = {node: key for key, node in nodes.items()}
    came = receive(grid.send_and_receive(messages, timeout=timeout), keys, read, named=kind != ENROL)
    silent = dict.fromkeys(nodes.keys() - came.replies.keys(), Refusal("no-reply"))
    return Answers(
        replies=dict(sorted(came.replies.items())),
        faults=dict(sorted({**silent, **came.faults}.items())),
        to_node={key: sizes[id(requests[key])] for key in nodes},
        to_server=came.bytes,
    )


def unenrolled(
    grid: Grid, faults: Mapping[str, Refusal]
) -> tuple[dict[str, Refusal], dict[str, Refusal], list[Refusal]]:
    """Sort the nodes that sent no answer.

    Returns whose gate refused, who is not there, and the reasons of those without a known name.

    Whose a node is only an engine of institutions knows beforehand.

    Parameters
    ----------
    grid : Grid
    faults : mapping of node to Refusal
    """
    known = {str(node): site for site, node in getattr(grid, "nodes", {}).items()}
    whys = {known[node]: why.cause for node, why in faults.items() if node in known}
    absent = {site: why for site, why in whys.items() if why.code in NO_ANSWER}
    refused = {site: why for site, why in whys.items() if site not in absent}
    return refused, absent, [Refusal("node-not-enrolled", why=why) for node, why in faults.items() if node not in known]


def log_bytes(recorder: Recorder, kind: str, answers: Answers[Any], names: Mapping[str, str] | None = None) -> None:
    """Record the bytes sent under names, else under keys."""
    recorder.crossed(kind, _named(answers.to_node, names), _named(answers.to_server, names))


def _named(sizes: Mapping[str, int], names: Mapping[str, str] | None) -> Mapping[str, int]:
    return sizes if not names else {names[key]: size for key, size in sizes.items()}


def deadline_of(study: Study) -> float:
    """Return the seconds that sites have for an answer."""
    return float(study.strategy.settings.get("deadline", 600.0))


def nodes_of(participants: Mapping[str, Participant]) -> dict[str, int]:
    """Return the node of each site."""
    return {site: enrolled.node_id for site, enrolled in participants.items()}


def check_enough(
    found: Mapping[str, object],
    reasons: list[str],
    shared: SharedAs,
    *,
    refused: bool = False,
    at_site: bool = False,
) -> None:
    """Refuse to continue with too few sites.

    The input is at fault where they `refused`, or where no more were asked.
    """
    if len(found) < LEAST_SITES:
        told = reasons
        if len(reasons) > FEW_SITES:
            told = [*reasons[:SITES_NAMED], f"{len(reasons) - SITES_NAMED} more"]
        why = f" ({'; '.join(told)})" if reasons else ""
        few = "no site takes part" if not found else "only one site takes part"
        todo = "; see, at each site: flfed site check NAME" if at_site else ""
        sentence = shared.text(f"{few}, at least {LEAST_SITES} are needed{why}{todo}")
        if refused or not reasons:
            raise UsageError(sentence)
        raise FlfedError(sentence)
