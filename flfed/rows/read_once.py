"""A site whose table is read once for many runs of one study: they differ in the split only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from flfed.rows.holdout import SortedRows
from flfed.rows.site import Site, SiteTable


@dataclass(frozen=True, kw_only=True)
class ReadOnce(Site):
    """A site whose table is read, mapped, checked and sorted once, and split anew each time it is asked.

    Made for one series of repeats, one sweep or one learning curve, and given up with it: before the
    next one the institution's data may change.

    Attributes
    ----------
    opened : dict of tuple of str to SortedRows
        What was read, by the columns that had to be complete; no split. A site that is made from this
        one by `replace` reads for itself.
    """

    opened: dict[tuple[str, ...], SortedRows] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, site: Site) -> Site:
        """Return the same site, reading once; one that reads in a way of its own is left as it is."""
        if type(site) is not Site:
            return site
        return cls(**{given.name: getattr(site, given.name) for given in fields(Site)})

    def sorted_rows(self, complete: Sequence[str] = ()) -> SortedRows:
        """Return the rows as `Site.sorted_rows` does, the same ones for the same question."""
        key = tuple(complete)
        if key not in self.opened:
            self.opened[key] = super().sorted_rows(complete)
        return self.opened[key]

    def _split(self, rows: SortedRows, train: np.ndarray, held: np.ndarray) -> SiteTable:
        table = super()._split(rows, train, held)
        if rows.schema.group:
            return table
        texts = rows.texts
        return replace(table, _keys=(table.training, [texts[row] for row in train.tolist()]))
