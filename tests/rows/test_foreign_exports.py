"""Tables of other institutions, with names, units and codes of their own, held against the truth of who wrote them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flfed.rows.data import datasets
from flfed.rows.proposals.answers import Answers
from flfed.rows.proposals.dialogue import MappingDialogue
from tests.foreign_tables import Outcome, Truth, answered, read_export, rows_of, write_export

TOKEN = "XQZ7731"
"""Stands in cells that nobody may see."""
ODD = "246.813579"
"""A number with unusual digits."""
FOLDER = Path(__file__).resolve().parents[1] / "foreign_exports"

CLINIC = Truth(
    "heart-disease",
    {
        "age": "Alter", "sex": "Geschl", "cp": "Brustschmerz", "trestbps": "RR syst. Ruhe", "chol": "Ges.-Chol. (mmol/l)",
        "fbs": "BZ nuechtern > 120", "restecg": "EKG in Ruhe", "thalach": "Maximalpuls", "exang": "AP unter Belastung",
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
SITES = {"heart-disease": ("cleveland",), "loan-default": ("west_lender", "south_lender")}
EXAMPLES = {"clinic": CLINIC, "lender": LENDER}


def more_columns(rows: int) -> dict[str, list[object]]:
    """Return columns that the schema does not have, with cells that nobody may see."""
    return {
        "Fallnummer": [str(700_000 + 3 * number) for number in range(rows)],
        "Bemerkung": [f"{TOKEN} Zimmer {number}" for number in range(rows)],
        "RR diast.": [str(60 + number % 40) for number in range(rows)],
        "Station": [TOKEN if number < 3 else f"S{number % 4}" for number in range(rows)],
    }


@cache
def mapped_rows(dataset: str) -> pd.DataFrame:
    return rows_of([name.replace("_", "-") for name in SITES[dataset]])


@cache
def outcome(name: str, folder: Path) -> Outcome:
    """Return the dialogue over one of the examples."""
    truth = EXAMPLES[name]
    rows = mapped_rows(truth.dataset)
    write_export(rows, truth, folder / f"{name}.csv", more_columns(len(rows)))
    return answered(read_export(folder / f"{name}.csv", truth), truth)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.mark.parametrize("name", EXAMPLES)
def test_show(name: str, exports: Path, heart: datasets.Dataset):
    end = outcome(name, exports)
    truth = EXAMPLES[name]
    print(end.text)
    wrong = {k: v for k, v in end.sure.items() if truth.columns[k] != v}
    have = [k for k, v in truth.columns.items() if v]
    print(
        "SURE",
        len(end.sure),
        "WRONG",
        wrong,
        "OFFERED",
        len(end.offered),
        "of",
        len(have),
        "ASKED",
        len(end.asked),
        [q.columns for q in end.asked],
    )
    print("MISSED", set(have) - end.offered)
