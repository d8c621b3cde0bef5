"""A run goes on only with as many sites as the policy of each that takes part asks for, whoever was asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from flfed.errors import FlfedError
from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.kinds import TRAIN
from tests.conftest import SMALL_STUDY
from tests.deployment.summing import Consortium, SummingGrid, conduct

PLAIN = Study.parse(SMALL_STUDY).replace({"privacy.secure-aggregation": "off", "rounds": 2})


def consortium(small_sites: Callable[..., list[Site]], policies: list[Policy]) -> Consortium:
    sites = small_sites(len(policies), rows=80)
    return Consortium([replace(site, policy=policy) for site, policy in zip(sites, policies)], PLAIN)


def without(*names: str) -> Callable[[str, str], bool]:
    """Let sites be offline when they are asked to enrol."""
    return lambda site, kind: kind == ENROL and site in names


def test_two_of_three_institutions_do_not_train_and_the_reason_is_told(small_sites):
    made = consortium(small_sites, [Policy()] * 3)
    grid = SummingGrid(made, without("site-01"))
    with pytest.raises(FlfedError, match="only 2 sites take part, and a policy of theirs needs at least 3.*site-01: "):
        conduct(made, grid)
    assert set(grid.kinds()) == {ENROL}
    assert {line.kind for name in made.sites for line in made.lines(name)} <= {"enrol", "released"}


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
