"""Counters of the house: how large the code is, how dense, and how many modules know each feature.

`python -m tests.house [words] [ROOT] [--places]` reads `flfed/` and `tests/` below ROOT (this checkout by default) and
prints a table, with `words` that of `tests/words_counted.py`.
Nothing of it is imported. `tests/test_budgets.py` holds the same counters as a ratchet. Definitions:

- **code line**: a line with a token that is no comment and no docstring, also of constants; **tokens** are
  those of the code lines.
- **imports of a module**: modules of `flfed` in which the names that it imports are defined, imports within functions
  and for type checking included.
- **circles**: groups of modules that import one another in a ring, counted so.
- **complexity**: 1 + each if, for, while, except, conditional expression, comprehension, and, or.
- **packed assignment**: `a, b = x, y` of two or more values.
- **nested**: a comprehension within another one, or with two `for`; a conditional expression within any other
  expression, so that it is not the whole value of an assignment, of `return` or of `yield`.
- **concepts**: features of a study that cross the house, by their words in code without strings and docstrings.
- **mode's name**: a comparison (`==`, `!=`, `in`) with a text that names a mode of a study, outside `updates/parts/`.
- **keys by string**: `x["key"]` and `x.get("key")` in `records/`.
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CONCEPTS = {
    "secure aggregation": r"secure|(?<!u)(?<!sig)mask",
    "covering noise": r"\bcovers?\b|is_covered",
    "trees": r"\btrees?\b|_trees?\b|forest|\bgrows?\b|boost",
    "codecs": r"codec|packed_|packing",
    "own parts": r"own_part|ownpart|personal",
    "statistics": r"statistic\b|statistics?_of|statisticreply",
    "analysis": r"analysis|analyses",
    "audits": r"audit|attack",
}
"""Expressions that find each concept in code without strings, of whatever case; masks of files and signals are none."""
AGGREGATE_ONLY = r"share_metrics|aggregate"
"""Expression that finds what a site which shares sums only is known by, in code with its strings."""
MODES = {
    "secure-aggregation", "on", "ckks", "masks", "record-dp", "site-dp", "aggregate-only", "statistic", "analysis",
    "gradient-boosting",
}  # fmt: skip
"""Texts that name a mode of a study."""
BRANCHES = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension, ast.BoolOp)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
    tokenize.ENCODING,
}  # fmt: skip
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Place:
    """One thing that was counted.

    Attributes
    ----------
    module : str
    line : int
    size : int
        Where it has one: lines, complexity or imports.
    name : str
    """

    module: str
    line: int = 0
    size: int = 1
    name: str = ""

    def __str__(self) -> str:
        size = "" if self.size == 1 else f" {self.size}"
        return f"{self.module}:{self.line} {self.name}{size}".rstrip()


class Module:
    """One Python file."""

    def __init__(self, file: Path, root: Path) -> None:
        self.file = file
        self.text = file.read_text()
        parts = file.relative_to(root).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.folder = ".".join(parts[:-1])

    @cached_property
    def tree(self) -> ast.Module:
        """Syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def docstring_lines(self) -> set[int]:
        """Lines that are part of a docstring, those of constants included."""
        lines: set[int] = set()
        for node in self.nodes:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                if isinstance(node.value.value, str):
                    lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        return lines

    @cached_property
    def all_tokens(self) -> list[tokenize.TokenInfo]:
        """Tokens, those of comments and docstrings included."""
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        """Tokens of code."""
        return [one for one in self.all_tokens if one.type not in NO_CODE and one.start[0] not in self.docstring_lines]

    @cached_property
    def code_lines(self) -> set[int]:
        """Numbers of the lines of code."""
        lines: set[int] = set()
        for token in self.tokens:
            lines.update(range(token.start[0], token.end[0] + 1))
        return lines - self.docstring_lines

    @cached_property
    def functions(self) -> list[Function]:
        """Functions and methods."""
        return [node for node in self.nodes if isinstance(node, Function)]

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """The node that each node stands in."""
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}


class House:
    """The modules below `root`."""

    def __init__(self, root: Path) -> None:
        self.modules = _modules(root, "flfed")
        self.tests = _modules(root, "tests")

    def code_lines(self) -> int:
        """Return the lines of code in `flfed/`."""
        return sum(len(module.code_lines) for module in self.modules.values())

    def test_lines(self) -> int:
        """Return the lines of code in `tests/`."""
        return sum(len(module.code_lines) for module in self.tests.values())

    def tokens(self) -> int:
        """Return the tokens of code in `flfed/`."""
        return sum(len(module.tokens) for module in self.modules.values())

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Modules in which the names that each module imports are defined."""
        return {name: self._imports_of(module) for name, module in self.modules.items()}

    def _imports_of(self, module: Module) -> set[str]:
        found: set[str] = set()
        for node in module.nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name in self.modules}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    found.add(self._definition(node.module, alias.name))
        return {name for name in found if name in self.modules and name != module.name}

    def _definition(self, module: str, name: str) -> str:
        """Return the module that defines a name, followed through one that only passes it on."""
        if f"{module}.{name}" in self.modules:
            return f"{module}.{name}"
        passed = self._passed_on.get(module, {})
        if name in passed and passed[name] != module:
            return self._definition(passed[name], name)
        return module

    @cached_property
    def _passed_on(self) -> dict[str, dict[str, str]]:
        """Names that a package imports from its own modules, with the module of each."""
        found: dict[str, dict[str, str]] = {}
        for name, module in self.modules.items():
            if not module.is_package:
                continue
            found[name] = {}
            for node in module.nodes:
                if isinstance(node, ast.ImportFrom) and node.module is not None:
                    found[name] |= {alias.asname or alias.name: node.module for alias in node.names}
        return found

    def circles(self) -> list[list[str]]:
        """Return groups of modules that import one another in a ring (Tarjan 1972)."""
        return rings(self.imports)

    def functions(self) -> list[Place]:
        """Return every function with its complexity."""
        found = []
        for name, module in self.modules.items():
            for function in module.functions:
                complexity = 1 + sum(isinstance(node, BRANCHES) for node in ast.walk(function))
                found.append(Place(name, function.lineno, complexity, function.name))
        return found

    def classes(self) -> list[tuple[str, int, int]]:
        """Return every class with its lines and the attributes that its methods assign."""
        found = []
        for name, module in self.modules.items():
            for node in module.nodes:
                if isinstance(node, ast.ClassDef):
                    lines = (node.end_lineno or 0) - node.lineno + 1
                    found.append((f"{name}:{node.name}", lines, len(_assigned(node))))
        return found

    def conditional_expressions(self) -> list[Place]:
        """Return the conditional expressions."""
        return list(self._nodes(lambda node: isinstance(node, ast.IfExp)))

    def folded_conditional_expressions(self) -> list[Place]:
        """Return the conditional expressions within another expression."""
        whole = (ast.Assign, ast.AnnAssign, ast.Return, ast.Yield)
        found = []
        for name, module in self.modules.items():
            for node in module.nodes:
                if isinstance(node, ast.IfExp) and not isinstance(module.parents[node], whole):
                    found.append(Place(name, node.lineno))
        return found

    def comprehensions(self) -> list[Place]:
        """Return the comprehensions."""
        return list(self._nodes(lambda node: isinstance(node, COMPREHENSIONS)))

    def nested_comprehensions(self) -> list[Place]:
        """Return the comprehensions within another one, or with two `for`."""
        found = []
        for name, module in self.modules.items():
            for node in module.nodes:
                if not isinstance(node, COMPREHENSIONS):
                    continue
                if len(node.generators) > 1 or _within(node, module.parents, COMPREHENSIONS):
                    found.append(Place(name, node.lineno))
        return found

    def packed(self) -> list[Place]:
        """Return the packed assignments."""
        return list(self._nodes(_is_packed))

    def comparisons_with_modes(self) -> list[Place]:
        """Return the comparisons with a mode's name outside parts."""
        found = []
        for name, module in self.modules.items():
            if name.startswith("flfed.updates.parts."):
                continue
            for node in module.nodes:
                if isinstance(node, ast.Compare) and _texts(node) & MODES:
                    found.append(Place(name, node.lineno))
        return found

    def keys_by_string(self) -> list[Place]:
        """Return the keys by string in `records/`."""
        found = self._nodes(_is_key)
        return [place for place in found if place.module.startswith("flfed.records.")]

    def knowing(self) -> dict[str, set[str]]:
        """Return the concepts that each module knows."""
        patterns = {concept: re.compile(words, re.IGNORECASE) for concept, words in CONCEPTS.items()}
        found: dict[str, set[str]] = {}
        for name, module in self.modules.items():
            code = " ".join(token.string for token in module.tokens if token.type != tokenize.STRING)
            found[name] = {concept for concept, pattern in patterns.items() if pattern.search(code)}
        return found

    def knowing_aggregate_only(self) -> list[str]:
        """Return the modules that know of sites which share sums only."""
        pattern = re.compile(AGGREGATE_ONLY)
        found = []
        for name, module in self.modules.items():
            if pattern.search(" ".join(token.string for token in module.tokens)):
                found.append(name)
        return found

    def _nodes(self, counts: object) -> Iterator[Place]:
        for name, module in self.modules.items():
            for node in module.nodes:
                if callable(counts) and counts(node):
                    yield Place(name, getattr(node, "lineno", 0))


def _modules(root: Path, folder: str) -> dict[str, Module]:
    found = {}
    for file in sorted((root / folder).rglob("*.py")):
        module = Module(file, root)
        found[module.name] = module
    return found


def rings(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return groups of names that lead to one another in a ring.

    Examples
    --------
    >>> rings({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})
    [['a', 'b', 'c']]
    """
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for target in edges[name]:
            if target not in number:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], number[target])
        if low[name] == number[name]:
            place = stack.index(name)
            ring = stack[place:]
            del stack[place:]
            if len(ring) > 1:
                found.append(sorted(ring))

    sys.setrecursionlimit(10_000)
    for name in edges:
        if name not in number:
            visit(name)
    return found


def _within(node: ast.AST, parents: Mapping[ast.AST, ast.AST], kinds: tuple[type[ast.AST], ...]) -> bool:
    """Tell whether a node stands within one of some kinds, in the same statement."""
    above = parents.get(node)
    while isinstance(above, (ast.expr, ast.comprehension, ast.keyword)):
        if isinstance(above, kinds):
            return True
        above = parents.get(above)
    return False


def _is_packed(node: ast.AST) -> bool:
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return isinstance(node.targets[0], ast.Tuple)


def _is_key(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
        return False
    first = node.args[0]
    return node.func.attr == "get" and isinstance(first, ast.Constant) and isinstance(first.value, str)


def _texts(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def _assigned(node: ast.ClassDef) -> set[str]:
    """Return the attributes of itself that a class's methods assign."""
    found: set[str] = set()
    for method in node.body:
        if not isinstance(method, Function):
            continue
        for part in ast.walk(method):
            stored = isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store)
            if stored and isinstance(part.value, ast.Name) and part.value.id == "self":
                found.add(part.attr)
    return found


def counters(house: House) -> dict[str, tuple[float, float, list[object]]]:
    """Return each counter's figure, what it is to be at most, and its places."""
    code = house.code_lines()
    imports = sorted((Place(name, 0, len(of)) for name, of in house.imports.items()), key=lambda one: -one.size)
    functions = sorted(house.functions(), key=lambda one: -one.size)
    knowing = house.knowing()
    many = [f"{name}: {', '.join(sorted(known))}" for name, known in knowing.items() if len(known) >= 4]
    sums = [name for name, known in knowing.items() if "secure aggregation" in known]
    covers = [name for name, known in knowing.items() if "covering noise" in known]
    aggregate = house.knowing_aggregate_only()
    expressions = house.conditional_expressions()
    packed = house.packed()
    comprehensions = house.comprehensions()

    def listed(places: list[Place], least: int = 0) -> tuple[int, list[object]]:
        there: list[object] = [one for one in places if one.size > least]
        return len(there), there

    def per_thousand(places: list[Place]) -> float:
        return round(1000 * len(places) / code, 1)

    wide, wide_places = listed(imports, 15)
    complex_, complex_places = listed(functions, 10)
    very, very_places = listed(functions, 20)
    modes, mode_places = listed(house.comparisons_with_modes())
    folded, folded_places = listed(house.folded_conditional_expressions())
    nested, nested_places = listed(house.nested_comprehensions())
    keys, key_places = listed(house.keys_by_string())
    circles = house.circles()
    files = Counter(place.module for place in house.keys_by_string())
    return {
        "tokens of code": (house.tokens(), 570_000, []),
        "lines of code": (code, 56_000, []),
        "Python files": (len(house.modules), 480, []),
        "most imports of a module": (imports[0].size, 25, [imports[0]]),
        "modules with more than 15 imports": (wide, 20, wide_places),
        "modules that know four or more concepts": (len(many), 2, [*many]),
        "modules that know secure sums": (len(sums), 40, [*sums]),
        "modules that know covers": (len(covers), 20, [*covers]),
        "modules that know aggregate-only": (len(aggregate), 12, [*aggregate]),
        "comparisons with a mode's name": (modes, 0, mode_places),
        "circles of imports": (len(circles), 0, [*circles]),
        "functions of complexity above 10": (complex_, 150, complex_places),
        "functions of complexity above 20": (very, 0, very_places),
        "conditional expressions per 1,000 lines": (per_thousand(expressions), 30, []),
        "packed assignments per 1,000 lines": (per_thousand(packed), 4, [*packed]),
        "comprehensions per 1,000 lines": (per_thousand(comprehensions), 55, []),
        "conditional expressions within another": (folded, 250, folded_places),
        "nested comprehensions": (nested, 100, nested_places),
        "keys by string in records/": (keys, 400, [*files.most_common(20)] or key_places),
        "test lines per line of code": (round(house.test_lines() / code, 3), 1.25, []),
    }


def main(root: Path, *, whole: bool, words: bool) -> None:
    """Print the counters, or those of words."""
    house = House(root)
    if words:
        from tests import words_counted

        table = words_counted.counters(house, root)
    else:
        table = counters(house)
    for name, (today, most, places) in table.items():
        print(f"{name:42} {today:>10,}   at most {most:,}")
        if whole:
            for place in places:
                print(f"    {place}")


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if not word.startswith("-") and word != "words"]
    here = Path(given[0]) if given else Path(__file__).resolve().parents[1]
    main(here, whole="--places" in sys.argv, words="words" in sys.argv)
