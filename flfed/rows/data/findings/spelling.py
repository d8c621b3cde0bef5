"""Values of a category that are written in two ways, so that they count as two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flfed.errors import count_in_words


def spelling(text: str) -> str:
    """Return a text without case and blanks.

    Examples
    --------
    >>> spelling(" Not  known "), spelling("MALE")
    ('not known', 'male')
    """
    return " ".join(text.split()).casefold()


def rows_in_other_case(texts: Sequence[str], counts: np.ndarray) -> str:
    """Count the rows whose value differs from a more frequent one in case or blanks alone; "" where none does.

    Parameters
    ----------
    texts : sequence of str
        Distinct values.
    counts : int array [texts]

    Examples
    --------
    >>> rows_in_other_case(["Male", "male", "MALE", "female"], np.array([200, 30, 8, 250]))
    '38'
    >>> rows_in_other_case(["male", "female"], np.array([200, 250]))
    ''
    """
    most: dict[str, int] = {}
    rows = 0
    for text, count in zip(texts, counts.tolist(), strict=True):
        plain = spelling(text)
        if plain in most:
            rows += min(count, most[plain])
        most[plain] = max(count, most.get(plain, 0))
    return count_in_words(rows) if rows else ""
