"""Expressions over a source's own columns: rows that are read, derived columns, and what is refused."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from flfed.errors import TableError, UsageError
from flfed.rows.data.parsing.expressions import derived_columns, rows_where
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.site import Site
from flfed.rows.data.sources import Csv, Parquet

TABLE = pd.DataFrame({
    "age": ["17", "44", "", "61"], "ward": ["A", "B", "B", None], "weight": ["60", "80", "90", "70"],
    "admitted": ["2024-01-31", "2025-02-01", "", "2026-03-03"],
    "discharged": ["2024-02-02", "2025-02-03", "", "2026-03-13"], "height cm": ["170", "180", "190", ""],
})  # fmt: skip


@pytest.mark.parametrize(("expression", "rows"), [
    ("age >= 18", [1, 3]), ("ward == 'B' and not missing(age)", [1]), ("18 <= age < 60", [1]),
    ("ward in ('A', 'B')", [0, 1, 2]), ("ward not in ('A',)", [1, 2]), ("ward != 'A'", [1, 2]),
    ("year(admitted) in (2024, 2026)", [0, 3]), ("admitted >= '2025-01-01'", [1, 3]),
    ("weight / (column('height cm') / 100) ** 2 > 22", [1, 2]), ("days(discharged, admitted) > 2", [3]),
    ("weekday(admitted) == 2", [0]), ("weight in (60, 80)", [0, 1]), ("age < 18 or missing(ward)", [0, 3]),
    ("-age < -50", [3]), ("missing(age)", [2]), ("'2025-01-01' > admitted", [0]),
])  # fmt: skip
def test_rows_are_those_for_which_an_expression_holds(expression: str, rows: list[int]):
    pd.testing.assert_frame_equal(rows_where(TABLE, expression), TABLE.iloc[rows].reset_index(drop=True))


def test_derived_columns_are_missing_where_what_they_are_made_of_is():
    made = derived_columns(TABLE, {
        "bmi": "weight / (column('height cm') / 100) ** 2", "stay": "days(discharged, admitted)", "old": "age > 50",
        "twice": "bmi * 2", "month": "month(admitted)", "zero": "weight / (age - 17)",
    })  # fmt: skip
    np.testing.assert_allclose(made["bmi"], [60 / 1.7**2, 80 / 1.8**2, 90 / 1.9**2, np.nan])
    np.testing.assert_allclose(made["twice"], 2 * made["bmi"])
    np.testing.assert_array_equal(made["stay"], [2, 2, np.nan, 10])
    np.testing.assert_array_equal(made["old"], [0, 0, np.nan, 1])
    np.testing.assert_array_equal(made["month"], [1, 2, np.nan, 3])
    assert np.isnan(made["zero"][0]) and made["zero"][1] == pytest.approx(80 / 27)  # nothing is infinite


@pytest.mark.parametrize("expression", [
    "__import__('os').system('id')", "age.__class__", "(lambda: 1)()", "[x for x in age]", "age >", "1 < 2", "age",
    "f'{age}'", "age if age else 1", "True", "open('x')", "age[0]", "admitted > 'soon'", "missing(3)",
    "no_such > 1", "days(age)", "year(3)", "age >= 18; import os", "ward > 3", "year(ward) == 3", "not age",
    "age := 3", "9" * 1001 + " > age", "{'a': age}", "age @ age", "~age", "'a' 'b'",
])  # fmt: skip
def test_what_is_no_plain_expression_is_refused_without_a_cell(expression: str):
    with pytest.raises(UsageError) as refused:
        rows_where(TABLE, expression)
    assert not any(cell in str(refused.value) for cell in ("2025-02-01", "44", "61"))


def test_a_source_reads_its_rows_and_derived_columns(tmp_path):
    TABLE.to_csv(tmp_path / "a.csv", index=False)
    TABLE.to_parquet(tmp_path / "a.parquet")
    chosen = {"where": "stay > 1 and ward == 'B'", "derive": {"stay": "days(discharged, admitted)"}}
    for source in (Csv(str(tmp_path / "a.csv"), **chosen), Parquet(str(tmp_path / "a.parquet"), **chosen)):
        read = source.read(())
        assert read["age"].tolist() == ["44"] and read["stay"].tolist() == [2.0]
    with pytest.raises(UsageError, match="is not allowed"):
        Csv("never read.csv", where="age.x")


def test_a_source_s_codes_for_not_known_are_missing_in_its_expressions(tmp_path):
    (tmp_path / "a.csv").write_text("age,code,stay\n17,A,-9.0\n?,?,2\n44,B,3\n")
    rules = {"old": "age >= 18", "nights": "stay * 2", "same": "code", "none": "stay * 0 - 9", "less": "none - 1"}

    def ages(where: str) -> list[str]:
        return Csv(str(tmp_path / "a.csv"), missing=("?", "-9"), derive=rules, where=where).read(())["age"].tolist()

    assert ages("age > 18") == ages("18 <= age") == ["44"]
    assert ages("missing(age)") == ages("missing(code)") == ["?"] and ages("missing(stay)") == ["17"]
    assert ages("code != 'A'") == ages("code not in ('A',)") == ["44"] and ages("code == '?'") == []
    # A code is one of the source's own cells: what is computed may be that number.
    assert ages("none == -9") == ["?", "44"] and ages("none < 0 and less == -10") == ["?", "44"]
    read = Csv(str(tmp_path / "a.csv"), missing=("?", "-9"), derive=rules).read(())
    np.testing.assert_array_equal(read["old"], [0, np.nan, 1])
    np.testing.assert_array_equal(read["nights"], [np.nan, 4, 6])
    assert read["same"].isna().tolist() == [False, True, False]
    assert read["age"].tolist() == ["17", "?", "44"]  # the mapping reads its cells as they stand


def test_codes_hide_whole_numbers_and_dates_and_leave_the_others_as_they_are():
    table = pd.DataFrame({"id": [2**60 + 1, -9, 7], "seen": pd.to_datetime(["2024-01-31", "1900-01-01", None])})
    codes = ("-9", "1900-01-01 00:00:00")
    read = derived_columns(table, {"own": "id", "year": "year(seen)"}, codes)
    assert read["own"][0] == 2**60 + 1 and pd.isna(read["own"][1]) and read["own"][2] == 7
    np.testing.assert_array_equal(read["year"], [2024, np.nan, np.nan])
    for expression, rows in (("id < 0", 0), ("missing(id)", 1), ("missing(seen)", 2), ("seen <= '2024-01-31'", 1)):
        assert len(rows_where(table, expression, codes)) == rows


@pytest.mark.parametrize(("expression", "rows"), [
    ("ver == '1.0'", [0, 1]), ("'1.0' == ver", [0, 1]), ("ver == '1'", [0, 1]), ("ver != '1.0'", [2]),
    ("ver in ('1.0', '2.0')", [0, 1, 2]), ("ver not in ('1.0', '2.0')", []), ("ver not in ('2.0',)", [0, 1]),
    ("ver == ''", []), ("ver != ''", [0, 1, 2]), ("ver == ' 2.0 '", [2]), ("seen == '2024-01-31'", [0]),
    ("seen in ('2024-01-31', '2024-02-01')", [0, 1]), ("seen != '2024-01-31'", [1]),
])  # fmt: skip
def test_a_text_is_compared_as_a_cell_of_it_would_be(expression: str, rows: list[int]):
    seen = pd.to_datetime(["2024-01-31", "2024-02-01", None, None])
    table = pd.DataFrame({"ver": ["1.0", "1", "2.0", ""], "seen": seen})
    assert rows_where(table.assign(at=range(4)), expression)["at"].tolist() == rows


UNDEFINED = [
    "9**9**9", "2**2**40", "1/0", "5 % 0", "0 ** -1", "(0-8) ** 0.5", "10**400", "1e999", "9" * 400, "10**400 + 1.5",
    "log(0)", "sqrt(-1)", "weight ** 1000", "-(1/0)", "abs(1/0)",
]  # fmt: skip


@pytest.mark.parametrize("number", UNDEFINED)
def test_a_comparison_with_what_is_no_finite_number_does_not_hold(number: str):
    began = time.process_time()
    for sign in ("<", "<=", "==", "!=", ">", ">="):
        assert rows_where(TABLE, f"age {sign} {number}").empty and rows_where(TABLE, f"{number} {sign} age").empty
    assert rows_where(TABLE, f"weight in ({number}, 60)")["age"].tolist() == ["17"]
    assert rows_where(TABLE, f"weight not in ({number}, 60)").empty
    made = derived_columns(TABLE, {"sum": f"weight + {number}", "less": f"weight < {number} or weight > 0"})
    assert made["sum"].isna().all() and made["less"].isna().all()
    assert time.process_time() - began < 10  # to compute such a power would take hours


def test_a_span_of_centuries_is_counted_in_days():
    table = pd.DataFrame({"later": ["2262-01-01", ""], "earlier": ["1700-01-01", "1700-01-01"]})
    found = derived_columns(table, {"days": "days(later, earlier)"})["days"]
    assert found[0] == (np.datetime64("2262-01-01") - np.datetime64("1700-01-01")).astype(int) and np.isnan(found[1])


@pytest.mark.parametrize("expression", ["-" * 980 + "age > 1", "not " * 240 + "(age > 1)", "+".join(["age"] * 240)])
def test_a_deep_expression_is_refused_in_a_short_sentence(expression: str):
    with pytest.raises(UsageError, match="nested more than 200 times") as refused:
        Csv("never read.csv", where=expression)
    assert len(str(refused.value)) < 200
    assert len(rows_where(TABLE, "+".join(["weight"] * 140) + " > 60 * 140")) == 3


@pytest.mark.parametrize("expression", ["(age, 1)", "[age]", "(age,)"])
def test_a_list_is_no_column(expression: str):
    with pytest.raises(UsageError, match="must give one value for each row"):
        derived_columns(TABLE, {"one": expression})


@pytest.mark.parametrize("chosen", [
    {"where": 5}, {"where": None}, {"where": b"age > 1"}, {"where": ["age > 1"]}, {"derive": "age"},
    {"derive": ["age"]}, {"derive": {"a": 5}}, {"derive": {5: "age"}}, {"derive": {"a": ""}}, {"derive": None},
])  # fmt: skip
def test_what_is_no_text_is_refused_when_a_source_is_made(chosen: dict[str, object]):
    with pytest.raises(UsageError, match=r"^(where|derive)=.* must "):
        Csv("never read.csv", **chosen)


GRAMMAR = {
    "T": [
        "(N) < (N)", "(N) >= (N) > (N)", "(N) == (N)", "N != N", "(T)", "X == X", "X != X", "X in L", "N not in L",
        "D < '2025-01-01'", "missing(C)", "(T) and (T)", "(T) or (T)", "not (T)",
    ],
    "N": [
        "age", "weight", "column('height cm')", "0", "1", "2.5", "9", "60", "1e308", "(N) + (N)", "-(N)", "(N) * (N)",
        "(N) / (N)", "(N) ** (N)", "(N) % (N)", "(N) - (N)", "log(N)", "sqrt(N)", "abs(N)", "year(D)", "weekday(D)",
        "days(D, D)",
    ],
    "X": ["ward", "'A'", "''", "'1.0'"], "D": ["admitted", "discharged"], "C": ["age", "ward", "admitted"],
    "L": ["('A', 'B')", "(17, N)", "[N, N]", "(X, X)"],
    "wrong": [
        "()", "[ward]", "True", "None", "no_such", "N // N", "~(T)", "+N", "int(N)", "year(X)", "(N, T)", "column(N)",
        "T if T else T", "N @ N", "N is N", "age.x",
    ],
}  # fmt: skip
"""Comparisons, numbers, texts, dates, columns and lists, each made of the others."""
KINDS = re.compile(r"\b[TNXDCL]\b")
SPOILT = "()[]'\"\\.,:=<>*-+ \n\t\0#{}@!0123456789eEjxagé\ud800𝟗"


def made_of_grammar(chance: random.Random, kind: str, depth: int) -> str:
    """Draw an expression of a kind, in which at times a part is of another kind or not allowed."""
    kind = kind if chance.random() < 0.98 else chance.choice(sorted(GRAMMAR))
    shapes = GRAMMAR[kind] if depth > 0 else [shape for shape in GRAMMAR[kind] if not KINDS.search(shape)]
    shape = chance.choice(shapes or ["age > 1"])
    return KINDS.sub(lambda found: made_of_grammar(chance, found[0], depth - 1), shape)


def edited(chance: random.Random, text: str) -> str:
    """Return a text some of whose signs are left out, doubled many times, or others."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        piece = chance.choice(("", chance.choice(SPOILT), text[at : at + 3] * chance.randint(1, 200)))
        text = text[:at] + piece + text[at + chance.randint(0, 3) :]
    return text


def expressions(seed: int, count: int) -> Iterator[str]:
    chance = random.Random(seed)
    for _ in range(count):
        text = made_of_grammar(chance, chance.choice("TN"), chance.randint(1, 3))
        yield text
        yield edited(chance, text)


def test_whatever_is_written_gives_rows_or_one_sentence_at_once():
    held, said, slowest = 0, 0, 0.0
    for text in expressions(seed=7, count=1000):
        for use in (lambda text: rows_where(TABLE, text), lambda text: derived_columns(TABLE, {"one": text})):
            began = time.process_time()
            try:
                assert len(use(text)) <= len(TABLE)
                held += 1
            except UsageError as why:
                assert len(str(why)) < 500 and "\n" not in str(why) and "\0" not in str(why), text
                said += 1
            slowest = max(slowest, time.process_time() - began)
    assert held > 500 and said > 1000 and slowest < 10  # 0.004 s where nothing else runs


WRITTEN = "seen,left\n02-Jun-06,29.02.2024\n28-Feb-69,31.12.1999\n?,01.01.2000\n"


def test_dates_in_another_format_are_read_before_expressions_are(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(WRITTEN)
    source = Csv(
        str(path), missing=("?",), dates={"seen": "%d-%b-%y"}, century=2000,
        derive={"year": "year(seen)", "later": "seen > '2006-06-01'"},
    )  # fmt: skip
    read = source.read(())
    np.testing.assert_array_equal(read["year"], [2006, 2069, np.nan])  # Python alone takes 69 for 1969
    np.testing.assert_array_equal(read["later"], [1, 1, np.nan])
    plain = Csv(str(path), dates={"left": "%d.%m.%Y"}, where="left >= '2000-01-01'").read(())
    assert [str(day.date()) for day in plain["left"]] == ["2024-02-29", "2000-01-01"]
    with pytest.raises(UsageError, match="is not a date"):
        Csv(str(path), derive={"year": "year(left)"}).read(())


@pytest.mark.parametrize(("given", "words"), [
    ({"dates": {"seen": "%d-%b-%y"}}, "two digits of a year"),
    ({"dates": {"seen": "%m.%Y"}}, "day, month and year"),
    ({"dates": {"seen": ""}}, "must map columns to formats"), ({"dates": "seen"}, "must map columns to formats"),
    ({"dates": {"seen": "%d-%b-%y"}, "century": 20}, "must be 1900 or 2000"),
])  # fmt: skip
def test_a_date_format_that_loses_the_day_or_the_century_is_refused(given: dict, words: str):
    with pytest.raises(UsageError, match=words):
        Csv("never read.csv", **given)


def test_a_cell_that_is_no_such_date_is_refused_without_the_cell(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("seen\n29-Feb-00\n30-Feb-01\n")
    for century in (2000, 1900):  # 1900 had no 29th of February
        with pytest.raises(
            TableError, match="'seen' is not a date as its mapping says in fewer than 5 rows"
        ) as refused:
            Csv(str(path), dates={"seen": "%d-%b-%y"}, century=century).read(())
        assert "Feb" not in str(refused.value)


def test_codes_of_a_mapping_and_of_a_schema_are_missing_in_a_source_s_expressions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "datasets" / "ward"
    folder.mkdir(parents=True)
    columns = 'columns.age = { kind = "number", range = [0, 120], missing = [-1] }\n'
    columns += 'columns.died = { kind = "target", values = ["no", "yes"] }\n'
    top = 'format = 1\nname = "ward"\ntask = "binary"\ntarget = "died"\nunlabelled = "leave-out"\n'
    (folder / "schema.toml").write_text(top + columns)
    (folder / "source.toml").write_text('format = 1\nlicence = "none"\ncitation = "none"\n')
    (tmp_path / "a.csv").write_text("AGE,died\n17,no\n99,yes\n-1,no\n44,yes\n30,?\n")

    def rows(where: str) -> list[float]:
        source = Csv(str(tmp_path / "a.csv"), where=where, derive={"double": "AGE * 2"})
        mapping = {"age": Field("AGE", missing=("99",)), "died": Field("died", missing=("?",))}
        return Site("a", "ward", source, mapping).inspect()[0]["age"].tolist()

    assert rows("AGE >= 18") == [44, 30] and rows("AGE < 18") == [17] and rows("double > 80") == [44]
    assert rows("missing(died)") == [30] and rows("not missing(AGE) and not missing(died)") == [17, 44]
