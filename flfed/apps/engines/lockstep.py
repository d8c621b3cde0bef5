"""Several federations side by side, so that one engine computes for all their sites together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from flfed.rows.training.requests import Answer, Request

Done = TypeVar("Done")
Task = Callable[[Answer], Done]
"""A federation: given what answers its requests, it runs to its end."""


def side_by_side(tasks: Sequence[Task[Done]], answer: Answer) -> list[Done | BaseException]:
    """Run tasks to their ends and return what each returned, or raised, in order.

    Parameters
    ----------
    tasks : sequence of callables
        Each is called with what answers its requests. One runs at a time, so that they share what
        they like without locks; where one asks, it waits until all others have asked or ended.
    answer : callable
        Is given what all tasks ask at a time, in the order of the tasks.

    Notes
    -----
    Each task has a thread because Flower's strategies call their grid and wait. Ctrl-C is raised in
    every task, which may write down how it ended, and then here.
    """
    steps = [_Step(task) for task in tasks]
    try:
        for step in steps:
            step.go_on()
        while waiting := [step for step in steps if not step.over]:
            results = iter(answer([request for step in waiting for request in step.asked]))
            for step in waiting:
                step.results = [next(results) for _ in step.asked]
            for step in waiting:
                step.go_on()
    except BaseException as error:
        for step in steps:
            step.end(error)
        raise
    return [step.outcome for step in steps]


class _Step(Generic[Done]):
    """One task in a thread of its own, which runs only while it is its turn."""

    def __init__(self, task: Task[Done]) -> None:
        self.asked: Sequence[Request] = ()
        self.results: Sequence[Any] = ()
        self.over = False
        self.outcome: Done | BaseException = RuntimeError("the task did not end")
        self._error: BaseException | None = None
        self._mine, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(task,), daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Let the task run until it asks or ends."""
        self._mine.release()
        self._theirs.acquire()

    def end(self, error: BaseException) -> None:
        """Raise an error in the task where it waits, until it has ended."""
        self._error = error
        while not self.over:
            self.go_on()

    def _run(self, task: Task[Done]) -> None:
        self._mine.acquire()
        try:
            if self._error is None:
                self.outcome = task(self._ask)
        except BaseException as error:  # noqa: BLE001 - handed to the one who waits for the task
            self.outcome = error
        self.over = True
        self._theirs.release()

    def _ask(self, requests: Sequence[Request]) -> Sequence[Any]:
        """Hand over what the task asks, wait for its turn, and return the results."""
        self.asked = requests
        self._theirs.release()
        self._mine.acquire()
        if self._error is not None:
            raise self._error
        return self.results
