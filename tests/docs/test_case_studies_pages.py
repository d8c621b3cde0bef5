"""The pages of docs/case-studies: ten studies that are told, and an index of all; each number is that of a run."""

from __future__ import annotations

import re

import pytest

from docs.make import case_studies
from docs.make.case_index import FIELDS, FOLDER, GAIN, INDEX, TOLD, index, read, result_of, value
from docs.make.case_studies import page, run_of
from flfed.study.study import names

NAMES = [name for studies in FIELDS.values() for name in studies]
TEXT = (FOLDER / INDEX).read_text(encoding="utf-8")


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def row_of(name: str) -> str:
    """The line of a study in the index."""
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"| [{name}](")]
    return line


def test_every_shipped_study_is_in_the_index_and_ten_have_a_page_that_holds():
    assert sorted(NAMES) == sorted(names()) == sorted(read())
    assert {path.stem for path in FOLDER.glob("*.md")} == {*TOLD, "index"} and len(TOLD) == 10
    for name in TOLD:
        assert "does not hold" not in text_of(name)
        assert "| holds |" in text_of(name), name


def test_the_index_is_what_the_results_give_and_another_figure_is_seen():
    results = read()
    assert index(results) == TEXT
    results["loan-default"] = results["loan-default"] | {"gain": ["+0.111", "−0.005", "+0.127"]}
    assert index(results) != TEXT


def test_the_results_are_those_of_the_pages():
    for name in TOLD:
        found, result = GAIN.search(text_of(name)), read()[name]
        assert (list(found.groups()) if found else None) == result["gain"], name
        sites = re.search(r"^(\d+) sites", text_of(name), re.MULTILINE) or re.search(r"all (\d+) sites", text_of(name))
        assert sites is not None and int(sites[1]) == result["sites"], name
        assert result["says"].split(";")[0].rstrip(".") in text_of(name), name


def test_studies_of_a_field_stand_by_their_gain_and_those_without_one_last():
    gains = read()
    for studies in TEXT.split("\n## ")[1:-1]:
        shown = [value(gains[name]) for name in re.findall(r"^\| \[([a-z0-9-]+)\]\(", studies, re.MULTILINE)]
        assert shown and shown == sorted(shown, reverse=True)


@pytest.mark.parametrize(("sentences", "metric", "gain", "says"), [
    (
        ["Mean gain from joining −0.005 in AUC (95 % CI −0.028 to +0.019; 3 of 4 sites can be judged): so.",
         "Joining improves AUC at 0 of 4 sites; no clear improvement at 3 (a, b, c); inconclusive at 1 (d)."],
        "AUC", ["−0.005", "−0.028", "+0.019"],
        "Joining improves AUC at 0 of 4 sites; no clear improvement at 3; inconclusive at 1.",
    ),
    (
        ["A clear improvement from joining: AUC +0.029 on average (95 % CI +0.021 to +0.037; 52 of 451).",
         "Inconclusive at 399 of 451 sites; no clear improvement at 52."],
        "AUC", ["+0.029", "+0.021", "+0.037"], "Inconclusive at 399 of 451 sites; no clear improvement at 52.",
    ),
    (["The odds ratio is 0.948 (95 % CI 0.9 to 1)."], "", None, "The odds ratio is 0.948 (95 % CI 0.9 to 1)."),
])  # fmt: skip
def test_a_gain_and_what_follows_are_read_from_the_records_sentences(sentences, metric, gain, says):
    assert result_of(sentences, 4, metric) == {"sites": 4, "metric": metric, "gain": gain, "says": says}


def test_a_page_is_what_the_record_says_and_another_number_is_seen():
    case = run_of("stroke-aspirin")
    assert page(case) == text_of("stroke-aspirin")
    assert case_studies.result(case) == read()["stroke-aspirin"]
    case.found["statistics"]["odds-ratio"]["value"] = 0.982
    assert page(case) != text_of("stroke-aspirin")


def test_a_simulated_table_is_called_so():
    for name in NAMES:
        source = case_studies.datasets.load(case_studies.Study.load(name).dataset.name).source
        assert ("(simulated)" in row_of(name)) == source.synthetic, name
        if name in TOLD:
            assert (case_studies.SIMULATED in text_of(name)) == source.synthetic, name
            assert not re.search(r"\d{8}-\d{6}-[0-9a-f]{4}", text_of(name)), name


@pytest.mark.proof
@pytest.mark.studies
@pytest.mark.usefixtures("test_data")
@pytest.mark.parametrize("name", TOLD)
def test_every_told_study_is_verified_and_its_page_is_that_of_the_run(home, name: str):
    case = run_of(name)
    assert case.verified.holds, case.verified.error()
    assert page(case) == text_of(name)
    assert case_studies.result(case) == read()[name]
