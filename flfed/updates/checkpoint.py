"""A run's state after a round, as one file: what a run that died goes on from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flfed.errors import FlfedError
from flfed.home import home
from flfed.summary import Encoder, Summary, arrays_sha256
from flfed.updates.content import Arrays

KEPT = 2
"""Checkpoints that stay: the last one, and the one before in case its round is not in the store."""
FINAL = "final"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Everything the server needs to go on after a round.

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
        What JSON can hold: the strategy's counters, the roster.
    summaries : dict of site to Summary
        What the sites said before the first round; Table 1 needs it at the end.
    """

    round: int
    arrays: Arrays
    encoder: Encoder
    state: Mapping[str, Arrays] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    summaries: Mapping[str, Summary] = field(default_factory=dict)

    def tensors(self) -> Arrays:
        """Return all arrays under one name each, such as "arrays/weight"."""
        parts: dict[str, Mapping[str, np.ndarray]] = {"arrays": self.arrays, "encoder": self.encoder.arrays()}
        parts |= {f"state/{name}": arrays for name, arrays in self.state.items()}
        parts |= {f"summaries/{site}": summary.arrays() for site, summary in self.summaries.items()}
        return {f"{part}/{name}": value for part, arrays in parts.items() for name, value in arrays.items()}


def folder_of(run: str) -> Path:
    """Return where a run's checkpoints are; the folder may not exist."""
    return home() / "runs" / run


def write(run: str, checkpoint: Checkpoint, *, final: bool = False) -> Path:
    """Write a checkpoint whole, or not at all, and return its file; older ones than the last two go.

    Parameters
    ----------
    run : str
    checkpoint : Checkpoint
    final : bool
        Whether it is the run's result, which stays.

    Raises
    ------
    FlfedError
        If it cannot be written, such as on a full disk; earlier checkpoints are unharmed.
    """
    folder = folder_of(run)
    path = folder / (f"{FINAL}.safetensors" if final else f"round-{checkpoint.round:06d}.safetensors")
    tensors = {name: np.ascontiguousarray(value) for name, value in checkpoint.tensors().items()}
    facts = json.dumps({"round": checkpoint.round, **checkpoint.facts})
    metadata = {"format": "1", "run": run, "facts": facts, "sha256": _sha256(tensors, facts)}
    part = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            stream.write(save(tensors, metadata=metadata))
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        _sync(folder)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise FlfedError(
            f"the checkpoint {path} cannot be written ({error.strerror}): free some disk space or set FLFED_HOME; "
            f"then: flfed study resume {run}"
        ) from None
    _remove(folder, _rounds(folder)[:-KEPT])
    return path


def reopen(run: str, round: int) -> None:
    """Remove what a run that goes on after `round` rounds will write anew: later checkpoints, and an earlier result.

    A later one left here would count among the last two, and push out those that are being written.
    """
    folder = folder_of(run)
    _remove(folder, [number for number in _rounds(folder) if number > round])
    (folder / f"{FINAL}.safetensors").unlink(missing_ok=True)


def settle(run: str) -> None:
    """Remove the checkpoints of a run that needs them no more; its final model stays."""
    _remove(folder_of(run), _rounds(folder_of(run)))


def _remove(folder: Path, rounds: list[int]) -> None:
    for number in rounds:
        (folder / f"round-{number:06d}.safetensors").unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Have the folder's own entry on the disk, so that a rename outlives a power cut."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _rounds(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("round-")) for path in folder.glob("round-*.safetensors"))


def newest(run: str, committed: int) -> Checkpoint | None:
    """Return the newest readable checkpoint of a round that the store has committed, or None."""
    folder = folder_of(run)
    for number in reversed([number for number in _rounds(folder) if number <= committed]):
        try:
            return read(folder / f"round-{number:06d}.safetensors")
        except FlfedError:
            continue
    return None


def final(run: str) -> Checkpoint:
    """Return the model that a run ended with.

    Raises
    ------
    FlfedError
        If it is not on this machine, or damaged.
    """
    path = folder_of(run) / f"{FINAL}.safetensors"
    if not path.is_file():
        raise FlfedError(f"the model of run {run} is not in {path.parent}: it has not ended, or ran elsewhere")
    return read(path)


def read(path: Path) -> Checkpoint:
    """Return a checkpoint.

    Raises
    ------
    FlfedError
        If the file is damaged or of another format.
    """
    try:
        with safe_open(str(path), framework="np") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - a handle, no dict
    except (SafetensorError, OSError):
        raise FlfedError(f"{path}: cannot be read as a checkpoint") from None
    if metadata.get("format") != "1" or metadata.get("sha256") != _sha256(tensors, metadata.get("facts", "")):
        raise FlfedError(f"{path}: is damaged, or of another version of flfed")
    facts = json.loads(metadata["facts"])
    return Checkpoint(
        round=facts.pop("round"),
        arrays=_part(tensors, "arrays"),
        encoder=Encoder(**_part(tensors, "encoder")),
        state={name: _part(tensors, f"state/{name}") for name in _names(tensors, "state")},
        facts=facts,
        summaries={site: Summary(**_part(tensors, f"summaries/{site}")) for site in _names(tensors, "summaries")},
    )


def _sha256(tensors: Arrays, facts: str) -> str:
    """Return the hash of a whole checkpoint: its arrays and its facts."""
    return hashlib.sha256(f"{arrays_sha256(tensors)}/{facts}".encode()).hexdigest()


def _part(tensors: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}


def _names(tensors: Arrays, prefix: str) -> list[str]:
    return sorted({name.split("/")[1] for name in tensors if name.startswith(f"{prefix}/")})


def forget(run: str) -> None:
    """Remove a run's checkpoints."""
    shutil.rmtree(folder_of(run), ignore_errors=True)
