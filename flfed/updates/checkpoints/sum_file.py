"""What the coordinator has of secure sums on its disk: a run's sites, and the list that is summed with its vectors.

The list is kept until the sum is had, in memory or on disk. It is written down before anybody hears of it. A
coordinator that was killed asks for the same list again, and needs none of its vectors anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from safetensors import SafetensorError

from flfed.errors import FlfedError
from flfed.updates.arrays import facts_sha256, file_content, read_file, with_prefix
from flfed.updates.checkpoints.checkpoint import COHORT, SUM, folder_of, write_whole
from flfed.updates.messages.secure_sum import Masked, Sites, joined, parted


@dataclass(frozen=True, kw_only=True, eq=False)
class ListedVectors:
    """The list of a sum, and the masked vectors of its sites.

    Attributes
    ----------
    kind : str
    round : int
    listed : frozenset of str
    vectors : dict of site to Masked
    """

    kind: str
    round: int
    listed: Sites
    vectors: Mapping[str, Masked]


PARTS = ("vector", "sums", "shares")
"""Arrays of a site's masked vectors."""
TIMES = 2
"""Sums without a site after which a run has no further sum with it."""


class SumStore:
    """Where a list and its vectors are kept until their sum is had.

    This one keeps them in memory.

    Attributes
    ----------
    left_out : dict of site to int
        Sums of the run that were made without a site since its shares were none.
    """

    def __init__(self) -> None:
        self._listed_vectors: ListedVectors | None = None
        self.left_out: dict[str, int] = {}

    @property
    def excluded(self) -> Sites:
        """The sites that the run's further sums are made without."""
        return frozenset(site for site, times in self.left_out.items() if times >= TIMES)

    def leave_out(self, listed_vectors: ListedVectors, sites: Sites) -> ListedVectors:
        """Keep a list without some of its sites in its place, count that they were left out, and return it."""
        for site in sorted(sites):
            self.left_out[site] = self.left_out.get(site, 0) + 1
        rest = listed_vectors.listed - sites
        smaller = replace(
            listed_vectors, listed=rest, vectors={site: listed_vectors.vectors[site] for site in sorted(rest)}
        )
        self.keep(smaller)
        return smaller

    def keep(self, listed_vectors: ListedVectors) -> None:
        """Keep a list with its vectors, in place of the one before."""
        self._listed_vectors = listed_vectors

    def of(self, kind: str, round: int) -> ListedVectors | None:
        """Return the kept list of a request, None where there is none."""
        entry = self._listed_vectors
        if entry is not None and (entry.kind, entry.round) == (kind, round):
            return entry
        return None


class SumFile(SumStore):
    """Store of the last sum's list and vectors, in the folder of the run's checkpoints.

    Parameters
    ----------
    run : str
    """

    def __init__(self, run: str) -> None:
        super().__init__()
        self._path = folder_of(run) / SUM
        content = self._read()
        if content is not None:
            self.left_out = dict(content[1].get("left-out", {}))

    def keep(self, listed_vectors: ListedVectors) -> None:
        """Write a list with its vectors, whole or not at all.

        Raises FlfedError where it cannot be written.
        """
        parts: dict[str, np.ndarray] = {}
        opened = {}
        for site, masked in listed_vectors.vectors.items():
            parts |= with_prefix(f"{site}/", {name: getattr(masked, name) for name in PARTS})
            opened[site] = [joined(one) for one in masked.opened]
        facts = json.dumps({
            "kind": listed_vectors.kind, "round": listed_vectors.round, "listed": sorted(listed_vectors.listed),
            "opened": opened, "left-out": self.left_out,
        })  # fmt: skip
        metadata = {"facts": facts, "sha256": facts_sha256(parts, facts)}
        write_whole(self._path, file_content(parts, metadata), "list")

    def of(self, kind: str, round: int) -> ListedVectors | None:
        """Return the kept list of a request, None where there is none or it cannot be read."""
        content = self._read()
        if content is None or (content[1]["kind"], content[1]["round"]) != (kind, round):
            return None
        arrays, facts = content
        with suppress(KeyError):
            vectors = {site: _masked(site, arrays, facts["opened"][site]) for site in facts["listed"]}
            return ListedVectors(kind=kind, round=round, listed=frozenset(vectors), vectors=vectors)
        return None

    def _read(self) -> tuple[Mapping[str, np.ndarray], dict[str, Any]] | None:
        """Return the file's arrays and facts, None where there is none or it is damaged."""
        with suppress(OSError, SafetensorError, ValueError, KeyError):
            arrays, metadata = read_file(self._path)
            # Vectors that are not the sites' any more would give a sum whose count may still be right.
            if metadata["sha256"] == facts_sha256(arrays, metadata["facts"]):
                return arrays, json.loads(metadata["facts"])
        return None


def _masked(site: str, arrays: Mapping[str, np.ndarray], opened: Sequence[str]) -> Masked:
    parts = {name: arrays[f"{site}/{name}"] for name in PARTS}
    return Masked(**parts, opened=tuple(parted(text) for text in opened))


def write_cohort(run: str, sites: Mapping[str, Mapping[str, object]]) -> None:
    """Write down who enrolled at a run's start, before they have keys.

    Raises FlfedError where it cannot be written.
    """
    write_whole(folder_of(run) / COHORT, json.dumps(sites).encode(), "cohort")


def read_cohort(run: str) -> dict[str, dict[str, Any]]:
    """Return the facts of who enrolled at a run's start, by site.

    None where the run has no keys yet.

    Raises
    ------
    FlfedError
        If the file is damaged: another cohort would have other masks.
    """
    path = folder_of(run) / COHORT
    cohort = {}
    try:
        for site, one in sorted(json.loads(path.read_bytes()).items()):
            cohort[site] = {
                "node_id": int(one["node"]),
                "rows_high": int(one["rows-high"]),
                "version": str(one["version"]),
                "statement": bytes.fromhex(one["statement"]),
                "width": float(one.get("width", 1.0)),
            }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        why = "the sites of the run cannot be summed without it; begin anew"
        raise FlfedError(f"{path} is damaged: {why}") from None
    return cohort
