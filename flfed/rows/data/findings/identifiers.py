"""Identifiers of one person or customer that are written in two ways, so that they count as two."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from flfed.errors import count_in_words

FEWEST = 20
"""Rows with an identifier from which on a column is looked at."""
LEAST = 5
"""Shorter identifiers at least, where none of them stands with its zeros too."""


def odd_identifiers(known: pd.Series) -> Iterator[str]:
    """Yield what is odd in how identifiers are written.

    They lost leading zeros in a part of the rows, or stand in upper and lower case. None of them is changed.

    Parameters
    ----------
    known : Series of str, without gaps

    Examples
    --------
    >>> list(odd_identifiers(pd.Series(["0071", "0342", "71", "342"] * 5)))[0].partition(" (")[0]
    '10 rows have identifiers without the leading zeros that others have'
    """
    if len(known) < FEWEST:
        return
    sizes = known.value_counts()
    if rows := _without_zeros(sizes):
        many = count_in_words(rows)
        yield (
            f"{many} rows have identifiers without the leading zeros that others have (export them as text): "
            "one person may count as two"
        )
    if people := _in_two_cases(sizes):
        yield (
            f"{count_in_words(people)} identifiers stand in upper and in lower case, and count as two each: "
            "write them in one way"
        )


def _without_zeros(sizes: pd.Series) -> int:
    """Count the rows whose identifiers lost their leading zeros; 0 where nothing tells so."""
    digits = sizes[[isinstance(text, str) and text.isdecimal() for text in sizes.index]]
    with_zeros = {text for text in digits.index if text.startswith("0") and text.strip("0")}
    if not with_zeros:
        return 0
    bare = {text.lstrip("0") for text in with_zeros}
    lost = bare.intersection(digits.index)
    # Of one length, all that have zeros; a shorter one without them lost its own.
    longest = max(map(len, with_zeros))
    if longest == min(map(len, with_zeros)):
        shorter = [text for text in digits.index if len(text) < longest]
        if len(shorter) >= LEAST:
            lost.update(shorter)
    return int(digits[list(lost)].sum())


def _in_two_cases(sizes: pd.Series) -> int:
    """Count the identifiers of which another one differs in upper and lower case only."""
    folded = pd.Series([str(text).casefold() for text in sizes.index]).value_counts()
    return int((folded > 1).sum())
