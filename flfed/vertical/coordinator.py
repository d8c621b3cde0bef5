"""The coordinator of parties with different columns: it passes sealed parcels from party to party, and reads none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from flfed.study.kinds import MOST_PARTIES
from flfed.updates.messages.vertical import (
    ALIGN,
    ANNOUNCE,
    EXCHANGES,
    LABEL_PARTY,
    PARTIAL,
    RESIDUALS,
    AlignReply,
    AlignRequest,
    PartialReply,
    PartialRequest,
    Party,
)  # fmt: skip
from flfed.words import usage_error

Ask = Callable[[str, Mapping[str, Any], type[Any]], Mapping[str, Any]]
"""Sends each site its request of a kind, and returns the replies of all of them."""


class Parcels:
    """Parcels on their way, and the requests that bring them.

    Parameters
    ----------
    ask : callable (kind, requests by site, type of reply) → replies by site
    sites : iterable of str
        All parties.
    """

    def __init__(self, ask: Ask, sites: Iterable[str]) -> None:
        self._ask = ask
        self._sites = list(sites)
        self._waiting: dict[str, dict[str, np.ndarray]] = {}
        self.parties = self._announced()
        self.label = next(party.site for party in self.parties if party.label)

    def _announced(self) -> tuple[Party, ...]:
        """Return all parties; raises UsageError unless just one has the outcome, and they are not too many."""
        requests = dict.fromkeys(self._sites, AlignRequest(exchange=ANNOUNCE))
        parties: list[Party] = []
        for site, reply in self._ask(ALIGN, requests, AlignReply).items():
            parties += [party for party in reply.parties if party.site == site]
        labels = [party.site for party in parties if party.label]
        if len(labels) != 1 or len(parties) != len(self._sites):
            raise usage_error("run.vertical.labels", labels=", ".join(labels) or "none")
        if len(parties) > MOST_PARTIES:
            raise usage_error("run.vertical.parties", parties=len(parties), most=MOST_PARTIES)
        return tuple(parties)

    def align(self) -> None:
        """Have the parties find their rows in common."""
        for exchange in range(ANNOUNCE + 1, EXCHANGES):
            self._pass(ALIGN, AlignReply, AlignRequest(exchange=exchange, parties=self.parties))

    def train(self, round: int, *, last: bool) -> None:
        """Conduct a round; in the last one, which trains nothing, the scores of the holdout cross."""
        for exchange in range(RESIDUALS + 1 if last else EXCHANGES):
            self.exchange(round, exchange)

    def exchange(self, round: int, exchange: int) -> None:
        """Conduct an exchange of a round."""
        self._pass(PARTIAL, PartialReply, PartialRequest(round=round, exchange=exchange))

    def _pass(self, kind: str, reply: type[Any], request: AlignRequest | PartialRequest) -> None:
        """Bring waiting parcels to the parties that answer an exchange, and take those of their replies."""
        is_label = request.exchange in LABEL_PARTY[kind]
        sites = [site for site in self._sites if (site == self.label) == is_label]
        requests = {site: replace(request, sealed=self._waiting.pop(site, {})) for site in sites}
        for sender, answer in self._ask(kind, requests, reply).items():
            for receiver, parcel in answer.sealed.items():
                self._waiting.setdefault(receiver, {})[sender] = parcel
