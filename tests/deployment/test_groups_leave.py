"""Through the gate: figures by group of an institution leave in one run alone."""

import math
from typing import Any

import pytest

from flfed.rows.data.policy import Policy
from flfed.updates.messages.compare import CompareReply, GroupFigure

BY = ("[compare]\n", '[compare]\nsubgroups = ["flag", "colour"]\n')
ONCE = "withheld: importances or figures by group of these rows left in another run"


def groups(site: Any, compared: Any, run: str) -> tuple[GroupFigure, ...]:
    site.run_config["run"] = run
    return CompareReply.from_record(compared(site)).groups


def told(figures: tuple[GroupFigure, ...]) -> list[float]:
    return [one.value for one in figures if not math.isnan(one.value)]


@pytest.mark.studies
@pytest.mark.parametrize(("disclosure", "again"), [("institution", False), ("open", True)])
def test_figures_by_group_leave_in_one_run_alone(gated, compared, small_study: str, disclosure: Any, again: bool):
    site = gated(small_study.replace(*BY), policy=Policy(disclosure=disclosure), rows=1200)
    first = groups(site, compared, "20261120-one")
    assert len(told(first)) >= 2
    # The same run again has them again; another one has none, and says why.
    assert groups(site, compared, "20261120-one") == first
    later = groups(site, compared, "20261120-two")
    assert [bool(told(later)), {one.method for one in later} == {ONCE}] == [again, not again]
    claimed = [line.facts["run"] for line in site.lines() if line.facts.get("once")]
    assert claimed == ([] if again else ["20261120-one"])


def test_groups_that_stay_for_want_of_rows_claim_nothing(gated, compared, small_study: str):
    site = gated(small_study.replace(*BY), policy=Policy(), rows=80)
    for run in ("20261120-one", "20261120-two"):
        found = groups(site, compared, run)
        assert found and not told(found) and ONCE not in {one.method for one in found}
    assert not [line for line in site.lines() if line.facts.get("once")]
