"""Operating points of a run in tables and sentences: who would be flagged at a threshold or an alert budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from flfed.records.statistics.operating_points import OperatingPoint, in_words
from flfed.records.statistics.score_curves import ScoreCounts
from flfed.records.statistics.score_tables import ALL, TOGETHER, is_together
from flfed.records.statistics.verdict import ABSENT, number

CELLS = (
    "of them with the outcome (TP)", "without it (FP)", "Not flagged, with the outcome (FN)", "without it (TN)",
)  # fmt: skip
FEW_EVENTS = 0.01
"""Share of rows with the outcome below which the first budget is a hundredth of the rows."""
FROM_BINS = (
    "From the counts that draw the curves, so a threshold is the edge of a bin. "
    "Counts are of test rows that nobody trained on; with few of them the shares are uncertain."
)
EXACT = (
    "Each site counted its test rows exactly; a count that its policy holds back is not there, nor is one from "
    "which such a count would follow."
)
AT_BUDGET = " At an alert budget each site flags that share of its own rows."


def share_with_outcome(found: Mapping[str, ScoreCounts]) -> float:
    """Return the share with the outcome of the most rows, those of all together."""
    most = max(found.values(), key=lambda counts: counts.rows)
    return most.events / max(most.rows, 1)


def first_budget(share: float) -> float:
    """Return the alert budget that is shown first, a share of rows."""
    return 0.01 if share < FEW_EVENTS else 0.05


def first_threshold(offered: Sequence[float], share: float) -> float:
    """Return the threshold that is shown first: that near the share with the outcome."""
    return min(offered[:-1], key=lambda edge: abs(edge - share))


def first_in_words(points: Mapping[str, OperatingPoint]) -> str:
    """Return in words what the first table is, that of all sites where it is there."""
    name, said = next(((name, in_words(point)) for name, point in points.items()), ("", ""))
    start = f"{name[0].upper()}{name[1:]}" if is_together(name) else name
    return f"{start}: {said}" if said else ""


def asked_points(payload: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the thresholds and alert budgets at which sites counted exactly."""
    lists = [payload["all"], *payload["sites"].values()]
    return list(dict.fromkeys((of["by"], of["at"]) for one in lists for of in one))


def exact_lines(
    payload: Mapping[str, Any], by: str, at: float
) -> tuple[list[dict[str, str]], dict[str, OperatingPoint]]:
    """Return the exact counts at one point, a line each, and those that are known.

    Parameters
    ----------
    payload : dict
        The object "operating-points" of a run.
    by, at : str and float
        One of `asked_points`.
    """
    lines: dict[str, dict[str, str]] = {}
    known: dict[str, OperatingPoint] = {}
    for name, one in _named(payload).items():
        of = next((of for of in one if (of["by"], of["at"]) == (by, at)), None)
        if of is None or of["tp"] is None:
            why = "not told" if of is None else of.get("why") or "withheld"
            lines[name] = {"Rows of": name, "Flagged from": ABSENT, "Flagged": why} | dict.fromkeys(CELLS, ABSENT)
        else:
            threshold = of["at"] if of["by"] == "threshold" else None
            known[name] = OperatingPoint(threshold, of["tp"], of["fp"], of["fn"], of["tn"])
            lines[name] = counts_line(name, known[name])
    return list(lines.values()), known


def _named(payload: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the points of all sites together, where these are several, and of each site."""
    inside = max((of["sites"] for of in payload["all"]), default=0)
    name = ALL if inside >= payload["asked"] else f"{inside} of {payload['asked']} {TOGETHER}"
    together = {name: [of for of in payload["all"] if of["sites"] == inside]} if inside > 1 else {}
    return together | {site: payload["sites"][site] for site in sorted(payload["sites"])}


def point_in_words(by: str, at: float) -> str:
    """Return a threshold or an alert budget in words."""
    return f"a probability of at least {probability(at)}" if by == "threshold" else f"an alert budget of {100 * at:g} %"


def probability(value: float) -> str:
    """Return a probability with three digits that count.

    Examples
    --------
    >>> probability(0.0), probability(0.00012345), probability(0.5), probability(1.0)
    ('0', '.000123', '.5', '1')
    >>> probability(0.0000001), probability(0.9996)
    ('.0000001', '.9996')
    """
    # Near 1 it is the distance to 1 that counts: .9996 is not 1.
    shown = Decimal(f"{value:.3g}")
    exact = 1 - Decimal(f"{1 - value:.1g}") if value < 1 <= shown else shown
    text = f"{exact:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).removeprefix("0") or "0"


def counts_line(name: str, point: OperatingPoint) -> dict[str, str]:
    """Return a confusion table, for a table of several."""
    return {
        "Rows of": name,
        "Flagged from": ABSENT if point.threshold is None else probability(point.threshold),
        "Flagged": f"{point.alerts} of {point.rows}",
        **dict(zip(CELLS, map(str, (point.tp, point.fp, point.fn, point.tn)), strict=True)),
    }


def figures_line(name: str, point: OperatingPoint) -> dict[str, str]:
    """Return the figures of a confusion table, for a table of several."""
    per_1000 = point.alerts_per_1000
    return {
        "Rows of": name,
        "Sensitivity": number(point.sensitivity),
        "Specificity": number(point.specificity),
        "PPV": number(point.ppv),
        "NPV": number(point.npv),
        "Alerts per 1,000": ABSENT if per_1000 is None else f"{per_1000:.1f}",
        "Net benefit": number(point.net_benefit),
        "Net benefit of flagging everybody": number(point.net_benefit_of_all),
    }
