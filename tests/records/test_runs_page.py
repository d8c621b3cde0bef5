"""The list of runs, and runs side by side: the figures of the record, what differs, and when not to compare."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from flfed.records.dashboard.panels.compare import MOST, differences
from flfed.records.dashboard.panels.run_table import row_of
from flfed.records.objects import figure_of, run_of
from flfed.records.reports.catalogue import comparison_warnings, series_list
from flfed.records.reports.faults import missing_in_words
from flfed.records.reports.report import primary_of, report
from flfed.records.reports.site_verdict import code_of_mean
from flfed.records.statistics.noised_scores import released
from flfed.records.statistics.verdict import interval, number
from flfed.records.store.entries import EventRow, SiteEntry, SiteRow
from flfed.records.store.reader import RunReader
from flfed.records.store.writer import RunStore
from tests.records.test_dashboard import listed_rows, overview, words

ROOT = Path(__file__).parents[2]
AUC = "roc_auc_score"
TEXT = 'seed = {seed}\n[dataset]\nname = "{dataset}"\n[plan]\nlr = {lr}\n[expected]\nrepeats = {seed}\n'


def study(seed: int = 1, dataset: str = "heart-disease", lr: float = 0.1) -> str:
    return TEXT.format(seed=seed, dataset=dataset, lr=lr)


@pytest.fixture
def two(store, write, url, monkeypatch) -> tuple[str, str]:
    """Two series: one run, and two repeats of another seed and rate."""
    monkeypatch.setenv("FLFED_STORE", url)
    first = store.begin_series(study="heart-disease", study_sha256="", study_text=study())
    write(store, first)
    second = store.begin_series(study="heart-disease", study_sha256="", study_text=study(2, lr=0.3), repeats=2)
    for repeat in range(2):
        write(store, second, repeat=repeat, shift=0.02)
    return first, second


def page_with(compare: str) -> AppTest:
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    page.query_params["compare"] = compare
    return page.run()


def test_two_runs_stand_side_by_side_with_the_figures_of_their_records(two):
    page = page_with(",".join(two))
    assert not page.exception
    said = words(page)
    with RunReader.open() as reader:
        for series in two:
            found = report(reader, series)
            assert found["run"] in said
            assert number(found["global"][AUC]["value"]) == {two[0]: "0.896", two[1]: "0.916"}[series]
            for site in ("cleveland", "long-beach"):
                entry = found["sites"][site]["global"][AUC]
                assert f"{number(entry['value'])} ({interval(entry['low'], entry['high'])})" in said
    assert "{'Key': 'plan.lr', " in said
    assert "'0.1'" in said and "'0.3'" in said
    assert "expected.repeats" not in said


def test_the_comparison_is_in_the_address_until_it_is_closed_and_one_run_alone_is_compared_with_nothing(two):
    page = page_with(",".join(two))
    assert "Side by side" in words(page)
    page.button[0].click().run()
    assert "Side by side" not in words(page) and "compare" not in page.query_params
    for alone in ("", two[0], f"{two[0]},{two[0]}", f"{two[0]},nothing"):
        page = page_with(alone)
        assert not page.exception
        assert "Side by side" not in words(page) and "compare" not in page.query_params


def test_the_list_has_who_took_no_part_in_any_repeat_as_the_run_has_it(store, write, url, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", url)
    series = store.begin_series(study="heart-disease", study_sha256="", study_text=study(), repeats=3)
    for repeat in range(3):
        run = write(store, series, repeat=repeat, rounds=1)
        if repeat:
            run.events([EventRow(None, "hungary", "fault", "not there: no answer before the deadline", "not-there")])
    page = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert not page.exception
    (row,) = listed_rows(page)
    listed = row["cells"]["status"]["below"]
    with RunReader.open() as reader:
        told = [line.partition(" (")[0] for line in missing_in_words(report(reader, series))]
    assert told == ["1 of 5 sites took no part: basel", "hungary took no part in 2 of 3 repeats"]
    assert all(line in listed for line in told)


def test_list_margin_and_head_have_one_time_and_a_call_without_a_name_its_target_and_time(url, write, monkeypatch):
    monkeypatch.setenv("FLFED_STORE", url)
    minutes = count()
    began = datetime(2026, 11, 20, 15, tzinfo=UTC)
    with RunStore.open(url, clock=lambda: began + timedelta(minutes=next(minutes))) as store:
        series = store.begin_series(study="died-20261120-145958-7ae4", study_sha256="", study_text=study(), repeats=2)
        for repeat in range(2):
            write(store, series, repeat=repeat)
    (row,) = listed_rows(AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run())
    assert row["cells"]["study"]["text"] == "died, 20 Nov 2026, 14:59"
    assert "died-20261120-145958-7ae4" in row["label"]
    page = overview(series)
    started = row["cells"]["started"]["text"]
    assert f"{started} UTC" in words(page) and page.title[0].value == "died, 20 Nov 2026, 14:59"
    assert page.sidebar.selectbox[0].options == [f"{started.replace(' 2026,', '')} died"]
    with RunReader.open(url) as reader:
        begun = {run.started[:16] for run in reader.runs_of(series)}
    assert len(begun) == 2  # the repeats began in different minutes


def test_a_run_that_compared_nothing_has_no_verdict_beside_others(two, store):
    series = store.begin_series(study="begun", study_sha256="", study_text=study())
    run = store.begin_run(series, engine="e", path="p", seed=1, rounds_planned=2, primary=AUC, task="binary")
    run.sites([SiteRow("cleveland", rows=303)])
    run.finish(status="stopped", reason="the quorum is 3")
    page = page_with(f"{two[0]},{series}")
    assert f"'begun {series[-4:]}': 'not compared'" in words(page)
    assert words(page).count("inconclusive") == words(page_with(",".join(two))).count("n/a: inconclusive") // 2


def test_more_runs_than_can_be_read_and_a_run_named_twice_are_cut_to_what_can_be_compared(two, store, write):
    more = [store.begin_series(study=f"study-{k}", study_sha256="", study_text=study(k)) for k in range(MOST + 1)]
    for series in more:
        write(store, series, rounds=1)
    page = page_with(",".join([more[0], *more]))
    assert not page.exception
    assert page.query_params["compare"] in (",".join(more[:MOST]), [",".join(more[:MOST])])
    assert "Side by side" in words(page)


def warnings(runs: list[tuple[str, Any, str]], *redrawn: SiteEntry) -> list[str]:
    return comparison_warnings([(*run, redrawn) for run in runs])


def test_runs_on_other_data_or_other_holdouts_are_not_compared_without_a_word(two):
    with RunReader.open() as reader:
        one, other = (report(reader, series) for series in two)
    assert warnings([("a", one, study()), ("b", other, study(2))]) == []
    (said,) = warnings([("a", one, study()), ("b", other, study(dataset="diabetes"))])
    assert said == "Figures of runs on different datasets cannot be compared (heart-disease: a; diabetes: b)."
    fewer = one | {"sites": {"cleveland": one["sites"]["cleveland"]}}
    (said,) = warnings([("a", one, study()), ("b", fewer, study()), ("c", one, study())])
    assert said.startswith("Runs were not all evaluated on the same sites and test rows (a and c; b): part of a")


def test_each_run_is_warned_of_with_those_of_its_own_data_whatever_else_is_beside_them(two):
    with RunReader.open() as reader:
        one, other = (report(reader, series) for series in two)
    fewer = one | {"sites": {"cleveland": one["sites"]["cleveland"]}}
    stopped = one | {"global": {}, "primary": None, "sites": {}}
    three = [("a", stopped, study()), ("b", one, study()), ("c", fewer, study()), ("d", one, study(dataset="preterm"))]
    data, rows = warnings(three)
    assert "(heart-disease: a, b and c; preterm: d)" in data
    assert rows.startswith("Dataset heart-disease: Runs were not all evaluated on") and "(b; c)" in rows
    # Two repeats that drew a holdout each are judged on other rows than one run, though there are as many of them.
    assert one["repeats"] != other["repeats"]
    cleveland = SiteEntry("cleveland", "", "accepted", "", 303, 91, "open", resplit=True)
    assert len(warnings([("a", one, study()), ("b", other, study())], cleveland)) == 1


@pytest.mark.parametrize("key", ["[dataset.partition]\nseed = 2", "[split]\nfixed = 'flamby-43'"])
def test_rows_that_are_drawn_otherwise_are_other_rows_though_as_many(two, key):
    with RunReader.open() as reader:
        one = report(reader, two[0])
    drawn = f"{study()}\n{key}\n"
    (line,) = warnings([("a", one, study()), ("b", one, drawn)])
    assert line.startswith("Runs were not all evaluated on the same sites and test rows (a; b)")
    assert warnings([("a", one, drawn), ("b", one, drawn)]) == []


def test_the_axis_of_runs_side_by_side_has_few_figures(two):
    page = page_with(",".join(two))
    (chart,) = [json.loads(one.proto.spec) for one in page.get("vega_lite_chart") or page.get("arrow_vega_lite_chart")]
    axes = [x["axis"]["values"] for layer in chart["layer"] if "axis" in (x := layer["encoding"]["x"])]
    assert axes[0] == axes[1] == pytest.approx([0.86, 0.88, 0.9, 0.92, 0.94])
    assert "Two runs can differ although their intervals overlap." in words(page)


def test_studies_that_are_the_same_differ_in_nothing():
    assert differences([("a", study()), ("b", study())]) == []
    found = differences([("a", study()), ("b", study(3)), ("c", "not toml [")])
    assert {line["Key"] for line in found} == {"seed", "dataset.name", "plan.lr"}
    assert next(line for line in found if line["Key"] == "seed") == {
        "Key": "seed", "a": "1", "b": "3", "c": "not given",
    }  # fmt: skip


def line_of(reader: RunReader, series: str) -> dict[str, Any]:
    (line,) = series_list(reader, reader.runs_of(series)[::-1])
    return line


def test_a_gain_that_is_too_small_to_matter_says_in_the_list_how_large_it_must_be():
    gain = {"value": 0.042, "low": 0.004, "high": 0.079, "minimum-gain": 0.005}
    line: dict[str, Any] = {"run": "a", "study": "loans", "metric": AUC, "verdict": "no clear gain", "gain": gain}
    line |= {"sites": 4, "repeats": 1, "missing-repeats": {}, "started": "2026-01-21T18:00:00Z", "status": "completed"}
    assert row_of(line)["cells"]["gain"]["below"] == ["+0.004 to +0.079", "needs to lie above 0.005"]
    above = line | {"verdict": "joining pays", "gain": gain | {"low": 0.006}}
    assert row_of(above)["cells"]["gain"]["below"] == ["+0.006 to +0.079"]
    whole = line | {"gain": {"value": 4.0, "low": 1.0, "high": 8.0, "minimum-gain": 7.0}}
    assert row_of(whole)["cells"]["gain"]["below"][1] == "needs to lie above 7"  # as in the report
    below = line | {"gain": gain | {"low": -0.01}}
    assert row_of(below)["cells"]["gain"]["below"] == ["−0.010 to +0.079"]


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("resplit", [True, False])
def test_a_line_of_the_list_has_the_answer_of_the_report(store, write, url, repeats, resplit):
    series = store.begin_series(study="heart", study_sha256="", study_text=study(), repeats=repeats)
    for repeat in range(repeats):
        run = write(store, series, repeat=repeat, rounds=1, shift=0.02 + 0.01 * repeat, resplit=resplit)
        # At cleveland too few rows have the outcome.
        counts = {site: {"0": [[3, 40]], "1": [[9, 40]]} for site in ("hungary", "long-beach", "switzerland")}
        run.summary("score-histograms", {"sites": counts | {"cleveland": {"0": [[1, 85]], "1": [[2, 4], [3, 2]]}}})
    with RunReader.open(url) as reader:
        assert_line_is_of_report(line_of(reader, series), report(reader, series))
        assert line_of(reader, series)["verdict"] == "cannot be told"  # of two sites there is no mean


def assert_line_is_of_report(line: dict[str, Any], whole: dict[str, Any]) -> None:
    """Check that a line of the list has the answer of a report."""
    metric = primary_of(whole)
    mean = figure_of(run_of(whole).mean_gain, metric or "")
    if metric is None or not released(whole).is_compared:
        assert (line["verdict"], line["gain"]["value"]) == (None, None)
        return
    assert line["verdict"] == code_of_mean(mean, mean.minimum_gain)
    ends = ("value", "low", "high")
    assert [line["gain"][end] for end in ends] == [getattr(mean, end) for end in ends]
    assert (line["mechanism"], line["epsilon"]) == (whole["privacy"]["mechanism"], whole["privacy"]["epsilon"])


@pytest.mark.slow
@pytest.mark.studies
def test_the_list_of_real_runs_of_every_kind_has_the_answers_of_their_reports(runs):
    answers = set()
    with RunReader.open(runs.url) as reader:
        for series in runs.series.values():
            line = line_of(reader, series)
            assert_line_is_of_report(line, report(reader, series))
            answers.add(line["verdict"])
    assert len(answers) > 1


@pytest.fixture
def three(two, store, write) -> list[str]:
    """The ids of three runs."""
    third = store.begin_series(study="loans", study_sha256="", study_text=study(dataset="loan-default"))
    write(store, third, rounds=1)
    return [*two, third]


def texts_of(window, column: str) -> list[str]:
    return window.page.locator(f".flfed-runs tbody [data-column={column}]").all_inner_texts()


@pytest.mark.browser
def test_the_table_is_sorted_filtered_and_ticked_with_the_keyboard_alone(three, window):
    page = window.page
    page.locator(".flfed-runs tbody tr").nth(2).wait_for()
    window.drawn()
    status = page.locator(".flfed-runs [role=status]")
    assert [text.split("\n")[0] for text in texts_of(window, "study")] == ["loans", "heart-disease", "heart-disease"]
    gains = page.locator(".flfed-runs th[data-column=gain]")
    gains.get_by_role("button").focus()
    page.keyboard.press("Enter")  # the largest first
    sizes = [text.split("\n")[0] for text in texts_of(window, "gain")]
    assert sizes == sorted(sizes, reverse=True) and gains.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert [text.split("\n")[0] for text in texts_of(window, "gain")] == sizes[::-1]
    page.get_by_label("Dataset", exact=True).select_option("loan-default")
    assert status.inner_text() == "1 of 3 runs"
    page.get_by_label("Dataset", exact=True).select_option("all")
    page.get_by_role("searchbox", name="Search").focus()
    page.keyboard.type("heart nothing-like")
    assert status.inner_text() == "0 of 3 runs"
    page.keyboard.press("Control+A")
    page.keyboard.type("HEART")
    assert status.inner_text() == "2 of 3 runs"
    for box in page.get_by_role("checkbox").all():
        box.focus()
        page.keyboard.press("Space")
    compare = page.get_by_role("button", name="Compare 2 runs")
    compare.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Side by side").wait_for()
    window.drawn()
    assert {name in page.url for name in three[:2]} == {True}
    assert page.get_by_role("checkbox", checked=True).count() == 2
    page.get_by_role("button", name="Close the comparison").click()
    page.get_by_role("heading", name="Side by side").wait_for(state="detached")
    assert "compare" not in page.url


@pytest.mark.browser
def test_a_name_in_the_list_is_text_whatever_it_holds(store, write, window):
    nasty = "<img src=x onerror=alert(1)> [a](b) $x$"
    write(store, store.begin_series(study=nasty, study_sha256="", study_text=""), rounds=1)
    window.page.reload()
    window.page.locator(".flfed-runs tbody tr").first.wait_for()
    assert texts_of(window, "study")[0].split("\n")[0] == nasty
    assert window.page.locator(".flfed-runs img").count() == 0
