"""Spread of the sites' own intercepts.

The prior deviation by which each site is adjusted is estimated over the sites.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flfed.records.statistics.intervals import variance_between
from flfed.updates.messages.offset import Offset

LEAST_OFFSETS = 3
"""Of fewer sites nothing is estimated: it would be known too badly, and of two each could compute the other's."""


SITE_OFFSETS = "site-offsets"
"""Of the summary in the run store, and of what a checkpoint says."""


@dataclass(frozen=True)
class SiteOffsets:
    """Estimate over the sites' own intercepts.

    Attributes
    ----------
    sites : int
        How many told theirs.
    deviation : float or None
        How far they differ; None where it is not known, and each site adjusts as it did before it was asked.
    """

    sites: int = 0
    deviation: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return the fields as they are recorded."""
        return asdict(self)

    def sent(self) -> float:
        """Return the deviation for a message.

        NaN stands for an unknown one.
        """
        return math.nan if self.deviation is None else self.deviation


def site_offsets(offsets: Mapping[str, Offset]) -> SiteOffsets:
    """Return the estimate from the sites' offsets."""
    return SiteOffsets(len(offsets), offset_deviation(offsets))


def offset_deviation(offsets: Mapping[str, Offset]) -> float | None:
    """Return the deviation of the sites' offsets.

    It is taken about the shared model's intercept, and None where the offsets are of too few sites.

    Parameters
    ----------
    offsets : mapping of site to Offset
        All of one number of outputs.

    Notes
    -----
    Random effects about a mean that is known to be 0, which is the prior's: an offset that all sites have in
    common, as of a model that is not trained to its end, counts as well. Of several outputs, told apart by
    their differences only, each has a share of (outputs - 1) / outputs of the variance.

    Examples
    --------
    >>> import numpy as np
    >>> said = {site: Offset(value=np.array([v]), error=np.array([0.3])) for site, v in zip("abc", (-1.5, 0.0, 1.5))}
    >>> round(offset_deviation(said), 3), offset_deviation({"a": said["a"]})
    (1.187, None)
    """
    if len(offsets) < LEAST_OFFSETS:
        return None
    # In name order, so that the sum rounds alike whoever answered first.
    of_sites = [offsets[site] for site in sorted(offsets)]
    outputs = len(of_sites[0].value)
    # Outputs that are told apart by differences only share the variance.
    share = (outputs - 1) / outputs if outputs > 1 else 1.0
    values = [float(value) for offset in of_sites for value in offset.value]
    errors = [float(error) for offset in of_sites for error in offset.error]
    return math.sqrt(variance_between(values, errors, mean=0.0) / share)
