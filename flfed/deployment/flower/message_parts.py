"""Messages in transit: in one piece, and in parts.

Parts are counted before they are read, and the message is compared with its envelope. A small message is packed into
one piece, which coordinator and gate read and check as before. Flower sends every record and every array as an object
of its own, with three requests for each. One piece saves most of the requests of a round, and of their CPU time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from google.protobuf.message import DecodeError

from flfed.flower_names import RecordDict as RecordDictOfWire
from flfed.flower_names import inflate_object_from_contents, recorddict_from_proto, recorddict_to_proto
from flfed.refusals import Refusal
from flfed.updates.messages.fields import MalformedMessage

SHORT = 1 << 20
"""Bytes of an answer without a part of a message."""
MOST_BYTES = 64 << 20
"""Of one message: far above every model for tables, far below the memory of a machine."""
MOST_PARTS = 10_000
"""Of one message: Flower sends every array, and every piece of one, as an object of its own."""
ENVELOPE_FIELDS = ("run_id", "message_type", "src_node_id", "dst_node_id", "reply_to_message_id", "group_id")


def iterate_parts(tree: Any) -> Iterator[Any]:
    """Yield the parts of a message's tree, inner parts first."""
    for child in tree.children:
        yield from iterate_parts(child)
    yield tree


def parts_of(tree: Any, message_id: str) -> list[str]:
    """Return the names of a message's parts.

    Raises
    ------
    MalformedMessage
        If there are too many, or they are another message's.
    """
    # One part more than allowed is enough to refuse; the rest of the tree is not walked.
    names = [part.object_id for part in islice(iterate_parts(tree), MOST_PARTS + 1)]
    if len(names) > MOST_PARTS:
        raise MalformedMessage(Refusal("too-many-parts", most=MOST_PARTS))
    if tree.object_id != message_id:
        raise MalformedMessage(Refusal("other-message"))
    return list(dict.fromkeys(names))


def opened(envelope: Message, contents: Mapping[str, bytes]) -> Message:
    """Return the message that parts make up.

    Parameters
    ----------
    envelope : Message
        From the server: sender, run, and the message that it answers.
    contents : dict of part to bytes

    Raises
    ------
    MalformedMessage
        If they make up none, or one that differs from its envelope.
    """
    try:
        message = inflate_object_from_contents(envelope.metadata.message_id, dict(contents))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, DecodeError):
        raise MalformedMessage(Refusal("message-unreadable")) from None
    if not isinstance(message, Message):
        raise MalformedMessage(Refusal("no-message"))
    # The id is checked by `parts_of`; every other fact of the envelope is compared here.
    message.metadata.__dict__["_message_id"] = envelope.metadata.message_id
    for name in ENVELOPE_FIELDS:
        if getattr(message.metadata, name) != getattr(envelope.metadata, name):
            raise MalformedMessage(Refusal("other-envelope", field=name.replace("_", "-")))
    return message


PIECE_SECTION = "one-piece"
PIECE_KEY = "content"
MOST_PIECE_BYTES = 1 << 20
"""Of a piece: Flower sends a larger message in pieces of its own."""


def joined(message: Message) -> Message:
    """Return a message packed for transit.

    The given message is unchanged. An error, and a large message, stays as it is.
    """
    if not message.has_content():
        return message
    # Deterministic, so that the same message always has the same bytes.
    piece = recorddict_to_proto(message.content).SerializeToString(deterministic=True)
    if len(piece) > MOST_PIECE_BYTES:
        return message
    packed_message = copy.copy(message)
    packed_message.content = RecordDict({PIECE_SECTION: ConfigRecord({PIECE_KEY: piece})})
    return packed_message


def apart(message: Message) -> Message:
    """Return a message unpacked after transit.

    The given message is unchanged.

    Raises
    ------
    MalformedMessage
        If its piece is malformed, or larger than allowed.
    """
    if not message.has_content() or list(message.content) != [PIECE_SECTION]:
        return message
    section = message.content[PIECE_SECTION]
    # Exactly one key and a limited size: nothing else may travel beside the piece.
    piece = None
    if isinstance(section, ConfigRecord) and list(section) == [PIECE_KEY]:
        piece = section[PIECE_KEY]
    if not isinstance(piece, bytes) or len(piece) > MOST_PIECE_BYTES:
        raise MalformedMessage(Refusal("message-unreadable"))
    unpacked_message = copy.copy(message)
    try:
        unpacked_message.content = recorddict_from_proto(RecordDictOfWire.FromString(piece))
    except (DecodeError, ValueError, TypeError, KeyError, AttributeError):
        raise MalformedMessage(Refusal("message-unreadable")) from None
    return unpacked_message
