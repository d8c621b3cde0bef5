"""Erasure of a run or a study at its site: the files with arrays or rows, and no record of an output."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from flfed.deployment.site_state.approval import Approval, approvals, is_paused
from flfed.files import locked
from flfed.paths import ANSWERING, PART, RUN, SiteFolder
from flfed.records.ledger import ledger_of
from flfed.records.ledger_line import REFUSED
from flfed.records.site_state import SiteState
from flfed.words import flfed_error, usage_error

STAYS = ("ledger", "hashes", "answers")
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
        for path in self.paths:
            try:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise flfed_error("commands.purge.failed", file=path, why=error.strerror or error) from None


def erase(folder: SiteFolder, target: str) -> Purge:
    """Remove the files of a run, or of all runs of a series or a study, while the gate answers nothing.

    They are looked up again under the lock: the gate may have answered since, and a person approved. Parameters and
    errors are those of `plan_purge` and `Purge.remove`.
    """
    with locked(folder.gate, ANSWERING):
        purge = plan_purge(folder, target)
        purge.remove()
        if folder.state.exists():
            # That a step was answered stays, so that none is answered twice.
            with SiteState(folder.state).transaction() as step:  # also where the ledger is lost
                step.tables.executemany("UPDATE steps SET reply = NULL WHERE run = ?", [(run,) for run in purge.runs])
    return purge


def plan_purge(folder: SiteFolder, target: str) -> Purge:
    """Return the files of a run, or of all runs of a series or a study.

    Parameters
    ----------
    folder : SiteFolder
    target : str
        A run, a series, a study's name, or at least 8 characters of its SHA-256.

    Raises
    ------
    UsageError
        If the site knows neither, or a run is under way: its state is there, and the site may still reply to it.
    """
    decisions = approvals(folder)
    # A study may be approved and have no run yet.
    entries = {_Entry("", one.study_sha256, one.study) for one in decisions}
    entries.update(_in_ledger(folder), _in_files(folder))
    hashes, runs = _chosen(target, entries)
    if not (target and hashes):
        raise usage_error("commands.purge.unknown", site=folder.site, target=target)
    _refuse_under_way(folder, [entry for entry in entries if entry.run in runs], decisions)
    concerned = [one for one in decisions if one.study_sha256 in hashes]
    standing = [one for one in decisions if one.decision == "approved"]
    paths, needed = _of_studies(folder, concerned, standing)
    for run in runs:
        paths += _of_run(folder, run)
    # The gate removes these itself, except after a crash.
    for parent in (folder.models, folder.results, folder.starts):
        paths += parent.glob(f"{PART}*")
    return Purge(tuple(runs), tuple(path for path in paths if path.exists()), needed)


@dataclass(frozen=True)
class _Entry:
    """A study at the site with one of its runs; the run's name, or the study's, may be empty."""

    run: str
    study_sha256: str
    study: str = ""


def _in_ledger(folder: SiteFolder) -> Iterator[_Entry]:
    for line in ledger_of(folder).lines():
        run = line.text("run")
        # A refused message is of no run here, whatever run it names.
        if RUN.fullmatch(run) and line.kind != REFUSED:
            yield _Entry(run, line.text("study-sha256"), line.text("study"))


def _in_files(folder: SiteFolder) -> Iterator[_Entry]:
    """Yield the runs of models and results; a ledger that was lost may lack them."""
    files = [(path, path.stem.rpartition("-")[0]) for path in folder.models.glob("*.safetensors")]
    files += [(path, path.stem) for path in folder.results.glob("*.json")]
    for path, run in files:
        with suppress(OSError, SafetensorError, ValueError, KeyError, TypeError):
            yield _Entry(run, _study_sha256(path))


def _study_sha256(path: Path) -> str:
    """Return the hash of a file's study; raises one of several errors where the file is damaged."""
    if path.suffix == ".json":
        return str(json.loads(path.read_bytes())["study-sha256"])
    with safe_open(path, framework="numpy") as file:
        text = file.metadata()["study"]
    return hashlib.sha256(text.encode()).hexdigest()


def _chosen(target: str, entries: set[_Entry]) -> tuple[set[str], list[str]]:
    """Return the hashes of the studies and the runs that a person names."""
    # The name of a series is that of its runs without the number of the repeat.
    runs = {entry.run for entry in entries if target in (entry.run, re.sub(r"-r\d+$", "", entry.run))}
    if runs:
        return {entry.study_sha256 for entry in entries if entry.run in runs}, sorted(runs)
    # A study's name, or eight or more of the first digits of its hash.
    named = [one for one in entries if target == one.study or one.study_sha256.startswith(target.ljust(8))]
    hashes = {entry.study_sha256 for entry in named}
    return hashes, sorted({entry.run for entry in entries if entry.run and entry.study_sha256 in hashes})


def _refuse_under_way(folder: SiteFolder, entries: list[_Entry], decisions: list[Approval]) -> None:
    by_study = {one.study_sha256: one for one in decisions}
    # A comparison removes a run's state; a run without it is over.
    for entry in entries:
        decision = by_study.get(entry.study_sha256)
        if not (folder.states / entry.run).exists():
            continue
        if decision is not None and decision.decision == "approved":
            raise usage_error("commands.purge.running", site=folder.site, run=entry.run, study=decision.study)
        # Some policies need no approval: only a pause ends the replies then.
        if decision is None and not is_paused(folder):
            raise usage_error("commands.purge.unapproved", site=folder.site, run=entry.run)


def _of_run(folder: SiteFolder, run: str) -> Iterator[Path]:
    yield folder.states / run
    yield folder.results / f"{run}.json"
    # A run's name may begin with another's.
    name = re.compile(rf"{re.escape(run)}-\d+\.safetensors")
    yield from (path for path in folder.models.glob("*") if name.fullmatch(path.name))


def _of_studies(
    folder: SiteFolder, concerned: list[Approval], standing: list[Approval]
) -> tuple[list[Path], tuple[str, ...]]:
    """Return snapshots and start models that no approval needs, and the studies that need the others."""
    datasets = {one.dataset for one in concerned}
    users = [one for one in standing if one.dataset in datasets]
    unneeded = datasets - {one.dataset for one in users}
    # The folders are listed, since a refused study may name a path as its dataset.
    paths = [path for path in folder.frozen.glob("*") if path.name in unneeded]
    for path in folder.starts.glob("*.safetensors"):
        if _is_in(concerned, path.stem) and not _is_in(standing, path.stem):
            paths.append(path)
    return paths, tuple(sorted({one.study for one in users}))


def _is_in(decisions: list[Approval], start_sha256: str) -> bool:
    return any(start_sha256 in one.text for one in decisions)
