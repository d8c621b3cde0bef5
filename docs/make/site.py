"""Hook of MkDocs: pages of the repository that stand outside of docs/, notebooks as pages, links between them all."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/flfed/flfed/blob/main"
BESIDE = {
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
}
_LINK = re.compile(r"(!?\[(?:[^\]\[]|\[[^\]]*\])*\]\()([^)\s#]*)(#[^)\s]*)?(\))")
_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)


def places() -> dict[str, str]:
    """Return the address within the site of each page that stands elsewhere, by its path in the repository."""
    found = {"README.md": "index.md", **BESIDE}
    found |= {f"datasets/{path.parent.name}/README.md": f"datasets/{path.parent.name}.md"
              for path in ROOT.glob("datasets/*/README.md")}  # fmt: skip
    return found | {f"docs/tutorials/{path.name}": f"tutorials/{path.stem}.md"
                    for path in ROOT.glob("docs/tutorials/*.ipynb")}  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand elsewhere."""
    for path, address in places().items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(
            File.generated(config, address, content=page_of(json.loads(text)) if path.endswith(".ipynb") else text)
        )
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn a page's links, as they hold in the repository, into the site's; and GitHub's Markdown into Python's."""
    there = places()
    address = page.file.src_uri
    path = {address: path for path, address in there.items()}.get(address, f"docs/{address}")
    parts = _FENCE.split(markdown)
    # Every second part is a block of code, which stays.
    parts[::2] = [spaced(_LINK.sub(lambda found: linked(found, path, address, there), part)) for part in parts[::2]]
    return "".join(parts)


def linked(found: re.Match[str], path: str, address: str, there: dict[str, str]) -> str:
    """Return one link as it is written in the site."""
    start, target, anchor, end = found.groups(default="")
    if not target or re.match(r"[a-z]+:", target):
        return found[0]
    wanted = os.path.normpath(PurePosixPath(path).parent / target)
    if wanted in there:
        goal = there[wanted]
    elif wanted.startswith("docs/"):
        goal = wanted.removeprefix("docs/")
    elif (ROOT / wanted).exists():
        return f"{start}{REPOSITORY}/{wanted}{anchor}{end}"
    else:
        return found[0]  # MkDocs says that it leads nowhere
    return f"{start}{os.path.relpath(goal, PurePosixPath(address).parent)}{anchor}{end}"


def spaced(text: str) -> str:
    """Return Markdown with a blank line before each list and after each comment, which Python's needs."""
    text = re.sub(r"(-->)\n(?=\S)", r"\1\n\n", text)
    text = re.sub(r"(?<=\S)\n(?=<!-- end)", "\n\n", text)
    return re.sub(r"(?m)^((?![ \t]*(?:[-*]|\d+\.) |[ \t]|\|).+)\n(?=(?:[-*]|\d+\.) )", r"\1\n\n", text)


def page_of(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [output_of(one) for one in cell["outputs"]]
    return "\n\n".join(part for part in parts if part) + "\n"


def output_of(output: dict[str, Any]) -> str:
    """Return one output of a cell as Markdown: a picture, HTML, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![A chart](data:image/png;base64,{''.join(data['image/png']).strip()})"
    if "text/html" in data:
        # Without blank lines, at which Markdown would end it.
        html = re.sub(r"\n\s*\n", "\n", "".join(data["text/html"]))
        return f'<div class="output">{re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)}</div>'
    text = "".join(output.get("text") or data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""
