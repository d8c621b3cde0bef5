"""What a mechanism of `updates/privacy/` is: what it promises of a run, and how rounds are changed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flfed.plan import Plan, PrivateSteps
from flfed.study import Study
from flfed.updates.accounting import Release


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a run promises, before it begins.

    Attributes
    ----------
    mechanism : str
    unit : {"row", "person", "site"}
        Who cannot be told from the results: neighbours are tables, or federations, with and without one.
    epsilon : float
        Of the whole run as it is planned, by the accountant; not what was asked for.
    delta : float
    noise, sampling : float
        Noise multiplier and share of each step.
    clip : float
    steps : int
        Of the whole run.
    """

    mechanism: str
    unit: Literal["row", "person", "site"]
    epsilon: float
    delta: float
    noise: float
    sampling: float
    clip: float
    steps: int


class Mechanism:
    """A mechanism that changes nothing and promises nothing; each listed one says what it does instead."""

    def check(self, plan: Plan, rounds: int) -> None:
        """Refuse a plan under which the promise could not be kept.

        Raises
        ------
        UsageError
            What is wrong with the study.
        """

    def private_steps(self, plan: Plan, rounds: int) -> PrivateSteps | None:
        """Return how sites take their steps, None for as the plan says."""
        return None

    def round_release(self, plan: Plan, rounds: int) -> Release | None:
        """Return what one round spends of a site's own budget, None for nothing that its ledger counts."""
        return None

    def promise(self, plan: Plan, rounds: int) -> Promise | None:
        """Return what the run promises as it is planned, None for nothing."""
        return None


def mechanism_of(study: Study) -> Mechanism | None:
    """Return the mechanism that a study asks for, None for none.

    Raises
    ------
    UsageError
        For settings that it does not have.
    """
    if study.privacy.name == "none":
        return None
    found: Mechanism = study.privacy.build("mechanism")
    return found
