"""Arrays that stay at the sites: a site's own part of the model, its own model, or what a strategy keeps there.

How far the sites' own intercepts differ is estimated over the sites, and each adjusts its own by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

from flfed.federation.client.site_run import extra_shapes_of
from flfed.federation.server.parts.server_part import FinalModel, ServerPart
from flfed.federation.server.run_setting import RunSetting
from flfed.records.statistics.intervals import variance_between
from flfed.rows.training.functional import outputs_of
from flfed.updates.aggregation.rounds import RunContext
from flfed.updates.extra import own_facts
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.messages.train import Offset

UNKEPT = (
    "the run was resumed on an engine that keeps no site's own arrays: what the strategy had kept at sites until then "
    "is lost, and the arrays are not those of a run without a break"
)


class OwnPart(ServerPart):
    """Arrays of a strategy that are at the sites only."""

    @classmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Tell whether sites keep arrays from round to round."""
        return extra_shapes_of(run.study.text).stay

    def note(self) -> None:
        """Record what of the model is each site's own."""
        facts = own_facts(extra_shapes_of(self.run.study.text))
        if facts:
            self.run.recorder.summary("own-parts", facts)

    def lost_at_sites(self) -> str:
        """Return that the sites' own arrays are lost."""
        return UNKEPT

    def has_whole_model(self) -> bool:
        """Tell whether each site predicts with the arrays at the server, and with none of its own."""
        return not extra_shapes_of(self.run.study.text).own_part


LEAST_OFFSETS = 3
"""Of fewer sites nothing is estimated: it would be known too badly, and of two each could compute the other's."""
SITE_OFFSETS = "site-offsets"
"""Of the summary in the run store, and of what a checkpoint says."""


class OwnIntercepts(ServerPart):
    """Intercepts by which sites adjust the shared model."""

    @classmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Tell whether sites adjust the model."""
        return run.study.adjusts_intercept()

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Have sites asked for their own after the last round."""
        return replace(context, outputs=outputs_of(self.run.schema.task, len(self.run.schema.classes)))

    def compare_request(self, model: FinalModel, request: CompareRequest) -> CompareRequest:
        """Send the sites how far their intercepts differ, and record it."""
        offsets = model.strategy.offsets
        facts = model.once(SITE_OFFSETS, {"sites": len(offsets), "deviation": offset_deviation(offsets)})
        self.run.recorder.summary(SITE_OFFSETS, facts)
        # NaN stands for an unknown one: each site adjusts as it did before it was asked.
        deviation = math.nan if facts["deviation"] is None else facts["deviation"]
        return replace(request, offset_deviation=deviation)


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
    share = max(outputs - 1, 1) / outputs
    values = [*map(float, chain.from_iterable(offset.value for offset in of_sites))]
    errors = [*map(float, chain.from_iterable(offset.error for offset in of_sites))]
    return math.sqrt(variance_between(values, errors, mean=0.0) / share)
