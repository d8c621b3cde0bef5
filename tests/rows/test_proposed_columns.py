"""Identifiers, people's names, row counters and what is offered as group or time, in a proposal for a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.fields import Field
from flfed.rows.proposals.columns import propose_column
from flfed.rows.proposals.tables import propose_schema
from flfed.rows.proposals.texts import schema_text

ROWS = 600


def drawn(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain(rows: int = ROWS) -> pd.DataFrame:
    """A table of an outcome and one feature."""
    age = drawn().normal(60, 10, rows).round(1)
    return pd.DataFrame({"age": age, "died": np.where(drawn(2).random(rows) < 0.4, "yes", "no")})


@pytest.mark.parametrize("heading", ["is_recid", "outcomeid", "dischargeid"])
def test_a_column_of_few_codes_that_tells_the_outcome_is_a_leak_whatever_its_heading(heading):
    table = plain()
    codes = np.where(
        table["died"] == "yes", 1, np.where(drawn(3).random(ROWS) < 0.1, 1, drawn(4).choice([-1, 0], ROWS))
    )
    table[heading] = codes
    found = propose_schema({"a": table}, "died", name="own")
    assert set(found.leaks) == {heading} and "outcome" in found.leaks[heading]
    assert found.schema.columns[heading].leak and heading not in found.schema.features()


def test_a_heading_of_identifiers_that_tells_nothing_stays_one():
    table = plain().assign(hospitalid=drawn(5).choice(20, ROWS, p=drawn(6).dirichlet(np.ones(20))))
    found = propose_schema({"a": table}, "died", name="own")
    assert dict(found.leaks) == {} and found.columns["hospitalid"].kind == "id"


@pytest.mark.parametrize("ages", [drawn().integers(9, 45, ROWS) * 2, drawn().integers(18, 90, ROWS)])
def test_an_age_at_index_is_no_identifier(ages):
    assert propose_column("age_at_index", pd.Series(ages)).kind == "number"
    assert propose_column("patient_index", pd.Series(drawn().permutation(ROWS) // 2)).kind == "id"


@pytest.mark.parametrize("copied", [slice(25), slice(None), slice(0)])
@pytest.mark.parametrize(("heading", "ids"), [
    ("number", np.arange(1, ROWS + 1)), ("number", 1000 + drawn(5).permutation(ROWS) * 30),
    ("pid", drawn(6).integers(1, 9999, ROWS)), ("kvnr", [f"A{number:09d}" for number in drawn(7).permutation(ROWS)]),
])  # fmt: skip
def test_an_identifier_is_found_although_rows_were_exported_twice(heading, ids, copied):
    table = plain().assign(**{heading: ids}, seen=drawn(8).integers(0, 9, ROWS))
    table = pd.concat([table, table[copied]], ignore_index=True)
    found = propose_schema({"a": table}, "died", name="own")
    assert found.columns[heading].kind == "id" and found.schema.features() == ("age", "seen")


def test_numbers_with_marks_between_thousands_are_no_feature_under_a_heading_of_identifiers():
    written = [f"{101 + row // 3}.{row * 37 % 1000:03d}" for row in range(ROWS)]
    table = plain().assign(age=[str(age).replace(".", ",") for age in plain()["age"]], patid=written, cost=written)
    found = propose_schema({"a": table}, "died", name="own")
    assert found.columns["patid"].kind == "id" and found.schema.features() == ("age", "cost")


def test_rows_that_are_alike_by_few_values_are_no_copies():
    table = pd.DataFrame({"ward": drawn(1).integers(0, 30, ROWS), "died": np.where(drawn(2).random(ROWS) < 0.4, 1, 0)})
    found = propose_schema({"a": table.assign(age=drawn(3).integers(20, 90, ROWS))}, "died", name="own")
    assert [found.columns[name].kind for name in ("ward", "age")] == ["number", "number"]


@pytest.mark.parametrize("cut", ["files", "column"])
def test_a_row_counter_that_restarts_at_each_site_is_left_out(cut):
    table = plain().assign(nr_in_list=np.r_[1:251, 1:351], visits=drawn(7).poisson(60, ROWS))
    if cut == "files":
        tables = {"a": table[:250], "b": table[250:]}
        found = propose_schema(tables, "died", name="own")
    else:
        mixed = table.assign(ward=np.repeat(["north", "south"], [250, 350])).sample(frac=1, random_state=3)
        found = propose_schema({"a": mixed.reset_index(drop=True)}, "died", name="own", leave_out=["ward"])
    assert found.schema.features() == ("age", "visits")
    assert "counts the rows within each file or site" in found.columns["nr_in_list"].why
    assert found.offers == ()
    kept = propose_schema({"a": table.assign(nr_in_list=table["visits"])}, "died", name="own")
    assert "nr_in_list" in kept.schema.features()


SURNAMES = [f"{first}{last}" for first in ("Ha", "Lin", "Berg", "Sol", "Ek") for last in ("sen", "stad", "dal", "man")]


@pytest.mark.parametrize(
    "heading",
    ["etternavn", "Fornavn", "efternamn", "Förnamn", "sukunimi", "Nachname", "vorname", "achternaam", "nom", "Prénom",
     "pasient_etternavn", "PatientSurname", "nurse", "attending physician", "doctor", "surgeon", "sykepleier",
     "Hausarzt", "treatingNurseName"],
)  # fmt: skip
def test_headings_of_people_are_known_where_the_texts_look_like_names(heading):
    names = pd.Series(drawn(8).choice(SURNAMES, ROWS))
    found = propose_column(heading, names)
    assert (found.kind, found.feature) == ("id", None) and "people's names" in found.why
    assert "Berg" not in found.why


@pytest.mark.parametrize(
    "heading", ["name", "Name", "navn", "pat_name", "PatientName", "Name des Patienten", "Nachname"]
)
@pytest.mark.parametrize("texts", [SURNAMES, SURNAMES[:4]])
def test_a_heading_that_says_name_is_left_out_however_few_the_texts(heading, texts):
    found = propose_column(heading, pd.Series(drawn(8).choice(texts, ROWS)))
    assert found.kind == "id" and found.sure and found.feature is None
    assert propose_column(heading, pd.Series(np.resize(texts, ROWS)), keep=True).kind == "category"


@pytest.mark.parametrize("heading", ["education_years", "Years of education", "Schuljahre", "edu (yrs)"])
@pytest.mark.parametrize("years", [range(4, 21), [8, 9, 10, 12, 13, 16], [10, 13, 16]])
def test_whole_years_of_education_are_numbers(heading, years):
    found = propose_column(heading, pd.Series(drawn(8).choice(years, ROWS)))
    assert (found.kind, found.sure) == ("number", len(years) > 12)
    assert propose_column("education_level", pd.Series(drawn(8).choice(years, ROWS))).kind == "category"


@pytest.mark.parametrize(
    ("heading", "texts"),
    [("nurse", ["day", "night"]), ("surgeon", ["General", "Vascular", "Cardiac"]), ("doctor", ["yes", "no"]),
     ("drug name", SURNAMES), ("nom", ["oui", "non", "peut-être"]), ("judge", [f"panel {n}" for n in range(20)])],
)  # fmt: skip
def test_other_texts_under_such_a_heading_are_values(heading, texts):
    assert propose_column(heading, pd.Series(drawn(9).choice(texts, ROWS))).kind in ("category", "flag")


def test_people_who_repeat_are_offered_as_a_group_and_ordered_dates_as_time():
    people = drawn(10).permutation(np.arange(ROWS) // 3)
    table = plain().assign(
        mrn=[f"K{number:05d}" for number in people], seen=pd.date_range("2021-01-01", periods=ROWS).astype(str)
    )
    found = propose_schema({"a": table}, "died", name="own")
    said = {offer.option: str(offer) for offer in found.offers}
    assert said["group"].startswith("600 rows have 200 values of 'mrn'. ") and said["group"].endswith(": --group mrn")
    assert said["time"].endswith(": --time seen")
    assert found.schema.group == "" and "# Not applied: " in schema_text(found) and "K0" not in schema_text(found)
    # Many rows of each are of people where the heading says so.
    few = propose_schema({"a": table.assign(subject=drawn(13).integers(0, 30, ROWS))}, "died", name="own").offers
    assert [offer.column for offer in few] == ["mrn", "subject", "seen"]
    named = propose_schema({"a": table}, "died", name="own", group="mrn", time="seen")
    assert named.offers == ()


PEOPLE = np.r_[np.zeros(12, int), np.arange(12, ROWS) // 3]


@pytest.mark.parametrize(("ids", "missing"), [
    ([f"P{number}" for number in PEOPLE], ()), (PEOPLE, ()), (np.repeat(np.arange(60), 10), ()),
    (np.repeat(["ja", "nein"], 300), ()), (np.arange(ROWS) % 300 + 1, ()),
    (["unknown" if number % 9 == 0 else f"{1_000 + number}" for number in PEOPLE], ("unknown",)),
    ([f"{1 + number},5" for number in PEOPLE], ()),
])  # fmt: skip
def test_a_group_is_read_as_identifiers_whatever_else_its_cells_could_be(ids, missing):
    table = plain().assign(pid=ids)
    found = propose_schema({"a": table[:300], "b": table[300:]}, "died", name="own", group="pid")
    field = found.columns["pid"].field
    assert field == (Field("pid", missing=missing) if missing else None)
    read, _ = map_table(table, found.schema, found.mapping_of(table))
    assert read["pid"].nunique() == pd.Series(ids)[~pd.Series(ids).isin(missing)].nunique()


def test_nothing_is_offered_of_rows_in_no_order_and_of_places():
    days = drawn(11).permutation(pd.date_range("2021-01-01", periods=ROWS).astype(str))
    table = plain().assign(seen=days, clinicid=drawn(12).integers(1, 25, ROWS), code=[f"K{n:05d}" for n in range(ROWS)])
    assert propose_schema({"a": table}, "died", name="own").offers == ()
    # In the order of each file, and of each site.
    by_site = plain().assign(seen=np.tile(pd.date_range("2021-01-01", periods=300).astype(str), 2))
    assert propose_schema({"a": by_site[:300], "b": by_site[300:]}, "died", name="own").offers[0].column == "seen"
