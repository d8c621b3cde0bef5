"""Classes of strategies, whose client half stands in the same file as the server's."""

from __future__ import annotations

from functools import cache

from flfed import registry
from flfed.updates.strategies.fedavg import FedAvg


@cache
def strategy_class(name: str) -> type[FedAvg]:
    """Return the class of a strategy."""
    found: type[FedAvg] = registry.load("strategy", name)
    return found
