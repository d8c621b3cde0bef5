"""What a person says of columns of tables that had no schema: to be kept, to be dropped, codes for "not known"."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from flfed.errors import UsageError, nearest
from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.headers import plain_name
from flfed.rows.proposals.cells import is_number_text, is_one_of


@dataclass(frozen=True)
class Wishes:
    """What a person says of columns.

    Attributes
    ----------
    keep : collection of str
        Columns that are features whatever they look like.
    drop : collection of str
        Columns that are in no schema.
    codes : tuple of str
        What stands for "not known" in every column.
    codes_by_column : dict of column to tuple of str
    """

    keep: Collection[str] = ()
    drop: Collection[str] = ()
    codes: tuple[str, ...] = ()
    codes_by_column: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, columns: Iterable[str], keep: Sequence[str] = (), drop: Sequence[str] = (), missing: Sequence[str] = ()
    ) -> Wishes:
        """Return wishes for columns that are there.

        Parameters
        ----------
        columns : iterable of str
        keep, drop : sequence of str
            Names of columns, in other case or with other signs too.
        missing : sequence of str
            Each a value, or `COLUMN=VALUE` of one column.

        Raises
        ------
        UsageError
            If a column is not there, or is to be kept and to be dropped.
        """
        names = list(columns)
        _check_texts("keep", keep, "COLUMN")
        _check_texts("drop", drop, "COLUMN")
        _check_texts("missing", missing, "VALUE")
        kept = [column_named(word, "keep", names) for word in keep]
        dropped = [column_named(word, "drop", names) for word in drop]
        if both := set(kept) & set(dropped):
            raise UsageError(f"column {min(both)!r} is to be kept and to be dropped: say one of them")
        codes = list[str]()
        by_column = dict[str, tuple[str, ...]]()
        for word in missing:
            column, value = _column_and_value(word, names)
            if column:
                by_column[column] = (*by_column.get(column, ()), value)
            else:
                codes.append(value)
        return cls(tuple(kept), tuple(dropped), tuple(codes), by_column)

    def refuse_absent_codes(self, tables: Sequence[pd.DataFrame]) -> None:
        """Refuse a code for "not known" that no cell has: it is mistyped, or of another column."""
        wanted = [("", code) for code in self.codes]
        for column, codes in self.codes_by_column.items():
            wanted += [(column, code) for code in codes]
        for column, code in wanted:
            if not any(_has_code(table, column, code) for table in tables):
                where = f" of column {column!r}" if column else ""
                raise UsageError(f"missing: no cell{where} has {code!r}")

    def without_codes(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table in which the codes of every column are missing."""
        if not self.codes:
            return table
        changed = {}
        for name in table.columns:
            hidden = plain_text(table[name]).map(lambda cell: cell is not None and is_one_of(cell, self.codes))
            if hidden.any():
                cells = table[name] if table[name].dtype.kind in "fM" else table[name].astype(object)
                changed[name] = cells.mask(hidden)
        return table.assign(**changed) if changed else table


def _check_texts(option: str, words: Sequence[str], example: str) -> None:
    if isinstance(words, str) or not all(isinstance(one, str) and one.strip() for one in words):
        raise UsageError(f"{option}: give texts, such as [{example!r}]")


def _has_code(table: pd.DataFrame, column: str, code: str) -> bool:
    """Tell whether a column, or any where none is named, has a cell with a code."""
    for name in table.columns:
        texts = plain_text(table[name].dropna()).dropna() if _is_asked(name, column) else ()
        if any(is_one_of(text, (code,)) for text in texts):
            return True
    return False


def _is_asked(name: str, column: str) -> bool:
    """Tell whether a code is meant for a column; one without a column is meant for all."""
    return not column or plain_name(name) == plain_name(column)


def _column_and_value(word: str, names: Sequence[str]) -> tuple[str, str]:
    """Return column and value of `COLUMN=VALUE`; the column is empty where a value is meant for all."""
    if "=" not in word:
        return "", word.strip()
    places = [place for place, sign in enumerate(word) if sign == "="]
    plain = {plain_name(name) for name in names}
    # A heading may have the sign itself.
    place = next((one for one in reversed(places) if plain_name(word[:one]) in plain), places[0])
    return column_named(word[:place].strip(), "missing", names), word[place + 1 :].strip()


def column_named(word: str, option: str, columns: Iterable[str], table: str = "the table") -> str:
    """Return the column that a word names, in other case or with other signs too.

    Raises
    ------
    UsageError
        If there is none.
    """
    names = list(columns)
    plain = {plain_name(name): name for name in names}
    if not word or word in names:
        return word
    if plain_name(word) in plain:
        return plain[plain_name(word)]
    # A row that was taken for names has numbers among them.
    nameless = any(is_number_text(name) for name in names)
    hint = nearest(word, names)
    if nameless:
        hint = f": if its first line holds no names, give those of its {len(names)} columns with --names"
    raise UsageError(f"{option}: {table} has no column {word!r}{hint}")
