"""Models that a run brought to a site: the compared one is the one that was evaluated, or was trained from."""

from __future__ import annotations

import hashlib
from collections.abc import Set

from flwr.app import Message

from flfed.refusals import Refusal
from flfed.study.exchanges import grows
from flfed.study.study import Study
from flfed.summaries.summary import arrays_sha256
from flfed.updates.messages import fields
from flfed.updates.messages.train import TRAIN

FROM = "trained-from-sha256"
"""Key of a line: the hash of the model that a round was trained from, empty where it crossed in another form."""


def model_sha256(message: Message) -> str:
    """Return the hash of a request's model and encoder; raises MalformedMessage if an array cannot be read."""
    both = [arrays_sha256(fields.ndarrays(message.content, name)) for name in ("arrays", "encoder")]
    return hashlib.sha256("/".join(both).encode()).hexdigest()


def trained_from(message: Message, study: Study) -> dict[str, str]:
    """Return what the line of a round says of its model; nothing of other messages."""
    if message.metadata.message_type != TRAIN:
        return {}
    # Packed, encrypted, or named by its hash it has other bytes than where it is compared.
    as_it_is = study.download == "none" and study.secure_aggregation != "ckks" and not grows(study)
    return {FROM: model_sha256(message) if as_it_is else ""}


def other_model_refusal(evaluated: Set[str], compared: Set[str], trained_from: Set[str]) -> Refusal | None:
    """Return why a run may not have these models evaluated and compared, by their hashes; None where it may.

    A run gets figures of validation rows by the one and of test rows by the other. Both are of one model, or the
    compared one is that of an earlier round.
    """
    known = evaluated | trained_from
    # What crossed in another form cannot be told from others, and a site may have missed the evaluation.
    if "" in known or not evaluated or compared <= known:
        return None
    return Refusal("other-model-compared")
