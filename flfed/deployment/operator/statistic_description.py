"""Words before the approval of a study that asks for a statistic, or of which all that leaves is charged."""

from __future__ import annotations

from collections.abc import Iterator

from flfed import registry
from flfed.deployment.gate.message_schema import StudyMessages
from flfed.deployment.operator.reveals import reveals
from flfed.rows.statistics.private.analysis import NoisedAnalysis
from flfed.study.study import Study
from flfed.updates.messages.enrol import EnrolReply
from flfed.updates.messages.secure_sum import KeysReply, ListReply, UnmaskReply
from flfed.updates.messages.summarise import STATISTIC, StatisticReply
from flfed.updates.sections import most_bytes

EXACT = (
    "No noise is added to what leaves, and it is not added up in secret: the coordinator's memory holds this site's "
    "own sums, which are exact. On the way everything is encrypted (TLS)."
)
ENROLLED = (
    "the site's name and versions, and of its rows no number and no band. A refusal's reason is a fixed phrase of "
    "ours, without a count. The site's budget of epsilon for the dataset, and what all studies there have spent of "
    "it: how much was computed with the rows, and nothing of what is in them. Of a site that trains a part of the "
    "model, which part: a setting of its policy."
)
"""Of a site in a study of which all that leaves is charged, when it enrols."""
ANSWERED = (
    "Mechanism {name}: the site answers once. What one {unit} adds to all counts and sums of that answer together is "
    "bounded, and noise of this machine's own generator comes on top. So whoever sees the answer learns almost the "
    "same whether or not any one {unit} was there: epsilon {epsilon} at delta {delta:g}. It is charged to this site's "
    "account before the noise is drawn, and kept: who asks with this very text again, over the same rows, gets the "
    "same numbers, and nothing more is charged. The number of rows is one of these numbers and leaves in no other "
    "form. On the way everything is encrypted (TLS)."
)
"""Of an analysis."""
ANSWERED_IN_SUM = (
    "Mechanism {name}: the site answers once, in a secret sum: see Sums. What one {unit} adds to all counts and sums "
    "of that answer together is bounded, and each site adds its part of the noise, of its own machine's generator. So "
    "whoever sees the sum learns almost the same whether or not any one {unit} was there: epsilon {epsilon} at delta "
    "{delta:g}, if at most one other site tells the coordinator its part of the noise; epsilon {colluding} if a third "
    "of them do. It is charged to this site's account before the noise is drawn, and kept: who asks with this very "
    "text again, over the same rows, gets the same numbers, and nothing more is charged. The number of rows is one of "
    "these numbers and leaves in no other form. On the way everything is encrypted (TLS)."
)
"""Of an analysis under secure sums."""
IN_SECRET = (
    "No noise is added to what leaves. The statistic's sums are added up in secret, so that the coordinator's memory "
    "never holds this site's own: see Sums. On the way everything is encrypted (TLS)."
)


def of_statistic(study: Study, messages: StudyMessages) -> Iterator[str]:
    """Yield what leaves of a study without a model, and that it runs once."""
    most = most_bytes(messages.leaving(STATISTIC))
    yield f"What leaves, once at the start: {reveals(EnrolReply) if study.analysis is None else ENROLLED}"
    if study.analysis is not None:
        if messages.pinned:
            yield f"What leaves, once before it, for sums: {reveals(KeysReply)}"
        yield f"What leaves, once (at most {most:,} bytes): {reveals(NoisedAnalysis)}"
        yield from _opened(messages)
        return
    name = study.statistic.name
    label = registry.load("statistic", name).label
    if messages.pinned:
        yield f"What leaves, once before it, for sums: {reveals(KeysReply)}"
    yield (
        f"What leaves, once (at most {most:,} bytes): {reveals(StatisticReply)} The statistic is {name} ({label}): "
        f"{reveals(registry.load('statistic', name))}"
    )
    yield from _opened(messages)


def _opened(messages: StudyMessages) -> Iterator[str]:
    if messages.pinned:
        yield f"What leaves, once to open the sum: {reveals(UnmaskReply)}"
        yield f"What leaves, where a site is missing: {reveals(ListReply)}"
