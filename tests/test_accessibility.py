"""The tools that look for faults of pages find those that are planted, and none on a page without."""

import pytest

from tests.accessibility import faults_in_both_themes, overflows, serious_faults
from tests.browser import opened

pytestmark = [pytest.mark.slow, pytest.mark.browser]
SOUND = """<!doctype html><html lang="en"><head><title>A page</title>
<style>@media (prefers-color-scheme: dark) { body { background: #14191f; color: #e8edf2 } }</style></head>
<body><main><h1>Runs</h1><label>Site <select><option>cleveland</option></select></label>
<div style="overflow-x: auto" tabindex="0"><div style="width: 2000px">a wide table that scrolls</div></div>
</main></body></html>"""
PLANTED = {
    "select-name": ("<label>Site ", "<label></label><span>"),
    "image-alt": ("<h1>", "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='><h1>"),
    "color-contrast": ("<h1>", "<h1 style='color: #bbbbbb; background: #ffffff'>"),
    "html-has-lang": (' lang="en"', ""),
}
"""By axe-core's rule what stands on the sound page, and what on one with the fault."""


def test_a_planted_fault_is_found_and_a_sound_page_has_none():
    with opened("http://localhost") as window:
        window.page.set_content(SOUND)
        assert faults_in_both_themes(window.page) == []
        for rule, (before, after) in PLANTED.items():
            window.page.set_content(SOUND.replace(before, after))
            faults = serious_faults(window.page)
            assert [fault.partition(" ")[0] for fault in faults] == [rule]
            assert serious_faults(window.page, excused=[(rule, ".another"), ("label", "*")]) == faults
        assert serious_faults(window.page, excused=[("html-has-lang", "html")]) == []


def test_a_fault_of_one_theme_alone_is_found():
    with opened("http://localhost") as window:
        window.page.set_content(SOUND.replace("color: #e8edf2", "color: #3a434d"))
        assert serious_faults(window.page) == []
        faults = faults_in_both_themes(window.page)
        assert len(faults) >= 1 and all(fault.startswith("dark: color-contrast at ") for fault in faults)


@pytest.mark.proof
def test_what_reaches_beyond_the_edge_is_found_at_the_width_at_which_it_does():
    with opened("http://localhost") as window:
        window.page.set_content(SOUND)
        assert overflows(window.page) == []
        window.page.set_content(SOUND.replace("<h1>", "<h1 style='width: 500px; height: 20px'>"))
        wide = overflows(window.page)
        assert wide and all(part.startswith("390: <h") for part in wide)
        # What a hidden overflow of the page itself would cut off is found, too.
        cut = "<body style='overflow-x: hidden'>"
        window.page.set_content(SOUND.replace("<body>", cut).replace("<h1>", "<h1 style='width: 900px'>"))
        assert {part.partition(":")[0] for part in overflows(window.page)} == {"390", "768"}
        assert window.page.viewport_size["width"] == 1280
