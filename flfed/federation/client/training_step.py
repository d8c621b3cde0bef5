"""One request to train or to score, and what a study adds to it at a site: its strategy's rule, own arrays, a codec."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from flfed.federation.client.released.noised_answer import trained_units
from flfed.federation.client.site_run import (
    SiteRun,
    extra_shapes_of,
    model_shapes_of,
    own_part_of,
    strategy_class,
)
from flfed.rows.own_parts import NOTHING_ADDED, AddedGradients
from flfed.rows.session import SiteSession, Trained
from flfed.rows.site_trees import Grown
from flfed.rows.training.requests import ComputeRequest, PackRequest, Term
from flfed.updates.arrays import Arrays, with_prefix
from flfed.updates.codec import codec_of
from flfed.updates.extra import (
    OWN,
    STATE_PREFIX,
    ExtraShapes,
    LocalUpdate,
    SiteArrays,
    client_terms,
    own_arrays,
    own_terms,
    site_arrays,
)
from flfed.updates.messages.train import TrainRequest
from flfed.updates.strategies.fedavg import FedAvg

FAR = 1 << 96
"""Draws between a fit's and those for rounding its update: no fit takes so many."""


@dataclass(kw_only=True, eq=False)
class TrainingStep:
    """One request to train or to score.

    Attributes
    ----------
    original_request : TrainRequest
        As it came.
    request : TrainRequest
        With its model, and without what the study does not request.
    session : SiteSession
    own : SiteRun
        The site's state of the run.
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
    session: SiteSession
    own: SiteRun
    terms: tuple[Term, ...] = ()
    correction: Arrays = field(default_factory=dict)
    own_gradients: AddedGradients = NOTHING_ADDED
    done: Trained | Grown = field(init=False)
    delta: Arrays = field(default_factory=dict)
    returned: Arrays = field(default_factory=dict)
    state: Arrays = field(default_factory=dict)

    @cached_property
    def previous_state(self) -> Arrays:
        """The site's state after its last round before this one."""
        return self.own.before(self.request.round, self.session)

    @property
    def trained(self) -> Trained:
        """The result of training; raises ValueError where trees grew."""
        if not isinstance(self.done, Trained):
            raise ValueError("no update was trained in the round")
        return self.done

    @property
    def shapes(self) -> ExtraShapes:
        """The strategy's arrays beside the shared model."""
        return extra_shapes_of(self.session.study.text)

    @property
    def strategy(self) -> type[FedAvg]:
        """The study's strategy, whose client half is in the same file as the server's."""
        return strategy_class(self.session.study.strategy.name)

    def begin(self) -> None:
        """Set the site's own arrays, and the strategy's additions to gradients.

        Raises
        ------
        MalformedMessage
            If the strategy's arrays do not fit.
        NotSpent
            If noise covers everything, and the account has no more.
        """
        session, shapes = self.session, self.shapes
        if session.study.covers_model:
            # No score leaves, and updates are divided by the noised number of rows.
            if session.protection is not None:
                session.protection = replace(session.protection, units=trained_units(session))
            self.request = replace(self.request, score=False)
        request = self.request
        if shapes.own:
            session.own_arrays = own_part_of(own_arrays(self.previous_state, shapes), shapes, request.arrays)
            own_model = session.own_arrays.model
            if own_model is not None and request.fit:
                terms, correction = own_terms(self.strategy, request.settings, own_model, request.arrays)
                self.own_gradients = AddedGradients(terms=terms, correction=correction)
        arrays = self._strategy_arrays()
        # A strategy whose gradients are made of arrays has none where a model is only scored.
        if request.fit or not shapes.sent:
            self.terms, self.correction = client_terms(self.strategy, request.settings, arrays)

    def end(self) -> Generator[ComputeRequest, Any, None]:
        """Make the strategy's arrays of the update, keep the site's own, and pack the update."""
        shapes, request, done = self.shapes, self.request, self.trained
        self.delta = done.delta
        if request.fit and (shapes.returned or shapes.kept):
            update = LocalUpdate(delta=done.delta, steps=done.steps, lr=done.lr, plan=self.session.study.plan)
            made = self.strategy.client_extra(request.settings, self._strategy_arrays(), update)
            self.returned = made.returned
            self.state |= with_prefix(STATE_PREFIX, made.kept)
        if shapes.own:
            self.state |= with_prefix(OWN, done.own)
        if request.fit:
            yield from self._pack()

    def _pack(self) -> Generator[ComputeRequest, Any, None]:
        """Pack the update, with the rest of the earlier one; the new rest is stored."""
        session = self.session
        codec = codec_of(session.study)
        if codec is None:
            return
        whole = self.delta
        # Random rounding follows from seed, site and round, so that every engine rounds the same.
        stream: Any = session.draws.of(session.site.name, self.request.round).bit_generator
        rng = np.random.Generator(stream.advance(FAR))  # NumPy's types lack `advance`
        if codec.feedback and self.previous_state.keys() >= whole.keys():
            whole = {name: value + self.previous_state[name] for name, value in whole.items()}
        self.delta = yield PackRequest(codec.encode_all, whole, rng=rng)
        # An unreadable update will be refused in transit, and leaves no rest for the next.
        shapes = model_shapes_of(session.study.text)
        if codec.feedback and codec.defect(self.delta, shapes) is None:
            sent = codec.decode(self.delta, shapes)
            self.state |= {name: value - sent[name] for name, value in whole.items()}

    def _strategy_arrays(self) -> SiteArrays:
        shapes = self.shapes if self.request.fit else ExtraShapes()
        return site_arrays(self.request.extra, self.previous_state if shapes.kept else {}, shapes)
