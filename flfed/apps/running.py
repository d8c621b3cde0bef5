"""Running a study: from its text to a record, on an engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from flfed.apps.checking import check, find_sites
from flfed.apps.engines.lockstep import side_by_side
from flfed.apps.engines.starting import check_engine, path_of, started
from flfed.apps.learning_curve import learning_curve
from flfed.apps.provenance import code_sha256
from flfed.apps.recording import Progress, Recorder, no_progress
from flfed.apps.run_record import bad_end_written, begin
from flfed.apps.server_app import Conductor, Outcome, RunObserver, no_observer
from flfed.errors import UsageError
from flfed.records.entries import EventRow, LearningPoint, RunEntry
from flfed.records.reading import RunReader
from flfed.records.reports import REFERENCES, report
from flfed.records.store import RunStore, RunWriter
from flfed.rows.site import Site
from flfed.rows.training.cohort import answer_together
from flfed.rows.training.requests import Answer
from flfed.study import Study
from flfed.updates import checkpoint as checkpoints
from flfed.updates.checkpoint import Checkpoint

AT_ONCE = 32
"""Repeats that run side by side, at most."""
SITES_AT_ONCE = 2000
"""Sites whose tables are open at a time, over all repeats side by side: each repeat has its own split."""
GIVEN = "sites that a program gave; resume it from Python with the same ones: resume(run, sites=...)"


@dataclass(frozen=True)
class Result:
    """What a run, or a series of repeats, showed.

    Attributes
    ----------
    report : dict
        The object of `flfed study run --json`.
    store : str or None
        URL of the run store; None for the default.
    """

    report: dict[str, Any]
    store: str | None = None

    @property
    def run(self) -> str:
        """Id of the run or series, as `flfed run show` takes it."""
        return str(self.report["run"])

    @property
    def status(self) -> str:
        """How it ended: "completed" or "stopped"."""
        return str(self.report["status"])

    @cached_property
    def sites(self) -> pd.DataFrame:
        """One row per site, arm and metric: value, low, high, sd."""
        lines = [
            {"site": site, "arm": arm, "metric": metric, **figure}
            for site, found in self.report["sites"].items()
            for arm in ("global", "local-only", "personalised", "difference")
            for metric, figure in (found.get(arm) or {}).items()
        ]
        return pd.DataFrame(lines)

    @cached_property
    def overall(self) -> pd.DataFrame:
        """One row per metric and arm over all sites: global, pooled and the others that were measured."""
        lines = [
            {"arm": arm, "metric": metric, **figure}
            for arm in REFERENCES
            for metric, figure in (self.report[arm] or {}).items()
        ]
        return pd.DataFrame(lines)


def run(
    study: Study | str | Path,
    *,
    engine: str = "inprocess",
    repeats: int = 1,
    sites: Sequence[str | Site] | None = None,
    store: str | None = None,
    stacked: bool = True,
    progress: Progress = no_progress,
    observer: RunObserver = no_observer,
) -> Result:
    """Run a study and return what it showed; everything is in the run store as well.

    Parameters
    ----------
    study : Study, or the name or file of one
    engine : {"inprocess", "ray"}
    repeats : int, >= 1
        Runs with other seeds, and other holdouts where the sites' policies allow.
    sites : sequence of names, import paths or Site, optional
        Instead of those that the study names or that are found.
    store : str, optional
        Database URL; default `FLFED_STORE`, else `runs.db` under `FLFED_HOME`.
    stacked : bool
        Whether the in-process engine computes for many sites, and many repeats, at once; the
        figures are the same, many times faster.
    progress : callable (stage, done, of)
    observer : callable (stage, round)
        Told "checkpoint" once a round's file is on the disk, "round" once it is in the store.

    Raises
    ------
    UsageError
        For anything wrong with study, sites or options; nothing was run.
    FlfedError
        If a run failed; it is in the store as failed, with the reason.

    Examples
    --------
    >>> from flfed import run
    >>> result = run("preterm-birth", repeats=10)  # doctest: +SKIP
    >>> result.sites  # doctest: +SKIP
    """
    chosen = study if isinstance(study, Study) else Study.load(study)
    check_engine(engine)
    if repeats < 1:
        raise UsageError(f"repeats={repeats} must be at least 1")
    facts = check(chosen)
    taking_part = find_sites(chosen, sites)
    with RunStore.open(store) as opened:
        series = opened.begin_series(
            study=chosen.name, study_sha256=chosen.sha256(), study_text=chosen.text, repeats=repeats
        )
        asked = _asked(sites, taking_part)
        path = path_of(engine, chosen, stacked=stacked)
        _Series(opened, series, repeats, chosen, facts, engine, path, taking_part, asked, progress, observer).go_on({})
    with RunReader.open(store) as reader:
        return Result(report(reader, series), store)


def resume(
    run: str,
    *,
    sites: Sequence[str | Site] | None = None,
    store: str | None = None,
    progress: Progress = no_progress,
    observer: RunObserver = no_observer,
) -> Result:
    """Go on with a run that died, stopped or failed, and with what is left of its series.

    It goes on after the last round that is both in its checkpoint and in the store, with the same
    arrays as if nothing had happened. Repeats that are completed are left as they are.

    Parameters
    ----------
    run : str
        Id of a run or of its series, or "latest".
    sites : sequence of names, import paths or Site, optional
        Needed only where the run was given Site objects.
    store, progress, observer
        As for `run`.

    Raises
    ------
    UsageError
        If there is no such run, it is completed, or a living process writes it.
    FlfedError
        If it failed again.
    """
    with RunReader.open(store) as reader:
        entries = reader.runs_of(run)
        series = reader.series(run)
        entries = reader.runs_of(series.series)
        asked = reader.summary(entries[0].run, "asked") or {}
    study = Study.parse(series.study_text)
    if series.study != study.name:
        raise UsageError(f"run {run} is a point of a sweep, which keeps nothing to go on from: run the sweep anew")
    left = [entry for entry in entries if entry.status != "completed"]
    if not left and len(entries) == series.repeats:
        raise UsageError(f"run {run} is completed: there is nothing to resume; see: flfed run show {run}")
    for entry in left[1:]:  # the first is refused when it is taken over
        if entry.status == "running":
            raise UsageError(f"run {entry.run} of the same series is still running: wait for it, or end its process")
    check_engine(entries[0].engine)
    facts = check(study)
    if facts["schema"] != entries[0].hashes.get("schema"):
        raise UsageError(f"run {run}: the schema of dataset {study.dataset.name!r} has changed since; run it anew")
    if sites is None and asked.get("given"):
        raise UsageError(f"run {run} was run on {GIVEN}")
    taking_part = find_sites(study, sites if sites is not None else asked.get("sites"))
    first = asked.get("names", [site.name for site in taking_part])
    # A site that is new here would join the repeats that are left, and not those that are done.
    taking_part = [site for site in taking_part if site.name in first]
    with RunStore.open(store) as opened:
        again = _Series(
            store=opened,
            series=series.series,
            repeats=series.repeats,
            study=study,
            facts=facts,
            engine=entries[0].engine,
            path=entries[0].path,
            sites=taking_part,
            asked=asked,
            progress=progress,
            observer=observer,
        )
        again.go_on({entry.repeat: entry for entry in entries})
    with RunReader.open(store) as reader:
        return Result(report(reader, series.series), store)


def _asked(sites: Sequence[str | Site] | None, found: Sequence[Site]) -> dict[str, Any]:
    """Return how the sites of a run can be found again, and which ones were found."""
    words = None if sites is None else [item for item in sites if isinstance(item, str)]
    given = words is not None and len(words) < len(sites or ())
    return {"sites": words, "given": given, "names": [site.name for site in found]}


class _Progress:
    """The progress of several repeats side by side, told as that of the slowest."""

    def __init__(self, progress: Progress, repeats: int) -> None:
        self._progress, self._repeats = progress, repeats
        self._done: dict[str, dict[int, int]] = {}

    def of(self, repeat: int) -> Progress:
        """Return what one repeat tells its progress to."""

        def told(stage: str, done: int, of: int) -> None:
            known = self._done.setdefault(stage, {})
            before = min(known.values()) if len(known) == self._repeats else -1
            known[repeat] = done
            now = min(known.values()) if len(known) == self._repeats else -1
            if now > before:
                self._progress(stage, now, of)

        return told


@dataclass(frozen=True)
class _Series:
    """The repeats of one study, begun or gone on with."""

    store: RunStore
    series: str
    repeats: int
    study: Study
    facts: Mapping[str, str]
    engine: str
    path: str
    sites: Sequence[Site]
    asked: dict[str, Any]
    progress: Progress
    observer: RunObserver

    def go_on(self, entries: dict[int, RunEntry]) -> None:
        """Run every repeat that is not completed; `entries` are those begun before."""
        torch.set_num_threads(1)
        left = [
            number for number in range(self.repeats) if number not in entries or entries[number].status != "completed"
        ]
        at_once = max(1, min(AT_ONCE, SITES_AT_ONCE // len(self.sites))) if self.path == "stacked" else 1
        for start in range(0, len(left), at_once):
            some = left[start : start + at_once]
            if len(some) == 1:
                self._repeat(some[0], entries.get(some[0]), answer_together if self.path == "stacked" else None)
            else:
                self._several(some, entries)
            self.progress("repeats", some[-1] + 1, self.repeats)

    def _several(self, repeats: Sequence[int], entries: Mapping[int, RunEntry]) -> None:
        """Run some repeats side by side; an error in one is raised once all have ended."""
        progress = _Progress(self.progress, len(repeats))

        def task(repeat: int) -> Callable[[Answer], None]:
            return lambda answer: replace(self, progress=progress.of(repeat))._repeat(
                repeat, entries.get(repeat), answer
            )

        for outcome in side_by_side([task(repeat) for repeat in repeats], answer_together):
            if isinstance(outcome, BaseException):
                raise outcome

    def _repeat(self, repeat: int, entry: RunEntry | None, answer: Answer | None) -> None:
        """Run one repeat, from its beginning or from where it ended."""
        gone = sorted(set(self.asked.get("names", ())) - {site.name for site in self.sites})
        writer, checkpoint = self._begin(repeat) if entry is None else self._again(entry)
        recorder = Recorder(writer, self.facts["primary"], self.study.rounds, self.progress)
        if entry is not None and checkpoint is not None:
            recorder.resumed(checkpoint.round, entry.reason)
        elif gone:
            recorder.note(f"without {', '.join(gone)}: part of the series when it began, and not here now")
        self._run_once(repeat, recorder, checkpoint, answer)

    def _begin(self, repeat: int) -> tuple[RunWriter, None]:
        """Write down that a repeat starts."""
        writer = begin(
            self.store, self.series, self.study, self.facts, engine=self.engine, path=self.path, repeat=repeat
        )
        writer.summary("asked", self.asked)
        return writer, None

    def _again(self, entry: RunEntry) -> tuple[RunWriter, Checkpoint | None]:
        """Take a begun repeat over, at its last checkpoint that the store knows of."""
        checkpoint: Checkpoint | None = None

        def keep(rounds: int) -> int:
            nonlocal checkpoint
            checkpoint = checkpoints.newest(entry.run, rounds)
            if rounds and checkpoint is None:
                raise UsageError(
                    f"run {entry.run} has {rounds} rounds in the store and no checkpoint of them in "
                    f"{checkpoints.folder_of(entry.run)}: set FLFED_HOME to where it ran, or run the study anew"
                )
            return checkpoint.round if checkpoint else 0

        writer = self.store.resume_run(entry.run, keep)
        checkpoints.reopen(entry.run, checkpoint.round if checkpoint else 0)
        if entry.hashes.get("code") != code_sha256():
            writer.events([EventRow(None, None, "note", "resumed with another version of flfed's code")])
        return writer, checkpoint

    def _run_once(self, repeat: int, recorder: Recorder, checkpoint: Checkpoint | None, answer: Answer | None) -> None:
        """Run one repeat to its end in the record, whatever the end is."""
        writer, began = recorder.writer, time.monotonic() - (checkpoint.facts["seconds"] if checkpoint else 0.0)
        kept = f"what was done so far is kept: flfed study resume {writer.run}"
        with bad_end_written(writer, began, kept=kept):
            outcome = self._conduct(repeat, recorder, checkpoint, answer)
        writer.summary("encoder", {"sha256": outcome.encoder.sha256()})
        writer.finish(
            status=outcome.status,
            reason=outcome.reason,
            seconds=outcome.seconds,
            arrays_sha256=outcome.arrays_sha256(),
            best_round=outcome.best_round,
        )
        if outcome.status == "completed":
            checkpoints.settle(writer.run)

    def _conduct(
        self, repeat: int, recorder: Recorder, checkpoint: Checkpoint | None, answer: Answer | None
    ) -> Outcome:
        """Run one repeat on the engine and return how it ended."""
        config: dict[str, bool | float | int | str] = {"study": self.study.text, "repeat": repeat}
        if self.study.dataset.partition is None and self.engine != "inprocess":
            config["run"] = recorder.writer.run
        with started(self.engine, self.sites, config, answer) as (grid, tables):
            outcome = Conductor(
                grid,
                self.study,
                recorder,
                repeat=repeat,
                tables=tables,
                checkpoint=checkpoint,
                observer=self.observer,
            ).conduct()
        if self.study.compare.curve is not None and repeat == 0 and outcome.status == "completed":
            taking_part = [site for site in self.sites if site.name in outcome.sites]
            self._learning_curve(recorder, taking_part if tables is not None else None, answer)
        return outcome

    def _learning_curve(self, recorder: Recorder, held: Sequence[Site] | None, answer: Answer | None) -> None:
        """Add the learning curve of the series, or say why there is none; `held` are sites whose tables are here."""
        points: list[LearningPoint] = []
        reason = f"no learning curve: engine {self.engine!r} does not hold every table"
        if held is not None:
            points, reason = learning_curve(self.study, held, answer=answer, progress=self.progress)
        recorder.writer.learning_curve(points)
        recorder.events("holdout-opened", dict.fromkeys(sorted({point.site for point in points}), "learning-curve"))
        if reason:
            recorder.note(reason)
