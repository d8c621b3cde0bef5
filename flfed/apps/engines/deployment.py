"""The engine of real institutions: a grid to the nodes of the sites that take part, over the running SuperLink.

The coordinator's own process conducts the run: it acquires the server's task, which Flower would have
started a process for, so that no code of a bundle is executed anywhere.

Private names of Flower: `HttpGrid` with `_client`, `_connect`, `_runtime_client` and `_retry_invoker`;
`RetryInvoker`; `SubStatus`; `ErrorCode`; `message_from_proto`, `Message._content`, the `*_pb2` messages.
Those of its tasks are in `coordinator/server_task.py`, of a message's parts in `apps/received.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import httpx
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid.http_grid import HttpGrid

from flfed.apps.asking import LOST, NOT_ONLINE
from flfed.apps.client_app import SITE_ERROR
from flfed.apps.coordinator import admission
from flfed.apps.coordinator.bodies import remove_bodies
from flfed.apps.coordinator.control import Control, Link, Node, database, pem_of
from flfed.apps.coordinator.folder import CoordinatorFolder
from flfed.apps.coordinator.server_task import Heartbeat, acquired, said
from flfed.apps.engines.inprocess import Clock
from flfed.apps.one_piece import apart, joined
from flfed.apps.received import MOST_BYTES, opened, parts_of
from flfed.errors import FlfedError, UsageError
from flfed.updates.content import MalformedMessage, reason_of
from flfed.updates.messages import ENROL, EnrolReply

POLL_SECONDS = 0.1
"""How often replies are looked for; Flower's own grid does every 3 s."""
WAIT_SECONDS = 90.0
"""How long sites are waited for: longer than the minute for which Flower refuses a node that comes back."""
LEAST_SITES = 2
PATIENCE_SECONDS = 120.0
"""How long the server may be away in the middle of a run: it is started again with back-off."""
LIFE_SECONDS = 600.0
"""How long beyond its deadline a message may live: a site's clock may be five minutes off."""
ARRIVING_SECONDS = 30.0
"""How long the rest of a reply may take whose beginning has arrived."""
SHORT = 1 << 20
"""Of an answer, what is not a reply's part."""
NEVER_THERE = f"{NOT_ONLINE}: it never was, or was revoked"
AWAY = frozenset({httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT})

Told = Callable[[str], None]


def silent(sentence: str) -> None:
    """Tell nobody."""


@contextmanager
def deployed(
    folder: CoordinatorFolder,
    sites: Sequence[str],
    run_config: Mapping[str, bool | float | int | str],
    *,
    wait_seconds: float = WAIT_SECONDS,
    told: Told = silent,
) -> Iterator[Grid]:
    """Start a run in Flower and give a grid to the nodes of `sites`; end the run, whatever happens.

    Parameters
    ----------
    folder : CoordinatorFolder
        Of the coordinator, which serves.
    sites : sequence of str
        Names of the sites that are asked; each must be admitted.
    run_config : mapping of str to scalar
        The study, the repeat, the run's id; which sites are there is added.
    wait_seconds : float
        How long to wait for them. A site that is not there by then is asked all the same, so that
        the record says that its node is not online; with fewer than two there is no run.
    told : callable
        Told who is waited for, and who is missing.

    Raises
    ------
    UsageError
        If a site is not admitted.
    FlfedError
        If the coordinator does not serve, too few sites are there, or the server goes away in the middle
        of the run.
    """
    keys = _keys(folder, sites)
    for damaged in admission.readable(folder)[1]:
        told(damaged)
    link = Link.of(folder)
    with _quiet(), Control(link) as control:
        names, missing = _present(control, keys, wait_seconds, told)
        # A site counts its cohort by these: one that is not there is none of it.
        there = ",".join(sorted(set(sites) - set(missing)))
        task = acquired(folder, link, control, {**run_config, "sites": there})
        try:
            with Heartbeat(task) as heartbeat:
                grid = DeployedGrid(task.runtime, names, heartbeat.check)
                try:
                    grid.set_run(task.begin())
                    yield grid
                except BaseException:
                    with suppress(FlfedError):  # the first error is what counts
                        task.end(SubStatus.FAILED, "the coordinator's process ended it early")
                    raise
                finally:
                    grid.close()
                task.end(SubStatus.COMPLETED, "")
        finally:
            task.close()
            _purge(folder, control, task.run, told)


def _keys(folder: CoordinatorFolder, sites: Sequence[str]) -> dict[bytes, str]:
    """Return the asked sites by the key that each was admitted with."""
    admitted = admission.admitted(folder)
    strangers = sorted(set(sites) - set(admitted))
    if strangers:
        known = ", ".join(admitted) or "none"
        raise UsageError(f"not admitted: {', '.join(strangers)}; admitted are: {known} (flfed coordinator status)")
    return {pem_of(admitted[site].public_key_openssh): site for site in sorted(set(sites))}


def _present(
    control: Control, keys: Mapping[bytes, str], seconds: float, told: Told
) -> tuple[dict[int, str], list[str]]:
    """Wait until the sites are online; return each node's site, and which sites are not there."""
    end, said = time.monotonic() + seconds, False
    while True:
        nodes = control.nodes()
        known = {key: nodes[key] for key in keys if key in nodes and nodes[key].status != "unregistered"}
        missing = [site for key, site in keys.items() if not _online(known.get(key))]
        if not missing or time.monotonic() >= end:
            break
        if not said:
            told(f"waiting for {', '.join(missing)} ({seconds:g} s at most)")
            said = True
        time.sleep(min(0.5, max(0.0, end - time.monotonic())))
    if len(keys) - len(missing) < min(LEAST_SITES, len(keys)):
        raise FlfedError(
            f"not online: {', '.join(missing)}; at least {LEAST_SITES} sites are needed. "
            "Each starts its node with: flfed site serve"
        )
    unknown = [site for key, site in keys.items() if key not in known]
    if unknown:
        raise FlfedError(f"not registered at the server yet: {', '.join(unknown)}; see: flfed coordinator status")
    if missing:
        told(f"without {', '.join(missing)}: not online")
    return {node.node_id: keys[key] for key, node in known.items()}, missing


def _online(node: Node | None) -> bool:
    return node is not None and node.status == "online"


class DeployedGrid(HttpGrid):
    """Flower's grid, with deadlines that are kept, and every fault told as an error reply of the site's node.

    Parameters
    ----------
    runtime : callable
        Returns a client that speaks for the run's task.
    names : mapping of int to str
        Each node's site, by the key it was admitted with. No other node is asked.
    check : callable
        Raises where the run was ended.
    clock : callable
        Seconds; tests pass their own.
    """

    def __init__(
        self,
        runtime: Callable[[], RuntimeHttpClient],
        names: Mapping[int, str],
        check: Callable[[], None],
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(token="held by the client")
        self._runtime, self._names, self._check, self._clock = runtime, dict(names), check, clock
        # Flower's own tries for ever, and interrupts its process when the run was ended.
        self._retry_invoker = patient()

    def _connect(self) -> None:
        """Connect by our own client: no redirect, no proxy."""
        self._client = self._runtime()
        self._client._client.event_hooks["response"] = [_not_too_long]
        self._client._retry_invoker = self._retry_invoker

    @property
    def nodes(self) -> dict[str, int]:
        """The node of each site that is asked."""
        return {site: node for node, site in sorted(self._names.items(), key=lambda item: item[1])}

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes of the sites that are asked, in the order of the sites' names."""
        return list(self.nodes.values())

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return the replies that came within `timeout` seconds; a fault is a reply with an error.

        A reply counts by the message that it answers: where Flower answers for a node that is gone,
        the error is made that node's own.
        """
        end = None if timeout is None else self._clock() + timeout
        sent = list(messages)
        waiting, replies = self._send(sent, timeout)
        while waiting:
            self._check()
            with said():
                for envelope, reply in self._arrived(list(waiting)):
                    asked = waiting.pop(envelope.metadata.reply_to_message_id, None)
                    if asked is not None:
                        replies.append(self._said_by_its_node(asked, reply))
            left = POLL_SECONDS if end is None else end - self._clock()
            if not waiting or left <= 0:
                break
            time.sleep(min(POLL_SECONDS, left))
        # Who it is that does not enrol is known here only.
        late = [message for message in waiting.values() if message.metadata.message_type == ENROL]
        return replies + [self._fault(message, "no reply before the deadline") for message in late]

    def _send(self, sent: list[Message], timeout: float | None) -> tuple[dict[str, Message], list[Message]]:
        """Send messages; return those that are on their way by their ids, and errors for the others."""
        self._check()
        for message in sent:
            if timeout is not None:
                message.metadata.ttl = timeout + LIFE_SECONDS
        with said():
            ids = list(self.push_messages([joined(message) for message in sent])) if sent else []
        waiting = {number: message for number, message in zip(ids, sent, strict=False) if number}
        lost = [message for message in sent if message.metadata.message_id not in waiting]
        return waiting, [self._fault(message, NEVER_THERE, ErrorCode.NODE_UNAVAILABLE) for message in lost]

    def _arrived(self, numbers: list[str]) -> Iterator[tuple[Message, Message | str]]:
        """Yield the envelope of each reply that is there, and the reply, or why it cannot be read."""
        given = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=numbers))
        for envelope, tree in zip(
            map(message_from_proto, given.messages_list), given.message_object_trees, strict=True
        ):
            envelope.__dict__["_content"] = RecordDict()
            try:
                contents = self._parts(envelope, parts_of(tree, envelope.metadata.message_id))
                yield envelope, opened(envelope, contents)
            except MalformedMessage as error:
                yield envelope, str(error)

    def _parts(self, envelope: Message, names: list[str]) -> dict[str, bytes]:
        """Return the bytes of a reply's parts, once the server has them; too many are not kept."""
        found, left, end = dict[str, bytes](), MOST_BYTES, self._clock() + ARRIVING_SECONDS
        run = envelope.metadata.run_id
        for name in names:
            request = PullObjectRequest(node=self.node, run_id=run, object_id=name)
            while not (part := self._runtime_client.PullObject(request)).object_available:
                if not part.object_found or self._clock() > end:
                    raise MalformedMessage(LOST)
                time.sleep(POLL_SECONDS)
            found[name], left = part.object_content, left - len(part.object_content)
            if left < 0:
                raise MalformedMessage(f"its reply is larger than {MOST_BYTES} bytes, which are read")
        number = envelope.metadata.message_id
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=run, message_object_id=number)
        )
        return found

    def _said_by_its_node(self, asked: Message, reply: Message | str) -> Message:
        """Return a reply, or an error in its place where it is not what the asked node may say."""
        if isinstance(reply, str):
            return self._fault(asked, reply)
        if reply.metadata.src_node_id != asked.metadata.dst_node_id:
            code = reply.error.code if reply.has_error() else ErrorCode.UNKNOWN
            gone = code == ErrorCode.NODE_UNAVAILABLE
            return self._fault(asked, NOT_ONLINE if gone else LOST, code)
        try:
            reply = apart(reply)
        except MalformedMessage as error:
            return self._fault(asked, str(error))
        if asked.metadata.message_type != ENROL:
            return reply
        if reply.has_error():
            # Who it is that does not enrol is known here only.
            site = self._names.get(asked.metadata.dst_node_id, "")
            return self._fault(asked, reason_of(reply, site), reply.error.code)
        wrong = self._wrong_name(asked, reply)
        return self._fault(asked, wrong) if wrong else reply

    def _wrong_name(self, asked: Message, reply: Message) -> str:
        """Return what is wrong with who a node says it is; one that cannot be read is for the reader to refuse."""
        try:
            site = EnrolReply.from_record(reply.content).site
        except MalformedMessage:
            return ""
        name = self._names[asked.metadata.dst_node_id]
        return "" if site == name else f"its node says it is site {site!r}, and was admitted as {name!r}"

    def _fault(self, asked: Message, reason: str, code: int = SITE_ERROR) -> Message:
        name = self._names.get(asked.metadata.dst_node_id, f"node {asked.metadata.dst_node_id}")
        return Message(Error(code=code, reason=f"{name}: {reason}"), reply_to=asked)


def _not_too_long(response: httpx.Response) -> None:
    """Refuse an answer before it is read that would fill the memory."""
    length = response.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BYTES + SHORT:
        raise MalformedMessage(f"its reply is larger than {MOST_BYTES} bytes, which are read")


def patient() -> RetryInvoker:
    """Return what asks a server again that is away for a while, and gives up on what it refuses."""

    def final(error: Exception) -> bool:
        if isinstance(error, httpx.HTTPStatusError):
            return error.response.status_code not in AWAY
        return "certificate" in str(error).lower()

    return RetryInvoker(
        lambda: exponential(base_delay=0.2, max_delay=5),
        (httpx.TransportError, httpx.HTTPStatusError),
        max_tries=None,
        max_time=PATIENCE_SECONDS,
        should_giveup=final,
    )


def _purge(folder: CoordinatorFolder, control: Control, run: int, told: Told) -> None:
    """Remove what the messages of this run said, and of every other that is over, from Flower's database.

    Where that fails the run has ended as it has: who serves tries again each minute, and says so.
    """
    over = {run}
    with suppress(FlfedError):  # the server is away: the others are removed when it is there again
        over |= control.over()
    try:
        remove_bodies(database(folder), over=over)
    except FlfedError as error:
        told(str(error))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Flower's log: what a person must know is said by us."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
