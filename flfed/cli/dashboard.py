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

from flfed.callbacks import loading
from flfed.cli.progress import progress, stoppable
from flfed.errors import UsageError
from flfed.words import render

STUDIES = {"loan-default": "Four lenders", "preterm-birth": "Four clinics"}
"""Studies of the demo and who takes part: first the one whose mean gain is clearest."""
REPEATS = 3


def demo() -> None:
    """Run two studies on real data that comes with flfed: four lenders, then four clinics."""
    conclusions = []
    for name, sites in STUDIES.items():
        typer.echo(render("commands.demo.study", study=name, repeats=REPEATS), err=True)
        with stoppable(), progress(steady=True) as show_progress:
            with loading(show_progress, freeze=True):
                from flfed.cli.run_tables import conclude, print_report
                from flfed.federation.server.run import run
            result = run(name, repeats=REPEATS, progress=show_progress)
        print_report(result.report)
        typer.echo()
        conclusions.append(render("commands.demo.conclusion", sites=sites, study=name, text=conclude(result.report)))
    for line in conclusions:
        typer.echo(line)
    typer.echo(render("commands.demo.app"))


ADDRESS = "127.0.0.1"
"""Address of the app: only this machine reaches it."""


def open_app(
    port: int = typer.Option(8501, min=1, max=65535, help="Local port."),
    headless: bool = typer.Option(False, help="Open no browser."),
    anonymous: bool = typer.Option(False, help="Show site 1, site 2 and so on in place of names."),
) -> None:
    """Open the app: runs, and the gain of each site from joining.

    Only this machine can reach it, and only at the printed address, which has a token. Where people log in
    (docs/app.md), the login replaces the token.
    """
    from flfed.packages import first_changeable, own_root
    from flfed.records.dashboard import APP_TOKEN
    from flfed.records.store.database import store_url
    from flfed.records.store.reader import ANONYMOUS, RunReader

    RunReader.open().close()  # an unusable store is refused here, where a person reads it, and not on a page
    store = store_url()
    # A relative path would name another file in the folder of the app.
    if store.get_backend_name() == "sqlite" and os.environ.get("FLFED_STORE") and store.database:
        os.environ["FLFED_STORE"] = f"sqlite:///{Path(store.database).absolute()}"
    script = own_root() / "app.py"
    if not script.is_file():
        raise UsageError("app.py is missing; install flfed again")
    os.environ[APP_TOKEN] = secrets.token_urlsafe()
    if anonymous:
        os.environ[ANONYMOUS] = "1"
    # Settings that another account can change could let the app listen to other machines.
    settings = Path(".streamlit")
    theirs = first_changeable([settings, *settings.glob("*")]) if settings.exists() else ""
    if theirs:
        typer.echo(render("commands.app.settings", folder=settings.absolute(), reason=theirs), err=True)
    if theirs or not settings.exists():
        leave_current_folder(script.parent)
    run(script, "flfed app", port=port, headless=headless)


def leave_current_folder(folder: Path) -> None:
    """Change to a folder of ours: Streamlit reads settings in the current one, which may be anybody's."""
    # Relative paths are resolved while the current folder is still the caller's.
    for name in ("FLFED_HOME", "FLFED_PATH"):
        if setting := os.environ.get(name):
            places = [str(Path(part).expanduser().absolute()) for part in setting.split(os.pathsep) if part]
            os.environ[name] = os.pathsep.join(places)
    os.chdir(folder)


def run(script: Path, command: str, *, port: int, headless: bool) -> NoReturn:
    """Serve an app of ours to this machine alone, in place of this process; it sends nothing out.

    Parameters
    ----------
    script : Path
    command : str
        The command that serves it, as a person types it.
    port : int
    headless : bool
        Whether to open no browser, as where there is no screen.

    Raises
    ------
    UsageError
        If the port is in use, or this user may not use it.
    """
    # The refusal names a free port, so that the next try works.
    obstacle = _obstacle(port)
    if obstacle:
        others = (*range(port + 1, 65536), *range(1024, port))
        free = next((str(other) for other in others if not _obstacle(other)), "PORT")
        raise UsageError(f"port {port} {obstacle}: {command} --port {free}")
    shows_browser = not headless and has_screen()
    options = {
        "--server.address": ADDRESS,
        "--server.port": str(port),
        "--browser.serverPort": str(port),
        "--server.headless": str(not shows_browser).lower(),
        "--server.showEmailPrompt": "false",
        "--server.fileWatcherType": "none",
        "--runner.magicEnabled": "false",
        "--browser.gatherUsageStats": "false",
        "--client.toolbarMode": "minimal",
        "--client.showErrorDetails": "none",
        "--logger.hideWelcomeMessage": "true",  # the app prints its address
    }
    words = [sys.executable, "-P", "-m", "flfed.records.dashboard.streamlit_command", "run", str(script)]
    words += chain.from_iterable(options.items())
    if os.name == "posix":
        # In place of this process, so that a signal to it ends the app.
        os.execv(sys.executable, words)
    raise typer.Exit(subprocess.call(words))


def has_screen() -> bool:
    """Return whether a browser can be opened; a text browser would take over the terminal."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _obstacle(port: int) -> str:
    """Return why the app cannot be served on a port, in a few words, or ""."""
    with socket.socket() as tried:
        if os.name == "posix":
            # As in Streamlit: a port is free as soon as the app on it has ended.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((ADDRESS, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "is in use"
            return f"cannot be used ({error.strerror})"
    return ""
