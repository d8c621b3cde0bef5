"""Arrays that stay at the sites.

They are a site's own part of the model, its own model, or a strategy's state there. The difference of the sites' own
intercepts is estimated over the sites, and each adjusts its own by it. A codec packs updates, and a site
may keep the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain

import numpy as np

from flfed.federation.client.site_run import extra_shapes_of
from flfed.federation.server.run_setting import RunSetting
from flfed.records.statistics.intervals import variance_between
from flfed.updates.codec import codec_of
from flfed.updates.extra import own_facts
from flfed.updates.messages.in_memory import count_array_bytes
from flfed.updates.messages.train import Offset
from flfed.words import render


def note_site_arrays(run: RunSetting) -> None:
    """Record the parts of the model that are each site's own, the codec, and the bytes that it saves of an update."""
    facts = own_facts(extra_shapes_of(run.study.text))
    if facts:
        run.recorder.summary("own-parts", facts)
    codec = codec_of(run.study)
    if codec is not None:
        arrays = run.first_arrays()
        # A packed array's size does not depend on its values.
        packed = codec.encode(arrays, np.random.default_rng(0))
        saved = count_array_bytes(arrays) - count_array_bytes(packed)
        run.recorder.summary("codec", {"name": run.study.codec.name, "saved": saved})


def note_lost_arrays(run: RunSetting) -> None:
    """Note in a resumed run which arrays of its sites, that live in no process any more, are lost."""
    codec = codec_of(run.study)
    if codec is not None and codec.feedback:
        run.recorder.note(render("run.notes.feedback"))
    elif extra_shapes_of(run.study.text).stay:
        run.recorder.note(render("run.notes.arrays"))


def has_whole_model(run: RunSetting) -> bool:
    """Return whether sites predict with the server's arrays alone; else they have arrays of their own."""
    return not extra_shapes_of(run.study.text).own_part


LEAST_OFFSETS = 3
"""With fewer sites nothing is estimated: it would be too uncertain, and of two each could compute the other's."""
SITE_OFFSETS = "site-offsets"
"""Key of the summary in the run store, and of a checkpoint's facts."""


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
