"""Entry points that run and resume a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from flfed.callbacks import Progress, RoundCallback, RunObserver, no_observer, no_progress
from flfed.federation.engines.engine import RemoteSite, engine_of, path_of
from flfed.federation.recording.source_model import forget_source, keep_source, named_start
from flfed.federation.server.preflight import check, check_vertical
from flfed.federation.server.repeats import Series, check_left
from flfed.records.reports.report import REFERENCES, report
from flfed.records.reports.site_verdict import gain_at
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.updates.checkpoints import checkpoint as checkpoints
from flfed.words import usage_error


@dataclass(frozen=True)
class Result:
    """Result of a run or of a series of repeats.

    Attributes
    ----------
    report : dict
        The object of `flfed study run --json`; for a statistic or an analysis, without the keys of models.
    store : str or None
        URL of the run store; None for the default.
    """

    report: dict[str, Any]
    store: str | None = None

    @property
    def run(self) -> str:
        """Id of the run or series.

        `flfed run show` takes it.
        """
        return str(self.report["run"])

    @property
    def status(self) -> str:
        """Status at the end of the run.

        It is "completed" or "stopped".
        """
        return str(self.report["status"])

    @cached_property
    def sites(self) -> pd.DataFrame:
        """Table of one row per site, arm and metric.

        The columns hold value, low, high and sd.

        Arm "gain" has the figures of `flfed run show` and the app, with the `verdict` and its interval. It is of the
        `model` that is better there, and above 0 where joining is. Arm "difference" is the shared model minus the
        site's own, in the metric's sign, with its plain interval.
        """
        # Sites may miss an arm: one that could not be compared has no figures.
        lines: list[dict[str, Any]] = []
        for site, site_report in self.report["sites"].items():
            for arm in ("global", "local-only", "personalised", "difference"):
                lines += _lines({"site": site, "arm": arm}, site_report.get(arm))
        for site, site_report in self.report["sites"].items():
            gains = {metric: gain_at(site_report, metric) for metric in self.report["verdict-rule"]["minimum-gain"]}
            lines += _lines({"site": site, "arm": "gain"}, gains)
        return _table(lines, "site", "arm")

    @cached_property
    def overall(self) -> pd.DataFrame:
        """Table of one row per metric and arm.

        It is over all sites: shared model, pooled model and the other models.
        """
        lines = [line for arm in REFERENCES for line in _lines({"arm": arm}, self.report[arm])]
        return _table(lines, "arm")


def _table(lines: Sequence[Mapping[str, Any]], *of: str) -> pd.DataFrame:
    """Return lines as a table, which has its columns without a line too."""
    return pd.DataFrame(lines) if lines else pd.DataFrame(columns=[*of, "metric", "value", "low", "high"])


def _lines(of: Mapping[str, str], figures: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return a line of a table for each metric.

    It begins with the place of its figure.
    """
    return [{**of, "metric": metric, **figure} for metric, figure in (figures or {}).items()]


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
    callback: RoundCallback | None = None,
    jobs: int = 1,
) -> Result:
    """Run a study and return its result.

    The run store has everything as well.

    Parameters
    ----------
    study : Study, or the name or file of one
    engine : {"inprocess", "ray", "deployment"}
        The last one asks the sites that this user's coordinator admitted (docs/run-a-consortium.md).
    repeats : int, >= 1
        Runs with other seeds, and other holdouts where the sites' policies allow.
    sites : sequence of names, import paths or Site, optional
        In place of the sites that the study names or that are available.
    store : str, optional
        Database URL; default `FLFED_STORE`, else `runs.db` under `FLFED_HOME`.
    stacked : bool
        Whether the in-process engine computes for many sites, and many repeats, at once; the
        figures are the same, several times faster.
    progress : callable (stage, done, of)
    observer : callable (stage, round)
        Receives "checkpoint" once a round's file is on the disk, "round" once it is in the store. Repeats side by
        side call it in turn, a round of each before the next one.
    callback : callable (figures), optional
        Receives the figures of each round: `run`, `round`, `rounds`, `scored-model` (the round of the scored model),
        `all` (by metric, over all sites) and `sites`. A repeat ends after the round in which it returns something
        true, and its model at that time is compared.
    jobs : int
        Processes for groups of ten repeats, or for the own and pooled models of one; -1 for all cores allowed that
        memory can feed. The arrays are the same.

    Notes
    -----
    Side by side, the others continue where one repeat fails or stops; the first error is raised at the end. Ctrl-C
    stops all of them, and `resume` continues all. The seconds of a repeat are its share of the time, so that those of a
    series add up to its duration.

    Raises
    ------
    UsageError
        For an error in study, sites or options; nothing was run.
    FlfedError
        If a run failed; the store has it as failed, with the reason.

    Examples
    --------
    >>> from flfed import run
    >>> result = run("preterm-birth", repeats=10)  # doctest: +SKIP
    >>> result.sites  # doctest: +SKIP
    """
    chosen = study if isinstance(study, Study) else Study.load(study)
    # All errors of the request are refused before the store is written.
    runs_on = engine_of(engine)
    runs_on.require()
    if type(repeats) is not int or repeats < 1:
        raise usage_error("run.failures.repeats", repeats=repeats)
    if repeats > 1 and not chosen.train:
        raise usage_error("run.failures.repeats-untrained")
    checkpoints.seconds_apart()
    facts = check(chosen)
    if chosen.model.is_module and runs_on.name != "inprocess":
        raise usage_error("run.check.module", engine=engine)
    check_vertical(chosen, engine, repeats)
    chosen = named_start(chosen, approved=runs_on.remote, store=store)
    resolved_sites = runs_on.sites(chosen, sites)
    with RunStore.open(store) as opened:
        series = opened.begin_series(
            study=chosen.name, study_sha256=chosen.sha256(), study_text=chosen.text, repeats=repeats
        )
        keep_source(chosen, series, store)
        options = _run_options(sites, resolved_sites) | {"stacked": stacked}
        path = path_of(runs_on, chosen, stacked=stacked)
        Series(
            opened, series, repeats, chosen, facts, runs_on, path, resolved_sites, options, progress, observer,
            callback, jobs,
        ).go_on({})  # fmt: skip
    return _result(series, store)


def resume(
    run: str,
    *,
    sites: Sequence[str | Site] | None = None,
    store: str | None = None,
    progress: Progress = no_progress,
    observer: RunObserver = no_observer,
    callback: RoundCallback | None = None,
    jobs: int = 1,
) -> Result:
    """Resume a run that died, stopped or failed.

    The rest of its series is run as well.

    It continues from the last round that is both in its checkpoint and in the store, with the same arrays as without
    the break. Completed repeats are left as they are.

    Parameters
    ----------
    run : str
        Id of a run or of its series, or "latest".
    sites : sequence of names, import paths or Site, optional
        Needed only where a program passed Site objects to the run. A run of `federate` is resumed by `federate`.
    store, progress, observer, callback, jobs
        As for `run`.

    Raises
    ------
    UsageError
        If there is no such run, it is completed, or a living process writes it.
    FlfedError
        If it failed again.
    """
    # The record alone shows the missing repeats, their engine and their sites.
    with RunReader.open(store) as reader:
        series = reader.series(run)
        entries = reader.runs_of(series.series)
        options = reader.summary(entries[0].run, "asked") or {}
    engine = engine_of(entries[0].engine)
    study = Study.parse(series.study_text)
    if series.study != study.name:
        raise usage_error("run.resume.sweep", run=run)
    check_left(run, entries, series.repeats)
    engine.require()
    checkpoints.seconds_apart()
    # A changed schema would train one model on two kinds of rows.
    facts = check(study)
    if facts["schema"] != entries[0].hashes.get("schema"):
        raise usage_error("run.resume.schema", run=run, dataset=study.dataset.name)
    # Site objects of a program cannot be found by name again.
    if options.get("given") and isinstance(sites, Mapping | None):
        raise usage_error("run.resume.frames", run=run)
    wanted = options.get("sites") if sites is None else sites
    resolved_sites = engine.sites(study, wanted)
    first = options.get("names", [site.name for site in resolved_sites])
    with RunStore.open(store) as opened:
        path = entries[0].path
        # A site that is new here would join the missing repeats, and not the completed ones.
        early = [site for site in resolved_sites if site.name in first]
        Series(
            opened, series.series, series.repeats, study, facts, engine, path, early, options, progress, observer,
            callback, jobs,
        ).go_on({entry.repeat: entry for entry in entries})  # fmt: skip
    return _result(series.series, store)


def _result(series: str, store: str | None) -> Result:
    """Return the result of a series that has ended."""
    with RunReader.open(store) as reader:
        result = Result(report(reader, series), store)
    if result.status == "completed":
        forget_source(series)
    return result


def _run_options(sites: Sequence[str | Site] | None, resolved_sites: Sequence[Site | RemoteSite]) -> dict[str, Any]:
    """Return the facts to find the sites again.

    The names of the chosen sites are among them.
    """
    words = None if sites is None else [item for item in sites if isinstance(item, str)]
    has_objects = len(words or ()) < len(sites or ())
    return {"sites": words, "given": has_objects, "names": [site.name for site in resolved_sites]}
