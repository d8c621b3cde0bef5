"""The site of README and docs: built without a network, read on every screen, searched from files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

import flfed
from docs.make.site import linked, output_of, places
from tests.browser import CHROMIUM

ROOT = Path(__file__).resolve().parents[2]


FORMER = {
    *(f"{name}.html" for name in ("app", "run-store", "messages", "architecture", "changelog")),
    "case-studies/index.html", "case-studies/heart-disease.html", "datasets/loan-default.html", "reference/python.html",
}  # fmt: skip
"""Some addresses of pages as they were before Sphinx built them."""


def build(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a copy of the repository, in a namespace without a network where this machine allows one."""
    command = [sys.executable, "-m", "docs.make.site", str(target)]
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0:
        command = ["unshare", "-rn", *command]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


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
            file, _, anchor = unquote(re.sub(r"\?[^#]*", "", link)).partition("#")
            goal = (path.parent / file).resolve() if file else path
            if not goal.exists() or (goal in pages and anchor not in pages[goal].anchors):
                found.append(f"{path.relative_to(site)}: {link}")
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The site, and what its build printed, once for all tests of this file that one worker runs."""
    target = tmp_path_factory.mktemp("docs") / "site"
    return target, build(ROOT, target)


@pytest.mark.proof
@pytest.mark.servers
def test_the_site_is_built_without_network_or_warning_and_every_link_and_anchor_leads_somewhere(site, tmp_path: Path):
    built, done = site
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pages = {path.relative_to(built).as_posix() for path in built.rglob("*.html")}
    assert {"index.html", "reference/policy.html", "tutorials/consortium.html", *FORMER} <= pages
    assert {f"reference/python/{name}.html" for name in flfed.__all__} <= pages
    assert lost(built) == []
    shutil.copytree(built, tmp_path / "site")
    index = tmp_path / "site" / "index.html"
    index.write_text(index.read_text(encoding="utf-8").replace("own-tables.html", "gone.html"), encoding="utf-8")
    assert [place for place in lost(tmp_path / "site") if place.startswith("index.html: gone.html")] != []


@pytest.mark.proof
@pytest.mark.servers
def test_a_second_build_gives_the_same_bytes(site, tmp_path: Path):
    first, _ = site
    build(ROOT, tmp_path / "site")
    files = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert len(files) > 120
    assert [name for name in files if (first / name).read_bytes() != (tmp_path / "site" / name).read_bytes()] == []


@pytest.mark.proof
@pytest.mark.servers
@pytest.mark.parametrize("link", ["protection.md#no-such-anchor", "no-such-page.md"])
def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path, link: str):
    ignored = shutil.ignore_patterns("__pycache__", "*.csv", "*.parquet")
    for name in ("docs", "datasets", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("tests", "benchmarks"):  # pages name files of them
        (tmp_path / name).symlink_to(ROOT / name)
    for path in ROOT.glob("*.md"):
        shutil.copy(path, tmp_path)
    page = tmp_path / "docs" / "protection.md"
    page.write_text(f"{page.read_text(encoding='utf-8')}\n[lost]({link})\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert (done.returncode, len(warnings)) == (1, 1) and "protection.md" in warnings[0]


def faults_of(browser: Any, addresses: Sequence[str], scheme: str, width: int) -> list[str]:
    """Return what axe calls serious or critical on some pages, and the pages that are wider than the window."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    faults = []
    for address in addresses:
        page.goto(address)
        where = f"{address.rpartition('/site/')[2]} {width} {scheme}"
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            faults.append(f"{where}: overflow")
        for found in Axe().run(page).response["violations"]:
            if found["impact"] in ("serious", "critical"):
                faults.append(f"{where}: {found['id']}: {found['nodes'][0]['html'][:150]}")
    context.close()
    return faults


@pytest.fixture
def browser() -> Iterator[Any]:
    """A browser for one test: the driver of Playwright has died of the pages of two."""
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM))
        yield opened
        opened.close()


RESULTS = "search.html?q=secure+aggregation"
LOOKS = [(width, scheme) for scheme in ("light", "dark") for width in (390, 768, 1440)]


@pytest.mark.proof
@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not here")
def test_a_sample_of_pages_fits_every_width_and_has_no_serious_fault(site, browser, tmp_path: Path):
    built, _ = site
    sample = ["index.html", "reference/schema.html", "reference/python/Site.html", RESULTS]
    for width, scheme in ((390, "dark"), (768, "dark"), (1440, "light")):
        assert faults_of(browser, [f"{built.as_uri()}/{name}" for name in sample], scheme, width) == []
    page = (built / "reference" / "python" / "Codec.html").read_text(encoding="utf-8")
    faults = '<img src="x.png"><p style="color: #ccc; background: #fff; width: 3000px">pale and wide</p></article>'
    planted = tmp_path / "planted.html"
    planted.write_text(page.replace("</article>", faults), encoding="utf-8")
    found = " ".join(faults_of(browser, [planted.as_uri()], "light", 390))
    assert "overflow" in found and "image-alt" in found and "color-contrast" in found


@pytest.mark.proof
@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_page_fits_every_width_and_has_no_serious_fault(site, browser, width: int, scheme: str):
    built, _ = site
    addresses = [path.as_uri() for path in sorted(built.rglob("*.html"))] + [f"{built.as_uri()}/{RESULTS}"]
    assert len(addresses) > 100 and faults_of(browser, addresses, scheme, width) == []


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder over http."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def search(page: Any, base: str, words: str) -> list[str]:
    """Return the first three pages that the site's search gives."""
    page.goto(f"{base}/search.html?{urlencode({'q': words})}")
    page.wait_for_function("/found|did not match/.test(document.querySelector('#search-results p')?.textContent)")
    links = page.evaluate("[...document.querySelectorAll('#search-results li > a')].map(link => link.href)")
    pages = [re.sub(r"[?#].*", "", link).removeprefix(f"{base}/") for link in links]
    return list(dict.fromkeys(pages))[:3]


def searched(browser: Any, built: Path, words: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the words whose first three pages differ between files and http, and those without the right page."""
    page = browser.new_page()
    page.set_default_timeout(20_000)
    results = {}
    with served(built) as address:
        for text in words:
            results[text] = (search(page, built.as_uri(), text), search(page, address, text))
    page.close()
    differ = [text for text, (files, http) in results.items() if files != http or not files]
    return differ, [text for text, (files, _) in results.items() if words[text] not in files]


@pytest.mark.proof
@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not here")
def test_the_search_finds_pages_from_files_as_over_http(site, browser):
    few = {
        "glossary": "glossary.html", "secure aggregation": "threat-model.html", "run store": "run-store.html",
        "HoldoutByTime": "reference/python/HoldoutByTime.html", "heart disease": "case-studies/heart-disease.html",
    }  # fmt: skip
    assert searched(browser, site[0], few) == ([], [])
    page = browser.new_page()
    search(page, site[0].as_uri(), "smallest count")
    assert "released" in page.inner_text("#search-results")  # an excerpt, also from files
    assert search(page, site[0].as_uri(), "qqqxyzzy") == []
    page.close()


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


def test_outputs_are_as_the_site_needs_them():
    assert output_of({"output_type": "stream", "text": "a\nb\n"}, "") == "```text\na\nb\n```"
    assert "<style" not in output_of({"data": {"text/html": "<style>x</style><table></table>"}}, "")
    assert 'alt="Chart drawn by plot(&quot;a&quot;)"' in output_of({"data": {"image/png": "x"}}, 'import x\nplot("a")')
