"""Open questions of a run to its nodes.

A node that went away, or began anew, is asked again; who has not answered is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from flwr.app import Message

from flfed.callbacks import Clock, Notify
from flfed.deployment.flower.message_parts import MOST_BYTES
from flfed.errors import FlfedError
from flfed.refusals import Refusal
from flfed.updates.messages.fields import MalformedMessage

LOOK_SECONDS = 1.0
"""How often the server is asked which nodes are online, while a question waits."""
RESTART_SECONDS = 30.0
"""How long a node that went away is waited for where no more patience is asked for: a site's supervisor starts it
anew within seconds. One that is away for longer costs the rounds after it no time."""
MOST_SENT = 5
"""How often a question is sent, at most."""
QUIET_SECONDS = 5.0
"""For how long nothing is said of a question that waits: most are answered by then."""
REPEATED_SECONDS = 30.0
"""After how long it is said again who is waited for."""
NAMED = 5
"""Sites that a sentence names; the others are counted."""

ARRIVING_SECONDS, GONE_SECONDS = 150.0, 30.0
"""How long no part of a reply may come whose beginning has arrived: a little longer than the server lets one part
take (120 s); and where its node is not online."""

Online = Callable[[], Mapping[int, str]]
"""Returns the nodes that may connect, each with since when it is online; "" for one that is not."""


@dataclass(eq=False)
class Arriving:
    """A reply that has begun to arrive.

    Attributes
    ----------
    envelope : Message
        What the server says of it.
    missing : list of str
        Names of the parts that have not come.
    last : float, seconds
        When something of it came last.
    fault : Refusal, optional
        Why it cannot be read.
    contents : dict of part to bytes
    left : int, bytes
        How many may still come.
    """

    envelope: Message
    missing: list[str]
    last: float
    fault: Refusal | None = None
    contents: dict[str, bytes] = field(default_factory=dict)
    left: int = field(default_factory=lambda: MOST_BYTES)

    def take(self, name: str, content: bytes, now: float) -> None:
        """Keep a part.

        Raises
        ------
        MalformedMessage
            If they are too many bytes together.
        """
        self.missing.remove(name)
        # Counted over all parts: many small ones are as bad as a large one.
        self.contents[name], self.last, self.left = content, now, self.left - len(content)
        if self.left < 0:
            raise MalformedMessage(Refusal("reply-too-large", most=MOST_BYTES))


@dataclass(eq=False)
class Question:
    """A message to a node, until it is answered.

    Attributes
    ----------
    asked : Message
    since : str
        When its node had come online when it was sent; "" where it was not, or that is not known.
    lost : Refusal, optional
        Why it is to be sent again: its node went away with it, or its reply got lost.
    sent : int
        How often it was sent.
    arriving : Arriving, optional
        Its reply, of which not all is there.
    """

    asked: Message
    since: str
    lost: Refusal | None = None
    sent: int = 1
    arriving: Arriving | None = None

    @property
    def node(self) -> int:
        """The node that is asked."""
        return int(self.asked.metadata.dst_node_id)


class Presence:
    """Which nodes are there, as the server said last.

    Parameters
    ----------
    online : callable
        Asks the server. While that does not answer, what it said before holds.
    clock : callable
        Seconds.
    """

    def __init__(self, online: Online, clock: Clock) -> None:
        self._online = online
        self._clock = clock
        self._due = 0.0
        self._nodes: Mapping[int, str] = {}
        self._gone: dict[int, float] = {}
        self.look()
        # Who is not there from the beginning is not waited for.
        self._gone = {node: -RESTART_SECONDS for node, since in self._nodes.items() if not since}

    def look(self) -> bool:
        """Ask the server for the online nodes, where due.

        Tell whether it was asked.
        """
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + LOOK_SECONDS
        # A server that is away leaves the last known state, and the question is due again later.
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

    def is_cut_off(self, node: int) -> bool:
        """Tell whether a node may not connect.

        Nodes that are not known may not.
        """
        return node not in self._nodes

    def may_return(self, node: int) -> bool:
        """Tell whether an absent node may soon return.

        It may where it left so lately that it may just be starting anew.
        """
        now = self._clock()
        return now - self._gone.setdefault(node, now) < RESTART_SECONDS


@dataclass
class Told:
    """Reporter of questions that wait.

    It says who has answered, who has not, and when the questions are given up.

    Attributes
    ----------
    tell : callable
        Told a sentence, and "" once nobody is waited for.
    clock : callable
        Seconds.
    """

    tell: Notify
    clock: Clock
    _began: float = field(init=False)
    _due: float = field(init=False, default=0.0)
    _last: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Begin to wait."""
        self._began = self.clock()

    def waiting(self, missing: Mapping[str, str], answered: Collection[str], left: float | None) -> None:
        """Report the missing sites, where there is news.

        Parameters
        ----------
        missing : mapping of site to what is known of why
        answered : collection of site
        left : float or None, seconds
            Until it is given up; None for never.
        """
        now = self.clock()
        # Most questions are answered at once; a person hears only of those that are not.
        if now - self._began < QUIET_SECONDS or not missing:
            return
        who = waiting_sentence(missing, answered)
        # The same sentence is repeated seldom, and in the beginning the list changes too fast to be told.
        if (who == self._last or now - self._began < 2 * QUIET_SECONDS) and now < self._due:
            return
        self._last, self._due = who, now + REPEATED_SECONDS
        self.tell(f"{who}; {given_up(left)}")

    def over(self) -> None:
        """Say that nobody is waited for."""
        if self._last:
            self.tell("")


def waiting_sentence(missing: Mapping[str, str], answered: Collection[str]) -> str:
    """Return who is waited for, and who is not.

    Examples
    --------
    >>> waiting_sentence({"a": "", "b": "its node is not online"}, ["c"])
    'waiting for a, b (its node is not online); answered: c'
    """
    names = [f"{site} ({why})" if why else site for site, why in sorted(missing.items())]
    return f"waiting for {_some(names)}; answered: {_some(sorted(answered)) or 'nobody yet'}"


def given_up(left: float | None) -> str:
    """Return when waiting ends, in words.

    It is told by the clock on the wall and in seconds.
    """
    if left is None:
        return "it is not given up"
    return f"given up at {time.strftime('%H:%M:%S', time.localtime(time.time() + left))} (in {left:.0f} s)"


def _some(names: list[str]) -> str:
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])
