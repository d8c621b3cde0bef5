"""Engine on Ray, by Flower's own simulation.

It runs the same apps on many cores, with the extra `flfed[ray]`.

`run_simulation` is deprecated, and its notice accepted here: its replacement leaves a daemon running.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import signal
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from queue import Empty, Queue
from typing import Any

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from flfed.errors import require_extra
from flfed.federation.client.client import SiteClient
from flfed.federation.client.redaction import SITE_ERROR
from flfed.federation.engines.engine import Engine, RunConfig, RunResources, RunSites, StartedGrid, silence_flower
from flfed.federation.engines.inprocess import new_message
from flfed.flower_names import telemetry
from flfed.refusals import Refusal
from flfed.rows.data.site import Site
from flfed.rows.warm_start import Source
from flfed.words import flfed_error, usage_error

POLL_SECONDS = 0.02
"""How often the grid looks for replies; Flower's own side of it polls every 0.1 s."""
PATIENCE_SECONDS = 5.0
"""How long Flower's side may take to end by itself; it looks once a second."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else Flower's threads would start another Ray once ours has ended
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Set while Ray starts, for its processes: no reports to others, one thread a process."""


def require() -> None:
    """Refuse to continue without Ray.

    Raises
    ------
    UsageError
        If the extra is not installed, or Ray is in use in this process already.
    """
    require_extra("ray", "engine 'ray'", "ray")
    loaded = sys.modules.get("ray")
    if loaded is not None and loaded.is_initialized():
        raise usage_error("run.ray.started")


class Ray(Engine):
    """Engine with a process a core.

    No process has every table.
    """

    name = "ray"
    audited_by = "inprocess"

    def require(self) -> None:
        """Refuse to continue without Ray.

        See `require`.
        """
        require()

    @contextmanager
    def started(self, sites: RunSites, run_config: RunConfig, resources: RunResources) -> Iterator[StartedGrid]:
        """Yield the grid, without tables.

        See `Engine.started`.
        """
        here = [site for site in sites if isinstance(site, Site)]
        with simulated(here, run_config, resources.source) as grid:
            yield grid, None


@contextmanager
def simulated(sites: Sequence[Site], run_config: RunConfig, source: Source | None) -> Iterator[Grid]:
    """Run Flower's simulation on Ray and yield its grid.

    Both end with the block.

    Partition i is the i-th site in name order. The caller conducts its run over the grid in its
    own thread, so that its errors, and Ctrl-C, are its own.

    Parameters
    ----------
    sites : sequence of Site
    run_config : mapping of str to scalar
        Content of every node's context: the study, the repeat.
    source : Source or None
        The earlier run's model that the study begins from.

    Raises
    ------
    UsageError
        As `require` does.
    FlfedError
        If Ray cannot be started, or ends in the middle of the run.
    """
    require()
    ordered = tuple(sorted(sites, key=lambda site: site.name))
    handed = Queue[Grid]()
    over = threading.Event()
    server = ServerApp()

    # Flower runs this in its own thread, which waits while the caller uses the grid.
    @server.main()
    def hand_over(grid: Grid, context: Context) -> None:
        handed.put(grid)
        over.wait()

    with _quiet(), _ray(), ThreadPoolExecutor(1, "flower") as executor:
        from flwr.simulation import run_simulation

        names = tuple(site.name for site in ordered)
        nodes = Nodes(uuid.uuid4().hex, names, dict(run_config), *_put(ordered, source))
        simulation = executor.submit(
            run_simulation, server, NodeApp(nodes), len(ordered), backend_config={"client_resources": {"num_cpus": 1}}
        )
        try:
            yield RayGrid(handed, simulation, len(ordered))
        finally:
            over.set()
            # A site may compute for hours: after an error nothing waits for it.
            if not wait([simulation], timeout=PATIENCE_SECONDS).done:
                _stop_computing()


def _put(sites: Sequence[Site], source: Source | None) -> tuple[Any, Any]:
    """Send the sites to Ray's processes.

    An error names a site with contents that cannot be sent.
    """
    import ray

    dumps: Callable[[Any], bytes] = ray.cloudpickle.dumps
    for site in sites:
        try:
            dumps(site)
        except (pickle.PicklingError, TypeError, AttributeError):
            raise usage_error("run.ray.contents", site=site.name) from None
    return ray.put(list(sites)), ray.put(source)


@dataclass(frozen=True)
class Nodes:
    """Configuration of every node of one simulation.

    Two are equal if their keys are.

    Attributes
    ----------
    key : str
    names : tuple of str
        Sites by partition.
    run_config : dict of str to scalar
    sites : Ray reference to a tuple of Site
        Fetched once a process: a site may have its table in it.
    source : Ray reference to a Source or None
        Start model of the study; fetched once a process.
    """

    key: str
    names: tuple[str, ...] = field(compare=False)
    run_config: dict[str, bool | float | int | str] = field(compare=False)
    sites: Any = field(compare=False)
    source: Any = field(compare=False)


class NodeApp(ClientApp):
    """Client app with its partition's site.

    It is the client app of every engine.

    Parameters
    ----------
    nodes : Nodes
    """

    def __init__(self, nodes: Nodes) -> None:
        super().__init__()
        self._nodes = nodes

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the site of this node's partition."""
        nodes = self._nodes
        seen = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config={"site": nodes.names[int(context.node_config["partition-id"])]},
            state=context.state,
            run_config=dict(nodes.run_config),
        )
        return _app(nodes)(message, seen)


@cache
def _app(nodes: Nodes) -> ClientApp:
    """Return the client app of this process.

    Tables are read once, and not once a message.
    """
    import ray

    torch.set_num_threads(1)
    by_name = {site.name: site for site in ray.get(nodes.sites)}
    source = ray.get(nodes.source)
    return SiteClient(lambda name, _: by_name[name], source=lambda study: source).app()


class RayGrid(Grid):
    """Flower's grid of a simulation.

    It raises an error when the simulation has ended.

    Parameters
    ----------
    handed : queue that Flower's grid comes through
    simulation : future
        Done when the simulation has ended.
    nodes : int
        Number of nodes to wait for.
    """

    def __init__(self, handed: Queue[Grid], simulation: Future[None], nodes: int) -> None:
        self._handed = handed
        self._simulation = simulation
        self._nodes = nodes
        self._grid: Grid | None = None

    def _flower(self) -> Grid:
        """Return Flower's grid once all nodes are there."""
        while self._grid is None:
            self._alive()
            try:
                self._grid = self._handed.get(timeout=POLL_SECONDS)
            except Empty:
                continue
        while len(list(self._grid.get_node_ids())) < self._nodes:
            self._alive()
            time.sleep(POLL_SECONDS)
        return self._grid

    def _alive(self) -> None:
        if self._simulation.done():
            error = self._simulation.exception()
            what = type(error.__cause__ or error).__name__ if error else "it ended early"
            raise flfed_error("run.ray.ended", why=what)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes.

        It waits until they are there.
        """
        return self._flower().get_node_ids()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return the replies that came within `timeout` seconds."""
        grid = self._flower()
        began = time.monotonic()
        waiting = set(grid.push_messages(messages))
        replies = list[Message]()
        # Each wait is short, so that the end of the simulation is noticed.
        while waiting and (timeout is None or time.monotonic() - began < timeout):
            self._alive()
            batch = list(grid.pull_messages(waiting))
            waiting -= {message.metadata.reply_to_message_id for message in batch}
            replies += [_remove_trace(message) for message in batch]
            if not batch:
                time.sleep(POLL_SECONDS)
        return replies

    create_message = new_message

    def set_run(self, run: Any) -> None:
        """Refuse any run but the simulation's own."""
        raise RuntimeError("a simulation sets its run itself")

    @property
    def run(self) -> Any:
        """The simulation's run."""
        return self._flower().run

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages and return their ids."""
        return self._flower().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the available replies."""
        return self._flower().pull_messages(message_ids)


def _remove_trace(message: Message) -> Message:
    """Return a reply without Ray's error text.

    The client app's own text is unchanged. Ray quotes whole traces.
    """
    if message.has_error() and message.error.code != SITE_ERROR:
        message.error = Error(code=message.error.code, reason=str(Refusal("process-failed")))
    return message


@contextmanager
def _ray() -> Iterator[None]:
    """Start Ray and end it with the block.

    It has no dashboard, reports or logs, or joins the cluster of `RAY_ADDRESS`.
    """
    import ray
    from ray._private import worker

    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, logging_level=logging.CRITICAL, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise flfed_error("run.ray.failed", kind=type(error).__name__) from error
    # Ray would end the process at once, and the run's end would not be recorded.
    if callable(on_term) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)
    node: Any = worker._global_node  # mypy sees None, which Ray replaces when it starts
    started = [info.process for processes in node.all_processes.values() for info in processes]
    try:
        yield
    finally:
        ray.shutdown()
        for process in started:
            process.wait()
        gc.collect()  # while the warnings of unclosed files are silenced
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)


def _stop_computing() -> None:
    """End the processes of sites that still compute.

    After an error or Ctrl-C Flower would wait for them.

    Flower does not publish the handles, so Ray lists all that this run started.
    """
    import ray
    from ray._private import state, worker

    core: Any = worker.global_worker  # mypy sees no attribute that Ray sets when it connects
    # Any other error here means that Flower has ended Ray meanwhile.
    with suppress(AssertionError, AttributeError, RuntimeError, ray.exceptions.RayError):
        job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
        for actor in state.actors(job_id=job, actor_state_name="ALIVE"):
            core.core_worker.kill_actor(ray.ActorID.from_hex(actor), True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the logs and reports of Flower and Ray.

    The settings of the process are restored after the block.
    """
    before = dict(os.environ)
    reports = telemetry.FLWR_TELEMETRY_ENABLED
    telemetry.FLWR_TELEMETRY_ENABLED = "0"
    # Ray's processes can import the same modules as this one.
    os.environ.update(QUIET, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    try:
        with silence_flower(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="ray")
            # Ray leaves it to Python to close its files.
            warnings.filterwarnings("ignore", "unclosed file .*/dev/null", ResourceWarning)
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        telemetry.FLWR_TELEMETRY_ENABLED = reports
