"""The reader of prices: the return of each from one trading day to the next."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from flfed.rows.data.parsing.cells import refuse_cells
from flfed.rows.data.parsing.text_files import cells_of, numbers_of
from flfed.rows.data.sources import Folders, find_file
from flfed.words import render, usage_error


@dataclass(kw_only=True)
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

    file: str
    time: str
    member: str = ""

    def read(self, folders: Folders) -> pd.DataFrame:
        """Return the table, with the place of each day among all as `number`, 0 for the first.

        Raises
        ------
        TableError
            If a price is no number above 0, or days are not in order; with column, rule and count.
        UsageError
            If the file or its column of days is not there.
        """
        cells = cells_of(find_file(self.file, folders), self.member)
        if self.time not in cells:
            raise usage_error("rows.reader.column", file=self.file, column=self.time)
        prices = pd.DataFrame({name: numbers_of(cells, str(name)) for name in cells if name != self.time})
        for name in prices:
            refuse_cells(str(name), render("rows.reader.price"), ~(prices[name] > 0))
        days = cells[self.time]
        refuse_cells(self.time, render("rows.reader.order"), days.to_numpy()[1:] <= days.to_numpy()[:-1])
        returns = (prices / prices.shift(1) - 1).iloc[1:].reset_index(drop=True)
        returns.insert(0, self.time, days.iloc[1:].to_numpy())
        return returns.assign(number=range(len(returns)))
