"""Ditto, federated averaging with a model of each site's own beside the shared one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import Field

from flfed.refusals import Refusal
from flfed.updates.arrays import Arrays, Shapes
from flfed.updates.extra import ExtraShapes
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.strategies.fedavg import FedAvg, Term
from flfed.updates.strategies.fedprox import proximal_gradient


@dataclass(kw_only=True, eq=False, repr=False)
class Ditto(FedAvg):
    """Federated averaging with a model of each site's own beside the shared one.

    The shared model is FedAvg's. In each round a site trains its own model v too, from where it left it, by gradients
    `g(v) + lam (v - w)` that pull it towards the shared model w of the round. It stays at the site, and is the
    personalised model of the comparison.

    Parameters
    ----------
    lam : float, >= 0
        How strongly own models are pulled towards the shared one, the paper's lambda. At 0 each site trains alone, and
        at `1 / lr` its model stays one step from the shared one. A step of size `lr` needs `lam * lr` well below 2.
        Example: `lam = 0.1`.
    fraction, weights, cap, server_lr, quorum, deadline, wait, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`.

    Notes
    -----
    A site's own model begins as the shared model of its first round. It takes as many steps as the shared one, by the
    same plan and on the same draws of rows, so that training takes twice the time. Messages are those of FedAvg. It is
    as the last round left it, also where `select` takes the shared model of an earlier one. The second training is not
    charged to any budget, and a study that promises something of rows is refused.

    Source: Li et al. 2021, "Ditto: fair and robust federated learning through personalization", algorithm 1.
    """

    lam: Annotated[float, Field(ge=0), ">= 0; 0 is training alone"] = 0.1

    def client_settings(self) -> Mapping[str, float]:
        """Return `lam`, which the sites need."""
        return {"lam": self.lam}

    @classmethod
    def extra_shapes(cls, model: Shapes) -> ExtraShapes:
        """Return that each site has a model of its own beside the shared one."""
        return ExtraShapes(own_model=model)

    @classmethod
    def own_terms(cls, settings: Mapping[str, float], start: Arrays, incoming: Arrays) -> tuple[Term | Arrays, ...]:
        """Return the gradient `lam (v - w)` in two parts, of `v - start` and of the constant `start - incoming`."""
        if "lam" not in settings:
            raise MalformedMessage(Refusal("setting-missing", setting="lam"))
        lam = settings["lam"]
        constant = {name: lam * (start[name] - value) for name, value in incoming.items()}
        return partial(proximal_gradient, mu=lam), constant
