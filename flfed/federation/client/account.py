"""Privacy account of a site: what all runs over the years have spent of a person's privacy, in all tables together.

A run is charged whole, at what its approval says, before its first request with noise is answered. One that breaks off
stays charged, each repeat is a charge, and the same run is charged once. Neighbours differ by one person.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

from safetensors.numpy import load, save

from flfed.callbacks import now_utc, stamp
from flfed.errors import FlfedError
from flfed.paths import SiteFolder
from flfed.records.ledger_line import Run
from flfed.records.site_state import SiteState, Step, reading
from flfed.refusals import NO_LEDGER, NotSpent, Refusal
from flfed.rows.data.policy import Policy
from flfed.updates.accounting import Release, epsilon
from flfed.updates.arrays import Arrays

LOG = logging.getLogger("flfed.site")
SPENT = "spent"
"""The kind of a ledger's line for the charge of a run."""
MOST_RUNS = 1000
"""Runs that are counted ahead; more are called as many as these."""


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What one run spends at a site.

    Attributes
    ----------
    study_sha256, run, repeat
        The run; `study` and `dataset` are its names.
    unit : {"person", "row"}
        "row" where a person may have several and each is protected by itself, so that no ε bounds the person's loss.
    delta : float
        Of the study's own promise.
    given_encoder : bool
        Whether a row moves the encoder too, which no ε counts.
    releases : tuple of Release
        All of the run.
    at : str
        When it was charged, UTC; "" before.
    """

    study_sha256: str
    run: str
    repeat: int
    study: str = ""
    dataset: str = ""
    unit: str = "person"
    delta: float
    given_encoder: bool = False
    releases: tuple[Release, ...]
    at: str = ""

    @property
    def key(self) -> Run:
        """What identifies the run."""
        return self.study_sha256, self.run, self.repeat

    def facts(self) -> dict[str, Any]:
        """Return the facts of its line in the ledger."""
        spent = epsilon(self.releases, self.delta)
        return {**asdict(self), "epsilon": spent if math.isfinite(spent) else None}


@dataclass(frozen=True)
class Spent:
    """What a site has spent: charges since its ledger was last begun anew, and the ε that counts for those before."""

    charges: tuple[Charge, ...] = ()
    before: float = 0.0
    restarted: str = ""

    def epsilon(self, delta: float, more: Sequence[Release] = (), times: int = 1) -> float:
        """Return the ε of all of it and `more`, so many times; infinite where rows of persons were protected singly."""
        if any(charge.unit == "row" for charge in self.charges):
            return math.inf
        releases = [release for charge in self.charges for release in charge.releases]
        return self.before + epsilon([*releases, *(Release(r.noise, r.sampling, times * r.steps) for r in more)], delta)

    def runs_left(self, policy: Policy, releases: Sequence[Release]) -> int | None:
        """Return how many such runs still fit, at most 1000; None where no budget is set."""
        if policy.epsilon is None:
            return None
        most, times = policy.epsilon * (1 + 1e-9), range(1, MOST_RUNS + 1)
        return bisect_right(times, False, key=lambda runs: self.epsilon(policy.delta, releases, runs) > most)


class Account:
    """Privacy account of one site.

    Parameters
    ----------
    state : SiteState
        It has the charges, and takes a line of the ledger with each.
    policy : Policy
        With the budget: `institution` enforces it, `open` records and never refuses.

    Guarantee: all charges together are within the budget, also of several processes at once: a charge is added in the
    transaction in which all earlier ones were read.
    """

    def __init__(self, state: SiteState, policy: Policy) -> None:
        self._state = state
        self.policy = policy

    def spent(self) -> Spent:
        """Return what was spent so far; raises NotSpent where it cannot be read."""
        with self._transaction() as step:
            return _read(step.tables)

    def refusal(self, spent: Spent, charge: Charge) -> Refusal | None:
        """Return why a charge does not fit beside what was spent; None where it does, or the run was charged."""
        budget = self.policy.epsilon
        if not self.policy.enforces_budget or budget is None or _is_charged(spent, charge):
            return None
        delta = self.policy.delta
        before, after = spent.epsilon(delta), spent.epsilon(delta, charge.releases)
        if math.isinf(before):
            return Refusal("budget-by-row")  # rows were protected one by one, and the budget is of persons
        # A budget that the run's noise was made for is not missed by a rounding.
        if after <= budget * (1 + 1e-9):
            return None
        return Refusal(
            "budget-spent", spent=shown(before), budget=f"{budget:g}", delta=f"{delta:g}", after=shown(after)
        )

    def charge(self, charge: Charge, *, draws: int | None = None) -> None:
        """Charge a run, once; it is on the disk when this returns.

        `draws` is the round whose noise is drawn now, and never again in this run.

        Raises
        ------
        NotSpent
            If it does not fit, cannot be recorded, or the noise was drawn before. Then nothing is charged.
        """
        with self._transaction() as step:
            self._charge(step, charge)
            # Each draw of a round is a request of its own.
            mine = secrets.token_hex(16)
            if draws is not None and _draw(step.tables, charge.key, str(draws), mine, bytes)[0] != mine:
                raise NotSpent(Refusal("round-drawn", round=draws))

    def answer(self, charge: Charge, question: str, request: str, noised: Callable[[], Arrays]) -> Arrays:
        """Return an answer's numbers, whose noise is drawn once in a run; the same request gets them again.

        Raises
        ------
        NotSpent
            As of `charge`, or if they were drawn for another request.
        """
        with self._transaction() as step:
            self._charge(step, charge)
            of, numbers = _draw(step.tables, charge.key, question, request, lambda: save(noised()))
            if of != request:
                raise NotSpent(Refusal("answer-drawn"))
            return dict(load(numbers))

    def _charge(self, step: Step, charge: Charge) -> None:
        spent = _read(step.tables)
        if why := self.refusal(spent, charge):
            raise NotSpent(why)
        if _is_charged(spent, charge):
            return
        facts = charge.facts()
        # A clock that was set back does not bring a charge before the beginning of the account.
        facts["at"] = max(stamp(now_utc()), spent.restarted)
        step.tables.execute("INSERT INTO charges VALUES (?, ?, ?, ?, ?)", [*charge.key, facts["at"], json.dumps(facts)])
        step.append(kind=SPENT, **{name: fact for name, fact in facts.items() if name != "at"})

    @contextmanager
    def _transaction(self) -> Iterator[Step]:
        try:
            with self._state.transaction() as step:
                yield step
        except NotSpent:
            raise
        except (FlfedError, OSError) as error:
            LOG.error("%s", error)
            raise NotSpent(NO_LEDGER) from None


def spent_at(folder: SiteFolder) -> Spent:
    """Return what a site has spent, for people: nothing is written, and nothing was where there is no state yet.

    Raises
    ------
    LedgerError
        If it cannot be read.
    """
    with reading(folder) as tables:
        return Spent() if tables is None else _read(tables)


def _draw(
    tables: sqlite3.Connection, run: Run, step: str, request: str, numbers: Callable[[], bytes]
) -> tuple[str, bytes]:
    """Return the request and the numbers for which noise was drawn in this run, or is drawn now."""
    which = "study_sha256 = ? AND run = ? AND repeat = ? AND step = ?"
    found = tables.execute(f"SELECT request, numbers FROM drawn WHERE {which}", [*run, step]).fetchone()
    if found is None:
        found = request, numbers()
        tables.execute("INSERT INTO drawn VALUES (?, ?, ?, ?, ?, ?)", [*run, step, *found])
    return found[0], found[1]


def _read(tables: sqlite3.Connection) -> Spent:
    before, restarted = tables.execute("SELECT TOTAL(epsilon), COALESCE(MAX(at), '') FROM restarts").fetchone()
    rows = tables.execute("SELECT facts FROM charges WHERE at >= ? ORDER BY rowid", [restarted]).fetchall()
    return Spent(tuple(_charge_of(json.loads(facts)) for (facts,) in rows), before, restarted)


def _charge_of(facts: dict[str, Any]) -> Charge:
    named = {one.name: facts[one.name] for one in fields(Charge)}
    return Charge(**named | {"releases": tuple(Release(**release) for release in facts["releases"])})


def _is_charged(spent: Spent, charge: Charge) -> bool:
    return any(one.key == charge.key for one in spent.charges)


def shown(value: float) -> str:
    """Return an ε for people, rounded up, so that it is never understated.

    Examples
    --------
    >>> shown(2.99961), shown(0), shown(0.5)
    ('3', '0', '0.5')
    """
    return f"{math.ceil(value * 1000 - 1e-9) / 1000:g}" if math.isfinite(value) else "beyond any number"
