"""Sentences before an approval, made of their templates and facts, and what a message reveals, by its own docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

from flfed.errors import FlfedError
from flfed.updates.parts.border import Foreign, Text
from flfed.words import sentences

LONGEST = 600
"""Characters of a text that came with the study: a longer one could push the rest off the screen."""


def worded(text: Text, known: Mapping[str, object]) -> str:
    """Return a sentence of the table `releases`; `known` are facts beside its own."""
    facts = {name: _fact(value, known) for name, value in {**known, **text.facts}.items()}
    return sentences("approval", "releases")[text.key].format(**facts)


def _fact(value: object, known: Mapping[str, object]) -> str:
    if isinstance(value, Text):
        return worded(value, known)
    if isinstance(value, tuple):
        return " and ".join(_fact(one, known) for one in value)
    if isinstance(value, type):
        return reveals(value)
    if not isinstance(value, Foreign):
        return str(value)
    if isinstance(value.of, type):
        return shown(reveals(value.of))
    return "; ".join(map(shown, value.of))


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


def shown(text: str) -> str:
    r"""Return a study's text as one safe line.

    It cannot pretend to be flfed's own, nor hide what follows it.

    Examples
    --------
    >>> shown("Predict\x1b[2J\nLegal basis: consent")
    'Predict [2J Legal basis: consent'
    """
    # Control characters could move the cursor; what is not printable becomes a space.
    printable = [letter if letter.isprintable() else " " for letter in text]
    plain = " ".join("".join(printable).split())
    if len(plain) <= LONGEST:
        return plain
    return f"{plain[:LONGEST]} … ({len(plain) - LONGEST} characters more: flfed study show)"


def size_in_bytes(many: int) -> str:
    """Return a number of bytes for people.

    Examples
    --------
    >>> size_in_bytes(950), size_in_bytes(2_340), size_in_bytes(20_000_000), size_in_bytes(261_000)
    ('950 bytes', '2.3 kB', '20 MB', '261 kB')
    """
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if many >= size:
            digits = 3 if many / size >= 100 else 2
            return f"{many / size:.{digits}g} {unit}"
    return f"{many} bytes"
