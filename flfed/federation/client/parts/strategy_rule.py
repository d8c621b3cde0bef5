"""The strategy's rule at a site.

It has additions to gradients, and arrays beside the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flfed.federation.client.parts.step import SitePart, TrainingStep, Work
from flfed.federation.client.site_run import extra_shapes_of, strategy_class
from flfed.study.study import Study
from flfed.updates.arrays import with_prefix
from flfed.updates.extra import STATE_PREFIX, ExtraShapes, LocalUpdate, SiteArrays, client_terms, site_arrays
from flfed.updates.strategies.fedavg import FedAvg


@dataclass(frozen=True, eq=False)
class StrategyRule(SitePart):
    """Client half of a study's strategy.

    Attributes
    ----------
    strategy : type of FedAvg
    shapes : ExtraShapes
        Of its arrays beside the model.
    """

    strategy: type[FedAvg]
    shapes: ExtraShapes

    @classmethod
    def of_study(cls, study: Study) -> Self | None:
        """Return the part, which every study has."""
        return cls(strategy_class(study.strategy.name), extra_shapes_of(study.text))

    def before(self, step: TrainingStep) -> None:
        """Add the strategy's gradients; raises MalformedMessage where its arrays do not fit."""
        arrays = self._arrays(step)
        # A strategy whose gradients are made of arrays has none where a model is only scored.
        if self.shapes.sent and not step.request.fit:
            return
        step.terms, step.correction = client_terms(self.strategy, step.request.settings, arrays)

    def after(self, step: TrainingStep) -> Work:
        """Make the strategy's own arrays from the update."""
        if step.request.fit and (self.shapes.returned or self.shapes.kept):
            done = step.trained
            update = LocalUpdate(delta=done.delta, steps=done.steps, lr=done.lr, plan=step.session.study.plan)
            made = self.strategy.client_extra(step.request.settings, self._arrays(step), update)
            step.returned = made.returned
            step.state |= with_prefix(STATE_PREFIX, made.kept)
        return
        yield

    def _arrays(self, step: TrainingStep) -> SiteArrays:
        shapes = self.shapes if step.request.fit else ExtraShapes()
        state_arrays = step.previous_state if shapes.kept else {}
        return site_arrays(step.request.extra, state_arrays, shapes)
