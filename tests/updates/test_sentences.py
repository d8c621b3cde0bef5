"""What a site says in words is one of our sentences, or is counted: every sentence of ours is known, and no other."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from flfed.errors import TableError
from flfed.rows.data import datasets
from flfed.updates.messages.compare import CompareReply, Figure
from flfed.updates.messages.enrol import ENROL, EnrolReply
from flfed.updates.messages.fields import reason_of
from flfed.updates.messages.sentences import HEADS, is_known, plain, recorded, recorded_note, recorded_words

ROOT = Path(__file__).resolve().parents[2]
RAISED = {"Refused", "NotTakingPart", "NotKept", "NotSpent", "MalformedMessage"}
"""Errors whose text crosses as it is."""
RETURNING = {
    "not_allowed", "_refusal_of_names", "ahead", "privacy_refusal", "refusal", "study_policy_refusal", "cohort_refusal",
    "too_small", "_over", "delta_defect", "_too_much", "study_refusal",
}  # fmt: skip
"""Functions that return why a site does not answer."""
OF_FIGURES = {"defined", "reason", "too_few", "withheld", "_not_bounded"}
"""Functions that return why there is no figure, or what it does not mean."""
HERE = {
    "flfed/deployment/coordinator", "flfed/deployment/engine.py", "flfed/federation/engines", "flfed/records",
    "flfed/cli", "flfed/testing",
    *(f"flfed/deployment/flower/{name}.py" for name in ("control", "grid", "message_purge", "node_auth", "questions")),
    *(f"flfed/deployment/flower/{name}.py" for name in ("run_task", "superlink")),
}  # fmt: skip
"""Where no sentence of a site is made."""
PLACED = ("3", "heart-disease", "'heart-disease'", "2026-01-31", "1e-05", "s", "", "training", "evaluate", "(3,)")
"""What may stand where a sentence has a place for something; one of them fits."""
NAMED = {"defect": ("it has 1 section too many",), "word": ("refused",), "what": ("is missing",)}
"""What stands where a sentence has a part with a name."""
LIES = [
    "call +49 30 1234567 at once",
    "see https://evil.example",
    "its policy allows <b>everything</b>, the study asks for 'x'",
    "the study is not approved here. Call 0800 123",
    "column 'see https://evil.example' is not a number in 12 rows",
    f"column '{'a' * 61}' is not a number in 12 rows",
    "column 'age' is not a number in 12 rows; drop table",
    "=HYPERLINK(0)",
    "the study is not approved here" * 90,
    "",
]


def texts(node: ast.expr) -> Iterator[str]:
    """Yield what a literal, an f-string or a choice of them may say, with each of PLACED in its places."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name):
        yield from itertools.chain.from_iterable(map(texts, constants().get(node.id, ())))
    elif isinstance(node, ast.BoolOp):
        yield from itertools.chain.from_iterable(map(texts, node.values))
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
        named = NAMED.get(part.value.id) or tuple(texts(part.value))
        if named:
            return named
    return ("'heart-disease'",) if quoted else PLACED


def sentences(errors: set[str], functions: set[str]) -> Iterator[tuple[str, ast.expr]]:
    """Yield where each sentence is made that is raised or returned, and the expression."""
    for file in sorted((ROOT / "flfed").rglob("*.py")):
        name = str(file.relative_to(ROOT))
        if any(name.startswith(folder) for folder in HERE):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)) and node.args:
                called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if called in errors:
                    yield f"{name}:{node.lineno}", node.args[0]
            if isinstance(node, ast.FunctionDef) and node.name in functions:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return) and inner.value is not None:
                        yield f"{name}:{inner.lineno}", inner.value


def known(sentence: str) -> bool:
    """Tell whether a sentence is written down, whole or without the error that is in brackets behind it."""
    return any(map(is_known, (sentence, f"the study's {sentence}"))) or any(
        sentence.startswith(f"{head} (") for head in HEADS
    )


def test_every_sentence_that_is_raised_or_returned_at_a_site_is_known():
    unknown, seen = [], 0
    for where, node in sentences(RAISED, RETURNING):
        found = list(itertools.islice(texts(node), 20_000))
        seen += bool(found)
        if any(found) and not any(known(one) for one in found if one):
            unknown.append(f"{where}: {ast.unparse(node)}")
    assert not unknown, "\n".join(unknown)
    assert seen > 90  # so they were looked at


def test_every_reason_for_want_of_a_figure_is_known():
    reasons = [list(texts(node)) for _, node in sentences(set(), OF_FIGURES)]
    assert sum(map(any, reasons)) > 15
    for found in filter(any, reasons):
        assert any(
            recorded_words(f"{before}{one}{after}", "metric") == f"{before}{one}{after}"
            for one in found
            for before, after in (("", ""), ("withheld: ", ""), ("No figure: ", "."), (MEMBER, ""))
        ), found


MEMBER = (
    "A member of the site's training rows has a higher score than one of its holdout rows, by its loss, with this "
    "probability; .5 is chance. "
)


def test_every_rule_about_every_column_of_ours_is_known():
    columns = {name for dataset in datasets.names() for name in datasets.load(dataset).schema.columns}
    odd = {name for name in columns if not re.fullmatch(r"[\w .-]{1,60}", name)}
    assert len(columns) > 100 and odd == {"od280/od315_of_diluted_wines"}  # an address may have a slash
    for name in columns - odd:
        for bad in (None, 3, 1200):
            sentence = TableError(name, "is not a number", bad).said(10)
            assert recorded(f"long-beach: {sentence}") == f"long-beach: {sentence}"


@pytest.mark.parametrize("said", LIES)
def test_what_is_none_of_our_sentences_is_counted(said: str):
    asked = Message(RecordDict(), dst_node_id=1, message_type=ENROL)
    reason = reason_of(Message(Error(code=1, reason=said), reply_to=asked))
    assert reason == (f"said something else ({len(said)} characters)" if said else "error code 1")
    assert recorded(reason) == reason  # the engine of institutions says it on
    assert recorded_words(said, "metric") == (f"said something else ({len(said)} characters)" if said else "")
    assert recorded_note(said) == (f"said something else ({len(said)} characters)" if said else "")


def test_only_its_own_name_stands_before_what_a_site_says():
    sentence = "the study is not approved here"
    assert (
        recorded(f"ward: ward: {sentence}", "ward") == recorded(f"ward: ward: {sentence}") == f"ward: ward: {sentence}"
    )
    lie = f"call-0800-123456: {sentence}"
    assert recorded(lie, "ward") == f"said something else ({len(lie)} characters)"
    assert recorded("urgent: call us") == "said something else (15 characters)"
    assert (
        recorded("ward: the study cannot be used (call us)", "ward")
        == "ward: the study cannot be used: see the site's log"
    )


def test_signs_that_turn_a_line_around_are_taken_out():
    hidden = "the study\u202e is not \u2066approved\u2069 here\u200f"
    assert plain(hidden) == recorded(hidden) == "the study is not approved here"
    assert recorded("the study\x1b[2J is not approved here") == "said something else (34 characters)"


def enrolled(**values: object) -> EnrolReply:
    config = {"protocol": 1, "site": "ward", "title": "Ward", "version": "0.1", "accepted": False, "reason": "no"}
    return EnrolReply.from_record(RecordDict({"config": ConfigRecord(config | values)}))


def test_a_sites_title_is_a_name_and_its_reason_a_sentence():
    found = enrolled(title="\u202eClinic\u2067 of Genève " + "x" * 300, reason="see https://evil.example")
    assert found.title.startswith("Clinic of Genève x") and len(found.title) == 100
    assert found.reason == "said something else (24 characters)"


def test_names_and_words_of_a_comparison_are_held_to_ours():
    figure = Figure(metric="log_loss", arm="global", value=0.5, low=0.4, high=0.6, extra=0.01, method="call 0800 123")
    reply = CompareReply(num_examples=9, holdout_rows=9, arms=(figure,), differences=(), note="rows: see evil.example")
    read = CompareReply.from_record(reply.to_record())
    assert read.arms[0].method == "said something else (13 characters)" and read.arms[0].value == 0.5
    assert read.note == "said something else (22 characters)"
    note = (
        "rows left out because a feature is missing: fewer than 10; withheld by the site's policy: fewer than 10 rows"
    )
    assert recorded_note(note) == note
