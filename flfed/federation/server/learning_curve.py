"""Learning curve of a federation.

It is run again with one site cut to few rows, where all tables are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from statistics import fmean
from typing import get_args

import flfed
from flfed.callbacks import Progress, no_progress
from flfed.federation.client.client import SiteClient
from flfed.federation.engines.inprocess import grid_of
from flfed.federation.engines.lockstep import ROWS_AT_ONCE, side_by_side
from flfed.federation.recording.source_model import start_arrays
from flfed.federation.server.site_offsets import offset_deviation, offset_outputs
from flfed.federation.server.sums.secure_sums import rehearsed
from flfed.records.statistics.intervals import mean_of, possible, resplit_interval
from flfed.records.store.entries import CurveArm, LearningPoint
from flfed.records.store.writer import finite
from flfed.refusals import Refusal
from flfed.rows.comparison.learning_curve import Judged, again, cut, judge, order_of_rows
from flfed.rows.data.site import Site
from flfed.rows.session import SiteSession, redraws
from flfed.rows.training.one_by_one import compute_one_by_one
from flfed.rows.training.requests import Compute, run_client_by, together
from flfed.study.study import Study
from flfed.summaries.summary import Encoder, Summary, fit_encoder, merge
from flfed.updates.aggregation.rounds import Participant, RunContext
from flfed.updates.codec import codec_of, download_of
from flfed.updates.messages.fields import Arrays
from flfed.updates.strategies.fedavg import FedAvg, to_arrays, to_record

OUTPUT = "learning-curve"
"""What a policy names that lets few rows be counted out of the site's own."""
STAGE = "learning curve"
ALL = 0
"""In place of a size: all training rows."""
AT_ONCE = 64
"""Federations that run side by side, at most."""
DEFINED = 0.9
"""Share of draws that must have a figure for their spread to give an interval."""
FIRST_DRAW = 10**6
"""Draws after the first have seeds and holdouts that no repeat of a series has."""

ARMS: tuple[CurveArm, ...] = get_args(CurveArm)
Figures = dict[str, Judged]
"""Of one site and draw, by arm; empty where nothing is defined."""


def learning_curve(
    study: Study,
    sites: Sequence[Site],
    *,
    answer: Compute | None = None,
    at_once: int = AT_ONCE,
    progress: Progress = no_progress,
    series: str = "",
) -> tuple[list[LearningPoint], str]:
    """Return the points of the learning curve.

    Where there are none, the reason is returned instead.

    Parameters
    ----------
    study : Study
    sites : sequence of Site
        Those that take part in the run.
    answer : callable, optional
        Answers what all sites of all federations ask at a time; None for one by one.
    at_once : int, >= 1
        Federations side by side, at most, where there is an `answer`; fewer of large tables.
    progress : callable (stage, done, of)
    series : str
        Of which the curve is; it wrote down which model it begins from.

    Returns
    -------
    points : list of LearningPoint, by site, rows and arm
        Empty without a `[compare] curve` table.
    reason : str
        Why there are none though the study asks for them, else empty.

    Notes
    -----
    The first draw is the run itself: its holdouts, its seeds. Each further one draws other holdouts
    where the sites' policies allow, and other rows to keep. The sizes of one draw are nested: the
    first n of one order. A size is left out at a site that has fewer training rows in some draw.

    The interval of a mean over draws with other holdouts is `intervals.resplit_interval`, with the
    site's holdout rows per training row at every size: the draws' errors go together because
    their holdouts share rows, and how many they share does not depend on the cut. There is none
    where the metric was undefined in more than a tenth of the draws: the other draws' holdouts then
    share the same few rows of the rare class, and their spread would look far too small.
    """
    curve = study.compare.curve
    if curve is None:
        return [], ""
    # One closed policy ends the curve, since every point needs all sites.
    closed = sorted(site.name for site in sites if not site.policy.allows(OUTPUT))
    if closed:
        why = f"the policy of {', '.join(closed)} does not name the output {OUTPUT!r}"
        return [], Refusal("no-learning-curve", why=why)
    done, reruns = count(1), curve.draws * (1 + len(curve.rows) * len(sites))

    def step() -> None:
        progress(STAGE, next(done), reruns)

    # Sites whose holdout never changes vary by training only, and keep their own intervals.
    fixed = {site.name for site in sites if not redraws(study, site)}
    record, waiting = _Record(fixed, curve.draws), list[_Rerun]()
    for number in range(curve.draws):
        draw = _Draw(study, sites, FIRST_DRAW + number if number else 0, fixed, series)
        for site, rows in [("", ALL), *((site, rows) for site in draw.places for rows in curve.rows)]:
            # Nothing to cut: the point would be that of all rows once more.
            if site and rows >= len(draw.places[site].table.training):
                step()
                continue
            waiting.append(_Rerun(draw, site, rows, step))
            # As many as there is room for go together; without a stacking engine, each alone.
            if len(waiting) >= (1 if answer is None else min(at_once, draw.room())):
                record.take(waiting, answer)
                waiting = []
    record.take(waiting, answer)
    return record.points(), ""


class _Draw:
    """One draw of the learning curve.

    Every site's table is read once, for all federations over it.

    Parameters
    ----------
    study : Study
    sites : sequence of Site
    repeat : int
        Gives the seeds, and the holdouts where the policies allow.
    fixed : collection of str
        Sites whose holdout is the same in every draw: their figures get intervals.
    series : str
        As for `learning_curve`.
    """

    def __init__(self, study: Study, sites: Sequence[Site], repeat: int, fixed: Collection[str], series: str) -> None:
        self.study = study
        self._series = series
        self.repeat = repeat
        self._fixed = fixed
        ordered = sorted(sites, key=lambda site: site.name)
        opened = {site.name: SiteSession(site, study, repeat, validation_only=True) for site in ordered}
        # As at enrolment: another split may leave a small table without holdout rows.
        self.places = {site: place for site, place in opened.items() if not place.too_small()}
        self.orders = {site: order_of_rows(place) for site, place in self.places.items()}

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """Sums of every site over all training rows."""
        return {site: place.summary() for site, place in self.places.items()}

    def room(self) -> int:
        """Return how many federations there is room for.

        Each of them encodes the rows of these tables anew.
        """
        rows = sum(len(place.table.training) for place in self.places.values())
        return max(1, ROWS_AT_ONCE // max(1, rows))

    def all_rows(self, answer: Compute | None) -> dict[str, Figures]:
        """Return every site's figures with all rows.

        They are from one federation.
        """
        places = {site: again(place) for site, place in self.places.items()}
        trained = federate(self.study, self.repeat, places, self.summaries, answer, self._series)
        if trained is None:
            return dict.fromkeys(places, {})
        judged = together([judge(place, *trained, intervals=site in self._fixed) for site, place in places.items()])
        return dict(zip(places, run_client_by(judged, answer or compute_one_by_one), strict=True))

    def few_rows(self, site: str, rows: int, answer: Compute | None) -> dict[str, Figures]:
        """Return a site's figures with `rows` rows.

        They are from a federation of its own, and there are none if that is too few.
        """
        # The other sites keep all rows, so that the effect is of this site's rows alone.
        few = cut(self.places[site], self.orders[site], rows)
        if few.too_small():
            return {}
        places = {name: few if name == site else again(place) for name, place in self.places.items()}
        summaries = self.summaries | {site: few.summary()}
        trained = federate(self.study, self.repeat, places, summaries, answer, self._series)
        if trained is None:
            return {site: {}}
        return {site: run_client_by(judge(few, *trained, intervals=site in self._fixed), answer or compute_one_by_one)}


@dataclass(frozen=True)
class _Rerun:
    """One federation of a draw.

    It has all rows, or one site is cut to `rows`.
    """

    draw: _Draw
    site: str
    rows: int
    step: Callable[[], None]

    def __call__(self, answer: Compute | None) -> dict[str, Figures]:
        """Run it and return the figures by site."""
        found = self.draw.few_rows(self.site, self.rows, answer) if self.site else self.draw.all_rows(answer)
        self.step()
        return found


def federate(
    study: Study,
    repeat: int,
    places: Mapping[str, SiteSession],
    summaries: Mapping[str, Summary],
    answer: Compute | None = None,
    series: str = "",
) -> tuple[Arrays, Encoder, float | None] | None:
    """Run one federation over open sessions.

    Returns its arrays, the encoder and the offsets' deviation. It is None where the run ended early.

    The same messages through the same client app as a run, so the same arrays; nothing is recorded.

    Parameters
    ----------
    study : Study
    repeat : int
    places : mapping of site to SiteSession, in name order
    summaries : mapping of site to Summary
    answer, series
        As for `learning_curve`.
    """
    if len(places) < 2:  # one site is no federation
        return None
    first = next(iter(places.values()))
    encoder = fit_encoder(first.layout, merge([summaries[site] for site in places]), study.encode.scaler)
    side = SiteClient(lambda name, _: places[name].site, releasing=False)  # a policy names it, or it is refused
    side.sessions = {(site, study.text, repeat): place for site, place in places.items()}
    # Its time is that of many side by side, and nobody waits for it: it has no deadline.
    grid = grid_of(side, list(places), {"study": study.text, "repeat": repeat}, answer, lambda: 0.0)
    nodes = zip(places.items(), grid.get_node_ids(), strict=True)
    participants = {
        site: Participant(
            node_id=node, rows_high=len(place.table.training), version=flfed.__version__, width=place.width
        )
        for (site, place), node in nodes
    }
    strategy: FedAvg = study.strategy.build("strategy")
    seed = study.seed + repeat
    outputs = offset_outputs(study, first.schema)
    assignment = RunContext(
        participants=participants,
        encoder=encoder,
        plan=study.plan,
        rounds=study.rounds,
        seed=seed,
        codec=codec_of(study),
        download=download_of(study),
        outputs=outputs,
        sums=rehearsed(grid, study, participants),
    )
    strategy.assign(assignment)
    widths = [place.width for place in places.values()]
    start = start_arrays(study, first.schema, encoder, repeat, widths, series=series)
    result = strategy.start(grid, to_record(start), study.rounds)
    return None if strategy.stopped else (to_arrays(result.arrays), encoder, offset_deviation(strategy.offsets))


class _Record:
    """Figures of the draws, by site and size.

    The points of the curve follow from them.

    Parameters
    ----------
    fixed : collection of str
        Sites whose holdout is the same in every draw.
    draws : int
    """

    def __init__(self, fixed: Collection[str], draws: int) -> None:
        self._fixed = fixed
        self._draws = draws
        self._metric = ""
        self._training: dict[str, list[int]] = {}
        self._ratios: dict[str, list[float]] = {}
        self._found: dict[tuple[str, int], list[Figures]] = {}

    def take(self, reruns: Sequence[_Rerun], answer: Compute | None) -> None:
        """Run federations and add their figures.

        They run side by side where `answer` answers them together.
        """
        outcomes = [rerun(None) for rerun in reruns] if answer is None else side_by_side(reruns, answer)
        for rerun, outcome in zip(reruns, outcomes, strict=True):
            # The first error ends the curve, when the federations beside it have ended.
            if isinstance(outcome, BaseException):
                raise outcome
            self.add(rerun.draw, rerun.rows, outcome)

    def add(self, draw: _Draw, rows: int, figures: Mapping[str, Figures]) -> None:
        """Add the figures of one federation.

        They are by site, and of one draw.
        """
        for site, arms in figures.items():
            self._found.setdefault((site, rows), []).append(arms)
        if rows == ALL:
            for site, place in draw.places.items():
                training = len(place.table.training)
                self._metric = place.primary
                self._training.setdefault(site, []).append(training)
                self._ratios.setdefault(site, []).append(place.table.holdout_rows / training)

    def points(self) -> list[LearningPoint]:
        """Return the points by site, rows and arm.

        A size that some draw had too few rows for is left out.
        """
        found = []
        for site in sorted(self._training):
            all_rows = round(fmean(self._training[site]))
            least = min(self._training[site])
            # A size must be there in every draw: a mean over the larger splits alone would mislead.
            sizes = sorted(rows for of, rows in self._found if of == site and ALL < rows < least)
            for rows in [*sizes, ALL]:
                for arm in ARMS:
                    figures = [arms[arm] for arms in self._found[site, rows] if arm in arms]
                    draws, value, low, high = self._mean(site, figures)
                    bottom, top = (possible(self._metric, bound, difference=" - " in arm) for bound in (low, high))
                    freedom = None if site in self._fixed or low is None else draws - 1
                    own = (site, rows or all_rows, draws, arm, self._metric)
                    found.append(LearningPoint(*own, value, bottom, top, freedom))
        return found

    def _mean(self, site: str, figures: Sequence[Judged]) -> tuple[int, float | None, float | None, float | None]:
        """Return the mean over the draws.

        The result is (draws with a figure, their mean, low, high).
        """
        known = [figure for figure in figures if math.isfinite(figure.value)]
        values = [figure.value for figure in known]
        if site in self._fixed:
            low, high = (mean_of([finite(getattr(figure, side)) for figure in known]) for side in ("low", "high"))
        # Few draws with a figure share the same rare rows, and would look too certain.
        elif len(known) < max(2, DEFINED * self._draws):
            low, high = None, None
        else:
            _, low, high, _ = resplit_interval(values, fmean(self._ratios[site]))
        return len(known), mean_of(values), low, high
