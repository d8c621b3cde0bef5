"""Opt-outs of people from a site's table.

Their rows go before anything else is done with the table.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flfed.errors import UsageError
from flfed.files import read_private
from flfed.rows.data import datasets
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Folders, Frame, Part
from flfed.rows.data.transactions import Raw, Transactions

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Exclusion:
    """The effect of an opt-out list, in counts only.

    Attributes
    ----------
    listed, found : int
        Different identifiers on the list, and those of them that stand in the table.
    rows : int
        Rows that went.
    sha256 : str
        Of the list, so that a longer one shows.
    """

    listed: int
    found: int
    rows: int
    sha256: str = field(default="", compare=False)


@dataclass(frozen=True)
class Resting:
    """Counts of withheld people and rows.

    They rest so that nobody can tell who opted out or came. The counts are for the site's eyes only.
    """

    persons: int
    rows: int


@dataclass(frozen=True)
class Excluded:
    """Identifiers of people who opted out.

    Their rows are not to be used.

    Parameters
    ----------
    column : str
        A column of the site's own table, under its own name.
    identifiers : frozenset of str
        As `plain_text` reads a cell: "7", 7 and 7.0 are one, "007" is another.
    """

    column: str = field(repr=False)
    identifiers: frozenset[str] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Excluded:
        """Read a list of opt-outs.

        It has one column of CSV, whose first line is the column's name in the site's own table.

        Raises
        ------
        UsageError
            If it cannot be read, others may read it, or a line has several cells. Nothing of it is quoted.
        """
        import pandas as pd

        try:
            text = read_private(path, rows=True).decode("utf-8-sig")
            lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        except (UnicodeDecodeError, csv.Error):
            raise UsageError(f"{path}: cannot be read as CSV in UTF-8; save it as such, one column") from None
        # Only counts are told of a malformed list: its cells are identifiers.
        several = sum(len(line) != 1 for line in lines)
        if not lines or several:
            what = f"{several} of its lines have more than one cell" if lines else "is empty"
            raise UsageError(f"{path}: {what}; give a column's name and below it one identifier a line")
        identifiers = plain_text(pd.Series([line[0] for line in lines[1:]], dtype=object)).dropna()
        return cls(lines[0][0].strip(), frozenset(map(str, identifiers)))

    def sha256(self) -> str:
        """Return the hash of the column and the identifiers.

        The order of the identifiers makes no difference.
        """
        return hashlib.sha256(json.dumps([self.column, *sorted(self.identifiers)]).encode()).hexdigest()

    def applied(self, site: Site) -> tuple[Site, Exclusion]:
        """Apply the opt-outs to a site.

        Returns the site without these people's rows, and what that did. The table is read.

        Of transactions they go before any window looks back, also out of a feed that has their column:
        nobody's figures count theirs.

        Raises
        ------
        UsageError
            If the site's own table does not have the column once, or is not read from its source.
        """
        # A package with a reader of its own would bypass what is left out here.
        if type(site).inspect is not Site.inspect:
            raise UsageError(
                f"site {site.name!r}: its package reads the table in a way of its own, so people who opted out could "
                "not be left out; give it a plain source, or leave them out there and remove the list"
            )
        source = site.source
        table, out = self._find_rows(site)
        rows = _rows_of(source, table, ~out)
        left: Frame | Transactions = rows
        if isinstance(source, Transactions):
            # The histories that windows look back on lose these people as well.
            folders = datasets.load(site.dataset).folders(site.folder)
            feeds = {by: self._feed(feed, source, folders) for by, feed in source.feeds.items()}
            left = replace(source, source=rows, feeds=feeds)
        people = plain_text(table[self.column][out]).nunique()
        counted = Exclusion(len(self.identifiers), int(people), int(out.sum()), self.sha256())
        return replace(site, source=left), counted

    def only(self, site: Site) -> Site:
        """Return the site with these people's rows alone.

        Raises
        ------
        UsageError
            If the site's own table does not have the column once, is not read from its source, or is of transactions,
            whose windows look back on others' rows too.
        """
        if type(site).inspect is not Site.inspect or isinstance(site.source, Transactions):
            raise UsageError(
                f"site {site.name!r}: the rows of single people of dataset {site.dataset!r} cannot be told, for they "
                "are not read as they stand in a table"
            )
        return replace(site, source=_rows_of(site.source, *self._find_rows(site)))

    def _find_rows(self, site: Site) -> tuple[pd.DataFrame, np.ndarray]:
        """Find the rows of these people in a site's table, of transactions before any window looks back.

        Returns the table and a mask of its rows; [rows].
        """
        source = site.source.source if isinstance(site.source, Transactions) else site.source
        table = source.read(datasets.load(site.dataset).folders(site.folder))
        if (table.columns == self.column).sum() != 1:
            # It is not quoted: where the name is forgotten, it is a person's identifier.
            raise UsageError(
                f"site {site.name!r}: the first line of the list of people who opted out is not the name of one column "
                f"of its own table of dataset {site.dataset!r}, so their rows cannot be found; correct the line, or "
                "have the source give that column too"
            )
        return table, self._theirs(table[self.column])

    def _theirs(self, cells: pd.Series) -> np.ndarray:
        return plain_text(cells).isin(self.identifiers).to_numpy(dtype=bool)

    def _feed(self, feed: Raw, source: Transactions, folders: Folders) -> Raw:
        """Return an owner's history without these people.

        It is left as it is where it does not have their column under the declaration's name.
        """
        named = {own: name for name, own in source.columns.items()}
        column = named.get(self.column, self.column)
        table = feed.read(folders)
        if column not in table.columns:
            return feed
        return _rows_of(feed, table, ~self._theirs(table[column]))


def _rows_of(source: Raw | Transactions, table: pd.DataFrame, selection: np.ndarray) -> Frame:
    """Return some rows of a source's table."""
    kind = Part if isinstance(source, Part) else Frame
    return kind(table[selection].reset_index(drop=True), source.missing)
