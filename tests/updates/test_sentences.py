"""Words of a site about its figures are ours, or are counted: every one of ours is known."""

import ast
import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from flfed.updates.messages.fields import recorded_words
from tests.test_words import places, templates

ROOT = Path(__file__).resolve().parents[2]
OF_FIGURES = {"defined", "lacks_events", "reason", "too_few", "withheld"}
"""Functions that return why there is no figure."""
HERE = {
    "flfed/deployment/coordinator", "flfed/deployment/engine.py", "flfed/federation/engines", "flfed/records",
    "flfed/cli", "flfed/testing", "flfed/summaries/noised_scores.py",
    *(f"flfed/deployment/flower/{name}.py" for name in ("control", "grid", "link")),
}  # fmt: skip
"""Where no sentence of a site is made."""
PLACED = ("3", "heart-disease", "'heart-disease'", "2026-01-31", "1e-05", "s", "", "training", "evaluate", "(3,)")
"""What may stand where a sentence has a place for something; one of them fits."""


def texts(node: ast.expr) -> Iterator[str]:
    """Yield what a literal, an f-string, a template or a choice of them may say, with each of PLACED in its places."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name):
        yield from itertools.chain.from_iterable(map(texts, constants().get(node.id, ())))
    elif isinstance(node, ast.BoolOp):
        yield from itertools.chain.from_iterable(map(texts, node.values))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "render":
        for template in map(templates().__getitem__, texts(node.args[0])):
            for facts in itertools.product(PLACED, repeat=len(places(template))):
                yield template.format_map(dict(zip(places(template), facts)))
    elif isinstance(node, ast.IfExp):
        yield from itertools.chain(texts(node.body), texts(node.orelse))
    elif isinstance(node, ast.JoinedStr):
        parts = [[one.value] if isinstance(one, ast.Constant) else placed(one) for one in node.values]
        yield from map("".join, itertools.product(*parts))


@cache
def constants() -> dict[str, list[ast.expr]]:
    """Return what each constant that a file of flfed makes by itself may be, by its name."""
    found: dict[str, list[ast.expr]] = {}
    for file in sorted((ROOT / "flfed").rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            for target in node.targets if isinstance(node, ast.Assign) else ():
                if isinstance(target, ast.Name) and target.id.isupper():
                    found.setdefault(target.id, []).append(node.value)
    return found


def placed(part: ast.expr) -> tuple[str, ...]:
    """Return what may stand in one place of an f-string."""
    quoted = isinstance(part, ast.FormattedValue) and part.conversion == ord("r")
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name):
        named = tuple(texts(part.value))
        if named:
            return named
    return ("'heart-disease'",) if quoted else PLACED


def sentences(functions: set[str]) -> Iterator[tuple[str, ast.expr]]:
    """Yield where each sentence is made that a function returns, and the expression."""
    for file in sorted((ROOT / "flfed").rglob("*.py")):
        name = str(file.relative_to(ROOT))
        if any(name.startswith(folder) for folder in HERE):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name in functions:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return) and inner.value is not None:
                        yield f"{name}:{inner.lineno}", inner.value


MEMBER = (
    "A member of the site's training rows has a higher score than one of its holdout rows, by its loss, with this "
    "probability; 0.5 is chance. "
)


@pytest.mark.studies
def test_every_reason_for_want_of_a_figure_is_known():
    reasons = [list(texts(node)) for _, node in sentences(OF_FIGURES)]
    assert sum(map(any, reasons)) >= 12
    for found in filter(any, reasons):
        assert any(
            recorded_words(f"{before}{one}{after}", "metric") == f"{before}{one}{after}"
            for one in found
            for before, after in (("", ""), ("withheld: ", ""), ("No figure: ", "."), (MEMBER, ""))
        ), found
