"""The engine of real institutions: a grid to the nodes of the sites that take part, over the running SuperLink.

The coordinator's own process conducts the run: it acquires the server's task, which Flower would have
started a process for, so that no code of a bundle is executed anywhere.

Private name of Flower: `SubStatus`. Those of its tasks are in `coordinator/server_task.py`, of the grid in
`deployed_grid.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from flwr.common.constant import SubStatus
from flwr.serverapp import Grid

from flfed.deployment.coordinator import admission
from flfed.deployment.flower.control import Control, Link, database, pem_of
from flfed.deployment.flower.grid import DeployedGrid
from flfed.deployment.flower.message_purge import remove_bodies
from flfed.deployment.flower.questions import REPEATED_SECONDS, Tell, given_up, silent
from flfed.deployment.flower.run_task import Heartbeat, acquired
from flfed.errors import FlfedError, UsageError
from flfed.folders import CoordinatorFolder

WAIT_SECONDS = 90.0
"""How long sites are waited for: longer than the minute for which Flower refuses a node that comes back."""
LEAST_SITES = 2


@contextmanager
def deployed(
    folder: CoordinatorFolder,
    sites: Sequence[str],
    run_config: Mapping[str, bool | float | int | str],
    *,
    wait_seconds: float = WAIT_SECONDS,
    told: Tell = silent,
) -> Iterator[Grid]:
    """Start a run in Flower and give a grid to the nodes of `sites`; end the run, whatever happens.

    Parameters
    ----------
    folder : CoordinatorFolder
        Of the coordinator, which serves.
    sites : sequence of str
        Names of the sites that are asked; each must be admitted.
    run_config : mapping of str to scalar
        The study, the repeat, the run's id; which sites are there is added.
    wait_seconds : float
        How long to wait for them. A site that is not there by then is asked all the same, so that
        the record says that its node is not online; with fewer than two there is no run.
    told : callable
        Told who is waited for, and who is missing.

    Raises
    ------
    UsageError
        If a site is not admitted.
    FlfedError
        If the coordinator does not serve, too few sites are there, or the server goes away in the middle
        of the run.
    """
    keys = _keys(folder, sites)
    for damaged in admission.readable(folder)[1]:
        told(damaged)
    link = Link.of(folder)
    with _quiet(), Control(link) as control:
        names, missing = _present(control, keys, wait_seconds, told)
        # A site counts its cohort by these: one that is not there is none of it.
        there = ",".join(sorted(set(sites) - set(missing)))
        task = acquired(folder, link, control, {**run_config, "sites": there})
        try:
            with Heartbeat(task) as heartbeat:
                grid = DeployedGrid(
                    task.runtime,
                    names,
                    heartbeat.check,
                    online=partial(_online, control),
                    told=told,
                )
                try:
                    grid.set_run(task.begin())
                    yield grid
                except BaseException:
                    with suppress(FlfedError):  # the first error is what counts
                        task.end(SubStatus.FAILED, "the coordinator's process ended it early")
                    raise
                finally:
                    grid.close()
                task.end(SubStatus.COMPLETED, "")
        finally:
            task.close()
            _purge(folder, control, task.run, told)


def _keys(folder: CoordinatorFolder, sites: Sequence[str]) -> dict[bytes, str]:
    """Return the asked sites by the key that each was admitted with."""
    admitted = admission.admitted(folder)
    strangers = sorted(set(sites) - set(admitted))
    if strangers:
        known = ", ".join(admitted) or "none"
        raise UsageError(f"not admitted: {', '.join(strangers)}; admitted are: {known} (flfed coordinator status)")
    return {pem_of(admitted[site].public_key_openssh): site for site in sorted(set(sites))}


def _present(
    control: Control, keys: Mapping[bytes, str], seconds: float, told: Tell
) -> tuple[dict[int, str], list[str]]:
    """Wait until the sites are online; return each node's site, and which sites are not there."""
    end, said, due = time.monotonic() + seconds, list[str](), 0.0
    while True:
        nodes = control.nodes()
        known = {key: nodes[key] for key in keys if key in nodes and nodes[key].status != "unregistered"}
        missing = [site for key, site in keys.items() if key not in known or not known[key].online_since]
        if not missing or time.monotonic() >= end:
            break
        if missing != said or time.monotonic() >= due:
            there = ", ".join(site for site in keys.values() if site not in missing) or "nobody yet"
            until = given_up(end - time.monotonic())
            told(f"waiting for {', '.join(missing)} to come online; online: {there}; {until}")
            said, due = missing, time.monotonic() + REPEATED_SECONDS
        time.sleep(min(0.5, max(0.0, end - time.monotonic())))
    if len(keys) - len(missing) < min(LEAST_SITES, len(keys)):
        raise FlfedError(
            f"not online: {', '.join(missing)}; at least {LEAST_SITES} sites are needed. "
            "Each starts its node with: flfed site serve"
        )
    unknown = [site for key, site in keys.items() if key not in known]
    if unknown:
        raise FlfedError(f"not registered at the server yet: {', '.join(unknown)}; see: flfed coordinator status")
    if missing:
        told(f"without {', '.join(missing)}: not online")
    elif said:
        told("")
    return {node.node_id: keys[key] for key, node in known.items()}, missing


def _online(control: Control) -> dict[int, str]:
    """Return the nodes that may connect, each with since when it is online."""
    nodes = control.nodes().values()
    return {node.node_id: node.online_since for node in nodes if node.status != "unregistered"}


def _purge(folder: CoordinatorFolder, control: Control, run: int, told: Tell) -> None:
    """Remove what the messages of this run said, and of every other that is over, from Flower's database.

    Where that fails the run has ended as it has: who serves tries again each minute, and says so.
    """
    over = {run}
    with suppress(FlfedError):  # the server is away: the others are removed when it is there again
        over |= control.over()
    try:
        remove_bodies(database(folder), over=over)
    except FlfedError as error:
        told(str(error))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Flower's log: what a person must know is said by us."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
