"""A document of a run as tests read it: its sections, tables and marks, and all that it would load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "input", "hr", "base"}
LOADING = {"src", "href", "xlink:href", "data", "action", "formaction", "poster", "srcset", "background", "ping"}
"""Attributes by which a browser fetches something, or is sent somewhere."""

SAID = {"aria-label", "data-label"}
"""Attributes that are words for a reader, whatever stands in them."""


@dataclass
class Node:
    """An element, or the text in it where `tag` is ""."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> list[Node]:
        """Return the elements of a kind in it, in order."""
        return [node for node in self.every() if node.tag == tag]

    def every(self) -> Iterator[Node]:
        """Yield each element in it, and itself."""
        yield self
        for child in self.children:
            yield from child.every()

    def words(self) -> str:
        """Return its text, blanks as they are on a screen."""
        return " ".join("".join(node.text for node in self.every()).replace("\u00a0", " ").split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("document")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, (self.open[-1].tag, tag)
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(Node("", text=data))


def read(text: str) -> Node:
    """Return a document's elements; each must end where it should."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root]
    return reader.root


def section(document: Node, title: str) -> Node:
    """Return the section whose title begins so."""
    found = [node for node in document.all("section") if node.all("h2")[0].words().startswith(title)]
    assert len(found) == 1, [node.all("h2")[0].words() for node in document.all("section")]
    return found[0]


def titles(document: Node) -> list[str]:
    """Return the titles of all sections."""
    return [node.all("h2")[0].words() for node in document.all("section")]


def table(node: Node) -> list[dict[str, str]]:
    """Return the lines of a table, by its headings."""
    names = [cell.words() for cell in node.all("thead")[0].all("th")]
    lines = [[cell.words() for cell in row.all("td")] for row in node.all("tbody")[0].all("tr")]
    assert all(len(line) == len(names) for line in lines)
    return [dict(zip(names, line, strict=True)) for line in lines]


def tables(node: Node) -> list[list[dict[str, str]]]:
    """Return all tables in it."""
    return [table(found) for found in node.all("table")]


def marks(chart: Node, kind: str) -> list[Node]:
    """Return the marks of a kind, such as "line", of a chart."""
    groups = [node for node in chart.all("g") if node.attributes.get("class", "").startswith(f"mark-{kind} role-mark")]
    return [mark for group in groups for mark in group.children if mark.tag]


def moved_by(node: Node) -> tuple[float, float]:
    """Return how far right and down a mark is moved."""
    found = re.match(r"translate\((-?[\d.]+),(-?[\d.]+)\)", node.attributes.get("transform", "translate(0,0)"))
    assert found is not None
    return float(found[1]), float(found[2])


def axes(chart: Node) -> tuple[list[float], list[float]]:
    """Ends of both axes of a chart, by the words beside its ticks."""
    labels = [node for node in chart.all("g") if node.attributes.get("class") == "mark-text role-axis-label"]
    told = [
        [float(text.words().replace("\u2212", "-")) for text in axis.all("text") if text.words()] for axis in labels
    ]
    x, *others = told
    y = others[0] if others else [0.0, 1.0]
    return [x[0], x[-1]], [y[0], y[-1]]


def size(chart: Node) -> tuple[float, float]:
    """Width and height of a chart's plot, in its own pixels."""
    first = next(node for node in chart.all("path") if node.attributes.get("class") == "background")
    found = re.match(r"M[\d.]+,[\d.]+h([\d.]+)v([\d.]+)h", first.attributes["d"])
    assert found is not None
    return float(found[1]), float(found[2])


def place(chart: Node, across: float, down: float) -> tuple[float, float]:
    """Return what a place of a plot means by its axes."""
    (left, right), (bottom, top) = axes(chart)
    wide, high = size(chart)
    return left + across / wide * (right - left), top - down / high * (top - bottom)


def paths(chart: Node) -> list[list[tuple[float, float]]]:
    """Return the points of each line of a chart, as its axes count."""
    lines = []
    for line in marks(chart, "line"):
        points = re.findall(r"(-?[\d.]+),(-?[\d.]+)", line.attributes["d"])
        lines.append([place(chart, float(x), float(y)) for x, y in points])
    return lines


def what_it_loads(text: str) -> list[str]:
    """Return whatever in a document a browser would run, fetch, or follow."""
    found = []
    for node in read(text).every():
        found += [
            f"<{node.tag}>" for _ in [0] if node.tag in {"script", "link", "iframe", "object", "embed", "base", "a"}
        ]
        for name, value in node.attributes.items():
            if name in LOADING or name.startswith("on"):
                found.append(f"{node.tag} {name}={value}")
            if name == "style" or name not in SAID and re.search(r"url\s*\(|javascript:|@import", value):
                found.append(f"{node.tag} {name}={value}")
            if name == "http-equiv" and value != "Content-Security-Policy":
                found.append(f"{node.tag} {name}={value}")
    for style in read(text).all("style"):
        found += re.findall(
            r"@import|@font-face|url\s*\(|image-set|src:|expression", "".join(n.text for n in style.every())
        )
    return found


FIGURE = re.compile(r"[\u2212+]?(?:\d+\.\d+|\.\d+|\d+)")


def numbers_in(text: str) -> list[str]:
    """Return the numbers in a text, as they are written."""
    return FIGURE.findall(text)
