"""Every page, with a real run of every kind, in a real browser: nothing breaks, leaves this machine or stays empty.

Each chart is looked at on the narrowest screen and, in the dark, on a desk's; each page is gone through by keyboard.

`make proof` looks on every screen from a phone to a desk, and keeps the pictures in `artefacts/pages/`, where people
look at them.
"""

from collections.abc import Iterator

import pytest

from flfed.records.dashboard import page_files
from flfed.records.dashboard.panels.run_table import columns
from flfed.records.store.reader import RunReader
from tests.browser import CHARTS, Window, opened, served
from tests.conftest import ABSENT
from tests.records import eyes, one_answer
from tests.records.real_runs import Runs

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(900)]
PAGES = [name.replace("-", " ").capitalize() for name in page_files()]
OF_NO_RUN = ("Runs", "Before you join")
KINDS = ("demo", "regression", "multi-class", "protected", "stopped", "failed", "hospitals", "many")
"""The last two take half of the time of all; they are made for `make proof` alone."""
OFTEN = ("demo",)
"""Kinds that are looked at in each run of the tests; the others' pages in `make proof`."""
UNCHARTED = ("failed", "stopped")
"""Kinds whose few charts the others have, too."""
FEWEST_CHARTS = {"failed": 0, "stopped": 1, "regression": 9, "multi-class": 6}
"""Of all pages together; of the other kinds there are nine or more."""
OVERFLOWING = """card => [...card.querySelectorAll('*')]
  .filter(part => part.clientWidth && part.scrollWidth > part.clientWidth + 1).map(part => part.innerText)"""
TITLES = """card => [...card.querySelectorAll('td')].filter(cell => cell.offsetParent)
  .map(column => getComputedStyle(column, '::before').content)"""
MOST_BYTES = 300_000
"""That a page of a hundred sites and five hundred rounds may send to the browser."""


@pytest.fixture(scope="module")
def everywhere(runs: Runs) -> Iterator[str]:
    """Where the app is served, showing all of them."""
    with served({"FLFED_STORE": runs.url, "FLFED_HOME": str(runs.home)}) as address:
        yield address


def visit(window: Window, name: str, picture: str = "") -> None:
    """Look at one page: it must be sound, and each of its charts have something in it; keep a picture of it."""
    window.turn_to(name)
    if picture:
        window.picture(picture, whole=True)
    window.is_sound()
    assert 0 not in window.marks(), (name, window.marks())


def look(address: str, runs: Runs, kind: str, widths: tuple[int, ...], *, pictures: bool = False) -> None:
    """Look at every page with one kind of run, on screens so wide, in both themes."""
    if kind not in runs.series:
        pytest.skip(ABSENT)
    charts, wrong = 0, []
    with opened(address) as window:
        window.page.goto(f"{address}/?run={runs.series[kind]}")
        window.page.locator("h1").first.wait_for()
        for name in PAGES:
            before, picture = len(window.received), f"pages/{kind}-{name.lower()}" if pictures else ""
            visit(window, name, picture)
            if name not in OF_NO_RUN:
                assert f"run={runs.series[kind]}" in window.page.url
            assert sum(map(len, window.received[before:])) < MOST_BYTES
            charts += len(window.marks())
            if kind in OFTEN:
                places, unseen = eyes.unseen_focus(window)
                assert places >= 10, (name, places)
                assert unseen == {}, name
            if kind not in UNCHARTED:
                said = eyes.looked_at(window, picture if kind == "hospitals" else "", widths)
                wrong += [f"{name}, {one}" for one in said]
    assert wrong == []
    assert charts >= FEWEST_CHARTS.get(kind, 9)


@pytest.mark.proof
@pytest.mark.parametrize("kind", KINDS)
def test_every_page_shows_every_kind_of_run_on_every_screen_in_both_themes(everywhere: str, runs: Runs, kind: str):
    look(everywhere, runs, kind, eyes.WIDTHS, pictures=True)


@pytest.mark.proof
def test_runs_side_by_side_fit_every_screen(everywhere: str, runs: Runs):
    with opened(everywhere) as window:
        window.page.goto(f"{everywhere}/?compare={runs.series['demo']},{runs.series['protected']}")
        window.page.locator(f"{CHARTS} svg").first.wait_for()
        window.drawn()
        assert eyes.looked_at(window, widths=eyes.NARROW) == []


@pytest.mark.proof
def test_one_site_among_many_fits_every_screen(everywhere: str, runs: Runs):
    if "many" not in runs.series:
        pytest.skip(ABSENT)
    with opened(everywhere) as window:
        window.page.goto(f"{everywhere}/curves?run={runs.series['many']}")
        window.page.locator(f"{CHARTS} svg").first.wait_for()
        box = window.page.get_by_test_id("stMultiSelect").first.get_by_role("combobox")
        names = [f"taiwan-credit-{place:03d}" for place in range(1, 10)]
        others = [name for name in names if not window.page.get_by_label(f"Remove {name}").count()]
        for name in others[:3]:  # six are drawn at first
            box.fill(name)
            window.page.get_by_role("option", name=name).click()
            window.page.get_by_label(f"Remove {name}").first.wait_for(state="attached")
        window.page.keyboard.press("Escape")
        window.page.get_by_text("Show in colour, with the other 8 sites in grey").wait_for()
        window.drawn()
        assert eyes.looked_at(window, widths=eyes.NARROW) == []


@pytest.mark.proof
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_opens_at_its_own_address_and_who_goes_through_it_by_keyboard_sees_where_they_are(
    everywhere: str, runs: Runs, scheme: str
):
    with opened(everywhere, scheme=scheme) as window:
        for name in PAGES:
            window.page.goto(f"{everywhere}/{name.lower().replace(' ', '-')}?run={runs.series['demo']}")
            window.page.locator("h1").first.wait_for()
            window.drawn()
            window.is_sound()
            address = "" if name == PAGES[0] else name.lower().replace(" ", "-")
            assert window.page.url == f"{everywhere}/{address}?run={runs.series['demo']}"
            places, unseen = eyes.unseen_focus(window)
            assert places >= 10, (name, places)
            assert unseen == {}, name


def test_on_a_phone_each_run_is_a_card_in_which_nothing_is_cut(everywhere: str, runs: Runs):
    with opened(everywhere, width=390, height=900) as window:
        window.page.goto(everywhere)
        cards = window.page.locator(".flfed-runs tbody tr")
        cards.first.wait_for()
        window.drawn()
        window.is_sound()
        assert cards.count() >= len(runs.series)
        assert not window.page.locator(".flfed-runs thead").is_visible()
        titles = [column["title"] for column in columns()]
        for card in cards.all():
            box = card.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
            assert card.evaluate("e => getComputedStyle(e).borderTopStyle") == "solid"
            assert card.evaluate(OVERFLOWING) == []
            shown = card.evaluate(TITLES)
            assert shown == [f'"{title}"' for title in ("Compare", *titles) if f'"{title}"' in shown]
            assert len(shown) >= 9


@pytest.mark.proof
def test_an_empty_store_fits_the_screen_on_every_page(window: Window):
    for name in PAGES:
        visit(window, name)
        if name != "Before you join":  # which needs no run
            assert "flfed demo" in window.page.locator("[data-testid=stAlert]").inner_text()


def test_a_link_opens_the_page_the_run_and_the_site_it_names(everywhere: str, runs: Runs):
    with RunReader.open(runs.url) as reader:
        site = reader.sites(reader.runs_of(runs.series["demo"])[0].run)[-1].site
    with opened(everywhere) as window:
        window.page.goto(f"{everywhere}/sites?run={runs.series['demo']}&site={site}")
        window.page.get_by_role("heading", name=site).first.wait_for()
        window.drawn()
        window.is_sound()
        window.turn_to("Rounds")
        window.turn_to("Sites")
        window.page.get_by_role("heading", name=site).first.wait_for()
        assert f"site={site}" in window.page.url
        window.is_sound()


@pytest.mark.parametrize("kind", [*KINDS[:-2], *(pytest.param(kind, marks=pytest.mark.proof) for kind in KINDS[-2:])])
def test_words_table_card_command_and_json_hold_one_answer(runs: Runs, kind: str, flfed, monkeypatch):
    if kind not in runs.series:
        pytest.skip(ABSENT)
    monkeypatch.setenv("FLFED_STORE", runs.url)
    monkeypatch.setenv("FLFED_HOME", str(runs.home))
    one_answer.check(runs.url, runs.series[kind], flfed)
