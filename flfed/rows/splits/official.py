"""The split that a table brings with it, in a column of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flfed.rows.data.schema import Schema
from flfed.words import usage_error

COLUMN = "part"
TEST = "test"


class Official:
    """The split of a publication's own files: rows whose column `part` is "test" are held out.

    A group of rows, such as an engine, is on one side. There is one draw: no repeat has another.

    Source: the publication of each table that has such a column; its README names it.
    """

    def split(self, table: pd.DataFrame, schema: Schema, draw: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return two masks [rows]: training, holdout.

        Raises
        ------
        UsageError
            If the schema has no column `part` with the value "test", another draw is asked for, or a group is on both
            sides.
        """
        column = schema.columns.get(COLUMN)
        if column is None or TEST not in column.values:
            raise usage_error("study.splits.column", dataset=schema.name, column=COLUMN, value=TEST)
        if draw:
            raise usage_error("study.splits.draw")
        test = (table[COLUMN] == TEST).to_numpy()
        if schema.group and set(table[schema.group][test]) & set(table[schema.group][~test]):
            raise usage_error("study.splits.sides", group=schema.group)
        return ~test, test
