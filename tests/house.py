"""The figures of the house: how a reader finds a line's room, printed beside what they are to be.

`python -m tests.house [ROOT] [--places]` reads the package `flfed/` below ROOT (this checkout by default) and prints
a table; nothing of it is imported, and one process runs a study. Definitions, in the table's order:

- **folders above 16 files**: folders of `flfed/` with more than 16 Python files. Not counted are `__init__.py`, and
  the files of a folder that is a listing (one file an extension: metrics, models, attacks, strategies, privacy,
  codecs, splits, pages) or holds migrations' versions.
- **largest folder**: its Python files, counted so.
- **modules with one importer**: modules that exactly one other module of `flfed/` imports, at its head or within a
  function. Not counted are `__init__`, files of listings, and what is never imported (started as a process, or a
  command).
- **largest class**: lines from its `class` to its end; the most attributes of one class that its methods assign
  (`self.name = ...`; class-level fields are not counted).
- **conditions on a sentence's text**: `.startswith(X)`, `.endswith(X)`, `.partition(X)`, `X in text` and
  `re.match|search|fullmatch(X, text)` within a condition (of `if`, `while`, `assert`, a conditional expression, a
  comprehension's `if`, or what a function returns), where X is a sentence: a text with a blank in it that is not
  only punctuation, or a name that stands for one in this module or the one that it is imported from.
- **engine names compared**: files with a comparison (`==`, `!=`, `in`) to a text that names an engine ("inprocess",
  "in-process", "ray", "deployment", "flower").
- **two-way pairs**: pairs of folders that import from each other, a folder and its own part aside; **cycles**: groups
  of modules that import one another in a ring, imports within functions included, those for typing alone not.
- **first docstring paragraph**: the median of its words, over all docstrings of modules, classes and functions.
- **comment lines**: lines that hold a comment alone, over all lines that are not blank; `# fmt` and `# noqa` apart.
- **duplicate pairs**: pairs of places at which at least six lines in a row are the same, blanks and comments left
  out, indentation removed, imports and lines of brackets alone not counted; overlapping pairs are one.
- **tuples of three or more targets**: assignments `a, b, c = x, y, z`, a tuple on both sides.
- **files for one round's updates**: files of `flfed/` in which a function is called while the third round of
  `breast-cancer` goes on in process, by `sys.setprofile`: from one round's record to the next one's. Scores and the
  record are among them, which the count by hand of 19 files left out: 12 of 19 is the target's share.
- **code lines**: lines that are neither blank, a comment alone, nor part of a docstring.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from statistics import median

ONE_ROUND = """
import sys, threading
from flfed import run

files, on = set(), False

def profile(frame, event, arg):
    name = frame.f_code.co_filename
    if on and event == "call" and "/flfed/" in name:
        files.add(name.rpartition("/flfed/")[2])

def progress(stage, done, of):
    global on
    on = (stage, done) == ("rounds", 2)

threading.setprofile(profile)
sys.setprofile(profile)
run("breast-cancer", progress=progress)
sys.setprofile(None)
print("\\n".join(sorted(files)))
"""
"""Prints the files of one round."""
LISTINGS = {"metrics", "models", "attacks", "strategies", "privacy", "codecs", "splits", "pages", "versions"}
MOST_FILES = 16
SAME_LINES = 6
ENGINES = {"inprocess", "in-process", "ray", "deployment", "flower", "simulation"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module:
    """One Python file of the package."""

    def __init__(self, file: Path, root: Path) -> None:
        self.file, self.text = file, file.read_text()
        parts = file.relative_to(root).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.folder = ".".join(parts[:-1])
        self.tree = ast.parse(self.text)
        self.listed = not self.is_package and parts[-2] in LISTINGS

    @cached_property
    def imports(self) -> set[str]:
        """Names of modules that are imported anywhere, those for typing alone left out."""
        found = set[str]()
        for node in _running(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return found

    @cached_property
    def documented(self) -> list[tuple[ast.AST, str]]:
        """Every docstring with its owner."""
        owners = [n for n in ast.walk(self.tree) if isinstance(n, (ast.Module, ast.ClassDef, *Function.__args__))]
        return [(owner, text) for owner in owners if (text := ast.get_docstring(owner))]

    @cached_property
    def docstring_lines(self) -> set[int]:
        """Lines that are part of a docstring, attribute docstrings included."""
        lines = set[int]()
        for node in ast.walk(self.tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        return lines

    @cached_property
    def code(self) -> list[tuple[int, str]]:
        """Lines of code with their numbers."""
        return [
            (number, line.strip())
            for number, line in enumerate(self.text.splitlines(), 1)
            if line.strip() and not line.strip().startswith("#") and number not in self.docstring_lines
        ]


def _running(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes of a module but those under `if TYPE_CHECKING`."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            todo += node.orelse
        else:
            todo += ast.iter_child_nodes(node)


class House:
    """The modules of a package below `root`."""

    def __init__(self, root: Path) -> None:
        self.modules = {m.name: m for f in sorted((root / "flfed").rglob("*.py")) for m in [Module(f, root)]}

    @cached_property
    def edges(self) -> dict[str, set[str]]:
        """Return the modules that each one imports."""
        found = {
            name: {found for found in m.imports if found in self.modules and found != name}
            for name, m in self.modules.items()
        }
        return {  # `from a.b import c` names both a.b and a.b.c
            name: {t for t in targets if not (self.modules[t].is_package and self._only_way(name, t))}
            for name, targets in found.items()
        }

    def _only_way(self, name: str, package: str) -> bool:
        """Tell whether a package is named only on the way to modules in it."""
        for node in _running(self.modules[name].tree):
            if isinstance(node, ast.Import) and package in {alias.name for alias in node.names}:
                return False
            if isinstance(node, ast.ImportFrom) and node.module == package:
                own = [alias.name for alias in node.names if f"{package}.{alias.name}" not in self.modules]
                if own:
                    return False
        return True

    def folders(self) -> Counter[str]:
        """Return how many files each folder has."""
        return Counter(m.folder for m in self.modules.values() if not (m.is_package or m.listed))

    def one_importer(self) -> list[str]:
        """Return the modules that one other imports."""
        importers = Counter(target for targets in self.edges.values() for target in targets)
        return [n for n, m in self.modules.items() if importers[n] == 1 and not (m.is_package or m.listed)]

    def classes(self) -> list[tuple[str, int, int]]:
        """Return every class with its lines and the attributes that its methods assign."""
        return [
            (f"{name}:{node.name}", (node.end_lineno or 0) - node.lineno + 1, len(_assigned(node)))
            for name, module in self.modules.items()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef)
        ]

    def pairs(self) -> list[tuple[str, str]]:
        """Return pairs of folders that import from each other."""
        arrows = {(self.modules[a].folder, self.modules[b].folder) for a, bs in self.edges.items() for b in bs}
        return sorted(
            (a, b) for a, b in arrows
            if a < b and (b, a) in arrows and not b.startswith(f"{a}.") and not a.startswith(f"{b}.")
        )  # fmt: skip

    def cycles(self) -> list[list[str]]:
        """Return groups of modules that import one another in a ring (Tarjan 1972)."""
        number: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        found: list[list[str]] = []

        def visit(name: str) -> None:
            number[name] = low[name] = len(number)
            stack.append(name)
            for target in self.edges[name]:
                if target not in number:
                    visit(target)
                    low[name] = min(low[name], low[target])
                elif target in stack:
                    low[name] = min(low[name], number[target])
            if low[name] == number[name]:
                place = stack.index(name)
                ring, stack[place:] = stack[place:], []
                if len(ring) > 1:
                    found.append(sorted(ring))

        sys.setrecursionlimit(10_000)
        for name in self.edges:
            if name not in number:
                visit(name)
        return found

    def sentences(self) -> dict[str, set[str]]:
        """Return, by module, the names at its head that stand for a sentence."""
        own = {name: _sentence_names(module.tree) for name, module in self.modules.items()}
        known = {name: set(names) for name, names in own.items()}
        for name, module in self.modules.items():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ImportFrom) and node.module in own:
                    known[name] |= {a.asname or a.name for a in node.names if a.name in own[node.module]}
        return known

    def conditions_on_text(self) -> list[str]:
        """Return the places at which a condition looks at a sentence's text."""
        names, found = self.sentences(), []
        for name, module in self.modules.items():
            for condition in _conditions(module.tree):
                looking = (node for node in ast.walk(condition) if _looks_at_text(node, names[name]))
                found += [f"{name}:{getattr(node, 'lineno', 0)}" for node in looking]
        return sorted(set(found))

    def engines_compared(self) -> list[str]:
        """Return the files that compare with an engine's name, with the lines."""
        found = []
        for name, module in self.modules.items():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Compare):
                    texts = {
                        n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                    }
                    if texts & ENGINES:
                        found.append(f"{name}:{node.lineno}")
        return sorted(set(found))

    def first_paragraphs(self) -> list[int]:
        """Return the words of each docstring's first paragraph."""
        return [len(t.split("\n\n")[0].split()) for m in self.modules.values() for _, t in m.documented]

    def comments(self) -> tuple[int, int]:
        """Return lines that are a comment alone, and lines that are not blank."""
        alone = lines = 0
        for module in self.modules.values():
            rows = module.text.splitlines()
            lines += sum(bool(row.strip()) for row in rows)
            for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
                if token.type == tokenize.COMMENT and not re.match(r"#\s*(noqa|fmt|type:)", token.string):
                    alone += rows[token.start[0] - 1].strip().startswith("#")
        return alone, lines

    def duplicates(self) -> list[tuple[str, str, int]]:
        """Return pairs of places with the same lines, and how many."""
        seen = defaultdict[tuple[str, ...], list[tuple[str, int]]](list)
        lines = {}
        for name, module in self.modules.items():
            lines[name] = [
                (n, re.sub(r"\s+#.*$", "", line)) for n, line in module.code
                if not re.match(r"(from|import) ", line) and re.search(r"\w", line)
            ]  # fmt: skip
            texts = [text for _, text in lines[name]]
            for place in range(len(texts) - SAME_LINES + 1):
                seen[tuple(texts[place : place + SAME_LINES])].append((name, place))
        matches = set()
        for places in seen.values():
            matches |= {(a, b) for a in places for b in places if a < b}
        starts = [(a, b) for a, b in matches if ((a[0], a[1] - 1), (b[0], b[1] - 1)) not in matches]
        found = []
        for a, b in sorted(starts):
            size = SAME_LINES
            while ((a[0], a[1] + size - SAME_LINES + 1), (b[0], b[1] + size - SAME_LINES + 1)) in matches:
                size += 1
            found.append((f"{a[0]}:{lines[a[0]][a[1]][0]}", f"{b[0]}:{lines[b[0]][b[1]][0]}", size))
        return found

    def packed(self) -> list[str]:
        """Return the assignments of a tuple of three or more to as many targets."""
        return [
            f"{name}:{node.lineno}"
            for name, module in self.modules.items()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and len(node.targets[0].elts) >= 3
            and isinstance(node.value, ast.Tuple)
        ]

    def code_lines(self) -> int:
        """Return the lines of code."""
        return sum(len(module.code) for module in self.modules.values())


def one_round(root: Path) -> list[str]:
    """Return the files of `flfed/` below `root` in which a function is called during one round."""
    with tempfile.TemporaryDirectory() as home:
        place = {"PYTHONPATH": str(root), "FLFED_HOME": home, "FLFED_PATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", ONE_ROUND],
            env=os.environ | place,
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    return done.stdout.split()


def _assigned(node: ast.ClassDef) -> set[str]:
    """Return the attributes of itself that a class's methods assign."""
    found = set[str]()
    for method in node.body:
        if not isinstance(method, Function):
            continue
        for part in ast.walk(method):
            stored = isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store)
            if stored and isinstance(part.value, ast.Name) and part.value.id == "self":
                found.add(part.attr)
    return found


def _is_sentence(value: object) -> bool:
    return isinstance(value, str) and bool(
        re.search(r"[A-Za-z]{2,}.* .*[A-Za-z]|[A-Za-z]+ |: [A-Za-z]| [A-Za-z]{2,}", value)
    )


def _sentence_names(tree: ast.Module) -> set[str]:
    found = set[str]()
    for node in tree.body:
        if isinstance(node, ast.Assign):
            value, targets = node.value, node.targets
            if isinstance(targets[0], ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(targets[0].elts, value.elts, strict=False))
            else:
                pairs = [(target, value) for target in targets]
            for target, made in pairs:
                texts = [n.value for n in ast.walk(made) if isinstance(n, ast.Constant)]
                plain = isinstance(made, (ast.Constant, ast.JoinedStr))
                if isinstance(target, ast.Name) and plain and any(map(_is_sentence, texts)):
                    found.add(target.id)
    return found


def _conditions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.If, ast.While, ast.IfExp, ast.Assert)):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.Return) and node.value is not None:
            yield node.value
        elif isinstance(node, ast.BoolOp):
            yield node


def _looks_at_text(node: ast.AST, names: set[str]) -> bool:
    def sentence(part: ast.AST) -> bool:
        if isinstance(part, ast.Constant):
            return _is_sentence(part.value)
        if isinstance(part, ast.JoinedStr):
            return any(_is_sentence(n.value) for n in ast.walk(part) if isinstance(n, ast.Constant))
        if isinstance(part, ast.Tuple):
            return any(map(sentence, part.elts))
        return isinstance(part, ast.Name) and part.id in names

    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        return node.func.attr in ("startswith", "endswith", "partition", "removeprefix") and sentence(node.args[0])
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
        return sentence(node.left) and not isinstance(node.comparators[0], (ast.Tuple, ast.List, ast.Set))
    return False


def main(root: Path, *, whole: bool) -> None:
    """Print the figures."""
    house = House(root)
    folders = {name: count for name, count in house.folders().items() if count > MOST_FILES}
    classes, (alone, lines) = house.classes(), house.comments()
    longest, most = max(classes, key=lambda c: c[1]), max(classes, key=lambda c: c[2])
    texts, engines = house.conditions_on_text(), house.engines_compared()
    rings, both = house.cycles(), house.pairs()
    twice, packed = house.duplicates(), house.packed()
    largest = house.folders().most_common(1)[0]
    rows: list[tuple[str, object, str, object]] = [
        ("Python files", len(house.modules), "about 315", ""),
        ("folders above 16 files", len(folders), "0", folders),
        ("largest folder", largest[1], "16", largest[0]),
        ("modules with one importer", len(one := house.one_importer()), "50", one),
        ("largest class, lines", longest[1], "250", longest[0]),
        ("most attributes", most[2], "12", [c for c in classes if c[2] > 12]),
        ("conditions on a sentence's text", len(texts), "0", texts),
        ("files that compare engine names", len({e.split(":")[0] for e in engines}), "1", engines),
        ("engine names compared", len(engines), "1", ""),
        ("two-way pairs of folders", len(both), "0", both),
        ("cycles", len(rings), "0", rings),
        ("first docstring paragraph, median words", median(house.first_paragraphs()), "9", ""),
        ("comment lines, per cent", round(100 * alone / lines, 2), "2 to 4", ""),
        ("duplicate pairs", len(twice), "45", twice),
        ("tuples of three or more targets", len(packed), "10", packed),
        ("files for one round's updates", len(files := one_round(root)), "12 of 19 of 84971ec's", files),
        ("code lines", house.code_lines(), "not above the first commit's", ""),
    ]
    for what, today, target, places in rows:
        print(f"{what:42} {today!s:>8}   {target}")
        if whole and places:
            print(f"    {places}")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    main(Path(words[0]) if words else Path(__file__).resolve().parents[1], whole="--places" in sys.argv)
