"""Every `--help`, read as a person reads it: each argument and each option is there, with what it is."""

import itertools
from collections.abc import Iterator

import click
import pytest
import typer

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
