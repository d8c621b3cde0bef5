"""Errors for people: each is one sentence with advice, and never has a cell's value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

SMALL = 5
"""Counts below this are shown as "fewer than 5" in an error."""


class FlfedError(Exception):
    """Error that a person can act on, shown as one sentence without a trace.

    `exit_code` is that of the command (DESIGN.md "Commands"): 1 failed, 2 wrong use or input, 3 stopped.
    """

    exit_code = 1
    run = ""
    """Id of the run that ended with it, if the store has one."""


class UsageError(FlfedError):
    """Error of wrong use or wrong input: a key, a name, a file or an option.

    The text has only our own settings.

    Examples
    --------
    >>> from flfed import Study, UsageError
    >>> try:
    ...     Study.load("no-such-study")
    ... except UsageError as error:
    ...     print(str(error).partition(".")[0].partition(";")[0])
    study 'no-such-study' is neither shipped nor a file
    """

    exit_code = 2


class RunStopped(FlfedError):
    """Run that its own rules ended early, or did not let begin, such as by a missing quorum or a spent budget.

    Its last good model remains.
    """

    exit_code = 3
    by = ""
    """Interruption, in the words of `interruption`; empty if its own rules ended it."""


def require_extra(module: str, what: str, extra: str) -> None:
    """Refuse to continue without an optional package.

    Parameters
    ----------
    module : str
        Name by which the package is imported.
    what : str
        Beginning of the sentence: the feature that needs it.
    extra : str
        Extra of flfed that installs it.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    if find_spec(module) is None:
        raise UsageError(f"{what} needs an extra: pip install 'flfed[{extra}]'")


class Terminated(KeyboardInterrupt):
    """SIGTERM: a request of a person or the system that a run stops."""


def interruption(error: KeyboardInterrupt) -> str:
    """Return the interruption of a run, in words.

    Examples
    --------
    >>> interruption(KeyboardInterrupt()), interruption(Terminated())
    ('interrupted from the keyboard', 'stopped by SIGTERM')
    """
    if isinstance(error, Terminated):
        return "stopped by SIGTERM"
    return "interrupted from the keyboard"


class TableError(FlfedError):
    """Error of a table that breaks a rule: column, fixed phrase and count, never a cell.

    Parameters
    ----------
    column : str
        Name of the column, from the schema or the mapping.
    rule : str
        A fixed phrase such as "is not a number". Never text that came from the table.
    bad : int
        Number of rows that break the rule; a small one is shown as "fewer than 5".

    Examples
    --------
    >>> print(TableError("age", "is not a number", bad=12))
    column 'age' is not a number in 12 rows
    >>> print(TableError("age", "is not a number", bad=1))
    column 'age' is not a number in fewer than 5 rows
    """

    exit_code = 2

    def __init__(self, column: str, rule: str, bad: int | None = None) -> None:
        self.column = column
        self.rule = rule
        self.bad = bad
        super().__init__(column, rule, bad)

    def __str__(self) -> str:
        """Return column, rule and count in one phrase."""
        return self.describe(SMALL)

    def describe(self, least: int) -> str:
        """Return the phrase, with counts below `least` as "fewer than".

        Examples
        --------
        >>> TableError("age", "is not a number", bad=7).describe(10)
        "column 'age' is not a number in fewer than 10 rows"
        """
        where = "" if self.bad is None else f" in {count_in_words(self.bad, least)} rows"
        return f"column {self.column!r} {self.rule}{where}"


def count_in_words(count: int, least: int = SMALL) -> str:
    """Return a count as text; one that could identify a person becomes "fewer than 5".

    Examples
    --------
    >>> count_in_words(3), count_in_words(0), count_in_words(40)
    ('fewer than 5', '0', '40')
    """
    return f"fewer than {least}" if 0 < count < least else str(count)


@contextmanager
def collected(errors: list[FlfedError]) -> Iterator[None]:
    """Add an error of wrong input to others, so that a person learns of all at once."""
    try:
        yield
    except (UsageError, TableError) as error:
        errors.append(error)


def raise_all(errors: Sequence[FlfedError]) -> None:
    """Raise errors as one, numbered; one alone as it is."""
    if errors[1:]:
        raise UsageError("; ".join(f"({number}) {error}" for number, error in enumerate(errors, start=1)))
    for error in errors:
        raise error


def unknown(kind: str, name: str, choices: Sequence[str]) -> UsageError:
    """Return the error for an unknown name, with the most similar one and all known ones."""
    return UsageError(f"{kind} {name!r} is not known{nearest(name, tuple(choices))} Known: {', '.join(choices)}")


def nearest(word: str, allowed: list[str] | tuple[str, ...]) -> str:
    """Return `; did you mean 'x'?` for the closest allowed word, or a full stop.

    Examples
    --------
    >>> nearest("fedvag", ["fedavg", "fedprox"])
    "; did you mean 'fedavg'?"
    """
    # Imported late: only a failing command needs it.
    import difflib

    close = difflib.get_close_matches(word, allowed, n=1)
    return f"; did you mean {close[0]!r}?" if close else "."
