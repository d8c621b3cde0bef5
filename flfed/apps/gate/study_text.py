"""The text of a study that came over the wire, which perhaps nobody approved: read with care."""

from __future__ import annotations

import hashlib
import tomllib

from flfed.errors import FlfedError, UsageError
from flfed.study import Study
from flfed.updates.sentences import CONTROL

LONGEST_STUDY = 100_000
"""Characters of a study's text: it is parsed before anybody approved it."""


class Refused(FlfedError):
    """A message that the site does not answer; the sentence is ours and may cross."""


def parsed(text: str) -> Study:
    """Return the study, or raise Refused in plain words."""
    try:
        return Study.parse(text)
    except UsageError as error:
        raise Refused(f"the study cannot be used ({CONTROL.sub(' ', str(error))[:300]})") from None
    except (RecursionError, ValueError, OverflowError):
        raise Refused("the study cannot be read") from None


def name_of(text: str) -> str:
    """Return the name in a study's text that nobody approved, or an empty text."""
    try:
        found = tomllib.loads(text).get("name")
    except (RecursionError, ValueError):
        return ""
    return found if isinstance(found, str) else ""


def sha256_of(text: str) -> str:
    """Return the hash of a study's text, also of one that is no text for a file."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
