"""FedRep, averaging of all layers but the last, which each site fits first, by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from flfed.refusals import Refusal
from flfed.study.plan import Plan
from flfed.updates.codec import Shapes
from flfed.updates.extra import ExtraShapes
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.strategies.fedavg import FedAvg
from flfed.updates.strategies.personal.fedper import own_last_layer, refuse_earlier_round


@dataclass(kw_only=True, eq=False, repr=False)
class FedRep(FedAvg):
    """Federated averaging of all layers but the last, which each site fits first, by itself.

    In each round a site trains its own last layer from where it left it, with the shared layers as they came; then the
    shared layers by the plan, with its own layer as it is now. Of a model of one layer, the intercepts are its own.
    The own layer stays at the site: in its update it is zero.

    Parameters
    ----------
    head_epochs : int, >= 1
        Passes over the site's rows that its own layer is trained by in a round; the shared layers take those, or the
        steps, of the plan. Example: `head-epochs = 5`.
    fraction, weights, cap, server_lr, quorum, deadline, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`; `select = "best"` is refused, for the own layers of an earlier round are
        gone.

    Notes
    -----
    Both fits have the plan's rule and the round's learning rate; the loss and the steps of a round are those of the
    shared layers' fit. What figures mean is as for `FedPer`, which
    trains both together. The own layer's fit is not charged to any budget, and a study that promises something of rows
    is refused.

    Source: Collins et al. 2021, "Exploiting shared representations for personalized federated learning", algorithm 1.
    """

    head_epochs: Annotated[int, Field(ge=1)] = 10

    def check(self, plan: Plan) -> None:
        """Refuse to take the shared layers of an earlier round."""
        super().check(plan)
        refuse_earlier_round("fedrep", self.select)

    def client_settings(self) -> Mapping[str, float]:
        """Return `head-epochs`, which the sites need."""
        return {"head-epochs": float(self.head_epochs)}

    @classmethod
    def extra_shapes(cls, model: Shapes) -> ExtraShapes:
        """Return that the last layer's arrays are each site's own, and trained first.

        Raises
        ------
        UsageError
            If which layer is the last one does not follow from the names of the model's arrays.
        """
        return replace(own_last_layer("fedrep", model), own_first=True)

    @classmethod
    def own_epochs(cls, settings: Mapping[str, float]) -> int:
        """Return by how many passes over the rows the own part is trained first."""
        if "head-epochs" not in settings:
            raise MalformedMessage(Refusal("setting-missing", setting="head-epochs"))
        return int(settings["head-epochs"])
