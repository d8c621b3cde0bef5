"""The pages of docs/case-studies: one for each study that is listed, and each number that of a run's record."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.make import case_studies
from docs.make.case_index import (
    COLUMNS,
    FOLDER,
    INDEX,
    JOINING,
    LISTED,
    PICTURES,
    Listed,
    Page,
    differing,
    figure_in,
    index,
    read_page,
    read_pages,
    sentence,
    thumbnail,
    write,
)
from docs.make.case_studies import page, run_of
from flfed.records.statistics.verdict import DO_NOT_USE, INCONCLUSIVE, NO_CLEAR_GAIN, PAYS, number
from flfed.study.study import names

NAMES = [listed.name for listed in LISTED]
PAGES = {page.listed.name: page for page in read_pages()}
MOST_BYTES = 10_000


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def row_of(name: str, text: str) -> str:
    """The line of a study in an index."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| [{name}]({name}.md)")]
    return line


def test_each_listed_study_is_shipped_and_has_a_page_that_holds():
    assert {*NAMES} <= {*names()} and len({*NAMES}) == len(NAMES)
    assert {path.stem for path in FOLDER.glob("*.md")} == {*NAMES, "index"}
    for name in NAMES:
        text = text_of(name)
        assert "does not hold" not in text
        assert ("| holds |" in text) == bool(case_studies.Study.load(name).expected.figures), name


def test_the_index_and_its_pictures_are_what_the_pages_give():
    assert differing() == []


@pytest.mark.parametrize(("name", "was", "planted", "files"), [
    ("zone-power", "joining +0.028 in", "joining +0.228 in", [f"{PICTURES}/zone-power.svg", INDEX]),
    ("zone-power", "2 of 3 sites", "1 of 3 sites", None), ("loan-default", "| 0.700 |", "| 0.100 |", [INDEX]),
    ("loan-default", "(−0.064 to", "(−0.164 to", [f"{PICTURES}/loan-default.svg"]),
    ("stroke-aspirin", "odds ratio 0.948", "odds ratio 0.982", [INDEX]),
])  # fmt: skip
def test_another_figure_on_a_page_is_seen(name: str, was: str, planted: str, files: list[str] | None, tmp_path: Path):
    folder = tmp_path / "case-studies"
    shutil.copytree(FOLDER, folder)
    text = text_of(name)
    assert was in text
    (folder / f"{name}.md").write_text(text.replace(was, planted), encoding="utf-8")
    if files is None:
        # The verdicts do not add up to the sites any more.
        with pytest.raises(ValueError, match=name):
            differing(folder)
        return
    assert differing(folder) == files
    write(folder)
    assert differing(folder) == []
    (folder / PICTURES / "no-study.svg").touch()
    assert differing(folder) == [f"{PICTURES}/no-study.svg"]


def test_studies_stand_by_their_gain_as_a_share_of_the_shortfall_and_those_without_one_last():
    order = re.findall(r"^\| \[([a-z0-9-]+)\]\(", index(read_pages()), re.MULTILINE)
    assert sorted(order) == sorted(NAMES)
    shares = [PAGES[name].share for name in order]
    known = [share for share in shares if share is not None]
    assert known == sorted(known, reverse=True) and shares[len(known) :] == [None] * (len(order) - len(known))
    assert 10 < len(known) < len(order)
    kinds = [bool(PAGES[name].metric) for name in order[len(known) :]]
    assert kinds == sorted(kinds, reverse=True), "a statistic stands behind every comparison"


def test_a_share_is_the_gain_over_what_the_site_models_of_the_judged_sites_lack():
    # AUC of three sites that can be judged; switzerland, at 0.850, is inconclusive.
    lacking = 1 - (0.914 + 0.911 + 0.704) / 3
    assert PAGES["heart-disease"].shortfall == pytest.approx(lacking, abs=1e-12)
    assert PAGES["heart-disease"].share == pytest.approx(-0.005 / lacking, abs=1e-12)
    # An error: the mean of the sites' own.
    assert PAGES["zone-power"].share == pytest.approx(0.028 / ((0.947 + 0.993 + 0.630) / 3), abs=1e-12)
    # The sites of 52 are not on the page: 0.387 shared, 0.009 better than alone.
    assert PAGES["influenza"].share == pytest.approx(0.009 / 0.396, abs=1e-12)


def test_each_row_has_the_figures_and_the_verdict_of_the_record():
    text = (FOLDER / INDEX).read_text(encoding="utf-8")
    for name, found in PAGES.items():
        row = row_of(name, text)
        headline = JOINING.search(text_of(name))
        assert sentence(found) in row
        if found.listed.how == COLUMNS:
            (line,) = found.lines
            assert (line.low > 0) == (line.verdict == PAYS) == ("better" in sentence(found))
            assert f"| AUC {number(line.value, 3, signed=True)} (" in row
            continue
        if headline is None:
            assert found.mean is None
            assert not re.search(r"\bbetter\b|\bworse\b|percent|%", sentence(found))
            continue
        words, *gain = headline.group(1, 2, 3, 4)
        assert f" {gain[0]} ({gain[1]} to {gain[2]}) |" in row
        assert found.mean is not None
        assert [found.mean.value, found.mean.low, found.mean.high] == [figure_in(each) for each in gain]
        # Only a clear improvement is called better, and a loss worse.
        assert (" better " in sentence(found)) == (words == "A clear improvement") == (found.mean.verdict == PAYS)
        assert (" worse" in sentence(found)) == (words == "A clear loss")
        assert sentence(found).startswith("No clear improvement") == (found.mean.verdict == NO_CLEAR_GAIN)


def test_the_index_names_no_site():
    text = (FOLDER / INDEX).read_text(encoding="utf-8")
    sites = [line.name for found in PAGES.values() for line in found.lines]
    assert len(sites) > 40
    assert [site for site in sites if site in text] == []


@pytest.mark.parametrize(("verdict", "gain", "shown"), [
    (PAYS, 0.1, "Together, three banks better find fraud: 20 % fewer wrongly ordered pairs on average."),
    (DO_NOT_USE, -0.1, "Together, three banks find fraud worse: 20 % more wrongly ordered pairs on average."),
    (
        NO_CLEAR_GAIN, 0.001,
        "No clear improvement on average when three banks find fraud together: "
        "as many wrongly ordered pairs, within 1 %.",
    ),
])  # fmt: skip
def test_a_sentence_follows_from_the_verdict(verdict: str, gain: float, shown: str):
    mean = replace(PAGES["heart-disease"].lines[0], site=None, value=gain, verdict=verdict)
    found = Page(Listed("", "", "banks", "find fraud"), "", 3, "roc_auc_score", (), mean, 0.5, {verdict: 3}, False)
    assert sentence(found) == shown
    assert sentence(replace(found, mean=None, tally={INCONCLUSIVE: 2, NO_CLEAR_GAIN: 1})) == (
        "Inconclusive on average when three banks find fraud together: one of three sites can be judged."
    )


def test_a_picture_is_light_and_has_a_mark_for_each_gain_and_one_for_the_mean():
    for name, found in PAGES.items():
        drawn = thumbnail(found)
        gains = [line for line in found.lines if line.value is not None]
        assert (drawn is None) == (not gains and found.mean is None)
        if drawn is None:
            continue
        assert len(drawn.encode()) < MOST_BYTES
        ElementTree.fromstring(drawn)
        assert "<script" not in drawn and "href" not in drawn
        marks = re.findall(r'<g class="mark-symbol role-mark[^"]*"[^>]*>(.*?)</g>', drawn)
        assert sum(group.count("<path") for group in marks) == len(gains) + int(found.mean is not None), name


def test_a_page_whose_verdicts_are_of_other_sites_is_refused():
    listed = {each.name: each for each in LISTED}["heart-disease"]
    text = text_of("heart-disease")
    with pytest.raises(ValueError, match="verdicts"):
        read_page(listed, text.replace("; inconclusive at 1", "; inconclusive at 2"))
    with pytest.raises(ValueError, match="2 sites have a verdict"):
        read_page(listed, text.replace("| 0.704 | +0.017", "| n/a | +0.017"))


@pytest.mark.usefixtures("stroke_trial")
def test_a_page_is_what_the_record_says_and_another_number_is_seen():
    case = run_of("stroke-aspirin")
    kept = text_of("stroke-aspirin")
    assert page(case) == kept
    case.found["statistics"]["odds-ratio"]["value"] = 0.482
    assert page(case) != kept


def test_a_simulated_table_is_called_so():
    text = (FOLDER / INDEX).read_text(encoding="utf-8")
    for name in NAMES:
        source = case_studies.datasets.load(case_studies.Study.load(name).dataset.name).source
        assert (case_studies.SIMULATED in text_of(name)) == source.synthetic, name
        assert (" · simulated |" in row_of(name, text)) == source.synthetic, name
        assert not re.search(r"\d{8}-\d{6}-[0-9a-f]{4}", text_of(name)), name


@pytest.mark.proof
@pytest.mark.studies
@pytest.mark.usefixtures("test_data")
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("portfolio")])
def test_every_study_is_verified_and_its_page_is_that_of_the_run(home, name: str):
    case = run_of(name)
    assert case.verified.holds, case.verified.error()
    # The index follows from the pages.
    assert page(case) == text_of(name)
