"""Text of a page: Markdown shows it unchanged, and moments and durations are written for readers."""

from __future__ import annotations

import re
from datetime import datetime

from flfed.records.statistics.verdict import number

JOINER = "\u2060"
BREAKS = re.compile("[\x00-\x20\x7f\x85\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Spaces, ends of lines, and signs that reverse the direction of writing."""
LINKED = re.compile(r"https?:(?=//)|www(?=\.)|[\w.+-](?=@)|:(?=[\w+-]+:|[^\W\d_])", re.IGNORECASE)
"""Beginnings of an address, or of the name of a picture or a colour."""
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
TIME_IN_NAME = re.compile(r"-(\d{8}-\d{6})-[0-9a-f]{4}$")
"""End of the name of a study that `federate` named: its time in UTC and four digits by chance."""
DOCS = re.compile(r"docs/[\w-]+\.md")
DOCS_ADDRESS = "https://github.com/flfed/flfed/blob/main"
"""Folder of the addresses of the project's documents."""
LISTED = re.compile(r"^( ?\d*)([-+.)])(?=[\s-]|$)")
"""Beginning of a line that Markdown takes for a list or for a rule across the page."""


def moment(stamp: str) -> str:
    """Return an ISO time for readers, to the minute.

    Examples
    --------
    >>> moment("2026-11-20T15:30:12.005Z")
    '20 Nov 2026, 15:30'
    """
    when = datetime.fromisoformat(stamp)
    return f"{when.day} {when:%b %Y, %H:%M}"


def describe_study(name: str) -> str:
    """Return the name of a study for readers: of a call without a name, its target and time.

    Examples
    --------
    >>> describe_study("class-20261127-040746-3eec"), describe_study("loan-default")
    ('class, 27 Nov 2026, 04:07', 'loan-default')
    """
    match = TIME_IN_NAME.search(name)
    if match is None:
        return name
    day, time = match[1].split("-")
    return f"{name[: match.start()]}, {moment(f'{day}T{time}')}"


def seconds_in_words(seconds: float | None) -> str:
    """Return the time that a run took, "" where none is recorded.

    Examples
    --------
    >>> seconds_in_words(0.4), seconds_in_words(3.24), seconds_in_words(75.3), seconds_in_words(None)
    ('under a second', '3.2 seconds', '75 seconds', '')
    """
    if seconds is None:
        return ""
    if seconds < 1:
        return "under a second"
    return f"{number(seconds, 1 if seconds < 10 else 0)} seconds"


def size_in_words(count: int) -> str:
    """Return a number of bytes with its unit and three significant digits.

    Examples
    --------
    >>> size_in_words(0), size_in_words(999), size_in_words(48_000), size_in_words(1_234_567)
    ('0 B', '999 B', '48.0 kB', '1.23 MB')
    """
    for by, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= by:
            size = count / by
            return f"{number(size, 2 - (size >= 10) - (size >= 100))} {unit}"
    return f"{count} B"


def percent_of(events: int, rows: int) -> str:
    """Return a share in percent: a small one with a decimal, and the smallest as "under 0.1".

    Examples
    --------
    >>> percent_of(14, 3675), percent_of(85, 156), percent_of(1, 3675), percent_of(0, 40)
    ('0.4', '54', 'under 0.1', '0')
    """
    share = 100 * events / max(rows, 1)
    if 0 < share < 0.05:
        return "under 0.1"
    return number(share, int(0 < share < 10))


def heading(title: str, which: str = "") -> str:
    """Return a heading, with the repeats whose figures are below it where there are several.

    Examples
    --------
    >>> heading("Calibration", "in repeat 2"), heading("Calibration")
    ('## Calibration, in repeat 2', '## Calibration')
    """
    return f"## {title}, {which}" if which else f"## {title}"


def escape(text: str) -> str:
    r"""Return text that Markdown shows unchanged, in one line, without links and pictures.

    Streamlit looks for addresses and `:names:` after it has removed backslashes: an invisible joiner of no width
    separates their parts.

    Examples
    --------
    >>> escape("a_b [x] $1"), escape("12 % at 09:30, in 2.5 s"), escape("two\n\n# lines")
    ('a\\_b \\[x\\] \\$1', '12 % at 09:30, in 2.5 s', 'two \\# lines')
    >>> escape("see https://x.example").replace(JOINER, "|"), escape("ask a@b.example, :red").replace(JOINER, "|")
    ('see https:|//x.example', 'ask a|@b.example, :|red')
    """
    # Line ends are removed first: each could begin a list or a heading.
    parted = LINKED.sub(lambda match: match[0] + JOINER, BREAKS.sub(" ", text))
    plain = "".join(f"\\{sign}" if sign in "\\`*_[]$<>#~|&" else sign for sign in parted)
    return LISTED.sub(r"\1\\\2", plain)


def with_code(text: str) -> str:
    r"""Return escaped text in which backticks still mark code, and a document's name links to it.

    Examples
    --------
    >>> with_code("run_1: `flfed run list`")
    'run\\_1: `flfed run list`'
    >>> with_code("see docs/protection.md")
    'see [docs/protection.md](https://github.com/flfed/flfed/blob/main/docs/protection.md)'
    """
    parts = CODE.split(BREAKS.sub(" ", text))
    plain = [DOCS.sub(rf"[\g<0>]({DOCS_ADDRESS}/\g<0>)", escape(part)) for part in parts]
    return "".join(f"`{parts[place]}`" if place % 2 else part for place, part in enumerate(plain))
