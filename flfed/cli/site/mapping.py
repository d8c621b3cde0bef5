"""`flfed site map`: the mapping of a site's table as a dialogue."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flfed.cli import output
from flfed.cli.arguments import SITE_NAME
from flfed.cli.site.rows import check_table, opened, refuse_unfit
from flfed.errors import UsageError
from flfed.words import render, shorten, usage_error

if TYPE_CHECKING:
    from flfed.rows.data.parsing.fields import ColumnMapping
    from flfed.rows.data.site import Site
    from flfed.rows.proposals.answers import Answers
    from flfed.rows.proposals.dialogue import MappingDialogue, Question

STORED = "mapping-answers.toml"
"""File with the answers of an unfinished dialogue, in the site's folder under `FLFED_HOME`."""


@output.tables
def map_site(
    name: str = SITE_NAME,
    answers: Path | None = typer.Option(
        None, help="TOML file with the answers, for scripts: tables columns, units and codes."
    ),
    again: bool = typer.Option(False, "--again", help="Forget the answers of an unfinished dialogue."),
    as_json: bool = output.JSON,
) -> None:
    """Map a site's table to its dataset's schema: what is sure is filled in, the rest is asked.

    No cell is printed, and no count of 1 to 4. Each answer is stored at once, so the command continues after Ctrl-C.
    The package's earlier text stays beside it.
    """
    from flfed.rows.data import datasets
    from flfed.rows.data.table_check import check_site
    from flfed.rows.proposals import own_tables
    from flfed.rows.proposals.dialogue import MappingDialogue, preview_mapping

    site, folder = opened(name)
    package = _package(site)
    stored = folder.gate / STORED
    if again:
        stored.unlink(missing_ok=True)
    table = site.prepared_table()
    own_tables.refuse_row(table, site.source, name)
    schema = datasets.load(site.dataset).schema
    # The source's own signs for "not known" are no codes.
    cells = table.where(~table.isin(site.source.missing))
    dialogue = MappingDialogue(cells, schema, _read_answers(answers, stored), site.mapping)
    asks = answers is None and not as_json and sys.stdin.isatty()
    if not as_json:
        _print_filled_in(dialogue, name)
    agreed = False
    while not agreed:
        if asks:
            folder.make()
            _ask_all(dialogue, stored, name)
        _refuse_undecided(dialogue)
        mapping = dialogue.mapping()
        preview = list(preview_mapping(table, schema, mapping, site.source.missing))
        if not as_json:
            _print_preview(dialogue, preview, render("commands.map.preview", site=name, rows=len(table)))
        agreed = not asks or _agree(dialogue, stored, name, package)
    copy = _write(site, package, mapping)
    stored.unlink(missing_ok=True)
    mapped = opened(name)[0]
    if not as_json:
        _print_written(package, copy)
        check_table(mapped)
        return
    checked = check_site(mapped)
    facts = {"site": name, "dataset": site.dataset, "file": str(package), "earlier": copy and str(copy)}
    columns = {"columns": _columns(dialogue), "preview": preview}
    output.print_json({**facts, **columns, "passed": checked.passed})
    refuse_unfit(checked, site.dataset)


def _read_answers(file: Path | None, stored: Path) -> Answers:
    """Return the answers of a file, else those of an unfinished dialogue."""
    from flfed.rows.proposals.answers import Answers

    if file is not None:
        return Answers.read(file)
    if not stored.exists():
        return Answers()
    typer.echo(render("commands.map.resumed"), err=True)
    return Answers.read(stored)


def _package(site: Site) -> Path:
    """Return the file of a site's package."""
    package = site.folder and site.folder / "__init__.py"
    if package is None or not package.is_file():
        raise usage_error("commands.map.package", site=site.name)
    return package


def _print_filled_in(dialogue: MappingDialogue, name: str) -> None:
    """Print what needs no answer: what is sure, what was answered, and what is not here."""
    output.say(render("commands.map.filled-in", site=name))
    for column, decision in dialogue.decisions().items():
        if decision.origin != "undecided":
            line = render("commands.map.absent", column=column, why=decision.why)
            if decision.own is not None:
                line = render("commands.map.origin", column=column, own=decision.own, why=decision.why)
            output.say(f"  {line}")


def _ask_all(dialogue: MappingDialogue, stored: Path, name: str) -> None:
    """Ask all questions, and store each answer."""
    try:
        while question := dialogue.next_question():
            typer.echo("")
            for line in question.lines:
                output.say(line)
            _ask(dialogue, question)
            dialogue.answers.write(stored)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo(f"\n{render('commands.map.unwritten', site=name)}", err=True)
        raise


def _agree(dialogue: MappingDialogue, stored: Path, name: str, package: Path) -> bool:
    """Return True where a person agrees, False where this person corrected a column; raise where neither."""
    question = render("commands.map.agree", file=package)
    while True:
        text = typer.prompt(question, default="no")
        if "=" not in text:
            break
        try:
            dialogue.correct(text)
        except UsageError as error:
            output.say(render("commands.map.invalid", reason=error))
        else:
            dialogue.answers.write(stored)
            return False
    if text.strip().casefold() not in ("y", "yes"):
        raise usage_error("commands.map.unwritten", site=name)
    return True


def _ask(dialogue: MappingDialogue, question: Question) -> None:
    """Ask one question until there is an answer to it."""
    while True:
        text = typer.prompt(">", prompt_suffix=" ", default="", show_default=False)
        try:
            dialogue.answer(question, text)
            return
        except UsageError as error:
            output.say(render("commands.map.invalid", reason=error))


def _refuse_undecided(dialogue: MappingDialogue) -> None:
    """Refuse questions that nobody is there to answer."""
    decisions = dialogue.decisions()
    columns = [column for column, decision in decisions.items() if decision.origin == "undecided"]
    codes = [column for column, decision in decisions.items() if decision.open_values]
    if columns or codes:
        unnamed = ", ".join(codes) or "none"
        raise usage_error("commands.map.unanswered", columns=", ".join(columns) or "none", codes=unnamed)


def _print_preview(dialogue: MappingDialogue, preview: list[dict[str, object]], title: str) -> None:
    """Print the counts of the mapping, and the columns that it does not use."""
    headers = ["column", "read from", "rows read", "missing", "outside", "unread", "values"]
    lines = [list(map(str, counts.values())) for counts in preview]
    output.as_table(headers, lines, title=title, cut="values")
    if unread := dialogue.unread():
        output.say(render("commands.mapping.unread", columns=shorten(unread, 20)))


def _print_written(package: Path, copy: Path | None) -> None:
    output.say(render("commands.map.written", file=package))
    if copy is not None:
        output.say(render("commands.map.earlier", file=copy))


def _columns(dialogue: MappingDialogue) -> list[dict[str, object]]:
    """Return each column's origin and reason."""
    columns: list[dict[str, object]] = []
    for column, decision in dialogue.decisions().items():
        facts = {"column": column, "site-column": decision.own, "origin": decision.origin, "why": decision.why}
        columns.append({**facts, "unit-factor": decision.field and decision.field.multiply})
    return columns


def _write(site: Site, package: Path, mapping: ColumnMapping) -> Path | None:
    """Write the mapping into the package, and return the copy of its earlier text, if it differed."""
    from dataclasses import replace

    from flfed.files import write_whole
    from flfed.rows.proposals import texts
    from flfed.rows.proposals.matching import describe_gaps

    mapped = replace(site, mapping=mapping)
    text = texts.replace_mapping(package.read_text("utf-8"), mapped.mapping, describe_gaps(mapped))
    if text is None:
        raise usage_error("commands.map.computed", file=package)
    copy = texts.keep_copy(package, text.encode())
    write_whole(package, text.encode(), mode=package.stat().st_mode & 0o777)
    return copy
