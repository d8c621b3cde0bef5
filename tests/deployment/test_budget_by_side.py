"""What a site's people are shown of an account whose lines are of one side of the holdout alone."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from flfed.deployment.operator.budget import Account, RunSpent, budget_as_json, describe_account
from flfed.deployment.operator.run_budget import describe_run_budget
from flfed.federation.client.privacy_budget import shown
from flfed.federation.client.released.accounts import SIDES, Tally
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.updates.accounting import Release, epsilon
from tests.federation.test_spending_by_side import ANSWER, DELTA, RUN, account, ledger, of


def told(site: Site) -> tuple[dict[str, Any], str]:
    """Return a site's account as JSON and in words."""
    found = budget_as_json(site, ledger())
    (one,) = found["datasets"]
    return one, describe_account(one, DELTA, enforced=found["enforced"])


def test_what_a_site_shows_of_its_account_is_the_larger_side(small_sites: Callable[..., list[Site]]):
    (site,) = small_sites(1, policy=Policy(epsilon=4.0))
    spending = account()
    spending.reserve(ANSWER, **RUN)
    one, words = told(site)
    assert one["spent"] == of(1) and "side" not in one["runs"][0] and "people" not in words
    spending.reserve(Release(4.0, 1, 1), side="holdout", **RUN)
    spending.reserve(Release(3.0, 1, 1), side="training", **RUN)
    spending.reserve(Release(3.0, 1, 1), side="training", **{**RUN, "round": 2})
    one, words = told(site)
    # Of people trained on: two releases at noise 3 on top of the first; of people held out one at noise 4.
    training, holdout = [ANSWER, Release(3.0, 1, 2)], [ANSWER, Release(4.0, 1, 1)]
    spent = one["spent"]
    assert spent == pytest.approx(epsilon(training, DELTA)) == spending.spent() and one["remaining"] == 4 - spent
    assert epsilon(holdout, DELTA) < spent - 0.4 and epsilon([*training, *holdout[1:]], DELTA) > spent + 0.1
    # One more of them fits, two would by the other side alone, and none would by both in one sum.
    last = Release(3.0, 1, 1)
    assert one["rounds-remaining"] == 1
    assert epsilon([*training, last], DELTA) <= 4 < epsilon([*training, last, *holdout[1:]], DELTA)
    assert epsilon([*holdout, last, last], DELTA) <= 4 < epsilon([*training, last, last], DELTA)
    # Lines of different sides of one run are entries of their own.
    assert [(run["run"], run.get("side"), run["rounds"], run["steps"]) for run in one["runs"]] == [
        ("r", None, 1, 1), ("r", "holdout", 1, 1), ("r", "training", 2, 2),
    ]  # fmt: skip
    assert [run["epsilon"] for run in one["runs"]] == pytest.approx(
        [epsilon(releases, DELTA) for releases in ([ANSWER], holdout[1:], training[1:])]
    )
    apart = (
        " Some runs were charged only to people trained on, some only to people held out: "
        "the figures are those of the side that spent more."
    )
    assert ", by 1 run. There is room for about 1 more answer like the last one." in words
    assert words.endswith(f".{apart}")
    assert f"have spent epsilon {shown(one['spent'])} of 4" in " ".join(
        describe_run_budget(site, ledger(), "small", last, 5)
    )
    assert describe_account({**one, "budget": None}, DELTA, enforced=False).endswith(
        f" The policy sets no budget.{apart}"
    )
    assert describe_account(one, DELTA, enforced=False).endswith(
        f"{apart} The site is 'open': it counts, and refuses nothing."
    )


def test_of_people_who_are_rows_of_two_datasets_the_sides_of_the_other_one_count_on_both(small_sites, tmp_path):
    (site,) = small_sites(1, policy=Policy(epsilon=9.0))
    shutil.copytree(folder := tmp_path / "root" / "datasets" / "small", slim := folder.with_name("slim"))
    schema = slim / "schema.toml"
    schema.write_text(schema.read_text().replace('name = "small"', 'name = "slim"'))
    account(dataset="small").reserve(ANSWER, side="holdout", **RUN)
    account(dataset="slim").reserve(ANSWER, side="training", **RUN)
    found = {one["dataset"]: one for one in budget_as_json(site, ledger())["datasets"]}
    assert [found[name]["account"] for name in ("small", "slim")] == [["slim", "small"]] * 2
    assert [found[name]["spent"] for name in ("small", "slim")] == [of(2), of(2)]
    assert account(dataset="small").spent() == account(dataset="slim").spent() == of(2)
    assert "charged only to people held out: the" in describe_account(found["small"], DELTA, enforced=True)
    assert "charged only to people trained on: the" in describe_account(found["slim"], DELTA, enforced=True)


def test_a_run_that_leaves_a_side_out_of_the_account_that_people_see_is_told_from_the_right_one():
    def counted(run_of: type[RunSpent], sides: list[str]) -> list[float]:
        runs = {
            (str(n), "", "small", True, "both"): run_of(run="r", unit="", dataset="small") for n in range(len(sides))
        }
        for run, side in zip(runs.values(), sides, strict=True):
            run.side, run.releases = side, [ANSWER]  # type: ignore[assignment]  # - of the list
        own = Account(runs=runs)  # type: ignore[arg-type]  # - of the planted class
        return [own.spent("small", DELTA), *(epsilon(own.tally("small").releases(side), DELTA) for side in SIDES)]

    class AddedUpRuns(RunSpent):
        def tally(self, dataset: str) -> Tally:
            return super().tally(dataset).on_both()

    class OneSideRuns(RunSpent):
        def tally(self, dataset: str) -> Tally:
            self.side = "training" if self.side == "both" else self.side
            return super().tally(dataset)

    sides = ["training", "holdout", "holdout", "both"]
    assert counted(RunSpent, sides) == [of(3), of(2), of(3)]
    assert counted(AddedUpRuns, sides) != [of(3), of(2), of(3)]
    assert counted(OneSideRuns, sides) != [of(3), of(2), of(3)]


def test_the_command_and_the_page_name_the_people_only_where_some_run_was_of_one_side(flfed, tmp_path, small_sites):
    small_sites(0)
    package = tmp_path / "root" / "sites" / "site_01"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        'from flfed import Csv, Site\nsite = Site(name="site-01", dataset="small", source=Csv("table.csv"))\n'
    )
    (package / "policy.toml").write_text("format = 1\nepsilon = 4.0\n")

    def page(one: dict[str, Any]) -> list[list[str]]:
        def show(one):
            from flfed.deployment.site_app.pages.s30_budget import runs

            runs(one)

        opened = AppTest.from_function(show, args=(one,)).run()
        assert not opened.exception
        return [list(part.value["People"]) for part in opened.table if "People" in part.value]

    account().reserve(ANSWER, **RUN)
    code, out, _ = flfed("site", "budget", "site-01")
    (one,) = json.loads(flfed("site", "budget", "site-01", "--json")[1])["datasets"]
    assert code == 0 and "people" not in out and page(one) == []
    account().reserve(Release(9.0, 1, 1), side="holdout", **RUN)
    code, out, _ = flfed("site", "budget", "site-01")
    (one,) = json.loads(flfed("site", "budget", "site-01", "--json")[1])["datasets"]
    assert [run.get("side") for run in one["runs"]] == [None, "holdout"]
    assert code == 0 and "Some runs were charged only to people held out" in out.replace("\n", " ")
    assert " people " in out and " held out " in out and " all " in out
    assert page(one) == [["all", "held out"]]
