"""Study of a statistic or an analysis: sums over the rows of all sites, and no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flfed.study.study import Study

ANALYSIS = "analysis"
"""Name of an analysis among recorded statistics."""


def is_statistic(study: Study) -> bool:
    """Tell whether a study asks for a statistic, or an analysis, in place of a model."""
    return study.statistic.name != "none" or study.analysis is not None
