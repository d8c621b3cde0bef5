"""A run goes on only with as many sites as the policy of each that takes part asks for, whoever was asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from flfed.errors import FlfedError, UsageError
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.kinds import TRAIN
from tests.conftest import SMALL_STUDY
from tests.deployment.summing import Consortium, SummingGrid, conduct

PLAIN = Study.parse(SMALL_STUDY).replace({"privacy.secure-aggregation": "off", "rounds": 2})


def consortium(small_sites: Callable[..., list[Site]], policies: list[Policy], study: Study = PLAIN) -> Consortium:
    sites = small_sites(len(policies), rows=80)
    return Consortium([replace(site, policy=policy) for site, policy in zip(sites, policies)], study)


def without(*names: str) -> Callable[[str, str], bool]:
    """Let sites be offline when they are asked to enrol."""
    return lambda site, kind: kind == ENROL and site in names


def test_two_of_three_institutions_do_not_train_and_the_reason_is_told(small_sites):
    made = consortium(small_sites, [Policy()] * 3)
    grid = SummingGrid(made, without("site-01"))
    with pytest.raises(FlfedError, match="only 2 sites take part, and a policy of theirs needs at least 3.*site-01: "):
        conduct(made, grid)
    assert set(grid.kinds()) == {ENROL}
    assert {line.kind for name in made.sites for line in made.lines(name)} <= {"enrol", "snapshot"}


@pytest.mark.parametrize(("policies", "gone", "trains"), [
    ([Policy()] * 4, ["site-01"], True),
    ([Policy()] * 3 + [Policy(minimum_cohort=4)], ["site-01"], False),
    ([Policy(minimum_cohort=4)] + [Policy()] * 3, ["site-01"], True),
    ([Policy(minimum_cohort=2)] * 3, ["site-01"], True),
    ([Policy(disclosure="open")] * 3, ["site-01"], True),
    ([Policy(disclosure="open")] * 3, ["site-01", "site-02"], False),
])  # fmt: skip
def test_the_fewest_sites_are_those_of_the_strictest_policy_that_takes_part(small_sites, policies, gone, trains):
    made = consortium(small_sites, policies)
    grid = SummingGrid(made, without(*gone))
    if trains:
        assert conduct(made, grid).status == "completed"
    else:
        with pytest.raises(FlfedError, match="at least"):
            conduct(made, grid)
    assert (TRAIN in grid.kinds()) == trains


@pytest.mark.parametrize(("changes", "policies", "fewest", "least"), [
    ({"strategy.quorum": 0.5}, [Policy()] * 3, 2, 3),
    ({"strategy.fraction": 0.5}, [Policy()] * 5, 2, 3),
    ({"strategy.fraction": 0.6, "strategy.quorum": 1.0}, [Policy()] * 3 + [Policy(minimum_cohort=3)] * 2, 3, 3),
    ({}, [Policy()] * 4 + [Policy(minimum_cohort=5)], 4, 5),
    ({"strategy.quorum": 1.0}, [Policy()] * 4 + [Policy(minimum_cohort=5)], 5, 5),
    ({"strategy.quorum": 0.5}, [Policy(disclosure="open")] * 4, 2, 2),
])  # fmt: skip
def test_a_round_of_fewer_sites_than_a_policy_asks_for_is_refused_at_enrolment(
    small_sites, changes, policies, fewest, least
):
    made = consortium(small_sites, policies, PLAIN.replace(changes))
    grid = SummingGrid(made)
    if fewest >= least:
        assert conduct(made, grid).status == "completed"
    else:
        said = f"a round may average updates of {fewest} of the {len(policies)} sites, and a policy of theirs needs at "
        with pytest.raises(UsageError, match=f"{said}least {least}; raise quorum or fraction"):
            conduct(made, grid)
    assert (TRAIN in grid.kinds()) == (fewest >= least)


def test_whom_to_ask_for_an_approval_is_said_and_not_whom_to_ask_about_a_table(small_sites):
    made = consortium(small_sites, [Policy()] * 3)
    for name in made.sites:
        made.approve(name, rows_sha256="0" * 64)
        made.restart(name)
    with pytest.raises(
        UsageError,
        match="its frozen rows changed after the approval; for a new one, at the site: flfed site approve STUDY",
    ) as failed:
        conduct(made, SummingGrid(made))
    assert "site check" not in str(failed.value)
