"""List of a sum with its vectors, kept until the sum is had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


class SumStore:
    """Where a list and its vectors are kept until their sum is had; this one keeps them in memory."""

    def __init__(self) -> None:
        self._kept: ListedVectors | None = None

    def keep(self, found: ListedVectors) -> None:
        """Keep a list with its vectors, in place of the one before."""
        self._kept = found

    def of(self, kind: str, round: int) -> ListedVectors | None:
        """Return what was kept of a question, None where nothing was."""
        kept = self._kept
        return kept if kept is not None and (kept.kind, kept.round) == (kind, round) else None
