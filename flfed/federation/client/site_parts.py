"""List of a study's parts at a site.

No other code there names one.
"""

from __future__ import annotations

from functools import lru_cache

from flfed.federation.client.parts.own_part import OwnPart
from flfed.federation.client.parts.secure_aggregation import SecureAggregation
from flfed.federation.client.parts.step import Leaving, PartReply, SitePart, SiteStep
from flfed.federation.client.parts.strategy_rule import StrategyRule
from flfed.federation.client.parts.update import Codec, CoveringNoise
from flfed.federation.client.site_run import SiteRun, study_of
from flfed.rows.session import SiteSession
from flfed.summaries.summary import Encoder
from flfed.updates.messages.compare import CompareRequest
from flfed.updates.messages.summarise import SummariseRequest

PARTS: tuple[type[SitePart], ...] = (SecureAggregation, CoveringNoise, Codec, OwnPart, StrategyRule)
"""From the outermost to the innermost: the first one has the original request, and the outbound reply."""


@lru_cache(maxsize=64)
def site_parts(text: str) -> tuple[SitePart, ...]:
    """Return the parts of a study, given its text, the outermost first."""
    study = study_of(text)
    parts = []
    for part in PARTS:
        made = part.of_study(study)
        if made is not None:
            parts.append(made)
    return tuple(parts)


def leave_alone(
    request: SummariseRequest | CompareRequest,
    session: SiteSession,
    own: SiteRun,
    reply: PartReply,
    encoder: Encoder | None = None,
) -> Leaving:
    """Return the outbound reply to a request that no part of its study has changed; a comparison's has an encoder."""
    step = SiteStep(original_request=request, session=session, own=own, encoder=encoder)
    return (yield from leave(step, reply))


def leave(step: SiteStep, reply: PartReply) -> Leaving:
    """Return the outbound reply, through all parts of its study."""
    for part in reversed(site_parts(step.session.study.text)):
        reply = yield from part.reply(step, reply)
    return reply
