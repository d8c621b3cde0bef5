"""`flfed site app`: what left a site, what was approved and what came of it, for the site's own people."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import typer

from flfed.cli import show
from flfed.errors import UsageError


def open_site_app(
    name: str = typer.Argument(..., help="A site's name."),
    port: int = typer.Option(8502, min=1, max=65535, help="Port on this machine."),
    headless: bool = typer.Option(False, help="Do not open a browser window."),
) -> None:
    """Open the site's own app: its ledger, budget, approvals and results, and nothing of others.

    Only this machine can reach it, and it only reads. The user that has the data looks; no other may: the printed
    address has a token, and without it nothing is shown.
    """
    from flfed.apps import site_app
    from flfed.apps.gate.folder import SiteFolder
    from flfed.apps.site_app.may_look import SITE, TOKEN, closed
    from flfed.cli import page
    from flfed.home import home
    from flfed.rows import site as sites

    try:
        home()
    except UsageError as error:
        raise UsageError(f"{error}; only the user that has the site's data may look") from None
    site = sites.load(name)
    show.passed_over(site.name)
    why = closed(SiteFolder(site.name))
    if why:
        raise UsageError(why)
    os.environ |= {SITE: site.name, TOKEN: secrets.token_urlsafe()}
    script = Path(site_app.__file__).with_name("app.py")
    page.leave_current_folder(script.parent)
    page.run(script, f"flfed site app {site.name}", port=port, headless=headless)
