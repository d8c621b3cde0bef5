"""Sources of a site's transactions.

They are read, checked, and turned into rows by the dataset's windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flfed.errors import TableError, UsageError
from flfed.rows.data.holdout import HoldoutByTime
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.cells import wall_clock
from flfed.rows.data.schema import parse_settings
from flfed.rows.data.sources import Source, find_file
from flfed.rows.data.transactions.simulated import SimulatedTransactions
from flfed.rows.data.transactions.windows import Windows, look_back

if TYPE_CHECKING:
    import pandas as pd

Raw = Source | SimulatedTransactions


@dataclass(frozen=True)
class Transactions:
    """Transactions of one institution.

    Each comes with what was known of the past at its moment.

    Parameters
    ----------
    source : Csv, Parquet, Sql, Frame or SimulatedTransactions
        One line a transaction. Everything in it is history; the holdout says which become rows.
        Example: `source=Parquet("payments.parquet")`.
    columns : mapping of the declaration's column to own column, optional
        Columns that are not keys are read under their own name. Example: `columns={"customer": "CUST_ID"}`.
    keep : str or callable (DataFrame) → bool Series, optional
        Which transactions are this institution's, where the source holds others too, under the
        declaration's names: `"customer // 1000 == 2"`, as `DataFrame.eval` reads it. A function
        of a site's own folder does the same, but engine "ray" cannot send it to its processes.
        Example: `keep="customer // 1000 == 2"`.
    feeds : mapping of owner column to source, optional
        Where the history of these owners stands instead, under the declaration's names: such as
        `{"terminal": Parquet(...)}`, what a card scheme tells its members of every terminal.
        Without it a terminal's risk counts this institution's own transactions only. The
        institution alone decides on it, here: no study and no server can set it, and
        `flfed site check` names it. Example: `feeds={"terminal": Parquet("terminals.parquet")}`.
    windows : str
        The declaration, a file in the site's or the dataset's folder. Example: `windows="windows-2026.toml"`.

    Notes
    -----
    All of this happens at the site. Nothing of it crosses: what a terminal did at other
    institutions is known here only if a feed outside of flfed brings it. Moments that name a time
    zone are taken in UTC, all others as they are written, in the table and in its feeds.
    """

    source: Raw
    columns: Mapping[str, str] = field(default_factory=dict)
    keep: str | Callable[[pd.DataFrame], pd.Series] | None = None
    feeds: Mapping[str, Raw] = field(default_factory=dict)
    windows: str = "transactions.toml"

    def __post_init__(self) -> None:
        """Refuse what is no source."""
        for source in (self.source, *self.feeds.values()):
            if not isinstance(source, Raw):
                raise UsageError(
                    f"Transactions: source={source!r} must be a Csv, Parquet, Sql, Frame or SimulatedTransactions"
                )

    @property
    def missing(self) -> tuple[str, ...]:
        """Cells that mean "not known", as the source says."""
        return self.source.missing

    def read(self, folders: tuple[Path, ...], holdout: object = None) -> pd.DataFrame:
        """Return the transactions that the holdout uses.

        They have the declared columns too.

        Parameters
        ----------
        folders : tuple of Path
            Where relative paths are looked for.
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
            raise UsageError(f"Transactions: feeds[{unknown[0]!r}] must be one of {', '.join(declared.owners())}")
        # Labels that were not known in time would make the model look better than it can be.
        if isinstance(holdout, HoldoutByTime):
            refuse_unknown_labels(holdout, declared)
        table = self._own(self._read(self.source, self.columns, declared, folders))
        known = checked(table, declared, declared.taken())
        # Every transaction is history, but only those of the two periods become rows.
        wanted = np.ones(len(table), dtype=bool)
        if isinstance(holdout, HoldoutByTime):
            wanted = np.logical_or(*holdout.periods(known[declared.time]))
        made = look_back(known, declared, wanted, {by: self._feed(by, declared, folders) for by in self.feeds})
        return pd.concat([table[wanted], made], axis=1).reset_index(drop=True)

    def _own(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the transactions that `keep` leaves."""
        if self.keep is None:
            return table
        try:
            chosen = table.eval(self.keep) if isinstance(self.keep, str) else self.keep(table)
            kept = np.asarray(chosen)
        except (ArithmeticError, AttributeError, LookupError, NameError, SyntaxError, TypeError, ValueError) as error:
            # Its text is left out: pandas quotes cells.
            raise UsageError(f"Transactions: keep cannot be used on the table ({type(error).__name__})") from None
        if kept.dtype != np.bool_ or kept.shape != (len(table),):
            raise UsageError("Transactions: keep must give True or False for each row of the table")
        return table[kept].reset_index(drop=True)

    def _feed(self, by: str, declared: Windows, folders: tuple[Path, ...]) -> pd.DataFrame:
        needed = declared.needed(by)
        return checked(self._read(self.feeds[by], {}, declared, folders), declared, needed)

    def _read(
        self, source: Raw, columns: Mapping[str, str], declared: Windows, folders: tuple[Path, ...]
    ) -> pd.DataFrame:
        """Return a source's table under the declaration's names."""
        wrong = [name for name in columns if name not in declared.taken()]
        if wrong:
            raise UsageError(f"Transactions: columns[{wrong[0]!r}] must be one of {', '.join(declared.taken())}")
        table = source.read(folders).reset_index(drop=True)
        table = table.rename(columns={own: name for name, own in columns.items()})
        if isinstance(source, Source) and source.missing:
            table = table.mask(table.isin(source.missing))
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
        Which of the declaration's columns.

    Raises
    ------
    TableError
        For a column that is absent or stands twice, and for cells that cannot be used; with a
        count, never a cell.

    Notes
    -----
    Owners become text, so that terminal 7 of a database is terminal "7" of a feed in CSV.
    """
    import pandas as pd

    found = {}
    for name in needed:
        if (table.columns == name).sum() != 1:
            wrong = "stands in the table more than once" if name in table else "is not in the table"
            raise TableError(name, wrong)
        cells = table[name].reset_index(drop=True)
        # Each column is read by its part in the declaration, whatever its type in the source.
        if name == declared.time:
            found[name] = wall_clock(cells)
            rule = "is not a date such as 2026-01-31 14:05:00"
        elif name == declared.label:
            found[name] = _labels(cells, name, declared)
            rule = ""
        elif name in declared.summed():
            found[name] = pd.to_numeric(cells, errors="coerce").astype(float)
            rule = "is not a number"
        else:
            found[name] = plain_text(cells)
            rule = "has no value"
        bad = found[name].isna()
        if found[name].dtype.kind == "f":
            bad = bad | np.isinf(found[name])
        if rule and bad.any():
            raise TableError(name, rule, int(bad.sum()))
    return pd.DataFrame(found)


def _labels(cells: pd.Series, name: str, declared: Windows) -> pd.Series:
    """Convert labels to numbers.

    1 for the positive cell, 0 for the negative one, NaN where the label is not known yet.
    """
    text = plain_text(cells)
    # Any other code, taken for no fraud, would make a risk of 0 everywhere without a word.
    other = text.notna() & ~text.isin([declared.positive, declared.negative])
    if other.any():
        rule = f"is neither {declared.positive!r} nor {declared.negative!r} as the windows' file declares it"
        raise TableError(name, rule, int(other.sum()))
    return (text == declared.positive).astype(float).where(text.notna())


def refuse_unknown_labels(holdout: HoldoutByTime, declared: Windows) -> None:
    """Refuse training on labels not known in time.

    They must be known when the holdout's test period begins.

    Raises
    ------
    UsageError
        Says which gap is needed, or that the holdout looks at another column than the windows.
    """
    import pandas as pd

    if holdout.column != declared.time:
        raise UsageError(f"holdout: column={holdout.column!r} must be {declared.time!r}, as the windows' file declares")
    first = pd.Timestamp(holdout.test_from) - pd.Timedelta(days=declared.label_delay_days)
    if holdout.last_training() > first:
        raise UsageError(
            f"holdout: labels are known {declared.label_delay_days} days late, so training rows must end at "
            f"{first:%Y-%m-%d}, not {holdout.last_training():%Y-%m-%d}; set "
            f"HoldoutByTime(train_until={holdout.test_from!r}, gap_days={declared.label_delay_days})"
        )
