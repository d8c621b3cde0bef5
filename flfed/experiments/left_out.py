"""Runs of a study without some of its sites, on tables that one process holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from flfed.callbacks import Progress
from flfed.errors import RunStopped
from flfed.federation.engines.engine import find_sites
from flfed.federation.server.run import run
from flfed.records.reports.faults import some
from flfed.records.store.entries import RunEntry
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from flfed.rows.data.site import Site
from flfed.study.study import Study
from flfed.words import render, usage_error

LEAST_SITES = 3


def open_sites(study: Study, sites: Sequence[Site] | None, option: str) -> tuple[Study, list[Site]]:
    """Return the study and the sites of runs that each leave some of them out.

    Parameters
    ----------
    study : Study
    sites : sequence of Site, optional
        As `run` takes them.
    option : str
        Option of the command, for errors.

    Raises
    ------
    UsageError
        If the study trains nothing, a site's policy is not open (two runs that differ by a site give its update away),
        or there are fewer than three sites.
    """
    if not study.train:
        raise usage_error("experiments.left-out.untrained", option=option)
    chosen = find_sites(study, sites)
    if closed := closed_names(chosen):
        raise usage_error("experiments.left-out.open", option=option, sites=closed)
    if len(chosen) < LEAST_SITES:
        raise usage_error("experiments.left-out.few", option=option, sites=len(chosen), least=LEAST_SITES)
    # The sites are made here: a partition would be cut anew for the rest of them.
    if study.dataset.partition is not None:
        study = study.replace({"dataset.partition": None})
    return study, chosen


def run_sites(study: Study, sites: Sequence[Site], repeats: int, progress: Progress) -> list[RunEntry]:
    """Run a study at some sites, and return the run of each repeat.

    Raises
    ------
    RunStopped
        If the run ended before its last round.
    """
    result = run(study, sites=sites, repeats=repeats, progress=progress)
    if result.status != "completed":
        reason = result.report["reason"].rstrip(".")
        raise RunStopped(render("experiments.left-out.stopped", run=result.run, reason=reason))
    with RunReader.open() as reader:
        return reader.runs_of(result.run)


def run_without_sites(
    study: Study, sites: Sequence[Site], names: Collection[str], option: str, repeats: int, progress: Progress
) -> list[RunEntry]:
    """Run a study without the sites of some names, as `run_sites`, and note that it is one of an option's runs."""
    rest = [site for site in sites if site.name not in names]
    runs = run_sites(study, rest, repeats, progress)
    note_runs(runs[0].series, option, f"without {some(sorted(names))}")
    return runs


def find_participants(run: str) -> set[str]:
    """Return the sites of a run that were not refused."""
    with RunReader.open() as reader:
        return {site.site for site in reader.sites(run) if site.status != "refused"}


def closed_names(sites: Iterable[Site]) -> str:
    """Return the names of the sites whose policy is not open, with commas."""
    return ", ".join(site.name for site in sites if not site.policy.is_open)


def note_runs(name: str, option: str, rows: str) -> None:
    """Note in the list of runs that a run, or a series, is one of an option's, and which rows it has."""
    with RunReader.open() as reader, RunStore.open() as store:
        store.note([entry.run for entry in reader.runs_of(name)], f"{option}: {rows}", by=option)
