"""Server task of a run in Flower.

The coordinator's process acquires and conducts it itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from flfed.deployment.flower.control import Control
from flfed.deployment.flower.link import NOT_SERVING, Link
from flfed.errors import FlfedError
from flfed.files import locked
from flfed.flower_names import FAILED, RuntimeHttpClient, RuntimeTokenHttpInterceptor, TaskIdentity, ask, run_from_proto
from flfed.folders import CoordinatorFolder

HEARTBEAT_SECONDS = 10.0
START_SECONDS = 30.0


class ServerTask:
    """An acquired server task of one run.

    Parameters
    ----------
    link : Link
    run : int
        Flower's number of it.
    token : str
        By which the server knows who has the task; it stands in no command line and no file.
    """

    def __init__(self, link: Link, run: int, token: str) -> None:
        self.link = link
        self.run = run
        self._token = token
        self.client = self.runtime()

    def runtime(self) -> RuntimeHttpClient:
        """Return a client that speaks for this task."""
        return self.link.runtime("flwr-serverapp", RuntimeTokenHttpInterceptor(self._token))

    def begin(self) -> Any:
        """Begin the task and return its run."""
        with said():
            found = ask(self.client.PullTaskInput)
        # Flower builds messages only where these are set.
        TaskIdentity.task_id, TaskIdentity.run_id = found.task_id, found.run.run_id
        TaskIdentity.node_id = found.context.node_id
        return run_from_proto(found.run)

    def end(self, status: str, details: str) -> None:
        """Report to Flower how the run ended.

        Flower keeps nothing else of the run.
        """
        with said():
            ask(self.client.PushTaskOutput, sub_status=status, details=details)

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()


def acquired(
    folder: CoordinatorFolder, link: Link, control: Control, config: Mapping[str, bool | float | int | str]
) -> ServerTask:
    """Start a run and acquire its task.

    A run that a dead process left behind is ended first.

    Parameters
    ----------
    folder : CoordinatorFolder
        One process at a time does this.
    link : Link
    control : Control
    config : mapping of str to scalar
        The run config.

    Raises
    ------
    FlfedError
        If the server does not answer, or gives no task.
    """
    # Flower hands tasks to whoever asks; under the lock the only other ones are of processes that died.
    with locked(folder.server):
        run = control.start_run(config)
        acquiring, end = link.acquiring(), time.monotonic() + START_SECONDS
        try:
            while time.monotonic() < end:
                with said():
                    found = ask(acquiring.AcquireTask, supported_task_types=["flwr-serverapp"])
                if not (found.HasField("task") and found.token):
                    time.sleep(0.05)
                    continue
                task = ServerTask(link, found.task.run_id, found.token)
                # A task of another run was left behind: it is ended, and the next one is asked for.
                if task.run == run:
                    return task
                _end_stray(task)
        finally:
            acquiring.close()
        # Without a task nobody would ever end the run.
        with suppress(FlfedError):
            control.stop_run(run)
        raise FlfedError("the server gave no task for the run: stop and start flfed coordinator serve")


def _end_stray(task: ServerTask) -> None:
    try:
        # Flower ends only a task that was begun.
        with suppress(FlfedError), said():
            ask(task.client.PullTaskInput)
        task.end(FAILED, "its coordinator's process died")
    finally:
        task.close()


class Heartbeat:
    """Heartbeat of a run's server task.

    A thread tells the server that the run is active, and notices when the server has ended it.

    Parameters
    ----------
    task : ServerTask
    """

    def __init__(self, task: ServerTask) -> None:
        self._client = task.runtime()
        self._over = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._over.set()
        self._thread.join()
        self._client.close()

    def check(self) -> None:
        """Raise where the run has been ended."""
        if self._ended:
            raise FlfedError("the run was ended at the server: by flfed, by hand, or because it was away too long")

    def _beat(self) -> None:
        while not self._over.is_set():
            try:
                self._ended |= not ask(self._client.SendTaskHeartbeat).success
            except httpx.HTTPStatusError as error:
                # A refusal means that the task is gone; all other errors may pass.
                self._ended |= error.response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
            except httpx.TransportError:
                pass  # the grid says so, if it lasts
            self._over.wait(HEARTBEAT_SECONDS)


@contextmanager
def said() -> Iterator[None]:
    """Turn errors of Flower's clients into sentences."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise FlfedError(f"the server refuses the run (status {status}): it was ended there") from None
    except httpx.HTTPError:
        raise FlfedError(NOT_SERVING) from None
