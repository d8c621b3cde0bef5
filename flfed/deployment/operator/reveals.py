"""What a message reveals, by its own docstring, and what a coordinator learns by what it does."""

from __future__ import annotations

import inspect
import re

from flfed.deployment.gate.message_schema import StudyMessages
from flfed.errors import FlfedError
from flfed.study.coverage import is_covered
from flfed.study.statistic import is_statistic
from flfed.updates.mechanism import mechanism_of

PLAIN = "From updates of its own models it can compute this site's rows and outcomes, sooner of a small table."
OF_SUMS = "Sums of updates of its own models tell it of the rows of all their sites together."
NOISED = "Updates of its own models tell it no more than the study's epsilon allows."


def reveals(message: type) -> str:
    """Return what a message reveals, as one line.

    It is taken from the message's own docstring.

    Raises
    ------
    FlfedError
        Where Python was told to drop docstrings: nobody should approve what is not shown.
    """
    found = re.search(r"^Reveals: (.*?)(?:\n\n|\Z)", inspect.getdoc(message) or "", re.DOTALL | re.MULTILINE)
    if found is None:
        raise FlfedError(f"{message.__name__} does not say what it reveals: run Python without -OO, and show it again")
    # The one name of ours in these paragraphs; the words stand for the paragraph before.
    return " ".join(found[1].split()).replace("SummariseReply", "for the sums before the rounds")


def learnt(messages: StudyMessages) -> list[str]:
    """Return what a coordinator learns that keeps to the protocol, repeats itself, or makes its models.

    Nothing is to be said of a study all of whose answers have noise, and of one without a model.
    """
    study = messages.study
    if is_covered(study) or is_statistic(study):
        return []
    mechanism = mechanism_of(study)
    updates = OF_SUMS if messages.pinned else PLAIN
    if mechanism is not None and mechanism.charged(study.plan, study.rounds) is not None:
        updates = NOISED
    return [
        "What the coordinator learns: If it keeps to the protocol, what is listed above. "
        "If it asks again, the same answer; in another run, the answer to another model. "
        f"If it makes its own models, more: {updates}"
    ]
