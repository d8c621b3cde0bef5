"""Counters of words: private names in code, private nouns in texts, long sentences of pages.

`python -m tests.house words` prints them; `tests/test_budgets.py` holds them as a ratchet. Definitions:

- **bound names**: names that `flfed/` assigns or gives to a function or class, of which one word is one of `PRIVATE`;
  parameters are not counted.
- **texts**: docstrings, comments and texts of `flfed/`, its TOML files, and the pages that people write.
- **lines with text**: lines of code that hold a text of four words or more.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from docs.make.prose import longest_sentence, median_sentence, pages, passages
from tests.house import House

PRIVATE = {"found", "said", "told", "held", "kept", "known", "given", "asked"}
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
WHAT = re.compile(r"\bwhat (?:is|was|leaves|stays)\b", re.IGNORECASE)
TELL = re.compile(r"\b(?:told|tells?|telling)\b", re.IGNORECASE)
FOUR_WORDS = re.compile(r"[A-Za-z']+(?:\W+[A-Za-z']+){3}")


def bound_names(house: House) -> list[str]:
    """Return the private names that are bound, with module and line."""
    places = []
    for name, module in house.modules.items():
        for node in module.nodes:
            bound = ""
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound = node.id
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                bound = node.name
            if PRIVATE & {word.lower() for word in WORD.findall(bound)}:
                places.append(f"{name}:{getattr(node, 'lineno', 0)} {bound}")
    return places


def texts(house: House, root: Path) -> Iterator[str]:
    """Yield the texts of modules, of TOML files and of pages."""
    for module in house.modules.values():
        for token in module.all_tokens:
            if token.type in (tokenize.STRING, tokenize.COMMENT):
                yield token.string
    for path in sorted((root / "flfed").rglob("*.toml")):
        yield path.read_text(encoding="utf-8")
    for path in pages():
        yield path.read_text(encoding="utf-8")


def lines_with_text(house: House) -> int:
    """Return the lines of code that hold a text of four words or more."""
    count = 0
    for module in house.modules.values():
        lines = set()
        for token in module.tokens:
            if token.type == tokenize.STRING and FOUR_WORDS.search(token.string):
                lines.update(range(token.start[0], token.end[0] + 1))
        count += len(lines)
    return count


def counters(house: House, root: Path) -> dict[str, tuple[float, float, list[object]]]:
    """Return each counter's figure, what it is to be at most, and its places."""
    names = bound_names(house)
    every = list(texts(house, root))
    sentences = [passage for path in pages() for passage in passages(path)]
    return {
        "private names that are bound": (len(names), 200, [*names]),
        "'what is', 'what leaves' and the like": (sum(len(WHAT.findall(text)) for text in every), 150, []),
        "told, tell, tells": (sum(len(TELL.findall(text)) for text in every), 100, []),
        "median sentence of pages, words": (median_sentence(sentences), 16, []),
        "longest sentence of pages, words": (longest_sentence(sentences), 35, []),
        "lines of code with text": (lines_with_text(house), 2_000, []),
        "lines of code": (house.code_lines(), 55_000, []),
    }
