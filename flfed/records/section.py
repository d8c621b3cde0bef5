"""Section of a report as data, which app, document, terminal and notebook each render."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Lines = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Lines of figures under a title.

    Attributes
    ----------
    title : str
        "" where it needs none beside that of its section.
    lines : sequence of mappings of heading to cell
    spare : tuple of str
        Headings of columns that a narrow terminal leaves out, the first ones first.
    of_each_site : bool
        Whether its lines are of single sites, so that it is a long one.
    of_groups : bool
        Whether it has a column for each of many groups, which paper shows a few at a time.
    is_drawn : bool
        Whether a chart of its section has the same figures, so that a page folds them.
    """

    lines: Sequence[Mapping[str, Any]]
    title: str = ""
    spare: tuple[str, ...] = ()
    of_each_site: bool = False
    of_groups: bool = False
    is_drawn: bool = False


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Chart of a section, drawn where it is looked at.

    Attributes
    ----------
    title : str
    draw : callable
        Returns a `Chart` or one of Altair's, None where there is nothing to draw.
    key : str
        Name of the chart on its page, and of the file of its figures.
    says : str
        What a reader who cannot see it is told.
    lines : sequence of mappings
        The figures of the chart, with units in the names.
    wide : bool
        Whether it needs the width of a page.
    """

    title: str
    draw: Callable[[], Any]
    key: str
    says: str = ""
    lines: Sequence[Mapping[str, Any]] = ()
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """Part of a report under its title.

    Attributes
    ----------
    title : str
    lead : tuple of str
        Sentences above all else.
    charts : tuple of Drawing
    tables : tuple of Table
    note : tuple of str
        Sentences below.
    """

    title: str
    lead: tuple[str, ...] = ()
    charts: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()
    note: tuple[str, ...] = ()
