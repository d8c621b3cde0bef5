"""A linear model over different columns of the same people, under homomorphic encryption."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

from pydantic import Field

from flfed.study.plan import Plan
from flfed.updates.strategies.fedavg import FedAvg
from flfed.words import usage_error


# align:  label party ──► blinded ids ──► column parties ──► both lists ──► label party ──► rows in common
# round:  partial scores ──► label party ──► encrypted residuals ──► masked products ──► label party ──► masked sums
@dataclass(kw_only=True, eq=False, repr=False)
class Vertical(FedAvg):
    """Logistic or linear regression whose columns stand at two to five parties, one of which has the outcome.

    A round is one step over all rows in common. Each party keeps the weights of its own columns.

    Parameters
    ----------
    ridge : float, > 0
        Ridge penalty of the mean loss. Example: `ridge = 0.1`.
    deadline : as in FedAvg
        Seconds of an exchange, of which a round has four.

    Notes
    -----
    Nesterov's steps, in which each party multiplies its gradient by an inverse that it computes alone: of its own
    columns' share of the Hessian's bound, times the number of parties.

    Partial scores leave a party in quarters. With all digits, and the public rule of the steps, a label party that
    knows a few people reads the columns of all others.

    The sums that column parties get depend on outcomes: `[privacy] name = "label-dp"` adds noise to them.

    It is for parties who keep to the protocol. A label party that chooses residuals reads columns; a column party that
    returns chosen sums reads outcomes.

    Source: Hardy et al. 2017, "Private federated learning on vertically partitioned data via entity resolution and
    additively homomorphic encryption"; Nesterov 1983 for the steps.
    """

    ridge: Annotated[float, Field(gt=0)] = 0.01
    sums: ClassVar[bool] = False
    parts: ClassVar[bool] = False

    def check(self, plan: Plan) -> None:
        """Refuse settings of means over sites, and a plan of gradient descent."""
        super().check(plan)
        plain = FedAvg()
        own = ("ridge", "deadline")
        changed = [one.name for one in fields(FedAvg) if one.init and one.name not in own]
        changed = [name for name in changed if getattr(self, name) != getattr(plain, name)]
        changed += [one.name for one in fields(Plan) if getattr(plan, one.name) != getattr(Plan(), one.name)]
        if changed:
            keys = ", ".join(name.replace("_", "-") for name in changed)
            raise usage_error("study.strategies.vertical", keys=keys)
