"""Delivery of a run's encoder: whole once, then as its hash."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.app import Message

from flfed.refusals import Refusal
from flfed.summaries.summary import Encoder
from flfed.updates.messages.fields import reason_of
from flfed.updates.messages.train import LOST


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
        """Take note of a site's reply; returns whether the site lacks the encoder.

        Such a site is asked again, and gets it whole.
        """
        if reply.has_error():
            return self.lost(site, reason_of(reply, site))
        self.holders.add(site)
        return False

    def lost(self, site: str, reason: Refusal) -> bool:
        """Take note of a site's error; returns whether it says that it lacks the encoder, or trees."""
        if site not in self.holders or reason.cause not in LOST:
            return False
        self.holders.discard(site)
        return True
