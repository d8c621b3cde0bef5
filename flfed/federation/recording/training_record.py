"""What a run says of its training: whether the shared model was trained enough to be judged."""

from __future__ import annotations

from typing import Any

from flfed.records.statistics.training_state import mean_losses, training_state
from flfed.records.store.bulk_insert import finite
from flfed.records.store.writer import RunWriter
from flfed.rows.comparison.pooled import Reference


def recorded_training(
    writer: RunWriter, primary: str, reference: Reference | None = None, *, by_rounds: bool = False
) -> dict[str, Any]:
    """Return whether the shared model was trained enough, by a pooled reference or else by the recorded losses.

    `by_rounds` is as for `training_state`.
    """
    beside = []
    # Probabilities may be far off while rows are ranked well.
    for metric in dict.fromkeys([primary, "log_loss"]):
        if reference is not None and metric in reference.union:
            one, kind = reference.union[metric], reference.pooled_same or reference.pooled
            ends = {"value": finite(one.value), "low": finite(one.low), "high": finite(one.high)}
            beside.append((metric, ends, finite(kind[metric].value)))
    points = writer.reader().curves([writer.run], arm="fit", metric="loss")
    return training_state(mean_losses(points), beside, by_rounds=by_rounds)
