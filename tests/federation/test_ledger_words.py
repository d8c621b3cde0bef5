"""What a run's report and a site's budget say of a ledger, held to what its lines compose to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flfed import Study
from flfed.deployment.operator.budget import budget_as_json, describe_account
from flfed.federation.client.privacy_budget import PrivacyAccount
from flfed.federation.client.released.accounts import release_of, side_of
from flfed.federation.server.run import run
from flfed.paths import SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.reports.privacy import epsilon_in_words, of_all_studies, spending_in_words
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.updates.accounting import Release, epsilon
from flfed.words import render
from tests.federation.test_covered_study import STUDY, lines

Small = Callable[..., list[Site]]
DELTA = 1e-5
COMPARED = STUDY + 'comparison = "site-model"\n'
OPEN = Policy(disclosure="open", resplit=True)
AFTER = re.compile(r"before, and has at most ([\d.]+) with it")


def composed(site: str) -> float:
    """Return the ε of all lines of a ledger, as of one person."""
    return epsilon([release_of(line) for line in lines(site)], DELTA)


@pytest.mark.parametrize(("text", "kinds", "least"), [(STUDY, 4, 3.5), (COMPARED, 7, 4.2)], ids=["alone", "compared"])
def test_a_runs_report_bounds_what_the_ledger_has_where_charges_count_on_both_sides(
    small_sites: Small, flfed, text: str, kinds: int, least: float
):
    sites = small_sites(3, rows=400, policy=OPEN)
    found = run(Study.parse(text), sites=sites).report["privacy"]
    for site in sites:
        has, told = composed(site.name), found["sites"][site.name]
        assert {side_of(line) for line in lines(site.name)} == {"both"}
        assert told["epsilon"] <= 3.0 < least < has
        # The ε of the run alone, which was told once, is no bound of it.
        assert has <= told["spent-after"] + 1e-9 and told["spent-after"] == pytest.approx(has, rel=0.01)
        assert told["spent-before"] + told["epsilon"] < has - 0.5
        # The budget has a line for each noise, and what the run and all of them compose to.
        (account,) = budget_as_json(site, ledger_of(SiteFolder(site.name)))["datasets"]
        each = [epsilon([Release(of["noise"], of["sampling"], of["steps"])], DELTA) for of in account["runs"]]
        assert len(account["runs"]) == kinds and [of["epsilon"] for of in account["runs"]] == pytest.approx(each)
        assert {of["run-epsilon"] for of in account["runs"]} == {account["spent"]} and account["spent"] == has
        assert max(each) < has < sum(each)
    said = flfed("run", "show", "latest")[1].replace("\n", " ")
    assert AFTER.findall(said) == [epsilon_in_words(told["spent-after"])]
    assert render("privacy.spent.sides") in " ".join(said.split())
    assert "this run ε = 3" in said


def test_repeats_add_up_in_what_the_ledger_has_then(small_sites: Small):
    told = run(Study.parse(STUDY), sites=small_sites(3, rows=400, policy=OPEN), repeats=3).report["privacy"]
    one = told["sites"]["site-01"]
    # The largest of one repeat, which was told once, is far from a bound.
    assert one["spent-before"] + one["epsilon"] < composed("site-01") - 2 < composed("site-01") <= one["spent-after"]


def test_after_a_change_of_the_holdout_budget_and_report_count_every_charge_for_all(small_sites: Small):
    *_, site = sites = small_sites(3, rows=400, policy=Policy())
    run(Study.parse(STUDY), sites=sites)
    apart = account_of(site)
    assert apart["spent"] <= 3.0 and not apart["moved"]
    study = Study.parse(STUDY.replace("Predict y, all", "Predict y again, all"))
    moved = [replace(one, holdout=Holdout(share=0.4)) for one in sites]
    found = run(study, sites=moved).report["privacy"]["sites"][site.name]
    account = account_of(moved[-1])
    has = composed(site.name)
    assert account["moved"] and account["spent"] == has > 4.5
    # What the site says of itself as the second run begins counts the first one's charges on both sides already.
    assert found["spent-before"] > apart["spent"] + 0.5
    # Both runs spent alike.
    assert {of["run-epsilon"] for of in account["runs"]} == {found["spent-before"]}
    assert found["spent-before"] < has <= found["spent-after"]
    assert describe_account(account, DELTA, enforced=False).endswith(
        " The holdout changed, or a new snapshot was taken. "
        "People may have changed sides, so each charge counts for all."
    )


def account_of(site: Site) -> dict[str, Any]:
    """Return the site's account, which its refusals count as well."""
    (account,) = budget_as_json(site, ledger_of(SiteFolder(site.name)))["datasets"]
    assert PrivacyAccount(ledger_of(SiteFolder(site.name)), "small", site.policy).spent() == account["spent"]
    return dict(account)


def test_a_site_that_enforces_its_budget_has_never_more_than_it(small_sites: Small):
    sites = [replace(site, policy=Policy(epsilon=3.2)) for site in small_sites(3, rows=2000)]
    privacy = run(Study.parse(STUDY), sites=sites).report["privacy"]
    told = privacy["sites"]["site-01"]
    (account,) = budget_as_json(sites[0], ledger_of(SiteFolder("site-01")))["datasets"]
    # Sides are apart: the run is the larger side, and the sum over both sides is more than the budget.
    assert account["spent"] <= 3.0 < 3.2 < composed("site-01")
    assert told["spent-after"] == 3.2 and "has at most 3.2 with it" in spending_in_words(privacy)[0]
    assert not account["moved"]
    assert {of["run-epsilon"] for of in account["runs"]} == {account["spent"]}
    sides = {of["side"] for of in account["runs"]}
    assert sides == {"training", "holdout"} and len(account["runs"]) == 5


def test_where_no_bound_is_known_the_site_is_asked(small_sites: Small):
    privacy = run(Study.parse(STUDY), sites=small_sites(3, rows=400, policy=OPEN)).report["privacy"]
    for line in privacy["sites"].values():
        line["spent-after"] = None
    assert "before (only the site knows the total with it), without a budget" in spending_in_words(privacy)[0]
    assert of_all_studies(privacy["sites"]["site-01"]) == (None, "not known")
