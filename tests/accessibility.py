"""Faults that a reader with a screen reader, a keyboard or a phone would meet on a page, by axe-core and widths."""

from collections.abc import Collection, Sequence
from typing import Any

from axe_playwright_python.sync_playwright import Axe

from tests.browser import Window

WIDTHS = (390, 768, 1440)
"""Pixels of a phone, a tablet and a desk."""
THEMES = ("light", "dark")
LOOKS = 8
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
FAULTS = """async excused => {
  const {violations} = await axe.run(document, {resultTypes: ['violations'], elementRef: true});
  const weighty = violations.filter(found => ['serious', 'critical'].includes(found.impact));
  const isExcused = (found, node) =>
    excused.some(([rule, selector]) => rule === found.id && node.element?.matches(selector));
  return weighty.flatMap(found => found.nodes.filter(node => !isExcused(found, node)).map(node =>
    `${found.id} at ${node.html.slice(0, 200)} (${node.target}): ${node.failureSummary.replace(/\\s+/g, ' ')}`));
}"""
"""The serious and critical faults that axe-core finds."""
UNDESCRIBED = """() => [...document.querySelectorAll('[data-testid=stVegaLiteChart]')]
  .filter(chart => !/[0-9]/.test(chart.getAttribute('aria-label') || '')).map(chart => chart.innerText.slice(0, 80))"""
"""Charts without a description that has their figures."""
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
    page.evaluate(Axe().axe_script)
    faults: list[str] = page.evaluate(FAULTS, [list(pair) for pair in excused])
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


def faults_on_every_screen(window: Window, picture: str = "", widths: Sequence[int] = WIDTHS) -> list[str]:
    """Return every fault of a page of the apps, at each width in both themes; keep pictures of it under that name.

    Parameters
    ----------
    window : Window
        With the page, which stands.
    picture : str
        Beginning of the pictures' names in `artefacts/`; "" for none.
    widths : sequence of int
        Pixels.
    """
    page = window.page
    before = page.viewport_size
    faults = [f"without figures in its description: {chart}" for chart in page.evaluate(UNDESCRIBED)]
    faults += overflows(page, widths)
    for width in widths:
        page.set_viewport_size({"width": width, "height": before["height"]})
        assert page.locator("[data-testid=stException]").count() == 0 and window.errors == []
        for theme in reversed(THEMES):
            page.emulate_media(color_scheme=theme)
            page.wait_for_timeout(400)
            if picture:
                window.picture(f"{picture}-{width}-{theme}", whole=True)
            faults += [f"{width}, {theme}: {fault}" for fault in serious_faults(page, excused=STREAMLITS_OWN)]
    page.set_viewport_size(before)
    return faults
