"""In-process engine and its Flower grids.

All tables are in this process. One grid calls the client app directly, site by site. In the other, the sites of a
cohort compute together, and their requests are answered at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from flfed.callbacks import Clock, Progress, no_progress
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.engine import Engine, RunConfig, RunResources, RunSites, StartedGrid
from flfed.federation.engines.pooled_reference import PooledReference
from flfed.flower_names import TaskIdentity
from flfed.rows.data.site import Site
from flfed.rows.training.answer import ModelsAhead, compute_one_by_one
from flfed.rows.training.requests import ClientGenerator, Compute, ComputeRequest, listed, send_results
from flfed.updates.arrays import Arrays
from flfed.updates.checkpoints.site_state import PART, NodeState
from flfed.updates.messages.compare import COMPARE


def new_message(
    _: Grid, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
) -> Message:
    """Return a message to a node, as each grid makes it."""
    return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)


class InProcessGrid(Grid):
    """Grid that calls the client app directly.

    It sends each message and returns its reply, one site after the other.

    Parameters
    ----------
    app : ClientApp
    sites : sequence of str
        A node for each; ids follow the given order, nothing else does.
    run_config : mapping of str to scalar
        Content of every node's context: the study, the repeat.
    clock : callable
        Seconds; tests pass their own.

    Attributes
    ----------
    progress : callable (stage, done, of)
        Of the comparison, site by site.
    """

    progress: Progress = staticmethod(no_progress)

    def __init__(
        self, app: ClientApp, sites: Sequence[str], run_config: RunConfig, *, clock: Clock = time.monotonic
    ) -> None:
        self._app = app
        self._clock = clock
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
        sent = list(messages)
        for number, message in enumerate(sent):
            if message.metadata.message_type == COMPARE:
                self.progress("compare", number, len(sent))
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

    def site_states(self, round: int) -> dict[str, Arrays]:
        """Return each site's own arrays after a round, for a checkpoint."""
        return {site: arrays for site, state in self._states() if (arrays := state.before(round + 1))}

    def site_parts(self) -> dict[str, Arrays]:
        """Return each site's part of a model whose columns stand at several sites."""
        return {site: arrays for site, state in self._states() if (arrays := state.read(PART)) is not None}

    def restore_states(self, round: int, states: Mapping[str, Arrays]) -> None:
        """Restore each site's own arrays of a round."""
        for site, state in self._states():
            if arrays := states.get(site):
                state.keep(round, arrays)

    def _states(self) -> Iterator[tuple[str, NodeState]]:
        for context in self._contexts.values():
            yield str(context.node_config["site"]), NodeState(context.state)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        """Refuse what a SuperLink's grid does: there is no run of one here, and replies come at once."""
        raise RuntimeError("use send_and_receive: an in-process grid answers at once, and has no SuperLink run")

    create_message = new_message
    set_run = push_messages = pull_messages = _refuse
    run = property(_refuse)


class CohortGrid(InProcessGrid):
    """Grid that computes for its sites together.

    Each message goes to its site, and the engine answers the requests of all sites.

    Parameters
    ----------
    side : SiteClient
    sites : sequence of str
    run_config : mapping of str to scalar
    answer : callable
        Answers the requests of many sites.
    clock : callable
        Seconds; tests pass their own.
    """

    def __init__(
        self,
        side: SiteClient,
        sites: Sequence[str],
        run_config: RunConfig,
        answer: Compute,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(side.app(), sites, run_config, clock=clock)
        self._side = side
        self._answer = answer

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return the replies in the order of the messages.

        Sites that took more than `timeout` seconds are left out.

        A site's time is that of its own code, and an even share of the common computations.
        """
        exchanges = [
            _Exchange(self._side.exchange(self.numbered(m), self.context_of(m)), self._clock) for m in messages
        ]
        for exchange in exchanges:
            exchange.go_on()
        # Sites that have replied have no more requests, and the others continue together.
        while waiting := [exchange for exchange in exchanges if exchange.reply is None]:
            began = self._clock()
            # A site's requests and results are freed as it answers: not all of them and all replies exist at once.
            results = deque(self._answer([request for exchange in waiting for request in listed(exchange.request)]))
            share = (self._clock() - began) / len(waiting)
            for exchange in waiting:
                exchange.go_on([results.popleft() for _ in listed(exchange.request)], share)
        replies = [exchange.reply for exchange in exchanges if timeout is None or exchange.seconds <= timeout]
        return [reply for reply in replies if reply is not None]


class _Exchange:
    """Exchange of one message.

    It has its generator, its open requests, its reply, and its seconds.
    """

    def __init__(self, handler: ClientGenerator, clock: Clock) -> None:
        self._handler = handler
        self._clock = clock
        self.request: ComputeRequest = []
        self.reply: Message | None = None
        self.seconds = 0.0

    def go_on(self, results: Sequence[object] | None = None, share: float = 0.0) -> None:
        """Continue with the results of the requests, or begin.

        `share` is the time of computing them.
        """
        self.seconds += share
        began = self._clock()
        is_list = isinstance(self.request, list)
        self.request = []
        try:
            if results is None:
                self.request = next(self._handler)
            else:
                self.request = send_results(self._handler, results, is_list=is_list)
        except StopIteration as end:
            self.reply = end.value
            self.request = []
        self.seconds += self._clock() - began


class InProcess(Engine):
    """Engine with all sites in this process.

    So it has every table.
    """

    name = audited_by = "inprocess"
    stacks = True
    keeps_replies = False

    @contextmanager
    def started(self, sites: RunSites, run_config: RunConfig, resources: RunResources) -> Iterator[StartedGrid]:
        """Yield the grid and the tables.

        See `Engine.started`.
        """
        by_name = {site.name: site for site in sites if isinstance(site, Site)}
        ahead = ModelsAhead(resources.answer or compute_one_by_one, resources.jobs, resources.progress)
        side = SiteClient(lambda name, _: by_name[name], source=lambda study: resources.source, compute=ahead)
        answer = None if resources.answer is None else ahead
        key = (str(run_config["study"]), int(run_config["repeat"]))
        with closing(ahead):
            grid = grid_of(side, list(by_name), run_config, answer, resources.clock)
            grid.progress = resources.progress
            yield grid, PooledReference(side, key, ahead)


def grid_of(
    side: SiteClient, sites: Sequence[str], run_config: RunConfig, answer: Compute | None, clock: Clock = time.monotonic
) -> InProcessGrid:
    """Return the in-process grid.

    Its sites compute together by `answer`, or one by one without.
    """
    if answer is None:
        return InProcessGrid(side.app(), sites, run_config, clock=clock)
    return CohortGrid(side, sites, run_config, answer, clock=clock)
