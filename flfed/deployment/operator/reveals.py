"""What a message reveals, by its own docstring."""

from __future__ import annotations

import inspect
import re

from flfed.errors import FlfedError


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
