"""What a part of a study is at the server of a run, and what the steps of a run show it."""

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
    from flfed.federation.engines.pooled_reference import (
        PooledReference,  # a site's half, which a coordinator does without
    )

OnceFacts = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Returns facts by a name as the sites may have heard them, as `CheckpointWriter.once` does."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FinalModel:
    """The final model of a run, on its way to be compared.

    Attributes
    ----------
    participants : mapping of site to Participant
    outcome : Outcome
    strategy : FedAvg
        After its last round.
    tables : PooledReference or None
        Of an engine that holds every site's table.
    once : callable (name, facts) → facts
        Returns facts as the sites may have heard them.
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
    define, and it is made anew for each run: what it learns in one step it has in the next.

    Attributes
    ----------
    run : RunSetting
    state_names : tuple of str
        Names under which the part keeps arrays and facts in a checkpoint.
    """

    run: RunSetting
    state_names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Tell whether the study of a run has the part."""

    # Enrolment.

    def cohort(self) -> Participants:
        """Return the sites that the run stays with, empty where those that enrol take part."""
        return {}

    def check_enrolled(self, sites: Collection[str], refused: Mapping[str, Refusal]) -> None:  # noqa: B027 - a part may do nothing
        """Refuse a new run of these sites, where the gates of others `refused`; raises UsageError."""

    def enrolled(self, participants: Participants, back: Collection[str]) -> None:  # noqa: B027 - a part may do nothing
        """Prepare the participants, of which those in `back` enrolled now; raises FlfedError."""

    @property
    def keeps_cohort(self) -> bool:
        """Whether a site stays in the run that does not answer."""
        return False

    # What a run begins with.

    def begin(self, participants: Participants) -> tuple[dict[str, Participant], Encoder] | None:
        """Return what a run begins with, None where it is made of sums over the sites' rows; raises FlfedError."""
        return None

    def row_sums(self, sums: SiteSums) -> SiteSums:
        """Return how sums over rows come to the server."""
        return sums

    def first_arrays(self, participants: Participants, sums: SiteSums) -> Arrays | None:
        """Return the arrays that the first round begins with, None where they follow from the study."""
        return None

    def note(self) -> None:  # noqa: B027 - a part may do nothing
        """Record what is known of the run before its first round."""

    # Rounds.

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Return what the strategy is given; rounds that are not recorded are a rehearsal."""
        return context

    # Checkpoints.

    @property
    def binds_encoder(self) -> bool:
        """Whether sites answer for one encoder only, so that it is on the disk before the first round."""
        return False

    def state(self) -> Mapping[str, Arrays]:
        """Return the arrays that a checkpoint keeps, by `state_names`."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """Return the facts that a checkpoint keeps, by `state_names`."""
        return {}

    def facts_of_last_model(self) -> Mapping[str, Any]:
        """Return what the last evaluation adds to the newest checkpoint."""
        return {}

    def restore(self, facts: Mapping[str, Any], state: Mapping[str, Arrays]) -> None:  # noqa: B027 - a part may do nothing
        """Take up the facts and arrays of a checkpoint."""

    def lost_at_sites(self) -> str:
        """Return what is lost where nobody has kept the sites' own arrays, in a sentence; "" where nothing is."""
        return ""

    # Comparison.

    def compare(self, model: FinalModel) -> bool:
        """Compare the final model, and tell whether that is done: else the sites compare it with their own."""
        return False

    def compare_request(self, model: FinalModel, request: CompareRequest) -> CompareRequest:
        """Return the request to compare, with what the part adds."""
        return request

    def received(self, model: FinalModel, replies: CompareReplies) -> CompareReplies:
        """Return the replies whose figures may be looked at one by one."""
        return replies

    @property
    def shares_sums_only(self) -> bool:
        """Whether sites of the run share figures in sums only."""
        return False

    def unreadable(self, arrays: Arrays) -> str:
        """Return why the server cannot compute with a model, in a sentence; "" where it can."""
        return ""

    def has_whole_model(self) -> bool:
        """Tell whether the arrays at the server are all that sites predict with."""
        return True

    def record(self, model: FinalModel, replies: CompareReplies) -> None:  # noqa: B027 - a part may do nothing
        """Record what is known of the final model itself."""
