"""The commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

STOPPED = 3
"""Exit code of what was stopped by a person, or by its own rules."""


def main() -> None:
    """Run a command; an error a person can act on is one sentence and an exit code."""
    for library in ("OMP", "OPENBLAS"):
        # Before either is loaded: at our sizes a second thread only waits, and burns a core meanwhile.
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    try:
        _run()
    except KeyboardInterrupt:
        # Before a command began, or where it has nothing to say of what is left undone.
        sys.exit(STOPPED)


def _run() -> NoReturn:
    import atexit
    import gc
    import re

    import click

    from flfed.cli.commands import app
    from flfed.errors import FlfedError

    # As it ends, Python looks for garbage among all that is loaded, again and again: .7 of a run's seconds (measured).
    atexit.register(gc.freeze)
    try:
        code = app(standalone_mode=False)
    except FlfedError as error:
        _leave(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        asked = f"; see: {error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else ""
        # Click and Typer both add what was meant: said once, it is enough.
        said = re.sub(r"( Did you mean [^?]+\?)\1", r"\1", error.format_message().rstrip("."))
        _leave(f"{said}{asked}", error.exit_code)
    except click.Abort:
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output (head, less) has left.
        sys.stderr.close()
        sys.exit(1)
    # Typer's own code for Ctrl-C.
    sys.exit(STOPPED if code == 128 + signal.SIGINT else code)


def _leave(sentence: str, code: int) -> NoReturn:
    """Print one line to standard error and end."""
    print(f"flfed: {' '.join(sentence.split())}", file=sys.stderr)
    # Typer's own code for Ctrl-C.
    sys.exit(STOPPED if code == 128 + signal.SIGINT else code)
