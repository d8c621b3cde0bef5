"""`flfed demo` and `flfed app`: two studies on real data, and the dashboard on this machine."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import NoReturn

import typer

from flfed.cli.progress import loading, progress, stoppable
from flfed.errors import UsageError

STUDIES = ("preterm-birth", "loan-default")


def demo() -> None:
    """Run two studies on real embedded data: four clinics, and four lenders."""
    from flfed.cli.runs import print_report

    for name in STUDIES:
        with stoppable():
            with loading():
                from flfed.federation.server.run import run
            typer.echo(f"\nRunning the study {name} ...", err=True)
            with progress() as show_progress:
                result = run(name, progress=show_progress)
        print_report(result.report)
    typer.echo("\nTo see both in the app: flfed app   (or, in a checkout: make app)")
    typer.echo("To run one yourself: flfed study run preterm-birth --repeats 10")


ADDRESS = "127.0.0.1"
"""Of the app: only this machine reaches it."""


def open_app(
    port: int = typer.Option(8501, min=1, max=65535, help="Port on this machine."),
    headless: bool = typer.Option(False, help="Do not open a browser window."),
) -> None:
    """Open the app: runs, and per site what joining brought.

    Only this machine can reach it, and of this machine who opens the printed address: it has a token, and without it
    nothing is shown. Where people log in (docs/app.md), the login stands in place of the token.
    """
    from flfed.packages import first_changeable, own_root
    from flfed.records.dashboard import APP_TOKEN
    from flfed.records.store.database import store_url
    from flfed.records.store.reader import RunReader

    RunReader.open().close()  # refused here, where a person reads it, and not on a page
    store = store_url()
    # A relative path would be another one after the folder is left.
    if store.get_backend_name() == "sqlite" and os.environ.get("FLFED_STORE") and store.database:
        os.environ["FLFED_STORE"] = f"sqlite:///{Path(store.database).absolute()}"
    script = own_root() / "app.py"
    if not script.is_file():
        raise UsageError("app.py is not found; is flfed installed completely?")
    os.environ[APP_TOKEN] = secrets.token_urlsafe()
    # Settings that somebody else could change could make the app listen to others.
    settings = Path(".streamlit")
    theirs = first_changeable([settings, *settings.glob("*")]) if settings.exists() else ""
    if theirs:
        typer.echo(f"The settings in {settings.absolute()} are not read: {theirs}.", err=True)
    if theirs or not settings.exists():
        leave_current_folder(script.parent)
    run(script, "flfed app", port=port, headless=headless)


def leave_current_folder(folder: Path) -> None:
    """Go to a folder of ours: Streamlit reads its settings in the current one, which may be anybody's."""
    # These paths are made whole first, for they are read from the folder that is left.
    for name in ("FLFED_HOME", "FLFED_PATH"):
        if setting := os.environ.get(name):
            places = [str(Path(part).expanduser().absolute()) for part in setting.split(os.pathsep) if part]
            os.environ[name] = os.pathsep.join(places)
    os.chdir(folder)


def run(script: Path, command: str, *, port: int, headless: bool) -> NoReturn:
    """Serve an app of ours to this machine alone, in place of this process, and send nothing anywhere.

    Parameters
    ----------
    script : Path
    command : str
        The command of ours that serves it, as a person types it.
    port : int
    headless : bool
        Open no browser; so too where there is no screen.

    Raises
    ------
    UsageError
        If the port is in use, or is not for this user.
    """
    # A free port goes with the refusal, so that the next try works.
    why = _in_the_way(port)
    if why:
        others = (*range(port + 1, 65536), *range(1024, port))
        free = next((str(other) for other in others if not _in_the_way(other)), "PORT")
        raise UsageError(f"port {port} {why}: {command} --port {free}")
    options = {
        "--server.address": ADDRESS,
        "--server.port": str(port),
        "--browser.serverPort": str(port),
        "--server.headless": str(headless or not _has_screen()).lower(),
        "--server.showEmailPrompt": "false",
        "--server.fileWatcherType": "none",
        "--runner.magicEnabled": "false",
        "--browser.gatherUsageStats": "false",
        "--client.toolbarMode": "minimal",
        "--client.showErrorDetails": "none",
        "--logger.hideWelcomeMessage": "true",  # the app tells its address
    }
    words = [sys.executable, "-P", "-m", "flfed.records.dashboard.streamlit_command", "run", str(script)]
    words += chain.from_iterable(options.items())
    if os.name == "posix":
        # In place of this process, so that whoever ends it ends the app.
        os.execv(sys.executable, words)
    raise typer.Exit(subprocess.call(words))


def _in_the_way(port: int) -> str:
    """Return why the app cannot be served on a port, in a few words; "" where nothing is in the way."""
    with socket.socket() as tried:
        if os.name == "posix":
            # As Streamlit does: a port is free as soon as the app on it has ended.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((ADDRESS, port))
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            return "is in use on this machine" if in_use else f"cannot be used ({error.strerror})"
    return ""


def _has_screen() -> bool:
    """Tell whether a browser can show a window; a text browser would take the terminal."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
