"""Redaction of errors that leave a site.

Only one of flfed's own sentences may leave, or else the error's type.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable

from flwr.app import Context, Error, Message

from flfed.errors import TableError
from flfed.refusals import CROSSING, NotSpent, NotTakingPart, Refusal, of_table, refusal_of
from flfed.study.study import Study
from flfed.trees.forest import NoTrees
from flfed.updates.checkpoints.site_state import StorageError
from flfed.updates.messages.enrol import ENROL
from flfed.updates.messages.fields import MalformedMessage

LOG = logging.getLogger("flfed.site")
SITE_ERROR = 1


def redact(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """Replace an exception by the part that may leave.

    That part is flfed's own sentence, or the exception's type.

    Flower sends the text of any exception to the server; pandas and scikit-learn quote cells, and
    a UsageError may name the site's files. The site's log gets type and places, no text.
    """
    try:
        return call_next(message, context)
    except Exception as error:  # noqa: BLE001 - the border: nothing of an exception's text may cross
        return redacted(error, message, context)


def redacted(error: Exception, message: Message, context: Context) -> Message:
    """Return the reply to a failed message.

    It has the part of the error that may leave.
    """
    if isinstance(error, (NotTakingPart, MalformedMessage, StorageError, NotSpent, NoTrees)):
        # A malformed message came from the server: its error has nothing of a table.
        reason = refusal_of(error)
    elif isinstance(error, TableError):
        reason = of_table(error, CROSSING)
    else:
        # Places only: the error's own text may quote a cell.
        places = "".join(traceback.format_tb(error.__traceback__))
        LOG.error("%s while answering %s\n%s", type(error).__name__, message.metadata.message_type, places)
        reason = Refusal("no-memory") if _no_memory(error) else Refusal("error", type=type(error).__name__)
    if message.metadata.message_type == ENROL:
        # The server does not know this node's name yet.
        reason = Refusal("of-site", site=context.node_config["site"], why=reason)
    return Message(Error(code=SITE_ERROR, reason=str(reason)), reply_to=message)


def _no_memory(error: Exception) -> bool:
    """Return whether an allocation failed, which Torch reports as a RuntimeError."""
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    return "memory" in str(error) and "allocate" in str(error)


def table_error(study: Study, error: TableError) -> TableError:
    """Return the outbound error about a site's table.

    Under covering noise it has no count of rows.
    """
    return TableError(error.column, error.rule) if study.is_covered else error
