"""Honest sums, played: each run ends, and none leaves a question that can never be answered again."""

import random
from dataclasses import replace
from functools import partial

import pytest

from flfed.refusals import Refusal
from flfed.updates.masking import rules as written
from tests.updates.masking.histories import ASKED, History
from tests.updates.masking.play import Exchange, Rules

RULES = Rules()


def histories(count: int, rules: Rules = RULES, *, at_once: int = 2, **facts):
    """Yield histories of 3 to 20 sites whose runs have ended."""
    for seed in range(count):
        rng = random.Random(seed)
        history = History(rng.randint(3, rng.choice((6, 20))), rng, rules, **facts)
        history.play(rng.randint(1, 6), at_once)
        yield history


def stuck(count: int, rules: Rules = RULES, **facts) -> int:
    """Return after how many histories two more runs are stopped, though every site answers them at once."""
    return sum(all(isinstance(history.last(), str) for _ in range(2)) for history in histories(count, rules, **facts))


@pytest.mark.parametrize("at_once", [1, 3])
def test_after_any_history_a_run_completes_in_which_all_sites_answer(at_once: int):
    ends, lists = [], set()
    for history in histories(500, at_once=at_once):
        ends += history.ends
        last = history.last()
        assert isinstance(last, frozenset) and len(last) >= history.least
        # What was summed before is summed again.
        lists.add(len({end for end in (*history.ends, last) if isinstance(end, frozenset)}))
    assert lists == {1}
    sums = sum(isinstance(end, frozenset) for end in ends)
    assert sums > 150 and len(ends) - sums > 500 and "" not in ends


def test_where_shares_are_none_a_later_run_completes_all_the_same_and_has_the_list_that_was_summed():
    left_out = 0
    for history in histories(300, spoils=True):
        last = history.last()
        assert isinstance(last, frozenset)
        assert {end for end in history.ends if isinstance(end, frozenset)} <= {last}
        left_out += history.left_out
    assert left_out > 3
    # A server that asks for a smaller list, whatever the others may have opened, binds sites to two lists.
    assert stuck(300, spoils=True, asks_on=True) > 0


def answered_alone(answered, *, cohort, least, lifted):
    """Choose those who answered, whatever lists they named."""
    if len(answered) >= least:
        return frozenset(answered)
    return written.choose_list(answered, cohort=cohort, least=least)


def asked_last(exchange, asked):
    return exchange == asked[-1]


PARTS = {
    "choosing a list that was named": {"rules": replace(RULES, choose_list=answered_alone)},
    "the newest run": {"rules": replace(RULES, newest=lambda exchange, asked: True)},
    "the order in which runs began": {"rules": replace(RULES, newest=asked_last)},
    "a resumed server that keeps its list": {"keeps_list": False},
}


@pytest.mark.parametrize("part", PARTS)
def test_without_a_part_a_question_is_stuck_for_ever(part: str):
    assert stuck(400, **PARTS[part]) > 0


def test_runs_one_after_the_other_may_go_by_the_order_in_which_a_site_was_asked():
    assert stuck(400, replace(RULES, newest=asked_last), at_once=1) == 0


def test_a_site_notes_a_question_before_it_reads_the_lists_of_its_answer():
    """Else a list of an earlier run comes while the site trains, and the server knows nothing of it."""
    for rules, opened in ((replace(RULES, notes_first=False), 4), (RULES, 7)):
        history = History(7, random.Random(0), rules)
        scene, first, second = history.scene, Exchange(1, 0, "train", 1), Exchange(2, 0, "train", 1)
        scene.enter(1, scene.all)
        scene.train(first, ASKED, scene.all[:6])
        scene.enter(2, scene.all)
        for name in scene.all[:3]:
            scene.sites[name].training = partial(scene.confirm, first, scene.all[:6], [name])
        scene.train(second, ASKED)
        assert scene.unmask(second, scene.all) == opened
        history.runs = 2
        end = history.last()
        assert end == (frozenset(scene.all) if opened == 7 else Refusal("lists-apart", had=7))


@pytest.mark.parametrize("size", [4, 7, 10])
def test_a_run_names_a_listed_site_that_left_for_good(size: int):
    history = History(size, random.Random(0))
    assert history.last() == frozenset(history.scene.sites)
    assert history.last(without=["a01"]) == Refusal("list-site-gone", sites="a01")
    assert history.last() == frozenset(history.scene.sites)  # once it is back
    history = History(size, random.Random(0), lifted=["a01"])
    history.last()
    assert history.last(without=["a01"]) == frozenset(history.scene.sites) - {"a01"}


def lists_as_named(answered, **facts):
    """Choose no part of a list."""
    chosen = written.choose_list(answered, **facts)
    named = [one for lists in answered.values() for one in lists]
    return chosen if not named or chosen in named else Refusal("lists-apart", had=len(answered))


def test_a_lifted_site_may_leave_where_another_has_come_back():
    for rules, size in ((RULES, 5), (replace(RULES, choose_list=lists_as_named), 0)):
        history = History(7, random.Random(0), rules, lifted=["a01"])
        assert len(history.last(without=["a06"])) == 6
        end = history.last(without=["a01"])
        assert len(end) == 5 if size else isinstance(end, str)


def test_a_lifted_site_leaves_after_any_history_where_enough_others_are_listed():
    went_on = 0
    for history in histories(300, lifted=["a01"]):
        end = history.last(without=["a01"])
        went_on += isinstance(end, frozenset)
        if isinstance(end, str):
            listed = history.last()
            assert "a01" in listed and len(listed) == history.least or history.least == len(history.scene.sites)
    assert went_on > 150
