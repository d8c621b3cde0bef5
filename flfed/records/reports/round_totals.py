"""Totals of the rounds, added up by the database: participants, rejected updates, and bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import distinct, func, literal, select

from flfed.records.objects import read, read_some
from flfed.records.statistics import Report
from flfed.records.statistics.intervals import NORMAL_95, SHARES
from flfed.records.store.entries import CurvePoint
from flfed.records.store.reader import Query, RunReader
from flfed.records.store.tables import Event, Sent
from flfed.records.text import size_in_words

TRAINING = ("train", "query.partial")
"""Kinds of the messages of a round of training, the second of parties with different columns."""
ON_ROWS = {
    "training": "measured on the rows the model was trained on, so they look better than they are",
    "validation": "measured on validation rows that were kept out of training",
}


@dataclass(frozen=True)
class Share:
    """Rounds, over all repeats, with a request to a site to train, with its reply, and with a rejected reply."""

    site: str
    asked: int
    answered: int
    rejected: int


def nested_width(rounds: int, most: int) -> int:
    """Return the number of rounds in a block, for at most `most` blocks.

    It is a power of two: while a run goes on blocks do not change, or two become one.

    Examples
    --------
    >>> nested_width(200, 200), nested_width(201, 200), nested_width(500, 200)
    (1, 2, 4)
    """
    return 1 << max(0, -(-rounds // most) - 1).bit_length()


def _trained(runs: Sequence[str], *places: Any) -> Query:
    """Return the query for the messages of training in each run, place and direction."""
    totals = (
        func.sum(Sent.bytes).label("bytes"),
        func.count().label("messages"),
        func.count(distinct(Sent.round)).label("rounds"),
    )
    place = (Sent.run_id, *places, Sent.direction)
    return select(*place, *totals).where(Sent.run_id.in_(runs), Sent.kind.in_(TRAINING)).group_by(*place)


def participation(reader: RunReader, runs: Sequence[str]) -> list[Share]:
    """Return each site's share in the rounds of training.

    A message to a site is a request, and one from it a reply. An update that the guard refused is a rejected reply;
    a missing reply is not.
    """
    # The join drops faults of rounds in which no answer came back.
    here = (Sent.run_id == Event.run_id) & (Sent.site == Event.site) & (Sent.round == Event.round)
    rejected = (
        select(Event.site, literal("rejected").label("direction"), func.count(distinct(Sent.round)).label("rounds"))
        .join(Sent, here)
        .where(Event.run_id.in_(runs), Event.kind == "fault")
        .where(Sent.kind.in_(TRAINING), Sent.direction == "to-server")
        .group_by(Event.run_id, Event.site)
    )
    # The database counts by run, so that repeats are added up here.
    counters: dict[str, Counter[str]] = {}
    for row in [*reader.fetch(_trained(runs, Sent.site)), *reader.fetch(rejected)]:
        counters.setdefault(row.site, Counter())[row.direction] += int(row.rounds)
    return [
        Share(site, *(counts[way] for way in ("to-site", "to-server", "rejected")))
        for site, counts in sorted(counters.items())
    ]


def round_bytes(reader: RunReader, runs: Sequence[str]) -> Report | None:
    """Return the bytes of a round of training in each direction, None without a message of training.

    Over all repeats together: `round` is the mean of a round, all sites together, and `message` that of one site.
    A study with a codec has `codec` besides, and the figures of updates `uncompressed`.
    """
    payloads = {run: reader.summary(run, "codec") for run in runs}
    codecs = {run: read(Codec, payload) for run, payload in payloads.items() if payload is not None}
    totals: dict[str, _Crossed] = {}
    for row in reader.fetch(_trained(runs)):
        total = totals.setdefault(row.direction, _Crossed())
        total.bytes += int(row.bytes)
        total.messages += row.messages
        total.rounds += row.rounds
        if codec := codecs.get(row.run_id):
            total.saved += row.messages * codec.saved if row.direction == "to-server" else 0
    if not totals:
        return None
    first = next(iter(codecs.values()), None)
    entry: Report = {way: totals[way].means() for way in sorted(totals)}
    if first is not None:
        entry["codec"] = first.name
    return entry


@dataclass(frozen=True)
class Codec:
    """Object "codec" of a run: the codec of updates, and the bytes that it saves of one."""

    name: str = ""
    saved: int = 0


@dataclass
class _Crossed:
    """Traffic in one direction, over all repeats, and the bytes that the codec saved."""

    bytes: int = 0
    messages: int = 0
    rounds: int = 0
    saved: int = 0

    def means(self) -> Report:
        """Return the bytes of a round and of a message, also without the codec where it saved some."""
        sizes: Report = {"round": self.bytes / self.rounds, "message": self.bytes / self.messages}
        if self.saved:
            whole = self.bytes + self.saved
            sizes["uncompressed"] = {"round": whole / self.rounds, "message": whole / self.messages}
        return sizes


@dataclass(frozen=True)
class MeanBytes:
    """Mean bytes of a round of training in one direction, all sites together, and of one site's message."""

    round: float = 0.0
    message: float = 0.0
    uncompressed: Any = None


def bytes_in_words(traffic: Report | None) -> str:
    """Return the bytes of a round, also without the codec; "" where not known.

    Examples
    --------
    >>> plain = {"to-site": {"round": 40_000, "message": 10_000}, "to-server": {"round": 8_000, "message": 2_000}}
    >>> bytes_in_words(plain)
    'Each round about 10.0 kB went to each site and 2.00 kB came back.'
    >>> bytes_in_words(plain | {"to-server": plain["to-server"] | {"uncompressed": {"message": 8_000}}})
    'Each round about 10.0 kB went to each site and 2.00 kB came back (uncompressed: 8.00 kB).'
    """
    ways = [(traffic or {}).get(way) for way in ("to-site", "to-server")]
    means = read_some(MeanBytes, ways)
    # Before the first replies only one direction is known.
    if len(means) < len(ways):
        return ""
    to_site, back = (size_in_words(round(of.message)) for of in means)
    unpacked = read_some(MeanBytes, [of.uncompressed for of in means])
    whole = f" (uncompressed: {size_in_words(round(unpacked[0].message))})" if unpacked else ""
    return f"Each round about {to_site} went to each site and {back} came back{whole}."


def band_of(point: CurvePoint, metric: str) -> tuple[float | None, float | None]:
    """Return a figure's 95 % interval: the recorded one, else `value ± 1.96 sqrt(variance)`.

    It is cut to [0, 1] for a metric that lies there. Under repeats both ends are means over the repeats: the interval
    is that of one repeat, not of the mean.

    Examples
    --------
    >>> low, high = band_of(CurvePoint(1, "a", "training", 0.9, None, None, 0.0025), "roc_auc_score")
    >>> round(low, 3), round(high, 3)
    (0.802, 0.998)
    """
    if point.value is None or point.low is not None or point.variance is None or not point.variance >= 0:
        return point.low, point.high
    reach = NORMAL_95 * math.sqrt(point.variance)
    low = point.value - reach
    high = point.value + reach
    if metric.endswith(SHARES):
        return max(low, 0.0), min(high, 1.0)
    return low, high
