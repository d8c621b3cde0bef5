"""The list of the sum that is being had, and the masked vectors of its sites, on the coordinator's disk.

Written before anybody hears of the list: a coordinator that was killed asks for the same list again, and needs none of
its vectors anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
from safetensors import SafetensorError

from flfed.errors import FlfedError
from flfed.paths import private_folder, replace_whole
from flfed.updates.aggregation.secure_sum import ListedVectors, SumStore
from flfed.updates.checkpoints.checkpoint import folder_of
from flfed.updates.checkpoints.tensor_file import file_content, read_file
from flfed.updates.messages.secure_sum import Masked

NAME = "sum.safetensors"


class SumFile(SumStore):
    """Store of the last sum's list and vectors, in the folder of the run's checkpoints.

    Parameters
    ----------
    run : str
    """

    def __init__(self, run: str) -> None:
        self._path = folder_of(run) / NAME

    def keep(self, found: ListedVectors) -> None:
        """Write a list with its vectors, whole or not at all; raises FlfedError where it cannot be written."""
        parts = {
            f"{site}/{name}": getattr(masked, name)
            for site, masked in found.vectors.items()
            for name in ("vector", "sums", "shares")
        }
        facts = json.dumps({"kind": found.kind, "round": found.round, "listed": sorted(found.listed)})
        try:
            private_folder(self._path.parent.parent)
            private_folder(self._path.parent)
            replace_whole(self._path, b"".join(file_content(parts, {"facts": facts})))
        except OSError as error:
            run = self._path.parent.name
            raise FlfedError(
                f"the list of a sum cannot be written to {self._path} ({error.strerror}): free some disk space; then: "
                f"flfed study resume {run}"
            ) from None

    def of(self, kind: str, round: int) -> ListedVectors | None:
        """Return what was kept of a question, None where nothing was or it cannot be read."""
        with suppress(OSError, SafetensorError, ValueError, KeyError):
            arrays, metadata = read_file(self._path)
            facts = json.loads(metadata["facts"])
            if (facts["kind"], facts["round"]) == (kind, round):
                vectors = {site: _masked(site, arrays) for site in facts["listed"]}
                return ListedVectors(kind=kind, round=round, listed=frozenset(vectors), vectors=vectors)
        return None


def _masked(site: str, arrays: Mapping[str, np.ndarray]) -> Masked:
    vector, sums, shares = (arrays[f"{site}/{name}"] for name in ("vector", "sums", "shares"))
    return Masked(vector=vector, sums=sums, shares=shares)
