"""Flower grid in this process.

It is that of the default engine, and calls the client app directly.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from flfed.callbacks import Clock


class InProcessGrid(Grid):
    """Grid that calls the client app directly.

    It sends each message and returns its reply, one site after the other.

    Parameters
    ----------
    app : ClientApp
    sites : sequence of str
        A node for each; ids follow the given order, nothing else does.
    run_config : mapping of str to scalar
        What every node's context carries: the study, the repeat.
    clock : callable
        Seconds; tests pass their own.
    """

    def __init__(
        self,
        app: ClientApp,
        sites: Sequence[str],
        run_config: Mapping[str, bool | float | int | str],
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._app, self._clock = app, clock
        self._numbers = count(1)
        self._contexts = {
            number: Context(
                run_id=1,
                node_id=number,
                node_config={"site": site},
                state=RecordDict({"state": ConfigRecord()}),
                run_config=dict(run_config),
            )
            for number, site in enumerate(sites, start=1)
        }
        # Flower builds messages only where these are set; a real SuperLink does it for its processes.
        TaskIdentity.run_id = 1
        TaskIdentity.task_id = 1
        TaskIdentity.node_id = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return the replies within `timeout` seconds each.

        Sites answer one after the other here; at institutions they work side by side, so each
        has the whole deadline to itself.
        """
        replies = []
        for message in messages:
            began = self._clock()
            reply = self._app(self.numbered(message), self.context_of(message))
            # A late reply is dropped, as a real grid would do.
            if timeout is None or self._clock() - began <= timeout:
                replies.append(reply)
        return replies

    def numbered(self, message: Message) -> Message:
        """Return the message with an id.

        Its reply names the id, and a SuperLink would have given it one.
        """
        message.metadata.__dict__["_message_id"] = str(next(self._numbers))
        return message

    def context_of(self, message: Message) -> Context:
        """Return the context of a message's node.

        It is the node that the message goes to.
        """
        return self._contexts[message.metadata.dst_node_id]

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def set_run(self, run: Run) -> None:
        """Refuse a run from outside.

        An in-process run is not in any SuperLink.
        """
        raise RuntimeError("an in-process grid has no SuperLink run")

    @property
    def run(self) -> Run:
        """Refuse to return a run.

        An in-process run is not in any SuperLink.
        """
        raise RuntimeError("an in-process grid has no SuperLink run")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse to send without a reply.

        Replies are there at once, so nothing is pushed and pulled apart.
        """
        raise RuntimeError("use send_and_receive: an in-process grid answers at once")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse to fetch replies.

        Replies are there at once, so nothing is pushed and pulled apart.
        """
        raise RuntimeError("use send_and_receive: an in-process grid answers at once")
