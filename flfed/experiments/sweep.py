"""Sweep of a study over a grid: each point is a run, and is scored on validation rows only."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch

from flfed.callbacks import Progress, no_progress
from flfed.errors import FlfedError, RunStopped, UsageError, interruption
from flfed.federation.client.protection import follows_history, read_ahead
from flfed.federation.engines.engine import RunConfig, RunResources, answer_of, engine_of, find_sites, path_of
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.run_record import Outcome, bad_end_written, begin
from flfed.federation.server.preflight import check
from flfed.federation.server.server import FederatedRun
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import DriverStore, ForwardedStore, RunStore
from flfed.rows.data.site import CachedSite, Site
from flfed.study.study import Study
from flfed.tasks import Driver, open_tasks, usable_jobs
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.words import flfed_error, render, usage_error

SWEPT = ("model", "plan", "strategy", "encode.scaler", "encode.missing-indicator")
"""Tables and keys that a grid may change: they do not change the validation rows."""
FIXED = ("plan.validation",)
"""Keys of these tables that change the validation rows."""

Grid = Mapping[str, Sequence[Any]]
Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a grid, with its result.

    Attributes
    ----------
    settings : dict of key to value
    run : str
    status, reason : str
        End of the run; or why its loss cannot be compared.
    rounds : int
        Rounds of the scored model.
    loss : float or None
        Loss over the validation rows of all sites; None without one.
    primary : float or None
        The study's primary metric on validation rows, where the sites' messages give it.
    rows : int
        Validation rows of the loss.
    """

    settings: Settings
    run: str
    status: str
    reason: str
    rounds: int
    loss: float | None
    primary: float | None
    rows: int

    def as_json(self, metric: str) -> dict[str, Any]:
        """Return the entry of `flfed study sweep --json`, with the name of the primary metric."""
        return {
            "set": dict(self.settings),
            "run": self.run,
            "status": self.status,
            "reason": self.reason,
            "rounds": self.rounds,
            "validation-loss": self.loss,
            "validation-rows": self.rows,
            f"validation-{metric}": self.primary,
        }


@dataclass(frozen=True, kw_only=True)
class Swept:
    """Result of a sweep.

    Attributes
    ----------
    study : str
    primary : str
        Name of the study's primary metric.
    points : tuple of Point
        In the grid's order.
    stopped : str
        Reason why points are missing; empty if all were run.
    """

    study: str
    primary: str
    points: tuple[Point, ...]
    stopped: str

    def ranked(self) -> list[Point]:
        """Return the points by validation loss, the best first and those without one last."""
        return sorted(self.points, key=lambda point: (point.loss is None, point.loss))

    @property
    def best(self) -> Point | None:
        """First point with the smallest validation loss; None if no point has one."""
        return next((point for point in self.ranked() if point.loss is not None), None)

    def as_json(self) -> dict[str, Any]:
        """Return the object of `flfed study sweep --json`."""
        points = [point.as_json(self.primary) for point in self.ranked()]
        best = None if self.best is None else points[0]
        return {"study": self.study, "points": points, "best": best, "note": render("experiments.sweep.caution")}

    def error(self) -> FlfedError | None:
        """Return the error of a sweep that was stopped, or has no loss at all; otherwise None."""
        if self.stopped:
            return RunStopped(self.stopped)
        if self.best is not None:
            return None
        return flfed_error("experiments.sweep.failed", reason=self.points[0].reason)


def points_of(study: Study, grid: Grid) -> list[tuple[Settings, Study]]:
    """Return every point of a grid: its settings, and the study with them.

    Parameters
    ----------
    study : Study
    grid : mapping of key to values

    Raises
    ------
    UsageError
        For an empty grid, a study without validation rows, a key that changes the validation rows, or a point that
        cannot run.
    """
    if not grid:
        raise usage_error("experiments.sweep.empty", study=study.name)
    if not study.plan.validation:
        raise usage_error("experiments.sweep.validation")
    full = [study.full_key(key, "[sweep] or --grid") for key in grid]
    # All keys are checked before any point is built, so that the error names the key.
    for key, values in zip(full, grid.values(), strict=True):
        _check_key(key, values, full)
    points: list[tuple[Settings, Study]] = []
    for values in itertools.product(*grid.values()):
        settings = dict(zip(full, values, strict=True))
        point = study.replace(settings)
        # A point that cannot run is refused before the first one has run for hours.
        check(point)
        points.append((settings, point))
    return points


def _check_key(key: str, values: Sequence[Any], full: Sequence[str]) -> None:
    """Refuse a key or value that cannot be swept, or is there twice."""
    if key in FIXED or not (key in SWEPT or key.partition(".")[0] in SWEPT):
        raise usage_error("experiments.sweep.fixed", key=key, keys=", ".join(SWEPT))
    if full.count(key) > 1:
        raise usage_error("experiments.sweep.twice", key=key)
    # As text, since 1 and 1.0 are different settings and 1 and true equal in Python.
    texts = [json.dumps(value) for value in values]
    if len(set(texts)) < len(texts):
        raise UsageError(f"[sweep] {key}: a value is there twice")


def sweep(
    study: Study,
    points: Sequence[tuple[Settings, Study]],
    *,
    sites: Sequence[str | Site] | None = None,
    progress: Progress = no_progress,
    jobs: int = 1,
) -> Swept:
    """Run every point to its last evaluation, without a comparison, and return the validation losses.

    Each point is a run in the store, under the study's name with `-sweep`. Tables are read once a site. All points
    have the study's seed. A point whose rounds stop has no loss. If a person or the system stops the sweep, the points
    so far are returned.

    Parameters
    ----------
    study : Study
    points : sequence of (settings, study)
        From `points_of`.
    sites : sequence of names, import paths or Site, optional
        As `run` takes them.
    progress : callable (stage, done, of)
    jobs : int or Cluster
        Processes, as for `run`.

    Raises
    ------
    FlfedError
        If a point failed; the store has it.
    """
    # All points share one reading of the tables, and its split.
    taking_part = [CachedSite.of(site, splits_once=True) for site in find_sites(study, sites)]
    torch.set_num_threads(1)
    outcomes = {}
    stopped = ""

    def add(number: int, run: str) -> None:
        outcomes[number] = _judged(points[number][0], run)
        progress("points", len(outcomes), len(points))

    with RunStore.open() as store:
        try:
            _run_all(study, [point for _, point in points], taking_part, store, progress, jobs, add)
        except (KeyboardInterrupt, RunStopped) as error:
            by = error.by if isinstance(error, RunStopped) else interruption(error)
            if not by:
                raise
            stopped = render("experiments.sweep.stopped", by=by, done=len(outcomes), of=len(points))
    done = [outcomes[number] for number in sorted(outcomes)]
    return Swept(study=study.name, primary=check(study)["primary"], points=_comparable(done), stopped=stopped)


def _run_elsewhere(series: str, sites: Sequence[Site], point: Study, driver: Driver) -> str:
    """Run a point in another process, and return the id of the run."""
    return _run_of(series, point, sites, cast(RunStore, ForwardedStore(driver)), driver.progress)


def _run_all(
    study: Study,
    points: Sequence[Study],
    sites: Sequence[Site],
    store: RunStore,
    progress: Progress,
    jobs: int,
    add: Callable[[int, str], None],
) -> None:
    """Run all points, and call `add` with the number and the run of each as it ends."""
    writes = DriverStore(store)

    def end(status: str, reason: str, task: int | None = None) -> None:
        for run in writes.end(status, reason, task):
            checkpoints.forget(run)

    series = f"{study.name}-sweep"
    task = partial(_run_elsewhere, series, sites)
    if any(follows_history(study, site) for site in sites):
        jobs = 1
    if usable_jobs(jobs, len(points)) > 1:
        read_ahead(study, sites)
    lost = partial(end, "failed", render("run.jobs.lost"))
    tasks = open_tasks(task, points, jobs, functions=writes.functions, progress=progress, lost=lost)
    if tasks is None:
        for number, point in enumerate(points):
            add(number, _run_of(series, point, sites, store, progress))
        return
    try:
        tasks.finish(add)
    except KeyboardInterrupt as error:
        end("stopped", interruption(error))
        raise


def _run_of(series: str, point: Study, sites: Sequence[Site], store: RunStore, progress: Progress) -> str:
    """Run one point in a series of its own, as its settings differ, and return the id of the run."""
    facts = check(point)
    engine = engine_of("inprocess")
    name = store.begin_series(study=series, study_sha256=point.sha256(), study_text=point.text)
    path = path_of(engine, point, stacked=True)
    writer = begin(store, name, point, facts, engine=engine.name, path=path)
    recorder = Recorder(writer, facts["primary"], point.rounds, progress, name)
    began = time.monotonic()
    config: RunConfig = {"study": point.text, "repeat": 0, "run-here": writer.run}
    resources = RunResources(answer_of(path, progress), progress)
    try:
        with (
            engine.started(sites, config, resources) as (grid, _),
            bad_end_written(writer, began, resume_hint="finished points are in the run store"),
        ):
            recorder.note(render("experiments.sweep.note"))
            # Enrolment, first sums, rounds and the last evaluation, but no comparison.
            conductor = FederatedRun(grid, point, recorder)
            participants, checkpoint = conductor.begin()
            strategy, arrays = conductor.rounds(participants, checkpoint)
    finally:
        checkpoints.forget(writer.run)  # a point is not resumed: the sweep runs again
    status = "stopped" if strategy.stopped else "completed"
    outcome = Outcome(
        status=status,
        reason=strategy.stopped,
        arrays=arrays,
        encoder=checkpoint.encoder,
        best_round=strategy.best_round,
        seconds=time.monotonic() - began,
    )
    outcome.write_end(writer)
    return writer.run


def _judged(settings: Settings, run: str) -> Point:
    """Return a point with the recorded figures of its last model."""
    with RunReader.open() as reader:
        entry = reader.runs_of(run)[0]
        rounds = entry.best_round or 0
        # Points are ranked by figures over all sites.
        rows = [row for row in reader.metrics(run, rounds) if row.site is None and row.arm == "validation"]
    figures = {row.metric: row.value for row in rows}
    loss = figures.get("loss") if entry.status == "completed" else None
    reason = entry.reason
    if loss is None and not reason:
        reason = render("experiments.sweep.loss")
    return Point(
        settings=settings,
        run=run,
        status=entry.status,
        reason=reason,
        rounds=rounds,
        loss=loss,
        primary=figures.get(entry.primary),
        rows=sum(row.n or 0 for row in rows if row.metric == "loss"),
    )


def _comparable(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the points, without the losses of those scored on fewer rows, which are another mean."""
    most = max((point.rows for point in points if point.loss is not None), default=0)
    comparable_points = []
    for point in points:
        if point.loss is not None and point.rows != most:
            reason = render("experiments.sweep.fewer", rows=point.rows, most=most)
            point = replace(point, loss=None, reason=reason)
        comparable_points.append(point)
    return tuple(comparable_points)
