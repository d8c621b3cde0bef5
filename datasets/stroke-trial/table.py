"""The table of the dataset: 27 columns of the trial, under plain names and values."""

from pathlib import Path

import pandas as pd

NAMES = {
    "HOSPNUM": "hospital", "COUNTRY": "country", "RXHEP": "heparin_dose", "AGE": "age", "SEX": "sex", "RSBP": "sbp",
    "RDELAY": "delay", "RCONSC": "consciousness", "RDEF1": "deficit_face", "RDEF2": "deficit_arm",
    "RDEF3": "deficit_leg", "RDEF4": "dysphasia", "RDEF5": "hemianopia", "RDEF6": "visuospatial", "RDEF7": "brainstem",
    "RDEF8": "other_deficit", "STYPE": "stroke_type", "DAYLOCAL": "weekday", "HOURLOCAL": "hour",
    "OCCODE": "dead_or_dependent",
}  # fmt: skip
FLAGS = {
    "RXASP": "aspirin", "RSLEEP": "symptoms_on_waking", "RATRIAL": "atrial_fibrillation", "RCT": "ct",
    "RVISINF": "infarct_visible", "RHEP24": "heparin_before", "RASP3": "aspirin_before",
}  # fmt: skip
DEFICITS = [name for column, name in NAMES.items() if column.startswith("RDEF")]
DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
VALUES = {
    **dict.fromkeys(DEFICITS, {"Y": "yes", "N": "no", "C": "cannot be assessed"}),
    "sex": {"F": "female", "M": "male"},
    "consciousness": {"F": "alert", "D": "drowsy", "U": "unconscious"},
    # The pilot phase wrote H, the trial M for 12,500 IU.
    "heparin_dose": {"N": "none", "L": "low", "M": "high", "H": "high"},
    "stroke_type": {"OTH": "other"},
    # 1 dead, 2 dependent, 3 independent and not recovered, 4 recovered.
    "dead_or_dependent": {"1": "yes", "2": "yes", "3": "no", "4": "no"},
    "weekday": {str(number): day for number, day in enumerate(DAYS, 1)},
    "country": {
        "ARGE": "Argentina", "AUSL": "Australia", "AUST": "Austria", "BELG": "Belgium", "BRAS": "Brazil",
        "CANA": "Canada", "CHIL": "Chile", "CZEC": "Czech Republic", "DENM": "Denmark", "EIRE": "Ireland",
        "FINL": "Finland", "FRAN": "France", "GREE": "Greece", "HONG": "Hong Kong", "HUNG": "Hungary", "INDI": "India",
        "ISRA": "Israel", "ITAL": "Italy", "JAPA": "Japan", "NETH": "Netherlands", "NEW": "New Zealand",
        "NORW": "Norway", "POLA": "Poland", "PORT": "Portugal", "ROMA": "Romania", "SING": "Singapore",
        "SLOK": "Slovakia", "SLOV": "Slovenia", "SOUT": "South Africa", "SPAI": "Spain", "SRI": "Sri Lanka",
        "SWED": "Sweden", "SWIT": "Switzerland", "TURK": "Turkey", "UK": "United Kingdom", "USA": "USA",
    },
}  # fmt: skip


def read(folder: Path) -> pd.DataFrame:
    """Return the patients whose outcome at six months is known: 0 and 9 mean that it is not."""
    raw = pd.read_csv(folder / "ist.csv.gz", dtype=str, keep_default_na=False)
    raw = raw[raw["OCCODE"].isin(["1", "2", "3", "4"])].reset_index(drop=True)
    flags = {name: (raw[column] == "Y").astype(int).where(raw[column] != "") for column, name in FLAGS.items()}
    table = raw.rename(columns=NAMES).assign(**flags, heparin=(raw["RXHEP"] != "N").astype(int))
    return table.assign(**{name: table[name].replace(codes) for name, codes in VALUES.items()})
