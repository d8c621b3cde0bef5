"""The site of README and docs: `make site` builds it without a warning, and no link or anchor in it leads nowhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.make.site import linked, output_of, places, spaced

ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    # Not --quiet: with it MkDocs counts no warnings, and --strict refuses nothing.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


class Page(HTMLParser):
    """Links and anchors of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given["id"]} if "id" in given else set()
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.loaded += [given[name] for name in ("src", "href") if name in given and tag in ("script", "link", "img")]


def lost(site: Path) -> list[str]:
    """Return the links of a site that lead nowhere within it, and what its pages load from elsewhere."""
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    found = []
    for path, page in pages.items():
        found += [f"{path.name} loads {link}" for link in page.loaded if re.match(r"(https?:)?//", link)]
        for link in [*page.links, *(link for link in page.loaded if not link.startswith(("http", "data:", "//")))]:
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = unquote(link).partition("#")
            goal = (path.parent / file).resolve() if file else path
            if not goal.exists() or (goal in pages and anchor not in pages[goal].anchors):
                found.append(f"{path.relative_to(site)}: {link}")
    return found


@pytest.mark.servers
def test_the_site_is_built_without_a_warning_and_every_link_and_anchor_leads_somewhere(tmp_path: Path):
    done = build(ROOT, tmp_path / "site")
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
    pages = sorted(path.name for path in (tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40 and {"index.html", "policy.html", "consortium.html", "heart-disease.html"} <= {*pages}
    assert lost(tmp_path / "site") == []
    index = tmp_path / "site" / "index.html"
    index.write_text(index.read_text(encoding="utf-8").replace("own-tables.html", "gone.html"), encoding="utf-8")
    assert [place for place in lost(tmp_path / "site") if place.startswith("index.html: gone.html")] != []


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.parametrize("link", ["limits.md#no-such-anchor", "no-such-page.md"])
def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path, link: str):
    ignored = shutil.ignore_patterns("__pycache__", "*.csv", "*.parquet")
    for name in ("docs", "datasets", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for path in (ROOT / "mkdocs.yml", *ROOT.glob("*.md")):
        shutil.copy(path, tmp_path)
    page = tmp_path / "docs" / "limits.md"
    page.write_text(f"{page.read_text(encoding='utf-8')}\n[lost]({link})\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    told = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert (done.returncode, len(told)) == (1, 1) and f"'{link}'" in told[0]


def test_links_hold_in_the_repository_and_in_the_site():
    there = places()

    def turned(text: str, path: str, address: str) -> str:
        found = re.fullmatch(r"(!?\[.*?\]\()([^)\s#]*)(#[^)\s]*)?(\))", text)
        assert found is not None
        return linked(found, path, address, there)

    assert turned("[a](docs/app.md#x)", "README.md", "index.md") == "[a](app.md#x)"
    assert turned("[a](../README.md)", "docs/app.md", "app.md") == "[a](index.md)"
    notebook = "docs/tutorials/first-run.ipynb"
    assert turned(f"[a]({notebook})", "README.md", "index.md") == "[a](tutorials/first-run.md)"
    assert turned("[a](../reference/study.md)", notebook, "tutorials/first-run.md") == "[a](../reference/study.md)"
    assert turned("[a](../setup.py)", "docs/app.md", "app.md").endswith("/blob/main/setup.py)")
    assert turned("[a](https://flower.ai)", "README.md", "index.md") == "[a](https://flower.ai)"


def test_markdown_and_outputs_are_as_the_site_needs_them():
    assert spaced("words\n- one\n- two\n") == "words\n\n- one\n- two\n"
    assert spaced("<!-- bench: x -->\n| a |\n") == "<!-- bench: x -->\n\n| a |\n"
    assert output_of({"output_type": "stream", "text": "a\nb\n"}) == "```text\na\nb\n```"
    assert "<style" not in output_of({"data": {"text/html": "<style>x</style><table></table>"}})
