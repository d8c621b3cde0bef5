"""Erasure of a run or a study at its site: the files with arrays or rows, and no record of an output."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flfed.deployment.site_state.approval import Approval, approvals, is_paused
from flfed.paths import RUN, SiteFolder
from flfed.records.ledger import ledger_of
from flfed.words import flfed_error, usage_error

STAYS = ("ledger", "hashes", "lists", "answers")
"""Keys of the sentences in `commands.stays`."""


@dataclass(frozen=True)
class Purge:
    """Files of some runs at a site, none of which is removed yet.

    Attributes
    ----------
    runs : tuple of str
    paths : tuple of Path
        Files and whole folders.
    needed : tuple of str
        Approved studies that still need the snapshot or the start model.
    """

    runs: tuple[str, ...]
    paths: tuple[Path, ...]
    needed: tuple[str, ...]

    def remove(self) -> None:
        """Remove the files.

        Raises
        ------
        FlfedError
            If one cannot be removed; the command may be repeated.
        """
        try:
            for path in self.paths:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise flfed_error("commands.purge.failed", file=error.filename, why=error.strerror) from None


def plan_purge(folder: SiteFolder, target: str) -> Purge:
    """Return the files of a run or of all runs of a study.

    Parameters
    ----------
    folder : SiteFolder
    target : str
        A run, a study's name, or at least 8 characters of its SHA-256.

    Raises
    ------
    UsageError
        If the site knows neither, or a run is under way: its state is there, and the site may still reply to it.
    """
    chosen = _in_ledger(folder, target)
    decisions = approvals(folder)
    hashes = {sha256 for _, sha256 in chosen}
    # A study may be approved and have no run yet.
    hashes |= {one.study_sha256 for one in decisions if _is_study(target, one.study, one.study_sha256)}
    if not hashes:
        raise usage_error("commands.purge.unknown", site=folder.site, target=target)
    runs = sorted({run for run, _ in chosen if RUN.fullmatch(run)})
    concerned = [one for one in decisions if one.study_sha256 in hashes]
    _refuse_under_way(folder, runs, concerned)
    standing = [one for one in decisions if one.decision == "approved"]
    paths, needed = _of_studies(folder, concerned, standing)
    for run in runs:
        paths += _of_run(folder, run)
    return Purge(tuple(runs), tuple(path for path in paths if path.exists()), needed)


def _in_ledger(folder: SiteFolder, target: str) -> set[tuple[str, str]]:
    """Return the runs with their studies' hashes that the ledger has of a run, else of a study."""
    of_run = set[tuple[str, str]]()
    of_study = set[tuple[str, str]]()
    for line in ledger_of(folder).lines():
        both = (line.text("run"), line.text("study-sha256"))
        if both[0] == target:
            of_run.add(both)
        if _is_study(target, line.text("study"), both[1]):
            of_study.add(both)
    return of_run or of_study


def _is_study(target: str, name: str, sha256: str) -> bool:
    return target == name or (len(target) >= 8 and sha256.startswith(target))


def _refuse_under_way(folder: SiteFolder, runs: list[str], decisions: list[Approval]) -> None:
    # A comparison removes a run's state; a run without it is over.
    open_runs = [run for run in runs if (folder.states / run).exists()]
    standing = [one for one in decisions if one.decision == "approved"]
    if open_runs and standing:
        raise usage_error("commands.purge.running", site=folder.site, run=open_runs[0], study=standing[0].study)
    # Some policies need no approval: only a pause ends the replies then.
    if open_runs and not decisions and not is_paused(folder):
        raise usage_error("commands.purge.unapproved", site=folder.site, run=open_runs[0])


def _of_run(folder: SiteFolder, run: str) -> Iterator[Path]:
    yield folder.states / run
    yield folder.incoming / run
    yield folder.results / f"{run}.json"
    # A run's name may begin with another's.
    name = re.compile(rf"{re.escape(run)}-\d+\.safetensors")
    yield from (path for path in (folder.root / "models").glob("*") if name.fullmatch(path.name))


def _of_studies(
    folder: SiteFolder, decisions: list[Approval], standing: list[Approval]
) -> tuple[list[Path], tuple[str, ...]]:
    """Return snapshots and start models that no approval needs, and the studies that need the others."""
    paths = []
    needed = set[str]()
    for decision in decisions:
        snapshot = folder.frozen / decision.dataset
        users = {one.study for one in standing if one.dataset == decision.dataset}
        needed |= users
        if not users and snapshot not in paths:
            paths.append(snapshot)
        start = re.search(r'^start-sha256 = "([0-9a-f]{64})"', decision.text, re.MULTILINE)
        if start and not any(start[1] in one.text for one in standing):
            paths.append(folder.starts / f"{start[1]}.safetensors")
    return paths, tuple(sorted(needed))
