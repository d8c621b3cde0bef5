"""What kind of study one is: whether it has a statistic in place of a model, its rounds, and those of trees.

Where rounds grow trees, each has one exchange a level.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flfed import registry
from flfed.study.analysis import Analysis
from flfed.study.plan import Plan
from flfed.study.tables import TREES, VERTICAL, Named
from flfed.words import render

LEAST_PARTIES, MOST_PARTIES = 2, 5
"""Sites with different columns of the same people."""
LARGEST_INPUT = 16.0
"""Bound of an input of such a site, in standard deviations: larger ones are cut off."""
ANALYSIS = "analysis"
"""Name of an analysis among recorded statistics."""


def absent_effects(terms: Iterable[str]) -> list[str]:
    """Return a warning where a column of a product such as "age * sex=male" is not among the terms itself."""
    products = [[part.strip() for part in term.split(" * ")] for term in terms]
    own = [part for part, *others in products if not others]
    columns = dict.fromkeys(part.partition("=")[0] for parts in products for part in parts if part not in own)
    return [render("report.regression.main", columns=", ".join(columns))] if columns else []


@dataclass(frozen=True, kw_only=True)
class StudyKind:
    """The tables of a study from which its kind follows.

    Attributes
    ----------
    model, plan, strategy, rounds, train, statistic, analysis
        As `Study` has them.
    """

    model: Named
    plan: Plan
    strategy: Named
    rounds: int = 1
    train: bool = True
    statistic: Named = Named(name="none")
    analysis: Analysis | None = None

    @property
    def is_statistic(self) -> bool:
        """Whether it asks for a statistic, or an analysis, in place of a model."""
        return self.statistic.name != "none" or self.analysis is not None

    @property
    def statistic_name(self) -> str:
        """Name of its statistic, or analysis, in records."""
        return self.statistic.name if self.analysis is None else ANALYSIS

    @property
    def visits(self) -> int:
        """How often it asks for sums of its statistic, at most; 0 without one."""
        if not self.is_statistic:
            return 0
        if self.analysis is not None:
            return 1
        visits: int = getattr(registry.load("statistic", self.statistic.name), "visits", 1)
        return visits

    @property
    def grows_trees(self) -> bool:
        """Whether its rounds grow trees."""
        return self.train and self.model.name == TREES

    @property
    def is_vertical(self) -> bool:
        """Whether its sites have different columns of the same people."""
        return self.strategy.name == VERTICAL

    @property
    def most_rounds(self) -> int:
        """Most rounds of a run: none of a validation."""
        return self.rounds if self.train else 0

    @property
    def exchanges_of_round(self) -> int:
        """In how many exchanges a round's trees grow, at most: one a level."""
        return int(self.model.build("model").depth)

    @property
    def exchanges_of_rounds(self) -> int:
        """In how many exchanges all trees grow, at most; 0 where none do."""
        if not self.grows_trees:
            return 0
        return self.most_rounds * self.exchanges_of_round

    @property
    def loss_choices(self) -> list[str]:
        """Rules that choose by losses: of "select", "patience" and "plateau"."""
        settings = self.strategy.settings
        rules = {
            "select": settings.get("select") == "best",
            "patience": settings.get("patience"),
            "plateau": self.plan.schedule == "plateau",
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
