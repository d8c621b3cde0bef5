"""Grid to the nodes of institutions, and a run's open questions to them.

It works over the running SuperLink and keeps its deadlines. A node that went away, or restarted, gets its request
again; progress sentences name the sites without a reply.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from flwr.app import Error, Message, RecordDict

from flfed.callbacks import Clock, Notify, silent
from flfed.deployment.flower.control import translate_errors
from flfed.deployment.flower.message_parts import MOST_BYTES, SHORT, apart, joined, opened, parts_of
from flfed.deployment.flower.transport import is_away, retry
from flfed.errors import FlfedError
from flfed.federation.client.redaction import SITE_ERROR
from flfed.flower_names import NODE_UNAVAILABLE, UNKNOWN, HttpGrid, RuntimeHttpClient, ask, message_from_proto
from flfed.refusals import Refusal, recorded, refusal_of
from flfed.updates.messages.enrol import ENROL, EnrolReply
from flfed.updates.messages.fields import MalformedMessage, reason_of
from flfed.words import render

POLL_SECONDS = 0.1
"""How often the grid looks for replies; Flower's own grid does every 3 s."""
PATIENCE_SECONDS = 120.0
"""How long the server may be away in the middle of a run: its supervisor restarts it with back-off."""
LIFE_SECONDS = 600.0
"""How long beyond its deadline a message may live: a site's clock may be five minutes off."""
AT_ONCE = 4
"""Parts that a node sends at a time: the grid looks for as many beyond those that have arrived."""
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
"""Seconds before a request is tried again, at first and at most."""
LATE = Refusal("no-reply")
NEVER_THERE = Refusal("node-unknown")


@dataclass(frozen=True)
class NodeReplies:
    """Replies and faults of the nodes, each under its own node.

    Parameters
    ----------
    names : mapping of int to str
        Each node's site.
    """

    names: Mapping[int, str]

    def own(self, request: Message, reply: Message | Refusal) -> Message:
        """Return a reply of the node itself.

        Return an error in its place where another sender replied.
        """
        if isinstance(reply, Refusal):
            return self.fault(request, reply)
        # The server answers in the place of a node that is gone; such a reply counts as that node's fault.
        if reply.metadata.src_node_id != request.metadata.dst_node_id:
            code = reply.error.code if reply.has_error() else UNKNOWN
            lost = Refusal("node-offline") if code == NODE_UNAVAILABLE else Refusal("reply-lost")
            return self.fault(request, lost, code)
        try:
            reply = apart(reply)
        except MalformedMessage as error:
            return self.fault(request, refusal_of(error))
        if request.metadata.message_type != ENROL:
            return reply
        if reply.has_error():
            # Only the coordinator knows which site does not enrol.
            site = self.names.get(request.metadata.dst_node_id, "")
            return self.fault(request, reason_of(reply, site), reply.error.code)
        wrong = self._wrong_name(request, reply)
        return self.fault(request, wrong) if wrong else reply

    def lost(self, reply: Message) -> Refusal | None:
        """Return why a node's answer is lost.

        None where it is not: only these two errors are worth another request.
        """
        name = self.names.get(reply.metadata.src_node_id, "")
        cause = recorded(reply.error.reason or "", name).cause if reply.has_error() else None
        if cause is not None and cause.code in ("node-offline", "reply-lost"):
            return cause
        return None

    def fault(self, request: Message, reason: Refusal, code: int = SITE_ERROR) -> Message:
        """Return an error reply of the requested node."""
        name = self.names.get(request.metadata.dst_node_id, f"node {request.metadata.dst_node_id}")
        return Message(Error(code=code, reason=f"{name}: {reason}"), reply_to=request)

    def _wrong_name(self, request: Message, reply: Message) -> Refusal | None:
        """Return why an enrolment's site name is wrong.

        None where it is right. A message that cannot be read is for its reader to refuse.
        """
        try:
            site = EnrolReply.from_record(reply.content).site
        except MalformedMessage:
            return None
        name = self.names[request.metadata.dst_node_id]
        return None if site == name else Refusal("other-node", says=site, admitted=name)


class DeployedGrid(HttpGrid):
    """Flower's grid with strict deadlines.

    Every fault is an error reply of the site's node.

    Parameters
    ----------
    runtime : callable
        Returns a client that speaks for the run's task.
    names : mapping of int to str
        Each node's site, by the key it was admitted with. No other node gets a request.
    check : callable
        Raises where the run was ended.
    online : callable
        Returns the nodes that may connect, each with the time since which it is online.
    notify : callable
        Receives sentences about sites without a reply.
    heads : LedgerHeads, optional
        Where the sites' ledgers ended, for enrolments.
    """

    sites_keep_state = True
    """Sites have their state of the run on their own disks."""

    def __init__(
        self,
        runtime: Callable[[], RuntimeHttpClient],
        names: Mapping[int, str],
        check: Callable[[], None],
        *,
        online: Online = dict,
        notify: Notify = silent,
        heads: object = None,
    ) -> None:
        super().__init__(token="held by the client")
        self._runtime = runtime
        self._names = dict(names)
        self._check = check
        # Flower's own repeats for ever, and interrupts its process when the run was ended.
        make_patient(self._retry_invoker)
        self._replies = NodeReplies(self._names)
        self._presence = Presence(online)
        self._notify = notify
        self.heads = heads

    def _connect(self) -> None:
        """Connect by flfed's own client: no redirect, no proxy."""
        self._client = self._runtime()
        # The hook refuses a huge answer before a byte of its body is read.
        self._client._client.event_hooks["response"] = [_not_too_long]
        self._client._retry_invoker = self._retry_invoker

    @property
    def nodes(self) -> dict[str, int]:
        """The node of each requested site."""
        return {site: node for node, site in sorted(self._names.items(), key=lambda item: item[1])}

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes of the requested sites, in the order of the sites' names."""
        return list(self.nodes.values())

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return the replies within `timeout` seconds.

        A fault is a reply with an error.

        A reply counts by the request that it answers: where Flower replies in place of a lost node, the error becomes
        that node's own. A restarted node gets its request again.
        """
        return self._exchange(list(messages), timeout, wait=False)

    def send_and_wait(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return the replies, waiting for nodes that are away.

        It does as `send_and_receive`, and waits up to `timeout` seconds.
        """
        return self._exchange(list(messages), timeout, wait=True)

    def _exchange(self, sent: list[Message], timeout: float | None, *, wait: bool) -> list[Message]:
        # One deadline for all messages, also for those that are sent again.
        end = math.inf if timeout is None else time.monotonic() + timeout
        waiting, replies = self._send(sent, timeout)
        reporter = WaitReporter(self._notify)
        while waiting:
            # A run that was ended at the server is noticed here, within a tenth of a second.
            self._check()
            with translate_errors():
                replies += self._answers(waiting)
                replies += self._ask_again(waiting, wait=wait)
            left = end - time.monotonic()
            pause = min(POLL_SECONDS, left)
            if not waiting or pause <= 0:
                break
            missing = {self._names[q.node]: q.lost for q in waiting.values() if q.node in self._names}
            reporter.waiting(missing, set(self._names.values()) - missing.keys(), left)
            time.sleep(pause)
        reporter.over()
        # Without a reply are the sites whose node is away, and those whose enrolment would have named them.
        late = [one for one in waiting.values() if one.lost or one.request.metadata.message_type == ENROL]
        return replies + [self._replies.fault(one.request, one.lost or LATE) for one in late]

    def _send(self, sent: list[Message], timeout: float | None) -> tuple[dict[str, Question], list[Message]]:
        """Send messages and return their open questions.

        Questions are by message id; a message that could not be sent gives an error.
        """
        self._check()
        self._presence.look()
        for message in sent:
            if timeout is not None:
                message.metadata.ttl = timeout + LIFE_SECONDS
        with translate_errors():
            ids = list(self.push_messages([joined(message) for message in sent])) if sent else []
        waiting = {
            number: Question(message, self._presence.since(message.metadata.dst_node_id))
            for number, message in zip(ids, sent, strict=False)
            if number
        }
        # The server gives no id for a message to an unregistered node.
        lost = [message for message in sent if message.metadata.message_id not in waiting]
        return waiting, [self._replies.fault(message, NEVER_THERE, NODE_UNAVAILABLE) for message in lost]

    def _answers(self, waiting: dict[str, Question]) -> list[Message]:
        """Return the replies that have arrived, and close their questions.

        A question notes that its reply got lost, and stays open, so that it can be sent again.
        """
        self._begin(waiting)
        replies = []
        for number, question in list(waiting.items()):
            if question.arriving is None:
                continue
            reply = self._arrived(question.arriving)
            # Only a complete reply counts; the others are looked at again.
            if reply is None:
                continue
            question.arriving = None
            answer = self._replies.own(question.request, reply)
            question.lost = self._replies.lost(answer) if question.sent < MOST_SENT else None
            if not question.lost:
                del waiting[number]
                replies.append(answer)
        return replies

    def _ask_again(self, waiting: dict[str, Question], *, wait: bool) -> list[Message]:
        """Send again the questions of restarted nodes.

        Return errors of nodes that the run waits for no longer.
        """
        if not self._presence.look():
            return []
        errors = []
        for number, question in list(waiting.items()):
            since = self._presence.since(question.node)
            question.since = question.since or since  # unknown when it was sent: the server would report a loss
            fault = question.lost
            # Another time online means that the node restarted, and that its process has forgotten the question.
            if since and question.sent < MOST_SENT and (question.lost or since != question.since):
                del waiting[number]
                if self._send_again(waiting, question, since):
                    continue
                fault = NEVER_THERE
            # A revoked node can never come back; others may, within the patience of the caller.
            elif fault and not self._presence.may_return(question.node, wait=wait):
                del waiting[number]
            else:
                continue
            errors.append(self._replies.fault(question.request, fault, NODE_UNAVAILABLE))
        return errors

    def _send_again(self, waiting: dict[str, Question], question: Question, since: str) -> bool:
        """Send a question again to a node that is online.

        Return whether the server knows the node.
        """
        again = question.request
        again.metadata.created_at = time.time()
        (fresh,) = self.push_messages([joined(again)]) or ("",)
        if fresh:
            waiting[fresh] = Question(again, since, sent=question.sent + 1)
        return bool(fresh)

    def _begin(self, waiting: Mapping[str, Question]) -> None:
        """Take the beginning of each reply that has arrived.

        The server hands it out only once.
        """
        numbers = [number for number, question in waiting.items() if not (question.lost or question.arriving)]
        if not numbers:
            return
        response = ask(self._runtime_client.PullMessages, message_ids=numbers)
        envelopes = map(message_from_proto, response.messages_list)
        for envelope, tree in zip(envelopes, response.message_object_trees, strict=True):
            # The envelope has no content yet: parts come later and are counted first.
            envelope.__dict__["_content"] = RecordDict()
            question = waiting.get(envelope.metadata.reply_to_message_id)
            if question is not None:
                names = list[str]()
                fault: Refusal | None = None
                try:
                    names = parts_of(tree, envelope.metadata.message_id)
                except MalformedMessage as error:
                    fault = refusal_of(error)
                question.arriving = Arriving(envelope, names, time.monotonic(), fault)

    def _arrived(self, arriving: Arriving) -> Message | Refusal | None:
        """Return a reply that has fully arrived.

        Return why it cannot be read instead, or None where parts are still to come.
        """
        try:
            if arriving.fault:
                return arriving.fault
            self._take(arriving)
            if arriving.missing:
                there = self._presence.since(arriving.envelope.metadata.src_node_id)
                patience = ARRIVING_SECONDS if there else GONE_SECONDS
                return Refusal("reply-lost") if time.monotonic() - arriving.last > patience else None
            metadata = arriving.envelope.metadata
            # Confirmed only with all parts here: then the server may delete them.
            place = {"run_id": metadata.run_id, "message_object_id": metadata.message_id}
            ask(self._runtime_client.ConfirmMessageReceived, node=self.node, **place)
            return opened(arriving.envelope, arriving.contents)
        except MalformedMessage as error:
            return refusal_of(error)

    def _take(self, arriving: Arriving) -> None:
        """Take the available parts of a reply.

        Parts beyond the allowed bytes are refused.
        """
        awaited = 0
        run_id = arriving.envelope.metadata.run_id
        for name in list(arriving.missing):
            part = ask(self._runtime_client.PullObject, node=self.node, run_id=run_id, object_id=name)
            if not part.object_found:
                raise MalformedMessage(Refusal("reply-lost"))
            if part.object_available:
                arriving.take(name, part.object_content, time.monotonic())
            # A node sends few parts at a time: a look at all the others would only cost requests.
            elif (awaited := awaited + 1) == AT_ONCE:
                return


def _not_too_long(response: httpx.Response) -> None:
    """Refuse an answer too large for the memory before it is read."""
    length = response.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BYTES + SHORT:
        raise MalformedMessage(Refusal("reply-too-large", most=MOST_BYTES))


def make_patient(invoker: Any) -> None:
    """Have one of Flower's retry policies be patient, within bounds.

    Requests to a server that is away are repeated for a while; a refusal is final.
    """

    def final(error: Exception) -> bool:
        if isinstance(error, httpx.HTTPStatusError):
            return not is_away(error.response.status_code)
        # A repeated request does not make a wrong certificate right.
        return "certificate" in str(error).lower()

    retry(invoker, FIRST_PAUSE, LONGEST_PAUSE, final)
    invoker.max_time = PATIENCE_SECONDS


LOOK_SECONDS = 1.0
"""How often the server is asked for the online nodes, while a question is open."""
RESTART_SECONDS = 30.0
"""How long to wait for a node that went away, unless the caller asks for more. A site's supervisor restarts it within
seconds. A node that is away for longer costs the later rounds no time."""
MOST_SENT = 5
"""How often a question is sent, at most."""
QUIET_SECONDS = 5.0
"""How long an open question is not reported: most are answered by then."""
REPEATED_SECONDS = 30.0
"""After how long the missing sites are reported again."""
NAMED = 5
"""Sites that a sentence names; the others are counted."""

ARRIVING_SECONDS = 150.0
GONE_SECONDS = 30.0
"""How long a reply whose beginning has arrived may pause between parts: a little longer than the server allows for one
part (120 s); and where its node is not online."""

Online = Callable[[], Mapping[int, str]]
"""Returns the nodes that may connect, each with the time since which it is online; "" for one that is not."""


@dataclass(eq=False)
class Arriving:
    """A reply that has begun to arrive.

    Attributes
    ----------
    envelope : Message
        As the server sends it.
    missing : list of str
        Names of the parts that have not arrived.
    last : float, seconds
        When its last part came.
    fault : Refusal or None
        Why it cannot be read.
    contents : dict of part to bytes
    left : int, bytes
        How many may still arrive.
    """

    envelope: Message
    missing: list[str]
    last: float
    fault: Refusal | None
    contents: dict[str, bytes] = field(default_factory=dict)
    left: int = field(default_factory=lambda: MOST_BYTES)

    def take(self, name: str, content: bytes, now: float) -> None:
        """Store a part.

        Raises
        ------
        MalformedMessage
            If they are too many bytes together.
        """
        self.missing.remove(name)
        # Counted over all parts: many small ones are as bad as a large one.
        self.contents[name] = content
        self.last = now
        self.left -= len(content)
        if self.left < 0:
            raise MalformedMessage(Refusal("reply-too-large", most=MOST_BYTES))


@dataclass(eq=False)
class Question:
    """A message to a node, until it is answered.

    Attributes
    ----------
    request : Message
    since : str
        Since when its node was online when it was sent; "" where it was not, or the time is unknown.
    lost : Refusal, optional
        Why it must be sent again: its node went away with it, or its reply got lost.
    sent : int
        How often it was sent.
    arriving : Arriving, optional
        Its reply, while it is incomplete.
    """

    request: Message
    since: str
    lost: Refusal | None = None
    sent: int = 1
    arriving: Arriving | None = None

    @property
    def node(self) -> int:
        """The node that it is for."""
        return int(self.request.metadata.dst_node_id)


class Presence:
    """Which nodes are online, by the last answer of the server.

    Parameters
    ----------
    online : callable
        Asks the server. While the server does not answer, its last answer counts.
    clock : callable
        Seconds.
    """

    def __init__(self, online: Online, clock: Clock = time.monotonic) -> None:
        self._online = online
        self._clock = clock
        self._due = 0.0
        self._nodes: Mapping[int, str] = {}
        self._gone: dict[int, float] = {}
        self.look()
        # The grid does not wait for a node that is absent from the beginning.
        self._gone = {node: -RESTART_SECONDS for node, since in self._nodes.items() if not since}

    def look(self) -> bool:
        """Ask the server for the online nodes, where due.

        Return whether it was asked.
        """
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + LOOK_SECONDS
        # While the server is away its last answer counts, and the look is due again later.
        with suppress(FlfedError):
            self._nodes = self._online()
            for node in [node for node in self._gone if self._nodes.get(node)]:
                del self._gone[node]
        return True

    def since(self, node: int) -> str:
        """Return when a node came online.

        "" where it is not online.
        """
        return self._nodes.get(node, "")

    def may_return(self, node: int, *, wait: bool = False) -> bool:
        """Return whether an absent node may return.

        Soon, or ever where a question is to `wait`. It may soon where it left so lately that it may be restarting. One
        that may not connect never does.
        """
        now = self._clock()
        return node in self._nodes and (wait or now - self._gone.setdefault(node, now) < RESTART_SECONDS)


@dataclass
class WaitReporter:
    """Reporter of open questions.

    It names the sites that have replied, the others, and the time when the questions are given up.

    Attributes
    ----------
    notify : callable
        Receives a sentence, and "" once no reply is missing.
    clock : callable
        Seconds.
    """

    notify: Notify
    clock: Clock = time.monotonic
    _began: float = field(init=False)
    _due: float = field(init=False, default=0.0)
    _last: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Begin to wait."""
        self._began = self.clock()

    def waiting(self, missing: Mapping[str, str | None], answered: Collection[str], left: float) -> None:
        """Report the missing sites, where there is news.

        Parameters
        ----------
        missing : mapping of site to reason, empty where unknown
        answered : collection of site
        left : float or None, seconds
            Until the questions are given up; None for never.
        """
        now = self.clock()
        # Most questions are answered at once; a person reads only of the others.
        if now - self._began < QUIET_SECONDS or not missing:
            return
        who = waiting_sentence(missing, answered)
        # The same sentence is repeated seldom, and at first the list changes too fast to be read.
        if (who == self._last or now - self._began < 2 * QUIET_SECONDS) and now < self._due:
            return
        self._last = who
        self._due = now + REPEATED_SECONDS
        self.notify(f"{who} {describe_deadline(left)}")

    def over(self) -> None:
        """Report that no reply is missing."""
        if self._last:
            self.notify("")


def waiting_sentence(missing: Mapping[str, str | None], answered: Collection[str]) -> str:
    """Return which sites have replied, and which have not.

    Examples
    --------
    >>> waiting_sentence({"a": "", "b": "its node is not online"}, ["c"])
    'Waiting for an answer from a, b (its node is not online). Answered so far: c.'
    """
    names = []
    for site, why in sorted(missing.items()):
        name = f"{site} ({why})" if why else site
        names.append(name)
    there = _some(sorted(answered)) or render("run.progress.nobody")
    return render("run.progress.replies", missing=_some(names), answered=there)


def describe_deadline(left: float) -> str:
    """Return when waiting ends, by the clock on the wall and in seconds."""
    if left == math.inf:
        return render("run.progress.endless")
    clock = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
    return render("run.progress.deadline", clock=clock, left=left)


def _some(names: list[str]) -> str:
    if len(names) > NAMED:
        names = [*names[:NAMED], f"{len(names) - NAMED} more"]
    return ", ".join(names)
