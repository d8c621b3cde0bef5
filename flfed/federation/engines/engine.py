"""Base class of the engines.

An engine runs a study's sites in this process, in Flower's simulation, or at institutions.

What differs between engines is asked of the engine; nobody else compares their names.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

from flwr.serverapp import Grid

from flfed.callbacks import Clock, Progress
from flfed.federation.engines.local_sites import find_sites
from flfed.federation.engines.pooled_reference import PooledReference
from flfed.federation.recording.recorder import Recorder
from flfed.rows.data.site import Site
from flfed.rows.training.requests import Compute
from flfed.rows.warm_start import Source, SourceRows
from flfed.signatures import Signer
from flfed.study.study import Study

RunConfig = Mapping[str, bool | float | int | str]
"""What every node's context carries: the study, the repeat, the run."""


@dataclass(frozen=True)
class RemoteSite:
    """Site with its table at its institution.

    A coordinator knows its name only.
    """

    name: str


@dataclass(frozen=True)
class RunResources:
    """Resources of one repeat.

    They are the function that answers its requests (None: one by one), its progress and its clock, and the model of
    an earlier run that it begins from, with the rows of that.
    """

    answer: Compute | None
    progress: Progress
    clock: Clock = time.monotonic
    source: Source | None = None
    source_rows: SourceRows | None = None
    _shown: list[str] = field(default_factory=list)

    def told(self, sentence: str) -> None:
        """Show a sentence as the current activity.

        It takes the place of the one before. An empty one shows none.
        """
        # One stage at a time: the one before is closed first.
        while self._shown:
            self.progress(self._shown.pop(), 1, 1)
        if sentence:
            self._shown.append(sentence)
            self.progress(sentence, 0, 1)


class Engine(ABC):
    """Base class of the engines.

    Attributes
    ----------
    name : str
        As `study run --engine` and the run store have it.
    stacks : bool
        Whether many sites can be computed for at once.
    remote : bool
        Whether sites are institutions: they approve the study's text, keep a ledger of each run, and a checkpoint
        is written each round.
    keeps_replies : bool
        Whether a site keeps a reply that may have to be sent again.
    audited_by : str
        Name of the engine by which a run of this one is audited.
    """

    name: ClassVar[str]
    stacks: ClassVar[bool] = False
    remote: ClassVar[bool] = False
    keeps_replies: ClassVar[bool] = True
    audited_by: ClassVar[str]

    def require(self) -> None:  # noqa: B027 - most engines miss nothing
        """Refuse to continue where something is missing.

        Raises
        ------
        UsageError
            What is missing, and how to get it.
        """

    def sites(self, study: Study, given: Sequence[str | Site] | None = None) -> Sequence[Site] | Sequence[RemoteSite]:
        """Return the sites that are asked.

        See `find_sites`.
        """
        return find_sites(study, given)

    @abstractmethod
    def started(
        self, sites: Sequence[Site | RemoteSite], run_config: RunConfig, resources: RunResources
    ) -> AbstractContextManager[tuple[Grid, PooledReference | None]]:
        """Yield a grid, and the tables where all are here.

        The engine ends with the block.

        Parameters
        ----------
        sites : sequence of Site, or of RemoteSite
        run_config : mapping of str to scalar
        resources : RunResources
            Of the in-process engine: what answers the requests of all sites, and the clock that deadlines are in.
            Of a deployment: told in a sentence which sites are waited for, and which are missing.

        Raises
        ------
        FlfedError
            If the engine cannot be started, or ends in the middle of the run.
        """

    def before_rounds(self, grid: Grid, recorder: Recorder) -> Callable[[Mapping[str, int]], None]:
        """Return the check of the enrolled sites.

        It runs before their first sum.
        """
        return lambda nodes: None

    def after_run(self, grid: Grid, recorder: Recorder) -> AbstractContextManager[None]:
        """Return the context in which a run takes place.

        What follows the run happens when the block ends.
        """
        return nullcontext()

    def signer(self) -> Signer | None:
        """Return the signer of models, or None.

        It signs those of runs on this engine.
        """
        return None
