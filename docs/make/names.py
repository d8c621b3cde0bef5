"""Names in the pages that flfed does not have: commands, their options, and keys of files.

The keys of a file are those of docs/reference, which a test compares with the code. The changelog is history, and is
not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import click
import typer.main
from markdown_it import MarkdownIt

from flfed.cli import commands

ROOT = Path(__file__).resolve().parents[2]
CALL = re.compile(r"^(?:\$ |sudo )*flfed((?: [a-z][a-z-]*)+)(.*)$", re.MULTILINE)
SHORT_CALL = re.compile(r"(?:data|study|run|site|coordinator) [a-z][a-z-]*")
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
TABLE_AND_KEY = re.compile(r"\[([a-z.-]+)\],? ([a-z][a-z-]*)(?: =.*)?")
SECTION = re.compile(r"^#+ (?:A figure of )?\[+([a-z.-]+)")
KEY_ROW = re.compile(r"^\| `([a-z][a-z-]*)` \|")
TABLE_LINE = re.compile(r"^\[+([a-z.-]+)")
KEY_LINE = re.compile(r"^([a-z][a-z-]*) *= ")
REFERENCE = ROOT / "docs" / "reference"
FILES = ("study", "policy", "schema", "source")
HISTORY = "CHANGELOG.md"


def pages() -> list[Path]:
    """Return the pages that people write and read; references are made of code."""
    names = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
    written = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "reference" not in path.parts]
    return [*(ROOT / name for name in names), *sorted(ROOT.glob("datasets/*/README.md")), *written]


def code_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each piece of code of a page, with its line."""
    line = 0
    for token in MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map is not None else line
        if token.type == "fence":
            yield line, token.content
        for child in token.children or ():
            if child.type == "code_inline":
                yield line, child.content


@cache
def keys() -> Mapping[str, set[str]]:
    """Return the keys of each table of each file; those at the top of any file have the name ""."""
    found: dict[str, set[str]] = {"": set()}
    for name in FILES:
        table = ""
        for line in (REFERENCE / f"{name}.md").read_text(encoding="utf-8").splitlines():
            if line.startswith("#"):
                section = SECTION.match(line)
                table = section[1].rstrip(".") if section else ""
            elif row := KEY_ROW.match(line):
                found.setdefault(table, set()).add(row[1])
    return found


@cache
def command_tree() -> click.Command:
    """Return flfed's command, with all others in it."""
    return typer.main.get_command(commands.app)


def options_of(command: click.Command) -> set[str]:
    """Return the options of a command, also the short ones."""
    found = {"--help"}
    for parameter in command.params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def unknown_names(path: Path) -> Iterator[str]:
    """Yield a line for each command, option or key of a page that flfed does not have."""
    if path.name == HISTORY:
        return
    page = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    for line, text in code_of(path):
        problems = [*unknown_in_calls(text), *unknown_in_pairs(text)]
        yield from (f"{page}:{line} {problem}" for problem in problems)
    for line, problem in unknown_in_files(path):
        yield f"{page}:{line} {problem}"


def unknown_in_calls(text: str) -> Iterator[str]:
    """Yield each command of flfed in a piece of code that does not exist, and each option that it does not have."""
    if SHORT_CALL.fullmatch(text):
        text = f"flfed {text}"
    for words, rest in CALL.findall(text.replace("\\\n", " ")):
        command, missing = command_of(command_tree(), words.split())
        if missing:
            yield f"flfed{words}: {missing} is no command"
            continue
        for option in OPTION.findall(rest.partition(" #")[0]):
            if option not in options_of(command):
                yield f"flfed{words}: {option} is no option of it"


def command_of(command: click.Command, words: Sequence[str]) -> tuple[click.Command, str]:
    """Return the command that some words name, and the first word that names none, or ""."""
    for word in words:
        if not isinstance(command, click.Group):
            return command, ""
        if word not in command.commands:
            return command, word
        command = command.commands[word]
    return command, ""


def unknown_in_pairs(text: str) -> Iterator[str]:
    """Yield the reason why a piece of code such as "[compare] resamples" names no key."""
    pair = TABLE_AND_KEY.fullmatch(text)
    if pair is None:
        return
    table, key = pair.groups()
    if table not in keys():
        yield f"[{table}] is no table"
    elif key not in keys()[table] | keys().get(f"{table}.partition", set()):
        yield f"[{table}] has no key {key}"


def unknown_in_files(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line of each unknown key in a page's blocks of TOML, and the reason."""
    for token in MarkdownIt("commonmark").parse(path.read_text(encoding="utf-8")):
        if token.type != "fence" or token.info.split()[:1] != ["toml"] or token.map is None:
            continue
        table = ""
        for place, line in enumerate(token.content.splitlines(), token.map[0] + 2):
            if header := TABLE_LINE.match(line):
                table = header[1].rstrip(".")
            elif (key := KEY_LINE.match(line)) and table in keys() and key[1] not in keys()[table]:
                yield place, f"[{table}] has no key {key[1]}"
