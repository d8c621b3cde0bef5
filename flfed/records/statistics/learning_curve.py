"""Learning curve of a series.

It is given as JSON, as a table and in sentences.
"""

from __future__ import annotations

from collections.abc import Sequence

from flfed.records.statistics import Report
from flfed.records.statistics.intervals import possible, widening
from flfed.records.statistics.verdict import (
    DO_NOT_USE,
    MINUS,
    NO_CLEAR_GAIN,
    PAYS,
    Difference,
    better_of,
    code_of,
    describe_interval,
    gain_in_brackets,
    gain_of,
    may_be_chance,
    metric_name,
    name_interval,
    number,
    size_and_span,
    why_unclear,
    worthwhile_of,
)
from flfed.records.store.entries import LearningPoint

GAIN = "personalised - local-only"
METHOD = (
    "mean over draws; each draw keeps other rows of the site and, where its policy allows, holds out others; "
    "interval where the holdout changes: mean +- t sd sqrt(1 / draws + holdout rows / training rows) "
    "(Nadeau and Bengio 2003), for the draws share rows; where it stays: mean of the draws' own intervals; "
    "none where the metric is undefined in more than a tenth of the draws"
)


def curve_object(points: Sequence[LearningPoint], rule: Report | None = None) -> Report | None:
    """Return the report's key `learning-curve`.

    It is that of `flfed study run --json`. None where there are no points.

    A point's `rows` are the site's own training rows, the largest of a site all of them; `draws`
    are those in which the figure was defined; `freedom` are the degrees of freedom of Student's t behind
    the interval, null for a normal one. `sites` and `worthwhile` are what a gain is judged by.

    Parameters
    ----------
    points : sequence of LearningPoint
    rule : dict, optional
        A report's `verdict-rule`; without it, that of one site.
    """
    if not points:
        return None
    metric = points[0].metric
    worthwhile = (rule or {"worthwhile": {}})["worthwhile"].get(metric, worthwhile_of(metric))
    judged = {"sites": (rule or {"sites": 1})["sites"], "worthwhile": worthwhile}
    keys = ("site", "rows", "draws", "arm", "value", "low", "high", "freedom")
    lines = [{key: getattr(point, key) for key in keys} for point in points]
    return {"metric": metric, "points": lines, "method": METHOD, **judged}


def curve_rows(curve: Report) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the learning curve as a text table.

    The result has headers, rows of text and a sentence for each site. All is plain text without markup.

    Parameters
    ----------
    curve : dict
        From `curve_object`.
    """
    headers = ["site", "own rows", "site model", "adjusted to site"]
    headers.append(f"gain (+ is better), {name_interval(curve.get('sites', 1))}")
    rows, sentences = [], []
    for site, sizes in by_size(curve).items():
        for size, arms in sizes.items():
            # The largest size of a site is always all of its training rows.
            all_rows = f"{size} (all)" if size == max(sizes) else str(size)
            figures = [number(arms[arm]["value"]) for arm in ("local-only", "personalised")]
            rows.append([site, all_rows, *figures, gain_in_brackets(gain_at(arms, curve), worthwhile_in(curve))])
        sentences.append(in_words(site, sizes, curve, draws=max(point["draws"] for point in curve["points"])))
    return headers, rows, sentences


def by_size(curve: Report) -> dict[str, dict[int, dict[str, Report]]]:
    """Return the points by site, own rows and arm.

    Sites are ordered by name and rows from few to all.
    """
    found: dict[str, dict[int, dict[str, Report]]] = {}
    for point in sorted(curve["points"], key=lambda point: (point["site"], point["rows"])):
        found.setdefault(point["site"], {}).setdefault(point["rows"], {})[point["arm"]] = point
    return found


def gain_at(arms: dict[str, Report], curve: Report) -> Difference:
    """Return the gain of joining at one size.

    Above 0 is an improvement. The interval is widened for the number of sites looked at.
    """
    point = arms[GAIN]
    metric = curve["metric"]
    sites = curve.get("sites", 1)
    value = point["value"]
    low = point["low"]
    high = point["high"]
    # One site alone is looked at once, so that nothing is to be widened.
    if None in (value, low, high) or sites < 2:
        return gain_of(Difference(value, low, high), better_of(metric))
    by = widening(sites, point.get("freedom"))
    wide_low, wide_high = (possible(metric, value + by * (bound - value), difference=True) for bound in (low, high))
    return gain_of(Difference(value, low, high, wide_low, wide_high, sites), better_of(metric))


def worthwhile_in(curve: Report) -> float:
    """Return the gain that is worth joining for.

    It is the curve's own where it has one, else that of its metric.
    """
    return float(curve.get("worthwhile", worthwhile_of(curve["metric"])))


def in_words(site: str, sizes: dict[int, dict[str, Report]], curve: Report, *, draws: int) -> str:
    """Return one sentence on a site's learning curve.

    It tells the gain of joining with few rows of its own, and with all.

    Parameters
    ----------
    site : str
    sizes : mapping of own rows to arm to point
    curve : dict
        From `curve_object`.
    draws : int
        Of the curve; where a figure was undefined in some, the sentence says in how many it was defined.

    Examples
    --------
    >>> few = {"value": 0.19, "low": 0.05, "high": 0.33, "draws": 10}
    >>> many = {"value": 0.004, "low": -0.02, "high": 0.03, "draws": 8}
    >>> in_words("vienna", {10: {GAIN: few}, 85: {GAIN: many}}, {"metric": "roc_auc_score"}, draws=10).split("; ")[0]
    'vienna: with 10 rows of its own, joining gains +.190 AUC (95 % CI +.050 to +.330)'
    """
    parts = []
    # A site with one size only gets one part: the fewest rows are all of them.
    for size in dict.fromkeys((min(sizes), max(sizes))):
        own = f"with all its {size} rows" if size == max(sizes) else f"with {size} rows of its own"
        point = sizes[size][GAIN]
        some = f" (in {point['draws']} of {draws} draws)" if 0 < point["draws"] < draws else ""
        parts.append(f"{own}, {_gain_in_words(gain_at(sizes[size], curve), curve)}{some}")
    return f"{site}: {'; '.join(parts)}."


def _gain_in_words(gain: Difference, curve: Report) -> str:
    name, worthwhile = metric_name(curve["metric"]), worthwhile_in(curve)
    if gain.low is None or gain.high is None:
        often = "not defined in any draw" if gain.value is None else "defined in too few draws"
        return f"it cannot be told: {name} was {often}"
    size, _ = size_and_span(gain, worthwhile)
    span = describe_interval(gain, worthwhile)
    code = code_of(gain, worthwhile)
    if code == PAYS:
        return f"joining gains {size} {name} ({span})"
    if code != DO_NOT_USE:
        why = "" if may_be_chance(gain) else f"; {why_unclear(gain, worthwhile)}"
        return f"{NO_CLEAR_GAIN}: {size} {name} ({span}){why}"
    return f"joining costs {size.lstrip(MINUS)} {name} (gain {size}, {span})"
