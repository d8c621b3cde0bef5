"""Running a study: from its text to a record, on an engine."""

from __future__ import annotations

import datetime
import hashlib
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import flfed
from flfed.apps.client_app import ClientSide
from flfed.apps.engines.inprocess import InProcessGrid
from flfed.apps.recording import Progress, Recorder, no_progress
from flfed.apps.server_app import Conductor
from flfed.errors import FlfedError, RunStopped, UsageError, nearest
from flfed.records.reading import RunReader
from flfed.records.reports import report
from flfed.records.store import RunStore, RunWriter
from flfed.rows import datasets
from flfed.rows import site as sites_listing
from flfed.rows.partition import cut
from flfed.rows.reference import Reference, reference, union_scores
from flfed.rows.scoring import metrics_of, primary_of
from flfed.rows.site import Site
from flfed.rows.training.fit import drive
from flfed.rows.workplace import Workplace
from flfed.study import Study
from flfed.summary import Encoder
from flfed.updates.content import Arrays

ENGINES = ("inprocess",)
LATER_ENGINES = ("ray", "deployment")


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
        """One row per arm and metric over all sites: global, sites-mean, pooled, own-model-everywhere."""
        lines = [
            {"arm": arm, "metric": metric, **figure}
            for arm in ("global", "sites-mean", "pooled", "own-model-everywhere")
            for metric, figure in (self.report[arm] or {}).items()
        ]
        return pd.DataFrame(lines)


class HeldTables:
    """What an engine that holds every table adds to a run.

    Parameters
    ----------
    side : ClientSide
        Whose workplaces are open.
    key : (study text, repeat)
    """

    def __init__(self, side: ClientSide, key: tuple[str, int]) -> None:
        self._side, self._key = side, key

    def workplaces(self, sites: Sequence[str]) -> list[Workplace]:
        """Return the open workplaces of these sites, in the given order."""
        return [self._side.workplaces[(site, *self._key)] for site in sites]

    def reference(self, sites: list[str], arrays: Arrays, encoder: Encoder) -> Reference:
        """Return the figures over all rows."""
        found: Reference = drive(reference(self.workplaces(sites), arrays, encoder))
        return found

    def primary_moved(self, sites: list[str], arrays: Arrays, encoder: Encoder, other: Arrays, exact: Encoder) -> float:
        """Return the primary metric of `arrays` minus that of `other`, over the union of holdouts; or NaN."""
        workplaces = self.workplaces(sites)
        first = workplaces[0]
        y = np.concatenate([w.target(w.table.holdout("compare")) for w in workplaces])
        metric = metrics_of(first.task)[first.primary]
        if metric.defined(y):
            return float("nan")
        used = metric.value(y, drive(union_scores(workplaces, arrays, encoder)))
        return float(used - metric.value(y, drive(union_scores(workplaces, other, exact))))


def run(
    study: Study | str | Path,
    *,
    engine: str = "inprocess",
    repeats: int = 1,
    sites: Sequence[str | Site] | None = None,
    store: str | None = None,
    progress: Progress = no_progress,
) -> Result:
    """Run a study and return what it showed; everything is in the run store as well.

    Parameters
    ----------
    study : Study, or the name or file of one
    engine : {"inprocess"}
    repeats : int, >= 1
        Runs with other seeds, and other holdouts where the sites' policies allow.
    sites : sequence of names, import paths or Site, optional
        Instead of those that the study names or that are found.
    store : str, optional
        Database URL; default `FLFED_STORE`, else `runs.db` under `FLFED_HOME`.
    progress : callable (stage, done, of)

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
    if engine in LATER_ENGINES:
        raise UsageError(f"engine {engine!r} is not available in this version; use 'inprocess'")
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is not known{nearest(engine, ENGINES)} Known: {', '.join(ENGINES)}")
    if repeats < 1:
        raise UsageError(f"repeats={repeats} must be at least 1")
    facts = check(chosen)
    taking_part = find_sites(chosen, sites)
    torch.set_num_threads(1)
    with RunStore.open(store) as opened:
        series = opened.begin_series(
            study=chosen.name, study_sha256=chosen.sha256(), study_text=chosen.text, repeats=repeats
        )
        for repeat in range(repeats):
            writer = opened.begin_run(
                series,
                repeat=repeat,
                engine=engine,
                path="one-by-one",
                seed=chosen.seed + repeat,
                rounds_planned=chosen.rounds,
                versions=versions(),
                hashes={"study": chosen.sha256(), "schema": facts["schema"], "code": code_sha256()},
                primary=facts["primary"],
                task=facts["task"],
            )
            recorder = Recorder(writer, facts["primary"], chosen.rounds, progress)
            try:
                _run_once(chosen, taking_part, repeat, recorder)
            except FlfedError as error:
                error.run = writer.run
                raise
            progress("repeats", repeat + 1, repeats)
    with RunReader.open(store) as reader:
        return Result(report(reader, series), store)


def _run_once(study: Study, sites: Sequence[Site], repeat: int, recorder: Recorder) -> None:
    """Run one repeat to its end in the record, whatever the end is."""
    began = time.monotonic()
    by_name = {site.name: site for site in sites}
    side = ClientSide(lambda name, _: by_name[name])
    config: dict[str, bool | float | int | str] = {"study": study.text, "repeat": repeat}
    grid = InProcessGrid(side.app(), [site.name for site in sites], config)
    tables = HeldTables(side, (study.text, repeat))
    writer = recorder.writer
    try:
        outcome = Conductor(grid, study, recorder, repeat=repeat, tables=tables).conduct()
    except FlfedError as error:
        _close(writer, "failed", str(error), began)
        raise
    except KeyboardInterrupt:
        _close(writer, "stopped", "interrupted from the keyboard", began)
        raise RunStopped("interrupted from the keyboard; what was done so far is in the run store") from None
    except Exception as error:
        _close(writer, "failed", f"{type(error).__name__}: see the log", began)
        raise
    writer.summary("encoder", {"sha256": outcome.encoder.sha256()})
    writer.finish(
        status=outcome.status,
        reason=outcome.reason,
        seconds=time.monotonic() - began,
        arrays_sha256=outcome.arrays_sha256(),
        best_round=outcome.best_round,
    )


def _close(writer: RunWriter, status: str, reason: str, began: float) -> None:
    writer.finish(status=status, reason=reason, seconds=time.monotonic() - began)


def find_sites(study: Study, given: Sequence[str | Site] | None = None) -> list[Site]:
    """Return the sites that take part: those given, those the study names, or all of its dataset.

    Raises
    ------
    UsageError
        If there are none, their dataset's files are to be fetched first, or the study cuts its
        own and others are given.
    """
    if study.dataset.partition is not None:
        if given is not None:
            raise UsageError("the study cuts its dataset into research sites itself; it takes no others")
        return cut(datasets.load(study.dataset.name), study.dataset.partition)
    wanted = given if given is not None else study.dataset.sites
    found = sites_listing.of_dataset(study.dataset.name) if wanted is None else sites_listing.chosen(wanted)
    for site in found:
        if site.dataset != study.dataset.name:
            raise UsageError(f"site {site.name!r} has dataset {site.dataset!r}, the study asks {study.dataset.name!r}")
    if not found:
        raise UsageError(f"no site is found whose dataset is {study.dataset.name!r}; see: flfed site list")
    # Only the files that these sites read: an institution's own table needs no public ones.
    read = {getattr(site.source, "path", "") for site in found}
    absent = [file.name for file in datasets.load(study.dataset.name).absent() if file.name in read]
    if absent:
        name = study.dataset.name
        raise UsageError(f"dataset {name!r} is not here yet ({', '.join(absent)}): flfed data get {name}")
    return found


def check(study: Study) -> dict[str, str]:
    """Check a study against everything that is listed, without reading a table.

    Returns
    -------
    facts : dict with "schema" (its hash), "task" and "primary"

    Raises
    ------
    UsageError
        For the first thing that does not fit.
    """
    dataset = datasets.load(study.dataset.name)
    dataset.schema.features(study.dataset.features)
    model = study.model.build("model")
    if dataset.schema.task not in model.tasks:
        raise UsageError(
            f"[model] {study.model.name}: is for {' and '.join(model.tasks)}, "
            f"the dataset's task is {dataset.schema.task!r}"
        )
    if study.plan.class_weight == "balanced" and dataset.schema.task == "regression":
        raise UsageError("[plan]: class-weight='balanced' needs classes; the dataset's task is 'regression'")
    study.strategy.build("strategy").check(study.plan)
    primary = primary_of(dataset.schema.task, study.compare.primary)
    if study.expires is not None and datetime.date.today() > study.expires:
        raise UsageError(f"the study expired on {study.expires.isoformat()}; its sites would refuse it")
    return {"schema": dataset.schema.sha256(), "task": dataset.schema.task, "primary": primary}


@cache
def code_sha256() -> str:
    """Return the hash of flfed's own code: over each file's path and bytes, in path order."""
    package, digest = Path(flfed.__file__).parent, hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()}\x1e".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions a run can be repeated with."""
    packages = ("flwr", "torch", "numpy", "pandas", "scikit-learn")
    return {"flfed": flfed.__version__, "python": platform.python_version(), **{p: version(p) for p in packages}}
