"""Mappings of a table to a schema that is there already."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data import datasets
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.cells import AMBIGUOUS
from flfed.rows.data.parsing.fields import ColumnMapping, Field
from flfed.rows.data.schema import Column, Schema
from flfed.rows.proposals.answers import Answers
from flfed.rows.proposals.dialogue import MappingDialogue
from flfed.rows.proposals.fits import describe_quantity
from flfed.rows.proposals.matching import UNKNOWN, Match, mapping_of, name_likeness, propose_mapping
from flfed.rows.proposals.tables import propose_schema
from tests.rows.test_proposed_kinds import TABLES

TARGETS = {
    "ai4i2020": "Machine failure", "bank_marketing": "y", "diabetes130": "readmitted", "druglib": "effectiveness",
    "german_credit": "a21", "uci_heart cleveland": "num", "uci_heart hungarian": "num",
    "uci_taiwan_credit": "default.payment.next.month", "parkinsons_telemonitoring": "total_UPDRS",
    "fate vehicle guest": "y", "fate breast guest": "y", "scms_delivery": "Shipment Mode",
    "uci_energy_efficiency": "Y1", "tetuan_power": "Zone 1 Power Consumption", "flusight admissions": "weekly_rate",
}  # fmt: skip
"""Real tables, and what is predicted in each."""


def mapping_of_matches(matches: Iterable[Match]) -> ColumnMapping:
    return mapping_of((match.column, match.field) for match in matches)


def a_hospital(rows: int = 60) -> pd.DataFrame:
    """Return a hospital's own table: other names, codes and units than the schema's."""
    number = range(rows)
    return pd.DataFrame({
        "PATIENT_NO": [str(100 + n) for n in number], "AGE": [str(40 + n % 40) for n in number],
        "Gender": ["F" if n % 3 else "M" for n in number], "cholesterol": [f"{3 + n / 12:.2f}" for n in number],
        "Resting BP (trestbps)": [str(100 + n) for n in number], "max heart rate": [str(90 + n) for n in number],
        "fbs": ["yes" if n % 4 else "no" for n in number], "cp": [str(1 + n % 4) for n in number],
        "oldpeak": [f"{n / 20:.1f}" for n in number], "Disease": ["present" if n % 2 else "absent" for n in number],
    })  # fmt: skip


def test_columns_are_matched_one_to_one_by_names_values_units_and_ranges():
    schema = datasets.load("heart-disease").schema
    found = {match.column: match for match in propose_mapping(a_hospital(), schema)}
    own = {column: match.own for column, match in found.items()}
    assert own == {
        "age": "AGE", "sex": "Gender", "cp": "cp", "trestbps": "Resting BP (trestbps)", "chol": "cholesterol",
        "fbs": "fbs",
        "restecg": None, "thalach": "max heart rate", "exang": None, "oldpeak": "oldpeak", "slope": None, "ca": None,
        "thal": None, "disease": "Disease",
    }  # fmt: skip
    assert found["chol"].field.multiply == pytest.approx(38.67)
    assert found["sex"].field.values == {"F": "female", "M": "male"}
    # Nobody can know what 1 to 4 mean: a person has to say it, and is asked to.
    assert set(found["cp"].field.values.values()) == {UNKNOWN}
    # The word list knows Gender and cholesterol, and their values agree. The rates could be pressures too.
    sure = {column for column, match in found.items() if match.sure}
    assert sure == {"age", "sex", "chol", "fbs", "oldpeak", "disease"}
    assert "'Resting BP (trestbps)' would fit here too" in found["thalach"].why


def test_a_proposed_mapping_reads_the_table_but_for_what_a_person_has_to_say():
    schema, table = datasets.load("heart-disease").schema, a_hospital()
    mapped, findings = map_table(table, schema, mapping_of_matches(propose_mapping(table, schema)))
    assert {finding.column for finding in findings} == {"cp"}
    assert mapped["chol"].between(116, 310).all() and mapped["sex"].value_counts().to_dict() == {
        "female": 40, "male": 20,
    }  # fmt: skip


def test_the_same_table_needs_no_mapping_and_codes_of_few_rows_are_not_written_down():
    schema = datasets.load("heart-disease").schema
    table = pd.DataFrame(
        {"age": ["50"] * 30, "sex": ["0"] * 15 + ["1"] * 12 + ["rare"] * 3, "disease": ["absent"] * 30}
    )
    found = {match.column: match for match in propose_mapping(table, schema)}
    assert found["age"].sure and set(found["sex"].field.values) == {"0", "1"}
    assert "age" not in mapping_of_matches(list(found.values()))


@pytest.mark.parametrize(("one", "other", "least", "most"), [
    ("age", "AGE", 1, 1), ("chol", "Serum Chol [mmol/L]", 0.8, 0.9), ("sex", "gender", 0.9, 0.9),
    ("thal", "ward", 0, 0.3),
])  # fmt: skip
def test_names_are_alike_by_words_and_known_synonyms(one: str, other: str, least: float, most: float):
    assert least <= name_likeness(one, other) == name_likeness(other, one) <= most


def test_a_number_in_no_unit_that_is_known_is_told_by_how_many_values_fit():
    schema = datasets.load("heart-disease").schema
    table = pd.DataFrame({"age": [str(12 * number) for number in range(60)]})
    (age,) = (match for match in propose_mapping(table, schema) if match.column == "age")
    assert (age.own, age.sure) == ("age", False)
    assert age.why.startswith("the names agree; 13 % of its values lie in the range; the others may be codes")


@cache
def table_and_schema(data: Path, name: str) -> tuple[pd.DataFrame, Schema]:
    """Return at most two thousand rows of a table, and the schema that the half of them has."""
    table = TABLES[name][0](data)
    table = table.sample(min(len(table), 2000), random_state=1)
    return table, propose_schema({"a": table[::2]}, TARGETS[name], name="own").schema


def of_two_sites(data: Path, name: str, share: float = 1.0) -> tuple[Schema, pd.DataFrame]:
    """Return the schema of half of a table's rows, with a share of its features, and the other half."""
    target, (table, schema) = TARGETS[name], table_and_schema(data, name)
    draw = np.random.default_rng(3)
    columns = {key: column for key, column in schema.columns.items() if key == target or draw.random() < share}
    return schema.model_copy(update={"columns": columns}), table[1::2]


def target_of(schema: Schema, table: pd.DataFrame) -> Match:
    return next(match for match in propose_mapping(table, schema) if match.column == schema.target)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_of_another_name_is_found_in_real_tables_and_never_told_as_sure(test_data: Path, name: str):
    schema, table = of_two_sites(test_data, name)
    for other in ("Zielgröße XY", "q17", "outcome"):
        found = target_of(schema, table.rename(columns={schema.target: other}))
        assert (found.own, found.sure) == (other, False), found
        mapped, findings = map_table(table.rename(columns={schema.target: other}), schema, {schema.target: found.field})
        few = sum(len(finding.rows) for finding in findings if finding.column == schema.target)
        assert few <= 0.1 * len(mapped), findings


@pytest.mark.parametrize("name", TARGETS)
def test_where_other_columns_could_be_the_target_no_wrong_one_is_told_as_sure(test_data: Path, name: str):
    schema, table = of_two_sites(test_data, name, share=0.5)
    renamed = table.rename(columns={schema.target: "q17"})
    found, absent = target_of(schema, renamed), target_of(schema, renamed.drop(columns="q17"))
    # A target whose name shares words with the table's other columns is proposed by them.
    assert found.own in ("q17", None) or name == "tetuan_power", found
    assert found.own is not None or "q17" in found.why
    assert not found.sure and not absent.sure
    assert target_of(schema, table).sure or name.startswith("uci_heart cleveland")  # one of its classes is rare


@pytest.mark.parametrize(("cells", "own", "values"), [
    (["ja", "nein"] * 30, "q17", {"ja": "yes", "nein": "no"}), (["1", "0"] * 30, "q17", {"1": "yes", "0": "no"}),
    (["lebt", "tot"] * 30, None, None), (["no"] * 60, None, None), ([str(n) for n in range(60)], None, None),
])  # fmt: skip
def test_yes_and_no_are_read_in_other_words_and_codes_that_could_mean_anything_are_not(cells, own, values):
    ages = [40 + number % 29 for number in range(60)]
    schema = propose_schema({"a": pd.DataFrame({"age": ages, "died": ["yes", "no"] * 30})}, "died", name="own").schema
    found = target_of(schema, pd.DataFrame({"age": ages, "q17": cells}))
    assert (found.own, found.sure) == (own, False)
    assert found.field is None or found.field.values == values
    # A name that speaks of an outcome is proposed, and a person says what its codes mean.
    named = target_of(schema, pd.DataFrame({"age": ages, "outcome": cells}))
    assert named.own == (None if len(set(cells)) != 2 else "outcome") and not named.sure
    assert named.has_unnamed_codes == ("tot" in cells)


def test_no_word_of_few_rows_is_written_into_a_mapping_and_its_column_is_to_be_looked_at():
    schema = datasets.load("heart-disease").schema
    cells = [str(100 + number % 90) for number in range(200)]
    table = pd.DataFrame({"chol": ["see Jane Roe", *cells[1:]], "trestbps": ["pending"] * 10 + cells[10:]})
    found = {match.column: match for match in propose_mapping(table, schema)}
    assert (
        found["chol"].field == Field("chol")
        and not found["chol"].sure
        and "5 cells are no numbers" in found["chol"].why
    )
    assert found["trestbps"].field == Field("trestbps", missing=("pending",)) and not found["trestbps"].sure
    _, findings = map_table(table, schema, mapping_of_matches(list(found.values())), outcome=False)
    assert [(finding.column, finding.rule, len(finding.rows)) for finding in findings] == [
        ("chol", "is not a number", 1)
    ]


@pytest.mark.parametrize(
    ("code", "rows", "missing"), [("999", 12, ("999",)), ("-9", 12, ("-9",)), ("999", 9, ()), ("199", 12, ())]
)
def test_a_number_outside_the_range_is_proposed_as_not_known_where_ten_rows_have_it(code, rows, missing):
    schema = datasets.load("heart-disease").schema
    table = pd.concat([a_hospital(600), a_hospital(rows).assign(**{"Resting BP (trestbps)": code})], ignore_index=True)
    table["Resting BP (trestbps)"] = [str(100 + int(cell) % 90) if cell != code else cell for cell in table.iloc[:, 4]]
    match = next(match for match in propose_mapping(table, schema) if match.column == "trestbps")
    assert match.own == "Resting BP (trestbps)" and match.field is not None and match.field.missing == missing
    assert not match.sure and code not in match.why and ("counts as" in match.why) is bool(missing)
    mapped, findings = map_table(table, schema, {"trestbps": match.field})
    outside = [finding for finding in findings if finding.column == "trestbps"]
    assert int(mapped["trestbps"].isna().sum()) == (0 if code == "199" else rows)
    assert bool(outside) is (not missing and code != "199")


def test_a_range_tells_thousands_from_decimals():
    written = [f"{1 + number / 1000:.3f}" for number in range(1, 300)]
    for low, high, first in ((0, 10, 1.001), (500, 3000, 1001), (0, 3000, None)):
        columns = {"amount": {"kind": "number", "range": [low, high]}, "y": {"kind": "target", "values": ["0", "1"]}}
        schema = Schema.model_validate({"name": "own", "task": "binary", "target": "y", "columns": columns})
        table = pd.DataFrame({"amount": written})
        found = propose_mapping(table, schema)[0]
        assert not found.sure and "could be one of" in found.why
        mapped, findings = map_table(table, schema, mapping_of_matches([found]) | {"y": None}, outcome=False)
        if first is None:
            # Where the range allows both, the draft leaves it to the check to ask.
            assert [one.rule for one in findings] == [AMBIGUOUS]
        else:
            assert findings == [] and mapped["amount"][0] == pytest.approx(first)


def test_an_identifier_is_read_as_one_although_a_few_people_have_many_rows():
    people = [f"P{number // 12}" for number in range(300)]
    columns = {"pid": {"kind": "id"}, "y": {"kind": "target", "values": ["0", "1"]}}
    given = {"name": "own", "task": "binary", "target": "y", "group": "pid", "columns": columns}
    schema = Schema.model_validate(given)
    table = pd.DataFrame({"pid": [*people, "rare"], "y": np.arange(301) % 2})
    dialogue = MappingDialogue(table, schema, Answers())
    dialogue.correct("pid=pid")
    mapped, findings = map_table(table, schema, dialogue.mapping())
    assert findings == [] and mapped["pid"].nunique() == 26


def test_a_column_without_a_unit_is_converted_from_none():
    assert describe_quantity(Column(kind="number", range=(0, 5)), {"creatinine"}).conversions == ()
    percent = describe_quantity(Column(kind="number", range=(0, 5), unit="%"), {"share"}).conversions
    assert "basis points" in [conversion.unit for conversion in percent]
