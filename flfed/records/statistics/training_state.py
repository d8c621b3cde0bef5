"""Whether the shared model of a run was trained enough to be judged, and on which test rows it was trained already.

It was not where a model of its own kind, trained on all rows in one place, is clearly better; or, where nobody has such
a model, where its training loss still falls. Test rows that the model which it began with was trained on are counted
over repeats, and told in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean
from typing import Any

from flfed.errors import counted
from flfed.records.objects import read, read_all, read_figure, write
from flfed.records.statistics import Report
from flfed.records.statistics.intervals import mean_of
from flfed.records.statistics.verdict import better_of, metric_name, number, sentence_case
from flfed.records.store.entries import CurvePoint

FALLS = 0.02
"""Share of a loss by which it falls in the last fifth of the rounds where training was ended early."""
FALLS_MUCH = 0.2
"""The same where a model on all rows says that training was enough: no figure is believed then."""
NOT_ENOUGH = "the shared model was not trained enough to be judged: try more rounds"
TRAINING_UNKNOWN = (
    "Whether the shared model was trained enough is not known: no training losses of several rounds left the sites, "
    "and nobody has a model of all rows."
)
TRY = f"{sentence_case(NOT_ENOUGH)} or a higher learning rate."


@dataclass(frozen=True)
class TrainingState:
    """Whether the shared model was trained enough (`enough`, None where not known), and by what that is judged."""

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
    """Return the losses by round of each site, or of all sites together where these are there."""
    by_site: dict[str | None, dict[int, float]] = {}
    for point in points:
        if point.value is not None:
            by_site.setdefault(point.site, {})[point.round] = point.value
    return [by_site[None]] if None in by_site else list(by_site.values())


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
    state = TrainingState()
    if fall is not None:
        state = TrainingState(enough=fall.share < FALLS, by="loss", fall=fall.share, rounds=fall.rounds)
    comparisons = [one for one in beside if one[2] is not None and None not in one[1].values()]
    if not comparisons:
        return _written(state)
    # By its primary figure a model is behind; by another one only where its loss still falls, too.
    falls = state.enough is False
    looked_at = comparisons if falls else comparisons[:1]
    behind = [one for one in looked_at if _is_behind(*one)]
    much = fall is not None and fall.share >= FALLS_MUCH
    if falls and not behind and (by_rounds or much):
        return _written(state)
    metric, shared, kind = (behind or comparisons)[0]
    value = read_figure(shared).value
    return _written(replace(state, enough=not behind, by="pooled", metric=metric, shared=value, of_kind=kind))


def _written(state: TrainingState) -> Report:
    report: Report = write(state)
    return report


def _is_behind(metric: str, shared: Report, of_kind: float | None) -> bool:
    """Tell whether the shared model's 95 % CI ends before the other model's figure."""
    if of_kind is None:
        return False
    ends = read_figure(shared)
    if better_of(metric) == "higher":
        return ends.high is not None and of_kind > ends.high
    return ends.low is not None and of_kind < ends.low


def over_repeats(states: Sequence[Report | None]) -> Report | None:
    """Return the state of several repeats, None where there is none.

    It is what most of those say that know it, with the means of their figures, all of one metric.
    """
    there = [state for state in states if state is not None]
    typed = read_all(TrainingState, there)
    conclusive_states = [state for state in typed if state.enough is not None]
    if not conclusive_states:
        return there[0] if there else None
    alike = _majority(conclusive_states)
    first = there[typed.index(alike[0])]
    return first | {
        "fall": mean_of([state.fall for state in alike]),
        "shared": mean_of([state.shared for state in alike]),
        "of-kind": mean_of([state.of_kind for state in alike]),
    }


def _majority(states: Sequence[TrainingState]) -> list[TrainingState]:
    """Return the states that say what most say, and know it by the same figure."""
    short = [state for state in states if not state.enough]
    most = short if 2 * len(short) > len(states) else [state for state in states if state.enough]
    kinds = Counter((state.by, state.metric) for state in most)
    kind, _ = kinds.most_common(1)[0]
    return [state for state in most if (state.by, state.metric) == kind]


def training_in_words(state: Report | None) -> str:
    """Return that the shared model was not trained enough, as a headline; "" where it was, or it is not known.

    Examples
    --------
    >>> state = training_state(None, [("roc_auc_score", {"value": 0.7, "low": 0.65, "high": 0.75}, 0.8)])
    >>> training_in_words(state).partition(". ")[2]
    'Its AUC is 0.700; with all rows in one place 0.800.'
    >>> training_in_words(training_state(Fall(0.1, 1))).partition(". ")[2]
    'Its loss still fell by 10 % in the last round.'
    """
    training = read(TrainingState, state or {})
    if training.enough is not False:
        return ""
    if training.by == "loss":
        rounds = "round" if training.rounds == 1 else f"{training.rounds} rounds"
        return f"{TRY} Its loss still fell by {100 * (training.fall or 0.0):.0f} % in the last {rounds}."
    if training.shared is None or training.of_kind is None or training.metric is None:
        return TRY  # the figures of others are not shown to one site's people
    name = metric_name(training.metric)
    return f"{TRY} Its {name} is {number(training.shared)}; with all rows in one place {number(training.of_kind)}."


def unknown_training(state: Report | None) -> str:
    """Return that it is not known whether the shared model was trained enough; "" where it is, or under noise."""
    if state is None or read(TrainingState, state).enough is not None:
        return ""
    return TRAINING_UNKNOWN


def not_enough(state: Report | None) -> bool:
    """Tell whether the shared model is known not to be trained enough."""
    return read(TrainingState, state or {}).enough is False


TRAINED_TEST_ROWS = "trained-test-rows"
"""The named object of a run, and its key in the report."""
WORST = 3
"""Sites that a sentence names."""


@dataclass(frozen=True, kw_only=True)
class TrainedRows:
    """Test rows that the model which a run began with was trained on, and how many test rows there are."""

    rows: int = 0
    of: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainedTestRows:
    """The object "trained-test-rows" of a run, or of its repeats together.

    Attributes
    ----------
    source : str
        The model that the run began with.
    why : str
        Why nothing is known; "" where it is.
    rows, of : int or None
        Over all sites; None of what one site's people see.
    sites : dict of name to TrainedRows
    """

    source: str = ""
    why: str = ""
    rows: int | None = None
    of: int | None = None
    sites: dict[str, TrainedRows] = field(default_factory=dict)


def trained_over_repeats(payloads: Sequence[Mapping[str, Any] | None]) -> Report | None:
    """Return the counts of a run's repeats together; None where no repeat has any.

    A row that is held out in several repeats counts in each of them.

    Examples
    --------
    >>> one = {"source": "a", "why": "", "rows": 1, "of": 4, "sites": {"x": {"rows": 1, "of": 4}}}
    >>> trained_over_repeats([one, one, None])
    {'source': 'a', 'why': '', 'rows': 2, 'of': 8, 'sites': {'x': {'rows': 2, 'of': 8}}}
    """
    recorded = [one for one in payloads if one is not None]
    repeats = read_all(TrainedTestRows, recorded)
    for one, as_it_is in zip(repeats, recorded, strict=True):
        if one.why:
            return dict(as_it_is)
    if not repeats:
        return None
    sites: dict[str, TrainedRows] = {}
    for site, counts in chain.from_iterable(one.sites.items() for one in repeats):
        before = sites.get(site, TrainedRows())
        sites[site] = TrainedRows(rows=before.rows + counts.rows, of=before.of + counts.of)
    rows = _total([one.rows for one in repeats])
    of = _total([one.of for one in repeats])
    together = write(TrainedTestRows(source=repeats[0].source, rows=rows, of=of, sites=sites))
    # What one site's people see has no counts over all sites.
    return {key: value for key, value in together.items() if value is not None}


def _total(counts: Sequence[int | None]) -> int | None:
    """Return the sum of counts, None where one is not told."""
    if None in counts:
        return None
    return sum(filter(None, counts))


def trained_rows_in_words(payload: Mapping[str, Any] | None) -> list[str]:
    """Return how many test rows were trained on before, and where; nothing where none was, or no run went before.

    Examples
    --------
    >>> trained_rows_in_words({"source": "a", "why": "", "rows": 0, "of": 8, "sites": {"x": {"rows": 0, "of": 8}}})
    []
    """
    if payload is None:
        return []
    trained = read(TrainedTestRows, payload)
    if trained.why:
        return [
            f"Whether test rows are among those that {trained.source}, the model that the run began with, was trained "
            f"on is not known: {trained.why}."
        ]
    if not trained.rows or trained.of is None:
        return []
    worst = sorted(trained.sites.items(), key=lambda item: -item[1].rows)[:WORST]
    where = ", ".join(f"{of.rows} of {of.of} at {site}" for site, of in worst if of.rows)
    at_sites = f" ({where})" if where else ""
    return [
        f"{trained.rows:,} of {counted(trained.of, 'test row')} are among those that {trained.source}, the model that "
        f"the run began with, was trained on{at_sites}: figures on them are too good. Begin anew, or with a model of a "
        "run on the same cut."
    ]


def trained_at_site(payload: Mapping[str, Any] | None, site: str) -> list[str]:
    """Return the same of one site, for its people; nothing where none of its test rows was, or that is not known.

    Examples
    --------
    >>> trained_at_site({"sites": {"x": {"rows": 0, "of": 8}}}, "x"), trained_at_site(None, "x")
    ([], [])
    """
    counts = read(TrainedTestRows, payload or {}).sites.get(site, TrainedRows())
    if not counts.rows:
        return []
    return [
        f"{counts.rows:,} of the site's {counted(counts.of, 'test row')} are among those that the model which the "
        "run began with was trained on: its figures here are too good, and the gain is, too."
    ]
