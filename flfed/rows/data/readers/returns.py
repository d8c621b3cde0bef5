"""The reader of prices: what each gained from one trading day to the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flfed.errors import TableError, UsageError
from flfed.rows.data.parsing.text_files import cells_of, numbers_of
from flfed.rows.data.sources import find_file

if TYPE_CHECKING:
    import pandas as pd


class Returns:
    """Table of daily returns, a row a trading day and a column a price.

    A return is price / price of the line before - 1, so that the first line has no row.

    Parameters
    ----------
    file : str
        One of the dataset's files: CSV with a column of days and one for each price, in order of time.
    time : str
        Its column of days, as 2026-01-31.
    member : str
        Where `file` is a zip file or a wheel: the CSV in it, which may be compressed by gzip (`.gz`).
    """

    def __init__(self, *, file: str, time: str, member: str = "") -> None:
        self.file = file
        self.time = time
        self.member = member

    def read(self, folders: tuple[Path, ...]) -> pd.DataFrame:
        """Return the table, with the place of each day among all as `number`, 0 for the first.

        Raises
        ------
        TableError
            If a price is no number above 0, or days are not in order; says the column, the rule and how many.
        UsageError
            If the file or its column of days is not there.
        """
        import pandas as pd

        cells = cells_of(find_file(self.file, folders), self.member)
        if self.time not in cells:
            raise UsageError(f"{self.file}: has no column {self.time!r}")
        prices = pd.DataFrame({name: numbers_of(cells, str(name)) for name in cells if name != self.time})
        for name in prices:
            if bad := int((~(prices[name] > 0)).sum()):
                raise TableError(str(name), "has a price that is not above 0", bad)
        days = cells[self.time]
        if unordered := int((days.to_numpy()[1:] <= days.to_numpy()[:-1]).sum()):
            raise TableError(self.time, "days are not in order", unordered)
        found = (prices / prices.shift(1) - 1).iloc[1:].reset_index(drop=True)
        found.insert(0, self.time, days.iloc[1:].to_numpy())
        return found.assign(number=range(len(found)))
