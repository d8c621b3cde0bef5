"""Messages between parties with different columns of the same people.

The coordinator passes them on: what a party sends another one is sealed to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from flwr.app import RecordDict

from flfed.refusals import Refusal
from flfed.updates.messages import fields, kinds
from flfed.updates.messages.fields import MalformedMessage, SiteName
from flfed.updates.messages.in_memory import array_record

ALIGN = kinds.ALIGN
PARTIAL = kinds.PARTIAL
SEALED = "sealed"
PARTIES = "parties"
RUN = "run"
"""Array of a request to compare: the hash of the run's name, by which runs with different models differ."""
ANNOUNCE, BLIND, ANSWER, MATCH = range(4)
"""Exchanges of an alignment."""
SCORE, RESIDUALS, PRODUCTS, SUMS = range(4)
"""Exchanges of a round."""
LABEL_PARTY = {ALIGN: (BLIND, MATCH), PARTIAL: (RESIDUALS, SUMS)}
"""Exchanges, by kind, that the party with the outcome answers."""
COLUMN_PARTY = {ALIGN: (ANSWER,), PARTIAL: (SCORE, PRODUCTS)}
"""Those that each other party answers; all announce themselves."""
EXCHANGES = 4
"""Of an alignment and of a round."""


@dataclass(frozen=True, kw_only=True)
class Party:
    """A party of a run.

    Attributes
    ----------
    site : str
        Its name.
    label : bool
        Whether it has the outcome.
    columns : int
        Inputs of its part of the model.
    identifiers : int
        People in its table.
    key : bytes
        X25519 key of the run: at an institution the statement that its gate signed, else the 32 bytes.

    Reveals: how many people the party's table has.
    """

    site: SiteName
    label: bool
    columns: int
    identifiers: int
    key: bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sealed:
    """Sealed parcels: by sender in a request, by receiver in a reply.

    Attributes
    ----------
    sealed : mapping of site to uint8 array [bytes]
        Parcels.
    """

    sealed: Mapping[str, np.ndarray] = field(default_factory=dict)

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        values = fields.fields_of(self)
        records = fields.rows_records(self, PARTIES) if PARTIES in values else {}
        if self.sealed:
            records[SEALED] = array_record(self.sealed)
        plain = {name: values[name] for name in ("round", "exchange") if name in values}
        return fields.message_record(records, **plain)

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """Read the message's content."""
        sealed = fields.arrays_if_there(record, SEALED)
        if any(parcel.dtype != np.uint8 or parcel.ndim != 1 for parcel in sealed.values()):
            raise MalformedMessage(Refusal("masked-unfit", section=SEALED, fields="bytes"))
        values: dict[str, Any] = {**fields.config_of(record), SEALED: sealed}
        if PARTIES in cls.__dataclass_fields__:
            values[PARTIES] = fields.read_rows(record, PARTIES, Party)
        return fields.made(cls, values)


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignRequest(_Sealed):
    """One exchange of the alignment of rows.

    Attributes
    ----------
    exchange : int
        Of the alignment, from 0.
    parties : tuple of Party
        From the second exchange on.
    sealed : mapping of sending site to uint8 array [bytes]
        Parcels that the other parties sealed to this one.

    Reveals: to the coordinator nothing about rows but how many there are in each table, and in common. The label party
    learns which of its people each party has, and each party which of its people are in the rows in common.
    """

    exchange: int
    parties: tuple[Party, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignReply(_Sealed):
    """A party's half of an exchange of the alignment.

    Attributes
    ----------
    parties : tuple of Party
        The party itself, in the first exchange.
    sealed : mapping of receiving site to uint8 array [bytes]
        Parcels to other parties.

    Reveals: how many people the party's table has, whether it has the outcome, and by the length of a list how many
    rows are in common. The lists of points are sealed to the other party. It can compute with them, and learns which of
    them are of people whom it has itself. Column parties learn which of these are test rows.
    """

    parties: tuple[Party, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class PartialRequest(_Sealed):
    """One exchange of a round of training.

    Attributes
    ----------
    round : int, >= 1
        That after the last one brings the scores of the holdout.
    exchange : int
        Of the round, from 0.
    sealed : mapping of sending site to uint8 array [bytes]
        Parcels that the other parties sealed to this one.

    Reveals: to the coordinator nothing about rows.
    """

    round: int
    exchange: int


@dataclass(frozen=True, kw_only=True, eq=False)
class PartialReply(_Sealed):
    """A party's half of an exchange of a round.

    Attributes
    ----------
    sealed : mapping of receiving site to uint8 array [bytes]
        Parcels to other parties.

    Reveals: to the coordinator nothing about rows but how many are in common. A column party sends the label party its
    partial scores of all rows in common, in quarters. From them a label party that knows some people can learn about
    the columns of others. The label party sends each column party the sums of its columns times the residuals, which
    depend on the outcomes: with noise where the study has label privacy, else exact. `docs/vertical.md` says what exact
    sums show.
    """
