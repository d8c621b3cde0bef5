"""Logistic regression.

Multinomial where the target has more than two classes.
"""

from __future__ import annotations

from flfed.rows.models.linear import Linear


class Logistic(Linear):
    """Logistic regression: log-odds `x @ weight + bias`, for classes.

    The parameters are those of `Linear`.

    Source: Cox 1958, "The regression analysis of binary sequences".
    """

    tasks = ("binary", "multi-class")
