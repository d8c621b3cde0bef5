"""Prose of the pages: what is longer than a reader takes in, and commands that flfed does not have, is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.make.prose import median_sentence, pages, passages, too_long, unknown_commands


def places(path: Path) -> list[str]:
    found = passages(path)
    return [*too_long(found), *unknown_commands(found)]


def test_no_page_has_a_passage_that_is_too_long_or_a_command_that_does_not_exist():
    assert [place for path in pages() for place in places(path)] == []


def test_half_of_all_sentences_have_sixteen_words_at_most():
    every = [passage for path in pages() for passage in passages(path)]
    assert median_sentence(every) <= 16


LONG = "Word " * 31 + "end. "


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (LONG * 3, "a paragraph of 96 words"),
        (f"- {LONG * 2}", "an item of 64 words"),
        (f"| a |\n|---|\n| {LONG * 2} |", "a cell of 64 words"),
        ("word " * 36, "a sentence of 36 words"),
        ("`flfed study runn wine`", "runn is no command"),
        ("```sh\n$ flfed no-such\n```", "no-such is no command"),
    ],
)
def test_each_kind_of_place_is_named_with_its_line(text: str, named: str, tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\nA short sentence. `flfed study run wine` is a command.\n\n{text}\n")
    found = places(page)
    assert len(found) == 1 and found[0].startswith("page.md:") and named in found[0]
