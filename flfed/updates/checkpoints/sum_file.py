"""What the coordinator has of secure sums on its disk: a run's sites, and the list that is summed with its vectors.

The sites are written down before they have each other's keys, and the list before anybody hears of it: a coordinator
that was killed goes on with the same sites, asks for the same list again, and needs none of its vectors anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from flfed.errors import FlfedError
from flfed.paths import private_folder, replace_whole
from flfed.summaries.summary import arrays_sha256
from flfed.updates.aggregation.rounds import Participant
from flfed.updates.aggregation.sum_store import ListedVectors, SumStore
from flfed.updates.checkpoints.checkpoint import COHORT, SUM, folder_of
from flfed.updates.checkpoints.tensor_file import file_content, read_file
from flfed.updates.messages.secure_sum import Masked, joined, parted


class SumFile(SumStore):
    """Store of the last sum's list and vectors, in the folder of the run's checkpoints.

    Parameters
    ----------
    run : str
    """

    def __init__(self, run: str) -> None:
        super().__init__()
        self._path = folder_of(run) / SUM
        found = self._read()
        if found is not None:
            self.left_out = dict(found[1].get("left-out", {}))

    def keep(self, found: ListedVectors) -> None:
        """Write a list with its vectors, whole or not at all; raises FlfedError where it cannot be written."""
        parts = {
            f"{site}/{name}": getattr(masked, name)
            for site, masked in found.vectors.items()
            for name in ("vector", "sums", "shares")
        }
        opened = {site: [joined(one) for one in masked.opened] for site, masked in found.vectors.items()}
        facts = json.dumps({
            "kind": found.kind, "round": found.round, "listed": sorted(found.listed),
            "opened": opened, "left-out": self.left_out,
        })  # fmt: skip
        metadata = {"facts": facts, "sha256": _sha256(parts, facts)}
        _write(self._path, b"".join(file_content(parts, metadata)), "the list of a sum")

    def of(self, kind: str, round: int) -> ListedVectors | None:
        """Return what was kept of a question, None where nothing was or it cannot be read."""
        found = self._read()
        if found is None or (found[1]["kind"], found[1]["round"]) != (kind, round):
            return None
        arrays, facts = found
        with suppress(KeyError):
            vectors = {site: _masked(site, arrays, facts["opened"][site]) for site in facts["listed"]}
            return ListedVectors(kind=kind, round=round, listed=frozenset(vectors), vectors=vectors)
        return None

    def _read(self) -> tuple[Mapping[str, np.ndarray], dict[str, Any]] | None:
        """Return the file's arrays and facts, None where there is none or it is damaged."""
        with suppress(OSError, SafetensorError, ValueError, KeyError):
            arrays, metadata = read_file(self._path)
            # Vectors that are not the sites' any more would give a sum whose count may still be right.
            if metadata["sha256"] == _sha256(arrays, metadata["facts"]):
                return arrays, json.loads(metadata["facts"])
        return None


def _masked(site: str, arrays: Mapping[str, np.ndarray], opened: Sequence[str]) -> Masked:
    parts = {name: arrays[f"{site}/{name}"] for name in ("vector", "sums", "shares")}
    return Masked(**parts, opened=tuple(parted(text) for text in opened))


def keep_cohort(run: str, participants: Mapping[str, Participant]) -> None:
    """Write down who enrolled at a run's start; raises FlfedError where it cannot be written."""
    sites = {
        site: {
            "node": one.node_id, "rows-high": one.rows_high, "version": one.version, "statement": one.statement.hex(),
            **({} if one.width == 1 else {"width": one.width}),
        }
        for site, one in participants.items()
    }  # fmt: skip
    _write(folder_of(run) / COHORT, json.dumps(sites).encode(), "the sites of a run with secure sums")


def kept_cohort(run: str) -> dict[str, Participant]:
    """Return who enrolled at a run's start; empty where the run has no keys yet.

    Raises
    ------
    FlfedError
        If the file is damaged: another cohort would have other masks.
    """
    path = folder_of(run) / COHORT
    try:
        sites = json.loads(path.read_bytes())
        return {
            site: Participant(
                node_id=int(one["node"]),
                rows_high=int(one["rows-high"]),
                version=str(one["version"]),
                statement=bytes.fromhex(one["statement"]),
                width=float(one.get("width", 1.0)),
            )
            for site, one in sorted(sites.items())
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise FlfedError(f"{path} is damaged: the sites of the run cannot be summed without it; begin anew") from None


def _write(path: Path, content: bytes, what: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    try:
        private_folder(path.parent.parent)
        private_folder(path.parent)
        replace_whole(path, content)
    except OSError as error:
        raise FlfedError(
            f"{what} cannot be written to {path} ({error.strerror}): free some disk space; then: "
            f"flfed study resume {path.parent.name}"
        ) from None


def _sha256(arrays: Mapping[str, np.ndarray], facts: str) -> str:
    return hashlib.sha256(f"{arrays_sha256(arrays)}/{facts}".encode()).hexdigest()
