"""Runs under homomorphic encryption behind gates: what crosses, a first site that is killed, and a run that goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flfed.rows.data.policy import Policy
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.messages.secure_sum import KEYS, LIST, UNMASK
from flfed.updates.messages.train import TRAIN
from tests.deployment.summing import Consortium, SummingGrid, conduct

ROUNDS = 3


@pytest.fixture
def consortium(small_sites: Callable[..., list[Site]], small_study: str) -> Callable[..., Consortium]:
    """A function that returns sites that approved a study with sums of ciphertexts."""

    def make(sites: int = 3) -> Consortium:
        study = Study.parse(small_study).replace({"secure-aggregation": "ckks", "strategy.rounds": ROUNDS})
        found = small_sites(sites, rows=80, policy=Policy(disclosure="open", resplit=True))
        return Consortium(found, study)

    return make


def test_three_gates_end_a_run(consortium: Callable[..., Consortium]):
    found = consortium()
    grid = SummingGrid(found)
    outcome = conduct(found, grid)
    assert (outcome.status, outcome.reason) == ("completed", "")
    kinds = grid.kinds()
    assert kinds[TRAIN] == 3 * ROUNDS and kinds[KEYS] == 3 and LIST not in kinds and UNMASK not in kinds
