"""Expected messages of noised counts by score, where all that leaves of a study is charged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from flfed.deployment.gate.message_sections import HEAD, names_defect, size_defect
from flfed.deployment.gate.sum_schema import Parts
from flfed.refusals import Refusal
from flfed.summaries.noised_calibration import GRID
from flfed.summaries.noised_scores import MORE_BINS
from flfed.summaries.summary import arrays_sha256
from flfed.updates.messages.fields import ndarrays

COUNTS, EDGES = "counts", "edges"


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """A section of counts by cell, by class and bin, or of the two numbers about pairs."""

    needed: bool = True

    @property
    def most(self) -> int:
        """Most bytes that it may have."""
        return len(COUNTS) + HEAD + 8 * GRID.bins

    def defect(self, record: RecordDict, name: str) -> Refusal | None:
        """Return why the named section does not fit, None where it does."""
        found = record[name]
        if type(found) is not ArrayRecord:
            return Refusal("other-kind")
        if wrong := names_defect(found, {COUNTS: 0}, "array") or size_defect(found, {COUNTS: HEAD + 8 * GRID.bins}):
            return wrong
        counts = ndarrays(record, name)[COUNTS]
        if counts.dtype != np.float64:
            return Refusal("other-dtype", key=COUNTS, dtype=np.dtype(np.float64))
        by_class = counts.ndim == 2 and len(counts) == 2 and 1 <= counts.shape[1] <= MORE_BINS
        if not (by_class or counts.shape in ((GRID.bins,), (2,))):
            return Refusal("other-shape", key=COUNTS, shape=(GRID.bins,))
        return None if np.isfinite(counts).all() else Refusal("statistic-unfit")


@dataclass(frozen=True, kw_only=True)
class BinEdges(Parts):
    """A section of the cells between which bins of scores lie."""

    def defect(self, record: RecordDict, name: str) -> Refusal | None:
        """Return why the named section does not fit, None where it does."""
        wrong = super().defect(record, name)
        if wrong:
            return wrong
        edges = ndarrays(record, name)[EDGES]
        spans_all = len(edges) > 1 and edges[0] == 0 and edges[-1] == GRID.bins
        rises = bool((np.diff(edges) > 0).all())
        return None if spans_all and rises else Refusal("edges-unfit", bins=GRID.bins)


def edges_of_bins() -> Parts:
    """Return the section of the edges between bins, which the first request lacks."""
    longest = {EDGES: (MORE_BINS + 1, np.dtype(np.int64))}
    return BinEdges(rows={}, vectors=longest, needed=False, shorter=True)


def edges_sha256(record: RecordDict) -> str:
    """Return the hash of the bins that a request for counts by class names, an empty text where it names none."""
    if EDGES not in record:
        return ""
    return arrays_sha256(ndarrays(record, EDGES))
