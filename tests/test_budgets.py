"""What only falls: code, files and wide imports of `flfed/`; and what no file of it does."""

import ast
import io
from pathlib import Path
from tokenize import COMMENT, DEDENT, ENCODING, ENDMARKER, INDENT, NEWLINE, NL, generate_tokens

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "flfed").rglob("*.py"))
TREES = {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in SOURCES}
CODE_LINES, FILES = 64_537, 513
WIDE, WIDE_FILES, ABOVE = 12, 78, 320
"""Modules of flfed that a file may import, the files that import more, and the sum of what they import above it."""
NO_CODE = {COMMENT, NL, NEWLINE, INDENT, DEDENT, ENDMARKER, ENCODING}


def code_lines(text: str) -> int:
    """Return the lines with a token that is neither a comment nor a docstring."""
    tokens = (token for token in generate_tokens(io.StringIO(text).readline) if token.type not in NO_CODE)
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def test_code_and_files_only_fall():
    assert code_lines('"""Say."""\n\n# Why.\nX = (\n    1,\n)\n') == 3
    assert sum(code_lines(file.read_text()) for file in SOURCES) <= CODE_LINES
    assert 300 < len(SOURCES) <= FILES


def test_files_that_import_many_modules_only_become_fewer():
    nodes = {
        name: [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)] for name, tree in TREES.items()
    }
    imports = [
        len({node.module for node in found if (node.module or "").startswith("flfed")}) for found in nodes.values()
    ]
    above = [count - WIDE for count in imports if count > WIDE]
    assert len(above) <= WIDE_FILES and sum(above) <= ABOVE


def test_no_assert_guards_anything_in_the_package():
    assert [name for name, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.Assert)] == []


def test_nothing_catches_every_exception_but_the_border():
    caught = set()
    for name, tree in TREES.items():
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)):
            kinds = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"Exception"}
            raised = any(isinstance(n, ast.Raise) and n.exc is None for n in ast.walk(node))
            caught |= {name} if kinds & {"Exception", "BaseException"} and not raised else set()
    # The border, where it begins and where it ends, one around the code of a site's or dataset's package, and three
    # that hand an error over to the one who asked or waits.
    assert caught == {
        "flfed/federation/client/client.py", "flfed/federation/client/redaction.py",
        "flfed/federation/engines/lockstep.py", "flfed/packages.py", "flfed/rows/training/answer.py", "flfed/tasks.py",
    }  # fmt: skip
