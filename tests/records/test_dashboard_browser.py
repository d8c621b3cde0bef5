"""What only a browser shows: charts, a run that is going on, and that nothing leaves this machine."""

import signal
from pathlib import Path

import pytest

from flfed.records.document.document import document
from flfed.records.store.entries import LearningPoint, MetricRow

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ROOT = Path(__file__).parents[2]
CURVES = {  # own rows: site model, joined, half the interval of the difference
    "cleveland": {
        10: (0.84, 0.885, 0.02),
        20: (0.86, 0.884, 0.02),
        80: (0.88, 0.886, 0.015),
        212: (0.883, 0.886, 0.024),
    },
    "long-beach": {10: (0.56, 0.72, 0.07), 20: (0.58, 0.72, 0.07), 80: (0.63, 0.715, 0.075), 140: (0.65, 0.711, 0.09)},
}
AUC, CHANGE = "roc_auc_score", "personalised - local-only"
CHARTS = "[data-testid=stVegaLiteChart]"
CUT_OFF = """[...document.querySelectorAll('body *')].filter(part => {
  if (part.closest('svg') && part.tagName !== 'text') return false;
  const box = part.getBoundingClientRect(), block = getComputedStyle(part).display !== 'inline';
  const over = !part.closest('svg') && block && part.scrollWidth > part.clientWidth + 1;
  return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1 || over);
}).map(part => part.tagName + ' ' + part.textContent.slice(0, 40))"""
"""Words of a document that reach beyond the screen, or beyond what holds them."""


def points(site: str, figures: dict[int, tuple[float, float, float]]) -> list[LearningPoint]:
    found = []
    for rows, (alone, joined, reach) in figures.items():
        arms = [("local-only", alone, 0.05), ("personalised", joined, 0.04), (CHANGE, joined - alone, reach)]
        found += [LearningPoint(site, rows, 20, arm, AUC, value, value - by, value + by) for arm, value, by in arms]
    return found


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
    page.get_by_text("Table", exact=True).nth(1).click()
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
    page.get_by_text("interrupted: its program ended").wait_for()
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


def test_the_learning_curve_is_drawn_with_bands_and_its_table_can_be_kept(window, store, write):
    page = window.page
    series = store.begin_series(study="heart-disease", study_sha256="", study_text="")
    run = write(store, series)
    run.learning_curve([point for site, figures in CURVES.items() for point in points(site, figures)])
    page.goto(f"{window.address}/?run={series}")
    window.turn_to("Sites")
    main = page.locator("[data-testid=stMain]")
    main.get_by_role("combobox").first.click()
    page.get_by_role("option", name="long-beach").click()
    page.get_by_text("AUC at long-beach", exact=False).first.wait_for()
    window.drawn()
    panel = page.locator("[data-testid=stVerticalBlock]", has=page.get_by_role("heading", name="own rows?")).last
    drawn = panel.locator(CHARTS)
    figures, gains = drawn.nth(drawn.count() - 2), drawn.last  # below the site's models
    assert figures.locator(".mark-area path").count() == 2  # a band for each model
    assert gains.locator(".mark-area path").count() == 1
    assert gains.locator(".mark-symbol path").count() >= 5
    with page.expect_download() as kept:
        panel.get_by_role("button", name="Download as CSV").click()
    lines = kept.value.path().read_text().splitlines()
    assert len(lines) == 1 + 3 * sum(len(figures) for figures in CURVES.values())
    panel.screenshot(path=ROOT / "artefacts" / "learning-curve.png")
    window.picture("overview-learning-curve", whole=True)


def test_a_runs_report_can_be_downloaded_from_its_overview_and_fits_every_screen(window, heart, url, tmp_path):
    page, file = window.page, tmp_path / "report.html"
    page.add_init_script("delete window.showSaveFilePicker")  # a dialogue of the desktop, which is not there
    page.goto(f"{window.address}/overview?run={heart}")
    page.get_by_text("A report to print or hand on").click()
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
