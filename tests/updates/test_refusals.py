"""A refusal is a code with facts: its text is made of them and read back, and no other text is taken for one."""

import ast
import copy
import pickle
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from flfed import refusals
from flfed.errors import FlfedError, TableError
from flfed.refusals import (
    ABOUT,
    DEFECTS,
    OF_SITES,
    RULES,
    TEMPLATES,
    WRONG,
    Refusal,
    of_table,
    path_of,
    plain,
    read,
    read_of_site,
    recorded,
    refusal_of,
)
from flfed.rows.data import datasets
from flfed.updates.messages.compare import CompareReply, Figure
from flfed.updates.messages.enrol import ENROL, EnrolReply
from flfed.updates.messages.fields import reason_of, recorded_note, recorded_words

ROOT = Path(__file__).resolve().parents[2]
LIES = [
    "call +49 30 1234567 at once", "see https://evil.example",
    "its policy allows <b>everything</b>, the study asks for 'x'", "the study is not approved here. Call 0800 123",
    "column 'see https://evil.example' is not a number in 12 rows", f"column '{'a' * 61}' is not a number in 12 rows",
    "column 'age' is not a number in 12 rows; drop table", "=HYPERLINK(0)", "the study is not approved here" * 90, "",
]  # fmt: skip
EXAMPLES = {
    "n": ("3", "1e-05"), "word": ("heart-disease",), "sites": ("a, b-2, c",),
    "members": ("a, b-2, c, d",), "fields": ("round, lr_scale",),
    "words": ("fedavg, fedprox", "none at all"), "quoted": ("'a' and 'b'",), "column": ("odd name_2",),
    "at": ("2026-01-31T23:59:59.123Z",), "day": ("2026-01-31",), "parts": ("training and holdout", "training"),
    "part": ("a network", "metric average_precision_score"),
    "question": ("train from",), "disk": ("No space left on device",), "decision": ("refused", "withdrawn"),
    "epsilon": ("2.5", "beyond any number"), "protocol": ("2", "of no number"), "item": ("value", "list", "array"),
    "shape": ("(3,)", "()"), "name": ("clinic-2", "node 12"), "rest": ("the disk is full",), "limit": ("1e3",),
    "unit": ("mg/dl",), "rows": ("12", "fewer than 10"), "rule": ("is not a number",),
    "wrong": ("cannot be read", "has 2 lists too many"), "defect": ("it has no section 'config'",),
}  # fmt: skip
"""What may stand in each kind of place."""


def places(template: str) -> dict[str, str]:
    """Return the slot of each fact of a template; that of a plural is the number's."""
    found: dict[str, str] = {}
    for _, fact, slot, _ in string.Formatter().parse(template):
        if fact is not None:
            found.setdefault(fact, slot or "")
    return found


MADE_BY = {"Refusal", "reject", "decline"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in the package of `Refusal`, of `decline`, or of the gate's `reject`, and where it is."""
    for file in sorted((ROOT / "flfed").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MADE_BY:
                yield f"{file.relative_to(ROOT)}:{node.lineno}", node


@pytest.mark.parametrize("code", TEMPLATES)
def test_every_refusal_is_read_back_from_its_text(code: str):
    slots = places(TEMPLATES[code])
    for number in range(max(len(EXAMPLES[slot]) for slot in slots.values()) if slots else 1):
        facts = {fact: EXAMPLES[slot][number % len(EXAMPLES[slot])] for fact, slot in slots.items()}
        if "{" in TEMPLATES[code] and ":s}" in TEMPLATES[code]:
            facts |= {fact: ("1", "2")[number % 2] for fact in facts if f"{{{fact}:s}}" in TEMPLATES[code]}
        refusal = Refusal(code, **facts)
        found = read(str(refusal))
        assert found is not None and (found.code, found.facts, str(found)) == (code, facts, str(refusal))
        assert (read_of_site(str(refusal)) is not None) == (code in OF_SITES)


def test_every_code_is_made_somewhere_with_all_of_its_facts():
    made, wrong = set[str](), list[str]()
    for where, call in calls():
        first, given = call.args[0], {word.arg for word in call.keywords}
        if isinstance(first, ast.Constant):
            made.add(first.value)
            if first.value not in TEMPLATES or given != set(places(TEMPLATES[first.value])):
                wrong.append(f"{where}: {ast.unparse(call)}")
        elif isinstance(first, ast.IfExp):
            made |= {part.value for part in (first.body, first.orelse) if isinstance(part, ast.Constant)}
    assert not wrong, "\n".join(wrong)
    # Made by a code that is a name there: of the defects of a field, of what was chosen, and of what is not told.
    named = {"fields-missing", "fields-unfit", "error-untold"}
    named |= {"sites-added", "no-co-site"}
    named |= {code for code in TEMPLATES if code.endswith("-untold") and code != "error-untold"}
    # A repeat is named where its faults are told, before texts of any kind.
    assert set(TEMPLATES) - made - named == {"in-repeat"}


def test_what_a_site_raises_is_a_refusal():
    """Errors whose text crosses are never raised with a text."""
    crossing, wrong = {"Refused", "NotTakingPart", "StorageError", "NotSpent", "MalformedMessage"}, []
    for file in sorted((ROOT / "flfed").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in crossing and isinstance(node.args[0], (ast.Constant, ast.JoinedStr)):
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    wrong = [place for place in wrong if not place.startswith("flfed/deployment/flower/control.py")]  # of a server
    assert not wrong


def test_a_refusal_is_its_text_and_stays_one_when_copied():
    refusal = Refusal("no-comparison", why=Refusal("too-few-sites", asked=1, least=3))
    assert refusal == "no comparison: the run asks 1 site, its policy needs at least 3"
    for found in (pickle.loads(pickle.dumps(refusal)), copy.deepcopy(refusal), copy.copy(refusal)):
        assert (found, found.path) == (refusal, "no-comparison/too-few-sites")
    assert refusal.cause.facts == {"asked": "1", "least": "3"}
    assert path_of(refusal) == "no-comparison/too-few-sites" and path_of(str(refusal)) == ""
    assert refusal_of(FlfedError(refusal)) is refusal
    assert refusal_of(FlfedError("cell 12")) == refusal_of(FlfedError()) == Refusal("error-untold")
    with pytest.raises(KeyError):
        Refusal("no-such-code")


def test_what_is_nested_in_a_text_of_ours_is_read_too():
    for about in ABOUT:
        facts = {fact: EXAMPLES[slot][0] for fact, slot in places(TEMPLATES[about]).items()}
        if "why" not in facts:
            continue
        known = Refusal(about, **facts | {"why": Refusal("paused")})
        assert read(str(known)).path == f"{about}/paused"
        assert read(str(Refusal(about, **facts | {"why": "call 0800 123"}))).path == about


def test_a_part_of_a_defect_is_no_sentence_of_a_site():
    for template in (*DEFECTS.values(), *WRONG.values()):
        facts = {fact: EXAMPLES[slot][0] for fact, slot in places(template).items()}
        code = next(code for code, of in TEMPLATES.items() if of == template)
        assert read_of_site(str(Refusal(code, **facts))) is None


def test_every_rule_about_every_column_of_ours_is_known():
    columns = {name for dataset in datasets.names() for name in datasets.load(dataset).schema.columns}
    odd = {name for name in columns if not re.fullmatch(r"[\w .-]{1,60}", name)}
    # An address may have a slash; these are columns of research tables, which no institution has.
    odd_ones = {"od280/od315_of_diluted_wines", "ASN/DN #", "Unit of Measure (Per Pack)", "Line Item Insurance (USD)"}
    measures = set(datasets.load("telemonitoring").schema.columns)
    assert len(columns) > 100 and odd - measures == odd_ones
    for name in columns - odd:
        for bad in (None, 3, 1200):
            sentence = of_table(TableError(name, "is not a number", bad), 10)
            assert sentence == TableError(name, "is not a number", bad).describe(10)
            assert recorded(f"long-beach: {sentence}") == f"long-beach: {sentence}"
    for rule in RULES:
        facts = {fact: {"limit": "3", "unit": "mg", "word": "no"}[slot] for fact, slot in places(rule).items()}
        text = str(TableError("age", refusals._TEXT.vformat(rule, (), facts), 12))
        assert read_of_site(text).facts["column"] == "age"


@pytest.mark.parametrize("said", LIES)
def test_what_is_no_refusal_is_counted(said: str):
    asked = Message(RecordDict(), dst_node_id=1, message_type=ENROL)
    reason = reason_of(Message(Error(code=1, reason=said), reply_to=asked))
    assert reason == (f"said something else ({len(said)} characters)" if said else "error code 1")
    assert reason.code == ("something-else" if said else "error-code")
    assert recorded(reason) == reason  # the engine of institutions says it on
    assert recorded_words(said, "metric") == (f"said something else ({len(said)} characters)" if said else "")
    assert recorded_note(said) == (f"said something else ({len(said)} characters)" if said else "")


def test_only_its_own_name_stands_before_what_a_site_says():
    sentence = "the study is not approved here"
    assert (
        recorded(f"ward: ward: {sentence}", "ward") == recorded(f"ward: ward: {sentence}") == f"ward: ward: {sentence}"
    )
    assert recorded(f"ward: ward: {sentence}").path == "of-site/of-site/not-approved"
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
    config = {"protocol": 2, "site": "ward", "title": "Ward", "version": "0.1", "accepted": False, "reason": "no"}
    return EnrolReply.from_record(RecordDict({"config": ConfigRecord(config | values)}))


def test_a_sites_title_is_a_name_and_its_reason_a_sentence():
    found = enrolled(title="\u202eClinic\u2067 of Genève " + "x" * 300, reason="see https://evil.example")
    assert found.title.startswith("Clinic of Genève x") and len(found.title) == 100
    assert found.reason == "said something else (24 characters)"


def test_names_and_words_of_a_comparison_are_held_to_ours():
    figure = Figure(metric="log_loss", arm="global", value=0.5, low=0.4, high=0.6, extra=0.01, method="call 0800 123")
    reply = CompareReply(num_examples=9, holdout_rows=9, arms=(figure,), differences=(), note="rows: see evil.example")
    read_back = CompareReply.from_record(reply.to_record())
    assert read_back.arms[0].method == "said something else (13 characters)" and read_back.arms[0].value == 0.5
    assert read_back.note == "said something else (22 characters)"
    note = (
        "rows left out because a feature is missing: fewer than 10; withheld by the site's policy: fewer than 10 rows"
    )
    assert recorded_note(note) == note


@pytest.mark.parametrize(("code", "facts", "one", "two"), [
    ("too-many-runs", {"had": 1}, "lets 1 run of a dataset", "lets 2 runs of a dataset"),
    ("too-many-rounds", {"rounds": 3}, "allows 1 round, the", "allows 2 rounds, the"),
])  # fmt: skip
def test_one_of_a_thing_is_singular_and_is_read_back(code: str, facts: dict[str, int], one: str, two: str):
    for most, words in ((1, one), (2, two)):
        refusal = Refusal(code, most=most, **facts)
        assert words in refusal and read_of_site(refusal) == refusal
