"""What a run says of its training: whether the shared model was trained enough to be judged."""

from __future__ import annotations

from typing import Any

from flfed.records.statistics.training_state import loss_fall, training_state
from flfed.records.store.bulk_insert import finite
from flfed.records.store.writer import RunWriter
from flfed.rows.comparison.pooled import Reference
from flfed.study.study import Study


def recorded_training(
    writer: RunWriter, primary: str, study: Study, reference: Reference | None = None
) -> dict[str, Any] | None:
    """Return whether the shared model was trained enough, by a pooled reference or else by the recorded losses.

    Losses are those of validation rows where the study keeps some. Trees, whose training loss always falls, and a run
    whose best round was chosen are not judged by it, nor is one of a cohort that changes where only sums are known.
    None under noise, where a shortfall is the price of protection.
    """
    if study.privacy.name != "none":
        return None
    beside = []
    # Probabilities may be far off while rows are ranked well.
    for metric in dict.fromkeys([primary, "log_loss"]):
        if reference is not None and metric in reference.union:
            one = reference.union[metric]
            kind = reference.pooled_same or reference.pooled
            ends = {"value": finite(one.value), "low": finite(one.low), "high": finite(one.high)}
            beside.append((metric, ends, finite(kind[metric].value)))
    model = study.model.build("model")
    trees = bool(getattr(model, "plain", False))
    arm = "validation" if study.plan.validation else "fit"
    points = writer.reader().curves([writer.run], arm=arm, metric="loss")
    summed = any(point.site is None for point in points) and float(study.strategy.settings.get("fraction", 1.0)) < 1
    chosen = study.strategy.settings.get("select") == "best" or bool(study.strategy.settings.get("patience"))
    fall = None if trees or summed or chosen else loss_fall(points)
    return training_state(fall, beside, by_rounds=not (model.linear or trees))
