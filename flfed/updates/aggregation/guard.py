"""Update guard, and the weighted mean of the updates that pass it.

No single site can make the model NaN, stop the run, or outweigh the others. Norms and means go over a cohort's updates
block by block, so that memory does not grow with the cohort.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flfed.refusals import Refusal
from flfed.summaries.score_bins import GroupFigure
from flfed.summaries.summary import Layout, Summary
from flfed.updates.arrays import Arrays, Shapes, arrays_defect, shapes_of
from flfed.updates.messages.compare import CalibrationFigure, CompareReply, least_rows
from flfed.updates.messages.train import Replies, TrainReply

BLOCK = 64
"""Sites whose arrays are laid side by side at a time: few enough to stay in a processor's cache."""


@dataclass(frozen=True, kw_only=True)
class GuardResult:
    """Result of the guard for a round's updates.

    Attributes
    ----------
    accepted : dict of site to TrainReply, in name order
    refused : dict of site to Refusal
        Set aside; the round goes on without them.
    flagged : dict of site to Refusal
        Accepted, but worth a look.
    """

    accepted: dict[str, TrainReply]
    refused: dict[str, Refusal] = field(default_factory=dict)
    flagged: dict[str, Refusal] = field(default_factory=dict)


def guard(
    replies: Replies,
    incoming: Arrays,
    rows_high: Mapping[str, int],
    *,
    flag: float = 3.0,
    refuse: float = 10.0,
    extra: Shapes | None = None,
    steps: Callable[[int], int] | None = None,
) -> GuardResult:
    """Sort updates into accepted, flagged and refused.

    Parameters
    ----------
    replies : mapping of site to TrainReply
    incoming : dict of name to array
        The arrays that were sent: names, shapes and dtypes an update must have.
    rows_high : mapping of site to int
        Upper end of the band of rows that the site declared when it enrolled.
    flag, refuse : float
        How many times the cohort's median norm makes an update suspicious, or refused.
    extra : mapping of name to (shape, dtype), optional
        What the strategy has sent back beside the update, which is judged as the update is.
    steps : callable (rows) → steps, optional
        Steps that a site of so many rows takes, where the strategy weighs updates by them: any other are refused.

    Notes
    -----
    The norm is compared where at least three updates are otherwise good: a median of two says
    nothing about which of them is wrong. It stops a broken site, not one that adapts to the rule.
    3 × refuses honest sites on skewed data, 10 × did not (measured), hence the two bounds. Where
    most updates are exactly zero, as under a strong L1 penalty, any other is flagged only.
    """
    measured = _norms(replies, incoming)
    defects = {}
    # Each update is judged by itself first, and by its norm only among those that are good.
    for site, reply in replies.items():
        defect = _defect(reply, incoming, rows_high[site], measured.get(site, math.nan))
        defects[site] = defect or _steps_defect(reply, steps) or _extra_defect(reply.extra, extra or {})
    first = judged(replies, defects)
    good = first.accepted
    large, flagged = _by_norm({site: measured[site] for site in good}, flag, refuse)
    if extra:
        norms = dict(zip(good, joint_norms([reply.extra for reply in good.values()]).tolist(), strict=True))
        beyond, noted = _by_norm(norms, flag, refuse)
        large = _of_extra(beyond) | large
        flagged = _of_extra(noted) | flagged
    return GuardResult(
        accepted={site: reply for site, reply in good.items() if site not in large},
        refused=dict(sorted({**first.refused, **large}.items())),
        flagged={site: why for site, why in sorted(flagged.items()) if site not in large},
    )


def _of_extra(reasons: Mapping[str, Refusal]) -> dict[str, Refusal]:
    """Return reasons as those of what came beside updates."""
    return {site: Refusal("extra-unfit", why=why) for site, why in reasons.items()}


def _by_norm(norms: Mapping[str, float], flag: float, refuse: float) -> tuple[dict[str, Refusal], dict[str, Refusal]]:
    """Return the refused and the flagged updates, by their norm among the others'."""
    refused = dict[str, Refusal]()
    flagged = dict[str, Refusal]()
    # A median of fewer than three does not show which update is wrong.
    median = float(np.median(list(norms.values()))) if len(norms) >= 3 else 0.0
    for site, norm in norms.items():
        times = norm / median if median > 0 else 0.0
        if times > refuse:
            refused[site] = Refusal("norm-refused", times=f"{times:.1f}", limit=f"{refuse:g}")
        elif times > flag:
            flagged[site] = Refusal("norm-flagged", times=f"{times:.1f}")
        elif norm > 0 and median == 0 and len(norms) >= 3:
            flagged[site] = Refusal("norm-not-zero")
    return refused, flagged


def _steps_defect(reply: TrainReply, steps: Callable[[int], int] | None) -> Refusal | None:
    """Return why a reply's steps cannot be, of so many rows.

    None where they can.
    """
    if steps is None or reply.steps == (expected := steps(int(reply.num_examples))):
        return None
    return Refusal("steps-unfit", steps=reply.steps, expected=expected)


def _extra_defect(arrays: Arrays, expected: Shapes) -> Refusal | None:
    """Return why what came beside an update cannot be used, None where it can."""
    defect = arrays_defect(arrays, expected)
    if defect is None and not math.isfinite(joint_norms([arrays])[0]):
        defect = Refusal("norm-infinite")
    return defect and Refusal("extra-unfit", why=defect)


def guard_scores(replies: Replies, rows_high: Mapping[str, int], outputs: int = 0) -> GuardResult:
    """Sort replies that only score into accepted and refused.

    Arguments are as `guard` takes them.

    `outputs` are the model's, where offsets were asked for: one site's must not decide how all are adjusted.
    Scores decide when a run stops and which round is its result, so one site's must not be NaN or
    count more rows than it has.
    """
    defects = {}
    for site, reply in sorted(replies.items()):
        defects[site] = _bad_scores(reply, rows_high[site])
        if not defects[site] and outputs and reply.offset is not None:
            defects[site] = reply.offset.defect(outputs)
    return judged(replies, defects)


def judged(replies: Replies, defects: Mapping[str, Refusal | None]) -> GuardResult:
    """Return which replies are accepted and which refused, by their defects."""
    refused = {site: reason for site, reason in defects.items() if reason}
    return GuardResult(
        accepted={site: replies[site] for site in sorted(replies) if site not in refused}, refused=refused
    )


def _norms(replies: Replies, incoming: Arrays) -> dict[str, float]:
    """Return the norm of each update like the model.

    Such an update has the model's names, shapes and dtypes. The norm is NaN or infinite if a value is bad.
    """
    expected = shapes_of(incoming)
    alike = [site for site, reply in replies.items() if shapes_of(reply.delta) == expected]
    norms = joint_norms([replies[site].delta for site in alike])
    return dict(zip(alike, norms.tolist(), strict=True))


def _defect(reply: TrainReply, incoming: Arrays, rows_high: int, norm: float) -> Refusal | None:
    """Return why an update cannot be used.

    It is None where it can. A finite `norm` says that its arrays can.
    """
    if not math.isfinite(norm):
        # An infinite norm would make the median infinite too, and pass every bound.
        whole = arrays_defect(reply.delta, shapes_of(incoming)) or Refusal("norm-infinite")
        return _rows_defect(reply, rows_high) or whole
    return reply_defect(reply, rows_high)


def reply_defect(reply: TrainReply, rows_high: int) -> Refusal | None:
    """Return why a reply to training cannot be used, whatever its update is.

    None where it can.
    """
    if defect := _rows_defect(reply, rows_high):
        return defect
    if reply.loss is not None and not math.isfinite(reply.loss):
        return Refusal("loss-infinite")
    if reply.steps < 1:
        return Refusal("no-step")
    return _bad_scores(reply, rows_high)


def _rows_defect(reply: TrainReply, rows_high: int) -> Refusal | None:
    if reply.kind != "delta":
        return Refusal("not-a-delta")
    rows = reply.num_examples
    if not math.isfinite(rows) or rows <= 0 or rows != int(rows):
        return Refusal("examples-unfit")
    if rows > rows_high:
        return Refusal("examples-above-band", most=rows_high)
    return None


def _bad_scores(reply: TrainReply, rows_high: int) -> Refusal | None:
    """Return why a reply's scores are unusable, else None."""
    scores = reply.scores
    if scores is None:
        return None
    kinds = ("training", "validation")
    if scores.rows not in kinds:
        return Refusal("scores-other-rows", scores="scores", parts=" or ".join(kinds))
    least = 1 if scores.metrics else 0
    if not least <= scores.num_examples <= rows_high:
        return Refusal("scores-outside-band", scores="scores")
    # A variance may be unknown, of an AUC with one positive row: nothing is decided by it.
    if not all(map(math.isfinite, scores.metrics.values())):
        return Refusal("scores-infinite", scores="scores")
    return None


def joint_norms(updates: Sequence[Arrays]) -> np.ndarray:
    """Return the joint L2 norm of each update.

    It is over all arrays of an update together, as float64 [updates].

    Parameters
    ----------
    updates : sequence of dict of name to array
        All with the same names and shapes. A value that is not finite gives a norm that is not,
        and so do values too large to be squared.
    """
    squares = np.zeros(len(updates))
    if not updates:
        return squares
    with np.errstate(over="ignore", invalid="ignore"):
        for name in sorted(updates[0]):
            for place, block in _blocks(updates, name):
                squares[place] += np.square(block, dtype=np.float64).sum(axis=1)
    return np.sqrt(squares)


def weighted_mean(updates: Sequence[Arrays], name: str, shares: np.ndarray) -> np.ndarray:
    """Return `sum(share_k update_k)` of one array.

    It is float64, in the array's shape.

    Parameters
    ----------
    updates : sequence of dict of name to array, at least one
        Summed in this order.
    name : str
    shares : float64 array [updates], of sum 1

    Notes
    -----
    The sum is about the first update. Where all agree the mean is theirs to the last bit, so that a weight that L1 made
    0 everywhere is 0, not 1e-17.
    """
    first = updates[0][name].astype(np.float64)
    total = np.zeros(first.size)
    for place, block in _blocks(updates, name):
        total += shares[place] @ np.subtract(block, first.reshape(-1), dtype=np.float64)
    return first + total.reshape(first.shape)


def _blocks(updates: Sequence[Arrays], name: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield one array of all updates in blocks.

    A block is [sites, values] of `BLOCK` sites at a time, and comes with which sites they are.
    """
    for start in range(0, len(updates), BLOCK):
        part = [update[name] for update in updates[start : start + BLOCK]]
        together = np.concatenate(part) if part[0].ndim else np.array(part)
        entries = -1 if part[0].size else 0
        yield slice(start, start + len(part)), together.reshape(len(part), entries)


def summary_defect(summary: Summary | None, layout: Layout, rows_high: float = math.inf) -> Refusal | None:
    """Return why a site's sums cannot be used.

    It is None where they can. One site must not spoil all sites' encoder.

    Parameters
    ----------
    summary : Summary or None
        Of one site; None where it sent others than it was asked for.
    layout : Layout
    rows_high : float
        Upper end of the band of rows that the site declared.
    """
    if summary is None:
        return Refusal("vector-unfit")
    arrays = summary.arrays()
    if wrong := [name for name, shape in layout.shapes().items() if arrays[name].shape != shape]:
        return Refusal("sums-layout", parts=", ".join(wrong))
    if not all(np.isfinite(value).all() for value in arrays.values()):
        return Refusal("sums-infinite")
    rows = summary.rows[0]
    count = summary.moments[:, 0]
    squares = summary.moments[:, 2]
    if any((value < 0).any() for value in (summary.rows, summary.cells, summary.lower, summary.left, count, squares)):
        return Refusal("sums-negative")
    if rows > rows_high:
        return Refusal("sums-above-band", most=f"{rows_high:g}")
    # A hair is rounding.
    hair = 1e-9 * (1 + rows)
    return _moments_defect(summary, hair) or _counts_defect(summary, layout, hair) or _leaks_defect(summary, hair)


def _moments_defect(summary: Summary, hair: float) -> Refusal | None:
    """Return that sums of z and z² do not lie within the count, for |z| is at most 1; else None."""
    rows = summary.rows[0]
    (count, total, squares) = summary.moments.T
    largest = max(count.max(), np.abs(total).max(), squares.max())
    if largest > rows + hair or (total**2 > count * squares + hair * rows).any():
        return Refusal("sums-disagree")
    return None


def _counts_defect(summary: Summary, layout: Layout, hair: float) -> Refusal | None:
    """Return why a site's counts by cell do not go together, else None."""
    rows = summary.rows[0]
    # Each row is in one cell of each column, or in a cell that was not given.
    places = layout.slices().values()
    cells = np.array([summary.cells[place].sum() for place in places])
    lower = np.array([summary.lower[place].sum() for place in places])
    if (np.abs(cells + summary.left - rows) > hair).any() or (lower > summary.left + hair).any():
        return Refusal("counts-disagree")
    # A site marks each sum as given or not; any other mark would count as several sites.
    marks = (summary.cells_known, summary.moments_known, summary.leaks_known, summary.sites)
    if not all(np.isin(value, (0, 1)).all() for value in marks) or summary.sites[0] != 1:
        return Refusal("sums-of-several")
    return None


def _leaks_defect(summary: Summary, hair: float) -> Refusal | None:
    """Return that the sums by which leaks are found do not go together, else None."""
    strength = summary.leaks[..., 2]
    weight = summary.leaks[..., 3]
    wrong = (strength > weight + hair) | (weight > summary.rows[0] + hair)
    if wrong.any() or (summary.leaks[..., 1:] < 0).any():
        return Refusal("leak-sums-disagree")
    return None


def comparison_defect(reply: CompareReply, *, trained: bool = True) -> Refusal | None:
    """Return why a comparison is not credible, else None; a validation has no training rows."""
    if any(getattr(reply, name) < least for name, least in least_rows(trained=trained).items()):
        return Refusal("rows-impossible")
    defects = (
        _figures_defect(reply),
        _groups_defect(reply.groups),
        _calibration_defect(reply.calibration),
    )
    defect = next(filter(None, defects), None)
    if defect is not None:
        return defect
    columns = [one.column for one in reply.importance] + [one.column for one in reply.withheld]
    if len(set(columns)) < len(columns):
        return Refusal("figure-twice")
    if not all(math.isfinite(of.increase) for of in reply.importance):
        return Refusal("importance-infinite")
    return _points_defect(reply)


def _figures_defect(reply: CompareReply) -> Refusal | None:
    """Return why the figures of models and their differences are not credible, else None."""
    figures = [*reply.arms, *reply.differences]
    # A figure that stands twice would leave open which of them counts.
    if len({(figure.metric, figure.arm) for figure in figures}) < len(figures):
        return Refusal("figure-twice")
    for figure in figures:
        numbers = (figure.value, figure.low, figure.high)
        if any(map(math.isinf, numbers)) or figure.low > figure.value or figure.value > figure.high:
            return Refusal("interval-impossible", metric=figure.metric)
    for figure in reply.arms:
        bounded = figure.metric.endswith(
            ("auc_score", "accuracy_score", "precision_score", "brier_score_loss", "alert_budget")
        )
        if bounded and not (math.isnan(figure.value) or 0 <= figure.value <= 1):
            return Refusal("metric-out-of-range", metric=figure.metric)
    return None


def _groups_defect(groups: Sequence[GroupFigure]) -> Refusal | None:
    """Return why figures of groups of rows are not credible, else None."""
    for area in groups:
        # A value may stand without an interval: where every draw of rows gives the same one, it has none.
        alone = math.isnan(area.low) and math.isnan(area.high)
        low, high = (area.value, area.value) if alone else (area.low, area.high)
        if not (alone and math.isnan(area.value)) and not 0 <= low <= area.value <= high <= 1:
            return Refusal("interval-impossible", metric="roc_auc_score")
    if len({(area.column, area.group) for area in groups}) < len(groups):
        return Refusal("figure-twice")
    return None


def _calibration_defect(calibration: Sequence[CalibrationFigure]) -> Refusal | None:
    """Return why slope and intercept are not credible, else None."""
    if len({one.name for one in calibration}) < len(calibration):
        return Refusal("figure-twice")
    for one in calibration:
        numbers = (one.value, one.low, one.high, one.variance)
        if any(map(math.isinf, numbers)) or not (math.isnan(one.value) or one.low <= one.value <= one.high):
            return Refusal("interval-impossible", metric=f"calibration {one.name}")
    return None


def _points_defect(reply: CompareReply) -> Refusal | None:
    """Return why counts at false positive rates are not credible, else None."""
    exact_points = [point for point in reply.points if point.counts != (-1, -1, -1, -1)]
    # All of one table are over the same rows, of which as many have the outcome.
    events = {point.tp + point.fn for point in exact_points}
    impossible = any(min(point.counts) < 0 or sum(point.counts) != reply.holdout_rows for point in exact_points)
    if impossible or len(events) > 1 or len({point.rate for point in reply.points}) < len(reply.points):
        return Refusal("points-impossible")
    return None
