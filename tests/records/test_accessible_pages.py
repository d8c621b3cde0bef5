"""Every page of the app for screen readers and by keyboard: no serious fault, no control that only a mouse reaches."""

from collections.abc import Iterator

import pytest

from flfed.records.dashboard import page_files
from tests.accessibility import STREAMLITS_OWN, faults_on_every_screen, serious_faults
from tests.browser import Window, opened, served
from tests.records.real_runs import Runs

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(1200)]
KINDS = ("demo", "regression", "multi-class", "protected", "stopped", "failed")
PLANTED = """document.querySelector('h1').insertAdjacentHTML('afterend',
  '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw="><p style="color: #bbbbbb; background: #ffffff">pale</p>')"""


def unfolded(window: Window) -> None:
    """Unfold each part of the page that is folded."""
    for summary in window.page.get_by_test_id("stExpander").locator("summary").all():
        summary.click()
        window.drawn()


def tab_to(window: Window, wanted: str, most: int = 120) -> None:
    """Go on by the tabulator until the focus is in an element of that selector."""
    for _ in range(most):
        window.page.keyboard.press("Tab")
        if window.page.evaluate("selector => document.activeElement.matches(selector)", wanted):
            return
    raise AssertionError(f"{wanted} is not reached by {most} steps")


@pytest.fixture(scope="module")
def app(runs: Runs) -> Iterator[str]:
    """Where the app is served, with a run of each kind."""
    with served({"FLFED_STORE": runs.url, "FLFED_HOME": str(runs.home)}) as address:
        yield address


@pytest.fixture
def demo(app: str, runs: Runs) -> Iterator[Window]:
    """A window on a page of a run."""
    with opened(app) as window:
        window.page.goto(f"{app}/curves?run={runs.series['demo']}")
        window.page.locator("h1").first.wait_for()
        window.drawn()
        yield window


def test_a_page_has_no_fault_and_one_with_planted_faults_has_them(demo: Window):
    assert faults_on_every_screen(demo, widths=(390,)) == []
    demo.page.evaluate(PLANTED)
    found = serious_faults(demo.page, excused=STREAMLITS_OWN)
    assert {fault.partition(" ")[0] for fault in found} == {"image-alt", "color-contrast"}


def test_every_control_is_used_by_keyboard(demo: Window):
    page = demo.page
    tab_to(demo, "[data-testid=stSidebarNavLink][href$='/sites']")
    page.keyboard.press("Enter")
    page.wait_for_function("location.pathname === '/sites'")
    page.locator("h1").first.wait_for()
    demo.drawn()
    # A select box: its list opens, and the next entry is taken.
    box = page.get_by_test_id("stMain").get_by_test_id("stSelectbox").first.locator("input")
    label = box.get_attribute("aria-label")
    tab_to(demo, f"[data-testid=stMain] [data-testid=stSelectbox] input[aria-label='{label}']")
    before = page.url
    page.keyboard.press("ArrowDown")
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("before => location.href !== before", arg=before)
    demo.drawn()
    # A folded table: it opens, and shuts again.
    folded = page.get_by_test_id("stExpander").first
    tab_to(demo, "[data-testid=stExpander] summary")
    page.keyboard.press("Enter")
    folded.locator("details[open]").wait_for()
    demo.drawn()
    # Its file is the next control; a wide table before it takes the focus, and arrows move it.
    page.set_viewport_size({"width": 250, "height": 900})
    demo.drawn()
    tab_to(demo, "[data-testid=stTable] > div")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.activeElement.scrollLeft > 0")
    tab_to(demo, "[data-testid=stDownloadButton] button")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".csv")


def test_what_is_folded_away_takes_no_focus(demo: Window):
    demo.page.set_viewport_size({"width": 390, "height": 900})
    demo.drawn()
    demo.page.get_by_test_id("stExpandSidebarButton").wait_for()
    for _ in range(30):
        demo.page.keyboard.press("Tab")
        assert not demo.page.evaluate("!!document.activeElement.closest('[data-testid=stSidebar]')")


@pytest.mark.proof
@pytest.mark.parametrize("kind", KINDS)
def test_no_page_has_a_fault_on_any_screen_in_either_theme(demo: Window, runs: Runs, kind: str):
    faults = []
    for name in page_files():
        demo.page.goto(f"{demo.address}/{name}?run={runs.series[kind]}")
        demo.page.locator("h1").first.wait_for()
        demo.drawn()
        unfolded(demo)
        faults += [f"{name}: {fault}" for fault in faults_on_every_screen(demo, f"accessible/{kind}-{name}")]
    assert faults == []


@pytest.mark.proof
def test_runs_side_by_side_have_no_fault(demo: Window, runs: Runs):
    demo.page.goto(f"{demo.address}/?compare={runs.series['demo']},{runs.series['protected']}")
    demo.page.locator("h1").first.wait_for()
    demo.drawn()
    assert faults_on_every_screen(demo, "accessible/compared") == []
