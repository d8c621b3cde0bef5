"""In-process engine.

All tables are in this process, and its sites are computed for together or one by one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flwr.serverapp import Grid

from flfed.callbacks import Clock
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.engine import Engine, RemoteSite, RunConfig, RunResources
from flfed.federation.engines.inprocess import CohortGrid, InProcessGrid
from flfed.federation.engines.pooled_reference import PooledReference
from flfed.rows.data.site import Site
from flfed.rows.training.one_by_one import compute_one_by_one
from flfed.rows.training.requests import Compute


class InProcess(Engine):
    """Engine with all sites in this process.

    It therefore holds every table.
    """

    name = audited_by = "inprocess"
    stacks = True
    keeps_replies = False

    @contextmanager
    def started(
        self, sites: Sequence[Site | RemoteSite], run_config: RunConfig, resources: RunResources
    ) -> Iterator[tuple[Grid, PooledReference | None]]:
        """Yield the grid and the tables.

        See `Engine.started`.
        """
        by_name = {site.name: site for site in sites if isinstance(site, Site)}
        side = SiteClient(lambda name, _: by_name[name])
        answer, key = resources.answer, (str(run_config["study"]), int(run_config["repeat"]))
        tables = PooledReference(side, key, answer or compute_one_by_one)
        yield grid_of(side, list(by_name), run_config, answer, resources.clock), tables


def grid_of(
    side: SiteClient,
    sites: Sequence[str],
    run_config: RunConfig,
    answer: Compute | None,
    clock: Clock = time.monotonic,
) -> InProcessGrid:
    """Return the in-process grid.

    Its sites compute together by `answer`, or one by one without.
    """
    if answer is None:
        return InProcessGrid(side.app(), sites, run_config, clock=clock)
    return CohortGrid(side, sites, run_config, answer, clock=clock)
