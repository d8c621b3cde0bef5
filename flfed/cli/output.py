"""Output of commands: JSON for programs, lines and tables for people."""

from __future__ import annotations

import inspect
import json
import os
import pwd
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click
import typer

from flfed import packages
from flfed.errors import UsageError
from flfed.records.statistics.verdict import format_as_written, number
from flfed.spreadsheet import csv_text
from flfed.words import counted, render

if TYPE_CHECKING:
    from rich.console import Console

SCREEN = 30
"""Most lines of a long table; with the lines around it, that is a screen of 40."""
CUT_TO, LEAST_CUT = 20, 10
"""Width to which a text is cut before other columns are left out, and its least width."""
BETWEEN = 2
"""Blanks after each column."""
PIPE = 160
"""Columns of a pipe."""
Form = Literal["plain", "csv", "md"]
Shown = Iterator[object]
"""Output of a command: its object for --json, then lines for people."""
FORMAT = typer.Option("plain", "--format", help="Format of tables; with csv, all else goes to standard error.")
ALL = typer.Option(False, "--all", help="Print all lines.")
JSON = typer.Option(False, "--json", help="Print one JSON object.")


def agreed(question: str) -> bool:
    """Return whether the person at the terminal agrees; False without a terminal."""
    return sys.stdin.isatty() and typer.confirm(question)


def print_json(content: object) -> None:
    """Print one JSON object."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def say(line: str) -> None:
    """Print a line for people; on a terminal it wraps between words."""
    if sys.stdout.isatty():
        # A word longer than a line, such as a path, is not broken.
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    typer.echo(line)


def say_all(lines: Iterable[str]) -> None:
    """Print each line that is not empty, for people."""
    for line in filter(None, lines):
        say(line)


def say_sites(sites: Sequence[str], texts: Mapping[str, str], *, whole: bool) -> None:
    """Print the sites of a study, and what each text says of those that it is of."""
    from flfed.records.reports.faults import some
    from flfed.records.section import group

    listed = ", ".join if whole else some
    named = listed(sites)
    more = "" if named.count(",") + 1 >= len(sites) else " (--all names them)"
    typer.echo(f"Sites on this machine: {named}{more}")
    # Sites with one policy differ only by the length of their names.
    by_words = group((text, site) for site, text in texts.items())
    for text, alike in by_words.items():
        whose = "Each site" if len(by_words) == 1 else listed(alike)
        say(f"{whose}: {text}.")


def say_some(lines: Sequence[str], *, whole: bool, most: int = 8) -> None:
    """Print the first lines and the number of the others; all of them where `whole`."""
    shown = lines if whole else lines[:most]
    say_all(shown)
    if len(shown) < len(lines):
        say(render("commands.output.more", count=len(lines) - most, what="lines: --all"))


def show(steps: Shown, as_json: bool) -> None:
    """Print the first item as JSON where `as_json`, else all items after it."""
    json_object = next(steps)
    if as_json:
        print_json(json_object)
        return
    for line in steps:
        typer.echo(line)


def with_json(command: Callable[..., Shown]) -> Callable[..., None]:
    """Add the option --json to a command that yields its object, then lines for people.

    With the option, the object is printed and the command ends.
    """

    @wraps(command)
    def shown(*args: Any, as_json: bool = False, **options: Any) -> None:
        show(command(*args, **options), as_json)

    return _with_option(shown, command, "as_json", JSON, bool)


def tables(command: Callable[..., Shown | None]) -> Callable[..., None]:
    """Add the option --format to a command that prints tables, and --json to one that yields (`with_json`)."""
    shown = with_json(command) if inspect.isgeneratorfunction(command) else command

    @wraps(command)
    def formatted(*args: Any, form: Form = "plain", **options: Any) -> None:
        if form == "plain":
            shown(*args, **options)
            return
        if options.get("as_json"):
            raise UsageError("--format and --json exclude each other")
        click.get_current_context().meta[__name__] = _Tables(form, sys.stdout)
        # With CSV, standard output has only the tables, so that a program can read it.
        with redirect_stdout(sys.stderr if form == "csv" else sys.stdout):
            shown(*args, **options)

    return _with_option(formatted, shown, "form", FORMAT, Form)


def _with_option(
    wrapper: Callable[..., None], command: Callable[..., object], name: str, option: Any, kind: Any
) -> Callable[..., None]:
    """Return a wrapper of a command with one more option."""
    # Typer reads options from the signature, and their types from the annotations.
    signature = inspect.signature(command)
    more = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)
    signature = signature.replace(parameters=[*signature.parameters.values(), more])
    wrapper.__dict__["__signature__"] = signature
    wrapper.__annotations__ = command.__annotations__ | {name: kind}
    return wrapper


@dataclass
class _Tables:
    """Format and target of a command's tables."""

    form: Form
    to: TextIO
    printed: int = 0

    def print(self, headers: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
        """Print one table, with a blank line after an earlier one."""
        gap = "\n" if self.printed else ""
        self.printed += 1
        if self.form == "csv":
            self.to.write(gap + csv_text(headers, rows))
            return
        lines = [headers, ["---"] * len(headers), *rows]
        text = "".join(f"| {' | '.join(_in_markdown(cell) for cell in line)} |\n" for line in lines)
        self.to.write(f"{gap}{title and f'**{_in_markdown(title)}**'}{title and 2 * chr(10)}{text}\n")


def _in_markdown(cell: str) -> str:
    """Return a text as a cell of a Markdown table."""
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

    On a pipe it is as wide as it needs to be. On a terminal, lines wrap between words.

    Parameters
    ----------
    headers, rows : sequences
    title : str
    spare : sequence of str
        Headers of columns that are left out, in this order, until every row fits on one line.
    more : str
        Name of its lines, and how to see all of them ("sites: --all"). A plain table then has at most `most` lines,
        unless `whole`, and the number of the others below it.
    cut : str, optional
        Header of the column whose texts are cut, with "…", where a terminal has no room for them.
    below : sequence of bool, one for each row
        Rows whose cut text is repeated in full below the table, after the first cell of the row.
    """
    other = _other_format()
    if other is not None:
        other.print(headers, rows, title)
        return []
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    console = Console(width=None if is_terminal else PIPE)
    printed = rows[:most] if more and not whole else rows
    # Each column with its header, which comes first.
    columns = {column[0]: list(column) for column in zip(headers, *printed, strict=True)}
    texts = columns[cut] if cut is not None and is_terminal else []
    gone = _fit(columns, texts, spare, console.width)
    _print_columns(columns, title, console)
    if len(printed) < len(rows):
        typer.echo(render("commands.output.more", count=len(rows) - len(printed), what=more))
    if texts:
        _say_cut_texts(texts, columns[texts[0]], rows, below)
    return gone


def fits(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a table has room for every cell in one line, as it has in any other format."""
    if _other_format() is not None:
        return True
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE
    return _width(zip(headers, *rows, strict=True)) <= width


def _other_format() -> _Tables | None:
    """Return where the current command prints tables in another format, None where it prints them for people."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(__name__)


def _fit(columns: dict[str, list[str]], texts: Sequence[str], spare: Sequence[str], width: int) -> list[str]:
    """Leave out columns until each row fits on one line, and cut texts to the rest; return these columns."""
    # Cut texts leave room for other columns first, and then take the rest.
    if texts:
        columns[texts[0]] = _cut(texts, CUT_TO)
    gone = []
    for name in spare:
        if name in columns and _width(columns.values()) > width:
            del columns[name]
            gone.append(name)
    if texts:
        others = _width(column for name, column in columns.items() if name != texts[0])
        columns[texts[0]] = _cut(texts, max(width - others - BETWEEN, LEAST_CUT))
    return gone


def _say_cut_texts(
    texts: Sequence[str], shown: Sequence[str], rows: Sequence[Sequence[str]], below: Sequence[bool]
) -> None:
    """Print cut texts in full where the table has them below it, else how to see them."""
    cut_off = [place for place, text in enumerate(texts) if text != shown[place]]
    if cut_off and not below:
        say(render("commands.output.cut"))
        return
    # The header comes first, and is never cut.
    for place in cut_off:
        if below[place - 1]:
            say(f"{rows[place - 1][0]}: {texts[place]}")


def _cut(column: Sequence[str], width: int) -> list[str]:
    """Return a column with its texts cut to a width, and its header uncut."""
    header, *texts = column
    return [header, *(text if len(text) <= width else f"{text[: width - 1].rstrip()}…" for text in texts)]


def _width(columns: Iterable[Sequence[str]]) -> int:
    """Return the width of a table in which no cell is broken, and no word of a header."""
    return sum(_whole(column) + BETWEEN for column in columns)


def _print_columns(columns: Mapping[str, Sequence[str]], title: str, console: Console) -> None:
    """Print a table at the width of a console, or wider where its words need it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    between = BETWEEN * len(columns)
    widths = column_widths(list(columns.values()), room=console.width - between)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for header, width in zip(columns, widths, strict=True):
        table.add_column(header, overflow="fold", width=width)
    for cells in islice(zip(*columns.values(), strict=True), 1, None):
        table.add_row(*map(Text, cells))
    # Where not even the words fit, the terminal wraps the lines, and no id is broken.
    console.width = max(console.width, sum(widths) + between)
    # Apart from the table, at whose width it would wrap.
    if title:
        console.print(Text(title, style="bold"))
    console.print(table)


def charges(lines: Sequence[Mapping[str, str]]) -> None:
    """Print the charges by release, where the privacy budget covers all releases."""
    if lines:
        as_table(list(lines[0]), [list(line.values()) for line in lines])


def promise(privacy_facts: dict[str, Any]) -> None:
    """Print the privacy guarantee of a study before it is run, and how much it does not cover."""
    from flfed.records.reports.privacy import ONE_ANSWER, promise_in_words
    from flfed.records.reports.privacy import counted as step_word
    from flfed.records.reports.privacy_tables import charged_lines, describe_rows_needed

    lines = promise_in_words(privacy_facts)
    charged = charged_lines(privacy_facts)
    # A mechanism without such a figure leaves it out.
    figures = {"noise multiplier": privacy_facts["noise"], "sampling": privacy_facts["sampling"]}
    parameters = [f"{word} {number(value, 3)}" for word, value in figures.items() if value is not None]
    if privacy_facts.get(ONE_ANSWER):
        lines.append(render("commands.privacy.reply", noise=number(privacy_facts["noise"], 3)))
    elif parameters:
        parameters.append(f"clip {format_as_written(privacy_facts['clip'])}")
        parameters.append(f"{privacy_facts['steps']} {step_word(privacy_facts)}")
        how = "In training" if charged else "How"
        lines.append(f"{how}: {', '.join(parameters)}.")
    lines += [f"Warning: {sentence}" for sentence in privacy_facts["warnings"]]
    lines += [f"Note: {sentence}" for sentence in privacy_facts["notes"]]
    typer.echo("\n".join(lines))
    charges(charged)
    if least := describe_rows_needed(privacy_facts):
        typer.echo(least)
    if stays := privacy_facts.get("not-released"):
        typer.echo(render("commands.privacy.suppressed", items="; ".join(stays)))
    typer.echo(render("commands.privacy.outside", count=counted(len(privacy_facts["uncharged"]), "item")))


def column_widths(columns: Sequence[Sequence[str]], *, room: int) -> list[int]:
    """Return the width of each column, in all at most `room` where the longest words allow it.

    The header of a column comes first. A column is at least as wide as its longest word, so that no word and no
    figure is broken, and at most as wide as its longest cell. The rest goes, character by character, to the column
    whose cells need the most lines.

    Examples
    --------
    >>> column_widths([["site", "new-york-clinic"], ["verdict", "no clear gain"]], room=28)
    [15, 13]
    >>> column_widths([["site", "new-york-clinic"], ["verdict", "no clear gain"]], room=24)
    [15, 9]
    >>> column_widths([["site", "new-york-clinic"], ["verdict", "no clear gain"]], room=10)
    [15, 7]
    """
    widths = list(map(_whole, columns))
    # If each cell fits on one line, only headers wrap; else each column starts at its longest word.
    if sum(widths) > room:
        widths = list(map(_longest_word, columns))
    lines = list(map(_lines, columns, widths))
    for _ in range(room - sum(widths)):
        # Room goes where it saves lines, until every cell is on one line.
        open_ones = [place for place, column in enumerate(columns) if widths[place] < max(map(len, column))]
        if not open_ones:
            break
        place = max(open_ones, key=lines.__getitem__)
        widths[place] += 1
        lines[place] = _lines(columns[place], widths[place])
    return widths


def _whole(column: Sequence[str]) -> int:
    """Return the least width that breaks no cell of a column and no word of its header."""
    header, *cells = column
    return max([_longest_word([header]), *map(len, cells)])


def _longest_word(cells: Sequence[str]) -> int:
    """Return the length of the longest word in some cells."""
    return max(map(len, " ".join(cells).split()), default=1)


def _lines(cells: Sequence[str], width: int) -> int:
    """Return how many lines the cells of one column need beyond the first of each."""
    extra_lines = 0
    for cell in cells:
        used = 0
        for word in cell.split():
            if used and used + 1 + len(word) > width:
                extra_lines += 1
                used = 0
            used += bool(used) + len(word)
    return extra_lines


def who() -> str:
    """Return the name of the user that runs the command."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user has a number only
        return f"user {os.getuid()}"


def passed_over(site: str) -> None:
    """Print that a package of this site in the current folder is ignored, where there is one."""
    if sentence := packages.passed_over("site", site):
        typer.echo(sentence, err=True)
