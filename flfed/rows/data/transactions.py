"""A site's transactions, turned into rows by windows over their past: counts, sums and risk.

Simulated ones are made here too: five banks' customers, shared terminals, three kinds of fraud.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from flfed.errors import TableError
from flfed.rows.data.holdout import HoldoutByTime
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.cells import refuse_cells, wall_clock
from flfed.rows.data.parsing.fields import ABSENT, NOT_NUMBER, REPEATED
from flfed.rows.data.schema import Strict, parse_settings
from flfed.rows.data.sources import Folders, Source, find_file
from flfed.words import render, usage_error

if TYPE_CHECKING:
    import pandas as pd

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

NANOSECONDS_A_DAY = 86_400 * 10**9
PARTS = 10_000
"""Sums of money are in whole ten-thousandths: exact, whatever the order of the rows."""


class Window(Strict):
    """Columns that look back over one owner's transactions, one for each length.

    Attributes
    ----------
    by : str
        Column of the owner, such as the customer: only rows with the same cell count.
        Example: `by = "customer"`.
    what : {"count", "sum", "mean", "risk"}
        `count`, `sum` and `mean` include the transaction itself and others of the same moment.
        `risk` is the share of known labels that are positive, 0 where none is known.
    of : str
        Column of `sum` and `mean`, rounded to ten-thousandths. Example: `of = "amount"`.
    days : tuple of int, each >= 1
        Lengths; a window of `d` days that ends at `e` holds the moments in `(e - d days, e]`.
        Example: `days = [1, 7, 30]`.
    delayed : bool
        Whether the window ends `label-delay-days` before the transaction. A `risk` always does.
    """

    by: str
    what: Literal["count", "sum", "mean", "risk"]
    of: str = ""
    days: tuple[int, ...] = Field(min_length=1)
    delayed: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if any(days < 1 for days in self.days):
            raise ValueError(render("rows.transactions.days"))
        if (self.what in ("sum", "mean")) != bool(self.of):
            if self.of:
                raise ValueError(render("rows.transactions.needless", what=self.what))
            raise ValueError(render("rows.transactions.columnless", what=self.what))
        return self


class Calendar(Strict):
    """A flag that depends on the moment alone.

    Attributes
    ----------
    weekdays : tuple of int, 0 (Monday) to 6
        1 on these days. Example: `weekdays = [5, 6]`.
    hours : (first, last) or None
        1 from the hour `first` until before `last`. Example: `hours = [0, 7]`.
    """

    weekdays: tuple[int, ...] = ()
    hours: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if bool(self.weekdays) == (self.hours is not None):
            raise ValueError(render("rows.transactions.calendar"))
        if any(not 0 <= day <= 6 for day in self.weekdays):
            raise ValueError(render("rows.transactions.weekdays"))
        if self.hours is not None and not 0 <= self.hours[0] < self.hours[1] <= 24:
            raise ValueError(render("rows.transactions.hours"))
        return self


class Windows(Strict):
    """The declaration in `transactions.toml`: columns that a transaction gets from its past.

    Attributes
    ----------
    format : {1}
        Version of the file's format.
    time, amount, label : str
        Columns of the moment, of the money and of the label.
        Examples: `time = "time"`, `amount = "amount"`, `label = "fraud"`.
    positive, negative : str
        Cells of the label that mean fraud and no fraud; an empty cell is a label not known yet.
        Examples: `positive = "yes"`, `negative = "no"`.
    label_delay_days : int, >= 0
        Days until a transaction's label is known; at least 1 where a window is a risk, which would
        else count the label of the transaction itself. Example: `label-delay-days = 7`.
    calendar : dict of column to Calendar
        Flags that depend on the moment alone. Example: `calendar.weekend = { weekdays = [5, 6] }`.
    windows : dict of column to Window
        `{days}` in a name stands for the length.
        Example: `windows."count_{days}d" = { by = "customer", what = "count", days = [1, 7] }`.
    """

    format: Literal[1] = 1
    time: str
    amount: str
    label: str
    positive: str = "1"
    negative: str = "0"
    label_delay_days: int = Field(ge=0)
    calendar: dict[str, Calendar] = {}
    windows: dict[str, Window]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        made = self.made()
        if len(set(made)) < len(made) or set(made) & set(self.taken()):
            raise ValueError(render("rows.transactions.twice", place="{days}"))
        if self.positive == self.negative:
            raise ValueError(render("rows.transactions.label", label=self.positive))
        if not self.label_delay_days and any(window.what == "risk" for window in self.windows.values()):
            raise ValueError(render("rows.transactions.delay"))
        return self

    def owners(self) -> tuple[str, ...]:
        """Return the distinct columns of owners."""
        return tuple(dict.fromkeys(window.by for window in self.windows.values()))

    def summed(self) -> tuple[str, ...]:
        """Return the columns of numbers: the amount, and those that windows sum."""
        return tuple(dict.fromkeys([self.amount, *(window.of for window in self.windows.values() if window.of)]))

    def taken(self) -> tuple[str, ...]:
        """Return the required columns of transactions."""
        return tuple(dict.fromkeys([*self.owners(), self.time, *self.summed(), self.label]))

    def needed(self, by: str) -> tuple[str, ...]:
        """Return the columns that one owner's windows read."""
        own = [window for window in self.windows.values() if window.by == by]
        labels = [self.label for window in own if window.what == "risk"]
        return tuple(dict.fromkeys([by, self.time, *(window.of for window in own if window.of), *labels]))

    def made(self) -> tuple[str, ...]:
        """Return the computed columns, in order."""
        windows: list[str] = []
        for name, window in self.windows.items():
            windows += [name.replace("{days}", str(days)) for days in window.days]
        return (*self.calendar, *windows)


class _History:
    """Transactions sorted by owner and moment, so that every window is a slice.

    Parameters
    ----------
    owner, moment : int [rows]
        Of all transactions; a code from 0 on, and nanoseconds.
    wanted_owner, wanted_moment : int [wanted]
        Of those whose past is wanted.
    """

    def __init__(self, owner: Integers, moment: Integers, wanted_owner: Integers, wanted_moment: Integers) -> None:
        self.moments, rank = np.unique(moment, return_inverse=True)
        # Ranks instead of moments: an owner's code and a moment fit one integer for any length of time.
        self.width = len(self.moments) + 1
        key = owner * self.width + rank
        self.order = np.argsort(key, kind="stable")
        self.key = key[self.order]
        # Neighbours in the search are neighbours in memory, which is much faster than the table's order.
        self.wanted_order = np.lexsort((wanted_moment, wanted_owner))
        self.wanted_owner = wanted_owner[self.wanted_order]
        self.wanted_moment = wanted_moment[self.wanted_order]
        self._counts_by_days: dict[int, Integers] = {}

    def until(self, days: int) -> Integers:
        """Count the sorted rows before the first of the same owner later than `days` before each [wanted]."""
        if days not in self._counts_by_days:
            rank = np.searchsorted(self.moments, self.wanted_moment - days * NANOSECONDS_A_DAY, side="right")
            self._counts_by_days[days] = np.searchsorted(self.key, self.wanted_owner * self.width + rank, side="left")
        return self._counts_by_days[days]

    def within(self, values: Integers, longest: int, shortest: int) -> Integers:
        """Sum `values` [rows] from `longest` to `shortest` days before each [wanted]."""
        # Sums over slices are differences of one running sum, which is exact in integers.
        running = np.concatenate([[0], np.cumsum(values[self.order])])
        totals = np.empty(len(self.wanted_order), dtype=np.int64)
        totals[self.wanted_order] = running[self.until(shortest)] - running[self.until(longest)]
        return totals


def look_back(
    table: pd.DataFrame,
    declared: Windows,
    wanted: NDArray[np.bool_],
    histories: Mapping[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Compute the declared columns of wanted transactions, in the table's order.

    Parameters
    ----------
    table : DataFrame
        All transactions, in any order: `declared.taken()` with moments as datetime64,
        amounts as float64, and labels as float64 0, 1 or NaN where not known.
    declared : Windows
    wanted : bool [rows]
        Transactions that become rows; all others are history.
    histories : mapping of owner column to DataFrame, optional
        Transactions of these owners, in place of `table`.

    Returns
    -------
    columns : DataFrame [wanted rows, declared.made()], index as in `table`
        Counts and flags int64; sums, means and risk float64.

    Notes
    -----
    By sorting and binary search, so that the time grows as rows times their logarithm for any
    lengths of windows.

    Guarantee: no column of a transaction at `t` depends on a transaction after `t`, nor on the
    label of one after `t` minus the delay.
    Source: the counts, means and risk of Le Borgne, Siblini, Lebichot and Bontempi 2022,
    "Reproducible machine learning for credit card fraud detection: practical handbook", chapter 3.
    """
    import pandas as pd

    columns: dict[str, NDArray[np.number]] = {
        name: _flag(table.loc[wanted, declared.time], rule) for name, rule in declared.calendar.items()
    }
    moments = _nanoseconds(table[wanted], declared)
    for by in declared.owners():
        # An owner with a feed looks back over the feed, and not over the site's own transactions.
        past = (histories or {}).get(by, table)
        # Codes are computed over both tables at once, so that an owner has one code in both.
        owner = pd.factorize(pd.concat([past[by], table.loc[wanted, by]], ignore_index=True))[0].astype(np.int64)
        history = _History(owner[: len(past)], _nanoseconds(past, declared), owner[len(past) :], moments)
        for name, window in declared.windows.items():
            if window.by == by:
                columns |= _lengths(name, window, history, past, declared)
    return pd.DataFrame({name: columns[name] for name in declared.made()}, index=table.index[wanted])


def _nanoseconds(table: pd.DataFrame, declared: Windows) -> Integers:
    return table[declared.time].to_numpy("datetime64[ns]").astype(np.int64)


def _lengths(
    name: str, window: Window, history: _History, past: pd.DataFrame, declared: Windows
) -> dict[str, NDArray[np.number]]:
    """Return the column of each length of one window."""
    under = np.ones(len(past), dtype=np.int64)
    over = under
    if window.what == "risk":
        label = past[declared.label].to_numpy(float)
        over = (label == 1).astype(np.int64)
        under = (~np.isnan(label)).astype(np.int64)
    elif window.of:
        over = np.rint(past[window.of].to_numpy(float) * PARTS).astype(np.int64)
    # A label becomes known after the delay.
    end = declared.label_delay_days if window.delayed or window.what == "risk" else 0
    columns: dict[str, NDArray[np.number]] = {}
    for days in window.days:
        value: NDArray[np.number] = history.within(over, end + days, end)
        if window.of:
            value = value / PARTS
        if window.what in ("mean", "risk"):
            # Without a known label, or any transaction, the share is 0 and not 0 / 0.
            value = value / np.maximum(history.within(under, end + days, end), 1)
        columns[name.replace("{days}", str(days))] = value
    return columns


def _flag(moments: pd.Series, rule: Calendar) -> Integers:
    if rule.hours is not None:
        return np.asarray(moments.dt.hour.between(rule.hours[0], rule.hours[1] - 1), dtype=np.int64)
    return np.asarray(moments.dt.day_of_week.isin(rule.weekdays), dtype=np.int64)


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
            raise usage_error("rows.transactions.simulated", **vars(self))

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


Raw = Source | SimulatedTransactions


@dataclass(frozen=True)
class Transactions:
    """Transactions of one institution, each with columns over its past.

    Parameters
    ----------
    source : Csv, Parquet, Sql, Frame or SimulatedTransactions
        One line a transaction. All lines are history; the holdout defines which become rows.
        Example: `source=Parquet("payments.parquet")`.
    columns : mapping of the declaration's column to own column, optional
        Columns that are not keys are read under their own name. Example: `columns={"customer": "CUST_ID"}`.
    keep : str or callable (DataFrame) → bool Series, optional
        Condition for this institution's transactions, where the source holds others too, under the
        declaration's names: `"customer // 1000 == 2"`, as `DataFrame.eval` reads it. A function
        of a site's own folder does the same, but engine "ray" cannot send it to its processes.
        Example: `keep="customer // 1000 == 2"`.
    feeds : mapping of owner column to source, optional
        Other source for the history of these owners, under the declaration's names: such as
        `{"terminal": Parquet(...)}` with a card scheme's report on every terminal to its members.
        Without it a terminal's risk counts this institution's own transactions only. The
        institution alone decides on it here: no study and no server can set it, and
        `flfed site check` names it. Example: `feeds={"terminal": Parquet("terminals.parquet")}`.
    windows : str
        The declaration, a file in the site's or the dataset's folder. Example: `windows="windows-2026.toml"`.

    Notes
    -----
    All of this happens at the site, and nothing of it is in a message. A terminal's transactions at other
    institutions are known here only through a feed from outside of flfed. Moments that name a time
    zone are in UTC, all others as they are written, in the table and in its feeds.

    Examples
    --------
    >>> from flfed import Parquet, Transactions
    >>> payments = Transactions(Parquet("payments.parquet"), columns={"amount": "AMOUNT_EUR"})
    >>> payments.windows
    'transactions.toml'
    """

    source: Raw
    columns: Mapping[str, str] = field(default_factory=dict)
    keep: str | Callable[[pd.DataFrame], pd.Series] | None = None
    feeds: Mapping[str, Raw] = field(default_factory=dict)
    windows: str = "transactions.toml"

    def __post_init__(self) -> None:
        """Refuse an object that is no source."""
        for source in (self.source, *self.feeds.values()):
            if not isinstance(source, Raw):
                raise usage_error("rows.transactions.source", source=source)

    @property
    def missing(self) -> tuple[str, ...]:
        """The source's cells that mean "not known"."""
        return self.source.missing

    def read(self, folders: Folders, holdout: object = None) -> pd.DataFrame:
        """Return the transactions that the holdout uses, with the declared columns.

        Parameters
        ----------
        folders : tuple of Path
            Folders of relative paths.
        holdout : HoldoutByTime or None
            Transactions outside of its two periods are history only; None returns every one.

        Raises
        ------
        UsageError
            If training labels would be used before they were known, or files cannot be read.
        TableError
            If a transaction has no moment, amount or owner.
        """
        import pandas as pd

        declared = parse_settings(Windows, find_file(self.windows, folders))
        unknown = [name for name in self.feeds if name not in declared.owners()]
        if unknown:
            owners = ", ".join(declared.owners())
            raise usage_error("rows.transactions.feeds", feed=unknown[0], owners=owners)
        # Labels not known in time would make the model look better than it is.
        if isinstance(holdout, HoldoutByTime):
            refuse_unknown_labels(holdout, declared)
        table = self._own(self._read(self.source, self.columns, declared, folders))
        history = checked(table, declared, declared.taken())
        # Every transaction is history, but only those of the two periods become rows.
        wanted = np.ones(len(table), dtype=bool)
        if isinstance(holdout, HoldoutByTime):
            wanted = np.logical_or(*holdout.periods(history[declared.time]))
        feeds = {}
        for by, feed in self.feeds.items():
            feeds[by] = checked(self._read(feed, {}, declared, folders), declared, declared.needed(by))
        made = look_back(history, declared, wanted, feeds)
        return pd.concat([table[wanted], made], axis=1).reset_index(drop=True)

    def _own(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the transactions that `keep` selects."""
        if self.keep is None:
            return table
        choose = partial(table.eval, self.keep) if isinstance(self.keep, str) else partial(self.keep, table)
        try:
            selection = np.asarray(choose())
        except (ArithmeticError, AttributeError, LookupError, NameError, SyntaxError, TypeError, ValueError) as error:
            # Its text is left out: pandas quotes cells.
            raise usage_error("rows.transactions.keep", error=type(error).__name__) from None
        if selection.dtype != np.bool_ or selection.shape != (len(table),):
            raise usage_error("rows.transactions.flags")
        return table[selection].reset_index(drop=True)

    def _read(self, source: Raw, columns: Mapping[str, str], declared: Windows, folders: Folders) -> pd.DataFrame:
        """Return a source's table under the declaration's names."""
        wrong = [name for name in columns if name not in declared.taken()]
        if wrong:
            columns_taken = ", ".join(declared.taken())
            raise usage_error("rows.transactions.columns", column=wrong[0], columns=columns_taken)
        table = source.read(folders).reset_index(drop=True)
        table = table.rename(columns={own: name for name, own in columns.items()})
        if isinstance(source, Source) and source.missing:
            table = table.where(~table.isin(source.missing))
        return table


def checked(table: pd.DataFrame, declared: Windows, needed: tuple[str, ...]) -> pd.DataFrame:
    """Check and convert the columns of transactions.

    Returns moments, numbers, labels and owners as `look_back` takes them.

    Parameters
    ----------
    table : DataFrame
        Cells of any kind: text from CSV, dates and numbers from Parquet or a database.
    declared : Windows
    needed : tuple of str
        Columns of the declaration to convert.

    Raises
    ------
    TableError
        For a column that is absent or occurs twice, and for cells that cannot be used; with a
        count, never a cell.

    Notes
    -----
    Owners become text, so that terminal 7 of a database is terminal "7" of a feed in CSV.
    """
    import pandas as pd

    columns = {}
    for name in needed:
        if (table.columns == name).sum() != 1:
            rule = REPEATED if name in table else ABSENT
            raise TableError(name, rule)
        cells = table[name].reset_index(drop=True)
        # Each column is read by its part in the declaration, whatever its type in the source.
        if name == declared.time:
            columns[name] = wall_clock(cells)
            rule = "is not a date such as 2026-01-31 14:05:00"
        elif name == declared.label:
            columns[name] = _labels(cells, name, declared)
            rule = ""
        elif name in declared.summed():
            columns[name] = pd.to_numeric(cells, errors="coerce").astype(float)
            rule = NOT_NUMBER
        else:
            columns[name] = plain_text(cells)
            rule = "has no value"
        bad = columns[name].isna()
        if columns[name].dtype.kind == "f":
            bad = bad | np.isinf(columns[name])
        if rule:
            refuse_cells(name, rule, bad)
    return pd.DataFrame(columns)


def _labels(cells: pd.Series, name: str, declared: Windows) -> pd.Series:
    """Convert labels to 1 for the positive cell, 0 for the negative one, NaN where not known yet."""
    text = plain_text(cells)
    # Any other code, taken for no fraud, would silently make every risk 0.
    other = text.notna() & ~text.isin([declared.positive, declared.negative])
    rule = f"is neither {declared.positive!r} nor {declared.negative!r} as the windows' file declares it"
    refuse_cells(name, rule, other)
    return (text == declared.positive).astype(float).where(text.notna())


def refuse_unknown_labels(holdout: HoldoutByTime, declared: Windows) -> None:
    """Refuse training on labels that are not known when the holdout's test period begins.

    Raises
    ------
    UsageError
        With the gap that is needed; also if holdout and windows have different columns of time.
    """
    import pandas as pd

    if holdout.column != declared.time:
        raise usage_error("rows.transactions.time", column=holdout.column, time=declared.time)
    delay = declared.label_delay_days
    test_from = holdout.test_from
    first = pd.Timestamp(test_from) - pd.Timedelta(days=delay)
    last = holdout.last_training()
    if last > first:
        raise usage_error(
            "rows.transactions.gap", delay=delay, first=first.date(), last=last.date(), test_from=test_from
        )
