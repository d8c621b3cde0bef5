"""The pages of a run as their readers see them: a chart on the first screen, described, and no fault in either theme.

`make proof` looks at every page of each kind of run; the other tests look at one page.
"""

from collections.abc import Iterator

import pytest

from flfed.records.dashboard import page_files
from tests.accessibility import STREAMLITS_OWN, WIDTHS, faults_in_both_themes, overflows
from tests.browser import CHARTS, Served, Window, opened, served
from tests.conftest import ABSENT
from tests.records.real_runs import Runs

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(900)]
PAGES = [name for name in page_files() if name not in ("runs", "before-you-join")]
HEIGHTS = dict(zip(WIDTHS, (844, 1024, 900), strict=True))
"""The first screen of a phone, a tablet and a desk."""
UNCHARTED: dict[str, tuple[str, ...]] = {
    "privacy": ("*",),
    "overview": ("covers", "unfinished"),
    "sites": ("statistic", "covers", "unfinished"),
    "curves": ("statistic", "covers", "unfinished"),
    "rounds": ("statistic", "covers"),
    "data": ("statistic", "covers", "unfinished", "secure"),
}
"""Pages that begin with no chart, and the kinds of run: Privacy has what is protected first, a study without a model or
without an end has few charts, the test rows of `covers` are lost in its noise, which no figure of a round has, and of
`secure` no site's own sums over rows are recorded."""
KINDS = (
    "demo", "protected", "secure", "trees", "births", "statistic", "covers", "shared", "frames", "unfinished",
    "hospitals",
)  # fmt: skip
LEAST_SEEN = 60
"""Pixels of the first chart on the first screen; the page Overview has the whole of it there."""
FIRST = f"""() => {{
  const box = document.querySelector('{CHARTS}')?.getBoundingClientRect();
  return box ? [Math.min(innerHeight, box.bottom) - box.top, box.height] : [null, 0];
}}"""
"""How many pixels of the first chart stand on the screen, and of how many; null without one."""
SAYS = f"[...document.querySelectorAll('{CHARTS}')].map(chart => chart.getAttribute('aria-label') || '')"
"""The words of each chart for screen readers."""
EMPTY = "No figures yet"
WATCHED = """() => {
  window.widest = 0;
  const look = () => {
    const main = document.querySelector('[data-testid=stMain]');
    window.widest = Math.max(window.widest, main.scrollWidth - main.clientWidth);
    requestAnimationFrame(look);
  };
  look();
}"""
"""Writes down how far the page ever reaches beyond its right edge, in pixels."""
SCROLLING = """[...document.querySelectorAll('[data-testid=stMain] *')].filter(part => part.checkVisibility()
  && ['auto', 'scroll'].includes(getComputedStyle(part).overflowX) && part.scrollWidth > part.clientWidth + 1)
  .map(part => part.innerText.slice(0, 80))"""
"""Visible parts of a page that a reader has to scroll sideways."""


@pytest.fixture(scope="module")
def everywhere(runs: Runs) -> Iterator[Served]:
    """Where the app is served, showing all runs."""
    with served({"FLFED_STORE": runs.url, "FLFED_HOME": str(runs.home)}) as address:
        yield address


def faults_of(window: Window, kind: str, page: str) -> list[str]:
    """Return what is wrong with a page of a run, which the window shows."""
    # A theme draws charts anew, so their words are read first.
    words = window.page.evaluate(SAYS)
    faults = [f"no words for chart {place}" for place, text in enumerate(words) if not text]
    faults += [f"serious: {fault}" for fault in faults_in_both_themes(window.page, excused=STREAMLITS_OWN)]
    if EMPTY in window.page.inner_text("body"):
        faults.append("an empty chart")
    for width, height in HEIGHTS.items():
        window.page.set_viewport_size({"width": width, "height": height})
        window.drawn()
        seen, height_of_chart = window.page.evaluate(FIRST)
        least = height_of_chart - 1 if page == "overview" else LEAST_SEEN
        if not {"*", kind} & set(UNCHARTED.get(page, ())) and (seen is None or seen < least):
            faults.append(f"{width}: {seen} pixels of the first chart on the first screen")
    return faults + [f"too wide: {part}" for part in overflows(window.page)]


def look(address: Served, series: str, kind: str, pages: list[str]) -> dict[str, list[str]]:
    """Return what is wrong with some pages of a run, by page."""
    faults = {}
    with opened(address) as window:
        for page in pages:
            window.page.goto(f"{address}/{page}?run={series}")
            window.page.locator("h1").first.wait_for()
            window.drawn()
            faults[page] = faults_of(window, kind, page)
    return {page: lines for page, lines in faults.items() if lines}


def test_the_overview_begins_with_its_forest_plot_and_has_no_fault(everywhere: Served, runs: Runs):
    assert look(everywhere, runs.series["demo"], "demo", ["overview"]) == {}


def test_the_list_of_runs_is_no_wider_than_a_laptop_and_breaks_no_name(everywhere: Served):
    with opened(everywhere) as window:
        window.page.set_viewport_size({"width": 1280, "height": 900})
        window.page.goto(everywhere)
        window.page.locator(".flfed-runs tbody tr").first.wait_for()
        table, room = (
            window.page.evaluate("""[...document.querySelectorAll('.flfed-runs .scroll, .flfed-runs .scroll table')]
          .slice(-2).map(part => part.getBoundingClientRect().width).reverse()""")
        )
        assert table <= room + 1
        lines = window.page.evaluate("""[...document.querySelectorAll('.flfed-runs td[data-column=dataset] div')]
          .filter(cell => !cell.innerText.includes('-')).map(cell => cell.getClientRects().length)""")
        assert set(lines) <= {1}


@pytest.mark.proof
def test_no_chart_or_grid_keeps_a_wide_screens_width_and_a_phone_shows_each_site(everywhere: Served, runs: Runs):
    with opened(everywhere) as window:
        for page in ("curves", "sites"):
            window.page.goto(f"{everywhere}/{page}?run={runs.series['demo']}")
            window.page.locator("h1").first.wait_for()
            window.drawn()
            window.page.evaluate(WATCHED)
            # On a wide screen the margin unfolds beside what was drawn without it.
            for width in (390, 1440, 768, 1440, 390):
                window.page.set_viewport_size({"width": width, "height": 900})
                window.page.wait_for_timeout(1000)
            window.drawn()
            assert window.page.evaluate("window.widest") == 0, page
        assert window.page.evaluate(SCROLLING) == []


@pytest.mark.proof
@pytest.mark.parametrize("kind", KINDS)
def test_every_page_of_every_kind_of_run_has_no_fault(everywhere: Served, runs: Runs, kind: str):
    if kind not in runs.series:
        pytest.skip(ABSENT)
    assert look(everywhere, runs.series[kind], kind, PAGES) == {}


@pytest.mark.proof
def test_a_page_with_a_planted_fault_of_each_kind_is_found(everywhere: Served, runs: Runs):
    with opened(everywhere) as window:
        window.page.goto(f"{everywhere}/rounds?run={runs.series['demo']}")
        window.page.locator("h1").first.wait_for()
        window.drawn()
        window.page.evaluate("""() => {
          const main = document.querySelector('[data-testid=stMainBlockContainer]');
          main.insertAdjacentHTML('afterbegin', '<div style="height: 1100px; color: #ddd">No figures yet</div>');
          document.querySelector('[data-testid=stVegaLiteChart]').removeAttribute('aria-label');
        }""")
        faults = " ".join(faults_of(window, "demo", "rounds"))
        assert all(fault in faults for fault in ("color-contrast", "an empty chart", "no words for chart 0"))
        assert "390: " in faults and "1440: " in faults
