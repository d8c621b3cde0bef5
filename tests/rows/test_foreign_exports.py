"""Tables of other institutions, with names, units and codes of their own, held against the truth of who wrote them."""

from __future__ import annotations

import time
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from flfed.errors import UsageError
from flfed.rows.data import datasets
from flfed.rows.data.mapping import map_table
from flfed.rows.data.parsing.fields import Field
from flfed.rows.proposals import matching
from flfed.rows.proposals.answers import Answers
from flfed.rows.proposals.column_words import LANGUAGES
from flfed.rows.proposals.dialogue import Decision, MappingDialogue, Question, preview_mapping
from flfed.rows.proposals.fits import Fit
from tests.foreign_tables import Outcome, Truth, answered, read_export, rows_of, write_export
from tests.rows.test_proposed_kinds import TABLES

TOKEN = "XQZ7731"
"""Stands in cells that nobody may see."""
ODD = "246.813579"
"""A number with unusual digits."""

CLINIC = Truth(
    "heart-disease",
    {
        "age": "Alter", "sex": "Geschl", "cp": "Brustschmerz", "trestbps": "RR syst. Ruhe",
        "chol": "Ges.-Chol. (mmol/l)", "fbs": "BZ nuechtern > 120",
        "restecg": "EKG in Ruhe", "thalach": "Maximalpuls",
        "exang": "AP unter Belastung",
        "oldpeak": "ST-Senkung", "slope": "ST-Verlauf", "ca": "", "thal": "Thallium-Szinti", "disease": "KHK",
    },
    units={"chol": {"multiply": 38.67}},
    codes={
        "sex": {"m": "male", "w": "female"},
        "cp": {"1": "typical-angina", "2": "atypical-angina", "3": "non-anginal-pain", "4": "asymptomatic"},
        "fbs": {"ja": "1", "nein": "0"}, "exang": {"J": "1", "N": "0"},
        "restecg": {"unauffällig": "normal", "ST-T": "st-t-abnormality", "LVH": "left-ventricular-hypertrophy"},
        "slope": {"a": "up", "h": "flat", "d": "down"},
        "thal": {"N": "normal", "F": "fixed-defect", "R": "reversible-defect"},
        "disease": {"0": "absent", "1": "present"},
    },
)  # fmt: skip
LENDER = Truth(
    "loan-default",
    {
        "funded_amnt": "importo_prestito", "term": "durata_mesi", "int_rate": "tasso_annuo",
        "sub_grade": "classe_rischio", "verification_status": "reddito_verificato", "annual_inc": "reddito_lordo_annuo",
        "emp_length": "anzianita_lavoro", "delinq_2yrs": "ritardi_24m", "inq_last_6mths": "richieste_ult_6m",
        "revol_util": "utilizzo_revolving", "acc_now_delinq": "conti_in_mora", "open_il_6m": "",
        "open_il_12m": "rate_aperti_12m", "open_il_24m": "rate_aperti_24m", "total_bal_il": "saldo_tot_rateali",
        "all_util": "utilizzo_totale", "inq_fi": "", "inq_last_12m": "richieste_ult_12m",
        "delinq_amnt": "importo_scaduto", "num_il_tl": "num_rateali",
        "total_il_high_credit_limit": "limite_rateali", "loan_status": "esito",
    },
    codes={
        "verification_status": {
            "no": "Not_Verified", "fonte verificata": "Source_Verified", "verificato": "Verified",
        },
        "loan_status": {"buono": "good", "cattivo": "bad"},
    },
)  # fmt: skip
CARDIOLOGY = Truth(
    "heart-disease",
    {
        "age": "EDAD_PAC", "sex": "SEXO_PAC", "cp": "TIP_DOLOR_TOR", "trestbps": "TAS_REP", "chol": "COL_TOTAL_SUERO",
        "fbs": "GLUC_AYUN_120", "restecg": "ECG_BASAL", "thalach": "FC_MAX_ERGO", "exang": "ANGOR_ESF",
        "oldpeak": "DESC_ST_MM", "slope": "PDTE_ST", "ca": "", "thal": "", "disease": "ENF_CORON",
    },
    codes={
        "sex": {"H": "male", "M": "female"},
        "cp": {"1": "typical-angina", "2": "atypical-angina", "3": "non-anginal-pain", "4": "asymptomatic"},
        "fbs": {"S": "1", "N": "0"}, "exang": {"S": "1", "N": "0"},
        "restecg": {"0": "normal", "1": "st-t-abnormality", "2": "left-ventricular-hypertrophy"},
        "slope": {"1": "up", "2": "flat", "3": "down"}, "disease": {"0": "absent", "1": "present"},
    },
)  # fmt: skip
INSTALMENTS = Truth(
    "loan-default",
    {
        "funded_amnt": "IMP_FINANZIATO", "term": "DUR_MESI", "int_rate": "TASSO_NOM", "sub_grade": "CLS_RATING",
        "verification_status": "COD_VERIF_REDD", "annual_inc": "REDD_ANNUO", "emp_length": "ANZ_LAV",
        "delinq_2yrs": "N_RITARDI_24M", "inq_last_6mths": "N_RICH_6M", "revol_util": "PERC_UTIL_REV",
        "acc_now_delinq": "N_CONTI_SCADUTI", "open_il_6m": "N_RATEALI_ATT", "open_il_12m": "N_RATEALI_APE_12M",
        "open_il_24m": "N_RATEALI_APE_24M", "total_bal_il": "SALDO_RATEALI", "all_util": "PERC_UTIL_TOT",
        "inq_fi": "N_RICH_FINANZ", "inq_last_12m": "N_RICH_12M", "delinq_amnt": "IMP_INSOLUTO",
        "num_il_tl": "N_RATEALI_TOT", "total_il_high_credit_limit": "FIDO_RATEALI", "loan_status": "FLG_DEFAULT",
    },
    codes={
        "verification_status": {"0": "Not_Verified", "1": "Source_Verified", "2": "Verified"},
        "loan_status": {"N": "good", "S": "bad"},
    },
)  # fmt: skip
CARDS = Truth(
    "taiwan-credit",
    {
        "LIMIT_BAL": "MT_PLAF_CB", "SEX": "CD_SEXE", "EDUCATION": "NIV_ETUDES", "MARRIAGE": "SIT_FAM",
        "AGE": "AGE_TIT", "PAY_0": "NBM_RETARD_6", "PAY_2": "NBM_RETARD_5", "PAY_3": "NBM_RETARD_4",
        "PAY_4": "NBM_RETARD_3", "PAY_5": "NBM_RETARD_2", "PAY_6": "NBM_RETARD_1",
        "BILL_AMT1": "MT_RLV_6", "BILL_AMT2": "MT_RLV_5", "BILL_AMT3": "MT_RLV_4", "BILL_AMT4": "MT_RLV_3",
        "BILL_AMT5": "MT_RLV_2", "BILL_AMT6": "MT_RLV_1", "PAY_AMT1": "MT_REGL_6", "PAY_AMT2": "MT_REGL_5",
        "PAY_AMT3": "MT_REGL_4", "PAY_AMT4": "MT_REGL_3", "PAY_AMT5": "MT_REGL_2", "PAY_AMT6": "MT_REGL_1",
        "default.payment.next.month": "TOP_DEFAUT",
    },
    codes={
        "SEX": {"H": "male", "F": "female"},
        "EDUCATION": {"3C": "graduate-school", "SUP": "university", "LYC": "high-school", "AUT": "other"},
        "MARRIAGE": {"M": "married", "C": "single", "A": "other"},
        "default.payment.next.month": {"O": "1", "N": "0"},
    },
)  # fmt: skip
HUNGARY = replace(CLINIC, columns={**CLINIC.columns, "slope": "", "thal": ""})
SITES = {"heart-disease": ("cleveland",), "loan-default": ("west_lender", "south_lender")}
EXAMPLES = {
    "clinic": CLINIC, "lender": LENDER, "hungary": HUNGARY, "cardiology": CARDIOLOGY, "instalments": INSTALMENTS,
    "cards": CARDS,
}  # fmt: skip


def more_columns(rows: int) -> dict[str, list[object]]:
    """Return columns that the schema does not have, with cells that nobody may see."""
    return {
        "Fallnummer": [str(700_000 + 3 * number) for number in range(rows)],
        "Bemerkung": [f"{TOKEN} Zimmer {number}" for number in range(rows)],
        "RR diast.": [str(60 + number % 40) for number in range(rows)],
        "Station": [TOKEN if number < 3 else f"S{number % 4}" for number in range(rows)],
        "Wert": [ODD if number % 2 else "17.5" for number in range(rows)],
    }


@cache
def mapped_rows(dataset: str) -> pd.DataFrame:
    if dataset not in SITES:
        return datasets.load(dataset).whole_table().sample(3000, random_state=1).reset_index(drop=True)
    return rows_of([name.replace("_", "-") for name in SITES[dataset]])


@cache
def outcome(name: str, folder: Path) -> Outcome:
    """Return the dialogue over one of the examples."""
    truth = EXAMPLES[name]
    rows = rows_of(["hungary"]) if truth is HUNGARY else mapped_rows(truth.dataset)
    write_export(rows, truth, folder / f"{name}.csv", more_columns(len(rows)))
    return answered(read_export(folder / f"{name}.csv", truth), truth)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


def decided(table: pd.DataFrame, truth: Truth) -> dict[str, Decision]:
    """Return what is decided about a table before any question."""
    return MappingDialogue(table, datasets.load(truth.dataset).schema, Answers()).decisions()


def sure_columns(table: pd.DataFrame, truth: Truth) -> set[str]:
    return {name for name, one in decided(table, truth).items() if one.origin == "sure"}


def check(end: Outcome, truth: Truth) -> None:
    """Hold a dialogue against the truth."""
    here = {name for name, own in truth.columns.items() if own}
    assert {name: own for name, own in end.sure.items() if truth.columns.get(name) != own} == {}
    assert len(end.offered & here) >= 0.8 * len(here), sorted(here - end.offered)
    assert len(end.asked) <= 10
    right = {name for name in here if end.columns[name] == truth.columns[name]}
    assert len(right) >= 0.8 * len(here), sorted(here - right)
    for name in right:
        field = end.dialogue.decisions()[name].field
        assert field is not None
        factor = truth.units.get(name, {}).get("multiply", 1)
        assert field.multiply == pytest.approx(factor, rel=0.01), name
        words = {"yes": "1", "no": "0", "true": "1", "false": "0"}
        meant = {code: words.get(value, value) for code, value in truth.codes.get(name, {}).items()}
        named = {code: value for code, value in (field.values or {}).items() if code in meant}
        assert named == {code: meant[code] for code in named}, name


def check_secrets(text: str, table: pd.DataFrame, truth: Truth) -> None:
    """Refuse cells of a table in what was shown, but for the schema's own values and round numbers."""
    for name in sorted(table.columns, key=len, reverse=True):
        text = text.replace(name, "")
    schema = datasets.load(truth.dataset).schema
    words = {value for column in schema.columns.values() for value in column.values}
    cells = {cell for name in table for cell in table[name].dropna().unique() if len(cell) > 4}
    assert {cell for cell in cells - words if not cell.endswith("000") and cell in text} == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_most_columns_of_an_export_are_known_and_the_rest_takes_few_answers(name: str, exports: Path, heart, taiwan):
    end = outcome(name, exports)
    check(end, EXAMPLES[name])
    table = read_export(exports / f"{name}.csv", EXAMPLES[name])
    check_secrets(end.text, table, EXAMPLES[name])
    assert len(end.asked) <= 5
    if EXAMPLES[name].dataset == "heart-disease":
        assert len(end.sure) >= 0.4 * len(end.columns)
    # The mapping reads all rows that have a value.
    schema = datasets.load(EXAMPLES[name].dataset).schema
    mapped, findings = map_table(table, schema, end.dialogue.mapping(), outcome=False)
    assert [finding.column for finding in findings] == []
    for column, own in EXAMPLES[name].columns.items():
        if own:
            before = rows_of(["hungary"])[column] if name == "hungary" else mapped_rows(EXAMPLES[name].dataset)[column]
            assert mapped[column].notna().sum() == before.notna().sum(), column


def exchanged(name: str, exports: Path, one: str, other: str) -> set[str]:
    """Return which of two columns are sure although their names are exchanged."""
    truth = EXAMPLES[name]
    outcome(name, exports)
    table = read_export(exports / f"{name}.csv", truth)
    names = {truth.columns[one]: truth.columns[other], truth.columns[other]: truth.columns[one]}
    return {one, other} & sure_columns(table.rename(columns=names), truth)


PAIRS = [
    ("clinic", "trestbps", "chol"), ("clinic", "trestbps", "thalach"), ("clinic", "age", "thalach"),
    ("lender", "funded_amnt", "term"), ("lender", "total_bal_il", "delinq_2yrs"),
    ("hungary", "trestbps", "thalach"), ("lender", "open_il_12m", "open_il_24m"), ("lender", "revol_util", "all_util"),
    ("lender", "inq_last_6mths", "inq_last_12m"), ("lender", "delinq_2yrs", "acc_now_delinq"),
]  # fmt: skip
ALIKE = PAIRS[5:]
"""Columns whose values would fit exchanged."""


@pytest.mark.parametrize(("name", "one", "other"), PAIRS)
def test_two_columns_with_exchanged_names_are_asked_about(name, one, other, exports: Path, heart, taiwan, monkeypatch):
    assert exchanged(name, exports, one, other) == set()
    # Whoever goes by names alone is wrong and sure.
    monkeypatch.setattr(matching.Matching, "_interchangeable", lambda matching: {})
    if (name, one, other) in ALIKE:
        # So is whoever compares each column with its own range and usual values alone.
        assert exchanged(name, exports, one, other) == {one, other}
    monkeypatch.setattr(matching, "fit_column", lambda own, *more: Fit(1.0, Field(own.name), "by its name"))
    assert exchanged(name, exports, one, other) == {one, other}


@pytest.mark.parametrize("factor", [10, 0.1])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_unit_that_is_off_by_a_factor_of_ten_is_asked_about(name: str, factor: float, exports: Path, heart, taiwan):
    truth = EXAMPLES[name]
    rows = mapped_rows(truth.dataset)
    schema = datasets.load(truth.dataset).schema
    right = [column for column, own in outcome(name, exports).columns.items() if own]
    numbers = [column for column in right if schema.columns[column].is_number() and column in rows]
    numbers = [column for column in numbers if rows[column].notna().any()]
    assert len(numbers) >= 5
    wrong = rows.assign(**{name: pd.to_numeric(rows[name]) * factor for name in numbers})
    write_export(wrong, truth, exports / "wrong.csv", {})
    assert set(numbers) & sure_columns(read_export(exports / "wrong.csv", truth), truth) == set()


@pytest.mark.parametrize("dataset", ["heart-disease", "loan-default"])
@pytest.mark.parametrize("name", ["ai4i2020", "uci_energy_efficiency", "flusight admissions"])
def test_nothing_is_sure_in_a_table_about_something_else(test_data: Path, name: str, dataset: str):
    table = TABLES[name][0](test_data)
    assert sure_columns(table.sample(500, random_state=2), Truth(dataset, {})) == set()


def test_a_dialogue_that_shows_a_code_is_caught(exports: Path, heart, taiwan, monkeypatch):
    ask = MappingDialogue._ask_codes

    def with_codes(self: MappingDialogue, column: str, decision: Decision) -> Question:
        question = ask(self, column, decision)
        return replace(question, lines=(*question.lines, ", ".join(self._codes(decision.own or ""))))

    monkeypatch.setattr(MappingDialogue, "_ask_codes", with_codes)
    truth = replace(CLINIC, codes={**CLINIC.codes, "slope": {"Anstieg-7": "up", "Mitte-7": "flat", "Abfall-7": "down"}})
    rows = mapped_rows(truth.dataset)
    write_export(rows, truth, exports / "shown.csv", {})
    table = read_export(exports / "shown.csv", truth)
    with pytest.raises(AssertionError, match="Mitte-7"):
        check_secrets(answered(table, truth).text, table, truth)
    monkeypatch.undo()
    check_secrets(answered(table, truth).text, table, truth)


def test_codes_that_do_not_occur_are_counted_and_not_repeated(exports: Path, heart, taiwan):
    outcome("clinic", exports)
    table = read_export(exports / "clinic.csv", CLINIC)
    dialogue = MappingDialogue(table, datasets.load("heart-disease").schema, Answers())
    question = next(iter(questions_about(dialogue, "cp")))
    for typed, sentence in (
        ("1, 2, 3, 5", "1 of the 4 typed codes do not occur in your column 'Brustschmerz'"),
        ("1, 2, 3, 4, 5, 6", "6 places are too many"), ("", "no code is typed"), ("1, 1", "typed twice"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=sentence):
            dialogue.answer(question, typed)
    dialogue.answer(question, "1, 2, 3, 4")
    assert dialogue.decisions()["cp"].field.values["3"] == "non-anginal-pain"
    assert dialogue.answers.codes == {
        "cp": {"1": "typical-angina", "2": "atypical-angina", "3": "non-anginal-pain", "4": "asymptomatic"}
    }


def questions_about(dialogue: MappingDialogue, column: str) -> list[Question]:
    """Return the question about a column's codes."""
    return [dialogue._ask_codes(column, dialogue.decisions()[column])]


def test_the_preview_shows_no_count_under_five_and_none_follows_from_others():
    schema = datasets.load("heart-disease").schema
    cells = [*map(str, range(120, 220)), "", "", "", *["900"] * 30]
    table = pd.DataFrame({"trestbps": cells})
    mapping = dict.fromkeys(schema.columns) | {"trestbps": "trestbps"}
    (counts,) = preview_mapping(table, schema, mapping, ())
    assert counts == {
        "column": "trestbps", "own": "trestbps", "mapped": "about 100", "missing": "fewer than 5", "outside": "30",
        "unread": "0", "values": "",
    }  # fmt: skip


def test_the_preview_shows_which_outcome_each_code_became(exports: Path, heart):
    schema = datasets.load("heart-disease").schema
    table = pd.DataFrame({"disease": ["0"] * 40 + ["1"] * 60, "fbs": ["1"] * 3 + ["0"] * 97})
    mapping = dict.fromkeys(schema.columns) | {"disease": "disease", "fbs": "fbs"}
    mapping["disease"] = Field("disease", values={"0": "absent", "1": "present"})
    shown = {counts["column"]: counts["values"] for counts in preview_mapping(table, schema, mapping, ())}
    # An outcome the wrong way round shows here; the small count is not the difference of two others.
    assert shown == {"disease": "absent 40; present 60", "fbs": "yes fewer than 5; no about 100"}
    table["age"] = ["50"] * 3 + [""] * 97
    (counts, *_) = preview_mapping(table, schema, dict.fromkeys(schema.columns) | {"age": "age"}, ())
    assert (counts["mapped"], counts["missing"]) == ("fewer than 5", "about 100")


def test_a_million_rows_make_no_dialogue_slow(exports: Path, heart, taiwan):
    outcome("clinic", exports)
    table = read_export(exports / "clinic.csv", CLINIC)
    few = sure_columns(table, CLINIC)
    large = pd.concat([table] * 1000, ignore_index=True)
    begun = time.process_time()
    assert sure_columns(large, CLINIC) == few
    assert time.process_time() - begun < 20


def test_each_entry_of_the_word_list_has_its_source_and_its_languages():
    folder = Path(matching.__file__).parent
    content = tomllib.loads((folder / "column_names.toml").read_text("utf-8"))
    concepts = content["concepts"]
    assert len(concepts) > 150 and all(entry["source"].strip() for entry in concepts.values())
    assert {frozenset(entry) for entry in concepts.values()} == {frozenset([*LANGUAGES, "source"])}
    named = {concept for lists in content["columns"].values() for meaning in lists for concept in meaning}
    assert {concept for concept in named if not concept.startswith("#")} <= set(concepts)
    quantities = tomllib.loads((folder / "quantities.toml").read_text("utf-8"))
    entries = [*quantities["units"], *quantities["medians"]]
    assert len(entries) > 40 and all(entry["source"].strip() for entry in entries)
    assert {entry["of"] for entry in quantities["units"] if "of" in entry} <= set(concepts)
    assert {concept for entry in quantities["medians"] for concept in entry["concepts"]} <= set(concepts)


MORE = {"none": (), "a new code": ("5", 30), "a stray cell": ("zz", 1)}


@pytest.mark.parametrize("more", MORE)
def test_codes_of_the_present_mapping_stay_also_where_the_table_has_more_of_them(more: str):
    codes = CLINIC.codes["cp"]
    cells = [str(1 + row % 4) for row in range(200)]
    if MORE[more]:
        code, rows = MORE[more]
        cells[:rows] = [code] * rows
    table = pd.DataFrame({"Geschlecht": ["m", "w"] * 100, "Schmerz": cells})
    # A person knows better than the word list what m and w are here.
    sex = {"m": "female", "w": "male"}
    present = {"sex": Field("Geschlecht", values=sex), "cp": Field("Schmerz", values=codes, missing=("-9",))}
    schema = datasets.load("heart-disease").schema
    decisions = MappingDialogue(table, schema, Answers(columns={"cp": "Schmerz"}), present).decisions()
    for column in ("sex", "cp"):
        assert decisions[column].why == "its codes are those of the present mapping"
    assert decisions["sex"].field is not None and decisions["sex"].field.values == sex
    field = decisions["cp"].field
    assert field is not None and field.values is not None and field.missing == ("-9",)
    assert codes.items() <= field.values.items()
    # Of another own column they do not hold.
    other = MappingDialogue(table, schema, Answers(columns={"cp": "Geschlecht"}), present).decisions()["cp"]
    assert other.field is not None and "1" not in (other.field.values or {})


def test_a_factor_does_not_hold_for_another_column():
    table = pd.DataFrame(
        {"Alter": [str(300 + row) for row in range(200)], "Jahre": [str(30 + row % 40) for row in range(200)]}
    )
    answers = Answers(columns={"age": "Alter"}, units={"age": {"multiply": 0.1}})
    dialogue = MappingDialogue(table, datasets.load("heart-disease").schema, answers)
    assert dialogue.decisions()["age"].field == Field("Alter", multiply=0.1)
    dialogue.correct("age = Jahre")
    assert dialogue.decisions()["age"].field == Field("Jahre")


def test_a_code_beside_the_schemas_own_values_is_asked_about():
    table = pd.DataFrame({"Geschlecht": ["male", "female", "divers", "male"] * 50})
    dialogue = MappingDialogue(table, datasets.load("heart-disease").schema, Answers(columns={"sex": "Geschlecht"}))
    assert dialogue.decisions()["sex"].open_values == ("female", "male")
    while (question := dialogue.next_question()) is not None and question.kind != "codes":
        dialogue.answer(question, "no" if question.kind == "several" else "-")
    assert question is not None and question.columns == ("sex",)
    with pytest.raises(UsageError, match="1 of the 3 codes of your column 'Geschlecht' have no value"):
        dialogue.answer(question, "female, male")
    dialogue.answer(question, "female, male, divers")
    field = dialogue.decisions()["sex"].field
    assert field is not None and field.missing == ("divers",) and "?" not in (field.values or {}).values()


def test_a_column_with_codes_for_not_known_is_taken_and_its_codes_are_asked_about():
    table = pd.DataFrame({"EKG": ["normal"] * 90 + ["ST-T"] * 60 + ["LVH"] * 40 + ["9"] * 7})
    table["Nüchternblutzucker"] = ["nein"] * 120 + ["ja"] * 40 + ["k.A."] * 37
    table["Station"] = [f"S{number}" for number in range(197)]
    dialogue = MappingDialogue(table, datasets.load("heart-disease").schema, Answers(columns={"disease": ""}))
    for column, own in (("restecg", "EKG"), ("fbs", "Nüchternblutzucker")):
        with pytest.raises(UsageError, match="has other values, or too many, for the codes of"):
            dialogue.answer(Question("column", (column,), ()), "Station")
        dialogue.answer(Question("column", (column,), ()), own)
        assert dialogue.decisions()[column].open_values != ()
    dialogue.answer(Question("codes", ("restecg",), ()), "9=")
    dialogue.answer(Question("codes", ("fbs",), ()), "nein=no, ja=yes, k.A.=")
    restecg, fbs = (dialogue.decisions()[column].field for column in ("restecg", "fbs"))
    assert restecg is not None and restecg.missing == ("9",) and len(restecg.values or {}) == 3
    assert fbs == Field("Nüchternblutzucker", values={"nein": "0", "ja": "1"}, missing=("k.A.",))


@pytest.mark.parametrize(("typed", "sentence"), [
    ("7", "type a number from 1 to 1"), ("1 * x", "a factor such as 1"),
    ("Alder", "no single column 'Alder'"),
])  # fmt: skip
def test_an_answer_about_a_column_that_is_none_says_how_one_is_typed(typed: str, sentence: str):
    table = pd.DataFrame({"Alter": range(20, 80), "RR_syst": [130] * 55 + [999] * 5})
    dialogue = MappingDialogue(table, datasets.load("heart-disease").schema, Answers())
    with pytest.raises(UsageError, match=sentence):
        dialogue.answer(Question("column", ("trestbps",), ()), typed)


def test_a_code_of_few_rows_is_asked_about_in_a_column_that_is_otherwise_sure():
    table = pd.DataFrame({"Geschlecht": ["männlich"] * 120 + ["weiblich"] * 120 + ["divers"] * 3})
    schema = datasets.load("heart-disease").schema
    dialogue = MappingDialogue(table, schema, Answers(columns={"sex": "Geschlecht"}))
    while (question := dialogue.next_question()) is not None and question.kind != "codes":
        dialogue.answer(question, "no" if question.kind == "several" else "-")
    assert question is not None and question.columns == ("sex",)
    text = "\n".join(question.lines)
    assert "3 codes, of about 120, 120, fewer than 5 rows. Without a value yet: 1." in text and "divers" not in text
    with pytest.raises(UsageError, match="1 of the 3 codes of your column 'Geschlecht' have no value"):
        dialogue.answer(question, "männlich=male")
    dialogue.answer(question, "divers=")
    assert dialogue.decisions()["sex"].field == Field(
        "Geschlecht", values={"männlich": "male", "weiblich": "female"}, missing=("divers",)
    )
    assert dialogue.next_question() is None
