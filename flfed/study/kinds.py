"""What kind of study one is: whether it has a statistic in place of a model, its rounds, and those of trees.

Where rounds grow trees, each has one exchange a level.
"""

from __future__ import annotations

from flfed import registry
from flfed.study.study import Study
from flfed.study.tables import TREES, VERTICAL

LEAST_PARTIES, MOST_PARTIES = 2, 5
"""Sites with different columns of the same people."""
LARGEST_INPUT = 16.0
"""Bound of an input of such a site, in standard deviations: larger ones are cut off."""
ANALYSIS = "analysis"
"""Name of an analysis among recorded statistics."""


def is_statistic(study: Study) -> bool:
    """Return whether a study asks for a statistic, or an analysis, in place of a model."""
    return study.statistic.name != "none" or study.analysis is not None


def visits_of(study: Study) -> int:
    """Return how often a study asks for sums of its statistic, at most; 0 without one."""
    if not is_statistic(study):
        return 0
    if study.analysis is not None:
        return 1
    visits: int = getattr(registry.load("statistic", study.statistic.name), "visits", 1)
    return visits


def grows(study: Study) -> bool:
    """Return whether a study's rounds grow trees."""
    return study.train and study.model.name == TREES


def is_vertical(study: Study) -> bool:
    """Return whether a study's sites have different columns of the same people."""
    return study.strategy.name == VERTICAL


def refits(study: Study) -> bool:
    """Return whether the trees that validation rows chose are grown anew on all training rows."""
    return grows(study) and bool(study.strategy.settings.get("refit", False))


def most_rounds(study: Study) -> int:
    """Return the most rounds of a run: none of a validation, and as many again where trees are grown anew."""
    if not study.train:
        return 0
    return study.rounds * (1 + refits(study))


def exchanges_of(study: Study) -> int:
    """Return in how many exchanges a round's trees grow, at most: one a level."""
    return int(study.model.build("model").depth)


def exchanges_of_run(study: Study) -> int:
    """Return in how many exchanges all trees grow, at most.

    0 where none do.

    Under secure sums another one opens each sum.
    """
    if not grows(study):
        return 0
    opened = study.aggregation.sums_updates
    return most_rounds(study) * exchanges_of(study) * (1 + opened)


def loss_choices(study: Study) -> list[str]:
    """Return which rules of a study choose by losses: of "select", "patience" and "plateau"."""
    settings = study.strategy.settings
    rules = {
        "select": settings.get("select") == "best",
        "patience": settings.get("patience"),
        "plateau": study.plan.schedule == "plateau",
    }
    return [name for name, is_set in rules.items() if is_set]


def exchange_number(round: int, level: int, exchanges: int) -> int:
    """Return an exchange's number in its run, from 1.

    Examples
    --------
    >>> exchange_number(1, 0, 4), exchange_number(2, 1, 4)
    (1, 6)
    """
    return (round - 1) * exchanges + level + 1


def round_and_level(number: int, exchanges: int) -> tuple[int, int]:
    """Return the round and the level of an exchange.

    Examples
    --------
    >>> round_and_level(1, 4), round_and_level(6, 4)
    ((1, 0), (2, 1))
    """
    before, level = divmod(number - 1, exchanges)
    return before + 1, level
