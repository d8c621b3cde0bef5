"""A request at a site as it passes the parts of its study.

The interface of a part is here, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from flfed.federation.client.site_run import SiteRun
from flfed.rows.own_parts import NOTHING_ADDED, AddedGradients
from flfed.rows.session import SiteSession, Trained
from flfed.rows.site_trees import Grown
from flfed.rows.training.requests import ComputeRequest, Term
from flfed.study.study import Study
from flfed.summaries.summary import Encoder
from flfed.updates.arrays import Arrays
from flfed.updates.messages.compare import CompareReply, CompareRequest
from flfed.updates.messages.summarise import SummariseReply, SummariseRequest
from flfed.updates.messages.train import TrainReply, TrainRequest

PartReply = TrainReply | SummariseReply | CompareReply
Work = Generator[ComputeRequest, Any, None]
"""A part's work on an update; it may have requests computed."""
Leaving = Generator[ComputeRequest, Any, PartReply]
"""A part's work on a reply."""


@dataclass(kw_only=True, eq=False)
class SiteStep:
    """One request at a site.

    Attributes
    ----------
    original_request : TrainRequest, SummariseRequest or CompareRequest
        The unchanged request.
    session : SiteSession
    own : SiteRun
        The site's state of the run.
    encoder : Encoder or None
        Of the model that is compared.
    """

    original_request: TrainRequest | SummariseRequest | CompareRequest
    session: SiteSession
    own: SiteRun
    encoder: Encoder | None = None


@dataclass(kw_only=True, eq=False)
class TrainingStep(SiteStep):
    """One request to train or to score.

    Each part changes it on the way in, and its update on the way out.

    Attributes
    ----------
    request : TrainRequest
        As changed by the parts so far.
    model : dict of name to array
        Start of the training.
    terms : tuple of functions
        Gradients that are added in every step of the optimiser.
    correction : dict of name to array
        A gradient that is constant in the round.
    own_gradients : AddedGradients
        The same of the site's own model, where it trains one.
    done : Trained or Grown
        Result of training, or the sums by which trees grow.
    delta : dict of name to array
        The outbound update.
    returned : dict of name to array
        Arrays of the strategy that leave with it.
    state : dict of name to array
        Stored by the site for its next round.
    """

    original_request: TrainRequest
    request: TrainRequest
    model: Arrays = field(init=False)
    terms: tuple[Term, ...] = ()
    correction: Arrays = field(default_factory=dict)
    own_gradients: AddedGradients = NOTHING_ADDED
    done: Trained | Grown = field(init=False)
    delta: Arrays = field(default_factory=dict)
    returned: Arrays = field(default_factory=dict)
    state: Arrays = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = self.request.arrays

    @cached_property
    def previous_state(self) -> Arrays:
        """The site's state after its last round before this one.

        It is read where a part needs it.
        """
        return self.own.before(self.request.round, self.session)

    @property
    def trained(self) -> Trained:
        """The result of training; raises ValueError where trees grew."""
        if not isinstance(self.done, Trained):
            raise ValueError("no update was trained in the round")
        return self.done


class SitePart(ABC):
    """A feature of a study at a site.

    The parts of a study surround its training like the skins of an onion, the outermost first: `before` is called
    inwards, `after` and `reply` outwards. A part does nothing that it does not define.
    """

    @classmethod
    @abstractmethod
    def of_study(cls, study: Study) -> Self | None:
        """Return the part of a study, or None."""

    def before(self, step: TrainingStep) -> None:  # noqa: B027 - a part may have nothing to read
        """Read a request to train.

        A part changes `step.request`, `step.model` or the additions to gradients.
        """

    def after(self, step: TrainingStep) -> Work:
        """Change the update, and the site's state for its next round."""
        return
        yield  # a generator, also without requests

    def reply(self, step: SiteStep, reply: PartReply) -> Leaving:
        """Return the outbound reply."""
        return reply
        yield
