"""Prose of the pages: passages and sentences that are too long.

`python -m docs [PAGE ...]` prints each such place, and names that flfed does not have (`docs.make.names`), and ends
with 1 where there is one. A page is read as Markdown, so that code, links and tables are distinguished from sentences.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
MOST_WORDS = {"paragraph": 90, "item": 60, "cell": 60}
"""Words of a paragraph, of an item of a list and of a cell of a table at most."""
LONGEST_SENTENCE = 35
END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(*`A-Z0-9\[])")
KINDS = {"paragraph_open": "paragraph", "list_item_open": "item", "th_open": "cell", "td_open": "cell"}


@dataclass(frozen=True)
class Passage:
    """Text of a page.

    Attributes
    ----------
    page : str
    line : int
    kind : {"paragraph", "item", "cell", "heading", "code"}
    text : str
        Without marks; a piece of code is one word.
    """

    page: str
    line: int
    kind: str
    text: str

    @property
    def words(self) -> int:
        """Number of its words."""
        return len(self.text.split())

    def sentences(self) -> list[str]:
        """Return its sentences."""
        return [sentence for sentence in END_OF_SENTENCE.split(self.text) if sentence.strip()]


def pages() -> list[Path]:
    """Return the pages that people write and read; references are made of code."""
    names = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
    found = [ROOT / name for name in names]
    found += sorted(ROOT.glob("datasets/*/README.md"))
    for path in sorted((ROOT / "docs").rglob("*.md")):
        if "reference" not in path.parts:
            found.append(path)
    return found


def name_of(path: Path) -> str:
    """Return a page's path in the repository, or its name where it stands elsewhere."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def passages(path: Path) -> list[Passage]:
    """Return the passages of a page in their order."""
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
    page = name_of(path)
    found = []
    within: list[str] = []
    line = 0
    for token in tokens:
        if token.map is not None:
            line = token.map[0] + 1
        if token.type == "fence":
            found.append(Passage(page, line, "code", token.content))
        elif token.type == "inline":
            found.append(Passage(page, line, _kind(within), _plain(token)))
            for child in token.children or ():
                if child.type == "code_inline":
                    found.append(Passage(page, line, "code", child.content))
        elif token.nesting == 1:
            within.append(token.type)
        elif token.nesting == -1:
            within.pop()
    return found


def _kind(within: Sequence[str]) -> str:
    """Return the kind of a passage, by the elements around it."""
    if "list_item_open" in within:
        return "item"
    return KINDS.get(within[-1], "heading")


def _plain(token: Token) -> str:
    """Return a passage's text; a piece of code is one word."""
    parts = []
    for child in token.children or ():
        if child.type == "code_inline":
            parts.append("`" + child.content.replace(" ", "_") + "`")
        elif child.type in ("text", "softbreak", "hardbreak"):
            parts.append(child.content or " ")
    return "".join(parts)


def too_long(found: Sequence[Passage]) -> Iterator[str]:
    """Yield a line for each passage and each sentence that is too long."""
    for passage in found:
        where = f"{passage.page}:{passage.line}"
        most = MOST_WORDS.get(passage.kind)
        if most is None:
            continue
        if passage.words > most:
            article = "an" if passage.kind == "item" else "a"
            yield f"{where} {article} {passage.kind} of {passage.words} words (at most {most})"
        for sentence in passage.sentences():
            length = len(sentence.split())
            if length > LONGEST_SENTENCE:
                yield f"{where} a sentence of {length} words (at most {LONGEST_SENTENCE}): {sentence[:60]}…"


def sentence_lengths(found: Sequence[Passage], kinds: Collection[str]) -> list[int]:
    """Return the words of each sentence of passages of some kinds."""
    lengths = []
    for passage in found:
        if passage.kind in kinds:
            lengths += [len(sentence.split()) for sentence in passage.sentences()]
    return lengths


def median_sentence(found: Sequence[Passage]) -> float:
    """Return the median of the words of all sentences of paragraphs and items."""
    return median(sentence_lengths(found, ("paragraph", "item")) or [0])


def longest_sentence(found: Sequence[Passage]) -> int:
    """Return the most words of a sentence of a paragraph, an item or a cell."""
    return max(sentence_lengths(found, MOST_WORDS), default=0)
