"""Checks for spoiled identifiers.

A program on the way has spoiled them, so that one stands for several people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MANGLED = "has identifiers that a spreadsheet rounded or made dates of (export them as text)"
LOST_SIGNS = "has signs that were lost in another encoding (export it anew)"
NO_IDENTIFIER = "has words for 'not known' such as NULL (name them in missing)"
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d{2,3}")
_MONTHS = "jan|feb|m[aä]r|mrz|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz]"
_DATE = re.compile(rf"\d{{1,2}}[-.](?:{_MONTHS})\.?|(?:{_MONTHS})[-.]\d{{2}}", re.IGNORECASE)
_ERRORS = re.compile(r"#(N/A|REF!|VALUE!|NAME\?|DIV/0!|NUM!|NULL!|#+)|#NV|#BEZUG!|#WERT!", re.IGNORECASE)
_NOT_KNOWN = {"null", "nan", "none", "n/a", "nil", "<na>", "(null)", "nat", "?"}
Rules = list[tuple[str, list[bool]]]


def spoiled(texts: Sequence[str | None]) -> Rules:
    """Return the rules that identifiers break.

    With each rule it says which of the identifiers break it.

    Parameters
    ----------
    texts : sequence of str or None
        Each identifier once.

    Examples
    --------
    >>> [rule[:26] for rule, _ in spoiled(["1.0E+09", "P1"])], spoiled(["MAR-01", "MAR-02"])
    (['has identifiers that a spr'], [])
    """
    dates = [bool(text and _DATE.fullmatch(text)) for text in texts]
    if 2 * sum(dates) > sum(text is not None for text in texts):
        dates = [False] * len(texts)  # a way of numbering, such as MAR-01: a spreadsheet makes dates of some only
    rounded = [bool(text and (_ROUNDED.fullmatch(text) or _ERRORS.fullmatch(text))) for text in texts]
    rules = (
        (MANGLED, [one or other for one, other in zip(rounded, dates, strict=True)]),
        (LOST_SIGNS, [bool(text and "\ufffd" in text) for text in texts]),
        (NO_IDENTIFIER, [bool(text and text.casefold() in _NOT_KNOWN) for text in texts]),
    )
    return [(rule, bad) for rule, bad in rules if any(bad)]
