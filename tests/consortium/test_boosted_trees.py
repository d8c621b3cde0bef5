"""Boosted trees at three real institutions, whose policies keep no counts back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.boosting import trees_study
from tests.consortium.test_packed_bytes import THREE, held, sent
from tests.consortium.test_secure_sums import command, difference, words

pytestmark = [pytest.mark.proof, pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1800)]


def test_three_institutions_grow_the_trees_of_one_process_and_one_that_keeps_counts_back_none(consortium: Any):
    study = trees_study(consortium.study(), **{"strategy.rounds": 6})
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
    assert two["status"] == "completed" and "tell the outcomes of single rows" in str(two), said
    assert {line["kind"] for line in consortium.sites[THREE[2]].lines() if line["run"] == two["run"]} == {"refused"}
    closed[THREE[2]].write_text(closed[THREE[2]].read_text().replace('"institution"', '"open"'))
    three, said = command(consortium, words(consortium, study, THREE))
    assert (three["status"], three["faults"]) == ("completed", []), said
    assert difference(consortium, three["run"], study, THREE) == 0
    assert three["arrays-sha256"] != two["arrays-sha256"]
    assert held(consortium, three["run"]) == sent(consortium, three["run"])
