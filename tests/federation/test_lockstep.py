"""Tasks side by side: each asks and is answered as if it were alone, whatever becomes of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from flfed.federation.engines.lockstep import OwnTime, SharedTime, Slowest, side_by_side

Ask = Callable[[Any], Any]


def doubled(requests: Any) -> list[int]:
    return [2 * request for request in requests]


def asking(*questions: list[int]) -> Callable[[Ask], list[list[int]]]:
    """Return a task that asks these questions and returns the answers."""
    return lambda ask: [list(ask(question)) for question in questions]


def test_each_task_gets_its_own_results_in_order_however_often_it_asks():
    asked: list[list[int]] = []

    def answer(requests: Any) -> list[int]:
        asked.append(list(requests))
        return doubled(requests)

    tasks = [asking([1, 2], [3]), asking(), asking([4], [5, 6], [], [7])]
    assert side_by_side(tasks, answer) == [[[2, 4], [6]], [], [[8], [10, 12], [], [14]]]
    assert asked == [[1, 2, 4], [3, 5, 6], [], [7]]
    assert side_by_side([], answer) == []


def test_an_error_in_one_task_is_its_outcome_and_the_others_go_on():
    def broken(ask: Ask) -> None:
        ask([1])
        raise ZeroDivisionError

    first, second = side_by_side([broken, asking([1], [2])], doubled)
    assert isinstance(first, ZeroDivisionError) and second == [[2], [4]]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("all"), RuntimeError("a bug")])
def test_what_ends_the_answering_is_raised_in_every_task_where_it_waits_and_then_here(error: BaseException):
    ended: list[tuple[int, BaseException]] = []

    def task(number: int) -> Callable[[Ask], None]:
        def go(ask: Ask) -> None:
            ask([number])
            try:
                ask([number])
            except BaseException as raised:
                ended.append((number, raised))
                raise

        return go

    def answer(requests: Any) -> list[int]:
        if ended or asked:
            raise error
        asked.append(1)
        return list(requests)

    asked: list[int] = []
    before = threading.active_count()
    with pytest.raises(type(error)):
        side_by_side([task(0), asking(), task(2)], answer)
    assert [number for number, _ in ended] == [0, 2] and threading.active_count() == before
    # Each has one of its own: a run writes its id into it.
    assert len({id(raised) for _, raised in ended} | {id(error)}) == 3


def test_an_interrupt_in_one_task_interrupts_the_others_and_those_not_begun_never_begin():
    seen: list[str] = []

    def waits(ask: Ask) -> None:
        try:
            ask([1])
        except KeyboardInterrupt:
            seen.append("interrupted")
            ask([2])  # one that asks on gets no answer

    def interrupts(ask: Ask) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side([waits, interrupts, lambda ask: seen.append("begun")], doubled)
    assert seen == ["interrupted"]


@pytest.mark.parametrize("wrong", [[], [1], [1, 2, 3]])
def test_results_that_are_too_few_or_too_many_reach_no_task(wrong: list[int]):
    reached: list[Any] = []
    tasks = [lambda ask: reached.append(ask([1])), lambda ask: reached.append(ask([2]))]
    with pytest.raises(ValueError, match="zip"):
        side_by_side(tasks, lambda requests: wrong)
    assert reached == []


def test_one_task_runs_at_a_time_and_with_one_torch_thread():
    torch.set_num_threads(1)
    inside: list[int] = []

    def task(ask: Ask) -> int:
        for _ in range(20):
            inside.append(1)
            assert len(inside) == 1
            inside.pop()
            ask([0])
        return torch.get_num_threads()

    assert side_by_side([task] * 5, doubled) == [1] * 5


def test_lockstep_within_lockstep_asks_for_all():
    sizes: list[int] = []

    def answer(requests: Any) -> list[int]:
        sizes.append(len(requests))
        return doubled(requests)

    inner = [asking([1], [2]), asking([3])]
    found = side_by_side([lambda ask: side_by_side(inner, ask), asking([4], [5])], answer)
    assert found == [[[[2], [4]], [[6]]], [[8], [10]]] and sizes == [3, 2]


def test_the_seconds_of_tasks_side_by_side_add_up_to_those_that_passed():
    now = [100.0]

    def passes(seconds: float) -> None:
        now[0] += seconds

    def answer(requests: Any) -> list[int]:
        passes(6.0)
        return list(requests)

    shared = SharedTime(answer, clock=lambda: now[0])

    def task(own_seconds: float, questions: int) -> Callable[[Ask], float]:
        def go(ask: Ask) -> float:
            own = OwnTime(shared)
            passes(own_seconds)
            for _ in range(questions):
                own.stopped_while(ask)([0])
                passes(own_seconds)
            return own()

        return go

    # 1 s + 6/2 + 1 s + 6 + 1 s, and 4 s + 6/2 + 4 s
    assert side_by_side([task(1.0, 2), task(4.0, 1)], shared.answer) == [12.0, 11.0]
    assert now[0] == 123.0


def test_progress_side_by_side_is_that_of_the_slowest_that_still_goes():
    steps: list[tuple[str, int, int]] = []
    several = Slowest(lambda *step: steps.append(step), [0, 1])
    first, second = several.of(0), several.of(1)
    first("rounds", 1, 5)
    second("rounds", 1, 5)
    first("rounds", 2, 5)
    first("rounds", 3, 5)
    second("rounds", 2, 5)
    several.over(1)  # it failed in round 3
    assert steps == [("rounds of 2 repeats", 1, 5), ("rounds of 2 repeats", 2, 5), ("rounds of 2 repeats", 3, 5)]
    first("compare", 0, 1)
    first("compare", 1, 1)
    several.over(0)
    assert steps[3:] == [("compare", 0, 1), ("compare", 1, 1)]
