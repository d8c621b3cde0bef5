"""Sentences for people, in templates: a file a subject, a table a place where they are shown.

A template has named places for facts and no logic: code picks the template and gives the facts as they are to be read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from flfed.errors import FlfedError, UsageError

LONGEST_LINE = 600
"""Characters of a text that came with the study: a longer one could push the rest off the screen."""


def render(key: str, /, **facts: object) -> str:
    """Return the sentence of a template, with facts in its places.

    Parameters
    ----------
    key : str
        "SUBJECT.TABLE.KEY": file, table and key of the template.
    **facts
        What its places are filled with.

    Examples
    --------
    >>> render("approval.study.target", column="died", kind="flag")
    'died (predicted: flag)'
    """
    subject, table, name = key.split(".")
    return sentences(subject, table)[name].format_map(facts)


def usage_error(key: str, /, **facts: object) -> UsageError:
    """Return the refusal of a setting or a file, in the sentence of a template.

    Parameters
    ----------
    key, **facts
        As of `render`.

    Examples
    --------
    >>> raise usage_error("rows.site.name", name="Bergen 1")
    Traceback (most recent call last):
    flfed.errors.UsageError: site name 'Bergen 1' must be of a-z, 0-9 and single hyphens
    """
    return UsageError(render(key, **facts))


def flfed_error(key: str, /, **facts: object) -> FlfedError:
    """Return the error of something that failed, in the sentence of a template.

    Parameters
    ----------
    key, **facts
        As of `render`.

    Examples
    --------
    >>> raise flfed_error("export.errors.changed", what="model", folder="out", run="20261126-1")
    Traceback (most recent call last):
    flfed.errors.FlfedError: the model in out is not that of run 20261126-1 in the store; not exported
    """
    return FlfedError(render(key, **facts))


def counted(count: int, word: str) -> str:
    """Return a count with its word.

    Examples
    --------
    >>> counted(1, "line"), counted(2000, "line")
    ('1 line', '2,000 lines')
    """
    plural = "" if count == 1 else "s"
    return f"{count:,} {word}{plural}"


def shorten(names: Sequence[str], most: int) -> str:
    """Return the first names of a list, and how many more there are.

    Examples
    --------
    >>> shorten(["a", "b"], 2), shorten("abcde", 2)
    ('a, b', 'a, b and 3 more')
    """
    listed = ", ".join(names[:most])
    if len(names) > most:
        listed += f" and {len(names) - most} more"
    return listed


def people_in_words(count: int) -> str:
    """Return a number of people with its word.

    Examples
    --------
    >>> people_in_words(1), people_in_words(2000)
    ('1 person', '2,000 people')
    """
    return "1 person" if count == 1 else f"{count:,} people"


def safe_line(text: str, most: int = LONGEST_LINE) -> str:
    r"""Return a study's text as one safe line of so many characters.

    It cannot pretend to be flfed's own, nor hide the text after it.

    Examples
    --------
    >>> safe_line("Predict\x1b[2J\nLegal basis: consent")
    'Predict [2J Legal basis: consent'
    >>> safe_line("Predict readmission", 7)
    'Predict … (12 characters more: flfed study show)'
    """
    # Control characters could move the cursor; what is not printable becomes a space.
    hidden = {letter for letter in text if not letter.isprintable()}
    plain = " ".join(text.translate(dict.fromkeys(map(ord, hidden), " ")).split())
    if len(plain) <= most:
        return plain
    return f"{plain[:most]} … ({len(plain) - most} characters more: flfed study show)"


@cache
def sentences(subject: str, table: str) -> Mapping[str, str]:
    """Return the templates of a table in one file of this folder, by their keys.

    Examples
    --------
    >>> sentences("approval", "releases")["update"]
    'Released in each of {rounds} ({size}): {reveals}'
    """
    templates: Mapping[str, str] = _tables(subject)[table]
    return templates


@cache
def _tables(subject: str) -> dict[str, dict[str, str]]:
    return tomllib.loads(Path(__file__).with_name(f"{subject}.toml").read_text("utf-8"))
