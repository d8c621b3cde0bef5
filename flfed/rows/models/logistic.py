"""Logistic regression.

Multinomial where the target has more than two classes.
"""

from __future__ import annotations

from flfed.rows.models.linear import Linear


class Logistic(Linear):
    """Log-odds `x @ weight + bias`.

    The parameters are those of `Linear`.

    Source: Cox 1958, "The regression analysis of binary sequences".
    """

    tasks = ("binary", "multi-class")
