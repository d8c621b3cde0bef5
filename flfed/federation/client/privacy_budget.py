"""Privacy account of a site's rows.

It says what all studies together have consumed, and whether one more round is allowed.

People whose rows are trained on and people who are held out have accounts apart: nobody is in both, so that a
person's ε is the larger of the two.

The site's own ledger is the account: a line of kind "spent" for each round that rows were trained on
under record-level differential privacy, on the disk before the training begins. A crash after it has
spent what nobody got; nothing that anybody got was not spent.
"""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from flfed.errors import FlfedError
from flfed.federation.client.released.row_accounts import KEY, RowAccounts, named, names_in, rows_key
from flfed.records.ledger.ledger import HeldLedger, Ledger, LedgerError
from flfed.records.ledger.line import Line
from flfed.refusals import Refusal
from flfed.rows.data import datasets
from flfed.rows.data.origin import Origin
from flfed.rows.data.policy import Policy
from flfed.updates.accounting import Release, affordable, composed, epsilon
from flfed.updates.rounds_ahead import rounds_left

NO_LEDGER = Refusal("ledger-unwritable")
"""What a site says whose ledger is torn, changed, or cannot be reached.

The one sentence that leaves without a line: it says nothing, and silence would hold up everybody's round.
"""
LINE = "spent"
"""The kind of a ledger's line for what a round spends."""
LOG = logging.getLogger("flfed.site")

Side = Literal["training", "holdout", "both"]
"""Whose privacy a release spends: of people trained on, of people held out, or of all."""
Asked = Sequence[tuple[Side, Release]]
"""What is asked for, each of whose privacy."""
SIDES: tuple[Side, ...] = ("training", "holdout")
"""The sides of a holdout, each with an account of its own."""
BOTH: Side = "both"
Kinds = Counter[tuple[Side, float, float]]
"""Steps by (side, noise multiplier, sampling): all that an accountant needs of a history."""


class NotSpent(FlfedError):
    """Refusal of a round by the privacy account.

    It is not allowed, or cannot be recorded. The sentence is a fixed one of ours, so it may cross.

    It has the site's budget, what is spent of it and what was asked, as numbers; nothing of rows.
    """


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
        Hashes of the holdouts by which people were on a side; of more than one nobody is known to have stayed on his.
    """

    kinds: Kinds = field(default_factory=Kinds)
    runs: set[str] = field(default_factory=set)
    rows: bool = False
    rules: set[str] = field(default_factory=set)

    def add(self, line: Line) -> None:
        """Count one line more."""
        release = release_of(line)
        self.kinds[side_of(line), release.noise, release.sampling] += release.steps
        self.runs.add(str(line.facts.get("run", "")))
        self.rows |= line.facts.get("unit") == "row"
        if side_of(line) in SIDES:
            self.rules.add(rule_of(line))

    @property
    def moved(self) -> bool:
        """Whether people may have changed sides."""
        return len(self.rules) > 1

    def releases(self, side: Side) -> tuple[Release, ...]:
        """Return the consumed privacy of one side, by kind.

        What spent of both is of each, and so is all where people may have changed sides.
        """
        sides = (*SIDES, BOTH) if self.moved else (side, BOTH)
        return composed(
            Release(noise, sampling, steps) for (of, noise, sampling), steps in self.kinds.items() if of in sides
        )

    def on_both(self) -> Tally:
        """Return the tally with both sides charged for all."""
        kinds = Kinds()
        for (_, noise, sampling), steps in self.kinds.items():
            kinds[BOTH, noise, sampling] += steps
        return replace(self, kinds=kinds, rules=set())

    @classmethod
    def of(cls, several: Iterable[Tally]) -> Tally:
        """Return the sum of several tallies."""
        found = cls()
        for one in several:
            found.kinds.update(one.kinds)
            found.runs |= one.runs
            found.rows |= one.rows
            found.rules |= one.rules
        return found


@dataclass
class Seen:
    """Privacy consumed up to a line.

    The line is known by its number and its hash.

    Attributes
    ----------
    n, hash
        Of the line.
    datasets : dict of name to Tally
        By lines that name their rows.
    unnamed : dict of name to Tally
        By those that do not, for an earlier version wrote them: nobody knows which rows they were of.
    accounts : RowAccounts
    """

    n: int = 0
    hash: str = ""
    datasets: dict[str, Tally] = field(default_factory=dict)
    unnamed: dict[str, Tally] = field(default_factory=dict)
    accounts: RowAccounts = field(default_factory=RowAccounts)

    def add(self, line: Line) -> None:
        """Count one line more."""
        self.accounts.add(line)
        if line.kind == LINE:
            of = self.datasets if names_in(line.facts) else self.unnamed
            of.setdefault(str(line.facts.get("dataset", "")), Tally()).add(line)

    def account(self, dataset: str, names: frozenset[str] | None) -> Tally:
        """Return what counts for a dataset.

        Its rows have these names. With None nobody knows them, so that everything counts.
        """
        on_it = set(self.datasets) if names is None else self.accounts.datasets(dataset, names)
        on_it &= set(self.datasets)
        counted = [*self.unnamed.items(), *((name, self.datasets[name]) for name in sorted(on_it))]
        # Under another name the same rows have other columns, by whose hash or date they may be on the other side.
        found = Tally.of(tally if name == dataset else tally.on_both() for name, tally in counted)
        found.rows |= any(counts_rows_of(dataset, name) for name in on_it)
        return found


class PrivacyAccount:
    """Privacy account of one dataset's rows.

    Parameters
    ----------
    ledger : Ledger
        The site's own; all studies and all years are in it.
    dataset : str
        Whose lines count. All of them do, whatever rows there were when they were written: rows that
        came later are charged for what earlier ones spent, which is more than is true of them. So do those of
        every other dataset that is of the same rows, now or ever, and lines that do not say of which they are.
    policy : Policy
        With the budget: `institution` enforces it, `open` records and never refuses.
    prepare : callable
        Makes the ledger's folder where it is absent.
    origin : Origin or None
        Where the rows come from that are served now; None where nothing tells, so that every line counts.

    Guarantee: between two processes that reserve at once, the sum of what both were granted is within
    the budget: a line is written under the lock under which all lines before it were read. The sum
    is of Gaussian mechanisms on Poisson samples, for neighbours that differ by one person; where the
    schema names no group a person has one row. Where it names one, the sum is infinite as soon as a
    study of unit "row" is in it: how far several rows move its updates together, nothing bounds.
    A side's sum bounds what a person of that side lost as long as the person stays there. A line names the rule of the
    holdout by its hash: once there were two rules, people may have changed sides, and all lines count on both.
    """

    def __init__(
        self,
        ledger: Ledger,
        dataset: str,
        policy: Policy,
        *,
        prepare: Callable[[], None] = lambda: None,
        origin: Origin | None = None,
    ) -> None:
        self._ledger = ledger
        self.dataset = dataset
        self._prepare = prepare
        self._origin = origin
        self.folder = ledger.path.parent
        self.budget, self.delta = policy.epsilon, policy.delta
        self.enforced = policy.disclosure == "institution" and policy.epsilon is not None
        self._seen = Seen()

    def spent(self) -> float:
        """Return the consumed ε at the policy's δ.

        It is that of the side that lost more, and infinite where nothing bounds it.
        """
        with self._held() as held:
            spent = self._read(held)
        if self._is_unbounded(spent):
            return math.inf
        # The lock is free meanwhile: it may take a second.
        return max(epsilon(spent.releases(side), self.delta) for side in SIDES)

    def refusal(self, asked: Asked, run: str, *, rule: str = "", whole: bool = False) -> Refusal | None:
        """Return why a run could not spend what it asks for, None where it could.

        Parameters
        ----------
        asked : sequence of (side, Release)
            Together.
        run : str
            One that has spent here before is let in again: it may have no round left to ask for, and
            each that it asks for is decided anew.
        rule : str
            Hash of the holdout by which people are on a side.
        whole : bool
            Whether that is all of a run.
        """
        with self._held() as held:
            spent = self._read(held, rule if any(side in SIDES for side, _ in asked) else None)
        return None if run and run in spent.runs else self._over(spent, asked, whole)

    def reserve(self, release: Release, *, side: Side = BOTH, **facts: Any) -> Line:
        """Record a round's cost before it is trained.

        Returns the line once it is on the disk.

        Parameters
        ----------
        release : Release
        side : {"training", "holdout", "both"}
            Of whose privacy; the line names it where it is one side's alone.
        **facts
            What the line says besides: study, study_sha256, run, round, rows_sha256, unit, delta, and of one side
            holdout_sha256.

        Raises
        ------
        NotSpent
            If the budget does not allow it, or the ledger cannot be written. Nothing is spent then.
        """
        return self.reserve_all([release], side=side, **facts)[0]

    def reserve_all(self, releases: Sequence[Release], *, side: Side = BOTH, **facts: Any) -> list[Line]:
        """Record an answer's costs before its numbers are drawn.

        Returns one line a release, in their order, once all are on the disk. `side` and `facts` are as in `reserve`.

        Raises
        ------
        NotSpent
            If the budget does not allow all of them together, or the ledger cannot be written. Nothing is spent then.
        """
        # Read and written under one lock: two processes cannot both take the last round.
        with self._held() as held:
            rule = facts.pop("holdout_sha256", "")
            spent = self._read(held, rule if side in SIDES else None)
            over = self._over(spent, [(side, release) for release in releases])
            if over:
                raise NotSpent(over)
            of_side = {"side": side, "holdout_sha256": rule} if side in SIDES else {}
            shared = {"dataset": self.dataset, **self._named(), **of_side}
            return _append_all(held, [dict(**shared, **_cost(release), **facts) for release in releases])

    def left(self, release: Release, most: int = 10_000) -> int:
        """Return how many rounds the budget still allows.

        They are like `release`, of both sides, at most `most`, and exact to about one in fifty.

        `most` where there is no budget. That `open` never refuses is not looked at.
        """
        spent, budget = self._looked(), self.budget
        if budget is None:
            return most
        if self._is_unbounded(spent):
            return 0
        # Where no line names a side, the two have one history.
        histories = {spent.releases(side) for side in SIDES}
        return min(rounds_left(kinds, release, budget, self.delta, most) for kinds in histories)

    def _named(self) -> dict[str, Any]:
        """Return the row names for a line.

        The key is made with the first such line.
        """
        if self._origin is None:
            return {}
        return named(self._origin, rows_key(self._ledger.path.parent, make=not self._seen.accounts.groups))

    def _names(self) -> frozenset[str] | None:
        """Return the row names, None where they are unknown."""
        gate = self._ledger.path.parent
        if self._origin is not None and not (gate / KEY).exists() and not self._seen.accounts.groups:
            return frozenset()  # there is no such line yet
        return None if self._origin is None else names_in(named(self._origin, rows_key(gate)))

    def _is_unbounded(self, spent: Tally) -> bool:
        """Tell whether no ε bounds the persons' consumption."""
        return spent.rows and may_have_several_rows(self.dataset)

    def _over(self, spent: Tally, asked: Asked, whole: bool = False) -> Refusal | None:
        """Return why releases, each of a side, are refused together, or None."""
        if not self.enforced or self.budget is None or not asked:
            return None
        if self._is_unbounded(spent):
            return Refusal("budget-by-row")  # rows were counted one by one, and the budget is of persons
        over = set[tuple[float, tuple[Release, ...]]]()
        for one in SIDES:
            # Where people may have changed sides, what is spent of one side is spent of the other, too.
            releases = [release for side, release in asked if spent.moved or one in charged_sides(side)]
            kinds = spent.releases(one)
            if releases and not affordable([*kinds, *releases[:-1]], releases[-1], self.budget, self.delta):
                over.add((epsilon([*kinds, *releases], self.delta), kinds))
        if not over:
            return None
        after, kinds = max(over)
        facts = {"budget": f"{self.budget:g}", "delta": f"{self.delta:g}", "after": shown(after)}
        now = shown(epsilon(kinds, self.delta))
        return Refusal("budget-of-run" if whole else "budget-spent", spent=now, **facts)

    def _read(self, held: HeldLedger, rule: str | None = None) -> Tally:
        """Return the account by the ledger's newest lines, as it counts for people on a side by a `rule`.

        Where the last line seen is not in the ledger any more, all of it is read anew.
        """
        since: list[Line] = []
        for line in held.backwards():
            if (line.n, line.hash) == (self._seen.n, self._seen.hash):
                break
            since.append(line)
        else:
            self._seen = Seen()
        try:
            for line in reversed(since):
                self._seen.add(line)
        except LedgerError:
            self._seen = Seen()  # of half of the lines nothing is known
            raise
        if since:
            self._seen.n, self._seen.hash = since[0].n, since[0].hash
        found = self._seen.account(self.dataset, self._names())
        return found if rule is None else replace(found, rules=found.rules | {rule})

    def _looked(self) -> Tally:
        """Return the account without opening it to write."""
        try:
            with self._ledger.reading() as found:
                return Tally() if found is None else self._read(found)
        except (FlfedError, OSError) as error:
            LOG.error("%s", error)
            raise NotSpent(NO_LEDGER) from None

    @contextmanager
    def _held(self) -> Iterator[HeldLedger]:
        """Yield the locked ledger and log its errors."""
        try:
            self._prepare()
            with self._ledger.held() as held:
                yield held
        except NotSpent:
            raise
        except (FlfedError, OSError) as error:
            LOG.error("%s", error)
            raise NotSpent(NO_LEDGER) from None


def _cost(release: Release) -> dict[str, Any]:
    """Return what a line says of a release."""
    return {"noise": release.noise, "sampling": release.sampling, "steps": release.steps}


def _append_all(held: HeldLedger, lines: Sequence[dict[str, Any]]) -> list[Line]:
    """Append all of some lines of spent privacy, or none of them."""
    written: list[Line] = []
    at = held
    try:
        for facts in lines:
            written.append(at.append(kind=LINE, **facts))
            # Where a line ends the next one begins.
            at = replace(at, size=at.size + len(written[-1].raw) + 1)
    except (FlfedError, OSError):
        # Nobody gets the answer. In a file that only grows the lines stay counted, which is more than is true.
        with suppress(OSError):
            if written:
                os.ftruncate(held.file, held.size)
        raise
    return written


def side_of(line: Line) -> Side:
    """Return whose privacy a line spent.

    That of both sides where it does not say, as lines of earlier versions, or says what this version does not know.
    """
    return next((side for side in SIDES if side == line.facts.get("side")), BOTH)


def rule_of(line: Line) -> str:
    """Return the hash of the holdout by which people were on the side that a line names."""
    return str(line.facts.get("holdout-sha256", ""))


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
        If it does not say so in numbers: a sum without it would be too low.
    """
    noise, sampling, steps = (line.facts.get(key) for key in ("noise", "sampling", "steps"))
    if not (isinstance(noise, (int, float)) and isinstance(sampling, (int, float)) and isinstance(steps, int)):
        raise LedgerError(f"line {line.n} says that privacy was spent, and not how much: another version wrote it")
    if not (noise >= 0 and 0 < sampling <= 1 and steps > 0):
        raise LedgerError(f"line {line.n} says that privacy was spent in numbers that cannot be")
    return Release(float(noise), float(sampling), steps)


def may_have_several_rows(dataset: str) -> bool:
    """Tell whether a person may have several rows.

    An unknown dataset counts as such.
    """
    try:
        return bool(datasets.load(dataset).schema.group)
    except FlfedError:
        return True


def counts_rows_of(dataset: str, other: str) -> bool:
    """Tell whether another name counted rows, not persons."""
    return other != dataset and may_have_several_rows(dataset) and not may_have_several_rows(other)


def shown(value: float) -> str:
    """Return an ε for people, rounded up.

    It is never less than it is.

    Examples
    --------
    >>> shown(2.99961), shown(0), shown(0.5)
    ('3', '0', '0.5')
    """
    return f"{math.ceil(value * 1000 - 1e-9) / 1000:g}" if math.isfinite(value) else "beyond any number"
