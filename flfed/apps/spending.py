"""What all studies together have spent of the privacy of a site's rows, and whether a round more may be spent.

The site's own ledger is the account: a line of kind "spent" for each round that rows were trained on
under record-level differential privacy, on the disk before the training begins. A crash after it has
spent what nobody got; nothing that anybody got was not spent.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flfed.errors import FlfedError
from flfed.records.ledger import HeldLedger, Ledger, LedgerError
from flfed.records.ledger_lines import Line
from flfed.rows import datasets
from flfed.rows.policy import Policy
from flfed.updates.accounting import Release, affordable, epsilon
from flfed.updates.rounds import SPENT

NO_LEDGER = "its ledger cannot be written, so nothing leaves the site: see its log"
"""What a site says whose ledger is torn, changed, or cannot be reached.

The one sentence that leaves without a line: it says nothing, and silence would hold up everybody's round.
"""
LINE = "spent"
"""The kind of a ledger's line for what a round spends."""
ROWS_COUNTED = (
    f"{SPENT}an earlier study of unit 'row' protected each row by itself, and a person may have several, so that "
    "no epsilon bounds what is spent of the budget, which is of persons"
)
"""Why nothing more is spent of a budget of persons once rows were counted one by one."""
LOG = logging.getLogger("flfed.site")

Kinds = Counter[tuple[float, float]]
"""Steps by (noise multiplier, sampling): all that an accountant needs of a history."""


class NotSpent(FlfedError):
    """A round whose privacy may not be spent, or not be written down: a fixed sentence of ours, so that it may cross.

    It has the site's budget, what is spent of it and what was asked, as numbers; nothing of rows.
    """


@dataclass(frozen=True)
class Seen:
    """What was spent up to a line, which is known by its number and its hash.

    Attributes
    ----------
    n, hash
        Of the line.
    kinds : tuple of Release
    runs : set of str
    rows : bool
        Whether some of it was counted by rows, and not by persons.
    """

    n: int = 0
    hash: str = ""
    kinds: tuple[Release, ...] = ()
    runs: frozenset[str] = frozenset()
    rows: bool = False


class Spending:
    """The account of one dataset at one site.

    Parameters
    ----------
    ledger : Ledger
        The site's own; all studies and all years are in it.
    dataset : str
        Whose lines count. All of them do, whatever rows there were when they were written: rows that
        came later are charged for what earlier ones spent, which is more than is true of them.
    policy : Policy
        With the budget: `institution` enforces it, `open` records and never refuses.
    prepare : callable
        Makes the ledger's folder where it is absent.

    Guarantee: between two processes that reserve at once, the sum of what both were granted is within
    the budget: a line is written under the lock under which all lines before it were read. The sum
    is of Gaussian mechanisms on Poisson samples, for neighbours that differ by one person; where the
    schema names no group a person has one row. Where it names one, the sum is infinite as soon as a
    study of unit "row" is in it: how far several rows move its updates together, nothing bounds.
    """

    def __init__(
        self, ledger: Ledger, dataset: str, policy: Policy, *, prepare: Callable[[], None] = lambda: None
    ) -> None:
        self._ledger, self.dataset, self._prepare = ledger, dataset, prepare
        self.budget, self.delta = policy.epsilon, policy.delta
        self.enforced = policy.disclosure == "institution" and policy.epsilon is not None
        self._seen = Seen()

    def spent(self) -> float:
        """Return the ε that was spent so far, at the policy's δ; infinite where nothing bounds it."""
        with self._held() as held:
            seen = self._read(held)
        if self._is_unbounded(seen):
            return math.inf
        return epsilon(seen.kinds, self.delta)  # the lock is free meanwhile: it may take a second

    def refusal(self, release: Release, run: str) -> str:
        """Return why a run could not have even one round, or an empty text.

        Parameters
        ----------
        release : Release
            What one of its rounds spends.
        run : str
            One that has spent here before is let in again: it may have no round left to ask for, and
            each that it asks for is decided anew.
        """
        with self._held() as held:
            seen = self._read(held)
        return "" if run and run in seen.runs else self._over(seen, release)

    def reserve(self, release: Release, **facts: Any) -> Line:
        """Write down what a round spends, before it is trained; return the line once it is on the disk.

        Parameters
        ----------
        release : Release
        **facts
            What the line says besides: study, study_sha256, run, round, rows_sha256, unit, delta.

        Raises
        ------
        NotSpent
            If the budget does not allow it, or the ledger cannot be written. Nothing is spent then.
        """
        with self._held() as held:
            seen = self._read(held)
            over = self._over(seen, release)
            if over:
                raise NotSpent(over)
            cost = {"noise": release.noise, "sampling": release.sampling, "steps": release.steps}
            return held.append(kind=LINE, dataset=self.dataset, **cost, **facts)

    def left(self, release: Release, most: int = 10_000) -> int:
        """Return how many more rounds like `release` the budget allows, at most `most`; to about one in fifty.

        `most` where there is no budget. That `open` never refuses is not looked at.
        """
        seen = self._looked()
        budget, kinds = self.budget, seen.kinds
        if budget is None:
            return most
        if self._is_unbounded(seen):
            return 0

        def fits(rounds: int) -> bool:
            several = Release(release.noise, release.sampling, rounds * release.steps)
            return affordable(kinds, several, budget, self.delta)

        low, high = 0, 1
        while high <= most and fits(high):
            low, high = high, high * 2
        high = min(high, most + 1)
        while high - low > max(1, low // 50):
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def _is_unbounded(self, seen: Seen) -> bool:
        """Tell whether no ε bounds what was spent of persons."""
        return seen.rows and may_have_several_rows(self.dataset)

    def _over(self, seen: Seen, release: Release) -> str:
        """Return why a release more may not be, or an empty text."""
        kinds = seen.kinds
        if not self.enforced or self.budget is None:
            return ""
        if self._is_unbounded(seen):
            return ROWS_COUNTED
        if affordable(kinds, release, self.budget, self.delta):
            return ""
        after = epsilon([*kinds, release], self.delta)
        return (
            f"{SPENT}epsilon {shown(epsilon(kinds, self.delta))} of {self.budget:g} is spent at delta {self.delta:g}, "
            f"and one more round would make it {shown(after)}"
        )

    def _read(self, held: HeldLedger) -> Seen:
        """Return what the ledger says now; only lines that came since the last time are read.

        Where the last line seen is not in the ledger any more, all of it is read anew.
        """
        before, newest, since, runs, rows = self._seen, None, Kinds(), set[str](), False
        for line in held.backwards():
            newest = newest or line
            if (line.n, line.hash) == (before.n, before.hash):
                since.update({(kind.noise, kind.sampling): kind.steps for kind in before.kinds})
                runs |= before.runs
                rows |= before.rows
                break
            if line.kind == LINE and line.facts.get("dataset") == self.dataset:
                release = release_of(line)
                since[release.noise, release.sampling] += release.steps
                runs.add(str(line.facts.get("run", "")))
                rows |= line.facts.get("unit") == "row"
        if newest is not None:
            kinds = tuple(Release(*kind, steps) for kind, steps in sorted(since.items()))
            self._seen = Seen(newest.n, newest.hash, kinds, frozenset(runs), rows)
        else:
            self._seen = Seen()
        return self._seen

    def _looked(self) -> Seen:
        """Return what the ledger says now to who only looks: it is neither made nor opened to write."""
        try:
            with self._ledger.reading() as found:
                return Seen() if found is None else self._read(found)
        except (LedgerError, OSError) as error:
            LOG.error("%s", error)
            raise NotSpent(NO_LEDGER) from None

    @contextmanager
    def _held(self) -> Iterator[HeldLedger]:
        """Give the ledger under its lock; what is wrong with it is for the site's log."""
        try:
            self._prepare()
            with self._ledger.held() as held:
                yield held
        except (LedgerError, OSError) as error:
            LOG.error("%s", error)
            raise NotSpent(NO_LEDGER) from None


def release_of(line: Line) -> Release:
    """Return what a line says was spent.

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
    """Tell whether a person may have several rows of a dataset; so it is of one that is not known here any more."""
    try:
        return bool(datasets.load(dataset).schema.group)
    except FlfedError:
        return True


def shown(value: float) -> str:
    """Return an ε for people, rounded up: never less than it is.

    Examples
    --------
    >>> shown(2.99961), shown(0), shown(0.5)
    ('3', '0', '0.5')
    """
    return f"{math.ceil(value * 1000 - 1e-9) / 1000:g}" if math.isfinite(value) else "beyond any number"
