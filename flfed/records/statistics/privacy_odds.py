"""What an ε means for one person, in odds and factors, and in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flfed.records.objects import read_all
from flfed.records.statistics.verdict import number

PROTECTED = {
    "person": "any one person's rows, all of them, were among the training rows",
    "row": "any one row was among the training rows",
    "site": "any one site took part",
}
"""What should not be told from the results, by the unit of the guarantee."""


COUNTED = {"person": "any one person's rows, all of them, were counted", "row": "any one row was counted"}
"""The same where nothing is trained."""


IN_TABLE = {"person": "any one person's rows, all of them, were in its table", "row": "any one row was in its table"}
"""The same where all that leaves a site is charged: of rows that are trained on, and of rows that are held out."""


SEEN_UPDATES = "all updates of a site"
"""What is seen by whom a guarantee to rows or persons protects from."""


SEEN_MODELS = "the models of the run, but not the server,"
"""The same of a guarantee to whole sites."""


SEEN_AS_SUMS = "the sums of the run, as the server does, or its models, and works together with no site"
"""The same of a promise to sites that add their noise before a secure sum."""


SMALL_EPSILON = 0.1
"""Up to this ε odds change by at most a factor of 1.11."""


UNTOLD_FACTOR = 1e6
"""What is known to be up to so many times more likely, or more, may as well be known."""


DRAWN_ONCE = (
    "An institution draws a round's noise once: who asks again gets the same reply, or none. Only a crash or an "
    "error of its own makes it draw a round once more, which its ledger counts."
)
"""What a promise rests on, for people: said before and after a run."""


def odds_in_words(
    unit: str,
    epsilon: float,
    *,
    trusts_server: bool = True,
    counts: bool = False,
    summed: bool = False,
    covers: bool = False,
) -> str:
    """Return by how much a guarantee lets odds change.

    δ is left out of it.

    By Bayes' rule the odds with and without a sight of the results differ by a factor of at most e^ε, but
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
    covers : bool
        Whether all that leaves a site is charged, and not updates alone.

    Examples
    --------
    >>> odds_in_words("site", 1.0).partition(": ")[2]
    'the odds can change by at most e^ε, 2.72 times, but for rare results (δ).'
    """
    what = PROTECTED.get(unit, unit)
    seen = SEEN_AS_SUMS
    if trusts_server:
        seen = SEEN_UPDATES if unit != "site" else SEEN_MODELS
    if counts:
        what = COUNTED.get(unit, what)
        seen = "the sum of the answers" if summed else "the answer of a site"
    if covers:
        what = IN_TABLE.get(unit, what)
        seen = "all that leaves a site of its rows"
    if epsilon <= SMALL_EPSILON:
        sentence = f"Whoever sees {seen} learns almost the same whether or not {what}: odds change by at most e^ε"
    else:
        sentence = f"Whoever sees {seen} may learn something of whether {what}: the odds can change by at most e^ε"
    return f"{sentence}, {factor_in_words(epsilon)}, but for rare results (δ)."


RESERVED_FOR = {
    "comparison": "a comparison with the sites' own models",
    "sums": "numbers of rows by class",
}
"""What a part of a budget is kept back for, by its name in the record."""


def accounts_in_words(unit: str, charge_payloads: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return whose accounts are apart where all that leaves is charged, and what of them is kept back.

    Examples
    --------
    >>> of = {"side": "holdout"}
    >>> kept = [of | {"name": "sums", "share": 0.05}, of | {"name": "comparison", "share": 0.4}]
    >>> accounts_in_words("person", kept)[1].partition(": ")[0]
    'Of the account of persons held out 0.45 is kept back and not spent'
    """
    apart = (
        f"{unit.capitalize()}s trained on and {unit}s held out have accounts apart, each with the whole ε: in a run "
        f"every {unit} is on one side alone."
    )
    sentences = [apart]
    charges = read_all(Charge, charge_payloads)
    for side, word in SIDES.items():
        reserves = [of for of in charges if of.side == side]
        if reserves:
            whole = number(math.fsum(of.share for of in reserves), 2)
            for_what = " and ".join(
                f"{number(of.share, 2)} for {RESERVED_FOR.get(of.name, of.name)}" for of in reserves
            )
            sentences.append(f"Of the account of {unit}s {word} {whole} is kept back and not spent: {for_what}.")
    return sentences


SIDES = {"training": "trained on", "holdout": "held out"}
"""Whose account a charge is in."""


def factor_in_words(epsilon: float) -> str:
    """Return e^ε with three significant digits, rounded up.

    So a guarantee is never shown as better than it is.

    Examples
    --------
    >>> factor_in_words(0.05), factor_in_words(1.0), factor_in_words(3.0), factor_in_words(8.0)
    ('1.06 times', '2.72 times', '20.1 times', '2,990 times')
    >>> factor_in_words(14.0)
    'more than a million times: it hardly protects'
    """
    if epsilon > math.log(UNTOLD_FACTOR):
        return "more than a million times: it hardly protects"
    factor = math.exp(epsilon)
    # The step is the third digit; the inner rounding keeps 2.0 from becoming 2.01 by float error.
    step = 10.0 ** (math.floor(math.log10(factor)) - 2)
    least = math.ceil(round(factor / step, 9)) * step
    return f"{least:,.{max(0, -round(math.log10(step)))}f} times"


@dataclass(frozen=True)
class Charge:
    """A noised answer beside training, or what is kept back of a budget: whose rows (`SIDES`), and its share of μ²."""

    name: str = ""
    side: str = ""
    noise: float | None = None
    share: float = 0.0
