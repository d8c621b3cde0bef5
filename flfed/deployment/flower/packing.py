"""Packing of a message into one piece.

Coordinator and gate read and check it as before.

Flower sends every record and every array as an object of its own, and asks three times for each: a
round of logistic regression is 34 objects a site. In one piece it is 6, a third of the CPU time.
"""

from __future__ import annotations

import copy

from flwr.app import ConfigRecord, Message, RecordDict
from google.protobuf.message import DecodeError

from flfed.flower_names import RecordDict as RecordDictOfWire
from flfed.flower_names import recorddict_from_proto, recorddict_to_proto
from flfed.refusals import Refusal
from flfed.updates.messages.fields import MalformedMessage

SECTION, KEY = "one-piece", "content"
MOST_BYTES = 1 << 20
"""Of a piece: what is larger goes as Flower sends it, in pieces of its own."""


def joined(message: Message) -> Message:
    """Return a message packed for its way.

    The given message is not changed. An error, and a large message, stays as it is.
    """
    if not message.has_content():
        return message
    # Deterministic, so that the same message always has the same bytes.
    piece = recorddict_to_proto(message.content).SerializeToString(deterministic=True)
    if len(piece) > MOST_BYTES:
        return message
    found = copy.copy(message)
    found.content = RecordDict({SECTION: ConfigRecord({KEY: piece})})
    return found


def apart(message: Message) -> Message:
    """Return a message unpacked after its way.

    The given message is not changed.

    Raises
    ------
    MalformedMessage
        If its piece is none, or larger than one may be.
    """
    if not message.has_content() or list(message.content) != [SECTION]:
        return message
    found = copy.copy(message)
    found.content = _record(message.content[SECTION])
    return found


def _record(section: object) -> RecordDict:
    # Exactly one key and a bounded size: nothing else may travel beside the piece.
    piece = section.get(KEY) if isinstance(section, ConfigRecord) and list(section) == [KEY] else None
    if not isinstance(piece, bytes) or len(piece) > MOST_BYTES:
        raise MalformedMessage(Refusal("message-unreadable"))
    try:
        found: RecordDict = recorddict_from_proto(RecordDictOfWire.FromString(piece))
    except (DecodeError, ValueError, TypeError, KeyError, AttributeError):
        raise MalformedMessage(Refusal("message-unreadable")) from None
    return found
