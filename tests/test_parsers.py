"""Texts made to break their reader are refused in a sentence, and parsers' own errors say nothing of what was read."""

import ast
import time
from pathlib import Path

import pytest

from flfed.errors import UsageError
from flfed.parsers import LONGEST, foreign_parser, parse_json, parse_toml

ROOT = Path(__file__).resolve().parents[1]
CELL = "Roe-4711"
DEEP = 100_000
TOML = {
    "nested lists": "a = " + "[" * DEEP, "nested tables": "a = " + "{a=" * DEEP,
    "a dotted key": "a." * 50_000 + "a = 1", "a dotted header": "[" + "a." * 50_000 + "a]",
    "forty levels": "a = " + "[" * 40 + "]" * 40, "ten thousand digits": "a = " + "9" * 10_000,
    "as many in hexadecimal": "a = 0x" + "9" * 10_000, "too long": "a = '" + "x" * LONGEST + "'",
    "no UTF-8": b"a = '\xff'",
}  # fmt: skip
JSON = {
    "nested lists": "[" * DEEP, "forty levels": "[" * 40 + "]" * 40, "ten thousand digits": "9" * 10_000,
    "a thousand digits": "9" * 1_000, "half a character": '{"a": "\\ud800"}',
    "a name of half a character": '{"\\ud800": 1}', "no UTF-8": b'"\xff"',
}  # fmt: skip


@pytest.mark.parametrize("case", TOML)
def test_toml_made_to_break_its_reader_is_refused_in_a_second_or_two(case: str):
    start = time.process_time()
    with pytest.raises(UsageError, match="^it is not valid TOML: ") as refused:
        parse_toml(TOML[case], "it")
    assert time.process_time() - start < 3  # tomllib takes 37 s for the dotted key, and its square for twice as many
    assert refused.value.__context__ is None or refused.value.__suppress_context__
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("case", JSON)
def test_json_made_to_break_its_reader_is_refused(case: str):
    with pytest.raises(UsageError, match="^it is not valid JSON") as refused:
        parse_json(JSON[case], "it")
    assert len(str(refused.value)) < 200


def test_what_is_within_the_bounds_is_read_as_it_stands():
    assert parse_toml("a = " + "[" * 30 + "]" * 30 + f"\nb = {2**63 - 1}", "it")["b"] == 2**63 - 1
    assert parse_json(str(2**64 - 1), "it") == 2**64 - 1
    assert parse_json('{"a": [1, "\\u00e9\\ud83d\\ude00"]}', "it") == {"a": [1, "é😀"]}


@pytest.mark.parametrize("error", [RecursionError, MemoryError, ValueError, UnicodeDecodeError, KeyError])
def test_a_parsers_error_is_cut_off_from_the_sentence(error: type[Exception]):
    given_words = ("utf-8", b"x", 0, 1, CELL) if error is UnicodeDecodeError else (CELL,)
    said = "the file is damaged"
    with pytest.raises(UsageError, match=said) as refused, foreign_parser(said, KeyError):
        raise error(*given_words)
    assert CELL not in str(refused.value) and refused.value.__suppress_context__


def own_calls(file: Path) -> list[str]:
    """Return the calls of flfed's own functions inside blocks of `foreign_parser` of a file."""
    tree = ast.parse(file.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flfed"):
            own |= {alias.asname or alias.name for alias in node.names}
    found = []
    for block in ast.walk(tree):
        if isinstance(block, ast.With) and "foreign_parser(" in ast.unparse(block.items[0].context_expr):
            for call in (node for line in block.body for node in ast.walk(line) if isinstance(node, ast.Call)):
                name = ast.unparse(call.func).split(".")[0].split("(")[0]
                found += [f"{file.name}: {ast.unparse(call)}"] if name in own | {"self", "cls"} else []
    return found


def test_no_code_of_flfed_runs_where_a_parsers_errors_are_caught():
    files = [file for file in (ROOT / "flfed").rglob("*.py") if "foreign_parser(" in file.read_text()]
    assert len(files) >= 3
    assert [call for file in files for call in own_calls(file)] == []
