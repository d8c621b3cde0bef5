"""The commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import click

NOT_WHOLE = re.compile(r"is not a valid integer(?: range)?")
ALIKE = 0.7
"""Likeness from which on an option is taken to be the one that was meant (of 1)."""
FORMER_OPTIONS = {"--to": "--output", "--out": "--output", "--analysis": "--summary"}
FORMER_COMMANDS = {"site freeze": "site snapshot"}
"""Options and commands before version 0.5.0, with those of now."""
STOPPED = 3
"""Exit code of what was stopped by a person, or by its own rules."""


def main() -> None:
    """Run a command; an error a person can act on is one sentence and an exit code."""
    for library in ("OMP", "OPENBLAS"):
        # Before either is loaded: at our sizes a second thread only waits, and burns a core meanwhile.
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    try:
        _run()
    except KeyboardInterrupt as error:
        # Before a command began, or where it has nothing to say of what is left undone.
        _leave_interrupted(error)


def _run() -> NoReturn:
    import atexit
    import gc

    import click

    from flfed.cli.commands import app
    from flfed.errors import FlfedError

    # As it ends, Python looks for garbage among all that is loaded, again and again: 0.7 of a run's seconds (measured).
    atexit.register(gc.freeze)
    try:
        code = app(standalone_mode=False)
    except FlfedError as error:
        _leave(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _leave(_in_words(error), error.exit_code)
    except click.Abort:
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output (head, less) has left.
        sys.stderr.close()
        sys.exit(1)
    if code == 128 + signal.SIGINT:  # Typer's own code for Ctrl-C
        _leave_interrupted(KeyboardInterrupt())
    sys.exit(code)


def _leave_interrupted(error: KeyboardInterrupt) -> NoReturn:
    from flfed.errors import interruption

    _leave(interruption(error), STOPPED)


def _in_words(error: click.ClickException) -> str:
    """Return what is wrong with a command's words, and where to look."""
    import click

    # Click and Typer both add what was meant: said once, it is enough.
    message = re.sub(r"( Did you mean [^?]+\?)\1", r"\1", error.format_message().rstrip("."))
    message = NOT_WHOLE.sub("is not a whole number", message)
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return message
    if former := _former_name(error, error.ctx):
        return former
    if isinstance(error, click.NoSuchOption):
        message = error.message.rstrip(".")
        # Click also finds words alike that have little more than the dashes in common.
        near = [name for name in error.possibilities or () if _alike(name, error.option_name)]
        if near:
            message += f"; did you mean {near[0]}?"
        elif any("--set" in parameter.opts for parameter in error.ctx.command.params):
            message += "; a key of the study is set with --set KEY=VALUE, such as --set rounds=3"
    see = " See" if message.endswith("?") else "; see"
    return f"{message}{see}: {error.ctx.command_path} --help"


def _former_name(error: click.UsageError, context: click.Context) -> str:
    """Return what an option or a command from before 0.5.0 is called now, "" for any other error."""
    import click

    if isinstance(error, click.exceptions.NoSuchCommand):
        former = f"{context.info_name} {error.command_name}"
        if former in FORMER_COMMANDS:
            return f"flfed {former} is now flfed {FORMER_COMMANDS[former]}"
    if isinstance(error, click.NoSuchOption):
        now = FORMER_OPTIONS.get(error.option_name)
        if any(now in parameter.opts for parameter in context.command.params):
            return f"{error.option_name} is now {now}"
    return ""


def _alike(name: str, typed: str) -> bool:
    """Tell whether an option is probably the one that was meant."""
    from difflib import SequenceMatcher

    return SequenceMatcher(None, name.strip("-"), typed.strip("-")).ratio() >= ALIKE


def _leave(sentence: str, code: int) -> NoReturn:
    """Print one line to standard error and end; a terminal gets it broken between words."""
    line = f"flfed: {' '.join(sentence.split())}"
    if sys.stderr.isatty():
        import shutil
        import textwrap

        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr)
    sys.exit(code)
