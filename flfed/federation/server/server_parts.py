"""List of a study's parts at the server.

No other code there names one.
"""

from __future__ import annotations

from flfed.federation.server.parts.covering_noise import CoveringNoise
from flfed.federation.server.parts.secure_aggregation import SecureAggregation
from flfed.federation.server.parts.server_part import ServerPart
from flfed.federation.server.parts.site_arrays import Codec, OwnIntercepts, OwnPart
from flfed.federation.server.parts.trees import Trees
from flfed.federation.server.run_setting import RunSetting

PARTS: tuple[type[ServerPart], ...] = (SecureAggregation, CoveringNoise, Trees, Codec, OwnPart, OwnIntercepts)
"""From the outermost to the innermost: the first one has the last word on the sites' replies."""


def server_parts(run: RunSetting) -> tuple[ServerPart, ...]:
    """Return the parts of a run's study, made for this run."""
    return tuple(part(run) for part in PARTS if part.is_in_study(run))
