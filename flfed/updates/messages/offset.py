"""Offsets of the sites' own intercepts.

An offset is how far an intercept lies from the shared model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import RecordDict

from flfed.refusals import Refusal
from flfed.updates.messages import fields
from flfed.updates.messages.in_memory import array_record

SECTION = "offset"


@dataclass(frozen=True, kw_only=True, eq=False)
class Offset:
    """Offset of a site's intercept from the shared model's.

    It follows from the site's training rows.

    Attributes
    ----------
    value : float64 array [outputs]
        What, added to the outputs of the last round's model, fits these rows best.
    error : float64 array [outputs], > 0
        Its standard error.

    Reveals: two numbers for each output of the model, each over all training rows: how far the site's own
    intercept lies from the shared model's, and the standard error of that. With the model and the number of rows of
    each class, either is one equation about the site's rows. Under disclosure "institution" only where each class has
    at least the cell minimum of training rows; never where a study protects rows or sites by a mechanism, and not of
    a model that is not linear. The coordinator makes one number of all sites' offsets, how far sites differ, and
    sends it to the sites: of three or more sites, of which all but one together could compute the last one's.
    """

    value: np.ndarray
    error: np.ndarray

    def into(self, records: dict[str, Any]) -> None:
        """Add these numbers to the records of a message."""
        records[SECTION] = array_record({"value": self.value, "error": self.error})

    @classmethod
    def out_of(cls, record: RecordDict) -> Offset | None:
        """Read the offset of a message, or None.

        The guard judges it.
        """
        if SECTION not in record:
            return None
        found: Offset = fields.made(cls, fields.ndarrays(record, SECTION))
        return found

    def defect(self, outputs: int) -> Refusal | None:
        """Return why an offset cannot be used, else None.

        Parameters
        ----------
        outputs : int
            Of the model.
        """
        if self.value.shape != (outputs,) or self.error.shape != (outputs,):
            return Refusal("offset-outputs", outputs=outputs)
        # One bad offset would spoil what is estimated over all sites.
        if not (np.isfinite(self.value).all() and np.isfinite(self.error).all() and (self.error > 0).all()):
            return Refusal("offset-infinite")
        return None
