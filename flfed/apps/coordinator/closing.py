"""What follows a run at the institutions, however it ended: the heads of the sites' ledgers are countersigned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flfed.apps.coordinator.folder import CoordinatorFolder
from flfed.apps.coordinator.sealing import seal_all
from flfed.apps.engines.deployed_grid import DeployedGrid
from flfed.apps.recording import Recorder
from flfed.errors import FlfedError

SECONDS = 30.0
"""For each of the two exchanges: a site answers at once, or its node is away."""
AT_ONCE = 10.0
"""Where a person who interrupted the run waits."""


@contextmanager
def sealed_afterwards(grid: DeployedGrid, recorder: Recorder) -> Iterator[None]:
    """Run the block, then have the ledgers of a deployment's sites sealed.

    A run that failed, or was interrupted, is sealed too: what left the sites has left.
    """
    try:
        yield
    except BaseException as error:
        with suppress(FlfedError):  # the first error is what counts
            _seal(grid, recorder, SECONDS if isinstance(error, FlfedError) else AT_ONCE)
        raise
    _seal(grid, recorder)


def _seal(grid: DeployedGrid, recorder: Recorder, seconds: float = SECONDS) -> None:
    """Seal, and write down what crossed for it and whose ledger could not be; a run does not fail by it."""
    taking_part = {site: node for site, node in grid.nodes.items() if site in recorder.taking_part}
    try:
        found = seal_all(grid, CoordinatorFolder.default(), recorder.writer.run, taking_part, timeout=seconds)
    except FlfedError as error:
        recorder.note(f"the ledgers of the sites are not signed: {error}")
        return
    for kind, answers in found.crossed:
        recorder.crossed(kind, answers.to_node, answers.to_server)
    recorder.events("fault", found.faults)
