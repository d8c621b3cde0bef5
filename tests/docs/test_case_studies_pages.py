"""The pages of docs/case-studies: one for each study that is listed, and each number that of a run's record."""

from __future__ import annotations

import re

import pytest

from docs.make import case_studies
from docs.make.case_studies import FIELDS, FOLDER, index_row, page, rows_of_index, run_of
from flfed.study.study import names

LISTED = [(field, name) for field, studies in FIELDS.items() for name in studies]


def test_each_listed_study_is_shipped_and_has_a_page_and_a_row_in_the_index():
    studies = [name for _, name in LISTED]
    assert {*studies} <= {*names()} and len({*studies}) == len(studies)
    assert {path.stem for path in FOLDER.glob("*.md")} == {*studies, "index"}
    rows = rows_of_index(FOLDER / "index.md")
    assert [(row[0], name) for name, row in rows.items()] == LISTED
    for name, row in rows.items():
        assert row[5], name
        text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
        # The index says what the page's answer begins with, and no figure of the page failed.
        assert row[5].replace("\\", "") in text
        assert "does not hold" not in text
        assert ("| holds |" in text) == bool(case_studies.Study.load(name).expected.figures), name


def test_a_page_is_what_the_record_says_and_another_number_is_seen(home):
    case = run_of("pancreatitis-trial")
    kept = (FOLDER / "pancreatitis-trial.md").read_text(encoding="utf-8")
    assert page(case) == kept
    assert index_row("A drug's effect", case) == rows_of_index(FOLDER / "index.md")["pancreatitis-trial"]
    case.found["statistics"]["odds-ratio"]["value"] = 0.482
    assert page(case) != kept


def test_a_simulated_table_is_called_so():
    for _, name in LISTED:
        text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
        source = case_studies.datasets.load(case_studies.Study.load(name).dataset.name).source
        assert (case_studies.SIMULATED in text) == source.synthetic, name
        assert not re.search(r"\d{8}-\d{6}-[0-9a-f]{4}", text), name


@pytest.mark.proof
@pytest.mark.studies
@pytest.mark.usefixtures("test_data")
@pytest.mark.parametrize(("field", "name"), [pair for pair in LISTED if not pair[1].startswith("portfolio")])
def test_every_study_is_verified_and_its_page_is_that_of_the_run(home, field: str, name: str):
    case = run_of(name)
    assert case.verified.holds, case.verified.error()
    assert page(case) == (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert index_row(field, case) == rows_of_index(FOLDER / "index.md")[name]
