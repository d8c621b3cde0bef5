"""Servers that attack real gates at random: no sum of fewer honest sites than promised."""

import random
from collections.abc import Callable

import pytest

from flfed.deployment.gate.run_limits import SumLines
from flfed.federation.client.run_keys import QuestionHistory
from flfed.updates.masking import protocol
from tests.deployment.gate_scene import GateScene
from tests.updates.masking.random_attacks import random_attack

Make = Callable[..., GateScene]


def attacked(scene: Make, pinned: int, colluders: int, plays: int) -> tuple[int, int]:
    """Return in how many random plays the server gets a sum, and in how many one of too few sites."""
    sums = lost = 0
    for seed in range(plays):
        found = scene(pinned, colluders)
        random_attack(found, random.Random(seed))
        sums += found.fewest() is not None
        lost += found.lost
    return sums, lost


@pytest.mark.proof
@pytest.mark.parametrize(("pinned", "colluders"), [(4, 1), (5, 1), (7, 2)])
def test_no_random_attack_on_gates_gets_a_sum_of_fewer_sites_than_promised(scene, pinned, colluders):
    sums, lost = attacked(scene, pinned, colluders, 200)
    assert sums > 50 and lost == 0


def test_a_few_random_attacks_on_gates_get_none(scene: Make) -> None:
    assert attacked(scene, 4, 1, 6)[1] == 0


@pytest.mark.proof
@pytest.mark.parametrize("fault", ["lists", "confirmations"])
def test_the_same_attacks_find_a_fault_of_gates(scene: Make, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "lists":
        monkeypatch.setattr(SumLines, "get_history", lambda lines, question, dataset: QuestionHistory())
    else:
        monkeypatch.setattr(protocol, "opening_refusal", lambda *given, **named: None)
    assert attacked(scene, 4, 1, 200)[1] > 0
