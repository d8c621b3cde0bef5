"""Redaction of errors that leave a site.

A sentence of ours may leave, or else the error's type.
"""

from __future__ import annotations

import logging
import traceback

from flwr.app import Context, Error, Message
from flwr.clientapp.typing import ClientAppCallable

from flfed.errors import FlfedError, TableError
from flfed.federation.client.privacy_budget import NotSpent
from flfed.updates.checkpoints.reply_cache import NotKept
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.fields import MalformedMessage

LOG = logging.getLogger("flfed.site")
SITE_ERROR = 1
CROSSING = 10
"""Counts of rows below this leave a site as "fewer than 10", whatever its policy."""
NO_MEMORY = "it needs more memory than the site gives its gate; at the site: flfed site serve NAME --memory SIZE"


class NotTakingPart(FlfedError):
    """Refusal of a site by its own policy.

    It is a fixed sentence of ours, so it may cross.
    """


def redact(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Replace an exception by what may leave.

    It is our own sentence, or the exception's type.

    Flower sends the text of any exception to the server; pandas and scikit-learn quote cells, and
    a UsageError may name the site's files. The site's log gets type and places, no text.
    """
    try:
        return call_next(message, context)
    except Exception as error:  # noqa: BLE001 - the border: nothing of an exception's text may cross
        return redacted(error, message, context)


def redacted(error: Exception, message: Message, context: Context) -> Message:
    """Return the reply to a failed message.

    It has of the error what may leave.
    """
    if isinstance(error, (NotTakingPart, MalformedMessage, NotKept, NotSpent)):
        # What is malformed came from the server: it holds nothing of a table.
        reason = str(error)
    elif isinstance(error, TableError):
        reason = error.said(CROSSING)
    else:
        # Places only: the error's own text may quote a cell.
        places = "".join(traceback.format_tb(error.__traceback__))
        LOG.error("%s while answering %s\n%s", type(error).__name__, message.metadata.message_type, places)
        reason = NO_MEMORY if _no_memory(error) else f"{type(error).__name__}: see the site's log"
    if message.metadata.message_type == ENROL:
        reason = f"{context.node_config['site']}: {reason}"  # the server does not know this node's name yet
    return Message(Error(code=SITE_ERROR, reason=reason), reply_to=message)


def _no_memory(error: Exception) -> bool:
    """Tell whether an allocation failed.

    Torch says so with a RuntimeError.
    """
    text = str(error) if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or ("memory" in text and "allocate" in text)
