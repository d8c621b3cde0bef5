"""Erasure of a run or a study at its site: the files that hold arrays or rows, and no record of what left."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flfed.deployment.site_state.approval import Approval, approvals
from flfed.paths import RUN, SiteFolder
from flfed.records.ledger import ledger_of
from flfed.words import flfed_error, usage_error

STAYS = ("ledger", "hashes", "lists", "answers")
"""Keys of the sentences on what stays, in `commands.purge`."""


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
        If the site knows neither, or a run is under way: its state is there, and its study is approved.
    """
    studies = set[tuple[str, str, str]]()
    for line in ledger_of(folder).lines():
        studies.add((str(line.facts.get("run")), line.text("study"), line.text("study-sha256")))
    chosen = {one for one in studies if one[0] == target}
    if not chosen:
        chosen = {one for one in studies if _is_study(target, one[1], one[2])}
    decisions = approvals(folder)
    hashes = {sha256 for _, _, sha256 in chosen}
    # A study may be approved and have no run yet.
    hashes |= {one.study_sha256 for one in decisions if _is_study(target, one.study, one.study_sha256)}
    if not hashes:
        raise usage_error("commands.purge.unknown", site=folder.site, target=target)
    runs = sorted({run for run, _, _ in chosen if RUN.fullmatch(run)})
    standing = [one for one in decisions if one.decision == "approved"]
    _refuse_under_way(folder, runs, [one for one in standing if one.study_sha256 in hashes])
    paths = [path for run in runs for path in _of_run(folder, run)]
    unneeded, needed = _of_studies(folder, [one for one in decisions if one.study_sha256 in hashes], standing)
    return Purge(tuple(runs), tuple(path for path in (*paths, *unneeded) if path.exists()), needed)


def _is_study(target: str, name: str, sha256: str) -> bool:
    return target == name or (len(target) >= 8 and sha256.startswith(target))


def _refuse_under_way(folder: SiteFolder, runs: list[str], standing: list[Approval]) -> None:
    # A comparison removes a run's state; without an approval no message of the run is answered.
    for run in runs:
        if standing and (folder.root / "runs" / run).exists():
            raise usage_error("commands.purge.running", site=folder.site, run=run, study=standing[0].study)


def _of_run(folder: SiteFolder, run: str) -> Iterator[Path]:
    yield folder.root / "runs" / run
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
