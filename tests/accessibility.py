"""Faults that a reader with a screen reader, a keyboard or a phone would meet on a page, by axe-core and widths."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from axe_playwright_python.sync_playwright import Axe

WIDTHS = (390, 768, 1440)
"""Pixels of a phone, a tablet and a desk."""
THEMES = ("light", "dark")
LOOKS = 8
WEIGHTY = ("serious", "critical")
WIDER = """() => {
  const outer = document.querySelector('[data-testid=stMain]') || document.documentElement;
  const scrolls = part => ['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(part).overflowX);
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push(document.documentElement);
  if (outer.scrollWidth > outer.clientWidth) found.push(outer);
  for (const part of outer.querySelectorAll('*')) {
    const box = part.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= innerWidth + 1 || part.closest('svg, canvas')) continue;
    let inside = part.parentElement;
    while (inside && inside !== outer && !scrolls(inside)) inside = inside.parentElement;
    if (!inside || inside === outer) found.push(part);
  }
  return found.slice(0, 5).map(part => part.outerHTML.replace(/\\s+/g, ' ').slice(0, 160));
}"""
"""Parts of a page that reach beyond its right edge, unless they lie in a part that scrolls by itself."""
MATCHES = "([target, selector]) => document.querySelector(target)?.matches(selector) ?? false"
Excused = Collection[tuple[str, str]]
"""Rules of axe-core, each with the CSS selector of the one element that may break it."""
STREAMLITS_OWN = [("scrollable-region-focusable", "[data-testid=stTable] > div")]
"""A table of `st.table` that scrolls has no `tabindex` in Streamlit 1.67, and no setting for it.

Chromium and Firefox let the keyboard reach it all the same, which `test_every_control_is_used_by_keyboard` shows.
"""


def serious_faults(page: Any, *, excused: Excused = ()) -> list[str]:
    """Return the serious and critical faults of a page as it stands, each as its rule, its HTML and its reason.

    Parameters
    ----------
    page : playwright's page
    excused : collection of (rule, CSS selector)
        Faults of others that cannot be mended here.
    """
    faults = []
    for violation in Axe().run(page).response["violations"]:
        if violation["impact"] not in WEIGHTY:
            continue
        rule = violation["id"]
        selectors = [selector for name, selector in excused if name == rule]
        for node in violation["nodes"]:
            target = node["target"][0]
            if not any(page.evaluate(MATCHES, [target, selector]) for selector in selectors):
                reason = " ".join(node["failureSummary"].split())
                faults.append(f"{rule} at {node['html'][:200]} ({target}): {reason}")
    return faults


def faults_in_both_themes(page: Any, *, excused: Excused = ()) -> list[str]:
    """Return the serious faults of a page in the light and the dark theme; it is left in the light one."""
    faults = []
    for theme in reversed(THEMES):
        page.emulate_media(color_scheme=theme)
        page.wait_for_timeout(400)  # a theme may fade in, and a colour half way is none of it
        faults += [f"{theme}: {fault}" for fault in serious_faults(page, excused=excused)]
    return faults


def overflows(page: Any, widths: Sequence[int] = WIDTHS) -> list[str]:
    """Return what of a page reaches beyond its right edge, at each width; it gets its own width back."""
    before = page.viewport_size
    wide = []
    for width in widths:
        page.set_viewport_size({"width": width, "height": before["height"]})
        for _ in range(LOOKS):  # a table that is drawn anew may reach too far for a moment
            page.wait_for_timeout(400)
            parts = page.evaluate(WIDER)
            if not parts:
                break
        wide += [f"{width}: {part}" for part in parts]
    page.set_viewport_size(before)
    return wide
