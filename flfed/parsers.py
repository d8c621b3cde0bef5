"""Parsers of other packages, for files from elsewhere.

Any error of a parser becomes one sentence, and no code of flfed runs while errors are caught.
"""

from __future__ import annotations

import json
import lzma
import re
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flfed.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

DEEPEST = 32
"""Most levels of tables and lists in a file."""
LONGEST = 4_000_000
"""Most characters of a parsed text: about a second, or a schema with a hundred thousand values."""
LONGEST_REASON = 200
_PART = r"(?:[A-Za-z0-9_-]+|\"[^\"\n]*\"|'[^'\n]*')[ \t]*\.[ \t]*"
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-])(?:{_PART}){{{DEEPEST}}}")
"""Dotted key of many parts: the time of tomllib grows with the square of their number."""
LOWEST = -(2**63)
HIGHEST = 2**64 - 1
"""Whole numbers of 64 bits, signed or unsigned; Flower's node ids are unsigned."""
DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError,
    TypeError, lzma.LZMAError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Errors of parsers of large formats for damaged bytes, and for an XML entity before it is expanded."""
_HALF = re.compile("[\ud800-\udfff]")
"""Half of a UTF-16 character, which JSON can write and no screen or file accepts."""
TOO_DEEP = f"it is nested more than {DEEPEST} levels deep"
TOO_LARGE = "a whole number in it is larger than 64 bits hold"
TOO_LONG = f"it has more than {LONGEST:,} characters"


@contextmanager
def foreign_parser(refusal: str, *errors: type[Exception], reason: str = "") -> Iterator[None]:
    """Turn any error of a parser into one sentence.

    Only the call of the parser belongs in the block: an error of flfed would be hidden.

    Parameters
    ----------
    refusal : str
        The sentence, to which the reason is added if the error has one.
    errors : exception types
        Errors of the parser, beside `RecursionError`, `MemoryError` and `ValueError`.
    reason : str
        Reason for any other of these errors.

    Raises
    ------
    UsageError
        Without the parser's error as its cause, which may quote the text.

    Examples
    --------
    >>> with foreign_parser("facts.json: is not JSON"):
    ...     json.loads("[" * 100_000)
    Traceback (most recent call last):
    flfed.errors.UsageError: facts.json: is not JSON: it is nested more than 32 levels deep
    """
    own: tuple[type[Exception], ...] = (ValueError, *errors)
    try:
        yield
    except tomllib.TOMLDecodeError as error:
        # The error may quote a key, which may be as long as the text.
        raise UsageError(f"{refusal}: {str(error)[:LONGEST_REASON]}") from None
    except RecursionError:
        raise UsageError(f"{refusal}: {TOO_DEEP}") from None
    except MemoryError:
        raise UsageError(f"{refusal}: it needs more memory than there is") from None
    except own:
        text = f"{refusal}: {reason}" if reason else refusal
        raise UsageError(text) from None


def parse_toml(content: str | bytes, where: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Parameters
    ----------
    content : str or bytes
    where : str
        Beginning of the sentence: "the study", or a path and a colon.

    Raises
    ------
    UsageError
        If it is not TOML, or is too long or too deep.
    """
    refusal = f"{where} is not valid TOML"
    text = decode_text(content, refusal)
    if _LONG_KEY.search(text):
        raise UsageError(f"{refusal}: {TOO_DEEP}")
    # Python refuses a number of thousands of digits, and tomllib passes that on.
    with foreign_parser(refusal, reason=TOO_LARGE):
        tables = tomllib.loads(text)
    _check_values(tables, refusal)
    return tables


def parse_json(content: str | bytes, where: str, *, longest: int = LONGEST) -> Any:
    """Return the value of a JSON text.

    Parameters
    ----------
    content : str or bytes
    where : str
        Beginning of the sentence: a path and a colon.
    longest : int
        Most characters.

    Raises
    ------
    UsageError
        If it is not JSON, or is too long or too deep.
    """
    refusal = f"{where} is not valid JSON"
    text = decode_text(content, refusal, longest=longest)
    with foreign_parser(refusal):
        document = json.loads(text)
    _check_values(document, refusal)
    return document


def parse_tensors(content: bytes, where: str) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file.

    Parameters
    ----------
    content : bytes
    where : str
        Beginning of the sentence: a path and a colon.

    Raises
    ------
    UsageError
        If it is none, or has a kind of number that NumPy lacks.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with foreign_parser(f"{where} cannot be read as safetensors", SafetensorError, KeyError, TypeError):
        arrays: dict[str, np.ndarray] = load(content)
    return arrays


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8.

    Raises
    ------
    UsageError
        If it cannot be opened, is no such text, or is too long.
    """
    try:
        with (
            foreign_parser(f"{path}: is not a text file in UTF-8; save it as UTF-8"),
            path.open(encoding="utf-8") as file,
        ):
            # One character more than allowed is read, also from an endless file.
            text = file.read(LONGEST + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be opened ({error.strerror})") from None
    if len(text) > LONGEST:
        raise UsageError(f"{path}: {TOO_LONG}")
    return text


def decode_text(content: str | bytes, refusal: str, *, longest: int = LONGEST) -> str:
    """Return a text in UTF-8, or refuse one that is too long to parse.

    Raises
    ------
    UsageError
        The `refusal`, with the reason.
    """
    if len(content) > longest:
        raise UsageError(f"{refusal}: it has more than {longest:,} characters")
    if isinstance(content, str):
        return content
    with foreign_parser(refusal, reason="it is not in UTF-8"):
        text: str = content.decode("utf-8")
    return text


def _check_values(document: Any, refusal: str) -> None:
    """Refuse too many levels, too large numbers, and halves of characters."""
    level = [document]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one)
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
            elif isinstance(one, int) and not LOWEST <= one <= HIGHEST:
                raise UsageError(f"{refusal}: {TOO_LARGE}")
            elif isinstance(one, str) and _HALF.search(one):
                raise UsageError(f"{refusal}: a text in it holds half a character")
        if not below:
            return
        level = below
    raise UsageError(f"{refusal}: {TOO_DEEP}")
