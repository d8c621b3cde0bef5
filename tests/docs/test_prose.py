"""Prose of the pages: what is longer than a reader takes in, and commands that flfed does not have, is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flfed
from docs.make.names import unknown_names
from docs.make.prose import ROOT, median_sentence, pages, passages, too_long

PROTECTION = "| protects against | does not protect against |"
PROTECTING = [
    *("SECURITY.md", "docs/limits.md", "docs/privacy.md", "docs/privacy-utility.md", "docs/secure-sums.md"),
    "docs/security.md",
]
SCREEN = 45
"""Lines of a screen."""


def places(path: Path) -> list[str]:
    found = passages(path)
    return [*too_long(found), *unknown_names(path, found)]


def test_no_page_has_a_passage_that_is_too_long_or_a_command_that_does_not_exist():
    assert [place for path in pages() for place in places(path)] == []


def test_half_of_all_sentences_have_sixteen_words_at_most():
    every = [passage for path in pages() for passage in passages(path)]
    assert median_sentence(every) <= 16


def test_numbers_have_a_leading_zero():
    bare = re.compile(r"(?<![\w.`])\.\d")
    prose = [passage for path in pages() for passage in passages(path) if passage.kind != "code"]
    assert [f"{one.page}:{one.line}" for one in prose if bare.search(one.text)] == []


def test_each_page_on_privacy_and_security_begins_with_its_protection_and_its_limits():
    for page in PROTECTING:
        head = (ROOT / page).read_text(encoding="utf-8").partition("\n## ")[0].splitlines()
        tables = [place for place, line in enumerate(head) if line.startswith("|")]
        named = [place for place, line in enumerate(head) if line.lower() == PROTECTION]
        # No other table stands before it, and at most a paragraph or two.
        assert named and tables[0] == named[0] <= 10, page
        assert len([line for line in head[named[0] :] if line.startswith("| ")]) >= 2, page


def test_five_minutes_in_the_app_are_five_steps_that_are_read_in_five_minutes():
    text = (ROOT / "docs" / "app.md").read_text(encoding="utf-8")
    steps = re.findall(r"^(\d+)\. \*\*", text.partition("## Five minutes\n")[2].partition("\n## ")[0], re.MULTILINE)
    assert steps == ["1", "2", "3", "4", "5"]
    assert text.index("## Five minutes") < 500
    # At 200 words a minute half of the time is left to look.
    assert len(text.partition("## Five minutes\n")[2].partition("\n## ")[0].split()) <= 500


def test_the_version_is_one_everywhere_and_each_version_of_the_changelog_fits_a_screen():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d{2}-\d{2})\)$", changes, re.MULTILINE)
    assert versions[0][0] == flfed.__version__
    assert f"\nversion: {flfed.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert versions == sorted(versions, reverse=True)
    parts = re.split(r"^## ", changes, flags=re.MULTILINE)[1:]
    assert [part.split()[0] for part in parts] == [version for version, _ in versions] + ["Details"]
    assert max(part.count("\n") for part in parts[:-1]) <= SCREEN


LONG = "Word " * 31 + "end. "


@pytest.mark.parametrize(("text", "named"), [
    (LONG * 3, "a paragraph of 96 words"), (f"- {LONG * 2}", "an item of 64 words"),
    (f"| a |\n|---|\n| {LONG * 2} |", "a cell of 64 words"), ("word " * 36, "a sentence of 36 words"),
    ("`flfed study runn wine`", "runn is no command"), ("```sh\n$ flfed no-such\n```", "no-such is no command"),
    ("`site freeze`", "freeze is no command"),
    ("`flfed run export RUN --to folder`", "--to is no option of it"),
    ("```sh\nflfed run export RUN \\\n  --to folder\n```", "--to is no option of it"),
    ("`--out`", "--out is a former option"), ("`[compare] own`", "[compare] has no key own"),
    ("`[compare] draws = 200`", "[compare] has no key draws"),
    ("`[comparison] resamples`", "[comparison] is no table"), ("`worthwhile`", "worthwhile is a former key"),
    ("`[analysis]`", "[analysis] is a former key"),
    ('```toml\n[dataset]\nname = "wine"\nleast-rows = 20\n```', "[dataset] has no key least-rows"),
])  # fmt: skip
def test_each_kind_of_place_is_named_with_its_line(text: str, named: str, tmp_path: Path):
    page = tmp_path / "page.md"
    known = "`flfed study run wine --repeats 10`, `site status`, `--output` and `[compare] minimum-gain = 0.01` exist."
    block = '```toml\n[compare]\nsite-model = "same"\n[somebody.elses]\nkey = 1\n```'
    page.write_text(f"# Page\n\nA short sentence. {known}\n\n{block}\n\n{text}\n")
    found = places(page)
    assert len(found) == 1 and found[0].startswith("page.md:") and named in found[0]
