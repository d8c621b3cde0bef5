"""Words before the approval of a study that asks for a statistic in place of a model."""

from __future__ import annotations

from collections.abc import Iterator

from flfed import registry
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.gate.message_sections import most_bytes
from flfed.deployment.operator.reveals import reveals
from flfed.study.study import Study
from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.messages.secure_sum import KeysReply, ListReply, UnmaskReply
from flfed.updates.messages.summarise import STATISTIC, StatisticReply

EXACT = (
    "No noise is added to what leaves, and it is not added up in secret: the coordinator's memory holds this site's "
    "own sums, which are exact. On the way everything is encrypted (TLS)."
)


IN_SECRET = (
    "No noise is added to what leaves. The statistic's sums are added up in secret, so that the coordinator's memory "
    "never holds this site's own: see Sums. On the way everything is encrypted (TLS)."
)


def of_statistic(study: Study, messages: StudyMessages) -> Iterator[str]:
    """Yield what leaves of a study without a model, and that it runs once."""
    most = most_bytes(messages.leaving(STATISTIC))
    name = study.statistic.name
    label = registry.load("statistic", name).label
    yield f"What leaves, once at the start: {reveals(EnrolReply)}"
    if messages.pinned:
        yield f"What leaves, once before it, for sums: {reveals(KeysReply)}"
    yield (
        f"What leaves, once (at most {most:,} bytes): {reveals(StatisticReply)} The statistic is {name} ({label}): "
        f"{reveals(registry.load('statistic', name))}"
    )
    if messages.pinned:
        yield f"What leaves, once to open the sum: {reveals(UnmaskReply)}"
        yield f"What leaves, where a site is missing: {reveals(ListReply)}"
