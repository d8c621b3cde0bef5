"""Interface of a study's part at the server of a run.

The facts that the steps of a run pass to it are here, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from flfed.federation.recording.run_record import Outcome
from flfed.federation.server.row_sums import SiteSums
from flfed.federation.server.run_setting import RunSetting
from flfed.refusals import Refusal
from flfed.summaries.summary import Encoder
from flfed.updates.aggregation.rounds import Participant, Participants, RunContext
from flfed.updates.arrays import Arrays
from flfed.updates.messages.compare import CompareReplies, CompareRequest
from flfed.updates.strategies.fedavg import FedAvg

if TYPE_CHECKING:
    # a site's half, which a coordinator does not load
    from flfed.federation.engines.pooled_reference import PooledReference

OnceFacts = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Returns facts by a name as the sites may have received them, as `CheckpointWriter.once` does."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FinalModel:
    """The final model of a run, before its comparison.

    Attributes
    ----------
    participants : mapping of site to Participant
    outcome : Outcome
    strategy : FedAvg
        After its last round.
    tables : PooledReference or None
        Of an engine that has every site's table.
    once : callable (name, facts) → facts
        Returns facts as the sites may have received them.
    """

    participants: Participants
    outcome: Outcome
    strategy: FedAvg
    tables: PooledReference | None
    once: OnceFacts


@dataclass(eq=False, repr=False)
class ServerPart(ABC):
    """A feature of a study at the server of a run.

    Each step of a run calls the parts of its study in the order of their list. A part does nothing that it does not
    define. It is made for each run, and keeps its state from step to step.

    Attributes
    ----------
    run : RunSetting
    state_names : tuple of str
        Names of the part's arrays and facts in a checkpoint.
    """

    run: RunSetting
    state_names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Return whether the study of a run has the part."""

    # Enrolment.

    def cohort(self) -> Participants:
        """Return the sites that the run keeps.

        It is empty where the enrolled sites take part.
        """
        return {}

    def check_enrolled(self, sites: Collection[str], refused: Mapping[str, Refusal]) -> None:  # noqa: B027 - a part may do nothing
        """Refuse a new run of these sites.

        The gates of others `refused`. Raises UsageError.
        """

    def enrolled(self, participants: Participants, back: Collection[str]) -> None:  # noqa: B027 - a part may do nothing
        """Prepare the participants, of which those in `back` enrolled now; raises FlfedError."""

    @property
    def keeps_cohort(self) -> bool:
        """Whether a site without a reply stays in the run."""
        return False

    # Beginning.

    def begin(self, participants: Participants) -> tuple[dict[str, Participant], Encoder] | None:
        """Return a run's participants and encoder, or None.

        It is None where sums over rows make them; raises FlfedError.
        """
        return None

    def row_sums(self, sums: SiteSums) -> SiteSums:
        """Return the sums over rows, as the server receives them."""
        return sums

    def first_arrays(self, participants: Participants, sums: SiteSums) -> Arrays | None:
        """Return the arrays of the first round, or None.

        It is None where they follow from the study.
        """
        return None

    def note(self) -> None:  # noqa: B027 - a part may do nothing
        """Record facts of the run before its first round."""

    # Rounds.

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Return the strategy's facts of the run.

        Rounds without a record are a rehearsal.
        """
        return context

    # Checkpoints.

    @property
    def binds_encoder(self) -> bool:
        """Whether sites answer for one encoder only.

        Then it is on the disk before the first round.
        """
        return False

    def state(self) -> Mapping[str, Arrays]:
        """Return the part's arrays in a checkpoint, by `state_names`."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """Return the part's facts in a checkpoint, by `state_names`."""
        return {}

    def facts_of_last_model(self) -> Mapping[str, Any]:
        """Return the facts that the last evaluation adds to the newest checkpoint."""
        return {}

    def restore(self, facts: Mapping[str, Any], state: Mapping[str, Arrays]) -> None:  # noqa: B027 - a part may do nothing
        """Restore the facts and arrays of a checkpoint."""

    def lost_at_sites(self) -> str:
        """Return a sentence about lost arrays of the sites, or an empty text."""
        return ""

    # Comparison.

    def compare(self, model: FinalModel) -> bool:
        """Compare the final model, and return whether that is done.

        Else the sites compare it with their own.
        """
        return False

    def compare_request(self, model: FinalModel, request: CompareRequest) -> CompareRequest:
        """Return the request to compare, with the part's additions."""
        return request

    def received(self, model: FinalModel, replies: CompareReplies) -> CompareReplies:
        """Return the replies whose figures may be recorded one by one."""
        return replies

    @property
    def masks_rows(self) -> bool:
        """Whether sums over rows leave sites under masks."""
        return False

    def has_whole_model(self) -> bool:
        """Return whether the sites predict with the arrays at the server alone."""
        return True

    def record(self, model: FinalModel, replies: CompareReplies) -> None:  # noqa: B027 - a part may do nothing
        """Record facts of the final model itself."""
