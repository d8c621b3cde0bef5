"""How commands show things: JSON on standard output, everything else for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from flfed.apps.recording import Progress

JSON = typer.Option(False, "--json", help="Print one JSON object on standard output.")


def as_json(found: object) -> None:
    """Print one JSON object."""
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))


def as_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table for people; on a pipe it is as wide as it needs to be."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for place, header in enumerate(headers):
        # Names and ids are there to be copied: the first column is never broken.
        table.add_column(header, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """Yield a function that shows stages on standard error while something long runs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def told(stage: str, done: int, of: int) -> None:
            if of < 2:
                return
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=of)
            bars.update(tasks[stage], completed=done, total=of)

        yield told
