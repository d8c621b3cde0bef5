"""Section of a report as data, which app, document, terminal and notebook render."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")
Lines = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Lines of figures under a title.

    Attributes
    ----------
    title : str
        "" where the title of its section is enough.
    lines : sequence of mappings of heading to cell
    spare : tuple of str
        Headings of columns that a narrow terminal omits, the first ones first.
    of_each_site : bool
        Whether each line is of one site, so that the table may be long.
    stays : int
        Number of first columns that each part repeats where paper splits a table with a column for each of many
        groups or sites; 0 of a table that is never split.
    is_drawn : bool
        Whether a chart of its section has the same figures, so that a page folds them.
    lead : str
        Sentence above its lines.
    key : str
        Name of the file of its figures on a page, "" where a page offers no file.
    rows : sequence of mappings
        Figures of the file as numbers, in place of its lines.
    is_whole : bool
        Whether a page shows all of its lines, each cell in one line.
    is_folded : bool
        Whether a page folds it below its title.
    """

    lines: Sequence[Mapping[str, Any]]
    title: str = ""
    spare: tuple[str, ...] = ()
    of_each_site: bool = False
    stays: int = 0
    is_drawn: bool = False
    lead: str = ""
    key: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    is_whole: bool = False
    is_folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Chart of a section, drawn when it is shown.

    Attributes
    ----------
    title : str
    draw : callable
        Returns a `Chart`, None where there is nothing to draw.
    key : str
        Name of the chart on its page, and of the file of its figures.
    says : str
        Description for screen readers.
    lines : sequence of mappings
        The figures of the chart, with units in the names.
    least : float
        Gain that is worthwhile, where lines have gains.
    wide : bool
        Whether it needs the width of a page.
    """

    title: str
    draw: Callable[[], Any]
    key: str
    says: str = ""
    lines: Sequence[Mapping[str, Any]] = ()
    least: float = 0.0
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """Part of a report under its title.

    Attributes
    ----------
    title : str
    lead : sequence of str
        Sentences above all else.
    charts : sequence of Drawing
    tables : sequence of Table
    says : sequence of str
        Findings: a list below the figures.
    note : sequence of str
        Explanations: sentences below all else.
    """

    title: str
    lead: Sequence[str] = ()
    charts: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    says: Sequence[str] = ()
    note: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it has no figure and no finding: its sentences give the reason."""
        return not (self.charts or self.says or any(table.lines for table in self.tables))

    @property
    def reason(self) -> str:
        """Its sentences in one, with its title before them."""
        return f"{self.title}: {' '.join([*self.lead, *self.note])}"


def divide(sections: Iterable[Section | None]) -> tuple[list[Section], list[Section]]:
    """Return the sections with content, and those without, which a page names in one line."""
    there = [section for section in sections if section is not None]
    return [one for one in there if not one.is_empty], [one for one in there if one.is_empty]


def group(members: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Return the members of each group, in their order.

    Examples
    --------
    >>> group([("even", 2), ("odd", 3), ("even", 4)])
    {'even': [2, 4], 'odd': [3]}
    """
    groups: dict[K, list[V]] = {}
    for key, member in members:
        groups.setdefault(key, []).append(member)
    return groups


def names_of(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the headings of a table in the order of its lines; a line may lack some."""
    return list(dict.fromkeys(chain.from_iterable(lines)))
