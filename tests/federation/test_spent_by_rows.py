"""What the account of persons makes of rows that were counted one by one, and what a command says whose budget ends."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from flfed.deployment.gate.message_check import may_leave
from flfed.deployment.operator.budget import budget_as_json, describe_account
from flfed.deployment.operator.run_budget import describe_run_budget
from flfed.federation.client.released.accounts import BOTH
from flfed.federation.server.run import run
from flfed.refusals import NotSpent, Refusal
from flfed.rows.data.holdout import Holdout
from flfed.rows.data.policy import Policy
from flfed.updates.accounting import Release
from tests.federation.test_spending import DELTA, ROUND, account, by_others, ledger, private, spent_lines

SPENT = "privacy budget: "


def of_schema(group: bool) -> None:
    """Let the schema of the small dataset name a group, or none."""
    schema = Path(os.environ["FLFED_PATH"]) / "datasets" / "small" / "schema.toml"
    text = schema.read_text().replace('target = "y"\ngroup = "person"', 'target = "y"')
    schema.write_text(text.replace('target = "y"', 'target = "y"\ngroup = "person"') if group else text)


@pytest.mark.studies
@pytest.mark.parametrize("group", [True, False])
def test_rows_counted_one_by_one_bound_nothing_of_persons_who_may_have_several(small_sites, group):
    (site,) = small_sites(1, rows=100)
    of_schema(group)
    first, policy = account(Policy()), Policy(epsilon=8.0)
    for number in range(10):
        first.reserve(Release(2.0, 0.1, 20), run="r", round=number, unit="row", delta=1e-5)
    first.reserve(ROUND, run="s", round=1, unit="person")
    spending, expected = account(policy), by_others([Release(2.0, 0.1, 200), ROUND])
    found = budget_as_json(replace(site, policy=policy), ledger())
    (one,) = found["datasets"]
    said = describe_account(one, DELTA, enforced=True)
    if not group:  # each row is a person
        assert spending.spent() == pytest.approx(expected, rel=0.02) == one["spent"]
        assert spending.refusal([(BOTH, ROUND)], "new") is None and one["rounds-remaining"] > 10
        return
    for told in (spending, first, account(policy)):
        assert math.isinf(told.spent())
    assert (one["spent"], one["remaining"], one["rounds-remaining"]) == (None, 0.0, 0)
    assert "epsilon beyond any number of 8 is spent" in said
    assert "a person may have several. There is no room for another round like the last one." in said
    assert describe_account({**one, "budget": None, "unprotected-updates": 2}, DELTA, enforced=False) == (
        "small: epsilon beyond any number is spent, by 2 runs: "
        "unit 'row' counts rows one by one, and a person may have several. This counts protected updates only. "
        "2 updates left without noise, so no epsilon bounds what all of them reveal."
    )
    assert spending.refusal([(BOTH, ROUND)], "new") == Refusal("budget-by-row")
    assert Refusal("budget-by-row").startswith(SPENT)
    assert may_leave(Refusal("budget-by-row"), site)
    before = len(spent_lines())
    with pytest.raises(NotSpent, match="an earlier study of unit 'row'"):
        spending.reserve(ROUND, run="new", round=1, unit="person")
    assert len(spent_lines()) == before
    approving = " ".join(describe_run_budget(replace(site, policy=policy), ledger(), "small", ROUND, 5))
    assert "have spent epsilon beyond any number of 8" in approving and approving.endswith("this site refuses it.")
    account(Policy(epsilon=8.0, disclosure="open")).reserve(ROUND, run="new", round=1, unit="person")
    assert len(spent_lines()) == before + 1


def test_a_site_where_rows_were_counted_enrols_without_a_figure_that_is_none(small_sites, small_study):
    sites = small_sites(2, rows=100, policy=Policy(disclosure="open", epsilon=9.0))
    of_schema(True)
    sites = [replace(site, holdout=Holdout(salt="s")) for site in sites]
    assert run(private(small_study, unit="row"), sites=sites).report["rounds"] == 5
    report = run(private(small_study), sites=sites).report
    assert report["rounds"] == 5 and math.isinf(account(Policy(epsilon=9.0)).spent())
    assert [line["spent-before"] for line in report["privacy"]["sites"].values()] == [None, None]
    refusing = [replace(site, policy=Policy(epsilon=9.0)) for site in sites]
    with pytest.raises(Exception, match="an earlier study of unit 'row' protected each row by itself"):
        run(private(small_study, seed=9), sites=refusing)


def test_a_command_whose_run_ends_for_want_of_budget_leaves_with_3(small_sites, small_study, flfed, tmp_path):
    for site in small_sites(2, rows=100):
        package = tmp_path / "root" / "sites" / site.name.replace("-", "_")
        package.mkdir(parents=True)
        site.source.table.to_csv(package / "table.csv", index=False)  # type: ignore[attr-defined]  # - a Frame
        (package / "policy.toml").write_text("format = 1\nepsilon = 1.5\n")
        (package / "__init__.py").write_text(
            f'from flfed import Csv, Site\nsite = Site(name="{site.name}", dataset="small", source=Csv("table.csv"))\n'
        )
    (study := tmp_path / "study.toml").write_text(private(small_study).text)
    code, out, err = flfed("study", "run", study, "--json")
    assert (code, json.loads(out)["status"]) == (3, "stopped"), err
    assert json.loads(out)["reason"].startswith("privacy budget: none left at site-01, site-02; round ")
    assert 1 <= json.loads(out)["rounds"] == len(spent_lines()) < 5
    code, out, err = flfed("study", "run", study)
    assert code == 2 and out == "" and "privacy budget: epsilon 1." in err  # not one round fits: wrong input
