"""Tables as institutions of other countries export them, made of this project's own real rows.

`NAME.toml` beside this file has each export's truth: its own name of each column of the schema,
units and codes. Extra columns (case numbers, wards, days, diastolic pressures, weights) are made
up; all other cells are real ones, in another notation. Two damages stand at the end.
"""

import csv
import io
import tomllib
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HEART = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
    *("thalach", "exang", "oldpeak", "slope", "ca", "thal", "disease"),
)
HEART_CODES = {
    "sex": {0: "female", 1: "male"},
    "cp": {
        1: "typical-angina",
        2: "atypical-angina",
        3: "non-anginal-pain",
        4: "asymptomatic",
    },
    "fbs": {0: "no", 1: "yes"},
    "restecg": {0: "normal", 1: "st-t-abnormality", 2: "left-ventricular-hypertrophy"},
    "exang": {0: "no", 1: "yes"},
    "slope": {1: "up", 2: "flat", 3: "down"},
    "thal": {3: "normal", 6: "fixed-defect", 7: "reversible-defect"},
    "disease": {0: "absent", 1: "present", 2: "present", 3: "present", 4: "present"},
}
"""As the sites cleveland and hungary read their files."""
CARD_CODES = {
    "SEX": {1: "male", 2: "female"},
    "EDUCATION": {
        1: "graduate-school",
        2: "university",
        3: "high-school",
        **dict.fromkeys((0, 4, 5, 6), "other"),
    },
    "MARRIAGE": {1: "married", 2: "single", 0: "other", 3: "other"},
    "default.payment.next.month": {0: "0", 1: "1"},
}
MONTHS = ("200509", "200508", "200507", "200506", "200505", "200504")
MMOL = 38.67
"""Milligrams per decilitre in one millimole per litre of cholesterol."""


def heart_rows(data: Path, hospital: str) -> pd.DataFrame:
    """Return a hospital's rows in the words of the schema heart-disease."""
    file = data / "uci_heart" / f"processed.{hospital}.data"
    rows = pd.read_csv(file, header=None, names=list(HEART), na_values="?")
    for name, codes in HEART_CODES.items():
        rows[name] = rows[name].map(codes)
    return rows


def loan_rows(data: Path) -> pd.DataFrame:
    """Return the lender's rows in the Midwest in the words of the schema loan-default."""
    rows = pd.read_csv(ROOT / "datasets" / "loan-default" / "midwest.csv")
    rows["term"] = rows["term"].map({"term_36": 36, "term_60": 60})
    rows["emp_length"] = rows["emp_length"].replace("emp_unk", np.nan)
    return rows.drop(columns="addr_state").rename(columns={"Class": "loan_status"})


def card_rows(data: Path) -> pd.DataFrame:
    """Return the first 3,000 clients in the words of the schema taiwan-credit."""
    rows = pd.read_csv(data / "uci_taiwan_credit" / "UCI_Credit_Card.csv", nrows=3000)
    for name, codes in CARD_CODES.items():
        rows[name] = rows[name].map(codes)
    return rows.drop(columns="ID")


def machine_rows(data: Path) -> pd.DataFrame:
    """Return the first 1,000 states of milling machines, as in their file."""
    return pd.read_csv(data / "ai4i2020" / "ai4i2020.csv", nrows=1000)


def figures(numbers: pd.Series, digits: int = 0, decimal: str = ",", thousands: str = "") -> list:
    """Return numbers as text with a country's signs; empty where not known."""
    signs = str.maketrans({".": decimal, ",": thousands})
    found = []
    for number in numbers:
        found.append("" if pd.isna(number) else f"{number:,.{digits}f}".translate(signs))
    return found


def coded(values: pd.Series, codes: dict[str, str], unknown: str = "") -> list[str]:
    """Return the institution's codes of a category's values."""
    return [unknown if pd.isna(value) else codes[value] for value in values]


def numbered(rows: int, first: int, step: int = 1, prefix: str = "") -> list[str]:
    """Return identifiers in rising order."""
    return [f"{prefix}{first + step * place}" for place in range(rows)]


def days(rows: int, first: str, form: str) -> list[str]:
    """Return days, three rows a day."""
    start = pd.Timestamp(first)
    return [(start + pd.Timedelta(days=place // 3)).strftime(form) for place in range(rows)]


def in_turn(rows: int, words: Sequence[str], seed: int) -> list[str]:
    """Return words drawn for each row, the same at each call."""
    return list(np.random.default_rng(seed).choice(list(words), rows))


def drawn(rows: int, mean: float, deviation: float, seed: int) -> list[str]:
    """Return whole numbers drawn for each row, the same at each call."""
    numbers = np.random.default_rng(seed).normal(mean, deviation, rows)
    return figures(pd.Series(numbers))


def klinik_de(rows: pd.DataFrame) -> pd.DataFrame:
    """Return Cleveland's rows as a German hospital's information system writes them."""
    count, unknown = len(rows), "k.A."
    yes_no = {"yes": "ja", "no": "nein"}
    pain = {
        "typical-angina": "typ. AP",
        "atypical-angina": "atyp. AP",
        "non-anginal-pain": "nicht-kard.",
        "asymptomatic": "keine",
    }
    ecg = {"normal": "o.B.", "st-t-abnormality": "ERBS", "left-ventricular-hypertrophy": "LVH"}
    slope = {"up": "aszend.", "flat": "horiz.", "down": "deszend."}
    scan = {"normal": "unauff.", "fixed-defect": "Narbe", "reversible-defect": "Ischämie"}
    return pd.DataFrame(
        {
            "FALNR": numbered(count, 4100233817, 7),
            "ORGPF": in_turn(count, ("KAR1", "KAR2", "IMC", "HKL"), 1),
            "Aufn_Dat": days(count, "2023-01-09", "%d.%m.%Y"),
            "GSCHL": coded(rows["sex"], {"male": "M", "female": "W"}),
            "Pat_Alter": figures(rows["age"]),
            "Gew_kg": drawn(count, 81, 13, 2),
            "AP-Typ": coded(rows["cp"], pain),
            "RR_syst": figures(rows["trestbps"]),
            "RR_diast": drawn(count, 80, 9, 3),
            "Chol_ges": figures(rows["chol"] / MMOL, 2),
            "BZ_nü": coded(rows["fbs"], {"yes": "path.", "no": "norm."}),
            "Ruhe-EKG": coded(rows["restecg"], ecg),
            "Ergo_HFmax": figures(rows["thalach"]),
            "Ergo_AP": coded(rows["exang"], yes_no),
            "Ergo_ST_Senk": figures(rows["oldpeak"], 1),
            "Ergo_ST_Verl": coded(rows["slope"], slope),
            "Anz_Gefäße_DL": figures(rows["ca"]),
            "Myokardszinti": coded(rows["thal"], scan, unknown),
            "KHK_DiagSich": coded(rows["disease"], {"present": "G", "absent": "A"}),
        }
    )


def chu_fr(rows: pd.DataFrame) -> pd.DataFrame:
    """Return Cleveland's rows as a French university hospital exports them."""
    count, unknown = len(rows), "NR"
    pain = {
        "asymptomatic": "0",
        "typical-angina": "1",
        "atypical-angina": "2",
        "non-anginal-pain": "3",
    }
    ecg = {
        "normal": "NORMAL",
        "st-t-abnormality": "TR_REPOL",
        "left-ventricular-hypertrophy": "HVG",
    }
    scan = {"normal": "0", "reversible-defect": "1", "fixed-defect": "2"}
    return pd.DataFrame(
        {
            "IPP": numbered(count, 800412276, 13),
            "NDA": numbered(count, 23004511, 3),
            "UF_HEB": in_turn(count, ("3112", "3114", "3120"), 4),
            "DT_ENTREE": days(count, "2022-09-05", "%d/%m/%Y"),
            "AGE_PAT": figures(rows["age"]),
            "SEXE": coded(rows["sex"], {"male": "1", "female": "2"}),
            "POIDS": drawn(count, 76, 12, 5),
            "DOUL_THO": coded(rows["cp"], pain),
            "PAS": figures(rows["trestbps"]),
            "PAD": drawn(count, 79, 9, 6),
            "CHOL_T": figures(rows["chol"] / 100, 2),
            "GAJ_SUP_1_20": coded(rows["fbs"], {"yes": "O", "no": "N"}),
            "ECG_REPOS": coded(rows["restecg"], ecg),
            "EE_FC_MAX": figures(rows["thalach"]),
            "EE_ANGOR": coded(rows["exang"], {"yes": "O", "no": "N"}),
            "EE_SSDEC_ST": figures(rows["oldpeak"], 1),
            "EE_PENTE_ST": coded(rows["slope"], {"up": "ASC", "flat": "HORIZ", "down": "DESC"}),
            "NB_VX_SCOPIE": figures(rows["ca"]),
            "SCINTI_TL": coded(rows["thal"], scan, unknown),
            "STENOSE_SIG": coded(rows["disease"], {"present": "1", "absent": "0"}),
        }
    )


def hospital_es(rows: pd.DataFrame) -> pd.DataFrame:
    """Return Hungary's rows as a Spanish hospital exports them, without the vessels."""
    count, unknown = len(rows), "NC"
    pain = {
        "typical-angina": "AT",
        "atypical-angina": "AAT",
        "non-anginal-pain": "DNC",
        "asymptomatic": "ASI",
    }
    ecg = {"normal": "1", "st-t-abnormality": "2", "left-ventricular-hypertrophy": "3"}
    scan = {"normal": "N", "fixed-defect": "DF", "reversible-defect": "DR"}
    return pd.DataFrame(
        {
            "NHC": numbered(count, 618204, 11),
            "Servicio": in_turn(count, ("CAR", "MIN", "URG"), 7),
            "F_Ingreso": days(count, "2021-02-15", "%d/%m/%Y"),
            "Edad": figures(rows["age"]),
            "Sexo": coded(rows["sex"], {"male": "H", "female": "M"}),
            "Dolor_Tor": coded(rows["cp"], pain),
            "TAS": figures(rows["trestbps"]),
            "TAD": drawn(count, 82, 9, 8),
            "Col_Total": figures(rows["chol"]),
            "Gluc_Basal": coded(rows["fbs"], {"yes": "Alta", "no": "Normal"}, unknown),
            "ECG_Basal": coded(rows["restecg"], ecg),
            "Ergo_FCmax": figures(rows["thalach"]),
            "Ergo_Angina": coded(rows["exang"], {"yes": "Sí", "no": "No"}, unknown),
            "Ergo_DescST": figures(rows["oldpeak"], 1),
            "Ergo_PendST": coded(rows["slope"], {"up": "A", "flat": "P", "down": "D"}, unknown),
            "Gamma_Talio": coded(rows["thal"], scan, unknown),
            "Coronariografia": coded(rows["disease"], {"present": "Patol", "absent": "SLS"}),
        }
    )


def banca_it(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the Midwest's loans as an Italian bank exports them."""
    count = len(rows)
    grades = {}
    for place, grade in enumerate(letter + digit for letter in "ABCDEFG" for digit in "12345"):
        grades[grade] = f"R{place + 1:02d}"
    years = {"emp_lt_1": "<1", "emp_ge_10": ">=10"}
    for number in range(1, 10):
        years[f"emp_{number}"] = str(number)
    checked = {"Not_Verified": "NV", "Source_Verified": "DL", "Verified": "BP"}

    def amounts(name: str) -> list[str]:
        return figures(rows[name], 2, thousands=".")

    return pd.DataFrame(
        {
            "NDG": numbered(count, 10038845, 17),
            "COD_FIL": in_turn(count, ("00412", "00417", "01203", "01255"), 9),
            "DT_EROG": days(count, "2016-01-04", "%d/%m/%Y"),
            "IMP_EROGATO": amounts("funded_amnt"),
            "DURATA_MM": figures(rows["term"]),
            "TAN": figures(rows["int_rate"], 2),
            "CLS_RATING": coded(rows["sub_grade"], grades),
            "DOC_REDD": coded(rows["verification_status"], checked),
            "REDD_ANN_LORDO": amounts("annual_inc"),
            "ANZ_LAV": coded(rows["emp_length"], years, "ND"),
            "N_RIT30_24M": figures(rows["delinq_2yrs"]),
            "N_INTERR_CRIF_6M": figures(rows["inq_last_6mths"]),
            "N_INTERR_CRIF_12M": figures(rows["inq_last_12m"]),
            "N_INTERR_FINANZ": figures(rows["inq_fi"]),
            "PERC_UTIL_FIDO": figures(rows["revol_util"], 1),
            "PERC_UTIL_TOT": figures(rows["all_util"], 1),
            "N_RAPP_SCONF": figures(rows["acc_now_delinq"]),
            "IMP_SCADUTO": amounts("delinq_amnt"),
            "N_RATEALI_ATT": figures(rows["open_il_6m"]),
            "N_RATEALI_12M": figures(rows["open_il_12m"]),
            "N_RATEALI_24M": figures(rows["open_il_24m"]),
            "N_RATEALI_TOT": figures(rows["num_il_tl"]),
            "DEB_RES_RAT_K": figures(rows["total_bal_il"] / 1000, 3, thousands="."),
            "ACCORD_RAT_K": figures(rows["total_il_high_credit_limit"] / 1000, 3, thousands="."),
            "STATO_RAPP": coded(rows["loan_status"], {"good": "BON", "bad": "DET"}),
        }
    )


def banque_fr(rows: pd.DataFrame) -> pd.DataFrame:
    """Return card clients as a French bank exports them."""
    count = len(rows)
    studies = {
        "graduate-school": "BAC+5",
        "university": "BAC+3",
        "high-school": "BAC",
        "other": "AUT",
    }
    family = {"married": "M", "single": "C", "other": "A"}
    cells = {
        "NUM_CLI": numbered(count, 71530028, 19),
        "CD_AGENCE": in_turn(count, ("02145", "02178", "03310"), 10),
        "DT_OUV_CPT": days(count, "1998-03-02", "%d/%m/%Y"),
        "CIVILITE": coded(rows["SEX"], {"male": "M", "female": "MME"}),
        "AGE_CLI": figures(rows["AGE"]),
        "SIT_FAM": coded(rows["MARRIAGE"], family),
        "NIV_ETUDES": coded(rows["EDUCATION"], studies),
        "PLAFOND_K": figures(rows["LIMIT_BAL"] / 1000, 1),
    }
    for month, number in zip(MONTHS, (0, 2, 3, 4, 5, 6)):
        cells[f"NB_ECH_RET_{month}"] = figures(rows[f"PAY_{number}"])
    for number, month in enumerate(MONTHS, 1):
        cells[f"ENCOURS_{month}"] = figures(rows[f"BILL_AMT{number}"], 2)
    for number, month in enumerate(MONTHS, 1):
        cells[f"MT_REGL_{month}"] = figures(rows[f"PAY_AMT{number}"], 2)
    late = {"1": "IMP", "0": "SAIN"}
    cells["SITU_200510"] = coded(rows["default.payment.next.month"], late)
    return pd.DataFrame(cells)


def quantities(rows: int, mean: float, deviation: float, digits: int, seed: int) -> list[str]:
    """Return positive measured values drawn for each row, the same at each call."""
    numbers = np.random.default_rng(seed).normal(mean, deviation, rows)
    return figures(pd.Series(np.maximum(numbers, mean / 4)), digits)


def kardio_at(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a heart department in Austria."""
    count = len(rows)
    yes_no = {"yes": "J", "no": "N"}
    return pd.DataFrame(
        {
            "FallNr": numbered(count, 2400118, 7),
            "AufnDat": days(count, "2023-02-06", "%d.%m.%Y"),
            "Station": in_turn(count, ("KARD1", "KARD2", "TKL", "AMB"), 11),
            "Geschl": coded(rows["sex"], {"female": "w", "male": "m"}),
            "Alter_Aufn": figures(rows["age"]),
            "Gew_kg": quantities(count, 80, 13, 1, 12),
            "RR_syst": figures(rows["trestbps"]),
            "RR_diast": drawn(count, 81, 9, 13),
            "HF_Ruhe": drawn(count, 72, 10, 14),
            "Thoraxschm": coded(
                rows["cp"],
                {
                    "typical-angina": "typ. AP",
                    "atypical-angina": "atyp. AP",
                    "non-anginal-pain": "nicht kardial",
                    "asymptomatic": "keine Sy.",
                },
            ),
            "Ruhe-EKG": coded(
                rows["restecg"],
                {
                    "normal": "o.B.",
                    "st-t-abnormality": "ERBST",
                    "left-ventricular-hypertrophy": "LVH",
                },
            ),
            "Chol_ges": figures(rows["chol"]),
            "HDL": drawn(count, 51, 11, 15),
            "NBZ>120": coded(rows["fbs"], yes_no),
            "Ergo_Wmax": in_turn(count, ("75", "100", "125", "150", "175"), 16),
            "Ergo_HFmax": figures(rows["thalach"]),
            "Ergo_AP": coded(rows["exang"], yes_no),
            "ST-Senk_mV": figures(rows["oldpeak"] / 10, 2),
            "ST-Verlauf": coded(rows["slope"], {"up": "asz.", "flat": "horiz.", "down": "desz."}),
            "Myokardszinti": coded(
                rows["thal"],
                {"normal": "unauff.", "fixed-defect": "Narbe", "reversible-defect": "Ischämie"},
            ),
            "Gefäße_DL": figures(rows["ca"]),
            "LVEF_%": drawn(count, 57, 7, 17),
            "KHK_Angio": coded(rows["disease"], {"absent": "ausgeschl.", "present": "gesichert"}),
        }
    )


def clinique_fr(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a private heart clinic in France."""
    count = len(rows)
    yes_no = {"yes": "Oui", "no": "Non"}
    return pd.DataFrame(
        {
            "N° dossier": numbered(count, 50312, 3, "C"),
            "Date examen": days(count, "2022-09-05", "%d/%m/%Y"),
            "Praticien": in_turn(count, ("DR LEROY", "DR BENALI", "DR MOREL"), 21),
            "Âge": figures(rows["age"]),
            "Sexe": coded(rows["sex"], {"male": "1", "female": "2"}),
            "Poids (kg)": drawn(count, 76, 12, 22),
            "Motif - douleur": coded(
                rows["cp"],
                {
                    "typical-angina": "Angor typique",
                    "atypical-angina": "Angor atypique",
                    "non-anginal-pain": "Dlr non angineuse",
                    "asymptomatic": "Asymptomatique",
                },
                "NR",
            ),
            "PAS (cmHg)": figures(rows["trestbps"] / 10, 1),
            "PAD (cmHg)": quantities(count, 8.1, 0.8, 1, 23),
            "FC repos": drawn(count, 71, 9, 24),
            "Bio. CT (g/L)": figures(rows["chol"] / 100, 2),
            "Bio. HDL (g/L)": quantities(count, 0.5, 0.1, 2, 25),
            "Bio. GAJ > 1,20 g/L": coded(rows["fbs"], yes_no, "NR"),
            "ECG": coded(
                rows["restecg"],
                {
                    "normal": "Normal",
                    "st-t-abnormality": "Trouble repol.",
                    "left-ventricular-hypertrophy": "HVG",
                },
                "NR",
            ),
            "EE - FMT atteinte": in_turn(count, ("Oui", "Non"), 26),
            "EE - FC max": figures(rows["thalach"]),
            "EE - angor d'effort": coded(rows["exang"], yes_no, "NR"),
            "EE - sous-déc. ST": figures(rows["oldpeak"], 1),
            "EE - pente ST": coded(rows["slope"], {"up": "Asc.", "flat": "Horiz.", "down": "Desc."}, "NR"),
            "Scinti. Tl": coded(
                rows["thal"],
                {
                    "normal": "Normale",
                    "fixed-defect": "Défect fixe",
                    "reversible-defect": "Défect révers.",
                },
                "NR",
            ),
            "Coro. (sténose > 50 %)": coded(rows["disease"], {"absent": "Abs.", "present": "Prés."}),
            "Mutuelle": in_turn(count, ("MGEN", "HARMONIE", "AG2R", "AUCUNE"), 27),
        }
    )


def ospedale_it(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a hospital in Italy."""
    count = len(rows)
    return pd.DataFrame(
        {
            "ID_PAZ": numbered(count, 700421, 11),
            "DT_ACCETT": days(count, "2021-10-04", "%d/%m/%Y"),
            "UO_COD": in_turn(count, ("0801", "0802", "5001"), 31),
            "ESITO_CORONARO": coded(rows["disease"], {"absent": "NEG", "present": "POS"}),
            "N_VASI_SCOPIA": figures(rows["ca"]),
            "SESSO": coded(rows["sex"], {"female": "F", "male": "M"}),
            "ETA_ANNI": figures(rows["age"]),
            "PESO": drawn(count, 77, 12, 32),
            "ALTEZZA": drawn(count, 169, 8, 33),
            "DOL_TORACICO": coded(
                rows["cp"],
                {
                    "typical-angina": "ANG TIPICA",
                    "atypical-angina": "ANG ATIPICA",
                    "non-anginal-pain": "NON ANG",
                    "asymptomatic": "ASINT",
                },
            ),
            "PA_SIST": figures(rows["trestbps"]),
            "PA_DIAST": drawn(count, 80, 9, 34),
            "FC_BASALE": drawn(count, 73, 10, 35),
            "LAB_COLT": figures(rows["chol"]),
            "LAB_TRIG": drawn(count, 150, 30, 36),
            "LAB_GLIC_DIG_120": coded(rows["fbs"], {"yes": "1", "no": "0"}),
            "ECG_BASALE": coded(
                rows["restecg"],
                {
                    "normal": "NDP",
                    "st-t-abnormality": "ALT ST-T",
                    "left-ventricular-hypertrophy": "IVS",
                },
            ),
            "TE_DURATA_SEC": drawn(count, 480, 90, 37),
            "TE_FC_PICCO": figures(rows["thalach"]),
            "TE_ANGINA": coded(rows["exang"], {"yes": "SI", "no": "NO"}),
            "TE_SOTTOST_uV": figures(rows["oldpeak"] * 100),
            "TE_PEND_ST": coded(rows["slope"], {"up": "ASCEND", "flat": "ORIZZ", "down": "DISCEND"}),
            "FE_%": drawn(count, 56, 7, 38),
        }
    )


GRADES = [f"{letter}{step}" for letter in "ABCDEFG" for step in range(1, 6)]


def sparkasse_de(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a savings bank in Germany."""
    count = len(rows)

    def amounts(numbers: pd.Series) -> list[str]:
        return figures(numbers, 2, ",", ".")

    monthly = rows["int_rate"] / 1200
    rate = rows["funded_amnt"] * monthly / (1 - (1 + monthly) ** -rows["term"])
    years = {
        "emp_lt_1": "<1 J.",
        **{f"emp_{number}": f"{number} J." for number in range(1, 10)},
        "emp_ge_10": ">=10 J.",
    }
    return pd.DataFrame(
        {
            "VertragsNr": numbered(count, 6001204417, 13),
            "GeschStelle": in_turn(count, ("012", "017", "031", "044", "101"), 41),
            "ValutaDat": days(count, "2016-01-04", "%d.%m.%Y"),
            "ProdSchl": in_turn(count, ("PK-ONL", "PK-FIL", "AUTO", "MODERN"), 42),
            "DarlNominal": amounts(rows["funded_amnt"]),
            "LfzJahre": figures(rows["term"] / 12),
            "Sollzins_pa": figures(rows["int_rate"], 2),
            "RateMtl": amounts(rate),
            "RSV_Kz": in_turn(count, ("J", "N"), 43),
            "RatKlasse": coded(
                rows["sub_grade"],
                {grade: f"RK{place:02d}" for place, grade in enumerate(GRADES, 1)},
            ),
            "KN_EinkMtl": amounts(rows["annual_inc"] / 12),
            "KN_EinkNachw": coded(
                rows["verification_status"],
                {
                    "Not_Verified": "ungeprüft",
                    "Source_Verified": "Quelle gepr.",
                    "Verified": "geprüft",
                },
            ),
            "KN_BeschDauer": coded(rows["emp_length"], years, "k.A."),
            "KN_AnzKinder": in_turn(count, ("0", "0", "1", "2", "3"), 44),
            "Ausk_Anfr6M": figures(rows["inq_last_6mths"]),
            "Ausk_Anfr12M": figures(rows["inq_last_12m"]),
            "Ausk_Verzug30T_2J": figures(rows["delinq_2yrs"]),
            "Ausk_KtoRueckst": figures(rows["acc_now_delinq"]),
            "Ausk_RueckstBetr": amounts(rows["delinq_amnt"]),
            "RahmenKr_Ausn": figures(rows["revol_util"] / 100, 3),
            "GesAusn_Proz": figures(rows["all_util"]),
            "RatKr_Anz": figures(rows["num_il_tl"]),
            "RatKr_AnzLfd": figures(rows["open_il_6m"]),
            "RatKr_Neu12M": figures(rows["open_il_12m"]),
            "RatKr_Neu24M": figures(rows["open_il_24m"]),
            "RatKr_Saldo": amounts(rows["total_bal_il"]),
            "RatKr_HoechstBetr": amounts(rows["total_il_high_credit_limit"]),
            "Ausfall_Kz": coded(rows["loan_status"], {"good": "N", "bad": "J"}),
        }
    )


def banco_es(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a bank's cards in Spain, its months in rising order."""
    count = len(rows)
    cells = {
        "COD_CLIENTE": numbered(count, 30011207, 17),
        "COD_OFIC": in_turn(count, ("0049", "1182", "2100", "5734"), 51),
        "FEC_ALTA_TARJ": days(count, "2001-03-01", "%d/%m/%Y"),
        "TIP_TARJ": in_turn(count, ("CLASICA", "ORO", "JOVEN"), 52),
        "SEXO": coded(rows["SEX"], {"male": "H", "female": "M"}),
        "EDAD": figures(rows["AGE"]),
        "EST_CIVIL": coded(rows["MARRIAGE"], {"married": "CAS", "single": "SOL", "other": "OTR"}),
        "NIV_ESTUD": coded(
            rows["EDUCATION"],
            {
                "graduate-school": "POSGR",
                "university": "UNIV",
                "high-school": "BACH",
                "other": "OTROS",
            },
        ),
        "IND_DOMIC": in_turn(count, ("S", "N"), 53),
        "LIM_CRED_MILES": figures(rows["LIMIT_BAL"] / 1000),
    }
    names = ("SEP05", "AGO05", "JUL05", "JUN05", "MAY05", "ABR05")
    for place, month in reversed(list(enumerate(names, 1))):
        late = "PAY_0" if place == 1 else f"PAY_{place}"
        cells[f"MESES_RETR_{month}"] = figures(rows[late])
        cells[f"IMP_EXTRACTO_{month}"] = figures(rows[f"BILL_AMT{place}"], 2)
        cells[f"IMP_PAGADO_{month}"] = figures(rows[f"PAY_AMT{place}"], 2)
    cells["TAE"] = in_turn(count, ("17,90", "19,56", "21,84"), 54)
    cells["IND_IMPAGO_OCT05"] = coded(rows["default.payment.next.month"], {"0": "N", "1": "S"})
    return pd.DataFrame(cells)


def unrelated(rows: pd.DataFrame) -> pd.DataFrame:
    """Return milling machines' states as a German plant logs them."""
    count = len(rows)
    return pd.DataFrame(
        {
            "Masch_Nr": in_turn(count, ("BAZ03", "BAZ04", "BAZ11"), 11),
            "Auftrag": list(rows["Product ID"]),
            "Datum": days(count, "2020-06-01", "%d.%m.%Y"),
            "Güte": coded(rows["Type"], {"L": "C", "M": "B", "H": "A"}),
            "Temp_Halle_C": figures(rows["Air temperature [K]"] - 273.15, 1),
            "Temp_Spindel_C": figures(rows["Process temperature [K]"] - 273.15, 1),
            "Drehzahl": figures(rows["Rotational speed [rpm]"]),
            "Drehmoment_Nm": figures(rows["Torque [Nm]"], 1),
            "WZ_Standzeit_min": figures(rows["Tool wear [min]"]),
            "Störung": coded(rows["Machine failure"], {0: "0", 1: "1"}),
        }
    )


Rows = Callable[[Path], pd.DataFrame]
Export = Callable[[pd.DataFrame], pd.DataFrame]
EXPORTS: dict[str, tuple[Rows, Export]] = {
    "klinik_de": (lambda data: heart_rows(data, "cleveland"), klinik_de),
    "chu_fr": (lambda data: heart_rows(data, "cleveland"), chu_fr),
    "hospital_es": (lambda data: heart_rows(data, "hungarian"), hospital_es),
    "banca_it": (loan_rows, banca_it),
    "banque_fr": (card_rows, banque_fr),
    "kardio_at": (lambda data: heart_rows(data, "cleveland"), kardio_at),
    "clinique_fr": (lambda data: heart_rows(data, "hungarian"), clinique_fr),
    "ospedale_it": (lambda data: heart_rows(data, "cleveland"), ospedale_it),
    "sparkasse_de": (loan_rows, sparkasse_de),
    "banco_es": (card_rows, banco_es),
    "unrelated": (machine_rows, unrelated),
}
"""For each export its rows, of the folder of real data files, and what makes its table."""


def truth(name: str) -> dict[str, Any]:
    """Return an export's truth."""
    return tomllib.loads((HERE / f"{name}.toml").read_text())


def table(name: str, data: Path) -> pd.DataFrame:
    """Return an export as text cells under its own names."""
    rows, export = EXPORTS[name]
    return export(rows(data))


def written(cells: pd.DataFrame, settings: dict[str, Any]) -> bytes:
    """Return a table as the bytes of a CSV file, by the `csv` settings of its truth."""
    out = io.StringIO()
    lines = csv.writer(out, delimiter=settings["separator"], lineterminator="\r\n")
    lines.writerow(cells.columns)
    lines.writerows(cells.itertuples(index=False))
    return out.getvalue().encode(settings["encoding"])


def number_of(cell: str, settings: dict[str, Any]) -> Decimal | None:
    """Return the number that a cell says, or None where it is empty."""
    if not cell:
        return None
    plain = cell.replace(settings["thousands"], "") if settings["thousands"] else cell
    return Decimal(plain.replace(settings["decimal"], "."))


def swapped(name: str, data: Path) -> pd.DataFrame:
    """Return an export in which two numeric columns stand under each other's name."""
    one, other = truth(name)["damage"]["swapped"]["columns"]
    return table(name, data).rename(columns={one: other, other: one})


def factor_ten(name: str, data: Path) -> pd.DataFrame:
    """Return an export with one numeric column off by a factor of ten."""
    facts = truth(name)
    damage, settings = facts["damage"]["factor_ten"], facts["csv"]
    signs = str.maketrans({".": settings["decimal"], ",": settings["thousands"]})
    factor = Decimal(str(damage["multiply"]))
    cells = table(name, data)
    changed = []
    for cell in cells[damage["column"]]:
        number = number_of(cell, settings)
        changed.append("" if number is None else f"{number * factor:,f}".translate(signs))
    cells[damage["column"]] = changed
    return cells
