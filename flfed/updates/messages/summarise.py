"""Messages that ask a site for sums over its rows: a summary, rows by cell for trees, a statistic, noised scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from flwr.app import RecordDict

from flfed.summaries.summary import Encoder, Summary
from flfed.updates.arrays import Arrays
from flfed.updates.messages import fields, kinds
from flfed.updates.messages.in_memory import array_record, record_of
from flfed.updates.messages.secure_sum import Masked
from flfed.updates.messages.train import read_request, request_sections, small

SUMMARISE = kinds.SUMMARISE
BINS = kinds.BINS
STATISTIC = kinds.STATISTIC
SCORES = kinds.SCORES
POINT = "asked"
"""Section of a request with the numbers at which sums are requested."""
FIT = "fit"
"""Section of a reply with a fit to the site's rows alone."""


class _Empty:
    """Request that says nothing: the study has all."""

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return fields.message_record()

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """Read the message's content, of which only the protocol counts."""
        fields.config_of(record)
        return cls()


def _sums_record(name: str, arrays: Arrays, masked: Masked | None) -> RecordDict:
    """Return the content of a reply with a section of sums, or with what stands masked in its place."""
    records: dict[str, Any] = {}
    if masked is None:
        records[name] = array_record(arrays)
    else:
        masked.into(records)
    return fields.message_record(records)


def _read_sums(record: RecordDict, name: str) -> dict[str, Any]:
    """Return the arrays of `_sums_record` by the section's name, or what stands masked in their place."""
    fields.config_of(record)
    masked = Masked.out_of(record)
    return {name: fields.ndarrays(record, name)} if masked is None else {"masked": masked}


@dataclass(frozen=True, kw_only=True)
class SummariseRequest(_Empty):
    """Request for the sums over a site's training rows.

    Reveals: nothing about rows; it goes to the site.
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class SummariseReply:
    """Sums over a site's training rows, in the schema's layout.

    Attributes
    ----------
    summary : Summary or None
    masked : Masked or None
        In its place, under secure aggregation.

    Reveals: the exact number of training rows. Under disclosure "open", also every count, sum and sum of squares of a
    column. Under "institution", only counts of groups of at least the site's cell minimum, none of which lets a smaller
    one be computed. They may show that a value has all rows but fewer than the minimum. Means and deviations follow
    from these counts. Whether missing values go with the outcome is in the reply only where each cell of that table is
    large. Where a person has several rows, it is in steps. For each column one bit shows whether it alone gives the
    outcome away. Under secure aggregation, the sums are masked: see `Masked`.
    """

    summary: Summary | None = None
    masked: Masked | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        records: dict[str, Any] = {}
        if self.summary is not None:
            records["summary"] = array_record(self.summary.arrays())
        if self.masked is not None:
            self.masked.into(records)
        return fields.message_record(records)

    @classmethod
    def from_record(cls, record: RecordDict) -> SummariseReply:
        """Read the message's content."""
        fields.config_of(record)
        masked = Masked.out_of(record)
        if masked is not None and "summary" not in record:
            return cls(masked=masked)
        return cls(summary=fields.made(Summary, fields.ndarrays(record, "summary")), masked=masked)


@dataclass(frozen=True, kw_only=True, eq=False)
class BinsRequest:
    """Request for the rows that a site trains on, by cell of a column, from which trees' cut points are chosen.

    Attributes
    ----------
    total : Masked or None
        Of the sums over rows, under secure aggregation at institutions: sites make the encoder of it.

    Reveals: nothing about rows; it goes to the site.
    """

    total: Masked | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        records: dict[str, Any] = {}
        if self.total is not None:
            self.total.into(records, kinds.TOTAL)
        return fields.message_record(records)

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """Read the message's content."""
        fields.config_of(record)
        return cls(total=Masked.out_of(record, kinds.TOTAL))


@dataclass(frozen=True, kw_only=True, eq=False)
class BinsReply:
    """Rows of a site by cell of a column.

    Attributes
    ----------
    counts : dict of column to int array [cells, outcomes]
        The fine bins of a number, or the values of a flag or category, then the missing ones. All outcomes are one
        unless codes have a least number of rows.
    masked : Masked or None
        In their place, where the study has secure sums.

    Reveals: the exact number of rows in each of 1,024 bins of every number. It shows most values of a rare range to
    within a bin. Where codes have a least number of rows, the counts are by outcome, and of flags and categories too.
    The reply crosses once a run. Under secure aggregation the counts are masked: see `Masked`.
    """

    counts: Arrays = field(default_factory=dict)
    masked: Masked | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        counts = {name: small(values) for name, values in self.counts.items()}
        return _sums_record("counts", counts, self.masked)

    @classmethod
    def from_record(cls, record: RecordDict) -> BinsReply:
        """Read the message's content."""
        return cls(**_read_sums(record, "counts"))


@dataclass(frozen=True, kw_only=True, eq=False)
class StatisticRequest:
    """Request for the sums of the study's statistic, or for the noised counts that its encoder is made of.

    Attributes
    ----------
    round : int
        Number of the visit, from 0; -1 where a statistic has one.
    point : dict of name to array
        The numbers at which such a statistic's sums are requested, such as coefficients.
    total : Masked or None
        In place of the numbers, under secure aggregation at institutions: the total of the visit before, if there was
        one and no site refused it. The site makes the numbers itself.

    Reveals: nothing about rows of the site it goes to. The numbers follow from the sums of earlier visits.
    """

    round: int = -1
    point: Arrays = field(default_factory=dict)
    total: Masked | None = None

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        if self.round < 0:
            return fields.message_record()
        if not self.point:
            records: dict[str, Any] = {}
            if self.total is not None:
                self.total.into(records, kinds.TOTAL)
            return fields.message_record(records, round=self.round)
        return fields.message_record({POINT: array_record(self.point)}, round=self.round)

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """Read the message's content."""
        config = fields.config_of(record)
        if POINT not in record:
            plain = {name: value for name, value in config.items() if name == "round"}
            return fields.made(cls, {**plain, "total": Masked.out_of(record, kinds.TOTAL)})
        return fields.made(cls, {"round": config.get("round"), "point": fields.ndarrays(record, POINT)})


@dataclass(frozen=True, kw_only=True, eq=False)
class StatisticReply:
    """Sums over all rows of a site, held-out ones too: nothing is trained, and nothing judged.

    Attributes
    ----------
    sums : dict of name to array
        What the site adds up, by the names, shapes and types of the study's statistic.
    masked : Masked or None
        In their place, where the study has secure sums.
    fit : dict of name to array
        Coefficients and variances of a fit to this site's rows alone, with the first visit's sums; only of a site that
        is open and named, and of a statistic that has such fits.

    Reveals: the sums of the study's statistic, of this site alone and exact; the statistic states what they reveal. Of
    an analysis they have noise. A fit follows from the site's own sums over all visits. Where ε covers a study with a
    model, they are counts of training rows by cell of each column, with noise. The reply crosses once a run, or once a
    visit. Under secure aggregation the sums are masked, and what they reveal is of all sites together: see `Masked`.
    """

    sums: Arrays = field(default_factory=dict)
    masked: Masked | None = None
    fit: Arrays = field(default_factory=dict)

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        record = _sums_record("sums", self.sums, self.masked)
        if self.fit:
            record[FIT] = array_record(self.fit)
        return record

    @classmethod
    def from_record(cls, record: RecordDict) -> StatisticReply:
        """Read the message's content."""
        fit = fields.ndarrays(record, FIT) if FIT in record else {}
        return cls(**_read_sums(record, "sums"), fit=fit)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoresRequest:
    """Request for noised counts of holdout rows by the score that a model gives them.

    Attributes
    ----------
    arrays : dict of name to array
        The model's.
    encoder : Encoder
    centre : float
        Middle of the bins in log-odds: the base rate by the noised counts of all sites.

    Reveals: nothing about rows of the site it goes to. The centre follows from the noised counts of all sites.
    """

    arrays: Arrays
    encoder: Encoder
    centre: float

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return record_of(request_sections(self.arrays, self.encoder, centre=self.centre))

    @classmethod
    def from_record(cls, record: RecordDict) -> ScoresRequest:
        """Read the message's content."""
        return fields.made(cls, read_request(record))


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoresReply:
    """Noised counts of a site's holdout rows by score.

    Attributes
    ----------
    counts : float64 array [2, bins]
        By class and bin.

    Reveals: the counts, with the study's noise. Whether one person's rows are among them changes what can leave by no
    more than the study's ε and δ allow. The noise of one model's counts is drawn once.
    """

    counts: np.ndarray

    def to_record(self) -> RecordDict:
        """Return the message's content."""
        return fields.message_record({"scores": array_record({"counts": self.counts})})

    @classmethod
    def from_record(cls, record: RecordDict) -> ScoresReply:
        """Read the message's content."""
        fields.config_of(record)
        return fields.made(cls, fields.ndarrays(record, "scores"))
