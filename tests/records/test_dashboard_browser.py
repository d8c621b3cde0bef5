"""What only a browser shows: charts, a run that is going on, and that nothing leaves this machine."""

import signal
from pathlib import Path

import pytest

from flfed.records.document.document import document
from flfed.records.store.entries import MetricRow

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ROOT = Path(__file__).parents[2]
AUC = "roc_auc_score"
CHARTS = "[data-testid=stVegaLiteChart]"
CUT_OFF = """[...document.querySelectorAll('body *')].filter(part => {
  if (part.closest('svg') && part.tagName !== 'text') return false;
  const box = part.getBoundingClientRect(), block = getComputedStyle(part).display !== 'inline';
  const over = !part.closest('svg') && block && part.scrollWidth > part.clientWidth + 1;
  return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1 || over);
}).map(part => part.tagName + ' ' + part.textContent.slice(0, 40))"""
"""Words of a document that reach beyond the screen, or beyond what holds them."""


@pytest.fixture
def going_begun(store):
    """A run that is running, in this process."""
    series = store.begin_series(study="heart-disease", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=40, primary=AUC, task="binary")
    run.round(1, metrics=[MetricRow(None, "training", AUC, 0.8)])
    return run


def test_the_run_is_shown_with_its_charts(window, heart: str):
    page = window.page
    page.get_by_role("link", name="heart-disease").wait_for()
    window.drawn()
    window.picture("runs")
    page.get_by_role("link", name="heart-disease").click()
    page.get_by_role("heading", name="heart-disease").wait_for()
    assert heart in page.url
    page.locator(f"{CHARTS} svg").first.wait_for()
    window.drawn()
    assert page.locator(CHARTS).count() == 3
    assert window.picture("overview-first-screen").stat().st_size > 30_000
    assert window.picture("overview", whole=True).stat().st_size > 50_000


@pytest.mark.proof
@pytest.mark.alone
def test_a_running_run_shows_each_round_within_2_seconds_and_keeps_what_was_chosen(window, going, lags):
    page = window.page
    page.get_by_role("link", name="long-study").click()  # comes up by itself in the list
    page.get_by_role("heading", name="long-study").wait_for()
    page.get_by_role("link", name="Rounds", exact=True).click()
    page.get_by_role("heading", name="Rounds: long-study").wait_for()
    page.get_by_text("R²", exact=True).click()
    page.get_by_label("Remove diabetes-08").click()
    page.locator(f"{CHARTS} svg").first.wait_for()
    page.get_by_text("Table", exact=True).last.click()
    page.locator("details[open]").wait_for()
    page.wait_for_timeout(1500)  # until the chart has what was chosen
    page.evaluate(f"window.first = document.querySelector('{CHARTS} svg')")
    curve = "[...document.querySelectorAll('.mark-line path')].map(p => p.getAttribute('d')).join()"
    before = page.evaluate(curve)

    found = lags(window)
    assert len(found) > 3
    assert max(found) < 2

    assert page.evaluate(curve) != before
    assert page.evaluate("window.first.isConnected"), "the chart was made anew: that flickers"
    assert page.get_by_role("radio", name="R²").is_checked()
    assert page.get_by_label("Remove diabetes-07").count() == 1
    assert page.get_by_label("Remove diabetes-08").count() == 0
    assert page.locator("details[open]").count() == 1
    faded = "[...document.querySelectorAll('[data-testid=stMain] *')].filter(e => getComputedStyle(e).opacity < 0.5)"
    assert page.evaluate(f"{faded}.filter(e => e.innerText).map(e => e.innerText)") == []
    window.picture("running", whole=True)

    going.send_signal(signal.SIGKILL)
    going.wait(60)
    page.get_by_text("interrupted: its program ended").first.wait_for()
    assert "flfed study resume" in page.locator("[data-testid=stAlert]").first.inner_text()
    window.picture("interrupted")


@pytest.mark.proof
def test_a_page_stops_looking_when_its_run_has_ended(window, store, going_begun):
    page, run = window.page, going_begun
    page.get_by_role("link", name="heart-disease").click()
    page.get_by_text("running", exact=True).first.wait_for()
    looked = len(window.answers)
    while len(window.answers) < looked + 2:  # it looks
        page.wait_for_timeout(100)
    run.finish(status="completed")
    page.get_by_text("completed", exact=True).first.wait_for()
    window.drawn()
    page.wait_for_timeout(1000)
    quiet = len(window.answers)
    page.wait_for_timeout(6000)
    assert len(window.answers) == quiet


def test_a_runs_report_can_be_downloaded_from_its_overview_and_fits_every_screen(window, heart, url, tmp_path):
    page, file = window.page, tmp_path / "report.html"
    page.add_init_script("delete window.showSaveFilePicker")  # a dialogue of the desktop, which is not there
    page.goto(f"{window.address}/overview?run={heart}")
    page.get_by_text("Printable report").click()
    with page.expect_download() as kept:
        page.get_by_role("button", name="Download the report").click()
    kept.value.save_as(file)
    assert file.read_text() == document(heart, store=url)
    alone, asked = page.context.browser.new_page(), []
    alone.on("request", lambda request: asked.append(request.url))
    for width in (320, 390, 1280):
        alone.set_viewport_size({"width": width, "height": 900})
        alone.goto(file.as_uri())
        assert alone.evaluate("document.documentElement.scrollWidth") <= width
        assert alone.evaluate(CUT_OFF) == []
        alone.screenshot(path=ROOT / "artefacts" / f"report-{width}.png", full_page=True)
    assert set(asked) == {file.as_uri()}
    alone.pdf(path=ROOT / "artefacts" / "report.pdf", prefer_css_page_size=True)
    assert (ROOT / "artefacts" / "report.pdf").stat().st_size > 20_000
