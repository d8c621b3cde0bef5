"""Text of a page.

Markdown shows it as it is. Moments are put in words.
"""

from __future__ import annotations

import re
from datetime import datetime

JOINER = "\u2060"
BREAKS = re.compile("[\x00-\x20\x7f\x85\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Spaces, ends of lines, and signs that turn the direction of writing around."""
LINKED = re.compile(r"https?:(?=//)|www(?=\.)|[\w.+-](?=@)|:(?=[\w+-]+:|[^\W\d_])", re.IGNORECASE)
"""After these an address goes on, or the name of a picture or a colour."""
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LISTED = re.compile(r"^( ?\d*)([-+.)])(?=[\s-]|$)")
"""How a line begins that would be one of a list, or a rule across the page."""


def moment(stamp: str) -> str:
    """Return an ISO time in words, to the minute.

    Examples
    --------
    >>> moment("2026-11-20T15:30:12.005Z")
    '20 Nov 2026, 15:30'
    """
    when = datetime.fromisoformat(stamp)
    return f"{when.day} {when:%b %Y, %H:%M}"


def heading(title: str, repeat: int | None) -> str:
    """Return a heading with the repeat that the figures below it are of, where there are several.

    Examples
    --------
    >>> heading("Calibration", 2), heading("Calibration", None)
    ('## Calibration, in repeat 2', '## Calibration')
    """
    return f"## {title}" + ("" if repeat is None else f", in repeat {repeat}")


def escape(text: str) -> str:
    r"""Return text that Markdown shows unchanged.

    It is in one line, and no link or picture is made of any of it.

    Streamlit looks for addresses and `:names:` once backslashes are gone: a joiner of no width, which
    nobody sees, parts those.

    Examples
    --------
    >>> escape("a_b [x] $1"), escape("12 % at 09:30, in 2.5 s"), escape("two\n\n# lines")
    ('a\\_b \\[x\\] \\$1', '12 % at 09:30, in 2.5 s', 'two \\# lines')
    >>> escape("see https://x.example").replace(JOINER, "|"), escape("ask a@b.example, :red").replace(JOINER, "|")
    ('see https:|//x.example', 'ask a|@b.example, :|red')
    """
    # Line ends go first: each of them could begin a list or a heading.
    parted = LINKED.sub(lambda match: match[0] + JOINER, BREAKS.sub(" ", text))
    plain = "".join(f"\\{sign}" if sign in "\\`*_[]$<>#~|&" else sign for sign in parted)
    return LISTED.sub(r"\1\\\2", plain)


def with_code(text: str) -> str:
    r"""Return escaped text with code kept as code.

    What stands between backticks is code. All else is as `escape` returns it.

    Examples
    --------
    >>> with_code("run_1: `flfed run list`")
    'run\\_1: `flfed run list`'
    """
    parts = CODE.split(BREAKS.sub(" ", text))
    return "".join(f"`{part}`" if place % 2 else escape(part) for place, part in enumerate(parts))
