"""Checkpoints of a run's state after a round.

A run that died resumes from one.

What does not change is in `start.safetensors`, written once; a round's file holds the rest and the
hash of it. The final model is one file that needs no other.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from flfed.errors import FlfedError, UsageError
from flfed.paths import PART, Content, home, private_folder, replace_whole
from flfed.summaries.summary import Encoder, Stacked, Summary
from flfed.updates.arrays import Arrays, facts_sha256, file_content, with_prefix, without_prefix

STORED_CHECKPOINTS = 2
"""Checkpoints that stay: the last one, and the one before in case its round is not in the store."""
FINAL = "final"
START = "start"
REQUEST_FILE = "asked.json"
"""What institutions were asked for, written before each round, so that no resume forgets it: see `privacy_recorder`."""
SUFFIX = ".safetensors"
COHORT = "cohort.json"
"""Of secure sums: the list that is summed, with its vectors, and the sites that enrolled at the start."""
OF_SITE = "site:"
"""Prefix of a site's name in a checkpoint's states, for the site's own arrays."""
WHOLE = "1"
OF_A_ROUND = "2"
"""Formats of a file that stands alone, and of one that needs its start file."""
UNWRITTEN = {
    "checkpoint": "the checkpoint {path} cannot be written ({error}): free some disk space or set FLFED_HOME",
    "list": "the list of a sum cannot be written to {path} ({error}): free some disk space",
    "cohort": "the sites of a run under secure aggregation cannot be written to {path} ({error}): free some disk space",
}
"""What is said where a file of a run cannot be written."""

Site = TypeVar("Site")


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """State that the server needs to resume after a round.

    Attributes
    ----------
    round : int, >= 0
        Rounds that the model has been through.
    arrays : dict of name to array
        The global model.
    encoder : Encoder
    state : dict of text to arrays
        Of the strategy, by name: the best model so far, a server optimiser's moments.
    facts : dict
        What JSON can hold: the strategy's counters, the seconds.
    participants : dict of site to int
        Who took part at the start, and the upper ends of the bands of rows they declared.
    left : tuple of str
        Those of them that did not come back when the run was gone on with.
    start : str
        Hash of the start file that holds encoder and participants, and the sites' summaries beside them; empty
        where the checkpoint's own file holds the encoder.
    """

    round: int
    arrays: Arrays
    encoder: Encoder
    state: Mapping[str, Arrays] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    participants: Mapping[str, int] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    start: str = ""

    def tensors(self) -> Arrays:
        """Return the file's arrays by name, such as "arrays/weight"."""
        parts: dict[str, Mapping[str, np.ndarray]] = {"arrays": self.arrays}
        parts |= {f"state/{name}": arrays for name, arrays in self.state.items()}
        if not self.start:
            parts["encoder"] = self.encoder.arrays()
        tensors: Arrays = {}
        for part, arrays in parts.items():
            tensors |= with_prefix(f"{part}/", arrays)
        return tensors


def seconds_apart() -> float:
    """Return the seconds between checkpoints, which a crash may cost.

    `FLFED_CHECKPOINT_SECONDS`, or 1; 0 keeps every round. A round in between is computed again by a resume, to the same
    bits. Waiting for the disk in each would take longer than small rounds do.

    Raises
    ------
    UsageError
        If it is no number of at least 0.
    """
    setting = os.environ.get("FLFED_CHECKPOINT_SECONDS", "1")
    try:
        seconds = float(setting)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"FLFED_CHECKPOINT_SECONDS={setting} must be a number of at least 0; 0 keeps every round")
    return seconds


def folder_of(run: str) -> Path:
    """Return the folder of a run's checkpoints, which may not exist."""
    return home() / "runs" / run


def begin(
    run: str,
    encoder: Encoder,
    summaries: Mapping[str, Summary],
    participants: Mapping[str, int],
) -> Checkpoint:
    """Write a run's start file, whole or not at all.

    It holds what does not change from round to round. What all checkpoints share is returned.

    Parameters
    ----------
    run : str
    encoder : Encoder
    summaries : dict of site to Summary
        All of one layout, so that they are kept as one array [sites, ...] a field. Only Table 1 needs
        them again, at the end: `summaries_of` reads them then, and nobody holds them in the rounds.
    participants : dict of site to int

    Raises
    ------
    FlfedError
        As for `write`.
    """
    tensors: dict[str, Stacked] = {**with_prefix("encoder/", encoder.arrays())}
    # Sites in rows of one array take less room and time than a tensor for each site.
    if summaries:
        site_arrays = [summary.arrays() for summary in summaries.values()]
        for name in site_arrays[0]:
            tensors[f"summaries/{name}"] = [arrays[name] for arrays in site_arrays]
    facts: dict[str, Any] = {"sites": list(summaries), "roster": dict(participants)}
    start = _write(folder_of(run), START, tensors, facts)
    return Checkpoint(round=0, arrays={}, encoder=encoder, participants=participants, start=start)


def summaries_of(run: str, start: str) -> dict[str, Summary]:
    """Return the sites' summaries from before the first round.

    They are in the order in which `begin` was given them.

    Parameters
    ----------
    run : str
    start : str
        Hash of the start file, as a checkpoint has it.

    Raises
    ------
    FlfedError
        If the file is missing, damaged or another one.
    """
    tensors, facts, _ = _opened(folder_of(run) / f"{START}{SUFFIX}", sha256=start)
    stacked = without_prefix("summaries/", tensors)
    summaries = {}
    for place, site in enumerate(facts["sites"]):
        summaries[site] = Summary(**{name: values[place] for name, values in stacked.items()})
    return summaries


def write(run: str, checkpoint: Checkpoint, *, final: bool = False, name: str = FINAL) -> Path:
    """Write a checkpoint, whole or not at all.

    Its file is returned. Checkpoints older than the last two are removed.

    Parameters
    ----------
    run : str
    checkpoint : Checkpoint
        With the hash of the start file, unless it is the final one.
    final : bool
        Whether it is the run's result, which stays.
    name : str
        Of a final one's file.

    Raises
    ------
    FlfedError
        If it cannot be written, such as on a full disk; earlier checkpoints are unharmed.
    """
    folder = folder_of(run)
    if final:
        # The result stands alone: it has the encoder in its own file.
        checkpoint = replace(checkpoint, start="")
    else:
        name = _name(checkpoint.round)
    facts = {"round": checkpoint.round, "left": checkpoint.left, **checkpoint.facts}
    _write(folder, name, checkpoint.tensors(), facts, start=checkpoint.start)
    _remove(folder, _rounds(folder)[:-STORED_CHECKPOINTS])
    return folder / f"{name}{SUFFIX}"


def _write(
    folder: Path, name: str, tensors: Mapping[str, Stacked], facts: Mapping[str, Any], *, start: str = ""
) -> str:
    """Write one file atomically and return its hash."""
    path = folder / f"{name}{SUFFIX}"
    text = json.dumps(facts)
    sha256 = _sha256(tensors, text, start)
    metadata = {"format": WHOLE, "run": folder.name, "facts": text, "sha256": sha256}
    if start:
        metadata |= {"format": OF_A_ROUND, "start": start}
    write_whole(path, file_content(tensors, metadata), "checkpoint")
    return sha256


def write_whole(path: Path, content: Content, failed: Literal["checkpoint", "list", "cohort"]) -> None:
    """Write a file of a run, whole or not at all.

    Parameters
    ----------
    path : Path
    content : bytes, or several pieces
    failed : {"checkpoint", "list", "cohort"}
        Key of `UNWRITTEN`.

    Raises
    ------
    FlfedError
        If it cannot be written, such as on a full disk.
    """
    try:
        # For its owner alone: the sites' sums are in it.
        private_folder(path.parent.parent)
        private_folder(path.parent)
        replace_whole(path, content)
    except OSError as error:
        why = UNWRITTEN[failed].format(path=path, error=error.strerror)
        raise FlfedError(f"{why}; then: flfed study resume {path.parent.name}") from None


def reopen(run: str, round: int) -> None:
    """Remove later checkpoints and an earlier result before resuming.

    A later one left here would count among the last two, and push out those that are being written.
    """
    folder = folder_of(run)
    _remove(folder, [number for number in _rounds(folder) if number > round])
    (folder / f"{FINAL}{SUFFIX}").unlink(missing_ok=True)


def settle(run: str) -> None:
    """Remove a finished run's checkpoints, but not its model."""
    folder = folder_of(run)
    _remove(folder, _rounds(folder))
    for name in (f"{START}{SUFFIX}", REQUEST_FILE, COHORT):
        (folder / name).unlink(missing_ok=True)
    # Of a process that was killed while it wrote.
    for part in folder.glob(f"{PART}*"):
        part.unlink(missing_ok=True)


def _remove(folder: Path, rounds: list[int]) -> None:
    for number in rounds:
        (folder / f"{_name(number)}{SUFFIX}").unlink(missing_ok=True)


def _name(round: int) -> str:
    return f"round-{round:06d}"


def _rounds(folder: Path) -> list[int]:
    """Return the rounds that have a file, in order."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name[6 : -len(SUFFIX)]) for name in names if name.startswith("round-") and name.endswith(SUFFIX))


def newest(run: str, committed: int) -> Checkpoint | None:
    """Return the newest readable checkpoint of a round that is committed.

    Raises
    ------
    FlfedError
        If it is there, and of an earlier flfed, or the start file that it needs is missing or damaged.
    """
    folder = folder_of(run)
    for number in reversed([number for number in _rounds(folder) if number <= committed]):
        path = folder / f"{_name(number)}{SUFFIX}"
        try:
            tensors, facts, start = _opened(path)
        # A damaged checkpoint costs some rounds: the one before it serves.
        except FlfedError:
            continue
        if not start:
            raise FlfedError(f"{path}: was written by an earlier flfed: go on with that one, or run the study anew")
        return _with_start(path, tensors, facts, start)
    return None


def final(run: str) -> Checkpoint:
    """Return the model that a run ended with.

    Raises
    ------
    FlfedError
        If it is not on this machine, or damaged.
    """
    path = folder_of(run) / f"{FINAL}{SUFFIX}"
    if not path.is_file():
        raise FlfedError(f"the model of run {run} is not in {path.parent}: it has not ended, or ran elsewhere")
    return read(path)


def read(path: Path) -> Checkpoint:
    """Return a checkpoint, with what its start file holds.

    Raises
    ------
    FlfedError
        If a file is damaged, missing or of another format.
    """
    return _with_start(path, *_opened(path))


def _with_start(path: Path, tensors: Arrays, facts: dict[str, Any], start: str) -> Checkpoint:
    """Return a checkpoint from its file and start file."""
    # A file without a start file stands alone, and has its own encoder.
    first = tensors
    begun: dict[str, Any] = {}
    if start:
        try:
            first, begun, _ = _opened(path.with_name(f"{START}{SUFFIX}"), sha256=start)
        except FlfedError as error:
            raise FlfedError(f"{error}, and {path.name} is of no use without it: run the study anew") from None
    return Checkpoint(
        round=facts.pop("round"),
        left=tuple(facts.pop("left", ())),
        arrays=without_prefix("arrays/", tensors),
        encoder=Encoder(**without_prefix("encoder/", first)),
        state={name: without_prefix(f"state/{name}/", tensors) for name in _states(tensors)},
        facts=facts,
        participants=begun.get("roster", {}),
        start=start,
    )


def _opened(path: Path, *, sha256: str = "") -> tuple[Arrays, dict[str, Any], str]:
    """Return a file's arrays, facts and start hash.

    Parameters
    ----------
    path : Path
    sha256 : str, optional
        What the file's own hash must be.
    """
    try:
        with safe_open(str(path), framework="np") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - a handle, no dict
    except (SafetensorError, OSError):
        what = "cannot be read" if path.exists() else "is missing"
        raise FlfedError(f"{path}: {what}") from None
    text = metadata.get("facts", "")
    start = metadata.get("start", "")
    file_sha256 = metadata.get("sha256")
    kind = OF_A_ROUND if start else WHOLE
    # The hash covers all parts, so that a file is neither damaged nor put together from two.
    if (
        metadata.get("format") != kind
        or file_sha256 != _sha256(tensors, text, start)
        or sha256 not in ("", file_sha256)
    ):
        raise FlfedError(f"{path}: is damaged, or of another version of flfed")
    return tensors, json.loads(text), start


def _sha256(tensors: Mapping[str, Stacked], facts: str, start: str) -> str:
    """Return the hash of a file: arrays, facts, start file."""
    if start:
        facts = f"{start}/{facts}"
    return facts_sha256(tensors, facts)


def _states(tensors: Arrays) -> list[str]:
    return sorted({name.split("/")[1] for name in tensors if name.startswith("state/")})


def forget(run: str) -> None:
    """Remove a run's checkpoints."""
    shutil.rmtree(folder_of(run), ignore_errors=True)


def write_cohort(run: str, sites: Mapping[str, Mapping[str, object]]) -> None:
    """Write down who enrolled at a run's start, before they have keys; raises FlfedError."""
    write_whole(folder_of(run) / COHORT, json.dumps(sites).encode(), "cohort")


def read_cohort(run: str, read: Callable[[Any], Site]) -> dict[str, Site]:
    """Return who enrolled at a run's start, by site in name order; nothing where the run has no keys yet.

    Raises FlfedError if the file is damaged: another cohort would have other masks.
    """
    path = folder_of(run) / COHORT
    try:
        return {site: read(facts) for site, facts in sorted(json.loads(path.read_bytes()).items())}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        why = "the sites of the run cannot be summed without it; begin anew"
        raise FlfedError(f"{path} is damaged: {why}") from None
