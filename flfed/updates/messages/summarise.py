"""Messages that ask a site for the sums over its training rows."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import RecordDict

from flfed.summaries.summary import Summary
from flfed.updates.messages import fields, kinds
from flfed.updates.messages.fields import PROTOCOL, PlainMessage
from flfed.updates.messages.in_memory import array_record, kebab_record, record_of

SUMMARISE = kinds.SUMMARISE


@dataclass(frozen=True, kw_only=True)
class SummariseRequest(PlainMessage):
    """Request for the sums over a site's training rows.

    Reveals: nothing about rows; it goes to the site.
    """

    @classmethod
    def from_record(cls, record: RecordDict) -> SummariseRequest:
        """Read the message's content, of which only the protocol counts."""
        fields.config_of(record)
        return cls()


@dataclass(frozen=True, kw_only=True, eq=False)
class SummariseReply:
    """Sums over a site's training rows, in the schema's layout.

    Reveals: the exact number of training rows. Under disclosure "open" also every count, sum and
    sum of squares of a column. Under "institution" only counts of groups of at least the site's
    cell minimum, none of which lets a smaller one be computed; that a value has all rows but fewer
    than the minimum; means and deviations that follow from these; whether missing goes with the
    outcome only where each cell of that table is large, in steps where a person has several rows; and
    one bit a column, whether it alone tells the outcome.
    """

    summary: Summary

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return record_of({"config": kebab_record(protocol=PROTOCOL), "summary": array_record(self.summary.arrays())})

    @classmethod
    def from_record(cls, record: RecordDict) -> SummariseReply:
        """Read the message's content."""
        fields.config_of(record)
        return cls(summary=fields.made(Summary, fields.ndarrays(record, "summary")))
