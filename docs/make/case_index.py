"""Index of docs/case-studies by field, then gain, made from results.json: `python -m docs.make.case_index`.

`docs.make.case_studies` writes a study's results from the record of a run, and makes the index anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docs.make.reference import table
from flfed import Study
from flfed.rows.data import datasets

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "case-studies"
INDEX, RESULTS, BY_ROWS = "index.md", "results.json", "gain-by-rows"
FIELDS = {
    "Healthcare": {
        "heart-disease": "Hospitals recognise coronary artery disease",
        "fed-heart-flamby": "FLamby's heart table, repeated",
        "stroke-outcome": "Countries predict death or dependence after a stroke",
        "stroke-outcome-by-hospital": "Hospitals predict death or dependence after a stroke",
        "preterm-birth": "Clinics foresee a preterm birth",
        "telemonitoring": "Homes follow the symptoms of Parkinson's disease",
        "drug-reviews": "Groups of drug reviews recognise severe side effects",
        "influenza": "States forecast next week's admissions with influenza",
        "stroke-aspirin": "Countries measure whether aspirin helps after a stroke",
        "stroke-logistic": "Countries measure whether aspirin helps, adjusted for age, blood pressure and sex",
        "breast-cancer-survival": "Research sites compare survival with and without hormonal therapy",
    },
    "Finance": {
        "loan-default": "Lenders rank loans by their risk of default",
        "taiwan-credit": "Banks rank card clients by their risk of default",
        "taiwan-credit-trees": "Banks rank card clients by their risk of default, with boosted trees",
        "taiwan-credit-parties": "A bank and a payment service, each with other columns of the same clients",
        "sba-loans": "Lenders to small businesses rank loans by their risk of default",
        "card-fraud": "Banks find fraud in card payments",
        "portfolio": "Custodians compute the covariances of twenty stocks",
        "loan-table": "Lenders describe their loans under a privacy budget",
    },
    "Supply chain": {"scms-delivery": "Countries foresee late deliveries of HIV medicines"},
    "Manufacturing": {"engine-life": "Operators estimate how long an engine lasts"},
    "Energy": {"zone-power": "Zones of a city forecast how much power they draw"},
    "Tables of textbooks": {
        "breast-cancer": "Breast masses, cut into equal parts",
        "breast-cancer-dp-3": "Breast masses, under differential privacy",
        "wine": "Wines of three growers",
        "diabetes": "Progression of diabetes after a year",
    },
}
"""The studies of each field, in words that its people use."""
TOLD = (
    "heart-disease", "stroke-outcome-by-hospital", "stroke-aspirin", "telemonitoring", "influenza", "loan-default",
    "card-fraud", "scms-delivery", "engine-life", "zone-power",
)  # fmt: skip
"""Studies that have a page."""
HEAD = f"""# Case studies

**It pays for small sites.** Of 464 hospitals of a stroke trial, those with fewer than 200 patients rank theirs clearly better with the shared model; the fewer patients, the more. A site with thousands of rows and a good model of its own gains little, and one that differs from the others may lose.

[![Gain by rows of a hospital]({BY_ROWS}/stroke-outcome-by-hospital.svg)](stroke-outcome-by-hospital.md)

A point is a hospital. In the shaded region no hospital's own test rows could show a gain; all hospitals of a size together do. `flfed study power STUDY --rows N --events N` shows the least gain that your rows can show.

The shipped studies by field, on public rows, the largest average gain first. Where joining brings nothing, the last column says so."""  # noqa: E501 - a paragraph of a page is a line
READ = """## How to read it

- **The gain** is the shared model before adjustment against the model that each site has alone, as the mean over the sites that can be judged. Above 0 joining is better, whatever the metric.
- **Joining improves** the model at a site where the whole interval lies above the least gain that the study names.
- **Sites** are parts of one public file in most studies, and no institutions that met. The README of each dataset names its traps, and what may not be concluded."""  # noqa: E501 - as above
MADE = "This page is made by `make case-studies` from the record of a run; each number is the record's."
SIGNED = r"[+−]?[\d.]+"
GAIN = re.compile(rf"from joining.*? ({SIGNED}) (?:on average|in [^(]+) \(95 % CI ({SIGNED}) to ({SIGNED})")
TALLY = re.compile(r"(?:Joining improves [^.]*?|No clear improvement|Inconclusive) at (?:\d+ of|[a-z]+-)[^.]*\.")


def result_of(sentences: Sequence[str], sites: int, metric: str) -> dict[str, Any]:
    """Return the results of a study: its sites, its metric ("" of a statistic), its mean gain, and what follows."""
    text = " ".join(sentences)
    gain, tally = GAIN.search(text), TALLY.search(text)
    says = re.sub(r" \([^)]*\)", "", tally[0]) if metric and tally else sentences[0]
    return {"sites": sites, "metric": metric, "gain": list(gain.groups()) if gain else None, "says": says}


def value(result: Mapping[str, Any]) -> float:
    """Return a study's mean gain; that of a study without one stands behind all others."""
    return float(result["gain"][0].replace("−", "-")) if result["gain"] else float("-inf")


def row_of(name: str, words: str, result: Mapping[str, Any]) -> list[str]:
    """Return a study's row of its table."""
    dataset = datasets.load(Study.load(name).dataset.name)
    link = f"{name}.md" if name in TOLD else f"../../datasets/{dataset.name}/README.md"
    words += " (simulated)" if dataset.source.synthetic else ""
    gain = "{} {} ({} to {})".format(result["metric"], *result["gain"]) if result["gain"] else ""
    return [f"[{name}]({link})", words, str(result["sites"]), gain, result["says"]]


def index(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the text of the index."""
    headers = ["study", "what it does", "sites", "mean gain (95 % CI)", "what follows"]
    parts = [HEAD]
    for field, studies in FIELDS.items():
        names = sorted(studies.keys() & results, key=lambda name: (-value(results[name]), name))
        parts += [f"## {field}", table(headers, [row_of(name, studies[name], results[name]) for name in names])]
    return "\n\n".join([*parts, READ, MADE]) + "\n"


def read() -> dict[str, dict[str, Any]]:
    """Return the results of all studies that were kept."""
    found: dict[str, dict[str, Any]] = json.loads((FOLDER / RESULTS).read_text(encoding="utf-8"))
    return found


def keep(name: str, result: dict[str, Any]) -> None:
    """Write the results of a study, and the index anew."""
    text = json.dumps(read() | {name: result}, indent=1, ensure_ascii=False, sort_keys=True)
    (FOLDER / RESULTS).write_text(text + "\n", encoding="utf-8")
    (FOLDER / INDEX).write_text(index(read()), encoding="utf-8")


if __name__ == "__main__":
    (FOLDER / INDEX).write_text(index(read()), encoding="utf-8")
