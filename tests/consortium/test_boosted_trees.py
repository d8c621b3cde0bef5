"""Boosted trees at three real institutions, whose policies keep no counts back."""

from typing import Any

import pytest

from tests.boosting import trees_study
from tests.consortium.test_packed_bytes import THREE, held, sent
from tests.consortium.test_secure_sums import KILLED, cohorts, command, difference, newest, words

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1800)]


def test_three_institutions_grow_the_trees_of_one_process_and_one_that_keeps_counts_back_none(consortium: Any):
    # Validation rows choose how many trees there are.
    chosen = {"strategy.select": "best", "strategy.patience": 2}
    study = trees_study(consortium.study(), **{"strategy.rounds": 6, **chosen})
    for name in THREE:
        consortium.allow_every_strategy(name)
    closed = {name: consortium.root / "packages" / "sites" / name / "policy.toml" for name in THREE}
    for name in THREE[:2]:
        closed[name].write_text(closed[name].read_text().replace('"institution"', '"open"'))
    for name in THREE:
        consortium.approve(name, study, THREE)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)
    two, said = command(consortium, words(consortium, study, THREE))
    assert two["status"] == "completed" and "keeps small counts back" in str(two), said
    assert {line["kind"] for line in consortium.sites[THREE[2]].lines() if line.get("run") == two["run"]} == {"refused"}
    closed[THREE[2]].write_text(closed[THREE[2]].read_text().replace('"institution"', '"open"'))
    three, said = command(consortium, words(consortium, study, THREE))
    assert (three["status"], three["faults"]) == ("completed", []), said
    assert difference(consortium, three["run"], study, THREE) == 0
    assert three["arrays-sha256"] != two["arrays-sha256"]
    assert held(consortium, three["run"]) == sent(consortium, three["run"])


def test_three_institutions_grow_trees_in_secure_sums_also_after_a_kill_between_two_levels(consortium: Any):
    pins = consortium.pins(THREE)
    sums = ("[compare]", '[privacy]\nsecure-aggregation = "on"\n[compare]')
    study = trees_study(consortium.study(sums), **{"strategy.rounds": 4, "strategy.min-rows": 10})
    policies = [consortium.root / "packages" / "sites" / name / "policy.toml" for name in THREE]
    for policy in policies:
        policy.write_text('format = 1\ndisclosure = "institution"\noutputs = ["single-cells-in-sums"]\n')
    for name in THREE:
        # Their sums left each site alone before.
        consortium.approve(name, study, THREE, sums=True, pins=pins, changed_sites=True)
        consortium.sites[name].serve(f"site serve {name}")
    consortium.online(3)
    ran, said = command(consortium, words(consortium, study, THREE))
    assert (ran["status"], ran["faults"]) == ("completed", []), said
    assert difference(consortium, ran["run"], study, THREE) == 0
    assert cohorts(consortium, ran["run"], THREE) == {",".join(sorted(THREE))}
    assert held(consortium, ran["run"]) == sent(consortium, ran["run"])
    # Of the cells, and of the levels of the trees: the fifth sum is that of the second tree's second level.
    command(consortium, words(consortium, study, THREE), before=KILLED % 5, code=-9)
    killed = newest(consortium).run
    assert killed != ran["run"]
    again, said = command(consortium, ["study", "resume", killed, "--json"])
    assert again["status"] == "completed", said
    assert again["arrays-sha256"] == ran["arrays-sha256"]
    # Where the policy does not name these cells, no sum leaves.
    policies[2].write_text('format = 1\ndisclosure = "institution"\n')
    _, said = command(consortium, words(consortium, study, THREE), code=2)
    assert "tell the outcomes of single rows" in said
