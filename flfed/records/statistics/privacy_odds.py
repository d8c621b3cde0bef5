"""Meaning of an ε for one person, in odds and factors, and in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flfed.records.objects import read_all
from flfed.records.statistics.verdict import number
from flfed.words import render, sentences

SMALL_EPSILON = 0.1
"""Up to this ε the odds hardly change."""
LARGEST_FACTOR = 1e6
"""A guarantee that allows a larger factor hardly protects."""
DRAWN_ONCE = (
    "An institution draws a round's noise once: a repeated request gets the same reply, or none. Only a crash or an "
    "error of its own makes it draw a round once more, which its ledger counts."
)
"""Basis of a promise, shown before and after a run."""


def odds_in_words(
    unit: str,
    epsilon: float,
    *,
    trusts_server: bool = True,
    counts: bool = False,
    summed: bool = False,
    of_all: bool = False,
) -> str:
    """Return by how much a guarantee lets odds change, without δ.

    By Bayes' rule the odds with and without sight of the results differ by a factor of at most e^ε, but
    for results that come about with a chance of about δ. Source: Dwork and Roth 2014, "The algorithmic
    foundations of differential privacy", definition 2.4.

    Parameters
    ----------
    unit : {"row", "person", "site"}
    epsilon : float, >= 0
    trusts_server : bool
        Whether a promise to sites assumes a server that is trusted.
    counts : bool
        Whether rows are counted once and nothing is trained.
    summed : bool
        Whether such counts leave in sums over sites alone.
    of_all : bool
        Whether the guarantee is for all releases of a site, and not updates alone.

    Examples
    --------
    >>> odds_in_words("site", 1.0).partition(": ")[2]
    'the odds can change by at most e^ε, 2.72 times, but for rare results (δ).'
    """
    event = render(f"privacy.protected.{unit}")
    seen = "sums-or-models"
    if trusts_server:
        seen = "models" if unit == "site" else "updates"
    if counts:
        event = render(f"privacy.counted.{unit}")
        seen = "sum-of-answers" if summed else "answer"
    if of_all:
        event = render(f"privacy.in-table.{unit}")
        seen = "releases"
    facts = {"seen": render(f"privacy.seen.{seen}"), "event": event, "factor": factor_in_words(epsilon)}
    if epsilon <= SMALL_EPSILON:
        return render("privacy.odds.small", **facts)
    return render("privacy.odds.large", **facts)


def accounts_in_words(unit: str, charge_payloads: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the separate accounts where the budget covers all releases, and their reserves.

    Examples
    --------
    >>> of = {"side": "holdout"}
    >>> reserves = [of | {"name": "sums", "share": 0.05}, of | {"name": "comparison", "share": 0.4}]
    >>> accounts_in_words("person", reserves)[1].partition(": ")[0]
    'Of the account of persons held out, 0.45 is reserved and not spent'
    """
    lines = [render("privacy.spent.accounts", units=f"{unit.capitalize()}s", unit=unit)]
    charges = read_all(Charge, charge_payloads)
    for side, word in SIDES.items():
        reserves = [of for of in charges if of.side == side]
        if reserves:
            whole = number(math.fsum(of.share for of in reserves), 2)
            names = sentences("names", "reserves")
            purposes = " and ".join(f"{number(of.share, 2)} for {names.get(of.name, of.name)}" for of in reserves)
            facts = {"unit": unit, "side": word, "share": whole, "purposes": purposes}
            lines.append(render("privacy.spent.reserved", **facts))
    return lines


SIDES = {"training": "trained on", "holdout": "held out"}
"""Words for the sides of the holdout, each with an account."""


def factor_in_words(epsilon: float) -> str:
    """Return e^ε with three significant digits, rounded up, so that no guarantee looks better than it is.

    Examples
    --------
    >>> factor_in_words(0.05), factor_in_words(1.0), factor_in_words(3.0), factor_in_words(8.0)
    ('1.06 times', '2.72 times', '20.1 times', '2,990 times')
    >>> factor_in_words(14.0)
    'more than a million times: it hardly protects'
    """
    if epsilon > math.log(LARGEST_FACTOR):
        return render("privacy.odds.beyond")
    factor = math.exp(epsilon)
    # The step is the third digit; the inner rounding keeps 2.0 from becoming 2.01 by float error.
    step = 10.0 ** (math.floor(math.log10(factor)) - 2)
    least = math.ceil(round(factor / step, 9)) * step
    return f"{least:,.{max(0, -round(math.log10(step)))}f} times"


@dataclass(frozen=True)
class Charge:
    """A reply with noise beside training, or a reserve of a budget: side of its rows (`SIDES`), and share of μ²."""

    name: str = ""
    side: str = ""
    noise: float | None = None
    share: float = 0.0
