"""`flfed app`: the dashboard, on this machine only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import typer

from flfed.errors import UsageError


def open_app(
    port: int = typer.Option(8501, min=1, max=65535, help="Port on this machine."),
    headless: bool = typer.Option(False, help="Do not open a browser window."),
) -> None:
    """Open the app: runs, and per site what joining brought. Only this machine can reach it."""
    from flfed.home import roots

    files = [root / "app.py" for root in reversed(roots()) if (root / "app.py").is_file()]
    if not files:
        raise UsageError("app.py is not found; is flfed installed completely?")
    run(files[0], port=port, headless=headless)


def run(script: Path, *, port: int, headless: bool, welcome: bool = True) -> NoReturn:
    """Serve an app of ours to this machine alone, in place of this process, and send nothing anywhere.

    Parameters
    ----------
    script : Path
    port : int
    headless : bool
        Open no browser; so too where there is no screen.
    welcome : bool
        Whether Streamlit tells the address; else the app does.
    """
    options = {
        "--server.address": "127.0.0.1",
        "--server.port": str(port),
        "--server.headless": str(headless or not _has_screen()).lower(),
        "--server.showEmailPrompt": "false",
        "--server.fileWatcherType": "none",
        "--runner.magicEnabled": "false",
        "--browser.gatherUsageStats": "false",
        "--client.toolbarMode": "minimal",
        "--client.showErrorDetails": "none",
        "--logger.hideWelcomeMessage": str(not welcome).lower(),
    }
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    command += [word for pair in options.items() for word in pair]
    if os.name == "posix":
        # In place of this process, so that whoever ends it ends the app.
        os.execv(sys.executable, command)
    raise typer.Exit(subprocess.call(command))


def _has_screen() -> bool:
    """Tell whether a browser can show a window; a text browser would take the terminal."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
