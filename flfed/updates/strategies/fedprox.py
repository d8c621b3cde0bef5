"""FedProx, federated averaging with a proximal term.

It holds sites near the global model while they train.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from flfed.refusals import Refusal
from flfed.updates.messages.fields import MalformedMessage
from flfed.updates.strategies.fedavg import FedAvg, Term

if TYPE_CHECKING:
    from torch import Tensor  # the server half does without


def proximal_gradient(w: Tensor, anchor: Tensor, *, mu: float) -> Tensor:
    """Return the client half's gradient, `mu * (w - anchor)`.

    It is that of `mu / 2 * ||w - anchor||^2`.

    Parameters
    ----------
    w, anchor : tensor [..., any]
        One array of a site's model now, and of the global model it started the round from; one
        site's, or a stack of sites'.
    mu : float, >= 0
        How strongly a site is pulled back; 0 not at all.

    Source: Li et al. 2020, "Federated optimization in heterogeneous networks", equation 2. The
    norm is squared there; Flower's own docstring adds norms that are not.
    """
    return mu * (w - anchor)


@dataclass(kw_only=True, eq=False, repr=False)
class FedProx(FedAvg):
    """Mean of the sites' models, with a pull to the shared one in training.

    It sends `mu` to every site, and averages as FedAvg does.

    Parameters
    ----------
    mu : float, >= 0
        Weight of the proximal term; 0 is FedAvg. A step of size `lr` needs `mu * lr` well below 2.
        Example: `mu = 0.1`.
    fraction, weights, cap, server_lr, quorum, deadline, wait, select, patience, flag_norm, refuse_norm : as in FedAvg
        The other parameters as for `FedAvg`.

    Notes
    -----
    The term is zero in the first step of a round, where a site still stands at the global model. It needs at least two
    steps a round to matter.

    Source: Li et al. 2020, "Federated optimization in heterogeneous networks", algorithm 2.
    """

    mu: Annotated[float, Field(ge=0), ">= 0; 0 is plain averaging"] = 0.01

    def client_settings(self) -> Mapping[str, float]:
        """Return `mu`, which the sites need."""
        return {"mu": self.mu}

    @classmethod
    def client_terms(cls, settings: Mapping[str, float]) -> tuple[Term, ...]:
        """Return the proximal gradient with the received `mu`."""
        # A site that trained without the term would take part in another algorithm.
        if "mu" not in settings:
            raise MalformedMessage(Refusal("setting-missing", setting="mu"))
        return (partial(proximal_gradient, mu=settings["mu"]),)
