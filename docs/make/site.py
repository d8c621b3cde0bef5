"""The site of README and docs: `python -m docs.make.site [FOLDER]` writes it to build/site, without a network.

Sphinx with MyST reads the repository's Markdown, and furo is the theme. MkDocs 1 had its last release in 2024, support
for its theme Material has ended, its own theme overflows a phone, and its search loads the index by a request that no
browser allows from files. Sphinx has releases several times a year, its index is a script, and furo has a dark mode, a
tree on the left and a page for phones. All three are packages with no script or font from elsewhere.

Sphinx wants one folder of pages. They are copied into one, with links as they hold there, and read with SETTINGS.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import sys
import tempfile
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/flfed/flfed/blob/main"
BESIDE = {
    "AGENTS.md": "agents.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
}
PICTURES = (".svg", ".png")
LISTS = ("glossary", "reference/")
"""Pages whose tables list a key or a word in each row, which the search finds by itself."""
AFTER = "\n```sh\n"
"""Line of README, its first block of commands, before which the cards stand."""
_LINK = re.compile(r"(!?\[(?:[^\]\[]|\[[^\]]*\])*\]\()([^)\s#]*)(#[^)\s]*)?(\))")
_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)


def slug(title: str) -> str:
    """Return the anchor of a heading: GitHub's, with one hyphen where it has several.

    Examples
    --------
    >>> slug('[model] with name = "logistic"')
    'model-with-name-logistic'
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


SETTINGS: Mapping[str, Any] = {
    "project": "flfed",
    "html_title": "flfed",
    "extensions": ["myst_parser"],
    "myst_heading_anchors": 6,
    "myst_heading_slug_func": slug,
    "html_theme": "furo",
    "html_static_path": [str(ROOT / "docs" / "static")],
    "html_css_files": ["site.css"],
    "html_search_scorer": str(ROOT / "docs" / "static" / "search.js"),
    "html_copy_source": False,
    "html_show_sphinx": False,
    "html_show_copyright": False,
    "html_use_index": False,
    "html_domain_indices": False,
    # There is no page to edit on a site that is read from files.
    "html_theme_options": {"top_of_page_buttons": []},
    # A setting that is a function is no cause for a warning here: nothing is cached. Some pages skip a level.
    "suppress_warnings": ["config.cache", "myst.header"],
}


def places() -> dict[str, str]:
    """Return the address within the site of each page, by its path in the repository."""
    found = {"README.md": "index.md", **BESIDE}
    for path in sorted(ROOT.glob("docs/**/*.md")):
        within = path.relative_to(ROOT / "docs").as_posix()
        found[f"docs/{within}"] = within
    for path in sorted(ROOT.glob("datasets/*/README.md")):
        found[f"datasets/{path.parent.name}/README.md"] = f"datasets/{path.parent.name}.md"
    for path in sorted(ROOT.glob("docs/tutorials/*.ipynb")):
        found[f"docs/tutorials/{path.name}"] = f"tutorials/{path.stem}.md"
    return found


def write_pages(folder: Path) -> None:
    """Write every page into a folder, and the pictures beside them."""
    there = places()
    below = pages_below(sorted(there.values()))
    for path, address in there.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        if path.endswith(".ipynb"):
            text = page_of(json.loads(text))
        text = with_links(text, path, address, there)
        if address == "index.md":
            text = first_page(text)
        text += tree("Datasets" if address == "index.md" else "", below.get(address, []), text)
        goal = folder / address
        goal.parent.mkdir(parents=True, exist_ok=True)
        goal.write_text(text, encoding="utf-8")
    for picture in ROOT.glob("docs/**/*"):
        if picture.suffix in PICTURES:
            goal = folder / picture.relative_to(ROOT / "docs")
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, goal)


def with_links(markdown: str, path: str, address: str, there: Mapping[str, str]) -> str:
    """Return a page with its links, which hold in the repository, as they hold in the site."""
    parts = _FENCE.split(markdown)
    # Every second part is a block of code, which stays.
    parts[::2] = [_LINK.sub(lambda found: linked(found, path, address, there), part) for part in parts[::2]]
    return "".join(parts)


def linked(found: re.Match[str], path: str, address: str, there: Mapping[str, str]) -> str:
    """Return one link as it is written in the site."""
    start, target, anchor, end = found.groups(default="")
    if not target or re.match(r"[a-z]+:", target):
        return found[0]
    wanted = os.path.normpath(PurePosixPath(path).parent / target)
    if wanted in there:
        goal = there[wanted]
    elif wanted.startswith("docs/") and wanted.endswith(PICTURES):
        goal = wanted.removeprefix("docs/")
    elif (ROOT / wanted).exists():
        return f"{start}{REPOSITORY}/{wanted}{anchor}{end}"
    else:
        return found[0]  # Sphinx reports that it leads nowhere
    return f"{start}{os.path.relpath(goal, PurePosixPath(address).parent)}{anchor}{end}"


def site_settings() -> dict[str, Any]:
    """Return the parts of the site's tree, and the words that mean the same to its search."""
    return tomllib.loads((ROOT / "docs" / "site.toml").read_text(encoding="utf-8"))


def pages_below(addresses: Sequence[str]) -> dict[str, list[str]]:
    """Return the pages that no part of the tree names, by the page that stands above them.

    `a/b` stands below `a`, where that is a page, else below `a/index`; datasets below the first page. Sphinx warns of a
    page that stands nowhere.
    """
    listed = {address for part in site_settings()["part"] for _, address in part["pages"]}
    below: dict[str, list[str]] = {}
    for page in [address.removesuffix(".md") for address in addresses]:
        if page in listed or page == "index":
            continue
        folder = PurePosixPath(page).parent.as_posix()
        nearest = "index.md" if folder == "datasets" else f"{folder}.md"
        above = nearest if nearest in addresses else f"{folder}/index.md"
        below.setdefault(above, []).append(page)
    return below


def tree(caption: str, pages: Sequence[str], text: str = "") -> str:
    """Return a part of the tree, as Sphinx reads it, its pages in the order in which a text links them."""
    if not pages:
        return ""
    order = {page: text.find(f"{PurePosixPath(page).name}.md") for page in pages}
    lines = "\n".join(f"/{page}" for page in sorted(pages, key=lambda page: (order[page], page)))
    option = f":caption: {caption}\n" if caption else ""
    return f"\n```{{toctree}}\n:hidden:\n{option}\n{lines}\n```\n"


def first_page(readme: str) -> str:
    """Return README with a card for each reader, and with the tree."""
    parts = site_settings()["part"]
    head, heading, rest = readme.partition(AFTER)
    if not heading:
        raise ValueError(f"README.md has no line {AFTER.strip()}")
    return "\n".join([head, *cards(parts), heading, rest, *trees(parts)])


def cards(parts: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the cards of the four readers."""
    yield '\n<div class="cards">\n'
    for part in parts:
        if "card" not in part:
            continue
        titles = {address: title for title, address in part["pages"]}
        links = "\n".join(f"- [{titles[address]}]({address}.md)" for address in part["first"])
        yield f'<div class="card">\n\n**{part["title"]}**\n\n{part["card"]}\n\n{links}\n\n</div>\n'
    yield "</div>\n"


def trees(parts: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the tree's parts, as Sphinx reads them."""
    for part in parts:
        lines = "\n".join(f"{title} <{address}>" for title, address in part["pages"])
        yield f"\n```{{toctree}}\n:hidden:\n:caption: {part['title']}\n\n{lines}\n```"


def page_of(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [output_of(output, source) for output in cell["outputs"]]
    return "\n\n".join(part for part in parts if part) + "\n"


def output_of(output: dict[str, Any], source: str) -> str:
    """Return one output of a cell as Markdown: a picture, HTML, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        picture = "".join(data["image/png"]).strip()
        call = html.escape(source.splitlines()[-1])
        return f'<p><img alt="Chart drawn by {call}" src="data:image/png;base64,{picture}"></p>'
    if "text/html" in data:
        # Without blank lines, at which Markdown would end it.
        table = re.sub(r"\n\s*\n", "\n", "".join(data["text/html"]))
        return f'<div class="output">{re.sub(r"<style.*?</style>", "", table, flags=re.DOTALL)}</div>'
    text = "".join(output.get("text") or data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


def adapt_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Let the tab key reach what scrolls sideways, tables and code; give the search page what it reads."""
    if page == "search":
        app.add_js_file("sections.js")
    body = context.get("body", "")
    for place in ("table-wrapper", "output"):
        body = body.replace(f'<div class="{place}', f'<div tabindex="0" class="{place}')
    context["body"] = body.replace("<pre>", '<pre tabindex="0">')
    # A heading without a level is none: the theme leaves it out.
    navigation = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = navigation.replace('role="heading"', 'role="heading" aria-level="2"')


def write_sections(app: Sphinx, environment: BuildEnvironment) -> None:
    """Write what the search reads, as a script, which a browser loads from files too."""
    sections: list[list[str]] = []
    for page in sorted(environment.found_docs):
        sections += sections_of(page, environment.get_doctree(page))
    settings = site_settings()
    titles = {address: title for part in settings["part"] for title, address in part["pages"]}
    constants = {"SAME": settings["same"], "TITLES": titles, "SECTIONS": sections}
    script = "".join(f"const {name} = {json.dumps(value, ensure_ascii=False)};\n" for name, value in constants.items())
    (app.outdir / "_static").mkdir(parents=True, exist_ok=True)
    (app.outdir / "_static" / "sections.js").write_text(script, encoding="utf-8")


def sections_of(page: str, doctree: nodes.document) -> Iterator[list[str]]:
    """Yield page, anchor, heading and text of each section of a page, and of each row of a list of keys or words."""
    for section in doctree.findall(nodes.section):
        heading, *parts = section.children
        anchor = section["ids"][0]
        text = " ".join(part.astext() for part in parts if not isinstance(part, nodes.section | nodes.raw))
        yield [page, anchor, heading.astext(), " ".join(text.split())]
        if not page.startswith(LISTS):
            continue
        for table in [part for part in parts if isinstance(part, nodes.table)]:
            for row in table.findall(nodes.row):
                first, *cells = [cell.astext() for cell in row.children]
                yield [page, anchor, first, " ".join(cells)]


def build(target: Path) -> int:
    """Write the site into a folder.

    Returns
    -------
    int
        1 where Sphinx warns: a link or an anchor leads nowhere, or a page is in no part of the tree.
    """
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="flfed-docs-") as scratch:
        pages = Path(scratch, "pages")
        write_pages(pages)
        # Without a dictionary of settings of its own, which Sphinx would look for in a file.
        app = Sphinx(pages, None, target, Path(scratch, "doctrees"), "html", dict(SETTINGS), status=None, freshenv=True)
        app.connect("env-updated", write_sections)
        app.connect("html-page-context", adapt_page, priority=900)
        app.build()
        return min(app._warncount, 1)


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1] if sys.argv[1:] else ROOT / "build" / "site").resolve()))
