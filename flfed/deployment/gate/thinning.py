"""Thinning of records about refused messages, so that a flood of them does not fill the disk."""

from __future__ import annotations

from dataclasses import dataclass

FULL = 1000
"""Records of a day that stand for one refusal each; after them each stands for twice as many as the one before."""


@dataclass
class Thinning:
    """Count of a day's refusals, and of its records.

    Attributes
    ----------
    day : str
        ISO date; the count begins anew with each.
    records : int
        How many were written on this day.
    pending, pending_bytes : int
        Refusals without a record so far, and their bytes.
    """

    day: str = ""
    records: int = 0
    pending: int = 0
    pending_bytes: int = 0

    def begin(self, day: str, records: int) -> None:
        """Begin a day with the records that it has already; refusals of the day before stay pending."""
        self.day = day
        self.records = records

    def add(self, size: int) -> None:
        """Count one refusal with its bytes."""
        self.pending += 1
        self.pending_bytes += size

    @property
    def is_due(self) -> bool:
        """Whether a record is due for the pending refusals.

        Examples
        --------
        >>> thinning = Thinning("2026-11-28", records=FULL)
        >>> thinning.add(10)
        >>> thinning.is_due
        False
        """
        return self.pending >= 1 << max(self.records - FULL + 1, 0)

    def written(self) -> None:
        """Note that a record of all pending refusals was written."""
        self.records += 1
        self.pending = 0
        self.pending_bytes = 0
