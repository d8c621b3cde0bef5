"""The engine of real institutions.

It gives a grid to the nodes of the participating sites, over the running SuperLink.

The coordinator's own process conducts the run: it acquires the server's task, for which Flower would have started a
process. So no code of a bundle is executed anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from flwr.serverapp import Grid

from flfed.callbacks import Notify, silent
from flfed.deployment.coordinator import admission
from flfed.deployment.coordinator.ledger_heads import LedgerHeads
from flfed.deployment.flower.control import Control, Heartbeat, acquired
from flfed.deployment.flower.grid import REPEATED_SECONDS, DeployedGrid, describe_deadline
from flfed.deployment.flower.link import Link, Node, database, pem_of, remove_bodies
from flfed.deployment.model_signer import signer_here
from flfed.errors import FlfedError
from flfed.federation.engines.engine import (
    Engine,
    RemoteSite,
    RunConfig,
    RunResources,
    RunSites,
    SiteSelection,
    StartedGrid,
    silence_flower,
)
from flfed.federation.server.run_setting import LEAST_SITES
from flfed.paths import CoordinatorFolder
from flfed.signatures import Signer
from flfed.study.study import Study
from flfed.words import flfed_error, render, usage_error

WAIT_SECONDS = 90.0
"""How long a run waits for sites: above the minute for which Flower refuses a node that comes back."""


class Deployment(Engine):
    """Engine of real institutions.

    Their nodes are reached over the running SuperLink.
    """

    name = audited_by = "deployment"
    remote = True

    def sites(self, study: Study, selection: SiteSelection = None) -> Sequence[RemoteSite]:
        """Return the requested sites; see `admitted_sites`."""
        return admitted_sites(study, selection)

    @contextmanager
    def started(self, sites: RunSites, run_config: RunConfig, resources: RunResources) -> Iterator[StartedGrid]:
        """Give the grid, and no tables; as `Engine.started`."""
        names = [site.name for site in sites]
        with deployed(CoordinatorFolder.default(), names, run_config, notify=resources.show_activity) as grid:
            yield grid, None

    def signer(self) -> Signer | None:
        """Return this machine's coordinator."""
        return signer_here()


def admitted_sites(study: Study, selection: SiteSelection) -> list[RemoteSite]:
    """Return the sites of a deployment, in name order.

    They are those of the `selection`, else those that the study names, else all admitted ones.

    Raises
    ------
    UsageError
        If there are none, one is not admitted, or the study cuts its dataset itself.
    """
    if study.dataset.partition is not None:
        raise usage_error("coordinator.sites.partition")
    members = admission.admitted(CoordinatorFolder.default())
    wanted = selection if selection is not None else study.dataset.sites
    if wanted is None:
        wanted = list(members)
    names = sorted({str(getattr(site, "name", site)) for site in wanted})
    _check_admitted(names, members)
    if not names:
        raise usage_error("coordinator.sites.none")
    return [RemoteSite(name) for name in names]


@contextmanager
def deployed(
    folder: CoordinatorFolder,
    sites: Sequence[str],
    run_config: RunConfig,
    *,
    wait_seconds: float = WAIT_SECONDS,
    notify: Notify = silent,
) -> Iterator[Grid]:
    """Start a run in Flower and yield its grid.

    The grid reaches the nodes of `sites`. The run is ended whatever happens.

    Parameters
    ----------
    folder : CoordinatorFolder
        Of the coordinator that serves.
    sites : sequence of str
        Names of the requested sites; each must be admitted.
    run_config : mapping of str to scalar
        The study, the repeat, the run's id; the names of the sites that are online are added.
    wait_seconds : float
        How long to wait for the sites. A site that is still missing takes part all the same, so that the record
        shows that its node is not online. With fewer than two sites online there is no run.
    notify : callable
        Receives sentences about sites that are awaited or missing.

    Raises
    ------
    UsageError
        If a site is not admitted.
    FlfedError
        If the coordinator does not serve, too few sites are there, or the server goes away in the middle
        of the run.
    """
    keys = _keys(folder, sites)
    # A damaged admission is of a site without a request: it is reported, and the run goes on.
    for damaged in admission.readable(folder)[1]:
        notify(damaged)
    link = Link.of(folder)
    with silence_flower(), Control(link) as control:
        names, missing = _present(control, keys, wait_seconds, notify)
        # A site counts its cohort by these names: a site that is not online is no part of the cohort.
        there = ",".join(sorted(set(sites) - set(missing)))
        task = acquired(folder, link, control, {**run_config, "sites": there})
        try:
            with Heartbeat(task) as heartbeat:
                online = partial(_online, control)
                heads = LedgerHeads(folder)
                grid = DeployedGrid(task.runtime, names, heartbeat.check, online=online, notify=notify, heads=heads)
                try:
                    grid.set_run(task.begin())
                    yield grid
                except BaseException:
                    # Also an interruption from the keyboard ends the run in Flower: else nodes would go on working.
                    with suppress(FlfedError):  # the first error is the one that counts
                        task.end("the coordinator's process ended it early")
                    raise
                finally:
                    grid.close()
                task.end()
        finally:
            task.close()
            # Also messages of a run that failed are removed: the database holds them unencrypted.
            _purge(folder, control, task.run, notify)


def _keys(folder: CoordinatorFolder, sites: Sequence[str]) -> dict[bytes, str]:
    """Return the requested sites by their admitted keys."""
    members = admission.admitted(folder)
    _check_admitted(sites, members)
    return {pem_of(members[site].public_key): site for site in sorted(set(sites))}


def _check_admitted(sites: Collection[str], members: Collection[str]) -> None:
    # Every unknown name is listed at once, so that one correction is enough.
    strangers = ", ".join(sorted(set(sites) - set(members)))
    if strangers:
        names = ", ".join(members) or "none"
        raise usage_error("coordinator.sites.strangers", sites=strangers, admitted=names)


def _present(
    control: Control, keys: Mapping[bytes, str], seconds: float, notify: Notify
) -> tuple[dict[int, str], list[str]]:
    """Wait until the sites are online.

    Return each node's site, and the sites that are not there.
    """
    end = time.monotonic() + seconds
    last_missing = list[str]()
    due = 0.0
    active_nodes, missing = _looked(control, keys)
    while missing and time.monotonic() < end:
        # Report who is missing when that changes, and every so often, so that a person sees that it still waits.
        if missing != last_missing or time.monotonic() >= due:
            there = ", ".join(site for site in keys.values() if site not in missing) or render("run.progress.nobody")
            until = describe_deadline(end - time.monotonic())
            notify(render("run.progress.online", missing=", ".join(missing), online=there, deadline=until))
            last_missing = missing
            due = time.monotonic() + REPEATED_SECONDS
        time.sleep(min(0.5, max(0.0, end - time.monotonic())))
        active_nodes, missing = _looked(control, keys)
    _check_enough(keys, active_nodes, missing)
    if missing:
        notify(render("run.progress.offline", missing=", ".join(missing)))
    elif last_missing:
        notify("")
    return {node.node_id: keys[key] for key, node in active_nodes.items()}, missing


def _looked(control: Control, keys: Mapping[bytes, str]) -> tuple[dict[bytes, Node], list[str]]:
    """Return the nodes that may connect, and the sites that are not online."""
    nodes = control.nodes()
    active_nodes = {key: nodes[key] for key in keys if key in nodes and nodes[key].status != "unregistered"}
    return active_nodes, [
        site for key, site in keys.items() if key not in active_nodes or not active_nodes[key].online_since
    ]


def _check_enough(keys: Mapping[bytes, str], active_nodes: Mapping[bytes, Node], missing: Sequence[str]) -> None:
    """Raise where too few sites are online.

    A site without a node raises, too.
    """
    # Of several sites two must be online: with one, the shared model would be that site's own.
    if len(keys) - len(missing) < min(LEAST_SITES, len(keys)):
        raise flfed_error("coordinator.sites.offline", missing=", ".join(missing), least=LEAST_SITES)
    # The serving process registers admitted keys; until then a site has no node to send to.
    unknown = [site for key, site in keys.items() if key not in active_nodes]
    if unknown:
        raise flfed_error("coordinator.sites.unregistered", sites=", ".join(unknown))


def _online(control: Control) -> dict[int, str]:
    """Return each connectable node's online-since time."""
    nodes = control.nodes().values()
    return {node.node_id: node.online_since for node in nodes if node.status != "unregistered"}


def _purge(folder: CoordinatorFolder, control: Control, run: int, notify: Notify) -> None:
    """Remove finished runs' messages from Flower's database.

    They are this run's, and those of every other run that is over.

    Where that fails the run's own end is unchanged: the serving process tries again each minute, and reports it.
    """
    over = {run}
    with suppress(FlfedError):  # the server is away: the others are removed when it is there again
        over |= control.over()
    try:
        remove_bodies(database(folder), over=over)
    except FlfedError as error:
        notify(str(error))
