"""Which keys of a study exclude or need each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flfed.errors import UsageError
from flfed.study.secure_aggregation import STATISTIC_MODES

NO_USE = ("model", "plan", "strategy", "encode", "split", "compare", "codec", "sweep")
"""Tables that a study of a statistic has no use for."""
UNUSED: Mapping[str, Any] = {"model": {"name": "mlp"}, "strategy": {"name": "fedavg"}}
"""Stand in for model and strategy where a study has none: nothing is trained by them."""
STATISTIC = "statistic"
ANALYSIS = "analysis"
"""Tables that stand in place of a model."""
ROW_MECHANISMS = frozenset({"record-dp"})
"""Mechanisms whose noise protects single rows: the scaler, and whether counts may have noise, follow from it."""


def has_analysis(table: Mapping[str, Any]) -> bool:
    """Tell whether a study's parsed text has an analysis."""
    return ANALYSIS in table


def has_statistic(table: Mapping[str, Any]) -> bool:
    """Tell whether a study's parsed text has a statistic."""
    return STATISTIC in table


def protects_rows(privacy: Mapping[str, Any]) -> bool:
    """Tell whether a table `[privacy]` names a mechanism whose noise protects single rows."""
    return privacy.get("name") in ROW_MECHANISMS


def protected_scaler(privacy: Mapping[str, Any]) -> str:
    """Return the scaler of a study that protects rows and names none: by any other one row moves the inputs of all."""
    return "private" if privacy.get("covers") == "study" else "schema"


def check_scaler(scaler: str, class_weight: str, privacy: Mapping[str, Any], *, counts: bool) -> None:
    """Refuse inputs that are scaled by what nothing charges; `counts` tells whether it is a study of an analysis.

    Raises
    ------
    UsageError
        For the first such thing.
    """
    if counts and "covers" in privacy:
        raise UsageError(
            "[privacy]: covers is of a study with a model, and an analysis is charged as a whole: leave it out"
        )
    if scaler == "private" and privacy.get("covers") != "study":
        raise UsageError(
            "[encode]: scaler = 'private' is made of noised counts, which are charged where [privacy] has covers = "
            "'study' alone: add that, or write scaler = \"schema\""
        )
    if scaler == "schema" and class_weight == "balanced":
        raise UsageError(
            "[plan]: class-weight='balanced' counts the classes of all rows, and [encode] scaler='schema' (the default "
            'under record-dp) takes nothing from rows: leave it out, or write scaler = "global"'
        )


def without_model(parts: dict[str, dict[str, Any]], *, analysis: bool) -> bool:
    """Tell whether a study asks for a statistic or an analysis, and fill in what it lacks then.

    Raises UsageError where it has what belongs to a model.
    """
    if not (parts["statistic"] or analysis):
        return False
    name = ANALYSIS if analysis else STATISTIC
    also = (STATISTIC,) if analysis else ()
    if found := [other for other in (*NO_USE, *also) if parts[other]]:
        raise UsageError(f"[{name}]: is in place of a model, and the study has a table [{found[0]}]: leave one out")
    if analysis:
        _check_noise(parts["privacy"])
    # A mechanism's noise is made for updates, and homomorphic encryption for a model.
    elif set(parts["privacy"]) - {"secure-aggregation"} or not _adds_statistics(parts["privacy"]):
        raise UsageError(
            "[privacy]: with a statistic, all but secure-aggregation = 'on' or 'off' is not available in this version"
        )
    partition = parts["dataset"].get("partition")
    if isinstance(partition, dict) and "holdout" in partition:
        raise UsageError(f"[dataset] partition: holdout does not go with [{name}], which is over all rows")
    parts |= {name: dict(table) for name, table in UNUSED.items()}
    return True


def _adds_statistics(privacy: Mapping[str, Any]) -> bool:
    """Tell whether the way of secure aggregation that a table `[privacy]` names is one for statistics."""
    mode = privacy.get("secure-aggregation", "off")
    return mode in STATISTIC_MODES


def _check_noise(privacy: Mapping[str, Any]) -> None:
    """Refuse an analysis without noise, or with settings of training."""
    if not protects_rows(privacy):
        raise UsageError(
            "[analysis]: needs [privacy] name = 'record-dp' with epsilon and delta, by which noise is put on its "
            "counts; exact sums are those of [statistic]"
        )
    for key in ("clip", "sampling"):
        if key in privacy:
            raise UsageError(f"[privacy]: {key} is of steps of training, and an analysis has none: leave it out")
    if not _adds_statistics(privacy):
        raise UsageError("[privacy]: with an analysis, secure-aggregation must be 'on' or 'off'")
