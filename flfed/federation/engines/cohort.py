"""In-process grid of sites that compute together.

What the cohort asks is answered at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Message

from flfed.callbacks import Clock
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import InProcessGrid
from flfed.rows.training.requests import ClientGenerator, Compute, ComputeRequest, listed, told


class CohortGrid(InProcessGrid):
    """Grid that computes for its sites together.

    Each message goes to its site, and the engine answers what all sites ask.

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
        run_config: Mapping[str, bool | float | int | str],
        answer: Compute,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(side.app(), sites, run_config, clock=clock)
        self._side, self._answer = side, answer

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return the replies in the order of the messages.

        Sites that took more than `timeout` seconds are left out.

        A site's time is that of its own code, and an even share of what is computed for all.
        """
        exchanges = [
            _Exchange(self._side.exchange(self.numbered(m), self.context_of(m)), self._clock) for m in messages
        ]
        for exchange in exchanges:
            exchange.start()
        # Sites that have replied ask nothing more, and the others go on together.
        while waiting := [exchange for exchange in exchanges if exchange.reply is None]:
            began = self._clock()
            # What a site asked and its result go as it answers: all of them and all replies are not alive together.
            results = deque(self._answer([request for exchange in waiting for request in listed(exchange.asked)]))
            share = (self._clock() - began) / len(waiting)
            for exchange in waiting:
                exchange.go_on([results.popleft() for _ in listed(exchange.asked)], share)
        found = [exchange.reply for exchange in exchanges if timeout is None or exchange.seconds <= timeout]
        return [reply for reply in found if reply is not None]


class _Exchange:
    """Exchange of one message.

    It has its generator, what that asks, its reply, and the seconds it took.
    """

    def __init__(self, handler: ClientGenerator, clock: Clock) -> None:
        self._handler, self._clock = handler, clock
        self.asked: ComputeRequest = []
        self.reply: Message | None = None
        self.seconds = 0.0

    def start(self) -> None:
        """Run the generator up to its first request."""
        self._timed(None)

    def go_on(self, results: Sequence[object], share: float) -> None:
        """Send the generator its results.

        `share` are the seconds that computing them took for this site.
        """
        self.seconds += share
        self._timed(results)

    def _timed(self, results: Sequence[object] | None) -> None:
        began = self._clock()
        try:
            self.asked = next(self._handler) if results is None else told(self._handler, self.asked, results)
        except StopIteration as end:
            self.reply, self.asked = end.value, []
        self.seconds += self._clock() - began
