"""Sentences in templates: each is used, has the facts that its callers give, and reads as a sentence."""

import ast
import re
import string
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import pytest

from flfed.refusals import TEMPLATES as REFUSALS
from flfed.words import render
from tests.cli.test_every_help import ALL as COMMANDS

ROOT = Path(__file__).resolve().parents[1] / "flfed"
WHOLE = (
    "approval.changed-keys.",
    "glossary.",
    "names.",
    "study.patterns.",
)
"""Tables that code reads as a whole."""
RENDERING = ("render", "usage_error", "flfed_error")
"""Functions whose first argument is a template's key."""


@cache
def templates() -> dict[str, str]:
    """Return every template by its whole key."""
    by_key = {}
    for file in sorted((ROOT / "words").glob("*.toml")):
        for table, sentences in tomllib.loads(file.read_text("utf-8")).items():
            for name, text in sentences.items():
                by_key[f"{file.stem}.{table}.{name}"] = text
    return by_key


def places(text: str) -> set[str]:
    """Return the names of the facts of a template."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@dataclass(frozen=True)
class Call:
    """A call of one of RENDERING: where it stands, the pattern of its key, and the facts; None where computed."""

    where: str
    key: str
    facts: frozenset[str] | None

    def matching(self) -> list[str]:
        """Return the keys of the templates that it can render."""
        written_out = self.key.replace("\\", "")
        if written_out in templates():
            return [written_out]
        return [key for key in templates() if re.fullmatch(self.key, key)]


def patterns(node: ast.expr) -> Iterator[str]:
    """Yield patterns of the keys that an expression can be."""
    if isinstance(node, ast.Constant):
        yield re.escape(str(node.value))
    elif isinstance(node, ast.JoinedStr):
        parts = [re.escape(part.value) if isinstance(part, ast.Constant) else "[a-z0-9-]+" for part in node.values]
        yield "".join(parts)
    elif isinstance(node, ast.IfExp):
        yield from patterns(node.body)
        yield from patterns(node.orelse)
    else:
        raise AssertionError(f"the key of a template is not written out: {ast.unparse(node)}")


@cache
def calls() -> list[Call]:
    """Return every call of `render` and of the errors made by it in the package."""
    found = []
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RENDERING:
                if isinstance(node.args[0], ast.Name):
                    continue  # within the errors, which give on what it is given
                names = [keyword.arg for keyword in node.keywords]
                facts = None if None in names else frozenset(filter(None, names))
                where = f"{file.relative_to(ROOT)}:{node.lineno}"
                found += [Call(where, key, facts) for key in patterns(node.args[0])]
    return found


def test_each_call_has_a_template_with_the_facts_it_gives():
    assert len(calls()) > 5
    wrong = []
    for call in calls():
        keys = call.matching()
        if not keys:
            wrong.append(f"{call.where}: no template {call.key}")
        needed = [places(templates()[key]) for key in keys]
        # A key that is written out needs just its facts; of several templates each may leave out some.
        if call.facts is None:
            continue
        for key, needs in zip(keys, needed):
            if needs - call.facts:
                wrong.append(f"{call.where}: {key} lacks {needs - call.facts}")
        unused = call.facts - set().union(*needed)
        if keys and unused:
            wrong.append(f"{call.where}: no template {call.key} has {unused}")
    assert wrong == []


def test_each_template_is_used():
    used = {key for call in calls() for key in call.matching()}
    assert [key for key in templates() if key not in used and not key.startswith(WHOLE)] == []


@pytest.mark.parametrize("key", templates())
def test_each_template_reads_as_text_with_any_facts(key: str):
    text = templates()[key]
    # Named facts only: no position, no attribute and no index, so that a template cannot look into an object.
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in places(text))
    shown = text.format_map(dict.fromkeys(places(text), 7))
    assert shown.strip() and not re.search(r"[{}]|  |\s[,.;:](?!\d)", shown)


def test_each_command_and_option_that_a_sentence_advises_is_there():
    advised = 0
    wrong = []
    for key, text in [*templates().items(), *((f"refusals.{code}", text) for code, text in REFUSALS.items())]:
        for called, rest in re.findall(r"flfed ((?:[a-z]+ )*[a-z]+)((?:(?!flfed )[^`;:)\n])*)", text):
            names = called.split()
            command = max((words for words in COMMANDS if tuple(names[: len(words)]) == words), key=len)
            options = {option for one in COMMANDS[command].params for option in (*one.opts, *one.secondary_opts)}
            advised += bool(command)
            if isinstance(COMMANDS[command], click.Group) and command and len(names) > len(command):
                wrong.append(f"{key}: flfed {called}")
            if command:
                wrong += [
                    f"{key}: {called} {one}"
                    for one in re.findall(r"--[a-z-]+", rest)
                    if one not in options | {"--help"}
                ]
    assert advised > 200 and wrong == []


def test_a_template_that_lacks_a_fact_is_an_error():
    with pytest.raises(KeyError, match="kind"):
        render("approval.study.target", column="died")
