"""Every page while three institutions compute with each other over the wire: SuperLink, Caddy, TLS, a real browser."""

import re

import pytest

from flfed.records.dashboard import page_files
from flfed.records.store.reader import RunReader
from tests.browser import opened, served
from tests.machines import COORDINATOR, SITE, all_online, begin, take_in, until

SITES = ("cleveland", "hungary", "long-beach")
ROUNDS = 400
"""More than run while the browser looks."""


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.browser
@pytest.mark.timeout(600)
def test_every_page_shows_a_deployment_that_goes_on(machines, test_data):
    coordinator = machines["coordinator"]
    begin(machines, test_data)
    for site in SITES:
        take_in(coordinator, machines[site])
        study = machines[site].study("heart-disease", rounds=ROUNDS)
        machines[site].run([study if word == "heart-disease" else word for word in SITE["site approve"]])
        machines[site].start(SITE["site serve"])
    until("three sites", lambda: all_online(coordinator, 3))
    study = coordinator.study("heart-disease", rounds=ROUNDS)
    coordinator.start([study if word == "heart-disease" else word for word in COORDINATOR["coordinator run"]])
    url = f"sqlite:///{coordinator.home}/runs.db"
    until("three rounds", lambda: rounds(url) >= 3)
    with served({"FLFED_STORE": url, "FLFED_HOME": str(coordinator.home)}) as address, opened(address) as window:
        window.page.goto(f"{address}/?run=latest")
        window.page.locator("h1").first.wait_for()
        for name in page_files():
            window.page.get_by_test_id("stSidebar").get_by_role("link", name=name.capitalize(), exact=True).click()
            window.page.locator("h1").first.wait_for()
            window.page.wait_for_timeout(1000)  # it is drawn anew all the time, so it never stands
            window.page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
            if name in ("overview", "rounds"):
                window.page.get_by_text(f"of {ROUNDS}").first.wait_for()
                before = shown(window.page)
                until("a new round on the page", lambda seen=before: shown(window.page) > seen, 60)
                until("what is stored", lambda: 0 <= rounds(url) - shown(window.page) <= 5, 60)
            # One may just be drawn anew.
            until(f"every chart of {name}", lambda: 0 not in window.marks(), 60, every=0.1)
            window.is_sound()
    assert rounds(url) < ROUNDS


def rounds(url: str) -> int:
    with RunReader.open(url) as reader:
        return next((run.rounds for run in reader.runs(limit=1)), 0)


def shown(page) -> int:
    """Return the round that the page says it is at."""
    return int(re.search(rf"Round (\d+) of {ROUNDS}", page.locator("[data-testid=stMain]").inner_text())[1])
