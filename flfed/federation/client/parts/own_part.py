"""A site's own part of the model, or its own model.

It stays at the site, and is in no message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from flfed.federation.client.parts.step import SitePart, TrainingStep, Work
from flfed.federation.client.site_run import extra_shapes_of, own_part_of, strategy_class
from flfed.rows.own_parts import AddedGradients
from flfed.study.study import Study
from flfed.updates.arrays import with_prefix
from flfed.updates.extra import OWN, ExtraShapes, own_arrays, own_terms
from flfed.updates.strategies.fedavg import FedAvg


@dataclass(frozen=True, eq=False)
class OwnPart(SitePart):
    """Each site's own part of a study's model.

    Attributes
    ----------
    strategy : type of FedAvg
    shapes : ExtraShapes
        Which arrays they are.
    """

    strategy: type[FedAvg]
    shapes: ExtraShapes

    @classmethod
    def of_study(cls, study: Study) -> Self | None:
        """Return the part, None where all of the model is shared."""
        shapes = extra_shapes_of(study.text)
        return cls(strategy_class(study.strategy.name), shapes) if shapes.own else None

    def before(self, step: TrainingStep) -> None:
        """Set the site's own arrays.

        The strategy's additions to the gradients of its own model are set, too.
        """
        arrays = own_arrays(step.previous_state, self.shapes)
        step.session.own_arrays = own_part_of(arrays, self.shapes, step.model)
        own_model = step.session.own_arrays.model
        if own_model is None or not step.request.fit:
            return
        terms, correction = own_terms(self.strategy, step.request.settings, own_model, step.model)
        step.own_gradients = AddedGradients(terms=terms, correction=correction)

    def after(self, step: TrainingStep) -> Work:
        """Store them as they are after the round."""
        step.state |= with_prefix(OWN, step.trained.own)
        return
        yield
