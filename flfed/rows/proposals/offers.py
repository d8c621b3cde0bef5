"""Columns that a person may want to name as group or time, for rows repeat in them or are in their order."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flfed.rows.data.mapping import read_column
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.schema import Column
from flfed.rows.proposals.cells import LEAST_ROWS, Cells
from flfed.rows.proposals.columns import ColumnProposal
from flfed.rows.proposals.identifiers import (
    holds_whole_names,
    is_identifier_name,
    is_person_word,
    name_words,
    names_owner,
)

FEWEST_VALUES = 20
MOST_ROWS_EACH = 20
"""Values of a column of people at least, and rows of one on average at most: more are of places."""
REPEATED = 0.05
"""Of the rows: so many repeat an identifier at least."""
ORDERED = 0.95
"""Of the rows: so many are no earlier than the one before (or no later)."""
FEWEST_DAYS = 10
GROUPED = "where rows of one are of one person or customer, keep them on one side of the holdout"
MOST_OFFERED = 3


@dataclass(frozen=True)
class Offer:
    """An option that may fit, which nobody applies but a person.

    Attributes
    ----------
    option : {"group", "time"}
    column : str
    why : str
        Holds no cell.
    """

    option: str
    column: str
    why: str

    def __str__(self) -> str:
        """Return it in one sentence, with the option as it is written."""
        return f"{self.why}: --{self.option} {shlex.quote(self.column)}"


def offers_of(
    columns: Mapping[str, pd.Series], proposals: Mapping[str, ColumnProposal], parts: np.ndarray, group: str, time: str
) -> tuple[Offer, ...]:
    """Return the options that may fit a table.

    Parameters
    ----------
    columns : mapping of name to Series
    proposals : mapping of name to ColumnProposal
        Those that may be offered.
    parts : array [rows]
        Which file and site each row is of.
    group, time : str
        As a person named them; for one that is named none is offered.
    """
    found = list[Offer]()
    if not group:
        found += list(_groups(columns, proposals))[:MOST_OFFERED]
    if not time:
        found += list(_times(columns, proposals, parts))[:MOST_OFFERED]
    return tuple(found)


def _groups(columns: Mapping[str, pd.Series], proposals: Mapping[str, ColumnProposal]) -> Iterator[Offer]:
    for name, proposal in proposals.items():
        if proposal.kind != "id":
            continue
        cells = Cells.of(name, columns[name])
        words = name_words(name)
        named = names_owner(words) or is_identifier_name(words) or holds_whole_names(cells)
        known = cells.known
        distinct = len(cells.texts)
        repeats = known - distinct >= max(LEAST_ROWS, REPEATED * known)
        # A heading of people tells them from places, however many rows one has.
        few_each = known <= MOST_ROWS_EACH * distinct or is_person_word(words)
        if named and repeats and distinct >= FEWEST_VALUES and few_each:
            yield Offer("group", name, f"{known} rows have {distinct} values of {name!r}; {GROUPED}")


def _times(
    columns: Mapping[str, pd.Series], proposals: Mapping[str, ColumnProposal], parts: np.ndarray
) -> Iterator[Offer]:
    for name, proposal in proposals.items():
        if proposal.kind != "date":
            continue
        dates = read_column(columns[name], name, Column(kind="date"), proposal.field or Field(name))[0]
        moments = pd.to_datetime(pd.Series(dates))
        known = moments.notna().to_numpy()
        at = moments[known].to_numpy().astype("int64")
        of = parts[known]
        steps = np.diff(at)[of[1:] == of[:-1]]
        if len(steps) < 2 * LEAST_ROWS or moments.dt.normalize().nunique() < FEWEST_DAYS:
            continue
        if max((steps >= 0).mean(), (steps <= 0).mean()) >= ORDERED:
            yield Offer("time", name, f"Rows stand in the order of {name!r}; to predict later rows from earlier ones")
