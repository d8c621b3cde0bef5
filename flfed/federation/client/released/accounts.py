"""Privacy accounts of datasets of the same rows.

An account is the sum of a ledger's lines, and has the noise that was drawn. A ledger's lines of kinds `spent` and
`released` name, beside the dataset, the rows: `rows` is the keyed hash of the table's content, `sources` are those of
its places. Datasets that have one of these in common, now or ever, are on one account, whatever their names. So are
those that share one with a third.

An account adds up by side of the holdout. A run draws its noise once: that of a round once, and that of an answer for
one request.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flfed.errors import FlfedError
from flfed.files import read_private, write_whole
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, LedgerError, ledger_of
from flfed.records.ledger_line import Line, Run, run_of
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.origin import Origin, SourceRows, is_plain, rows_here
from flfed.rows.data.site import Site
from flfed.rows.snapshots.differencing import keyed
from flfed.rows.snapshots.snapshot import Frozen, FrozenSite, read_facts
from flfed.summaries.noised_scores import SCORES
from flfed.updates.accounting import Release, composed, epsilon
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import pandas as pd

KEY_BYTES = 32
KEY = "rows.key"
RELEASED_FOLDER = "released"


SPENT = "spent"
"""The kind of a ledger's line for the cost of a round, or of an answer."""
UPDATE = "train"
COMPARISON = "compare"
COUNTS = "scores"
"""The kinds of lines for an update, a comparison, and noised counts that left."""
EDGES = "edges-sha256"
"""Key of a line for counts by class: the hash of their bins."""
ANSWER = "answer"
REQUEST = "request-sha256"
"""Keys of a spent line: the name of a noised answer, and the hash of the coordinator's choice for it."""


Side = Literal["training", "holdout", "both"]
"""Whose privacy a release costs: that of people trained on, of people held out, or of all."""
Charges = Sequence[tuple[Side, Release]]
"""Requested charges, each with its side."""
SIDES: tuple[Side, ...] = ("training", "holdout")
"""The sides of a holdout, each with its own account."""
BOTH: Side = "both"
Kinds = Counter[tuple[Side, float, float]]
"""Steps by (side, noise multiplier, sampling): an accountant needs no more of a history."""


def rows_key(gate: Path, *, make: bool = False) -> bytes:
    """Return a site's key of row hashes, which never leaves the site.

    Parameters
    ----------
    gate : Path
        The folder of the site's ledger.
    make : bool
        Whether to return a new one where there is none: only while no line and no file depends on one.

    Raises
    ------
    UsageError
        If it cannot be read, others may read it, or it is gone although there are sets.
    """
    path = gate / KEY
    try:
        key = read_private(path, rows=True)
    except FileNotFoundError:
        # A new key would not match the old hashes, so that all would seem unreleased.
        if not make or any((gate / RELEASED_FOLDER).glob("*/*")):
            raise usage_error("gate.rows.key", file=path) from None
        key = secrets.token_bytes(KEY_BYTES)
    except OSError as error:
        raise usage_error("gate.rows.unread", file=path, why=error.strerror) from None
    if len(key) != KEY_BYTES:
        raise usage_error("gate.rows.damaged", file=path)
    return key


def keep_rows_key(gate: Path, key: bytes) -> bytes:
    """Write a site's key of row hashes where there is none, and return it.

    The first line that depends on it follows under the same lock of the ledger: a key without one shows a lost ledger.
    """
    if not (gate / KEY).exists():
        write_whole(gate / KEY, key)
    return key


def origin_of(site: Site) -> Origin | None:
    """Return the origin of a site's rows.

    It is None where it is unknown.
    """
    if isinstance(site, FrozenSite):
        return identifying_origin(site.snapshot.origin)
    rows = rows_of(site)[1]
    return None if rows is None else identifying_origin(rows.origin)


def rows_of(site: Site) -> tuple[pd.DataFrame, SourceRows | None]:
    """Return a site's mapped table and its source rows.

    The source rows are the same rows as the source has them, and None where the source is unknown.
    """
    import pandas as pd

    if isinstance(site, FrozenSite):
        return site.inspect()[0], site.source_rows
    return rows_here(site) if is_plain(site) else (pd.DataFrame(), None)


def own_ledger(site: Site) -> Ledger:
    """Return the ledger of a site on this machine.

    It is made with its first line.
    """
    return ledger_of(SiteFolder(site.name))


RULE = 16
"""Digits of the hash of a holdout in a line."""


def holdout_hash(site: Site, frozen: Frozen | None = None) -> str:
    """Return the hash of a site's holdout, which assigns people to sides.

    By another one they may be on the other side. Without a group a person's side follows from the row's values, so that
    a new snapshot may move people. Then the hash has the time of the snapshot, `frozen` or that of a site that serves
    such rows. It has nothing of rows.
    """
    if isinstance(site, FrozenSite):
        frozen = site.snapshot
    by_person = isinstance(site.holdout, Holdout) and datasets.load(site.dataset).schema.group
    at = "" if by_person or frozen is None else frozen.at
    return hashlib.sha256(f"{site.holdout!r} {at}".encode()).hexdigest()[:RULE]


def identifying_origin(origin: Origin | None) -> Origin | None:
    """Return an origin that identifies its rows.

    It is None for a query of unknown tables.
    """
    return origin if origin is not None and origin.content else None


def named(origin: Origin, key: bytes) -> dict[str, Any]:
    """Return the row names for a ledger's line."""
    # The places are sorted, so that equal rows give equal lines.
    sources = sorted(keyed(key, "source", place).hex() for place in origin.places)
    return {"rows": keyed(key, "rows", origin.content).hex(), "sources": sources}


def names_in(facts: Mapping[str, Any]) -> frozenset[str]:
    """Return the row names of a ledger's line.

    There are none where the source of the rows is unknown.
    """
    rows = facts.get("rows")
    sources = facts.get("sources")
    if not isinstance(rows, str) or not rows:
        return frozenset()
    return frozenset({rows, *(map(str, sources) if isinstance(sources, list) else ())})


def names_now(site: Site, ledger: Ledger, dataset: str, *, look: bool = False) -> frozenset[str] | None:
    """Return the names of a dataset's present rows.

    Lines of the ledger name their rows. None where the names of the present rows are unknown.

    Parameters
    ----------
    site : Site
    ledger : Ledger
    dataset : str
    look : bool
        Whether to read the table where it is not frozen yet; else only the ledger counts.
    """
    gate = ledger.path.parent
    # Without a key no line has a name yet, so there is nothing to compare.
    if dataset not in site.datasets or not (gate / KEY).exists():
        return frozenset()
    served = site.serving(dataset)
    snapshot = read_facts(served, SiteFolder(site.name).frozen)
    if snapshot is None and not look:
        return frozenset()
    origin = origin_of(served) if snapshot is None else identifying_origin(snapshot.origin)
    return None if origin is None else names_in(named(origin, rows_key(gate)))


@dataclass
class RowAccounts:
    """Groups of datasets of the same rows, by the lines of a ledger.

    Attributes
    ----------
    groups : list of (datasets, names of rows)
        No two of them have anything in common.
    """

    groups: list[tuple[set[str], set[str]]] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Add one line of any kind."""
        names = names_in(line.facts)
        if names:
            self.join(line.text("dataset"), names)

    def join(self, dataset: str, names: Iterable[str]) -> None:
        """Link a dataset to the names of its rows."""
        rows = set(names)
        # One common dataset or row name joins groups, and third ones with them.
        met = self._met(dataset, rows)
        self.groups = [group for group in self.groups if group not in met]
        self.groups.append(({dataset}.union(*(group[0] for group in met)), rows.union(*(group[1] for group in met))))

    def _met(self, dataset: str, rows: set[str]) -> list[tuple[set[str], set[str]]]:
        return [group for group in self.groups if dataset in group[0] or not rows.isdisjoint(group[1])]

    def datasets(self, dataset: str, names: Iterable[str] = ()) -> frozenset[str]:
        """Return the datasets on one account.

        `dataset` is among them, and its rows have these names now.
        """
        return frozenset({dataset}.union(*(group[0] for group in self._met(dataset, set(names)))))


@dataclass
class RunDraws:
    """Noise that one repeat of a run has drawn at a site.

    Attributes
    ----------
    charged : Counter of int
        How often each round was charged, by its number from 1.
    sent : set of int
        Rounds whose update left.
    ended : bool
        Whether the comparison, or the last noised scores, left or were charged.
    requests : dict of str to str
        Hash of the request that each noised answer was charged for, by the answer's name.
    """

    charged: Counter[int] = field(default_factory=Counter)
    sent: set[int] = field(default_factory=set)
    ended: bool = False
    requests: dict[str, str] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Count one more line of this run."""
        facts = line.facts
        # Counts by class may have been charged in another run of the same text, and sent again in this one.
        scored = line.kind == COUNTS and EDGES in facts
        charged_scores = line.kind == SPENT and facts.get(ANSWER) == SCORES
        if line.kind == COMPARISON or scored or charged_scores:
            self.ended = True
        round = facts.get("round")
        # An answer is no round: its lines have the number 0.
        if type(round) is int and round > 0:
            if line.kind == SPENT:
                self.charged[round] += 1
            if line.kind == UPDATE:
                self.sent.add(round)
        if line.kind == SPENT and ANSWER in facts:
            self.requests.setdefault(str(facts[ANSWER]), str(facts.get(REQUEST, "")))

    def round_refusal(self, round: int) -> Refusal | None:
        """Return why a round may not be drawn, or None.

        A second draw is allowed after a crash between a round's charge and its reply. Then its one charge is the newest
        of the run, and no update of it left.
        """
        if self.ended:
            return Refusal("training-ended")
        if not self.charged[round]:
            return None
        newest = round == max(self.charged)
        crashed = self.charged[round] == 1 and newest and round not in self.sent
        return None if crashed else Refusal("round-drawn", round=round)

    def answer_refusal(self, answer: str, request: str) -> Refusal | None:
        """Return why an answer may not be drawn for a request, or None."""
        return None if self.requests.get(answer, request) == request else Refusal("answer-drawn")


@dataclass
class Tally:
    """Privacy consumed by some lines of a ledger.

    Attributes
    ----------
    kinds : Counter
    runs : set of str
    rows : bool
        Whether some of it was counted by rows, and not by persons.
    rules : set of str
        Hashes of the holdouts that assigned people to sides; with more than one, people may have changed sides.
    """

    kinds: Kinds = field(default_factory=Kinds)
    runs: set[str] = field(default_factory=set)
    rows: bool = False
    rules: set[str] = field(default_factory=set)

    def add(self, line: Line) -> None:
        """Count one more line."""
        release = release_of(line)
        self.kinds[side_of(line), release.noise, release.sampling] += release.steps
        self.runs.add(line.text("run"))
        self.rows |= line.facts.get("unit") == "row"
        if side_of(line) in SIDES:
            self.rules.add(line.text("holdout-sha256"))

    @property
    def moved(self) -> bool:
        """Whether people may have changed sides."""
        return len(self.rules) > 1

    def releases(self, side: Side) -> tuple[Release, ...]:
        """Return the consumed privacy of one side, by kind.

        A cost for both sides counts for each, and so does any cost where people may have changed sides.
        """
        sides = (*SIDES, BOTH) if self.moved else (side, BOTH)
        return composed(
            Release(noise, sampling, steps) for (of, noise, sampling), steps in self.kinds.items() if of in sides
        )

    def epsilon(self, delta: float) -> float:
        """Return the ε of the side that lost more."""
        return max(epsilon(self.releases(side), delta) for side in SIDES)

    def on_both(self) -> Tally:
        """Return the tally with both sides charged for all."""
        kinds = Kinds()
        for (_, noise, sampling), steps in self.kinds.items():
            kinds[BOTH, noise, sampling] += steps
        return replace(self, kinds=kinds, rules=set())

    @classmethod
    def of(cls, several: Iterable[Tally]) -> Tally:
        """Return the sum of several tallies."""
        total = cls()
        for one in several:
            total.kinds.update(one.kinds)
            total.runs |= one.runs
            total.rows |= one.rows
            total.rules |= one.rules
        return total


@dataclass
class Seen:
    """Privacy consumed up to a line.

    The number and the hash identify the line.

    Attributes
    ----------
    n, hash
        Of the line.
    datasets : dict of name to Tally
        By lines that name their rows.
    unnamed : dict of name to Tally
        By lines without row names: the source of their rows is unknown.
    accounts : RowAccounts
    draws : dict of run to RunDraws
        Noise that each run has drawn.
    """

    n: int = 0
    hash: str = ""
    datasets: dict[str, Tally] = field(default_factory=dict)
    unnamed: dict[str, Tally] = field(default_factory=dict)
    accounts: RowAccounts = field(default_factory=RowAccounts)
    draws: dict[Run, RunDraws] = field(default_factory=lambda: defaultdict(RunDraws))

    def add(self, line: Line) -> None:
        """Count one more line."""
        self.accounts.add(line)
        if line.kind in (SPENT, UPDATE, COMPARISON, COUNTS):
            self.draws[run_of(line.facts)].add(line)
        if line.kind == SPENT:
            of = self.datasets if names_in(line.facts) else self.unnamed
            of.setdefault(line.text("dataset"), Tally()).add(line)

    def account(self, dataset: str, names: frozenset[str] | None) -> Tally:
        """Return the tally that counts for a dataset.

        Its rows have these names. With None they are unknown, so that everything counts.
        """
        on_it = set(self.datasets) if names is None else self.accounts.datasets(dataset, names)
        on_it &= set(self.datasets)
        counted = [*self.unnamed.items(), *((name, self.datasets[name]) for name in sorted(on_it))]
        # Under another name the same rows have other columns, whose hash or date may put them on the other side.
        total = Tally.of(tally if name == dataset else tally.on_both() for name, tally in counted)
        total.rows |= any(counts_rows_of(dataset, name) for name in on_it)
        return total


def side_of(line: Line) -> Side:
    """Return whose privacy a line spent.

    It is both sides' where the line names none.
    """
    return next((side for side in SIDES if side == line.facts.get("side")), BOTH)


def charged_sides(side: Side) -> tuple[Side, ...]:
    """Return the sides on whose accounts a release counts.

    Examples
    --------
    >>> charged_sides("holdout"), charged_sides("both")
    (('holdout',), ('training', 'holdout'))
    """
    return (side,) if side in SIDES else SIDES


def release_of(line: Line) -> Release:
    """Return the release that a line records.

    Raises
    ------
    LedgerError
        If its numbers are missing or impossible: a sum without it would be too low.
    """
    noise, sampling, steps = (line.facts.get(key) for key in ("noise", "sampling", "steps"))
    if not (isinstance(noise, (int, float)) and isinstance(sampling, (int, float)) and isinstance(steps, int)):
        raise LedgerError(render("gate.rows.numberless", n=line.n))
    if not (noise >= 0 and 0 < sampling <= 1 and steps > 0):
        raise LedgerError(render("gate.rows.impossible", n=line.n))
    return Release(float(noise), float(sampling), steps)


def may_have_several_rows(dataset: str) -> bool:
    """Return whether a person may have several rows.

    An unknown dataset counts as such.
    """
    try:
        return bool(datasets.load(dataset).schema.group)
    except FlfedError:
        return True


def counts_rows_of(dataset: str, other: str) -> bool:
    """Return whether another name counted rows, not persons."""
    return other != dataset and may_have_several_rows(dataset) and not may_have_several_rows(other)
