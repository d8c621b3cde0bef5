"""Page Methods: differences over the same random splits, against the formula by hand."""

import math
import re
import sqlite3
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from sqlalchemy import event
from streamlit.testing.v1 import AppTest

import flfed
from flfed import Study
from flfed.experiments.compare_runs import compare_runs
from flfed.records.reports.recorded_run import Recorded, methods_of, paired, shows
from flfed.records.statistics.verdict import Difference, gain_in_brackets
from flfed.records.store.reader import RunReader

PAGE = Path(flfed.__file__).parent / "records" / "dashboard" / "pages" / "p55_methods.py"
REPEATS = 3
RUNS = ((2, "fedavg"), (2, "median"), (1, "median"))
T_TWO = 4.302652730  # of Student's t with 2 degrees of freedom: P(|T| <= 4.303) = 0.95
AUC = "roc_auc_score"

pytestmark = [pytest.mark.slow, pytest.mark.studies]


def series(repeats: int = REPEATS, **changes: object) -> str:
    study = Study.load("preterm-birth").replace({"resamples": 200, "rounds": 5, **changes})
    return flfed.run(study, repeats=repeats).run


def shown() -> AppTest:
    page = AppTest.from_file(str(PAGE), default_timeout=60).run()
    assert not page.exception
    return page


@pytest.mark.usefixtures("home")
@pytest.mark.proof
def test_differences_are_of_the_same_splits_and_nothing_else():
    plain = series()
    [info] = shown().info
    assert "`flfed study run preterm-birth --repeats 10`" in info.value
    other, few, elsewhere = (
        series(**{"strategy.name": "median"}), series(2, **{"strategy.name": "median"}), series(seed=5),
    )  # fmt: skip
    with RunReader.open() as reader:
        base, median, fewer, seeded = (
            Recorded.read(reader, reader.runs_of(name)) for name in (plain, other, few, elsewhere)
        )
        found = paired(base, median, (None, "global", AUC))
        runs = [(a, b) for (a, _), (b, _) in zip(base.runs, median.runs, strict=True)]
        figures = [
            tuple(next(f.value for f in reader.figures(run.run) if (f.site, f.arm, f.metric) == (None, "global", AUC))
                  for run in pair)
            for pair in runs
        ]  # fmt: skip
        sites = [site for a, _ in runs for site in reader.sites(a.run)]
        methods = methods_of(reader, other)
    values = [b - a for a, b in figures]
    held = sum(site.holdout_rows for site in sites)
    ratio = held / (sum(site.rows for site in sites) - held)
    reach = T_TWO * stdev(values) * math.sqrt(1 / REPEATS + ratio)
    assert found["value"] == pytest.approx(fmean(values), abs=1e-15)
    assert (found["low"], found["high"]) == pytest.approx((fmean(values) - reach, fmean(values) + reach), rel=1e-8)
    assert "same repeats" in paired(base, fewer, (None, "global", AUC))["reason"]
    assert "seeds differ" in paired(base, seeded, (None, "global", AUC))["reason"]
    # The page has the two series on the same splits, plain averaging first whichever is opened.
    assert [method["series"] for method in methods] == [plain, other]
    assert [method["method"] for method in methods] == ["fedavg", "median"]
    assert methods[1]["gain"][AUC] == found
    assert compare_runs(plain, other)["paired"][AUC] == found


@pytest.mark.usefixtures("home")
def test_a_number_has_no_column_of_a_log_loss():
    for name in ("fedavg", "median"):
        flfed.run(Study.load("diabetes").replace({"resamples": 200, "rounds": 2, "strategy.name": name}), repeats=2)
    [table] = shown().table
    assert [*table.value.columns] == ["Method", "Rounds", "R²", "Difference in R² (95 % CI)", "Finding"]


@pytest.mark.usefixtures("home")
def test_without_plain_averaging_no_method_is_called_that():
    for name in ("median", "fedadam"):
        series(2, rounds=3, **{"strategy.name": name})
    page = shown()
    [table] = page.table
    lines = table.value.to_dict("records")
    assert [line["Method"].partition(",")[0] for line in lines] == ["fedadam", "median"]  # the newest is open
    assert lines[0]["Finding"] == "reference method"
    assert "No run of plain averaging" in page.info[0].value and "fedadam" in page.info[0].value


@pytest.mark.usefixtures("home")
def test_the_page_says_in_words_what_an_interval_shows():
    series(rounds=40)
    series(rounds=40, **{"strategy.name": "fedadam", "strategy.server-lr": 0.02})
    [table] = shown().table
    lines = table.value.to_dict("records")
    assert lines[0]["Finding"] == "plain averaging"
    assert lines[1]["Method"] == "fedadam, server-lr 0.02"
    assert lines[1]["Finding"].endswith("log loss worse")


@pytest.mark.usefixtures("home")
def test_run_compare_prints_the_interval_of_two_series_or_why_there_is_none(flfed: Any):
    plain, other, few = (series(n, rounds=3, **{"strategy.name": name}) for n, name in RUNS)
    pair = compare_runs(plain, other)["paired"][AUC]
    gain = gain_in_brackets(Difference(pair["value"], pair["low"], pair["high"]))
    lines = flfed("run", "compare", plain, other)[1].splitlines()
    [line] = [line for line in lines if line.startswith("shared model ") and " AUC " in line]
    assert line.rstrip().endswith(f"  {gain}") and "has no interval" not in "\n".join(lines)
    assert "B - A has no interval: both need the same repeats, 2 or more." in flfed("run", "compare", plain, few)[1]


def test_a_series_on_other_rows_of_the_same_number_is_no_other_method(home: Path):
    first, other, third = (series(2, rounds=3, **{"strategy.name": name}) for name in ("fedavg", "median", "fedavgm"))
    asked: list[tuple[str, ...]] = []
    with RunReader.open() as reader:
        event.listen(reader._engine, "before_cursor_execute", lambda c, cursor, said, facts, *_: asked.append(facts))
        assert {method["series"] for method in methods_of(reader, first)} == {first, other, third}
        own, runs = ([run.run for run in reader.runs_of(name)] for name in (first, other))
    # The sums of the opened series are read once, however many others there are.
    assert sorted(facts[0] for facts in asked if "training-sums" in facts and facts[0] in own) == sorted(own)

    def with_sums(path: str, value: str) -> None:
        with sqlite3.connect(home / "runs.db") as store:
            store.execute(
                f"UPDATE summary SET payload = json_set(payload, '$.rounded{path}', json(?))"
                " WHERE name = 'training-sums' AND run_id IN (?, ?)", [value, *runs],
            )  # fmt: skip

    # On another processor one of the two hashes may differ.
    with_sums("[0]", '"0"')
    compared = compare_runs(first, other)
    assert compared["hashes"]["sums"]["equal"] is True and compared["warnings"] == []
    assert compared["hashes"]["sums"]["a"] == compared["hashes"]["sums"]["b"]
    with_sums("", '["0", "1"]')
    compared = compare_runs(first, other)
    assert compared["hashes"]["sums"]["equal"] is False and "training rows differ" in compared["warnings"][0]
    with RunReader.open() as reader:
        assert {method["series"] for method in methods_of(reader, first)} == {first, third}
    assert "training rows differ" in compare_runs(first, other)["paired"][AUC]["reason"]


@pytest.mark.usefixtures("home")
def test_the_command_of_the_page_is_that_of_the_study():
    series(1, rounds=1)
    [info] = shown().info
    assert "`flfed study run preterm-birth --repeats 10`" in info.value and "STUDY" not in info.value
    assert "`--set strategy.name=fedadam`" in info.value


@pytest.mark.usefixtures("home")
def test_the_other_method_that_the_page_names_is_one_that_the_study_can_have():
    name = "boosted-trees"
    head = 'format = 1\nname = "trees"\npurpose = "a test"\nlegal-basis = "none"\ndataset.name = "preterm-birth"\n'
    trees = Study.parse(f'{head}model.name = "{name}"\nstrategy = {{ name = "{name}", rounds = 2 }}\n')
    flfed.run(trees)
    [info] = shown().info
    (key, other), (of_trees, rate) = re.findall("`--set ([^`=]*)=([^`]*)`", info.value)
    assert Study.load("preterm-birth").replace({key: other}) and trees.replace({of_trees: float(rate)})


def test_institutions_are_shown_what_their_gates_want_first(home: Path):
    series(1, rounds=1)
    with sqlite3.connect(home / "runs.db") as store:
        store.execute("UPDATE run SET engine = 'deployment'")
    [info] = shown().info
    assert "coordinator run" in info.value and "Institutions approve that text first" in info.value


def test_an_interval_that_holds_0_shows_no_difference():
    def told(low: float, high: float, metric: str) -> str:
        return shows({metric: {"value": (low + high) / 2, "low": low, "high": high}}, metric)

    assert told(-0.01, 0.03, AUC) == told(0.0, 0.2, AUC) == "no difference shown"
    assert (told(0.01, 0.03, AUC), told(-0.02, -0.01, AUC)) == ("better", "worse")
    assert (told(0.01, 0.03, "log_loss"), told(-0.02, -0.01, "log_loss")) == ("worse", "better")
    assert shows({AUC: {"value": None}}, AUC) == "inconclusive"
