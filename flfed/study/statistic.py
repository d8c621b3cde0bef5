"""Study of a statistic: sums over the rows of all sites, and no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flfed.errors import UsageError

if TYPE_CHECKING:
    from flfed.study.study import Study

NO_USE = ("model", "plan", "strategy", "encode", "split", "compare", "codec", "sweep")
"""Tables that a study of a statistic has no use for."""
UNUSED: Mapping[str, Any] = {"model": {"name": "mlp"}, "strategy": {"name": "fedavg"}}
"""Stand in for model and strategy where a study has none: nothing is trained by them."""


def is_statistic(study: Study) -> bool:
    """Tell whether a study asks for a statistic in place of a model."""
    return study.statistic.name != "none"


def without_model(parts: dict[str, dict[str, Any]]) -> bool:
    """Tell whether a study asks for a statistic, and fill in what it lacks then.

    Raises UsageError where it has what belongs to a model.
    """
    if not parts["statistic"]:
        return False
    if found := [name for name in NO_USE if parts[name]]:
        raise UsageError(f"[statistic]: is in place of a model, and the study has a table [{found[0]}]: leave one out")
    # A mechanism's noise is made for updates, and homomorphic encryption for a model.
    if parts["privacy"] not in ({}, {"secure-aggregation": "on"}, {"secure-aggregation": "off"}):
        raise UsageError(
            "[privacy]: with a statistic, all but secure-aggregation = 'on' or 'off' is not available in this version"
        )
    if "holdout" in parts["dataset"].get("partition", {}):
        raise UsageError("[dataset] partition: holdout does not go with [statistic], which is over all rows")
    parts |= {name: dict(table) for name, table in UNUSED.items()}
    return True
