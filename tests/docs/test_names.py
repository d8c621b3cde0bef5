"""Names in the pages: commands, options and keys that flfed does not have are found; the version is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flfed
from docs.make.names import ROOT, pages, unknown_names


def test_no_page_has_a_command_an_option_or_a_key_that_does_not_exist():
    found = pages()
    assert len(found) > 40
    assert [place for path in found for place in unknown_names(path)] == []


def test_the_version_is_one_everywhere():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\d+\.\d+\.\d+) \(\d{4}-\d{2}-\d{2}\)$", changes, re.MULTILINE)
    assert versions[0] == flfed.__version__
    assert f"\nversion: {flfed.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize(("text", "named"), [
    ("`flfed study runn wine`", "runn is no command"), ("```sh\n$ flfed no-such\n```", "no-such is no command"),
    ("`site freeze`", "freeze is no command"),
    ("`flfed run export RUN --to folder`", "--to is no option of it"),
    ("```sh\nflfed run export RUN \\\n  --to folder\n```", "--to is no option of it"),
    ("`[compare] own`", "[compare] has no key own"),
    ("`[compare] draws = 200`", "[compare] has no key draws"),
    ("`[comparison] resamples`", "[comparison] is no table"),
    ('```toml\n[dataset]\nname = "wine"\nleast-rows = 20\n```', "[dataset] has no key least-rows"),
])  # fmt: skip
def test_each_kind_of_name_is_found_with_its_line(text: str, named: str, tmp_path: Path):
    page = tmp_path / "page.md"
    known = "`flfed study run wine --repeats 10`, `site status`, `--output` and `[compare] minimum-gain = 0.01` exist."
    block = '```toml\n[compare]\nsite-model = "same"\n[somebody.elses]\nkey = 1\n```'
    page.write_text(f"# Page\n\nA short sentence. {known}\n\n{block}\n\n{text}\n")
    found = [*unknown_names(page)]
    assert len(found) == 1 and found[0].startswith("page.md:") and named in found[0]
