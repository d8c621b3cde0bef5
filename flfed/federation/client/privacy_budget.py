"""Privacy account of a site's rows.

It shows what all studies together have consumed, and whether one more round is allowed.

People whose rows are trained on and people who are held out have separate accounts. Nobody is in both, so a person's ε
is the larger of the two.

The site's own ledger is the account. It has a line of kind "spent" for each round that trained on rows under
record-level differential privacy. The line is on the disk before the training begins. After a crash it may have a
charge for an update that nobody received, but never the reverse.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flfed.errors import FlfedError
from flfed.federation.client.released.accounts import (
    BOTH,
    KEY,
    SIDES,
    SPENT,
    Charges,
    Seen,
    Side,
    Tally,
    charged_sides,
    keep_rows_key,
    may_have_several_rows,
    named,
    names_in,
    origin_of,
    rows_key,
)
from flfed.paths import SiteFolder
from flfed.records.ledger import Ledger, LedgerError, LockedLedger
from flfed.records.ledger_line import Line, run_of_new
from flfed.refusals import NO_LEDGER, NotSpent, Refusal
from flfed.rows.data.origin import Origin
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.updates.accounting import Release, affordable, epsilon

LOG = logging.getLogger("flfed.site")


class PrivacyAccount:
    """Privacy account of one dataset's rows.

    Parameters
    ----------
    ledger : Ledger
        The site's own; all studies and all years are in it.
    dataset : str
        Dataset of the lines that count. All of them do, whatever rows there were when they were written. Later rows are
        charged for the spending of earlier ones, which is more than they lost. Lines of every other dataset of the same
        rows count, too, now or ever, and lines that do not name their rows.
    policy : Policy
        With the budget: `institution` enforces it, `open` records and never refuses.
    prepare : callable
        Makes the ledger's folder where it is absent.
    origin : Origin or None
        Source of the present rows; None where it is unknown, so that every line counts.

    Guarantee: between two processes that reserve at once, the sum of both grants is within the budget. A line is
    written under the lock under which all lines before it were read. The sum is of Gaussian mechanisms on Poisson
    samples, for neighbours that differ by one person. Where the schema names no group a person has one row. Where it
    names one, the sum is infinite as soon as it has a study of unit "row". Nothing bounds how far several rows move
    that study's updates together. A side's sum bounds the loss of a person of that side as long as the person stays
    there. A line names the rule of the holdout by its hash. Once there were two rules, people may have changed sides,
    and all lines count on both.
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
        self.budget = policy.epsilon
        self.delta = policy.delta
        self.enforced = policy.enforces_budget
        self._seen = Seen()

    def spent(self, rule: str | None = None) -> float:
        """Return the consumed ε at the policy's δ.

        It is that of the side that lost more, and infinite where it is unbounded.

        Parameters
        ----------
        rule : str, optional
            Hash of the holdout rule in force; under a changed rule people may have changed sides.
        """
        with self._lock_ledger() as locked_ledger:
            spent = self._read(locked_ledger, rule)
        # The lock is free meanwhile: it may take a second.
        return math.inf if self._is_unbounded(spent) else spent.epsilon(self.delta) + epsilon_forgotten(self._ledger)

    def refusal(self, charges: Charges, run: str, *, rule: str = "", whole: bool = False) -> Refusal | None:
        """Return why a run could not spend these charges, or None.

        Parameters
        ----------
        charges : sequence of (side, Release)
            Together.
        run : str
            A run that has spent here before is admitted again: it may have no round left to request, and each of its
            rounds is decided anew.
        rule : str
            Hash of the holdout that assigns people to sides.
        whole : bool
            Whether these are all charges of a run.
        """
        with self._lock_ledger() as locked_ledger:
            spent = self._read(locked_ledger, rule if any(side in SIDES for side, _ in charges) else None)
        return None if run and run in spent.runs else self._over(spent, charges, whole)

    def reserve_round(self, release: Release, *, same_noise: bool, side: Side = BOTH, **facts: Any) -> None:
        """Record a round's cost before it is trained, once.

        A repeated request has no new noise.

        Parameters
        ----------
        release : Release
        same_noise : bool
            Whether the noise follows from a seed, and is the same again: it is charged once, and never refused.
        side, **facts
            As in `reserve`.

        Raises
        ------
        NotSpent
            If the round was drawn before, the budget does not allow it, or the ledger cannot be written.
        """
        run = run_of_new(facts)
        round = int(facts["round"])
        with self._lock_ledger() as locked_ledger:
            tally = self._tally(locked_ledger, side, facts)
            draws = self._seen.draws[run]
            if same_noise and draws.charged[round]:
                return
            if not same_noise and (refused := draws.round_refusal(round)):
                raise NotSpent(refused)
            self._append(locked_ledger, tally, [release], side, facts)

    def reserve(self, *releases: Release, side: Side = BOTH, **facts: Any) -> list[Line]:
        """Record the cost of an answer before its numbers are drawn.

        Return one line a release, in their order, once all are on the disk.

        Parameters
        ----------
        *releases : Release
        side : {"training", "holdout", "both"}
            Whose privacy it costs; the line names the side where it is one side's alone.
        **facts
            Further facts of the lines: study, study_sha256, run, repeat, round, rows_sha256, unit, delta; of one side
            holdout_sha256. `answer` names the answer, and `request_sha256` is the hash of the coordinator's choice.

        Raises
        ------
        NotSpent
            If the run had the answer for another request, the budget does not allow all of them together, or the ledger
            cannot be written. Then no budget is spent.
        """
        with self._lock_ledger() as locked_ledger:
            tally = self._tally(locked_ledger, side, facts)
            if "answer" in facts:
                draws = self._seen.draws[run_of_new(facts)]
                refused = draws.answer_refusal(facts["answer"], facts.get("request_sha256", ""))
                if refused:
                    raise NotSpent(refused)
            return self._append(locked_ledger, tally, releases, side, facts)

    def _tally(self, locked_ledger: LockedLedger, side: Side, facts: Mapping[str, Any]) -> Tally:
        """Return the account as it counts for people on a side.

        The holdout in the facts assigns them.
        """
        return self._read(locked_ledger, facts.get("holdout_sha256", "") if side in SIDES else None)

    def _append(
        self,
        locked_ledger: LockedLedger,
        tally: Tally,
        releases: Sequence[Release],
        side: Side,
        facts: Mapping[str, Any],
    ) -> list[Line]:
        """Append one line a release where the budget allows all of them.

        Raises NotSpent.
        """
        # Read and written under one lock: two processes cannot both take the last round.
        over = self._over(tally, [(side, release) for release in releases])
        if over:
            raise NotSpent(over)
        shared = {"dataset": self.dataset, **self._named(), **facts}
        if side in SIDES:
            shared["side"] = side
        else:
            shared.pop("holdout_sha256", None)
        written: list[Line] = []
        for release in releases:
            written.append(locked_ledger.append(kind=SPENT, **shared, **vars(release)))
            # The next line begins at the end of this one. Where it cannot be written, those before it still count.
            locked_ledger = locked_ledger.grown(len(written[-1].raw) + 1)
        return written

    def _named(self) -> dict[str, Any]:
        """Return the row names for a line.

        The key is made for the first such line.
        """
        if self._origin is None:
            return {}
        key = rows_key(self.folder, make=not self._seen.accounts.groups)
        return named(self._origin, keep_rows_key(self.folder, key))

    def _names(self) -> frozenset[str] | None:
        """Return the row names, None where they are unknown."""
        if self._origin is None:
            return None
        if not (self.folder / KEY).exists() and not self._seen.accounts.groups:
            return frozenset()  # no line has names yet
        return names_in(named(self._origin, rows_key(self.folder)))

    def _is_unbounded(self, spent: Tally) -> bool:
        """Return whether no ε bounds the persons' consumption."""
        return spent.rows and may_have_several_rows(self.dataset)

    def _over(self, spent: Tally, charges: Charges, whole: bool = False) -> Refusal | None:
        """Return why releases, each of a side, are refused together, or None."""
        if not self.enforced or self.budget is None or not charges:
            return None
        if self._is_unbounded(spent):
            return Refusal("budget-by-row")  # rows were counted one by one, and the budget is of persons
        over = set[tuple[float, tuple[Release, ...]]]()
        forgotten = epsilon_forgotten(self._ledger)
        budget = max(self.budget - forgotten, 0.0)
        for one in SIDES:
            # Where people may have changed sides, spending of one side counts for the other, too.
            releases = [release for side, release in charges if spent.moved or one in charged_sides(side)]
            kinds = spent.releases(one)
            if releases and not affordable([*kinds, *releases[:-1]], releases[-1], budget, self.delta):
                over.add((epsilon([*kinds, *releases], self.delta), kinds))
        if not over:
            return None
        after, kinds = max(over)
        facts = {"budget": f"{self.budget:g}", "delta": f"{self.delta:g}", "after": shown(after + forgotten)}
        now = shown(epsilon(kinds, self.delta) + forgotten)
        return Refusal("budget-of-run" if whole else "budget-spent", spent=now, **facts)

    def _read(self, locked_ledger: LockedLedger, rule: str | None = None) -> Tally:
        """Return the account by the ledger's newest lines.

        It counts for people on a side by a `rule`. Where the last line seen is gone from the ledger, all of it is read
        again.
        """
        since, continues = locked_ledger.since(self._seen.n, self._seen.hash)
        if not continues:
            self._seen = Seen()
        try:
            for line in reversed(since):
                self._seen.add(line)
        except LedgerError:
            self._seen = Seen()  # half-read lines show nothing
            raise
        if since:
            self._seen.n = since[0].n
            self._seen.hash = since[0].hash
        tally = self._seen.account(self.dataset, self._names())
        return tally if rule is None else replace(tally, rules=tally.rules | {rule})

    @contextmanager
    def _lock_ledger(self) -> Iterator[LockedLedger]:
        """Yield the locked ledger and log its errors."""
        try:
            self._prepare()
            with self._ledger.lock() as locked_ledger:
                yield locked_ledger
        except NotSpent:
            raise
        except (FlfedError, OSError) as error:
            LOG.error("%s", error)
            raise NotSpent(NO_LEDGER) from None


def epsilon_forgotten(ledger: Ledger) -> float:
    """Return the ε that counts for a lost ledger: the budget at the restart after it."""
    restarted = None if ledger.state is None else ledger.state.restarted()
    return 0.0 if restarted is None else restarted.epsilon or 0.0


def account_of_site(site: Site, ledger: Ledger, dataset: str) -> PrivacyAccount:
    """Return the account of a site's rows of one dataset, in its ledger."""
    prepare = SiteFolder(site.name).make
    return PrivacyAccount(ledger, dataset, site.policy, prepare=prepare, origin=origin_of(site))


def shown(value: float) -> str:
    """Return an ε for people, rounded up, so that it is never understated.

    Examples
    --------
    >>> shown(2.99961), shown(0), shown(0.5)
    ('3', '0', '0.5')
    """
    return f"{math.ceil(value * 1000 - 1e-9) / 1000:g}" if math.isfinite(value) else "beyond any number"
