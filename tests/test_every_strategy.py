"""What every strategy of the listing promises: the rules are in `flfed.testing`, for other packages' too."""

import inspect

import pytest

from flfed.registry import load, names
from flfed.testing import STRATEGY_RULES, Subject, keep

STRATEGIES = [name for name in names("strategy") if name not in ("boosted-trees", "vertical")]
"""All that make a model of updates; the others' tests are test_boosted_trees_run.py and test_vertical_run.py."""


@pytest.mark.parametrize("rule", STRATEGY_RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_keeps_every_rule_of_the_contract(name, rule):
    keep(rule, Subject(load("strategy", name)))


def test_there_are_two_strategies_and_every_rule_says_why_there_is_one():
    assert {"fedavg", "fedprox"} <= set(STRATEGIES)
    assert len(STRATEGY_RULES) >= 13
    assert all(len(inspect.getdoc(rule).split()) > 5 for rule in STRATEGY_RULES)


def test_a_strategy_of_ours_takes_all_that_fedavg_takes():
    shared = set(inspect.signature(load("strategy", "fedavg")).parameters)
    assert len(shared) == 10
    for name in STRATEGIES:
        assert shared <= set(inspect.signature(load("strategy", name)).parameters), name
