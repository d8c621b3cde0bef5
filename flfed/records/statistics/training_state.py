"""Whether the shared model of a run was trained enough, and whether its starting model may have seen test rows.

It was not trained enough where a model of its kind on all rows in one place is clearly better, by the rule of every
verdict. Without such a model, a training loss that still falls is the sign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from types import MappingProxyType

from flfed.records.objects import read, read_all, read_figure, write
from flfed.records.statistics import Report, verdict
from flfed.records.statistics.intervals import mean_of
from flfed.records.store.entries import CurvePoint
from flfed.words import render

FALLS = 0.02
"""Share by which a loss falls in the last fifth of the rounds where training ended early."""
FALLS_MUCH = 0.2
"""The same where a model on all rows shows no lack of training: the loss then goes before it."""


@dataclass(frozen=True)
class TrainingState:
    """Whether the shared model was trained enough (`enough`, None where not known), and the sign of it (`by`)."""

    enough: bool | None = None
    by: str | None = None
    fall: float | None = None
    rounds: int | None = None
    metric: str | None = None
    shared: float | None = None
    of_kind: float | None = None


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
    """Return the fall of the loss from one fifth of the rounds to the last one, None where not known.

    Each fifth has one round at least. Only sites with a loss in both count, all equally: the draw of sites for a round
    must have no effect. A loss over all sites is taken as it is.

    Parameters
    ----------
    points : sequence of CurvePoint
        Of one arm, of sites or of all of them together.
    """
    rounds = sorted({point.round for point in points if point.value is not None})
    if len(rounds) < 2:
        return None
    count = max(1, len(rounds) // 5)
    early = set(rounds[-2 * count : -count])
    late = set(rounds[-count:])
    before = []
    last = []
    for losses in _losses(points):
        first, second = ([loss for number, loss in losses.items() if number in fifth] for fifth in (early, late))
        if first and second:
            before.append(fmean(first))
            last.append(fmean(second))
    if not before or not fmean(before):
        return None
    return Fall((fmean(before) - fmean(last)) / abs(fmean(before)), count)


def _losses(points: Sequence[CurvePoint]) -> list[dict[int, float]]:
    """Return the losses by round, of each site or over all sites where recorded."""
    by_site: dict[str | None, dict[int, float]] = {}
    for point in points:
        if point.value is not None:
            by_site.setdefault(point.site, {})[point.round] = point.value
    return [by_site[None]] if None in by_site else list(by_site.values())


def training_state(
    fall: Fall | None,
    beside: Sequence[tuple[str, Report, float | None]] = (),
    *,
    by_rounds: bool = False,
    least: Mapping[str, float] = MappingProxyType({}),
) -> Report:
    """Return whether the shared model was trained enough, and the sign of it.

    Parameters
    ----------
    fall : Fall or None
        Of the loss that the sites released.
    beside : sequence of (metric, dict, float or None)
        `value`, `low` and `high` of the shared model's figure over all test rows, and the same figure of a model of its
        own kind that was trained on all rows in one place; the primary metric first.
    by_rounds : bool
        Whether that model had at most as many rounds as the shared one, as a network has: then it may be as far from
        its end, and a falling loss is the sign.
    least : mapping of metric to float
        Gain that is worthwhile, below which no distance matters, where it is not the metric's own.

    Returns
    -------
    dict
        `enough`, null where not known; `by`, "pooled", "loss" or null; `fall`, the share by which the loss fell in the
        last `rounds` rounds; `metric`, `shared` and `of-kind`, the figure in which the shared model is behind the other
        one, or the first of them.

    Examples
    --------
    >>> training_state(Fall(0.1, 1))["enough"], training_state(Fall(0.0, 8))["enough"], training_state(None)["enough"]
    (False, True, None)
    >>> training_state(None, [("roc_auc_score", {"value": 0.7, "low": 0.65, "high": 0.75}, 0.8)])["by"]
    'pooled'
    """
    state = TrainingState()
    if fall is not None:
        state = TrainingState(enough=fall.share < FALLS, by="loss", fall=fall.share, rounds=fall.rounds)
    comparisons = [one for one in beside if one[2] is not None and None not in one[1].values()]
    # The primary metric is enough; another one counts only where the loss still falls.
    falls = state.enough is False
    considered = comparisons if falls else comparisons[:1]
    margins = {metric: least.get(metric, verdict.worthwhile_of(metric)) for metric, _, _ in comparisons}
    behind = [one for one in considered if verdict.code_of(_lead(*one), margins[one[0]]) == verdict.PAYS]
    # A gap below the minimum gain matters to no verdict, however the loss falls.
    is_close = any(margins[one[0]] > 0 and (_lead(*one).value or 0.0) <= margins[one[0]] for one in comparisons[:1])
    much = fall is not None and fall.share >= FALLS_MUCH and not is_close
    if not comparisons or (falls and not behind and (by_rounds or much)):
        return write(state)
    metric, shared, kind = (behind or comparisons)[0]
    value = read_figure(shared).value
    return write(replace(state, enough=not behind, by="pooled", metric=metric, shared=value, of_kind=kind))


def _lead(metric: str, shared: Report, of_kind: float | None) -> verdict.Difference:
    """Return by how much the other model is better, above 0 where it is, with the shared model's 95 % CI."""
    lead = verdict.Difference(*((of_kind or 0.0) - shared[end] for end in ("value", "high", "low")))
    return verdict.gain_of(lead, verdict.better_of(metric))


def over_repeats(states: Sequence[Report | None]) -> Report | None:
    """Return the state of several repeats, None where there is none.

    It is the state of most conclusive repeats, with the means of their figures, all of one metric.
    """
    there = [state for state in states if state is not None]
    typed = read_all(TrainingState, there)
    conclusive_states = [state for state in typed if state.enough is not None]
    if not conclusive_states:
        return next(iter(there), None)
    alike = _majority(conclusive_states)
    means = {key: mean_of([getattr(state, key) for state in alike]) for key in ("fall", "shared", "of_kind")}
    return there[typed.index(alike[0])] | {key.replace("_", "-"): mean for key, mean in means.items()}


def _majority(states: Sequence[TrainingState]) -> list[TrainingState]:
    """Return the states of the majority, all by the same figure."""
    short = [state for state in states if not state.enough]
    most = short if 2 * len(short) > len(states) else [state for state in states if state.enough]
    kind, _ = Counter((state.by, state.metric) for state in most).most_common(1)[0]
    return [state for state in most if (state.by, state.metric) == kind]


def training_in_words(state: Report | None) -> str:
    """Return that the shared model was not trained enough, as a headline; "" where it was, or where not known.

    Examples
    --------
    >>> state = training_state(None, [("roc_auc_score", {"value": 0.7, "low": 0.65, "high": 0.75}, 0.8)])
    >>> training_in_words(state).partition(". ")[2]
    'Its AUC is 0.700; with all rows in one place 0.800.'
    >>> training_in_words(training_state(Fall(0.1, 1))).partition(". ")[2]
    'Its loss still fell by 10 % in the last round.'
    """
    training = read(TrainingState, state)
    if training.enough is not False:
        return ""
    if training.by == "loss":
        rounds = "round" if training.rounds == 1 else f"{training.rounds} rounds"
        return render("report.training.loss", fall=verdict.number(100 * (training.fall or 0.0), 0), rounds=rounds)
    if training.shared is None or training.of_kind is None or training.metric is None:
        return render("report.training.headline")
    figures = {"shared": verdict.number(training.shared), "pooled": verdict.number(training.of_kind)}
    return render("report.training.behind", metric=verdict.metric_name(training.metric), **figures)


def unknown_training(state: Report | None) -> str:
    """Return that nobody knows whether the shared model was trained enough; "" where known, or under noise."""
    if state is None or read(TrainingState, state).enough is not None:
        return ""
    return render("report.training.unknown")


def not_enough(state: Report | None) -> bool:
    """Return whether the shared model was found not to be trained enough."""
    return read(TrainingState, state).enough is False


WARM_START = "warm-start"
"""The named object of a run that began with an earlier model, and its key in the report."""


def started_over_repeats(payloads: Sequence[Report | None]) -> Report | None:
    """Return the object of a repeat whose test rows may have been trained on, else of the first; None without any."""
    there = [payload for payload in payloads if payload is not None]
    return max(there, key=lambda payload: bool(payload.get("may-have-seen")), default=None)


def seen_in_words(payload: Report | None) -> list[str]:
    """Return that the model which a run began with may have been trained on test rows; nothing where it was not.

    Examples
    --------
    >>> seen_in_words({"from": "a", "may-have-seen": False}), seen_in_words(None)
    ([], [])
    """
    if payload is None or not payload.get("may-have-seen"):
        return []
    return [
        f"Figures may be too good: {payload['from']}, the model that the run began with, may have been trained on test "
        "rows of this run, as its own run had another dataset, split or repeat, or is not known."
    ]
