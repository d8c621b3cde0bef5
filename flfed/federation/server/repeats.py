"""Repeats of a study.

They run one after the other, or side by side so that one engine computes for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch

from flfed.callbacks import Progress, RoundCallback, RunObserver, no_observer, no_progress
from flfed.errors import RunStopped, UsageError, interruption
from flfed.federation.client.protection import follows_history, read_ahead
from flfed.federation.engines.engine import Engine, RemoteSite, RunResources, answer_of
from flfed.federation.engines.lockstep import ROWS_AT_ONCE, OwnTime, SharedTime, Slowest, side_by_side
from flfed.federation.recording.recorder import Recorder
from flfed.federation.recording.run_record import Outcome, bad_end_written, begin, code_sha256
from flfed.federation.recording.source_model import source_of
from flfed.federation.server.party_run import conduct_vertical
from flfed.federation.server.server import FederatedRun
from flfed.federation.server.statistic import conduct_statistic
from flfed.federation.server.validation import conduct_validation
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import DriverStore, ForwardedStore, RunStore, RunWriter
from flfed.rows.data.site import CachedSite, Site
from flfed.rows.training.answer import stacked_compute
from flfed.rows.training.requests import Compute
from flfed.study.study import Study
from flfed.tasks import Driver, open_tasks
from flfed.updates.aggregation.rounds import rarely_collected
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.updates.checkpoints.checkpoint import Checkpoint
from flfed.words import render, usage_error

AT_ONCE = 10
"""Repeats that run side by side, at most; also a task of another process, so that stacks do not depend on these."""
SITES_AT_ONCE = 2000
"""Sites whose tables are open at a time, over all repeats side by side."""


#   series (study run --repeats 10)
#     ├─ run, repeat 0   seed       ┐
#     ├─ run, repeat 1   seed + 1   ├ side by side where the engine stacks: their requests are computed together
#     └─ …                          ┘
#          └─ rounds, the last evaluation, the comparison
#
# A repeat has other seeds and, where the sites' policies allow, another holdout; the tables are read once. `resume`
# continues a series: completed repeats stay as they are.
@dataclass(frozen=True)
class Series:
    """Repeats of one study, new or resumed.

    Attributes
    ----------
    store : RunStore
    series : str
        Its id.
    repeats : int
        How many there are in all.
    study : Study
    facts : mapping
        From `preflight.check`.
    engine : Engine
    path : str
        From `path_of`; a series is resumed with the path that it was begun with.
    sites : sequence of Site, or of RemoteSite where the engine is remote
    options : dict
        Facts to find the sites again.
    progress, observer : callables
        Side by side, the progress is that of the slowest repeat, and the observer is called for each repeat in its
        turn.
    callback : callable (figures), optional
        Receives the figures of each round of each repeat; that repeat ends after it where it returns true.
    jobs : int or Cluster
        Processes; `tasks.ALL` for the cores that memory can feed.
    """

    store: RunStore
    series: str
    repeats: int
    study: Study
    facts: Mapping[str, str]
    engine: Engine
    path: str
    sites: Sequence[Site | RemoteSite]
    options: dict[str, Any]
    progress: Progress
    observer: RunObserver
    callback: RoundCallback | None = None
    jobs: int = 1

    def go_on(self, entries: dict[int, RunEntry]) -> None:
        """Run every repeat that is not completed.

        `entries` are those begun before.
        """
        torch.set_num_threads(1)
        left = [
            number for number in range(self.repeats) if number not in entries or entries[number].status != "completed"
        ]
        # Repeats differ only in the split, so each table is read and encoded once.
        again = self.engine.stacks and len(left) > 1
        once = replace(self, sites=[CachedSite.of(site) for site in self._here()]) if again else self
        if again:
            read_ahead(self.study, once._here())
        groups = once._groups(left)
        with rarely_collected():
            if once._run_in_processes(groups, entries):
                return
            over = self.repeats - len(left)
            for group in groups:
                once.run_group(group, entries)
                over += len(group)
                self.progress("repeats", over, self.repeats)

    def _here(self) -> list[Site]:
        """Return the sites with readable tables.

        This process may read them.
        """
        return [site for site in self.sites if isinstance(site, Site)]

    def _groups(self, left: Sequence[int]) -> list[list[int]]:
        """Return the repeats that run side by side, of those left.

        They follow from study and rows alone: what trains as a stack must not depend on the number of processes.
        """
        size = 1
        if self.path == "stacked":
            read = [rows for site in self.sites if isinstance(site, CachedSite) for rows in site.opened.values()]
            by_rows = ROWS_AT_ONCE // max(1, sum(len(rows.order) for rows in read))
            size = max(1, min(AT_ONCE, by_rows, SITES_AT_ONCE // len(self.sites)))
        groups = [[number for number in left if number // size == group] for group in range(self.repeats)]
        return [group for group in groups if group]

    def _run_in_processes(self, groups: Sequence[Sequence[int]], entries: dict[int, RunEntry]) -> bool:
        """Run groups of repeats in several processes, where there are jobs; return whether they ran.

        An error is raised after all have ended, and it is that of the first group.
        """
        # Where one run decides what a later one may release, they run in their order.
        if not self.engine.stacks or any(follows_history(self.study, site) for site in self._here()):
            return False
        store = DriverStore(self.store)

        def again(task: int) -> None:
            store.end("failed", render("run.jobs.lost"), task)
            with suppress(UsageError), RunReader.open(self.store.address) as reader:
                entries.update({entry.repeat: entry for entry in reader.runs_of(self.series)})

        functions: dict[str, Callable[..., Any]] = {
            **store.functions,
            "entries": lambda task: {repeat: entries[repeat] for repeat in groups[task] if repeat in entries},
            "observer": lambda task, stage, round: self.observer(stage, round),
            "callback": lambda task, figures: bool(self.callback and self.callback(figures)),
        }
        over = self.repeats - sum(map(len, groups))

        def count(number: int, _: None) -> None:
            nonlocal over
            over += len(groups[number])
            self.progress("repeats", over, self.repeats)

        bare = replace(
            self, store=cast(RunStore, None), progress=no_progress, observer=no_observer, callback=None, jobs=1
        )
        calls = {"observer": self.observer is not no_observer, "callback": self.callback is not None}
        present = [name for name, is_there in calls.items() if is_there]
        task = partial(_run_elsewhere, bare, present)
        tasks = open_tasks(task, groups, self.jobs, functions=functions, progress=self.progress, lost=again)
        if tasks is None:
            return False
        try:
            tasks.finish(count)
        except KeyboardInterrupt as error:
            store.end("stopped", interruption(error))
            raise self._stopped(error) from None
        return True

    def _stopped(self, error: KeyboardInterrupt) -> RunStopped:
        """Return the end of the series by a person, after all its repeats have ended."""
        stopped = RunStopped(f"{interruption(error)}; {render('run.stops.resume', run=self.series)}")
        stopped.by = interruption(error)
        stopped.run = self.series
        return stopped

    def run_group(self, group: Sequence[int], entries: Mapping[int, RunEntry]) -> None:
        """Run some repeats, side by side where there are several."""
        if len(group) > 1:
            self._several(group, entries)
            return
        answer = answer_of(self.path, self.progress, self.jobs)
        way = RunResources(answer, self.progress, jobs=self.jobs)
        self._repeat(group[0], entries.get(group[0]), way)

    def _several(self, repeats: Sequence[int], entries: Mapping[int, RunEntry]) -> None:
        """Run several repeats side by side.

        An error is raised after all have ended, and it is that of the first.
        """
        progress = Slowest(self.progress, repeats)
        shared = SharedTime(stacked_compute(progress=self.progress))

        def task(repeat: int) -> Callable[[Compute], None]:
            def go(answer: Compute) -> None:
                own = OwnTime(shared)
                try:
                    way = RunResources(own.stopped_while(answer), progress.of(repeat), own)
                    self._repeat(repeat, entries.get(repeat), way)
                except RunStopped as stopped:
                    raise KeyboardInterrupt from stopped  # the person interrupts all of them
                finally:
                    progress.over(repeat)

            return go

        try:
            outcomes = side_by_side([task(repeat) for repeat in repeats], shared.answer)
        # The stop of one repeat has ended all, and is reported as that of the series.
        except KeyboardInterrupt as error:
            raise self._stopped(error) from None
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def _repeat(self, repeat: int, entry: RunEntry | None, way: RunResources) -> None:
        """Run one repeat.

        It starts at its beginning, or where it ended.
        """
        checkpoint: Checkpoint | None = None
        if entry is None:
            writer = begin(
                self.store, self.series, self.study, self.facts, engine=self.engine.name, path=self.path, repeat=repeat
            )
        else:
            writer, checkpoint = self._again(entry)
        began = way.clock() - (checkpoint.facts["seconds"] if checkpoint else 0.0)
        hint = render("run.stops.resume", run=writer.run)
        if self.options.get("given"):
            hint = render("run.stops.given", run=writer.run)
        with bad_end_written(writer, began, resume_hint=hint, clock=way.clock):
            if entry is None:
                writer.summary("asked", self.options)
            else:
                checkpoints.reopen(entry.run, checkpoint.round if checkpoint else 0)
            recorder = Recorder(writer, self.facts["primary"], self.study.most_rounds, way.progress, self.series)
            self._note_beginning(recorder, entry, checkpoint)
            outcome = self._conduct(repeat, recorder, checkpoint, way)
        outcome.write_end(writer)
        # The round checkpoints of a completed run are no longer needed.
        if outcome.status == "completed":
            checkpoints.settle(writer.run)

    def _note_beginning(self, recorder: Recorder, entry: RunEntry | None, checkpoint: Checkpoint | None) -> None:
        """Note what a reader of the record should know of how a repeat begins, or goes on."""
        # Another version of the code may compute otherwise, which the record should show.
        if entry is not None and entry.hashes.get("code") != code_sha256():
            recorder.note(render("run.notes.version"))
        # The record of each repeat names sites that are gone.
        gone = sorted(set(self.options.get("names", ())) - {site.name for site in self.sites})
        if entry is not None and checkpoint is not None:
            recorder.resumed(checkpoint.round, entry.reason)
        elif gone:
            recorder.note(render("run.notes.gone", sites=", ".join(gone)))
        stackable = self.engine.stacks and self.options.get("stacked") and not self.study.grows_trees
        if self.path == "one-by-one" and stackable:
            recorder.note(render("run.notes.unstacked", model=self.study.model.title))

    def _again(self, entry: RunEntry) -> tuple[RunWriter, Checkpoint | None]:
        """Resume a repeat at its last checkpoint.

        It is the last one in the store.
        """
        checkpoint: Checkpoint | None = None

        def keep(rounds: int) -> int:
            nonlocal checkpoint
            checkpoint = checkpoints.newest(entry.run, rounds)
            # Rounds without their checkpoint cannot be continued, and are not overwritten.
            if rounds and checkpoint is None:
                where = checkpoints.folder_of(entry.run)
                raise usage_error("run.resume.lost", run=entry.run, rounds=rounds, folder=where)
            return checkpoint.round if checkpoint else 0

        return self.store.resume_run(entry.run, keep), checkpoint

    def _conduct(self, repeat: int, recorder: Recorder, checkpoint: Checkpoint | None, way: RunResources) -> Outcome:
        """Run one repeat on the engine.

        Return its outcome.
        """
        config: dict[str, bool | float | int | str] = {"study": self.study.text, "repeat": repeat}
        # In one process no reply is stored to be sent again; the sites' ledgers name the run all the same.
        keeps_replies = self.study.dataset.partition is None and self.engine.keeps_replies
        config["run" if keeps_replies else "run-here"] = recorder.writer.run
        # Institutions received the source with the approval: it is not sent.
        way = replace(way, source=None if self.engine.remote else source_of(self.study, self.series))
        with self.engine.started(self.sites, config, way) as (grid, tables):
            conductor = FederatedRun(
                grid,
                self.study,
                recorder,
                repeat=repeat,
                tables=tables,
                checkpoint=checkpoint,
                observer=_after_writing(self.observer, recorder.writer),
                callback=self.callback,
                clock=way.clock,
                each_round=self.engine.remote,
            )
            if self.study.is_statistic:
                return conduct_statistic(conductor)
            if self.study.is_vertical:
                return conduct_vertical(conductor)
            return conductor.conduct() if self.study.train else conduct_validation(conductor)


def check_left(run: str, entries: Sequence[RunEntry], repeats: int) -> None:
    """Refuse to resume a completed series.

    One that a living process writes is refused, too. Raises UsageError.
    """
    left = [entry for entry in entries if entry.status != "completed"]
    if not left and len(entries) == repeats:
        raise usage_error("run.resume.completed", run=run)
    # A living process of the series would write the same repeats.
    for entry in left[1:]:  # the first is refused when it is resumed
        if entry.status == "running":
            raise usage_error("run.resume.running", run=entry.run)


def _run_elsewhere(series: Series, calls: Sequence[str], group: Sequence[int], driver: Driver) -> None:
    """Run the repeats of a group that are not completed, in another process.

    `series` has no store, progress, observer or callback: the driver has them. `calls` are the last two that
    it has.
    """
    entries = driver.call("entries")
    left = [repeat for repeat in group if repeat not in entries or entries[repeat].status != "completed"]
    own: dict[str, Any] = {name: partial(driver.call, name) for name in calls}
    here = replace(series, store=cast(RunStore, ForwardedStore(driver)), progress=driver.progress, **own)
    with rarely_collected():
        here.run_group(left, entries)


def _after_writing(observer: RunObserver, writer: RunWriter) -> RunObserver:
    """Return the observer of a repeat.

    It is called for a round after that is in the store, and does not wait where there is no observer.
    """
    if observer is no_observer:
        return no_observer

    def observe(stage: str, round: int) -> None:
        # An observer that reads the store finds the round of the call.
        writer.flush()
        observer(stage, round)

    return observe
