"""Opt-outs of people from a site's table, whose rows are removed before any other use of the table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ConfigDict

from flfed.errors import UsageError
from flfed.files import read_private
from flfed.rows.data import datasets
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.origin import as_rows
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Frame, Source
from flfed.words import counted, usage_error

if TYPE_CHECKING:
    import pandas as pd

LEAST_EXPECTED = 10
"""Half of the people whom a sample should have, at least, where few of them make a list doubtful."""


@dataclass(frozen=True)
class Exclusion:
    """The effect of an opt-out list, in counts only.

    Attributes
    ----------
    listed, found : int
        Different identifiers on the list, and those of them that occur in the table.
    rows : int
        Removed rows.
    sha256 : str
        Of the list, so that a change of it is noticed.
    allowed : bool
        Whether the list is doubtful, as `Excluded.allowed` says, and a person allowed it.
    more : int
        Identifiers that would be found in another spelling.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    listed: int
    found: int
    rows: int
    sha256: str = field(default="", compare=False)
    allowed: bool = field(default=False, compare=False)
    more: int = 0


ANY = Exclusion(0, 0, 0, more=10**9)
"""What a person allows who allows any effect of a list."""


@dataclass(frozen=True)
class Resting:
    """Counts of people and rows that are withheld.

    They hide who opted out. The counts are for the site's eyes only.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    persons: int
    rows: int


@dataclass(frozen=True)
class Excluded:
    """Identifiers of people who opted out.

    Parameters
    ----------
    column : str
        A column of the site's own table, under its own name.
    identifiers : frozenset of str
        As `plain_text` reads a cell: "7", 7 and 7.0 are one, "007" is another.
    allowed : Exclusion, optional
        What a person allowed of this list. A list is refused where fewer than half are in the table, and fewer than
        were allowed; or where more would be in another spelling than were allowed: it would exclude too few.
    """

    column: str = field(repr=False)
    identifiers: frozenset[str] = field(repr=False)
    allowed: Exclusion | None = None

    @classmethod
    def read(cls, path: Path, *, allowed: Exclusion | None = None) -> Excluded:
        """Read a list of opt-outs: one column of CSV below the column's name in the site's own table.

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
            raise usage_error("rows.optout.unreadable", path=path, reason=error.strerror) from None
        except (UnicodeDecodeError, csv.Error):
            raise usage_error("rows.optout.csv", path=path) from None
        # Of a malformed list only counts are reported: its cells are identifiers.
        if not lines:
            raise usage_error("rows.optout.empty", path=path)
        if several := sum(len(line) != 1 for line in lines):
            raise usage_error("rows.optout.cells", path=path, lines=several)
        identifiers = plain_text(pd.Series([line[0] for line in lines[1:]], dtype=object)).dropna()
        return cls(lines[0][0].strip(), frozenset(map(str, identifiers)), allowed)

    def sha256(self) -> str:
        """Return the hash of the column and the identifiers, in any order."""
        return hashlib.sha256(json.dumps([self.column, *sorted(self.identifiers)]).encode()).hexdigest()

    def applied(self, site: Site) -> tuple[Site, Exclusion]:
        """Return the site without these people's rows, and counts of the effect. The table is read.

        Raises
        ------
        UsageError
            If the site's own table does not have the column once, is not read from its source, or the list is doubtful.
        """
        # A package with code of its own would bypass the removal.
        if type(site).inspect is not Site.inspect:
            raise usage_error("rows.optout.code", site=site.name)
        table, out, counts = self._find_rows(site)
        return replace(site, source=_rows_of(site.source, table, ~out)), counts

    def only(self, site: Site) -> Site:
        """Return the site with these people's rows alone.

        Raises
        ------
        UsageError
            As `applied`.
        """
        if type(site).inspect is not Site.inspect:
            raise usage_error("rows.optout.single", site=site.name, dataset=site.dataset)
        # Of a table of which a sample is used no more is in memory.
        site = site if site.source.prepare is not None else as_rows(site)
        table, theirs, _ = self._find_rows(site)
        return replace(site, source=_rows_of(site.source, table, theirs))

    def _find_rows(self, site: Site) -> tuple[pd.DataFrame, np.ndarray, Exclusion]:
        """Return a site's table, a mask of these people's rows [rows], and their counts."""
        if site.source.prepare is not None and not datasets.load(site.dataset).schema.group:
            # Which rows are whose is not known after it.
            raise UsageError(
                f"site {site.name!r}: prepare={site.source.prepare.__qualname__} and people who are listed, such as "
                f"those who opted out, go together only where the schema of dataset {site.dataset!r} names a group"
            )
        table = site.source.read(datasets.load(site.dataset).folders(site.folder))
        if (table.columns == self.column).sum() != 1:
            # The line is not quoted: if the name was forgotten, it is a person's identifier.
            raise usage_error("rows.optout.column", site=site.name, dataset=site.dataset)
        own = plain_text(table[self.column])
        theirs = own.isin(self.identifiers).to_numpy(dtype=bool)
        found, listed = own[theirs].unique(), len(self.identifiers)
        missing = self.identifiers.difference(found)
        # Of a whole list nothing more is looked for: the table may be long.
        known = list(map(str, own.dropna().unique())) if missing else []
        more = len(set(map(_plain, missing)) & set(map(_plain, known)))
        # Of a sample few are expected, and by chance none of a short list.
        half = site.source.sample * listed / 2
        is_few = len(found) < half and (site.source.sample == 1 or half >= LEAST_EXPECTED)
        allowed = self.allowed or Exclusion(listed, found=listed, rows=0)
        if (is_few and len(found) < allowed.found) or more > allowed.more:
            from flfed.rows.data.findings.oddities import written_as  # it needs pandas, and a status does not

            raise usage_error(
                "rows.optout.unmatched", listed=counted(listed, "identifier"), found=len(found), column=self.column,
                site=site.name, dataset=site.dataset, more=more, list=written_as(self.identifiers),
                table=written_as(known),
            )  # fmt: skip
        return table, theirs, Exclusion(listed, len(found), int(theirs.sum()), self.sha256(), is_few or more > 0, more)


def _rows_of(source: Source, table: pd.DataFrame, selection: np.ndarray) -> Frame:
    """Return some rows of a source's table."""
    return source.in_memory(table[selection].reset_index(drop=True))


def _plain(text: str) -> str:
    """Return an identifier without case, blanks and leading zeros."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", "".join(text.casefold().split()))
