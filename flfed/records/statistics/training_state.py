"""Whether the shared model of a run was trained enough to be judged.

It was not where a model of its own kind, trained on all rows in one place, is clearly better; or, where nobody has such
a model, where its training loss still falls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from flfed.records.statistics import Report
from flfed.records.statistics.intervals import mean_of
from flfed.records.statistics.verdict import better_of, metric_name, number, sentence_case
from flfed.records.store.entries import CurvePoint

FALLS = 0.02
"""Share of a loss by which it falls in the last fifth of the rounds where training was ended early."""
FALLS_MUCH = 0.2
"""The same where a model on all rows says that training was enough: no figure is believed then."""
NOT_ENOUGH = "the shared model was not trained enough to be judged: try more rounds"
NOT_KNOWN = (
    "Whether the shared model was trained enough is not known: no training losses of several rounds left the sites, "
    "and nobody has a model of all rows."
)
TRY = f"{sentence_case(NOT_ENOUGH)} or a higher learning rate."


@dataclass(frozen=True)
class Fall:
    """Fall of a loss at the end of a run.

    Attributes
    ----------
    share : float
        Of the loss before.
    rounds : int
        Over so many.
    """

    share: float
    rounds: int


def loss_fall(points: Sequence[CurvePoint]) -> Fall | None:
    """Return by how much the loss fell from one fifth of the rounds to the last one, None where that is not known.

    Each fifth has one round at least. Only sites with a loss in both are looked at, and each counts as much: who is
    drawn for a round must not move it. A loss of all sites together stands for itself.

    Parameters
    ----------
    points : sequence of CurvePoint
        Of one arm, of sites or of all of them together.
    """
    rounds = sorted({point.round for point in points if point.value is not None})
    if len(rounds) < 2:
        return None
    count = max(1, len(rounds) // 5)
    early, late = set(rounds[-2 * count : -count]), set(rounds[-count:])
    by_site: dict[str | None, dict[int, float]] = {}
    for point in points:
        if point.value is not None:
            by_site.setdefault(point.site, {})[point.round] = point.value
    known = [by_site[None]] if None in by_site else list(by_site.values())
    before, last = [], []
    for losses in known:
        first = [loss for number, loss in losses.items() if number in early]
        second = [loss for number, loss in losses.items() if number in late]
        if first and second:
            before.append(fmean(first))
            last.append(fmean(second))
    if not before or not fmean(before):
        return None
    return Fall((fmean(before) - fmean(last)) / abs(fmean(before)), count)


def training_state(
    fall: Fall | None, beside: Sequence[tuple[str, Report, float | None]] = (), *, by_rounds: bool = False
) -> Report:
    """Return whether the shared model was trained enough, and by what that is known.

    Parameters
    ----------
    fall : Fall or None
        Of the loss that left the sites.
    beside : sequence of (metric, dict, float or None)
        `value`, `low` and `high` of the shared model's figure over all test rows, and the same figure of a model of its
        own kind that was trained on all rows in one place; the primary metric first.
    by_rounds : bool
        Whether that model had at most as many rounds as the shared one, as a network has: then it may be as far from
        its end, and a falling loss says so.

    Returns
    -------
    dict
        `enough`, null where it is not known; `by`, "pooled", "loss" or null; `fall`, the share of the loss by which it
        fell in the last `rounds` rounds; `metric`, `shared` and `of-kind`, the figure by which the shared model is
        behind the other one, or the first of them.

    Examples
    --------
    >>> training_state(Fall(0.1, 1))["enough"], training_state(Fall(0.0, 8))["enough"], training_state(None)["enough"]
    (False, True, None)
    >>> training_state(None, [("roc_auc_score", {"value": 0.7, "low": 0.65, "high": 0.75}, 0.8)])["by"]
    'pooled'
    """
    state: Report = {"enough": None, "by": None, "fall": None, "rounds": None}
    state |= {"metric": None, "shared": None, "of-kind": None}
    if fall is not None:
        state |= {"enough": fall.share < FALLS, "by": "loss", "fall": fall.share, "rounds": fall.rounds}
    known = [one for one in beside if one[2] is not None and None not in one[1].values()]
    if not known:
        return state
    # By its primary figure a model is behind; by another one only where its loss still falls, too.
    falls = state["enough"] is False
    looked_at = known if falls else known[:1]
    behind = [one for one in looked_at if _is_behind(*one)]
    much = fall is not None and fall.share >= FALLS_MUCH
    if falls and not behind and (by_rounds or much):
        return state
    metric, shared, kind = (behind or known)[0]
    return state | {
        "enough": not behind, "by": "pooled", "metric": metric, "shared": shared["value"], "of-kind": kind
    }  # fmt: skip


def _is_behind(metric: str, shared: Report, of_kind: float | None) -> bool:
    """Tell whether the shared model's 95 % CI ends before the other model's figure."""
    if of_kind is None:
        return False
    if better_of(metric) == "higher":
        return bool(of_kind > shared["high"])
    return bool(of_kind < shared["low"])


def over_repeats(states: Sequence[Report | None]) -> Report | None:
    """Return the state of several repeats, None where there is none.

    It is what most of those say that know it, with the means of their figures, all of one metric.
    """
    there = [state for state in states if state is not None]
    known = [state for state in there if state["enough"] is not None]
    if not known:
        return there[0] if there else None
    short = [state for state in known if not state["enough"]]
    most = short if 2 * len(short) > len(known) else [state for state in known if state["enough"]]
    kinds = Counter((state["by"], state.get("metric")) for state in most)
    kind, _ = kinds.most_common(1)[0]
    alike = [state for state in most if (state["by"], state.get("metric")) == kind]
    return alike[0] | {key: mean_of([state.get(key) for state in alike]) for key in ("fall", "shared", "of-kind")}


def training_in_words(state: Report | None) -> str:
    """Return that the shared model was not trained enough, as a headline; "" where it was, or it is not known.

    Examples
    --------
    >>> state = training_state(None, [("roc_auc_score", {"value": 0.7, "low": 0.65, "high": 0.75}, 0.8)])
    >>> training_in_words(state).partition(". ")[2]
    'Its AUC is .700; with all rows in one place .800.'
    >>> training_in_words(training_state(Fall(0.1, 1))).partition(". ")[2]
    'Its loss still fell by 10 % in the last round.'
    """
    if state is None or state["enough"] is not False:
        return ""
    if state["by"] == "loss":
        rounds = "round" if state["rounds"] == 1 else f"{state['rounds']} rounds"
        return f"{TRY} Its loss still fell by {100 * state['fall']:.0f} % in the last {rounds}."
    if state.get("shared") is None or state.get("of-kind") is None:
        return TRY  # the figures of others are not shown to one site's people
    name = metric_name(state["metric"])
    return f"{TRY} Its {name} is {number(state['shared'])}; with all rows in one place {number(state['of-kind'])}."


def unknown_training(state: Report | None) -> str:
    """Return that it is not known whether the shared model was trained enough; "" where it is, or under noise."""
    return NOT_KNOWN if state is not None and state["enough"] is None else ""


def not_enough(state: Report | None) -> bool:
    """Tell whether the shared model is known not to be trained enough."""
    return state is not None and state["enough"] is False
