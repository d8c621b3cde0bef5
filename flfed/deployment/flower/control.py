"""Client of Flower's control interface, and the server task of a run.

The coordinator manages nodes and runs by it; its process acquires and conducts a run's task itself.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

import httpx

from flfed import flower_names
from flfed.deployment.bundle import bundle
from flfed.deployment.flower.link import TIMEOUT_SECONDS, Link, Node
from flfed.errors import FlfedError
from flfed.files import locked
from flfed.flower_names import ask, check_names
from flfed.paths import CoordinatorFolder
from flfed.words import flfed_error, render, usage_error

RUNS_AT_ONCE = 1000
FINISHED = "finished"


class Control:
    """Requests of the coordinator to the running SuperLink.

    Parameters
    ----------
    link : Link
    timeout : float, seconds
        For one reply.

    Raises
    ------
    FlfedError
        From every method: if the server does not answer, or refuses.
    """

    def __init__(self, link: Link, *, timeout: float = TIMEOUT_SECONDS) -> None:
        check_names("coordinator")
        self._link = link
        self._timeout = timeout
        self._flower = link.control(timeout=timeout)

    def __enter__(self) -> Self:
        """Return the control, to be closed after the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._flower.close()

    def check_lock(self) -> None:
        """Refuse a server without its lock.

        Such a server answers callers without the secret: see `superlink`.

        Raises
        ------
        NotLocked
            If it answers.
        """
        # Asked without the secret, as a stranger would: only a refusal proves that the lock works.
        stranger = self._link.control(timeout=self._timeout, with_secret=False)
        try:
            ask(stranger.ListNodes)
        except httpx.HTTPError as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.FORBIDDEN:
                return
            raise flfed_error("coordinator.server.silent") from None
        finally:
            stranger.close()
        raise NotLocked(render("coordinator.server.unlocked"))

    def nodes(self) -> dict[bytes, Node]:
        """Return every node ever registered, by its key."""
        with in_words():
            node_infos = ask(self._flower.ListNodes).nodes_info
        return {info.public_key: Node.of(info) for info in node_infos}

    def register(self, site: str, public_key: bytes) -> int:
        """Register a node's key and return its number.

        The number is returned also where the key is registered already.
        """
        try:
            with in_words():
                return ask(self._flower.RegisterNode, public_key=public_key, name=site[:32]).node_id
        except Refused as error:
            if error.code != flower_names.KEY_IN_USE:
                raise
        # The key is registered already: it may be in use, which is fine, or have been cut off for good.
        node = self.nodes().get(public_key)
        if node is None or node.status == "unregistered":
            raise usage_error("coordinator.admission.burnt", site=site)
        return node.node_id

    def unregister(self, node_id: int) -> None:
        """Cut a node off for good.

        Its key is refused from now on.
        """
        with in_words():
            ask(self._flower.UnregisterNode, node_id=node_id)

    def start_run(self, run_config: Mapping[str, bool | float | int | str]) -> int:
        """Start a run of flfed's bundle.

        Return its number in Flower.
        """
        fab = {"hash_str": hashlib.sha256(bundle()).hexdigest(), "content": bundle()}
        config = flower_names.user_config_to_proto(dict(run_config))
        with in_words():
            return ask(self._flower.StartRun, fab=fab, override_config=config, federation="", app_spec="").run_id

    def stop_run(self, run: int) -> None:
        """Stop a run in progress."""
        with in_words():
            ask(self._flower.StopRun, run_id=run)

    def unfinished(self) -> set[int]:
        """Return the numbers of the unfinished runs."""
        return {number for number, status in self._runs().items() if status != FINISHED}

    def over(self) -> set[int]:
        """Return the numbers of the runs that are over."""
        return {number for number, status in self._runs().items() if status == FINISHED}

    def _runs(self) -> dict[int, str]:
        status_by_run: dict[int, str] = {}
        for skip in range(0, 100 * RUNS_AT_ONCE, RUNS_AT_ONCE):
            with in_words():
                page = ask(self._flower.ListRuns, limit=RUNS_AT_ONCE, skip=skip).run_dict
            status_by_run |= {number: run.status.status for number, run in page.items()}
            # A page that is not full is the last one.
            if len(page) < RUNS_AT_ONCE:
                return status_by_run
        raise flfed_error("coordinator.server.full")


class NotLocked(FlfedError):
    """A SuperLink that obeys any caller."""


class Refused(FlfedError):
    """An error answer of the SuperLink.

    `code` is Flower's own.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


@contextmanager
def in_words() -> Iterator[None]:
    """Turn errors of Flower's client into sentences."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        flower_error = flower_names.FlowerError.from_json(error.response.text)
        # A refusal without Flower's own error comes from a lock with another secret.
        if status in (httpx.codes.FORBIDDEN, httpx.codes.UNAUTHORIZED) and flower_error is None:
            raise flfed_error("coordinator.server.stranger") from None
        if flower_error is None:
            raise Refused(render("coordinator.server.refused", why=f"status {status}"), 0) from None
        raise Refused(render("coordinator.server.refused", why=flower_error.message), flower_error.code) from None
    except httpx.HTTPError:
        raise flfed_error("coordinator.server.silent") from None


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
        Shows the server who has the task; it is in no command line and no file.
    """

    def __init__(self, link: Link, run: int, token: str) -> None:
        self.link = link
        self.run = run
        self._token = token
        self.client = self.runtime()

    def runtime(self) -> flower_names.RuntimeHttpClient:
        """Return a client with the token of this task."""
        return self.link.runtime("flwr-serverapp", flower_names.RuntimeTokenHttpInterceptor(self._token))

    def begin(self) -> Any:
        """Begin the task and return its run."""
        with translate_errors():
            task_input = ask(self.client.PullTaskInput)
        # Flower builds messages only where these are set.
        flower_names.TaskIdentity.task_id = task_input.task_id
        flower_names.TaskIdentity.run_id = task_input.run.run_id
        flower_names.TaskIdentity.node_id = task_input.context.node_id
        return flower_names.run_from_proto(task_input.run)

    def end(self, failure: str = "") -> None:
        """Report to Flower that the run is completed, or why it failed.

        Flower stores nothing else of the run.
        """
        status = flower_names.FAILED if failure else flower_names.COMPLETED
        with translate_errors():
            ask(self.client.PushTaskOutput, sub_status=status, details=failure)

    def close(self) -> None:
        """Close the connection."""
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
    # Flower hands tasks to any caller; under the lock the only other tasks are of processes that died.
    with locked(folder.server):
        run = control.start_run(config)
        acquiring = link.acquiring()
        end = time.monotonic() + START_SECONDS
        try:
            while time.monotonic() < end:
                with translate_errors():
                    response = ask(acquiring.AcquireTask, supported_task_types=["flwr-serverapp"])
                if not (response.HasField("task") and response.token):
                    time.sleep(0.05)
                    continue
                task = ServerTask(link, response.task.run_id, response.token)
                # A task of another run is a leftover: it is ended, and the next one is requested.
                if task.run == run:
                    return task
                _end_stray(task)
        finally:
            acquiring.close()
        # Without a task no process would ever end the run.
        with suppress(FlfedError):
            control.stop_run(run)
        raise flfed_error("coordinator.server.taskless")


def _end_stray(task: ServerTask) -> None:
    try:
        # Flower ends only a task that was begun.
        with suppress(FlfedError), translate_errors():
            ask(task.client.PullTaskInput)
        task.end("its coordinator's process died")
    finally:
        task.close()


class Heartbeat:
    """Heartbeat of a run's server task.

    A thread reports to the server that the run is active, and notices when the server has ended it.

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
            raise flfed_error("run.stops.server")

    def _beat(self) -> None:
        while not self._over.is_set():
            try:
                self._ended |= not ask(self._client.SendTaskHeartbeat).success
            except httpx.HTTPStatusError as error:
                # A refusal means that the task is gone; all other errors may be temporary.
                self._ended |= error.response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
            except httpx.TransportError:
                pass  # the grid reports it, if it lasts
            self._over.wait(HEARTBEAT_SECONDS)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn errors of Flower's clients into sentences."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        raise flfed_error("run.stops.refused", status=error.response.status_code) from None
    except httpx.HTTPError:
        raise flfed_error("coordinator.server.silent") from None
