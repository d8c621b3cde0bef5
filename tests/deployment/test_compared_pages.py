"""A model that is one too many for a site, as the coordinator and the site's own people see it in a real browser."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flfed.deployment.gate.local_results import results_of
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import RunEntry
from flfed.refusals import Refusal
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from tests.browser import Window, free_port, opened, served
from tests.deployment.summing import Consortium, Coordinator
from tests.deployment.test_site_app_browser import browser, command_of, given_to, screen, started

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(180)]

# A fixture of that file.
browser = browser
WHY = Refusal("too-many-compared", most=5, had=5)


@pytest.fixture
def gates(package: Path, small_sites: Callable[..., list[Site]], small_study: str) -> Consortium:
    """Three institutions behind gates, of which the first gives figures of five models."""
    first, *others = small_sites(3, rows=240, policy=Policy())
    return Consortium([replace(first, policy=Policy(compared_runs=5)), *others], Study.parse(small_study))


def compare_six_models(gates: Consortium) -> list[RunEntry]:
    """Run a study of each of six learning rates, and return the runs."""
    coordinator, found, study = Coordinator(gates), list[RunEntry](), gates.study
    for lr in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        gates.study = study.replace({"plan.lr": lr})
        for name in gates.sites:
            gates.approve(name)
        found.append(coordinator.run())
    assert {run.status for run in found} == {"completed"}
    return found


def read(window: Window) -> str:
    """Return the words of a page, once it stands."""
    window.page.locator("h1").first.wait_for()
    window.drawn()
    window.is_sound()
    found: str = window.page.locator("[data-testid=stMain]").inner_text()
    return found


@pytest.mark.proof
def test_of_the_sixth_model_the_coordinators_page_says_why_and_the_sites_own_app_has_the_verdict(gates, home, browser):
    runs = compare_six_models(gates)
    with served({"FLFED_HOME": str(home)}) as address, opened(address) as window:
        for run, there in ((runs[4], True), (runs[5], False)):
            window.page.goto(f"{address}/sites?run={run.run}")
            said = read(window)
            assert (f"site-01: This site withholds AUC: {WHY}." not in said) == there
            assert ("Inconclusive at site-01." not in said) == there
            window.page.goto(f"{address}/overview?run={run.run}")
            assert (f"withheld by the site's policy: {WHY}" not in read(window)) == there
        window.picture("sixth-model-overview", whole=True)
    results, problems = results_of(gates.folders["site-01"])
    assert problems == [] and [result.run for result in results] == [run.run for run in reversed(runs)]
    port = free_port()
    with started(command_of(port), **screen(browser)) as _, opened(f"http://127.0.0.1:{port}") as window:
        window.page.goto(given_to(browser))
        window.page.locator("h1").first.wait_for()
        window.turn_to("Results")
        said = read(window)
        assert "This run's figures over test rows did not leave this site" in said
        assert "The verdict in the run's record counts" not in said
        (value,) = [one.value for one in results[0].arms if (one.arm, one.metric) == ("global", "roc_auc_score")]
        assert f"AUC {number(value)} with the shared model against" in said
        window.picture("sixth-model-results", whole=True)
        window.page.get_by_test_id("stSelectbox").locator("input").first.fill(runs[4].run)
        window.page.keyboard.press("Enter")
        window.drawn()
        said = read(window)
        assert "did not leave this site" not in said and "The verdict in the run's record counts" not in said
