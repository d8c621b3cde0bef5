"""Output of commands: JSON on standard output, the rest for people; and loading torch with a sign of life."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click
import typer

from flfed.errors import UsageError
from flfed.spreadsheet import csv_text

if TYPE_CHECKING:
    from rich.console import Console

SCREEN = 30
"""Lines that are printed of a long table; with what stands around it, that is a screen of 40."""
CUT_TO, LEAST_CUT = 20, 10
"""Signs of a text that is cut: other columns are left out for the first, and nothing is for the second."""
Form = Literal["plain", "csv", "md"]
FORMAT = typer.Option("plain", "--format", help="How tables are printed; of csv the rest goes to standard error.")
ALL = typer.Option(False, "--all", help="Print every line of a long table.")
JSON = typer.Option(False, "--json", help="Print one JSON object on standard output.")


def agreed(question: str) -> bool:
    """Ask the person at the terminal; where there is none, nobody agrees."""
    return sys.stdin.isatty() and typer.confirm(question)


def as_json(found: object) -> None:
    """Print one JSON object."""
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


def say(line: str) -> None:
    """Print a line for people; a terminal gets it broken between words."""
    if sys.stdout.isatty():
        # A word that is longer than a line, such as a path, stays whole.
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    typer.echo(line)


def say_some(lines: Sequence[str], *, whole: bool, most: int = 8) -> None:
    """Print the first of some lines, and how many more there are; all of them where `whole`."""
    for line in lines if whole else lines[:most]:
        say(line)
    if len(lines) > most and not whole:
        say(f"… and {len(lines) - most} more such lines: --all")


def either(json_wanted: bool, found: object, in_words: Callable[[], None]) -> None:
    """Print one JSON object, or the same in words."""
    if json_wanted:
        as_json(found)
    else:
        in_words()


def tables(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that prints tables the option --format."""

    @wraps(command)
    def formatted(*args: Any, form: Form = "plain", **options: Any) -> None:
        if form == "plain":
            return command(*args, **options)
        if options.get("as_json"):
            raise UsageError("--format and --json are asked one at a time")
        click.get_current_context().meta[__name__] = _Tables(form, sys.stdout)
        # Of CSV standard output has the tables alone, so that a program can read it.
        with redirect_stdout(sys.stderr if form == "csv" else sys.stdout):
            return command(*args, **options)

    # Typer reads the options off the signature, and their types off the annotations.
    signature = inspect.signature(command)
    option = inspect.Parameter("form", inspect.Parameter.KEYWORD_ONLY, default=FORMAT, annotation=Form)
    formatted.__dict__["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), option])
    formatted.__annotations__ = command.__annotations__ | {"form": Form}
    return formatted


@dataclass
class _Tables:
    """How a command's tables are printed, and where."""

    form: Form
    to: TextIO
    printed: int = 0

    def print(self, headers: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
        """Print one table, behind a blank line where another stands before it."""
        gap = "\n" if self.printed else ""
        self.printed += 1
        if self.form == "csv":
            self.to.write(gap + csv_text(headers, rows))
            return
        lines = [headers, ["---"] * len(headers), *rows]
        text = "".join(f"| {' | '.join(_in_markdown(cell) for cell in line)} |\n" for line in lines)
        self.to.write(f"{gap}{title and f'**{_in_markdown(title)}**'}{title and 2 * chr(10)}{text}\n")


def _in_markdown(cell: str) -> str:
    """Return a text as one cell of a Markdown table."""
    return re.sub(r"([\\|*_`<\[])", r"\\\1", " ".join(cell.split()))


def as_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    *,
    spare: Sequence[str] = (),
    more: str = "",
    whole: bool = False,
    most: int = SCREEN,
    cut: str | None = None,
    below: Sequence[bool] = (),
) -> list[str]:
    """Print a table for people, and return the columns that were left out.

    On a pipe it is as wide as it needs to be, on a terminal lines break between words.

    Parameters
    ----------
    headers, rows : sequences
    title : str
    spare : sequence of str
        Headers of columns that are left out, in this order, until every row fits on one line.
    more : str
        What its lines are, and how to see all of them ("sites: --all"): of more than `most` lines the first ones are
        printed, with how many more there are; unless `whole`, and only as a plain table.
    cut : str, optional
        Header of the column whose texts end in "…" where a terminal has no room for them.
    below : sequence of bool, one for each row
        Of which rows such a text stands whole below the table, behind the first cell of its row.
    """
    context = click.get_current_context(silent=True)
    if context is not None and (other := context.meta.get(__name__)) is not None:
        other.print(headers, rows, title)
        return []
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    fold = bool(more) and not whole and len(rows) > most
    printed = rows[:most] if fold else rows
    grid = _Grid(list(headers), [list(row) for row in printed])
    # Texts that are cut leave room for other columns first, and take what is left of it.
    texts: list[str] = []
    if cut is not None and sys.stdout.isatty():
        texts = grid.column(cut)
        grid.put(cut, texts, CUT_TO)
    gone = _drop_spare(grid, spare, console.width)
    room = 0
    if cut is not None:
        room = max(console.width - grid.width(without=cut), LEAST_CUT)
        grid.put(cut, texts, room)
    _print_grid(grid, title, console)
    if fold:
        typer.echo(f"… and {len(rows) - len(printed)} more {more}")
    _say_cut_texts(grid, texts, room, below)
    return gone


def _drop_spare(grid: _Grid, spare: Sequence[str], width: int) -> list[str]:
    """Leave out columns until every row fits on one line, and return which."""
    gone = []
    for name in spare:
        if grid.width() <= width:
            break
        if name in grid.headers:
            grid.drop(name)
            gone.append(name)
    return gone


def _say_cut_texts(grid: _Grid, texts: Sequence[str], room: int, below: Sequence[bool]) -> None:
    """Print texts that were cut whole, where the table has them below it; else say where they are whole."""
    cut_off = [number for number, text in enumerate(texts) if len(text) > room]
    if cut_off and not below:
        say("Texts that end in … are whole with --json, and with --format md.")
        return
    for number in cut_off:
        if below[number]:
            say(f"{grid.rows[number][0]}: {texts[number]}")


@dataclass
class _Grid:
    """Headers and rows of a plain table, of which columns can be left out; behind each column are two blanks."""

    headers: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        place = self.headers.index(name)
        return [row[place] for row in self.rows]

    def put(self, name: str, texts: Sequence[str], width: int) -> None:
        """Put texts into a column, each cut to a width."""
        place = self.headers.index(name)
        for row, text in zip(self.rows, texts, strict=False):
            row[place] = text if len(text) <= width else f"{text[: width - 1].rstrip()}…"

    def drop(self, name: str) -> None:
        """Leave out a column."""
        place = self.headers.index(name)
        for cells in (self.headers, *self.rows):
            del cells[place]

    def width(self, without: str | None = None) -> int:
        """Return the width at which no cell is broken, and no word of a header; but of one column its blanks alone."""
        widths = dict(zip(self.headers, _whole_cells(self.headers, self.rows), strict=True))
        if without is not None:
            widths[without] = 0
        return sum(widths.values()) + 2 * len(self.headers)


def _print_grid(grid: _Grid, title: str, console: Console) -> None:
    """Print a table at the width of a console; where not even its words fit, the terminal breaks the lines."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    between = 2 * len(grid.headers)
    widths = column_widths(grid.headers, grid.rows, room=console.width - between)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for header, width in zip(grid.headers, widths, strict=True):
        table.add_column(header, overflow="fold", width=width)
    for row in grid.rows:
        table.add_row(*(Text(cell) for cell in row))
    # Where not even the words fit, the terminal breaks the lines: an id stays whole.
    console.width = max(console.width, sum(widths) + between)
    # By itself: as the table's own title it would be broken at the width of a narrow table.
    if title:
        console.print(Text(title, style="bold"))
    console.print(table)


def _whole_cells(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the least widths at which no cell is broken, and no word of a header."""
    widths = []
    for place, header in enumerate(headers):
        cells = [len(row[place]) for row in rows]
        widths.append(max([_longest_word([header]), *cells]))
    return widths


def privacy(found: Mapping[str, Any], *, whole: bool = False) -> None:
    """Print what a run promised of privacy, what of it was spent and measured, and what it does not cover.

    `whole`: with the list of what is not covered.
    """
    from flfed.records.objects import read_all
    from flfed.records.reports.audit_headlines import AuditFigure, in_words
    from flfed.records.reports.privacy import private_of
    from flfed.records.reports.privacy_tables import charged_lines, told_in_words

    private, ended = found["privacy"], found["status"] in ("completed", "stopped") and found["rounds"] > 0
    told = told_in_words(found.get("told-outcomes") or {})
    audit = read_all(AuditFigure, found["audit"])
    for line in [*in_words(private, audit, attackable=ended), *told]:
        say(line)
    charges(charged_lines(private))
    uncharged = private_of(private).uncharged
    if not uncharged:
        # A run without anything uncovered has nothing to warn of.
        return
    if not whole:
        typer.echo(f"Not covered: {len(uncharged)} things, see: flfed run show {found['run']} --all")
        return
    nothing = private["epsilon"] is None
    typer.echo("Not covered, for nothing was promised:" if nothing else "Not covered by the promise:")
    for said in uncharged:
        typer.echo(f"  - {said}")


def charges(lines: Sequence[Mapping[str, str]]) -> None:
    """Print what was charged for what, where all that leaves a site is."""
    from flfed.records.reports.privacy_tables import SHARES_READ

    if lines:
        as_table(list(lines[0]), [list(line.values()) for line in lines], spare=("Noise multiplier",))
        say(SHARES_READ)


def promise(found: Mapping[str, Any]) -> None:
    """Print what a study promises of privacy, before it is run, and how much that does not cover."""
    from flfed.records.reports.privacy import ONE_ANSWER, counted, promise_in_words
    from flfed.records.reports.privacy_tables import charged_lines, told_from
    from flfed.records.statistics.verdict import number

    lines = promise_in_words(dict(found))
    # A mechanism without such a figure leaves it out.
    figures = [(word, found[key]) for word, key in (("noise multiplier", "noise"), ("sampling", "sampling"))]
    known = [f"{word} {number(value, 3)}" for word, value in figures if value is not None]
    known += [f"clip {found['clip']:g}, {found['steps']} {counted(dict(found))}"] if known else []
    if found.get(ONE_ANSWER):
        known = [f"noise multiplier {number(found['noise'], 3)} on all numbers of the answer together"]
    charged = charged_lines(dict(found))
    lines += [f"{'How, in training' if charged else 'How'}: {', '.join(known)}."] if known else []
    lines += [f"Warning: {said}" for said in found["warnings"]]
    lines += [f"Note: {said}" for said in found["notes"]]
    for line in lines:
        typer.echo(line)
    charges(charged)
    if least := told_from(dict(found)):
        typer.echo(least)
    if stays := found.get("stays"):
        typer.echo(f"Stays at each site, as no ε is charged for it: {'; '.join(stays)}.")
    many = f"{len(found['uncharged'])} things that leave the sites, or steer the run"
    typer.echo(f"Not covered: {many}. --json lists them, docs/privacy.md explains them.")


def column_widths(headers: Sequence[str], rows: Sequence[Sequence[str]], *, room: int) -> list[int]:
    """Return the width of each column, in all at most `room` where the longest words allow it.

    A column is at least as wide as its longest word, so that no word and no figure is broken, and
    at most as wide as its longest cell. What is left goes, character by character, to the column
    whose cells need the most lines.

    Examples
    --------
    >>> column_widths(["site", "verdict"], [["new-york-clinic", "no clear gain"]], room=28)
    [15, 13]
    >>> column_widths(["site", "verdict"], [["new-york-clinic", "no clear gain"]], room=24)
    [15, 9]
    >>> column_widths(["site", "verdict"], [["new-york-clinic", "no clear gain"]], room=10)
    [15, 7]
    """
    # No column starts narrower than its longest word.
    columns = []
    for place, header in enumerate(headers):
        columns.append([header, *(row[place] for row in rows)])
    widths = _whole_cells(headers, rows)
    # Where every cell has room on one line, only headers are broken.
    if sum(widths) > room:
        widths = [_longest_word(column) for column in columns]
    most = [max(map(len, column)) for column in columns]
    lines = [_lines(column, width) for column, width in zip(columns, widths, strict=True)]
    for _ in range(room - sum(widths)):
        # Room goes where it saves lines, until every cell is on one line.
        open_ones = [place for place, width in enumerate(widths) if width < most[place]]
        if not open_ones:
            break
        place = max(open_ones, key=lambda place: lines[place])
        widths[place] += 1
        lines[place] = _lines(columns[place], widths[place])
    return widths


def _longest_word(cells: Sequence[str]) -> int:
    """Return the length of the longest word in some cells."""
    return max(map(len, " ".join(cells).split()), default=1)


def _lines(cells: Sequence[str], width: int) -> int:
    """Return how many lines the cells of one column need beyond the first of each."""
    found = 0
    for cell in cells:
        used = 0
        for word in cell.split() if len(cell) > width else ():
            used, more = (used + 1 + len(word), 0) if used and used + 1 + len(word) <= width else (len(word), used > 0)
            found += more
    return found


def passed_over(site: str) -> None:
    """Say where a package of this site lies in the current folder, and another one is taken."""
    from flfed.packages import passed_over as said

    if sentence := said("site", site):
        typer.echo(sentence, err=True)
