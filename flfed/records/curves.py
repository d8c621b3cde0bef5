"""The learning curve of a series, as JSON, as a table and in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flfed.records.entries import LearningPoint
from flfed.records.verdicts import (
    MINUS,
    NO_CLEAR_GAIN,
    Difference,
    better_of,
    gain_in_brackets,
    gain_of,
    gain_with_interval,
    metric_name,
    number,
)

Report = dict[str, Any]

GAIN = "personalised - local-only"
METHOD = (
    "mean over draws; each draw keeps other rows of the site and, where its policy allows, holds out others; "
    "interval where the holdout changes: mean +- t sd sqrt(1 / draws + holdout rows / training rows) "
    "(Nadeau and Bengio 2003), for the draws share rows; where it stays: mean of the draws' own intervals; "
    "none where the metric is undefined in more than a tenth of the draws"
)


def curve_object(points: Sequence[LearningPoint]) -> Report | None:
    """Return the key `learning-curve` of `flfed study run --json`; None where there are no points.

    A point's `rows` are the site's own training rows, the largest of a site all of them; `draws`
    are those in which the figure was defined.
    """
    if not points:
        return None
    keys = ("site", "rows", "draws", "arm", "value", "low", "high")
    lines = [{key: getattr(point, key) for key in keys} for point in points]
    return {"metric": points[0].metric, "points": lines, "method": METHOD}


def curve_rows(curve: Report) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the learning curve as headers, rows of text and a sentence a site; plain text, no markup.

    Parameters
    ----------
    curve : dict
        From `curve_object`.
    """
    headers = ["site", "own rows", "own model alone", "adjusted to site", "gain (+ is better), 95 %"]
    rows, sentences = [], []
    metric = curve["metric"]
    for site, sizes in by_size(curve).items():
        for size, arms in sizes.items():
            all_rows = f"{size} (all)" if size == max(sizes) else str(size)
            figures = [number(arms[arm]["value"]) for arm in ("local-only", "personalised")]
            rows.append([site, all_rows, *figures, gain_in_brackets(gain_at(arms, metric))])
        sentences.append(in_words(site, sizes, metric, draws=max(point["draws"] for point in curve["points"])))
    return headers, rows, sentences


def by_size(curve: Report) -> dict[str, dict[int, dict[str, Report]]]:
    """Return the points by site, own rows and arm; sites by name, rows from few to all."""
    found: dict[str, dict[int, dict[str, Report]]] = {}
    for point in sorted(curve["points"], key=lambda point: (point["site"], point["rows"])):
        found.setdefault(point["site"], {}).setdefault(point["rows"], {})[point["arm"]] = point
    return found


def gain_at(arms: dict[str, Report], metric: str) -> Difference:
    """Return what joining gains at one size (above 0 is an improvement)."""
    point = arms[GAIN]
    return gain_of(Difference(point["value"], point["low"], point["high"]), better_of(metric))


def in_words(site: str, sizes: dict[int, dict[str, Report]], metric: str, *, draws: int) -> str:
    """Return one sentence on a site: what joining gains with few rows of its own, and with all.

    Parameters
    ----------
    site : str
    sizes : mapping of own rows to arm to point
    metric : str
    draws : int
        Of the curve; where a figure was undefined in some, the sentence says in how many it was defined.

    Examples
    --------
    >>> few = {"value": 0.19, "low": 0.05, "high": 0.33, "draws": 10}
    >>> many = {"value": 0.004, "low": -0.02, "high": 0.03, "draws": 8}
    >>> in_words("vienna", {10: {GAIN: few}, 85: {GAIN: many}}, "roc_auc_score", draws=10).split("; ")[0]
    'vienna: with 10 rows of its own, joining gains +.190 AUC (95 % interval +.050 to +.330)'
    """
    parts = []
    for size in dict.fromkeys((min(sizes), max(sizes))):
        own = f"with all its {size} rows" if size == max(sizes) else f"with {size} rows of its own"
        point = sizes[size][GAIN]
        some = f" (in {point['draws']} of {draws} draws)" if 0 < point["draws"] < draws else ""
        parts.append(f"{own}, {_gain_in_words(gain_at(sizes[size], metric), metric)}{some}")
    return f"{site}: {'; '.join(parts)}."


def _gain_in_words(gain: Difference, metric: str) -> str:
    name = metric_name(metric)
    if gain.low is None or gain.high is None:
        often = "not defined in any draw" if gain.value is None else "defined in too few draws"
        return f"it cannot be told: {name} was {often}"
    size, _, span = gain_with_interval(gain).partition(", ")
    if gain.low <= 0 <= gain.high:
        return f"{NO_CLEAR_GAIN}: {size} {name} ({span})"
    if gain.low > 0:
        return f"joining gains {size} {name} ({span})"
    return f"joining costs {size.lstrip(MINUS)} {name} (gain {size}, {span})"
