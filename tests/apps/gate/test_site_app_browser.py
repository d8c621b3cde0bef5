"""The app of a site's own people in a real browser: every page, wide, narrow and dark; a new line shows by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from flfed.apps import site_app
from flfed.apps.gate.receipts import ledger_of
from flfed.apps.site_app.may_look import SITE
from tests.browser import Window, opened, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
APP = Path(site_app.__file__).with_name("app.py")
PAGES = [name.capitalize() for name in site_app.page_files()]


def walk(window: Window) -> None:
    """Look at every page, wide, narrow and dark: each must be sound, and its charts not empty."""
    for name in PAGES:
        window.turn_to(name)
        for width, scheme in ((1280, "light"), (768, "dark")):
            window.page.emulate_media(color_scheme=scheme)
            window.page.set_viewport_size({"width": width, "height": 1000})
            window.page.wait_for_timeout(150)
            window.picture(f"site-app-{name.lower()}-{width}-{scheme}")
            window.is_sound()
        window.page.set_viewport_size({"width": 1280, "height": 1000})
        window.page.wait_for_function(
            "document.querySelector('[data-testid=stSidebar]').getBoundingClientRect().x >= 0"
        )
        assert 0 not in window.marks(), (name, window.marks())
        assert len(window.marks()) == {"Ledger": 1, "Results": 1}.get(name, 0)


def test_every_page_is_sound_and_a_new_line_shows_by_itself(ran: Any):
    environment = {key: os.environ[key] for key in ("FLFED_HOME", "FLFED_PATH", SITE)}
    with served(environment, script=APP) as address, opened(address) as window:
        window.page.goto(address)
        window.page.locator("h1").first.wait_for()
        walk(window)
        site = ran[0]
        window.turn_to("Ledger")
        window.page.get_by_text(f"each of {len(site.lines())} lines").wait_for()
        ledger_of(site.folder).append(kind="train", study="small", run="r2", round=1, bytes=4321)
        window.page.get_by_text(f"each of {len(site.lines())} lines").wait_for(timeout=5000)
        window.is_sound()
