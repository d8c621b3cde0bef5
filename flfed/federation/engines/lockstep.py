"""Federations side by side on one engine.

It computes for all their sites together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from copy import copy
from itertools import islice
from typing import Any, Generic, TypeVar

from flfed.callbacks import Clock, Progress
from flfed.rows.training.requests import Compute, Request
from flfed.words import render

Done = TypeVar("Done")
Task = Callable[[Compute], Done]
"""A federation: it gets the function that answers its requests, and runs to its end."""
ROWS_AT_ONCE = 500_000
"""Rows of all sites that federations side by side may have open at a time: about half a kilobyte each."""


def side_by_side(tasks: Sequence[Task[Done]], answer: Compute) -> list[Done | BaseException]:
    """Run tasks and return their outcomes in order.

    An outcome is what the task returned or raised.

    Parameters
    ----------
    tasks : sequence of callables
        Each is called with the function that answers its requests. One runs at a time, so that they can share data
        without locks; after a request it waits until all others have one too, or have ended.
    answer : callable
        Gets the open requests of all tasks, in the order of the tasks.

    Raises
    ------
    KeyboardInterrupt
        Where a person interrupts, or a task raises it: every other task is interrupted where it waits, and may record
        how it ended. Errors of `answer` do the same.

    Notes
    -----
    Each task has a thread because Flower's strategies call their grid and wait. A thread's own work cannot be
    interrupted: it runs on until its next request.
    """
    steps = [_Step(task) for task in tasks]
    try:
        waiting = _after_a_turn(steps)
        while waiting:
            _answer(waiting, answer)
            waiting = _after_a_turn(waiting)
    except BaseException as error:
        # The task whose turn it is comes first: else two would run at a time.
        for step in sorted(steps, key=lambda step: not step.running):
            step.end(error)
        raise
    return [step.outcome for step in steps]


def _after_a_turn(steps: Sequence[_Step[Any]]) -> list[_Step[Any]]:
    """Run each task until its next request or its end.

    They run one after the other. Return those with a request.
    """
    for step in steps:
        step.go_on()
        # Ctrl-C in one task is meant for all of them.
        if isinstance(step.outcome, KeyboardInterrupt):
            raise step.outcome
    return [step for step in steps if not step.over]


def _answer(waiting: Sequence[_Step[Any]], answer: Compute) -> None:
    """Answer the requests of all tasks.

    Each gets its own results.
    """
    # All requests go in one call, so that the engine may stack them.
    requests = [request for step in waiting for request in step.requests]
    results = iter(zip(requests, answer(requests), strict=True))
    for step in waiting:
        step.results = [result for _, result in islice(results, len(step.requests))]
    # strict: missing or surplus results are detected here, and not at another task.
    next(results, None)


class _Step(Generic[Done]):
    """Task in its own thread.

    It runs only while it is its turn.
    """

    def __init__(self, task: Task[Done]) -> None:
        self.requests: Sequence[Request] = ()
        self.results: Sequence[Any] = ()
        self.over = self.running = False
        self.outcome: Done | BaseException = RuntimeError("the task did not end")
        self._task = task
        self._error: BaseException | None = None
        self._mine = threading.Semaphore(0)
        self._theirs = threading.Semaphore(0)
        # A daemon: a second Ctrl-C ends the process, whatever a task does.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def go_on(self) -> None:
        """Run the task until its next request or its end."""
        self.running = True
        if self._thread.ident is None:
            self._thread.start()
        # The turn goes over to the task's thread, and this one sleeps until it is back.
        self._mine.release()
        self._theirs.acquire()
        self.running = False

    def end(self, error: BaseException) -> None:
        """Raise an error in the task and wait.

        It is raised at the task's open request. A task that has not begun never begins.
        """
        self._error = error
        if self._thread.ident is not None:
            self._mine.release()
            self._thread.join()

    def _run(self) -> None:
        self._mine.acquire()
        try:
            if self._error is None:
                self.outcome = self._task(self._ask)
        except BaseException as error:  # noqa: BLE001 - passed to the thread that waits for the task
            self.outcome = error
        self.over = True
        self._theirs.release()

    def _ask(self, requests: Sequence[Request]) -> Sequence[Any]:
        """Hand over requests and return their results.

        The task waits for its turn in between.
        """
        # After an error there are no more requests, so that the task ends soon.
        if self._error is None:
            self.requests = requests
            self._theirs.release()
            self._mine.acquire()
        if self._error is not None:
            # A copy each: additions of other tasks to their error do not concern this one.
            raise copy(self._error)
        return self.results


class SharedTime:
    """Time account of tasks side by side.

    Each has its own turns, and an even share of the common computations.

    So the seconds of the tasks add up to those that passed, and are a fair charge for a task. That each took as long
    as all of them together would be true and of no use.

    Parameters
    ----------
    answer : callable
        The function for `side_by_side`; its time is shared by the tasks with requests.
    clock : callable
        Seconds; tests pass their own.
    """

    def __init__(self, answer: Compute, clock: Clock = time.monotonic) -> None:
        self._answer = answer
        self.clock = clock
        self.asking: list[OwnTime] = []

    def answer(self, requests: Sequence[Request]) -> Sequence[Any]:
        """Answer requests and charge their tasks."""
        began = self.clock()
        try:
            return self._answer(requests)
        # Charged also where the computation fails, since the time has passed.
        finally:
            share = (self.clock() - began) / max(1, len(self.asking))
            for own in self.asking:
                own.spent += share
            self.asking.clear()


class OwnTime:
    """Clock of one task.

    It counts the seconds of the task itself.

    Parameters
    ----------
    shared : SharedTime
    """

    def __init__(self, shared: SharedTime) -> None:
        self._shared = shared
        self.spent = 0.0
        self._since = shared.clock()

    def __call__(self) -> float:
        """Return the seconds so far.

        The task itself calls it, in its turn.
        """
        return self.spent + self._shared.clock() - self._since

    def stopped_while(self, answer: Compute) -> Compute:
        """Return `answer` with the clock stopped."""

        # The time until now is the task's own; the waiting is shared.
        def asking(requests: Sequence[Request]) -> Sequence[Any]:
            self.spent = self()
            self._shared.asking.append(self)
            try:
                return answer(requests)
            finally:
                self._since = self._shared.clock()

        return asking


class Slowest:
    """Progress of the slowest of several repeats.

    They run side by side, and those that ended do not count.

    Parameters
    ----------
    progress : callable
    repeats : collection of int
    """

    def __init__(self, progress: Progress, repeats: Collection[int]) -> None:
        self._progress = progress
        self._going = set(repeats)
        self._repeats = len(repeats)
        self._done_by_stage: dict[str, dict[int, int]] = {}
        self._shown_by_stage: dict[str, tuple[int, int]] = {}

    def of(self, repeat: int) -> Progress:
        """Return the progress callable of one repeat."""

        def report(stage: str, done: int, of: int) -> None:
            self._done_by_stage.setdefault(stage, {})[repeat] = done
            self._report(stage, of)

        return report

    def over(self, repeat: int) -> None:
        """Remove a repeat that has ended."""
        self._going.discard(repeat)
        for stage, (_, of) in list(self._shown_by_stage.items()):
            self._report(stage, of)

    def _report(self, stage: str, of: int) -> None:
        done_by_repeat = self._done_by_stage[stage]
        before, _ = self._shown_by_stage.get(stage, (-1, of))
        # Until each repeat has reported this stage, the slowest of them is unknown.
        now = before
        if self._going and self._going <= done_by_repeat.keys():
            now = min(done_by_repeat[repeat] for repeat in self._going)
        self._shown_by_stage[stage] = (max(before, now), of)
        if now > before:
            # Else a person would expect as many rounds again for every repeat.
            if len(done_by_repeat) > 1:
                stage = render("run.progress.repeats", stage=stage, repeats=self._repeats)
            self._progress(stage, now, of)
