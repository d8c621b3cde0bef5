"""Arrays that stay at the sites.

They are a site's own part of the model, its own model, or a strategy's state there. The difference of the sites' own
intercepts is estimated over the sites, and each adjusts its own by it. A codec packs updates, and a site
may keep the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

import numpy as np

from flfed.federation.client.site_run import extra_shapes_of
from flfed.federation.server.parts.server_part import FinalModel, ServerPart
from flfed.federation.server.run_setting import RunSetting
from flfed.records.statistics.intervals import variance_between
from flfed.rows.training.functional import outputs_of
from flfed.updates.aggregation.rounds import RunContext
from flfed.updates.codec import Codec as ArrayCodec
from flfed.updates.codec import codec_of
from flfed.updates.extra import own_facts
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.messages.in_memory import count_array_bytes
from flfed.updates.messages.train import Offset
from flfed.words import render


class OwnPart(ServerPart):
    """Arrays of a strategy that exist at the sites only."""

    @classmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Return whether sites keep arrays from round to round."""
        return extra_shapes_of(run.study.text).stay

    def note(self) -> None:
        """Record the parts of the model that are each site's own."""
        facts = own_facts(extra_shapes_of(self.run.study.text))
        if facts:
            self.run.recorder.summary("own-parts", facts)

    def lost_at_sites(self) -> str:
        """Return the loss of the sites' own arrays."""
        return render("run.notes.arrays")

    def has_whole_model(self) -> bool:
        """Return whether sites predict with the server's arrays alone.

        Else they have arrays of their own.
        """
        return not extra_shapes_of(self.run.study.text).own_part


LEAST_OFFSETS = 3
"""With fewer sites nothing is estimated: it would be too uncertain, and of two each could compute the other's."""
SITE_OFFSETS = "site-offsets"
"""Key of the summary in the run store, and of a checkpoint's facts."""


class OwnIntercepts(ServerPart):
    """Intercepts by which sites adjust the shared model."""

    @classmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Return whether sites adjust the model."""
        return run.study.adjusts_intercept()

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Request the sites' own intercepts after the last round."""
        return replace(context, outputs=outputs_of(self.run.schema.task, len(self.run.schema.classes)))

    def compare_request(self, model: FinalModel, request: CompareRequest) -> CompareRequest:
        """Add the deviation of the sites' intercepts to the request, and record it."""
        offsets = model.strategy.offsets
        facts = model.once(SITE_OFFSETS, {"sites": len(offsets), "deviation": offset_deviation(offsets)})
        self.run.recorder.summary(SITE_OFFSETS, facts)
        # NaN stands for an unknown one: each site adjusts as without it.
        deviation = math.nan if facts["deviation"] is None else facts["deviation"]
        return replace(request, offset_deviation=deviation)


def offset_deviation(offsets: Mapping[str, Offset]) -> float | None:
    """Return the deviation of the sites' offsets.

    It is taken about the shared model's intercept, and is None with too few sites.

    Parameters
    ----------
    offsets : mapping of site to Offset
        All of one number of outputs.

    Notes
    -----
    Random effects about a known mean of 0, which is the prior's. So a shift that all sites have in common counts as
    well, as of a model that is not trained to its end. Of several outputs, known by their differences alone, each has
    a share of (outputs - 1) / outputs of the variance.

    Examples
    --------
    >>> import numpy as np
    >>> offsets = {site: Offset(value=np.array([v]), error=np.array([0.3])) for site, v in zip("abc", (-1.5, 0.0, 1.5))}
    >>> round(offset_deviation(offsets), 3), offset_deviation({"a": offsets["a"]})
    (1.187, None)
    """
    if len(offsets) < LEAST_OFFSETS:
        return None
    # In name order, so that the sum is rounded alike whatever the order of replies.
    of_sites = [offsets[site] for site in sorted(offsets)]
    outputs = len(of_sites[0].value)
    # Outputs that are known by differences alone share the variance.
    share = max(outputs - 1, 1) / outputs
    values = [*map(float, chain.from_iterable(offset.value for offset in of_sites))]
    errors = [*map(float, chain.from_iterable(offset.error for offset in of_sites))]
    return math.sqrt(variance_between(values, errors, mean=0.0) / share)


class Codec(ServerPart):
    """Packing of a study's updates in transit."""

    @classmethod
    def is_in_study(cls, run: RunSetting) -> bool:
        """Return whether updates are packed."""
        return codec_of(run.study) is not None

    def note(self) -> None:
        """Record the codec, and the bytes that it saves of an update's message."""
        codec, arrays = self._codec(), self.run.first_arrays()
        # A packed array's size does not depend on its values.
        packed = codec.encode(arrays, np.random.default_rng(0))
        saved = count_array_bytes(arrays) - count_array_bytes(packed)
        self.run.recorder.summary("codec", {"name": self.run.study.codec.name, "saved": saved})

    def context(self, context: RunContext, *, is_recorded: bool) -> RunContext:
        """Add the codec to the strategy's facts."""
        return replace(context, codec=self._codec())

    def lost_at_sites(self) -> str:
        """Return the loss of error feedback, where the codec has any."""
        return render("run.notes.feedback") if self._codec().feedback else ""

    def _codec(self) -> ArrayCodec:
        return codec_of(self.run.study) or ArrayCodec()
