"""The statistic that a study asks for."""

from __future__ import annotations

import inspect
import math

from flfed import registry
from flfed.rows.data.schema import Schema
from flfed.rows.statistics.statistic import Statistic
from flfed.study.study import Study
from flfed.words import usage_error


def statistic_of(study: Study) -> Statistic:
    """Return the statistic that a study names, or its analysis.

    Raises UsageError for a setting that it does not take.

    Of an analysis it has columns and shapes, and no noise yet: `NoisedAnalysis.of_study` has.
    """
    if study.analysis is not None:
        from flfed.rows.statistics.analysis import NoisedAnalysis  # it needs torch

        return NoisedAnalysis.of_study(study, math.nan)
    try:
        made: Statistic = study.statistic.build("statistic")
    # All keys are known and of the right kind: some are missing.
    except TypeError:
        parameters = inspect.signature(registry.load("statistic", study.statistic.name)).parameters.values()
        needed = ", ".join(one.name for one in parameters if one.default is inspect.Parameter.empty)
        raise usage_error("study.statistic.setting", name=study.statistic.name, needed=needed) from None
    return made


def unconfirmed_columns(study: Study, schema: Schema) -> list[str]:
    """Return the columns that a study reads and nobody has confirmed."""
    if study.analysis is None:
        return schema.unconfirmed_features(study.dataset.features)
    return [name for name in statistic_of(study).columns(schema) if name in schema.unconfirmed]
