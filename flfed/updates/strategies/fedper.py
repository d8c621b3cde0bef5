"""FedPer, federated averaging of all layers but the last, which is each site's own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flfed.study.plan import Plan
from flfed.updates.arrays import Shapes
from flfed.updates.extra import ExtraShapes
from flfed.updates.strategies.fedavg import FedAvg
from flfed.words import usage_error


@dataclass(kw_only=True, eq=False, repr=False)
class FedPer(FedAvg):
    """Federated averaging of all layers but the last, which is each site's own.

    A site trains both together, from the shared layers of the round and its own last one as its last round left it. Of
    a model of one layer, the intercepts are its own. They stay at the site: in its update they are zero.

    Parameters
    ----------
    fraction, weights, cap, server_lr, quorum, deadline, wait, select, patience, flag_norm, refuse_norm : as in FedAvg
        The parameters as for `FedAvg`; `select = "best"` is refused, for the own layers of an earlier round are gone.

    Notes
    -----
    Wherever the run scores "the global model" at a site, it is the shared layers with the site's own last one; at a
    site that has not trained, with the one that came. What the coordinator has under the names of the own arrays is as
    it was drawn, up to the noise of a mechanism, and is nobody's model.

    Source: Arivazhagan et al. 2019, "Federated learning with personalization layers", algorithms 1 and 2.
    """

    def check(self, plan: Plan) -> None:
        """Refuse to take the shared layers of an earlier round."""
        super().check(plan)
        if self.select == "best":
            raise usage_error("study.strategies.best")

    @classmethod
    def extra_shapes(cls, model: Shapes) -> ExtraShapes:
        """Return that the last layer's arrays are each site's own.

        Raises
        ------
        UsageError
            If which layer is the last one does not follow from the names of the model's arrays.
        """
        return ExtraShapes(own_part={name: model[name] for name in _last_layer(model)})


def _last_layer(model: Shapes) -> tuple[str, ...]:
    """Return the arrays of the layer with the highest number.

    Of a model of one layer, its intercepts.
    """
    numbers = {name: list(map(int, re.findall(r"\d+", name))) for name in model}
    last = max(numbers.values())
    last_arrays = tuple(name for name in model if numbers[name] == last)
    if len(last_arrays) < len(model):
        return last_arrays
    intercepts = tuple(name for name, (shape, _) in model.items() if len(shape) == 1)
    if len(model) != 2 or len(intercepts) != 1:
        raise usage_error("study.strategies.layers", names=", ".join(model))
    return intercepts
