"""Make the payments of the five invented banks: `python make.py FOLDER` writes one `.csv.gz` for each.

Synthetic data for trying methods, and no evidence about real fraud. Three patterns of fraud, of which a single payment
shows only the first: single large amounts; terminals that are compromised for 28 days, where most payments are fraud,
whatever their amount; customers whose card is stolen for 14 days, where a third of the payments is several times as
large as usual. All banks share the terminals, and the days on which these are compromised.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

BANKS = {"harbour": (340, 60.0), "hill": (160, 32.0), "lake": (280, 48.0), "river": (220, 38.0), "valley": (120, 55.0)}
"""Customers of each bank, and the typical amount of their payments."""
SEED = 2026
FIRST_DAY = "2026-03-01"
DAYS = 65
TERMINALS = 400
NEARBY = 12  # terminals of one customer, who uses the nearest ones most often
TERMINAL_DAYS, CUSTOMER_DAYS = 28, 14
PERIODS = (("2026-04-07", "2026-04-21 00:00:01"), ("2026-04-28", "2026-05-05"))
"""Payments that become rows, for training and for the test; the labels of the days between are not known at the cut."""
DELAY = 7  # days until a label is known
PARTS = 10_000  # sums of money are in whole ten-thousandths: exact, whatever the order of the rows
NANOSECONDS_A_DAY = 86_400 * 10**9


def payments(issuer: int, customers: int, spending: float) -> pd.DataFrame:
    """Return all payments of a bank, sorted by time."""
    # Terminals are drawn from the seed alone, so that all banks share them.
    shared = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(0,)))
    place = shared.uniform(0.0, 1.0, (TERMINALS, 2))
    stolen_at = shared.geometric(0.14 / TERMINALS, TERMINALS) - TERMINAL_DAYS
    rng = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(1, issuer)))
    often = rng.gamma(3.0, 0.6, customers)
    counts = rng.poisson(often[:, None], (customers, DAYS))
    customer, day = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), DAYS)
    # Customers live about their bank; the square prefers the nearest terminals.
    home = rng.uniform(0.2, 0.8, 2) + rng.normal(0.0, 0.25, (customers, 2))
    far = ((home[:, None, :] - place[None, :, :]) ** 2).sum(axis=2)
    nearest = np.argsort(far, axis=1, kind="stable")[:, :NEARBY]
    rows = len(customer)
    terminal = nearest[customer, (NEARBY * rng.random(rows) ** 2).astype(np.int64)]
    usual = spending * np.exp(rng.normal(0.0, 0.5, customers))
    amount = usual[customer] * rng.gamma(2.0, 0.5, rows)
    large = rng.random(rows) < 0.0015
    start = (rng.geometric(0.0009, customers) - TERMINAL_DAYS)[customer]
    thief = (day >= start) & (day < start + CUSTOMER_DAYS) & (rng.random(rows) < 1 / 3)
    start = stolen_at[terminal]
    skimmed = (day >= start) & (day < start + TERMINAL_DAYS) & (rng.random(rows) < 0.6)
    amount = np.where(thief, 4.0 * amount, amount)
    amount = np.where(large, rng.uniform(250.0, 900.0, rows), amount)
    hour = np.clip(rng.normal(14.0, 4.5, rows), 0.0, 23.999)
    seconds = day * 86_400 + np.floor(hour * 3_600).astype(np.int64)
    table = pd.DataFrame(
        {
            "customer": [f"B{issuer}-{number:05d}" for number in customer],
            "terminal": [f"T{number:04d}" for number in terminal],
            "time": pd.Timestamp(FIRST_DAY) + pd.to_timedelta(seconds, unit="s"),
            "amount": np.maximum(np.round(amount, 2), 0.5),
            "fraud": (large | thief | skimmed).astype(np.int64),
        }
    )
    return table.iloc[np.argsort(seconds, kind="stable")].reset_index(drop=True)


def with_past(rows: pd.DataFrame, history: pd.DataFrame, terminals: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return payments with what was known of customer and terminal at their moment.

    `terminals` is the history of terminals, where it is another than that of customers. A window of `d` days that ends
    at `e` holds the moments in `(e - d days, e]`. No label counts before it is known: `DELAY` days after the payment.
    """
    terminals = history if terminals is None else terminals
    weekend, night = rows["time"].dt.day_of_week.isin([5, 6]), rows["time"].dt.hour < 7
    columns = {"weekend": weekend.astype(np.int64), "night": night.astype(np.int64)}
    cents = np.rint(history["amount"].to_numpy(float) * PARTS).astype(np.int64)
    fraud = terminals["fraud"].to_numpy(np.int64)
    spent = _windows(rows, history, "customer", 0, {"count": np.ones_like(cents), "sum": cents})
    seen = _windows(rows, terminals, "terminal", DELAY, {"count": np.ones_like(fraud), "risk": fraud})
    for days in (1, 7, 30):
        columns[f"customer_count_{days}d"] = spent["count", days]
        columns[f"customer_sum_{days}d"] = spent["sum", days] / PARTS
        columns[f"terminal_count_{days}d"] = seen["count", days]
        columns[f"terminal_risk_{days}d"] = seen["risk", days] / np.maximum(seen["count", days], 1)
    names = [*list(columns)[:2], *sorted(list(columns)[2:], key=lambda name: name.rpartition("_")[0])]
    return rows.assign(**{name: columns[name] for name in names})


def _windows(rows: pd.DataFrame, history: pd.DataFrame, by: str, delay: int, values: dict) -> dict:
    """Return sums of `values` over an owner's past, by name and days: each a difference of one running sum."""
    owner = pd.factorize(pd.concat([history[by], rows[by]], ignore_index=True))[0].astype(np.int64)
    moments, rank = np.unique(history["time"].to_numpy("datetime64[ns]").astype(np.int64), return_inverse=True)
    # An owner's number and the rank of a moment fit one integer, by which all windows are slices.
    width = len(moments) + 1
    key = owner[: len(history)] * width + rank
    order = np.argsort(key, kind="stable")
    now = rows["time"].to_numpy("datetime64[ns]").astype(np.int64)

    def until(days: int) -> np.ndarray:
        place = np.searchsorted(moments, now - days * NANOSECONDS_A_DAY, side="right")
        return np.searchsorted(key[order], owner[len(history) :] * width + place, side="left")

    running = {name: np.concatenate([[0], np.cumsum(value[order])]) for name, value in values.items()}
    spans = [(name, days) for name in values for days in (1, 7, 30)]
    return {(name, days): running[name][until(delay)] - running[name][until(delay + days)] for name, days in spans}


if __name__ == "__main__":
    for number, (name, (customers, spending)) in enumerate(BANKS.items(), 1):
        paid = payments(number, customers, spending)
        chosen = np.any([paid["time"].ge(start) & paid["time"].lt(end) for start, end in PERIODS], axis=0)
        table = with_past(paid[chosen], paid)
        place = Path(sys.argv[1]) / f"{name}-bank.csv.gz"
        table.to_csv(place, index=False, compression={"method": "gzip", "mtime": 0})
