"""List of a sum with its vectors, kept until the sum is had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flfed.updates.masking.rules import Sites
from flfed.updates.messages.secure_sum import Masked


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


TIMES = 2
"""Sums without a site after which a run has no further sum with it."""


class SumStore:
    """Where a list and its vectors are kept until their sum is had; this one keeps them in memory.

    Attributes
    ----------
    left_out : dict of site to int
        Sums of the run that were made without a site since its shares were none.
    """

    def __init__(self) -> None:
        self._kept: ListedVectors | None = None
        self.left_out: dict[str, int] = {}

    @property
    def excluded(self) -> Sites:
        """The sites that the run's further sums are made without."""
        return frozenset(site for site, times in self.left_out.items() if times >= TIMES)

    def leave_out(self, kept: ListedVectors, sites: Sites) -> ListedVectors:
        """Keep a list without some of its sites in its place, count that they were left out, and return it."""
        for site in sorted(sites):
            self.left_out[site] = self.left_out.get(site, 0) + 1
        rest = kept.listed - sites
        smaller = replace(kept, listed=rest, vectors={site: kept.vectors[site] for site in sorted(rest)})
        self.keep(smaller)
        return smaller

    def keep(self, found: ListedVectors) -> None:
        """Keep a list with its vectors, in place of the one before."""
        self._kept = found

    def of(self, kind: str, round: int) -> ListedVectors | None:
        """Return what was kept of a question, None where nothing was."""
        kept = self._kept
        return kept if kept is not None and (kept.kind, kept.round) == (kind, round) else None
