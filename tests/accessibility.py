"""Faults that a reader with a screen reader, a keyboard or a phone would meet on a page, by axe-core and widths."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from axe_playwright_python.sync_playwright import Axe

WIDTHS = (390, 768, 1440)
"""Pixels of a phone, a tablet and a desk."""
THEMES = ("light", "dark")
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
Excused = Collection[tuple[str, str]]
"""Rules of axe-core, each with a piece of the HTML of the one element that may break it."""


def serious_faults(page: Any, *, excused: Excused = ()) -> list[str]:
    """Return the serious and critical faults of a page as it stands, each as its rule, its HTML and its reason.

    Parameters
    ----------
    page : playwright's page
    excused : collection of (rule, piece of HTML)
        Faults of others that cannot be mended here.
    """
    faults = []
    for violation in Axe().run(page).response["violations"]:
        if violation["impact"] not in WEIGHTY:
            continue
        rule = violation["id"]
        for node in violation["nodes"]:
            if not any(rule == name and piece in node["html"] for name, piece in excused):
                reason = " ".join(node["failureSummary"].split())
                faults.append(f"{rule} at {node['html'][:200]} ({node['target']}): {reason}")
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
        page.wait_for_timeout(400)
        wide += [f"{width}: {part}" for part in page.evaluate(WIDER)]
    page.set_viewport_size(before)
    return wide
