"""Exchanges of a study whose rounds grow trees: one a level."""

from __future__ import annotations

from flfed.study.study import Study
from flfed.trees.forest import TREES


def grows(study: Study) -> bool:
    """Tell whether a study's rounds grow trees."""
    return study.model.name == TREES


def exchanges_of(study: Study) -> int:
    """Return in how many exchanges a round's trees grow, at most: one a level."""
    return int(study.model.build("model").depth)


def exchanges_of_run(study: Study) -> int:
    """Return in how many exchanges all trees grow, at most; under secure sums another one opens each sum."""
    opened = study.secure_aggregation != "off"
    return study.rounds * exchanges_of(study) * (1 + opened)


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
