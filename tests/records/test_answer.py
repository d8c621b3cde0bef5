"""What stands around a run's answer: what it rests on, the next step by the verdict, and parts that a run lacks."""

import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from flfed.records.charts.by_round import are_cut, counted_in_bins, of_all_sites
from flfed.records.reports.narrative import headline, verdict_in_words
from flfed.records.reports.shown_run import ShownRun
from flfed.records.section import Section, Table, divide
from flfed.records.sections import answer
from flfed.records.sections.answer import basis, next_steps, words
from flfed.records.store.entries import ComparisonRow, CurvePoint, DifferenceRow, SiteRow
from flfed.records.store.reader import RunReader
from flfed.words import render

AUC = "roc_auc_score"
SITES = ("bern", "chur", "genf", "lugano")
STEPS = {0.05: ("export", "run"), -0.05: ("loss", ""), 0.001: ("rows", "command")}
"""The next step, and the fact in it, by the gain of four sites that are known to within 0.02."""


def read(run: str) -> ShownRun:
    with RunReader.open() as reader:
        return ShownRun.read(reader, run)


def written(store: Any, gain: float, *, resplit: bool = False, engine: str = "inprocess") -> str:
    """A run of four sites with the same gain."""
    series = store.begin_series(study="loan-default", study_sha256="", study_text="")
    run = store.begin_run(series, engine=engine, path="", seed=1, rounds_planned=1, primary=AUC, task="binary")
    figures = [ComparisonRow(None, "global", AUC, 0.8, 0.79, 0.81)]
    differences = []
    for place, site in enumerate(SITES):
        run.sites([SiteRow(site, rows=100 + place, holdout_rows=30 + place, resplit=resplit)])
        figures += [ComparisonRow(site, arm, AUC, 0.8, 0.7, 0.9, 30 + place) for arm in ("global", "local-only")]
        differences.append(DifferenceRow(site, "global", "local-only", AUC, gain, gain - 0.02, gain + 0.02))
    run.comparison(figures, differences)
    run.round(1)
    run.finish(status="completed")
    return str(run.run)


@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize("gain", STEPS)
def test_the_next_step_follows_the_verdict_and_its_command_exists(store: Any, gain: float, flfed: Callable[..., Any]):
    run = written(store, gain)
    (first, *others) = next_steps(read(run)).says
    step, fact = STEPS[gain]
    facts = {"run": run, "command": "flfed study run loan-default"}
    assert first == render(f"pages.next.{step}", **{key: value for key, value in facts.items() if key == fact})
    assert render("pages.next.audit", run=run) in others
    for step in (first, *others):
        for command in re.findall(r"`flfed ([^`]+)`", step):
            code, printed = flfed(*shlex.split(command)[:2], "--help")[:2]
            assert code == 0
            assert all(option in printed for option in re.findall(r"--\S+", command))


@pytest.mark.usefixtures("shown")
def test_more_rounds_at_institutions_begin_with_a_file_that_each_of_them_approves(store: Any, flfed, monkeypatch):
    monkeypatch.setattr(answer, "training_in_words", lambda training: "not trained enough")
    (alone, *_), (first, *_) = (
        next_steps(read(written(store, 0.001, engine=engine))).says for engine in ("inprocess", "deployment")
    )
    assert alone == "Train for more rounds: `flfed study run loan-default --set rounds=2`"
    # A site refuses a study whose text differs from the approved one, so no option changes it at the run.
    show, run = re.findall(r"`(flfed [^`]+)`", first)
    assert "Let each site approve this file" in first and run == "flfed coordinator run longer.toml"
    assert show == "flfed study show loan-default --set rounds=2 > longer.toml"
    code, text, _ = flfed(*shlex.split(show)[1:-2])
    assert code == 0 and "rounds = 2" in text


@pytest.mark.usefixtures("shown")
def test_more_splits_are_proposed_only_where_sites_draw_new_test_rows(store: Any):
    proposed = ["--repeats 10" in next_steps(read(written(store, 0.001, resplit=how))).says[0] for how in (True, False)]
    assert proposed == [True, False]


@pytest.mark.usefixtures("shown")
def test_the_basis_has_the_rows_of_all_sites(store: Any):
    run = written(store, 0.05)
    every = {line["Basis"]: line["In this run"] for line in basis(read(run)).tables[0].lines}
    # 30 + 31 + 32 + 33 test rows, of 100 + 101 + 102 + 103
    assert every["Rows"].startswith("126 test rows, of 406 rows at 4 sites")
    assert every["Rounds"].startswith("1 of 1 round ran")


@pytest.mark.usefixtures("shown")
def test_words_repeat_neither_headline_nor_basis(heart: str):
    shown = read(heart)
    above = {*verdict_in_words(shown.report), *headline(shown.report, AUC)}
    (table,) = basis(shown).tables
    said = words(shown)
    assert not set(said) & (above | {line["In this run"] for line in table.lines})
    assert said[0].startswith("The shared model reaches AUC 0.896") and len(said) <= 6


def points(*reaches: float) -> list[CurvePoint]:
    """Figures by round from 0.75 to 0.76, with their ranges."""
    values = [0.75 + 0.01 * place / (len(reaches) - 1) for place in range(len(reaches))]
    pairs = zip(values, reaches, strict=True)
    return [CurvePoint(n, None, "training", v, v - reach, v + reach, None) for n, (v, reach) in enumerate(pairs, 1)]


def test_one_uncertain_round_leaves_the_others_readable_and_says_so():
    wide = points(0.3, 0.001, 0.001)
    rows = of_all_sites(wide, AUC).rows
    # Half of the figures' own range, 0.01, on either side of them.
    assert rows["from"].min() == pytest.approx(0.745)
    assert rows["to"].max() == pytest.approx(0.765)
    assert rows["low"].min() == pytest.approx(0.45)
    # A round that is certain enough has no range.
    assert rows["from"].isna().tolist() == [False, True, True] == rows["to"].isna().tolist()
    assert are_cut(wide, AUC) and render("pages.rounds.cut") in counted_in_bins(wide, AUC)
    narrow = points(0.021, 0.001, 0.001, 0.001)
    assert are_cut(narrow, AUC)
    short = points(0.004, 0.001)
    assert not are_cut(short, AUC) and render("pages.rounds.cut") not in counted_in_bins(short, AUC)


def test_sections_without_content_are_divided_from_the_others():
    empty = Section(title="Attacks", lead=("None was run.",), tables=(Table(lines=[]),))
    full = Section(title="Sites", tables=(Table(lines=[{"Site": "a"}]),))
    assert divide([empty, None, full]) == ([full], [empty])
    assert empty.reason == "Attacks: None was run."
