"""Table of a recorded statistic, as the terminal, the page and the report show it."""

from __future__ import annotations

from dataclasses import dataclass

Lines = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class StatisticTable:
    """Lines of figures under a title.

    Attributes
    ----------
    title : str
        "" where a statistic has one table alone.
    lines : list of mappings of heading to cell
    spare : tuple of str
        Headings of columns that a narrow terminal leaves out, the first ones first.
    of_each_site : bool
        Whether its lines are of single sites, so that it is a long one.
    """

    title: str = ""
    lines: Lines
    spare: tuple[str, ...] = ()
    of_each_site: bool = False
