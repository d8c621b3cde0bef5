"""Odds that a guarantee of privacy leaves: by how much they may change, in words."""

from __future__ import annotations

import math

PROTECTED = {
    "person": "any one person's rows, all of them, were among the training rows",
    "row": "any one row was among the training rows",
    "site": "any one site took part",
}
"""What should not be told from the results, by the unit of the guarantee."""
COUNTED = {"person": "any one person's rows, all of them, were counted", "row": "any one row was counted"}
"""The same where nothing is trained."""
SEEN = {"row": "all updates of a site", "site": "the models of the run, but not the server,"}
"""What is seen by whom the guarantee protects from, by its unit; a person's as a row's."""
SEEN_AS_SUMS = "the sums of the run, as the server does, or its models, and works together with no site"
"""The same of a promise to sites that add their noise before a secure sum."""
SMALL_EPSILON = 0.1
"""Up to this ε odds change by at most a factor of 1.11."""
UNTOLD_FACTOR = 1e6
"""What is known to be up to so many times more likely, or more, may as well be known."""


def odds_in_words(unit: str, epsilon: float, *, trusts_server: bool = True, counts: bool = False) -> str:
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

    Examples
    --------
    >>> odds_in_words("site", 1.0).partition(": ")[2]
    'the odds can change by at most e^ε, 2.72 times, but for rare results (δ).'
    """
    seen, what = SEEN.get(unit, SEEN["row"]) if trusts_server else SEEN_AS_SUMS, PROTECTED.get(unit, unit)
    if counts:
        seen, what = "the answer of a site", COUNTED.get(unit, what)
    if epsilon <= SMALL_EPSILON:
        said = f"Whoever sees {seen} learns almost the same whether or not {what}: odds change by at most e^ε"
    else:
        said = f"Whoever sees {seen} may learn something of whether {what}: the odds can change by at most e^ε"
    return f"{said}, {factor_in_words(epsilon)}, but for rare results (δ)."


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
