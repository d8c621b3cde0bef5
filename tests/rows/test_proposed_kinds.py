"""Kinds that are proposed for the columns of real tables, held against what their documentation says."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flfed.errors import UsageError
from flfed.rows.data.mapping import map_table, read_column
from flfed.rows.data.parsing.cells import AMBIGUOUS
from flfed.rows.data.parsing.fields import Field
from flfed.rows.data.sources import Excel
from flfed.rows.proposals.columns import ColumnProposal, propose_column, round_outward
from flfed.rows.proposals.tables import propose_schema
from flfed.rows.proposals.texts import schema_text

HEART = [
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca"),
    "thal", "num",
]  # fmt: skip
CODES, ORDINAL = "category", "category number"
"""What a coded or a graded column may be; a number may be a category where its few values are grades."""
HEART_KINDS = {
    **dict.fromkeys(("age", "trestbps", "chol", "thalach", "oldpeak"), "number left-out"),
    **dict.fromkeys(("sex", "fbs", "exang"), "flag category"),
    **dict.fromkeys(("cp", "restecg", "slope", "thal"), CODES),
    "ca": "number left-out", "num": "category flag",
}  # fmt: skip


Read = Callable[[Path], pd.DataFrame]


def text(path: Path, **more: object) -> pd.DataFrame:
    options = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"} | more
    return pd.read_csv(path, **options)


def zipped(path: Path, *inner: str, **more: object) -> pd.DataFrame:
    content = path.read_bytes()
    for name in inner:
        content = zipfile.ZipFile(io.BytesIO(content)).read(name)
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, **more)


def named(count: int, letter: str = "x", first: int = 0) -> list[str]:
    return [f"{letter}{number}" for number in range(first, first + count)]


def all_of(names: str, kind: str) -> dict[str, str]:
    return dict.fromkeys(names.split(", "), kind)


TABLES: dict[str, tuple[Read, dict[str, str]]] = {
    "ai4i2020": (
        lambda data: text(data / "ai4i2020/ai4i2020.csv"),
        all_of("UDI, Product ID", "id")
        | all_of("Machine failure, TWF, HDF, PWF, OSF, RNF", "flag")
        | {"Type": CODES}
        | all_of("Air temperature [K], Process temperature [K], Rotational speed [rpm]", "number")
        | all_of("Torque [Nm], Tool wear [min]", "number"),
    ),
    "bank_marketing": (
        lambda data: zipped(data / "bank_marketing/bank+marketing.zip", "bank.zip", "bank-full.csv", sep=";"),
        all_of("age, balance, duration, campaign, pdays, previous", "number")
        | all_of("job, marital, education, contact, month, poutcome", CODES)
        | all_of("default, housing, loan, y", "flag")
        | {"day": ORDINAL},
    ),
    "bank_marketing additional": (
        lambda data: zipped(
            data / "bank_marketing/bank+marketing.zip", "bank-additional.zip",
            "bank-additional/bank-additional-full.csv", sep=";",
        ),
        all_of("age, duration, campaign, pdays, previous", "number")
        | all_of("emp.var.rate, cons.price.idx, cons.conf.idx, euribor3m, nr.employed", "number")
        | all_of("job, marital, education, default, housing, loan, contact, month, day_of_week, poutcome", CODES)
        | {"y": "flag"},
    ),
    "diabetes130": (
        lambda data: zipped(data / "diabetes130/dataset_diabetes.zip", "dataset_diabetes/diabetic_data.csv"),
        all_of("encounter_id, patient_nbr", "id")
        | all_of("admission_type_id, discharge_disposition_id, admission_source_id", CODES)
        | all_of("diag_1, diag_2, diag_3, medical_specialty, payer_code, race, gender, age, weight", CODES)
        | all_of("time_in_hospital, num_lab_procedures, num_procedures, num_medications", "number")
        | all_of("number_outpatient, number_emergency, number_inpatient, number_diagnoses", "number")
        | all_of("max_glu_serum, A1Cresult, change, readmitted, insulin, metformin, glipizide, glyburide", CODES)
        | all_of("examide, citoglipton", "left-out")
        | {"diabetesMed": "flag"},
    ),
    "druglib": (
        lambda data: text(data / "druglib/drugLibTrain_raw.tsv", sep="\t"),
        {"Unnamed: 0": "id", "rating": ORDINAL}
        | all_of("urlDrugName, effectiveness, sideEffects, condition", CODES)
        | all_of("benefitsReview, sideEffectsReview, commentsReview", "id"),
    ),
    "german_credit": (
        lambda data: text(data / "german_credit/german.data", sep=r"\s+", header=None, names=named(21, "a", 1)),
        all_of("a1, a3, a4, a6, a7, a9, a10, a12, a14, a15, a17, a19, a20, a21", CODES)
        | all_of("a2, a5, a13", "number")
        | all_of("a8, a11, a16, a18", ORDINAL),
    ),
    **{
        f"uci_heart {name}": (
            lambda data, name=name: text(data / f"uci_heart/processed.{name}.data", header=None, names=HEART),
            HEART_KINDS,
        )
        for name in ("cleveland", "hungarian", "switzerland", "va")
    },
    "uci_taiwan_credit": (
        lambda data: text(data / "uci_taiwan_credit/UCI_Credit_Card.csv"),
        {"ID": "id", "default.payment.next.month": "flag", "LIMIT_BAL": "number", "AGE": "number"}
        | all_of("SEX, EDUCATION, MARRIAGE", CODES)
        | dict.fromkeys(["PAY_0", *(f"PAY_{month}" for month in range(2, 7))], ORDINAL)
        | dict.fromkeys([f"{what}_AMT{month}" for what in ("BILL", "PAY") for month in range(1, 7)], "number"),
    ),
    "parkinsons_telemonitoring": (
        lambda data: text(data / "parkinsons_telemonitoring/parkinsons_updrs.data"),
        {"subject#": "id", "sex": "flag category"}
        | all_of("age, test_time, motor_UPDRS, total_UPDRS, Jitter(%), Jitter(Abs), Jitter:RAP, Shimmer", "number")
        | all_of("Shimmer(dB), NHR, HNR, RPDE, DFA, PPE", "number"),
    ),
    "fate student guest": (
        lambda data: text(data / "fate_examples/student_hetero_guest.csv"),
        {"id": "id", "y": "number", "x0": "number"} | dict.fromkeys(named(5, first=1), ORDINAL),
    ),
    "fate vehicle guest": (
        lambda data: text(data / "fate_examples/vehicle_scale_hetero_guest.csv"),
        {"id": "id", "y": CODES} | dict.fromkeys(named(9), "number"),
    ),
    "fate breast guest": (
        lambda data: text(data / "fate_examples/breast_hetero_guest.csv"),
        {"id": "id", "y": "flag"} | dict.fromkeys(named(10), "number"),
    ),
    "fate breast host": (
        lambda data: text(data / "fate_examples/breast_hetero_host.csv"),
        {"id": "id"} | dict.fromkeys(named(20), "number"),
    ),
    "flusight admissions": (
        lambda data: text(data / "flusight/target-hospital-admissions.csv"),
        {"date": "date", "location": CODES, "location_name": CODES, "value": "number", "weekly_rate": "number"},
    ),
    "flusight visits": (
        lambda data: text(data / "flusight/target-ed-visits-prop.csv"),
        {"date": "date", "location": CODES, "location_name": CODES, "value": "number"},
    ),
    "flusight locations": (
        lambda data: text(data / "flusight/locations.csv"),
        all_of("abbreviation, location, location_name", "id category") | {"population": "number"},
    ),
    "fraud_handbook": (
        lambda data: pd.read_parquet(data / "fraud_handbook/transactions.parquet").head(50_000),
        all_of("TRANSACTION_ID, CUSTOMER_ID, TERMINAL_ID", "id")
        | {"TX_DATETIME": "date", "TX_FRAUD": "flag", "TX_FRAUD_SCENARIO": CODES}
        | all_of("TX_AMOUNT, TX_TIME_SECONDS, TX_TIME_DAYS", "number"),
    ),
    "ulb_fraud_subset": (
        lambda data: pd.read_parquet(data / "ulb_fraud_subset/first_3973.parquet"),
        dict.fromkeys(["Time", "Amount", *named(28, "V", 1)], "number") | {"Class": "flag"},
    ),
    "scms_delivery": (
        lambda data: text(data / "scms_delivery/SCMS_Delivery_History_Dataset.csv"),
        all_of("ID, PQ #, PO / SO #, ASN/DN #", "id")
        | all_of("Country, Managed By, Fulfill Via, Vendor INCO Term, Shipment Mode, Product Group, Vendor", CODES)
        | all_of("Project Code, Sub Classification, Item Description, Molecule/Test Type, Brand, Dosage", CODES)
        | all_of("Dosage Form, Manufacturing Site", CODES)
        | all_of("PQ First Sent to Client Date, PO Sent to Vendor Date, Scheduled Delivery Date", "date")
        | all_of("Delivered to Client Date, Delivery Recorded Date", "date")
        | all_of("Unit of Measure (Per Pack), Line Item Quantity, Line Item Value, Pack Price, Unit Price", "number")
        | all_of("Weight (Kilograms), Freight Cost (USD), Line Item Insurance (USD)", "number")
        | {"First Line Designation": "flag"},
    ),
    "uci_energy_efficiency": (
        lambda data: Excel(str(data / "uci_energy_efficiency/ENB2012_data.xlsx")).read(()),
        all_of("X1, X2, X3, X4, X5, X7, Y1, Y2", "number category") | all_of("X6, X8", ORDINAL),
    ),
    "tetuan_power": (
        lambda data: text(data / "tetuan_power/Tetuan City power consumption.csv"),
        all_of("Temperature, Humidity, Wind Speed, Zone 1 Power Consumption", "number") | {"DateTime": "date"},
    ),
    "nasa_cmapss": (
        lambda data: text(
            data / "nasa_cmapss/train_FD001.txt", sep=r"\s+", header=None,
            names=["unit number", "cycles", *named(3, "setting"), *named(21, "sensor", 1)],
        ),
        {"unit number": "id", "cycles": "number", "setting0": "number", "setting1": "number", "sensor2": "number"}
        | {"setting2": "left-out", "sensor1": "left-out", "sensor6": "number"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def proposed(test_data: Path) -> dict[tuple[str, str], tuple[ColumnProposal, str]]:
    """Return, by table and column: what is proposed, and what it may be."""
    found = {}
    for name, (read, kinds) in TABLES.items():
        table = read(test_data)
        assert set(kinds) <= set(table.columns), name
        for column, allowed in kinds.items():
            proposal = propose_column(column, table[column])
            found[name, column] = proposal, allowed
    return found


def test_the_proposed_kind_is_right_for_95_of_100_columns_of_real_tables(proposed: dict):
    wrong = {
        place: (one.kind, allowed) for place, (one, allowed) in proposed.items() if one.kind not in allowed.split()
    }
    assert len(proposed) > 300 and len(wrong) <= 0.05 * len(proposed), wrong


def test_a_kind_that_is_wrong_is_never_told_as_sure(proposed: dict):
    sure = {place: (one.kind, allowed) for place, (one, allowed) in proposed.items() if one.sure}
    assert len(sure) > 200
    assert {place: kinds for place, kinds in sure.items() if kinds[0] not in kinds[1].split()} == {}


def test_few_columns_of_real_tables_are_doubted_for_their_least_or_greatest_values(proposed: dict):
    hints = {place for place, (one, _) in proposed.items() if "rows lie" in one.why}
    assert not any("outside of the range" in one.why for one, _ in proposed.values())
    assert len([one for one, _ in proposed.values() if one.kind == "number"]) > 150
    # A pressure of 0, the cholesterol of 564, days before the first one, and two columns without a unit.
    assert hints == {
        ("uci_heart va", "trestbps"), ("uci_heart va", "oldpeak"), ("uci_heart cleveland", "chol"),
        ("parkinsons_telemonitoring", "test_time"), ("fate vehicle guest", "x4"), ("ulb_fraud_subset", "V26"),
    }  # fmt: skip


def test_a_table_reads_without_a_fault_by_its_own_proposal(test_data: Path):
    targets = {"ai4i2020": "Machine failure", "druglib": "rating", "german_credit": "a21", "uci_heart hungarian": "num"}
    targets |= {"scms_delivery": "Line Item Quantity", "flusight admissions": "weekly_rate", "bank_marketing": "y"}
    for name, target in targets.items():
        table = TABLES[name][0](test_data)
        made = propose_schema({"a": table}, target, name="own")
        mapped, findings = map_table(table, made.schema, made.mapping(list(table.columns)))
        assert (name, [(finding.column, finding.rule) for finding in findings]) == (name, [])
        assert len(mapped) == len(table)
        assert mapped[made.schema.features()[0]].notna().any()


def test_no_value_of_fewer_than_ten_rows_and_no_end_of_a_range_is_written_down():
    rng = np.random.default_rng(5)
    wards = rng.choice(["north", "south"], 500).astype(object)
    wards[:9], wards[9:19] = "rare", "ten rows"
    ages = rng.uniform(31.37, 88.91, 500)
    table = pd.DataFrame({"ward": wards, "age": ages, "died": rng.random(500) < 0.3})
    made = propose_schema({"a": table}, "died", name="own")
    assert set(made.schema.columns["ward"].values) == {"north", "south", "ten rows", "other"}
    assert made.columns["ward"].unlisted == 9
    low, high = made.schema.columns["age"].range
    assert low < ages.min() and high > ages.max() and low == round(low) and high == round(high)
    mapped, findings = map_table(table, made.schema, made.mapping(list(table.columns)))
    assert findings == [] and (mapped["ward"] == "other").sum() == 9
    assert set(made.schema.unconfirmed) == {"ward", "age"}


@pytest.mark.parametrize(("cells", "kind", "sure"), [
    (["1,5", "2,75", "3,0"] * 20, "number", True), (["<0.5", "1.5", "> 89", "2.25"] * 20, "number", False),
    ([f"{day:02d}.{day % 12 + 1:02d}.2024" for day in range(1, 29)] * 3, "date", True),
    ([f"{day:02d}/0{day % 9 + 1}/2024" for day in range(1, 10)] * 3, "date", False),
    (["2024-01-31", "", "2024-02-01"] * 10, "date", True), (["Y", "N", ""] * 20, "flag", True),
    ([f"P-{number:04d}" for number in range(90)], "id", True), ([str(number) for number in range(90)], "id", True),
    (["01067", "80331", "20095"] * 30, "category", False),
    (["x"] * 60, "left-out", True), ([""] * 60, "left-out", True), ([True, False, None] * 20, "flag", True),
    ([str(1.5 * n) for n in range(40)] + ["not done"] * 20, "number", True),
    (pd.to_datetime(["2024-01-01", "2024-05-01", None] * 20), "date", True),
])  # fmt: skip
def test_cells_in_many_ways_of_writing_are_told(cells: object, kind: str, sure: bool):
    found = propose_column("value", pd.Series(cells))
    assert (found.kind, found.sure) == (kind, sure), found


NUMBERS = [f"{5 + number / 100:.2f}" for number in range(300)]


@pytest.mark.parametrize(("others", "missing", "sure"), [
    (["see Jane Roe"], (), False), (["see Jane Roe"] * 9, (), False), (["pending"] * 10, ("pending",), False),
    (["n/a", "unknown"], ("n/a", "unknown"), True), (["pending"] * 10 + ["Dr Roe", "-"], ("-", "pending"), False),
])  # fmt: skip
def test_a_word_between_numbers_is_a_code_where_ten_rows_have_it(others: list[str], missing: tuple, sure: bool):
    table = pd.DataFrame({"lab": NUMBERS + others, "died": (["yes", "no"] * 200)[: 300 + len(others)]})
    made = propose_schema({"a": table}, "died", name="own")
    found = made.columns["lab"]
    assert (found.kind, found.sure) == ("number", sure) and "Roe" not in found.why + schema_text(made)
    assert (found.field.missing if found.field else ()) == missing
    told = [word for word in missing if f"{word!r} ({others.count(word)} rows)" in found.why]
    assert told == [word for word in missing if others.count(word) >= 10]
    mapped, findings = map_table(table, made.schema, made.mapping(list(table.columns)))
    strays = sum(others.count(word) for word in {"see Jane Roe", "Dr Roe"})
    assert [(finding.rule, len(finding.rows)) for finding in findings] == [("is not a number", strays)][: strays > 0]
    assert int(mapped["lab"].notna().sum()) == 300
    own = table.assign(died=table["lab"], age=np.arange(len(table)) % 50 / 2)
    target = propose_schema({"a": own}, "died", name="own").target
    named = sum(others.count(word) for word in missing)
    assert (target.task, target.sure, target.unlabelled) == ("regression", sure, named)


def test_a_rare_word_among_numbers_that_are_codes_is_another():
    cells = pd.Series([str(10 * (number % 18)) for number in range(540)] + ["see Jane Roe"])
    found = propose_column("type_code", cells)
    assert found.kind == "category" and "see Jane Roe" not in found.column.values and found.unlisted == 1
    read, findings = read_column(cells, "type_code", found.column, found.field)
    assert findings == [] and read[-1] == "other"


@pytest.mark.parametrize(
    ("value", "rows", "missing", "high"),
    [(481516.23, 2, (), 8), (481516.23, 3, (), 500_000), (999.0, 2, (), 8), (999.0, 10, (999.0,), 8)],
)
def test_a_number_far_from_all_others_is_written_down_where_it_is_a_code_of_ten_rows(value, rows, missing, high):
    found = propose_column("lab", pd.Series(NUMBERS + [str(value)] * rows))
    assert found.kind == "number" and not found.sure and "far from all others" in found.why
    assert ("outside of the range" in found.why) is (rows == 2)
    assert found.column.missing == missing and found.column.range[1] == high and str(value) not in found.why


def german(amounts: object) -> list[str]:
    """Return amounts with a "." between thousands."""
    return [f"{amount:,}".replace(",", ".") for amount in amounts]


AMOUNTS = np.random.default_rng(3).integers(200, 5000, 400)


@pytest.mark.parametrize(("cells", "values", "sure"), [
    (german(AMOUNTS), AMOUNTS, False), (german(AMOUNTS // 500 * 500), AMOUNTS // 500 * 500, False),
    ([f"{amount:,}" for amount in AMOUNTS], AMOUNTS, False), (german(AMOUNTS * 1000), AMOUNTS * 1000, True),
    ([f"{1 + amount / 1e5:.3f}" for amount in AMOUNTS], np.round(1 + AMOUNTS / 1e5, 3), False),
    ([f"{amount / 1000:.3f}" for amount in AMOUNTS], AMOUNTS / 1000, True),
    ([f"{amount / 100:.2f}" for amount in AMOUNTS], AMOUNTS / 100, True),
    # Both marks, as of two tables: nobody can tell, but they are not a mixture of decimals and thousands.
    (["1.250", "2,375", "3.125", "4,875"] * 100, np.array([1.25, 2.375, 3.125, 4.875] * 100), False),
])  # fmt: skip
def test_marks_before_three_digits_are_read_one_way_and_the_other_is_told(cells, values, sure):
    found = propose_column("amount", pd.Series(cells))
    assert (found.kind, found.sure) == ("number", sure), found
    assert sure or ("thousands" in found.why and "decimals" in found.why)
    read, findings = read_column(pd.Series(cells), "amount", found.column, found.field or Field("amount"))
    assert findings == []
    np.testing.assert_allclose(read, values, rtol=1e-12)


def marked(style: str, numbers: np.ndarray) -> list[str]:
    """Return whole numbers (a thousandth of each for decimals) as one country writes them."""
    if style.startswith("decimals"):
        return [f"{number / 1000:.3f}".replace(".", style[-1]) for number in numbers]
    return (
        german(numbers) if style == "german" else [f"{number:{'' if style == 'plain' else ','}}" for number in numbers]
    )


@pytest.mark.parametrize(("sites", "factor"), [
    ([("german", ",")], 1), ([("english", ".")], 1), ([("decimals.", ".")], 1000), ([("decimals,", ",")], 1000),
    ([("german", ","), ("english", ".")], 1), ([("german", ""), ("plain", "")], 1),
    ([("german", ""), ("german", ",")], 1), ([("decimals,", ","), ("decimals.", "")], 1000),
    ([("german", "")], None), ([("english", "")], None), ([("german", ""), ("english", "")], None),
])  # fmt: skip
def test_marks_are_read_by_other_columns_or_sites_else_the_check_asks(sites: list[tuple[str, str]], factor: int | None):
    amounts = np.random.default_rng(6).integers(1000, 9999, 300)
    heat = np.random.default_rng(7).normal(37, 1, 300)
    tables = {
        str(place): pd.DataFrame({
            "amount": marked(style, amounts), "died": np.where(amounts % 3, "yes", "no"),
            "heat": [f"{degrees:.1f}".replace(".", mark) if mark else f"{degrees:.0f}" for degrees in heat],
        })
        for place, (style, mark) in enumerate(sites)
    }  # fmt: skip
    found = propose_schema(tables, "died", name="own")
    assert not found.columns["amount"].sure and "three digits" in found.columns["amount"].why
    for table in tables.values():
        mapped, findings = map_table(table, found.schema, found.mapping_of(table))
        if factor:
            assert findings == []
            np.testing.assert_allclose(mapped["amount"], amounts / factor)
        else:
            assert [(one.column, one.rule) for one in findings] == [("amount", AMBIGUOUS)]
    target = propose_schema(tables, "amount", name="own", task="regression")
    assert target.schema.columns["amount"].range == found.schema.columns["amount"].range


LETTERS = str.maketrans("0123456789", "abcdefghij")


@pytest.mark.parametrize(
    "texts", [[f"{n:,}" for n in range(1000, 41_000)], [str(n).translate(LETTERS) for n in range(40_000)]]
)
def test_many_distinct_texts_are_looked_at_once(texts: list[str]):
    # 0.2 s of CPU; each text held against all others takes more than ten.
    began = time.process_time()
    propose_column("value", pd.Series(texts))
    assert time.process_time() - began < 5


def test_whole_numbers_that_are_days_are_proposed_as_dates():
    days = pd.date_range("2023-01-01", periods=500).strftime("%Y%m%d").tolist()
    for cells in (pd.Series(days), pd.Series(days).astype(int), pd.Series([*days, "-"])):
        found = propose_column("seen", cells)
        assert (found.kind, found.sure) == ("date", False)
        read, findings = read_column(cells, "seen", found.column, found.field or Field("seen"))
        assert findings == [] and str(read[31])[:10] == "2023-02-01"
    # Days that the calendar does not have, or a code, make a number of it: one to be looked at.
    for more in (["20230231"], ["0"], ["99999999"] * 12):
        found = propose_column("seen", pd.Series(days * 2 + more))
        assert (found.kind, found.sure) == ("number", False) and "could be dates" in found.why


@pytest.mark.parametrize(
    ("ends", "rounded"), [((29, 77), (25, 80)), ((0.021, 0.97), (0, 1)), ((-3, 4), (-3, 4)), ((0, 1e6), (0, 1e6))]
)
def test_ranges_are_rounded_outward(ends: tuple[float, float], rounded: tuple[float, float]):
    found = round_outward(*ends)
    assert found == rounded and found[0] <= ends[0] and found[1] >= ends[1]


def test_a_sheet_of_excel_reads_as_the_same_table_in_csv(tmp_path: Path):
    table = pd.DataFrame({"age": [50, 61, None], "ward": ["A", "B", "A"], "seen": pd.to_datetime(["2024-01-31"] * 3)})
    with pd.ExcelWriter(tmp_path / "a.xlsx") as book:
        pd.DataFrame({"other": [1]}).to_excel(book, sheet_name="first", index=False)
        table.to_excel(book, sheet_name="patients", index=False)
    read = Excel(str(tmp_path / "a.xlsx"), sheet="patients").read(())
    assert read["age"].tolist()[:2] == [50, 61] and read["age"].isna().tolist() == [False, False, True]
    assert propose_column("seen", pd.concat([read["seen"], pd.Series([pd.Timestamp("2025-01-01")])])).kind == "date"
    with pytest.raises(UsageError, match="no sheet 'absent'"):
        Excel(str(tmp_path / "a.xlsx"), sheet="absent").read(())
    (tmp_path / "b.xlsx").write_bytes(b"no workbook")
    with pytest.raises(UsageError, match="cannot be read as an Excel file"):
        Excel(str(tmp_path / "b.xlsx")).read(())


def test_a_column_that_tells_the_outcome_is_marked_as_a_possible_leak():
    rng = np.random.default_rng(1)
    died = rng.random(600) < 0.3
    table = pd.DataFrame({
        "autopsy": died & (rng.random(600) < 0.4), "age": rng.normal(60, 9, 600) + 3 * died,
        "score": died + rng.normal(0, 0.1, 600), "died": died,
    })  # fmt: skip
    made = propose_schema({"a": table}, "died", name="own")
    assert set(made.leaks) == {"autopsy", "score"}
    assert set(made.schema.unconfirmed) >= {"autopsy", "score"}
    # A share of few rows would tell how many of them there are.
    assert made.leaks["autopsy"] == "nearly all rows with one of its values have the same outcome"
    assert "nearly all rows" in schema_text(made) and "%" not in schema_text(made)
