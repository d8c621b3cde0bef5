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

    def add(self, size: int) -> tuple[int, int]:
        """Count one refusal; return for how many a record is due, and their bytes, or zeros where none is due.

        Examples
        --------
        >>> thinning = Thinning("2026-11-28", records=FULL)
        >>> [thinning.add(10)[0] for _ in range(7)]
        [0, 2, 0, 0, 0, 4, 0]
        """
        self.pending += 1
        self.pending_bytes += size
        if self.pending < 2 ** max(self.records - FULL + 1, 0):
            return (0, 0)
        due = (self.pending, self.pending_bytes)
        self.records += 1
        self.pending = 0
        self.pending_bytes = 0
        return due
