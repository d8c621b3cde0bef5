"""Windows over a series of steps: earlier values, means and sums of the last steps, values ahead, quantiles."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flfed.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Window:
    """One line of `windows`: what is known of the series at a row's step, besides the row.

    Attributes
    ----------
    what : {"lag", "mean", "sum", "lead", "quantile"}
        The value `steps` ago; mean or sum of the last `steps`, the row's own included; the value `steps` ahead, which
        an outcome may be and no input; or the quantile `q` of the series' values up to `until`.
    of : str
        A value's column.
    steps : tuple of int, >= 1
        One column for each, in whose name `{steps}` stands for it.
    q : float in (0, 1)
    until : str
        Last day that a quantile counts, such as 2024-08-31.
    """

    what: Literal["lag", "mean", "sum", "lead", "quantile"]
    of: str
    steps: tuple[int, ...] = (1,)
    q: float = 0.5
    until: str = ""

    def values(self, count: int, values: pd.Series) -> pd.Series | float:
        """Return the column for `count` steps; `values` has every step, in order, a missing one as NaN."""
        found: pd.Series | float = _WHAT[self.what](self, count, values)
        return found


def window_of(name: str, given: Mapping[str, Any], values: Collection[str]) -> Window:
    """Return a line of `windows`; raises UsageError where it is none. `values` names the columns that have values."""
    steps = given.get("steps", 1)
    several = tuple(steps) if isinstance(steps, list) else (steps,)
    try:
        window = Window(**{**given, "steps": several})
    except TypeError:
        raise UsageError(f"windows: {name!r} takes what, of, steps, q and until, and needs what and of") from None
    if window.what not in _WHAT or window.of not in values:
        raise UsageError(
            f"windows: {name!r}: what must be one of {', '.join(_WHAT)}, and of a column of mean, sum or last "
            f"({', '.join(values)})"
        )
    if not all(isinstance(count, int) and count >= 1 for count in window.steps):
        raise UsageError(f"windows: {name!r}: steps must be whole numbers, at least 1")
    if len(window.steps) > 1 and "{steps}" not in name:
        raise UsageError(f"windows: {name!r} needs {{steps}} in its name, for it has several")
    return window


def _lag(window: Window, count: int, values: pd.Series) -> pd.Series:
    return values.shift(count)


def _lead(window: Window, count: int, values: pd.Series) -> pd.Series:
    return values.shift(-count)


def _mean(window: Window, count: int, values: pd.Series) -> pd.Series:
    return _sum(window, count, values) / count


def _sum(window: Window, count: int, values: pd.Series) -> pd.Series:
    # Added anew for each row: a running sum would carry its rounding from row to row.
    return functools.reduce(operator.add, [values.shift(ago) for ago in range(count)])


def _quantile(window: Window, count: int, values: pd.Series) -> float:
    known = values.loc[: window.until] if window.until else values
    return float(known.quantile(window.q))


_WHAT: dict[str, Callable[[Window, int, Any], Any]] = {
    "lag": _lag,
    "mean": _mean,
    "sum": _sum,
    "lead": _lead,
    "quantile": _quantile,
}
