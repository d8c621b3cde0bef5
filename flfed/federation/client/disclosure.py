"""Disclosure rules for a site's figures.

They leave exact, or rounded where rows are protected by noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from flfed.rows.comparison.compare import SiteComparison
from flfed.rows.evaluation.scoring import RowScores, three_digits
from flfed.rows.session import SiteSession
from flfed.updates.messages.compare import Figure
from flfed.updates.messages.train import Scores

Said = Callable[[float], float]
"""Makes of a figure the one that leaves."""


def said_by(session: SiteSession) -> Said:
    """Return the rounding of a site's figures.

    It is to three digits where the site is an institution and training has noise.

    There the updates tell next to nothing of a row, and an exact loss would: of a model chosen for it, the last
    digits of a mean over all rows are one row's. Its first ones can be made to be, which no rounding prevents: so
    nothing over the rows that are trained on leaves at all (`training_stays`).
    """
    return three_digits if _noisy(session) and session.site.policy.disclosure == "institution" else float


def training_stays(session: SiteSession) -> bool:
    """Tell whether training figures stay at the site.

    Losses and metrics over rows that are trained on stay where noise in the updates protects these rows.

    At an institution they do, unless its policy names the output "training-figures".
    """
    return _noisy(session) and not session.site.policy.allows("training-figures")


def _noisy(session: SiteSession) -> bool:
    steps = None if session.protection is None else session.protection.steps
    return steps is not None and steps.noise > 0


def scores_of(scores: RowScores | None, said: Said, *, stays: bool = False) -> Scores | None:
    """Return a model's scores as they leave.

    They are None where there are none.

    Parameters
    ----------
    scores : RowScores or None
    said : callable
    stays : bool
        Whether figures over training rows stay: of those only the number of rows leaves, which crosses anyway.
    """
    if scores is None:
        return None
    # The number of rows crosses anyway, and is all that is left.
    if stays and scores.rows == "training":
        return Scores(rows=scores.rows, num_examples=scores.num_examples, metrics={})
    return Scores(
        rows=scores.rows,
        num_examples=scores.num_examples,
        metrics={name: said(value) for name, value in scores.metrics.items()},
        variances={name: said(value) for name, value in scores.variances.items()},
        histogram=scores.histogram,
    )


def arms_of(found: SiteComparison, said: Said) -> tuple[Figure, ...]:
    """Return all arms' holdout figures as they leave."""
    return tuple(
        _figure(metric, arm, asdict(estimate), "variance", said)
        for metric, arms in found.arms.items()
        for arm, estimate in arms.items()
    )


def differences_of(found: SiteComparison, said: Said) -> tuple[Figure, ...]:
    """Return the arms' differences as they leave.

    There is one for every two arms.
    """
    return tuple(
        _figure(metric, f"{a} - {b}", asdict(difference), "p", said)
        for metric, pairs in found.differences.items()
        for (a, b), difference in pairs.items()
    )


def _figure(metric: str, arm: str, fields: Mapping[str, Any], extra: str, said: Said) -> Figure:
    value, low, high, further = (said(fields[name]) for name in ("value", "low", "high", extra))
    return Figure(metric=metric, arm=arm, value=value, low=low, high=high, extra=further, method=fields["method"])
