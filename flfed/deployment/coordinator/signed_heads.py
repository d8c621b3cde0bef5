"""Check of ledgers before a run's first round.

Each institution's ledger is compared with what was signed of it last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.serverapp import Grid

from flfed.deployment.coordinator.countersign import SECONDS, unfollowed
from flfed.errors import FlfedError, RunStopped
from flfed.federation.recording.recorder import Recorder
from flfed.folders import CoordinatorFolder
from flfed.updates.messages.countersign import SEAL

NOT_HELD = "its ledger is not held to what was signed of it"


@dataclass(frozen=True)
class SignedHeads:
    """Guard against runs on outdated or exchanged ledgers.

    A run stops where a ledger is older than what was signed of it, or is another one.

    Parameters
    ----------
    grid : Grid
    recorder : Recorder

    Notes
    -----
    A site's own receipts can be put back together with its ledger, from one backup; the coordinator's cannot. What
    the site had spent and released since would be forgotten, and might be asked for again.
    """

    grid: Grid
    recorder: Recorder

    def check(self, nodes: Mapping[str, int]) -> None:
        """Ask the participating sites for their ledgers' heads.

        Raises
        ------
        RunStopped
            If a ledger does not go on from what was signed, which names site and line; or if what was signed cannot
            be read here.
        """
        recorder, run = self.recorder, self.recorder.writer.run
        try:
            whys, heads = unfollowed(self.grid, CoordinatorFolder.default(), run, nodes, timeout=SECONDS)
        except FlfedError as error:
            why = f"no round was begun: the ledgers of the sites cannot be held to what was signed of them: {error}"
            raise RunStopped(why) from None
        # The exchange is recorded in any case: its bytes left the sites.
        recorder.crossed(SEAL, heads.to_node, heads.to_server)
        recorder.events("fault", {site: f"{NOT_HELD}: {why}" for site, why in heads.faults.items()})
        if whys:
            # The record may name sites by pseudonyms only; the person at the terminal sees the names.
            stopped = RunStopped(f"no round was begun: {'; '.join(whys.values())}")
            stopped.recorded = recorder.shared_as.text(str(stopped))
            raise stopped
