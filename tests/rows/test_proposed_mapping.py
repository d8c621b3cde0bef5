"""Mappings of a table to a schema that is there already."""

from __future__ import annotations

import pandas as pd
import pytest

from flfed.rows.data import datasets
from flfed.rows.data.mapping import map_table
from flfed.rows.proposals.matching import UNKNOWN, mapping_of, name_likeness, propose_mapping


def a_hospital(rows: int = 60) -> pd.DataFrame:
    """Return a hospital's own table: other names, codes and units than the schema's."""
    number = range(rows)
    return pd.DataFrame(
        {
            "PATIENT_NO": [str(100 + n) for n in number], "AGE": [str(40 + n % 40) for n in number],
            "Gender": ["F" if n % 3 else "M" for n in number], "cholesterol": [f"{3 + n / 12:.2f}" for n in number],
            "Resting BP (trestbps)": [str(100 + n) for n in number], "max heart rate": [str(90 + n) for n in number],
            "fbs": ["yes" if n % 4 else "no" for n in number], "cp": [str(1 + n % 4) for n in number],
            "oldpeak": [f"{n / 20:.1f}" for n in number], "Disease": ["present" if n % 2 else "absent" for n in number],
        }
    )  # fmt: skip


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
    assert {column for column, match in found.items() if match.sure} == {"age", "fbs", "oldpeak", "disease"}


def test_a_proposed_mapping_reads_the_table_but_for_what_a_person_has_to_say():
    schema, table = datasets.load("heart-disease").schema, a_hospital()
    mapped, findings = map_table(table, schema, mapping_of(propose_mapping(table, schema)))
    assert {finding.column for finding in findings} == {"cp"}
    assert mapped["chol"].between(116, 310).all() and mapped["sex"].value_counts().to_dict() == {
        "female": 40,
        "male": 20,
    }


def test_the_same_table_needs_no_mapping_and_codes_of_few_rows_are_not_written_down():
    schema = datasets.load("heart-disease").schema
    table = pd.DataFrame(
        {"age": ["50"] * 30, "sex": ["0"] * 15 + ["1"] * 12 + ["rare"] * 3, "disease": ["absent"] * 30}
    )
    found = {match.column: match for match in propose_mapping(table, schema)}
    assert found["age"].sure and set(found["sex"].field.values) == {"0", "1"}
    assert "age" not in mapping_of(list(found.values()))


@pytest.mark.parametrize(
    ("one", "other", "least", "most"),
    [
        ("age", "AGE", 1, 1),
        ("chol", "Serum Chol [mmol/L]", 0.8, 0.9),
        ("sex", "gender", 0.9, 0.9),
        ("thal", "ward", 0, 0.3),
    ],
)
def test_names_are_alike_by_words_and_known_synonyms(one: str, other: str, least: float, most: float):
    assert least <= name_likeness(one, other) == name_likeness(other, one) <= most


def test_a_number_in_no_unit_that_is_known_is_told_by_how_many_values_fit():
    schema = datasets.load("heart-disease").schema
    table = pd.DataFrame({"age": [str(12 * number) for number in range(60)]})
    (age,) = (match for match in propose_mapping(table, schema) if match.column == "age")
    assert (age.own, age.sure) == ("age", False)
    assert age.why == "the names agree; 13 % of its values lie in the range; another unit?"
