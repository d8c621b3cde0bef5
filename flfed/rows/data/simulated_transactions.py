"""Simulated card transactions: five banks' customers, shared terminals, three kinds of fraud."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flfed.words import usage_error

if TYPE_CHECKING:
    import pandas as pd


Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

FIRST_DAY = "2026-03-01"
DAYS = 65
TERMINALS = 400
NEARBY = 12
"""Terminals of one customer, who uses the nearest ones most often."""

TERMINAL_DAYS = 28
CUSTOMER_DAYS = 14
"""Days for which a terminal, or a customer's card, is compromised."""
TERMINALS_A_DAY = 0.14
"""Expected number of newly compromised terminals a day; about 1 % of all are compromised at a time."""
TERMINAL_SHARE = 0.6
"""Share of payments that are fraud at a compromised terminal."""
CUSTOMER_CHANCE = 0.0009
"""Chance a day that a customer's card data are stolen."""
CUSTOMER_SHARE = 1 / 3
CUSTOMER_FACTOR = 4.0
"""Share of such a customer's payments that are the thief's, and the factor of their amounts."""
LARGE_CHANCE = 0.0015
LARGE = (250.0, 900.0)
"""Chance of a single large fraud, and its amount."""


@dataclass(frozen=True)
class SimulatedTransactions:
    """Transactions of one invented issuing bank, with customer, terminal, time, amount and fraud.

    Parameters
    ----------
    issuer : int, >= 1
        Number of the bank. Banks of one seed share the terminals and their compromised days. Example: `issuer=2`.
    customers : int, >= 1
        Its customers; each pays 1.8 times a day in expectation. Example: `customers=500`.
    spending : float, > 0
        Typical amount of its customers' payments. Example: `spending=60.0`.
    seed : int, >= 0
        Seed of terminals and all banks. Example: `seed=1`.
    missing : tuple of str
        As for `Csv`. Example: `missing=("unknown",)`.

    Notes
    -----
    Synthetic data for trying methods, and no evidence about real fraud. There are three patterns, of which a single
    payment shows only the first: single large amounts; terminals that are compromised for 28
    days, where most payments are fraud, whatever their amount; customers whose card is stolen for 14
    days, where a third of the payments is several times as large as usual. The same arguments give
    the same table (with the same version of numpy).

    Examples
    --------
    >>> from flfed import SimulatedTransactions
    >>> bank = SimulatedTransactions(issuer=2, customers=500)
    >>> bank.customers
    500
    """

    issuer: int
    customers: int = 300
    spending: float = 45.0
    seed: int = 2026
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse parameters out of range."""
        if self.issuer < 1 or self.customers < 1 or self.seed < 0 or not self.spending > 0:
            raise usage_error(
                    "rows.transactions.simulated", issuer=self.issuer, customers=self.customers, seed=self.seed,
                    spending=self.spending,
                )  # fmt: skip

    def read(self, folders: tuple[Path, ...] = ()) -> pd.DataFrame:
        """Return a copy of the table, sorted by time; `folders` are not used."""
        return _made(replace(self, missing=())).copy()


@lru_cache(maxsize=5)
def _made(bank: SimulatedTransactions) -> pd.DataFrame:
    """Return a bank's payments; those of the last five banks are cached."""
    import pandas as pd

    # Terminals are drawn from the seed alone, so that all banks share them.
    shared = np.random.default_rng(np.random.SeedSequence(bank.seed, spawn_key=(0,)))
    place = shared.uniform(0.0, 1.0, (TERMINALS, 2))
    stolen_at = _first_day(shared, TERMINALS, TERMINALS_A_DAY / TERMINALS)
    rng = np.random.default_rng(np.random.SeedSequence(bank.seed, spawn_key=(1, bank.issuer)))
    # Customer and day of every payment.
    often = rng.gamma(3.0, 0.6, bank.customers)
    counts = rng.poisson(often[:, None], (bank.customers, DAYS))
    customer, day = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), DAYS)
    # Customers live about their bank; the square prefers the nearest terminals.
    home = rng.uniform(0.2, 0.8, 2) + rng.normal(0.0, 0.25, (bank.customers, 2))
    far = ((home[:, None, :] - place[None, :, :]) ** 2).sum(axis=2)
    nearest = np.argsort(far, axis=1, kind="stable")[:, :NEARBY]
    terminal = nearest[customer, (NEARBY * rng.random(len(customer)) ** 2).astype(np.int64)]
    usual = bank.spending * np.exp(rng.normal(0.0, 0.5, bank.customers))
    amount = usual[customer] * rng.gamma(2.0, 0.5, len(customer))
    # The three patterns of fraud.
    rows = len(customer)
    large = rng.random(rows) < LARGE_CHANCE
    theirs = _within(day, _first_day(rng, bank.customers, CUSTOMER_CHANCE)[customer], CUSTOMER_DAYS)
    thief = theirs & (rng.random(rows) < CUSTOMER_SHARE)
    skimmed = _within(day, stolen_at[terminal], TERMINAL_DAYS) & (rng.random(rows) < TERMINAL_SHARE)
    amount = np.where(thief, CUSTOMER_FACTOR * amount, amount)
    amount = np.where(large, rng.uniform(*LARGE, rows), amount)
    hour = np.clip(rng.normal(14.0, 4.5, len(customer)), 0.0, 23.999)
    seconds = day * 86_400 + np.floor(hour * 3_600).astype(np.int64)
    table = pd.DataFrame(
        {
            "customer": [f"B{bank.issuer}-{number:05d}" for number in customer],
            "terminal": [f"T{number:04d}" for number in terminal],
            "time": pd.Timestamp(FIRST_DAY) + pd.to_timedelta(seconds, unit="s"),
            "amount": np.maximum(np.round(amount, 2), 0.5),
            "fraud": (large | thief | skimmed).astype(np.int64),
        }
    )
    return table.iloc[np.argsort(seconds, kind="stable")].reset_index(drop=True)


def _first_day(rng: np.random.Generator, count: int, chance: float) -> Integers:
    """Draw the first day of each compromise [count], up to four weeks before the first day of the table."""
    return rng.geometric(chance, count).astype(np.int64) - TERMINAL_DAYS


def _within(day: Integers, start: Integers, days: int) -> NDArray[np.bool_]:
    return (day >= start) & (day < start + days)
