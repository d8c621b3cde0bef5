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
"""Least similarity (of 1) at which an option is suggested."""
STOPPED = 3
"""Exit code where a person, or a rule of the study, stopped the command."""


def main() -> None:
    """Run a command; end with one sentence and an exit code where it fails."""
    for library in ("OMP", "OPENBLAS"):
        # Set before either library is loaded: at these sizes a second thread only waits.
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    try:
        _run()
    except KeyboardInterrupt as error:
        # Either no command began, or the command has no advice of its own.
        _leave_interrupted(error)


def _run() -> NoReturn:
    import atexit
    import gc

    import click

    from flfed.cli.commands import app
    from flfed.errors import FlfedError

    # At exit, Python would otherwise search all that is loaded for garbage, several times.
    atexit.register(gc.freeze)
    try:
        code = app(standalone_mode=False)
    except FlfedError as error:
        _leave(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _leave(_describe(error), error.exit_code)
    except click.Abort:
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output (head, less) has ended.
        sys.stderr.close()
        sys.exit(1)
    if code == 128 + signal.SIGINT:  # Typer's own code for Ctrl-C
        _leave_interrupted(KeyboardInterrupt())
    sys.exit(code)


def _leave_interrupted(error: KeyboardInterrupt) -> NoReturn:
    from flfed.errors import interruption

    _leave(interruption(error), STOPPED)


def _describe(error: click.ClickException) -> str:
    """Return the error of a command line, and the help to read."""
    import click

    from flfed.words import render

    # Click and Typer both add the suggestion: once is enough.
    message = re.sub(r"( Did you mean [^?]+\?)\1", r"\1", error.format_message().rstrip("."))
    message = NOT_WHOLE.sub("is not a whole number", message)
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return message
    if isinstance(error, click.NoSuchOption):
        message = error.message.rstrip(".")
        # Click also suggests options that share little more than their dashes.
        near = [name for name in error.possibilities or () if _alike(name, error.option_name)]
        if near:
            message += f"; did you mean {near[0]}?"
        elif any("--set" in parameter.opts for parameter in error.ctx.command.params):
            message += f"; {render('commands.usage.set')}"
    see = " See" if message.endswith("?") else "; see"
    return f"{message}{see}: {error.ctx.command_path} --help"


def _alike(name: str, typed: str) -> bool:
    """Return whether an option is probably the one that was meant."""
    from difflib import SequenceMatcher

    return SequenceMatcher(None, name.strip("-"), typed.strip("-")).ratio() >= ALIKE


def _leave(sentence: str, code: int) -> NoReturn:
    """Print one sentence to standard error and end; on a terminal it wraps between words."""
    line = f"flfed: {' '.join(sentence.split())}"
    if sys.stderr.isatty():
        import shutil
        import textwrap

        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    print(line, file=sys.stderr)
    sys.exit(code)
