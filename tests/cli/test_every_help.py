"""Every `--help`, read as a person reads it, and every command that another one calls: each option is there."""

import ast
import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import click
import pytest
import typer
from typer.models import ParameterInfo

import flfed.cli
from flfed.cli.commands import app


def commands(group: click.Command, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that call it, groups too."""
    yield words, group
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, *words, name)


ALL = dict(commands(typer.main.get_command(app)))


def plain(text: str) -> str:
    """Return a text without blanks, lines and the frame that a help page draws."""
    return "".join(sign for sign in text if not sign.isspace() and sign not in "│╭╮╰╯─*")


def test_every_command_is_looked_at():
    assert len(ALL) > 40 and ("site", "ledger") in ALL and ("predict",) in ALL


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_shows_each_argument_and_option_with_what_it_is(flfed, monkeypatch, words: tuple[str, ...]):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = flfed(*words, "--help")
    assert (code, err) == (0, "")
    shown, missing = plain(out), []
    for given in ALL[words].params:
        what = getattr(given, "help", None)
        if getattr(given, "hidden", False):
            continue
        name = given.opts[0] if isinstance(given, click.Option) else given.human_readable_name
        missing += [name] if not what or plain(what) not in shown or plain(name).lower() not in shown.lower() else []
    assert missing == []


def test_a_paragraph_of_help_is_broken_at_the_edge_of_the_terminal_alone(flfed, monkeypatch):
    # At 80 columns no line but a paragraph's last ends where the next word would have fitted.
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = flfed("predict", "--help")
    lines = out.partition("Prints CSV")[2].partition("╭")[0].splitlines()
    told = [line.strip() for line in ["Prints CSV" + lines[0], *lines[1:]] if line.strip()]
    assert len(told) == 3
    for line, following in itertools.pairwise(told):
        assert len(line) + 1 + len(following.split()[0]) > 78


def calls(module: ModuleType) -> Iterator[tuple[ast.Call, Any]]:
    """Yield each call of a module with the function that it names, if this one is imported or written at its top."""
    tree = ast.parse(inspect.getsource(module))
    inner = {node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} - set(tree.body)
    hidden = {alias.name for node in inner for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in hidden:
            yield node, getattr(module, node.func.id, None)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = getattr(node.func.value, "id", "")
            yield node, getattr(getattr(module, owner, None), node.func.attr, None)


def not_given(call: ast.Call, function: Any) -> set[str]:
    """Return the options whose default is typer's own object, and for which a call in Python gives no value."""
    named = {keyword.arg for keyword in call.keywords}
    if None in named or not inspect.isfunction(function):
        return set()
    rest = list(inspect.signature(function).parameters.values())[len(call.args) :]
    own = {one.name for one in rest if isinstance(one.default, ParameterInfo)}
    return own - named - {"as_json", "form"}  # which `flfed.cli.output` adds, with a default for Python


def test_a_command_that_another_one_calls_is_given_each_of_its_options():
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(flfed.cli.__path__, "flfed.cli.")]
    found = [(module.__name__, call, function) for module in modules for call, function in calls(module)]
    assert any(getattr(function, "__name__", "") == "serve_site" for _, _, function in found)
    assert [f"{name}:{call.lineno}" for name, call, function in found if not_given(call, function)] == []
