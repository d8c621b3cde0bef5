"""`flfed site map` on exports whose names were written by somebody who never saw its word list."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flfed.rows.data import datasets
from flfed.rows.data.sources import Csv
from flfed.rows.proposals.answers import Answers
from flfed.rows.proposals.dialogue import Decision, MappingDialogue
from tests.foreign_exports import make
from tests.foreign_tables import Truth, answered

EXPORTS = ("klinik_de", "chu_fr", "hospital_es", "banca_it", "banque_fr")
SECOND = ("kardio_at", "clinique_fr", "ospedale_it", "sparkasse_de", "banco_es")
"""Written once the word list stood, by somebody who never saw it; mapped at the first try."""
SHARE = 0.8
MOST_ANSWERS = 10


def read(cells: pd.DataFrame, facts: dict[str, Any], file: Path) -> pd.DataFrame:
    """Return an export as a site's source reads its file."""
    settings = facts["csv"]
    file.write_bytes(make.written(cells, settings))
    options = {"separator": settings["separator"], "encoding": settings["encoding"]}
    table = Csv(str(file), missing=tuple(settings["missing"]), **options).read(())
    return table.mask(table.isin(settings["missing"]))


def truth_of(facts: dict[str, Any]) -> Truth:
    return Truth(facts["dataset"], facts["columns"], facts.get("units", {}), facts["codes"])


def decisions(table: pd.DataFrame, dataset: str) -> dict[str, Decision]:
    """Return what is decided before any question."""
    return MappingDialogue(table, datasets.load(dataset).schema, Answers()).decisions()


@pytest.mark.parametrize("name", EXPORTS + SECOND)
def test_a_blind_export_is_mapped_and_nothing_is_wrong_and_sure(name: str, test_data: Path, tmp_path: Path):
    facts = make.truth(name)
    truth = truth_of(facts)
    end = answered(read(make.table(name, test_data), facts, tmp_path / "export.csv"), truth)
    assert {column: own for column, own in end.sure.items() if truth.columns.get(column) != own} == {}
    here = [column for column, own in truth.columns.items() if own]
    right = [column for column in here if end.columns[column] == truth.columns[column]]
    assert len(right) >= SHARE * len(here), sorted(set(here) - set(right))
    assert len(end.asked) <= MOST_ANSWERS


@pytest.mark.parametrize("damage", ["swapped", "factor_ten"])
@pytest.mark.parametrize("name", EXPORTS + SECOND)
def test_damaged_columns_of_a_blind_export_are_never_sure(name: str, damage: str, test_data: Path, tmp_path: Path):
    facts = make.truth(name)
    table = read(getattr(make, damage)(name, test_data), facts, tmp_path / "export.csv")
    damaged = facts["damage"][damage]
    own = set(damaged.get("columns", [])) | {damaged.get("column")}
    before = decisions(table, facts["dataset"])
    assert {column for column, one in before.items() if one.origin == "sure" and one.own in own} == set()


@pytest.mark.parametrize("dataset", ["heart-disease", "loan-default", "taiwan-credit"])
def test_nothing_of_the_unrelated_export_is_sure(dataset: str, test_data: Path, tmp_path: Path):
    table = read(make.table("unrelated", test_data), make.truth("unrelated"), tmp_path / "export.csv")
    sure = {column for column, one in decisions(table, dataset).items() if one.origin == "sure" and one.own}
    assert sure == set()
