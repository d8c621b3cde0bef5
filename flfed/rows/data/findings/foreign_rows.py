"""Rows of a table that are none: comments, the names of the columns once more, and sums at the end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from flfed.rows.data.mapping import plain_text
from flfed.rows.data.parsing.headers import plain_name

MOST = 5
SHARE = 0.01
"""Rows of one kind at most, or this share of all: of more they are values."""
LAST = 3
"""Rows at the end that may hold sums."""
HEADER = 0.5
"""Of a row's cells: so many are the names of their columns."""
_COMMENT = re.compile(r"\s*(#|//|%)+\s*[^\W\d_].*", re.DOTALL)
_SUM = re.compile(
    r"(grand |sub)?totals?|sums?|averages?|means?|medians?|count|summe|gesamt|insgesamt|mittelwert|durchschnitt|anzahl"
    r"|totaal|gemiddelde|somme|moyenne|ensemble|totalt|i alt|gjennomsnitt|summa|medel|yhteensä|keskiarvo|totale",
    re.IGNORECASE,
)


def foreign_rows(raw: pd.DataFrame) -> Iterator[str]:
    """Yield which rows belong to no table, by their number from 1.

    None of their cells is quoted.

    Parameters
    ----------
    raw : DataFrame
        As the source gave it.

    Examples
    --------
    >>> ages = [str(age) for age in range(20, 60)]
    >>> table = pd.DataFrame({"name": [*"ab" * 20, "Total"], "age": [*ages, "1580"]})
    >>> list(foreign_rows(table))
    ['row 41, at the end, is one of sums or counts: remove it']
    """
    words = [place for place in range(raw.shape[1]) if raw.iloc[:, place].dtype.kind not in "fiubM"]
    if not words or not len(raw):
        return
    texts = pd.DataFrame({place: plain_text(raw.iloc[:, place]) for place in words})
    comments = texts[words[0]].map(_is_comment).to_numpy(dtype=bool)
    matches = _named_cells(raw, texts, words)
    headers = (matches >= 2) & (matches >= HEADER * raw.shape[1])
    most = max(MOST, SHARE * len(raw))
    for rows, what in ((comments, "a comment"), (headers & ~comments, "the names of the columns once more")):
        if 0 < rows.sum() <= most:
            yield _named(np.flatnonzero(rows), what)
    yield from _sums(texts, len(raw))


def _named_cells(raw: pd.DataFrame, texts: pd.DataFrame, words: Sequence[int]) -> np.ndarray:
    """Count the cells of each row that hold the name of their column [rows]."""
    matches = np.zeros(len(raw), dtype=int)
    for place in words:
        name = plain_name(raw.columns[place])
        if name:
            same = [text for text in texts[place].dropna().unique() if plain_name(text) == name]
            matches += texts[place].isin(same).to_numpy()
    return matches


def _is_comment(text: str | None) -> bool:
    return text is not None and bool(_COMMENT.fullmatch(text))


def _named(rows: np.ndarray, what: str) -> str:
    more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
    return f"row {rows[0] + 1}{more} is {what}: remove it"


def _sums(texts: pd.DataFrame, rows: int) -> Iterator[str]:
    """Yield which of the last rows is one of sums, by a word that stands nowhere above."""
    for place in range(max(0, rows - LAST), rows):
        for column in texts:
            text = texts[column].iat[place]
            if text is None or not isinstance(text, str) or not _SUM.fullmatch(text.strip(" :.=")):
                continue
            if int((texts[column] == text).sum()) <= LAST:
                yield f"row {place + 1}, at the end, is one of sums or counts: remove it"
                return
