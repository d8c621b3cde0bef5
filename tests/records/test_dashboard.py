"""The pages: what they say, by AppTest; what a browser shows of them is in `test_dashboard_browser.py`."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from flfed.records.dashboard import page_files
from flfed.records.store.entries import ComparisonRow, DifferenceRow, EventRow, MetricRow, SiteRow
from flfed.records.store.reader import RunReader

ROOT = Path(__file__).parents[2]
APP = ROOT / "app.py"
OVERVIEW = "flfed/records/dashboard/pages/p20_overview.py"
SITES = "flfed/records/dashboard/pages/p30_sites.py"
DATA = "flfed/records/dashboard/pages/p60_data.py"
AUC = "roc_auc_score"


def overview(run: str | None, page_file: str | Path = OVERVIEW) -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=60).run()  # the first run registers the pages
    page.switch_page(str(ROOT / page_file))
    if run is not None:
        page.query_params["run"] = run
    return page.run()


def words(page: AppTest) -> str:
    """All text of a page, Markdown escapes taken away."""
    blocks = [*page.title, *page.markdown, *page.caption, *page.info, *page.warning, *page.error]
    cells = [
        str(table.value.replace("\u00a0", " ", regex=True).to_dict("records"))
        for table in [*page.table, *page.dataframe]
    ]
    cards = [f"{card.label} {card.value} {card.delta}" for card in page.metric]
    return "\n".join([*(str(block.value) for block in blocks), *cells, *cards]).replace("\\", "")


def listed_rows(page: AppTest) -> list[dict[str, Any]]:
    """Return the rows of the page's tables of runs, as the browser gets them."""
    tables = [element.proto for element in page.main if element.type == "bidi_component"]
    return [row for table in tables for row in json.loads(table.json)["rows"]]


def test_an_empty_store_says_what_to_do_on_every_page(shown: str):
    for name, file in page_files().items():
        page = overview(None, file)
        assert not page.exception
        # What a study could show at a site needs no run.
        assert ("flfed demo" in words(page)) is (name != "before-you-join"), name


def test_the_list_shows_each_series_once_and_finds_by_name(shown: str, store, heart: str, write):
    repeats = store.begin_series(study="loan-default", study_sha256="", study_text="", repeats=3)
    for repeat in range(3):
        write(store, repeats, repeat=repeat)
    page = AppTest.from_file(str(APP), default_timeout=60).run()
    assert not page.exception
    rows = listed_rows(page)
    assert [(row["id"], row["cells"]["study"]["text"]) for row in rows] == [
        (repeats, "loan-default"), (heart, "heart-disease"),
    ]  # fmt: skip
    assert rows[0]["cells"]["status"]["below"][0] == "3 of 3 repeats"


def test_the_page_of_a_run_answers_the_five_questions_in_words(shown: str, heart: str):
    page = overview(heart)
    assert not page.exception
    said = words(page)
    assert "1 of 5 sites took no part: basel (its policy does not allow the data set heart-disease)." in said
    assert "Joining improves AUC at 0 of 4 sites; no clear improvement at 3 (cleveland, hungary, long-beach)" in said
    # The mean stands in the headline, and the rounds in the table below it: each once.
    assert said.count("Mean gain from joining +0.0") == 1 and "On average over" not in said
    assert said.count("40 of 40 rounds ran") == 1
    assert "At no site does joining improve AUC: no interval (95 % CI, widened for 4 sites) lies above 0.005" in said
    assert "would reach 0.901: 0.005 better than the shared model" in said
    assert "40 of 40 rounds ran; rejected updates: 2; sites refused: 1 (basel)" in said
    assert "3 values that are not finite" in said
    assert "its policy does not allow the data set" in said
    assert "norm of the delta is 3.1 times the median" in said


def test_a_fault_of_no_round_is_not_called_a_refusal(shown: str, store, write):
    series = store.begin_series(study="s", study_sha256="", study_text="", repeats=2)
    for repeat in range(2):
        write(store, series, repeat=repeat).events([EventRow(None, "hungary", "fault", "no comparison: no answer")])
    page = overview(series)
    assert not page.exception
    lines = next(table.value for table in page.table if "What" in table.value.columns).to_dict("records")
    plain = [{key: cell.replace("\\", "") for key, cell in line.items()} for line in lines]
    assert {"What": "fault", "Site": "hungary", "When": "", "Why": "no comparison: no answer"} in plain
    refused = [(line["Site"], line["When"]) for line in plain if line["What"] == "site refused"]
    assert refused == [("basel", "at enrolment")]
    assert "sites refused: 1 (basel)" in str([table.value.to_numpy() for table in page.table]).replace("\\", "")


def test_a_note_after_the_last_round_is_not_given_the_number_of_a_round_that_never_was(shown: str, store, write):
    series = store.begin_series(study="s", study_sha256="", study_text='purpose = "Try it [once]"')
    run = write(store, series, rounds=3)
    run.events([EventRow(4, "hungary", "note", "rows left out"), EventRow(3, "vienna", "note", "late")])
    page = overview(series)
    assert not page.exception
    assert "Try it \\[once\\]." in [text.value for text in page.markdown]
    lines = next(table.value for table in page.table if "What" in table.value.columns).to_dict("records")
    when = {line["Site"]: line["When"] for line in lines if line["What"] == "note"}
    assert when == {"hungary": "after the last round", "vienna": "round 3"}


def test_a_site_with_one_class_is_told_apart_from_a_bad_one(shown: str, heart: str):
    page = overview(heart, SITES)
    assert "switzerland: AUC cannot be compared here: the holdout has one class only." in words(page)
    page.selectbox(key="site-cleveland").set_value("switzerland").run()
    assert "Inconclusive at switzerland." in words(page)


def test_the_page_says_on_which_rows_the_curves_were_measured(shown: str, heart: str):
    assert "measured on the rows the model was trained on" in words(overview(heart))


def test_leak_warnings_and_table_1_are_shown(shown: str, heart: str):
    said = words(overview(heart, DATA))
    assert "slope: the target is 17 % where it is missing" in said
    assert "53.5 (9.4)" in said


def test_a_run_that_failed_before_comparing_says_why(shown: str, store):
    series = store.begin_series(study="heart-disease", study_sha256="", study_text="")
    run = store.begin_run(
        series, engine="inprocess", path="one-by-one", seed=1, rounds_planned=40, primary="r2_score", task="regression"
    )
    run.finish(status="stopped", reason="2 of 4 sites answered, the quorum is 3")
    page = overview(run.run)
    assert not page.exception
    assert "the quorum is 3" in words(page)
    assert "0 of 40 rounds ran" in words(page)


def test_a_study_that_records_one_sum_shows_no_site(shown: str, store):
    series = store.begin_series(study="quiet", study_sha256="", study_text='[compare]\nshare = "sum"\n')
    run = store.begin_run(
        series, engine="inprocess", path="one-by-one", seed=1, rounds_planned=1, primary="log_loss", task="binary"
    )
    run.sites([SiteRow("site-1")])
    run.comparison([ComparisonRow(None, "global", "log_loss", 0.41, 0.38, 0.44)], [])
    run.finish(status="completed")
    page = overview(run.run)
    assert not page.exception
    assert "(lower is better)" in words(page)
    said = words(overview(run.run, SITES))
    assert "the study records one sum over all sites" in said


def test_a_metric_can_be_chosen_and_its_direction_is_said(shown: str, heart: str):
    page = overview(heart)
    page.radio[0].set_value("brier_score_loss").run()
    assert not page.exception
    assert "lower is better" in words(page)
    # Four sites alike: each -0.010 (-0.030 to +0.010); the mean's interval is t(3) = 3.182 of 0.010204 / 2, either way.
    assert words(page).count("gain from joining +0.010 in Brier score (95 % CI −0.006 to +0.026") == 1


def test_a_running_run_shows_each_new_round(shown: str, store):
    series = store.begin_series(study="heart-disease", study_sha256="", study_text="")
    run = store.begin_run(
        series, engine="inprocess", path="one-by-one", seed=1, rounds_planned=40, primary="log_loss", task="binary"
    )
    for number in (1, 2):
        row = MetricRow(None, "validation", "log_loss", 0.7 - number / 10)
        run.round(number, metrics=[row])
        page = overview(run.run)
        assert not page.exception
        assert f"{number} of 40 rounds ran" in words(page)
    assert "validation rows that were kept out of training" in words(page)


def test_repeats_are_shown_together_and_one_by_one(shown: str, store, write):
    series = store.begin_series(study="heart-disease", study_sha256="", study_text="", repeats=3)
    for repeat in range(3):
        write(store, series, repeat=repeat, shift=repeat / 100, resplit=True)
    page = overview(series)
    assert not page.exception
    assert "AUC 0.906 (mean of 3 repeats; of one of them, 95 % CI 0.881 to 0.929)" in words(page)
    page.sidebar.selectbox[1].set_value(f"{series}-r03").run()
    assert not page.exception
    assert "AUC 0.916 (95 % CI" in words(page)
    assert page.query_params["run"] == f"{series}-r03"


def test_runs_in_the_margin_begin_with_what_tells_them_apart(shown: str, store, write):
    names = ["heart-disease", "died-20261127-010512-944f", "died-20261127-010513-aaaa"]
    series = [store.begin_series(study=name, study_sha256="", study_text="") for name in names]
    for one in series:
        write(store, one)
    with RunReader.open(shown) as reader:
        started = {run.series: datetime.fromisoformat(run.started) for run in reader.runs()}
    options = overview(series[0]).sidebar.selectbox[0].options
    assert len(set(options)) == len(options)
    for one, study in zip(series, ("heart-disease", "died", "died"), strict=True):
        label = f"{started[one].day} {started[one]:%b %H:%M} {study}"
        assert [option for option in options if option in (label, f"{one[-4:]} {label}")], (label, options)
    # Of two that started in one minute with the same name the ends of their ids go before it.
    both = [option for option in options if option.endswith(" died")]
    assert len(both) == 2


def test_an_unknown_run_is_answered_with_a_sentence(shown: str, heart: str):
    assert "is not in the store" in words(overview(heart[:-1] + "x"))


def test_a_hundred_sites_are_drawn_and_their_intervals_said_to_be_widened(shown: str, store):
    series = store.begin_series(study="many", study_sha256="", study_text="")
    run = store.begin_run(
        series, engine="inprocess", path="stacked", seed=1, rounds_planned=1, primary="roc_auc_score", task="binary"
    )
    figures = [ComparisonRow(None, "global", "roc_auc_score", 0.8, 0.79, 0.81)]
    differences = []
    for k in range(100):
        run.sites([SiteRow(f"site-{k:03d}", rows=100, holdout_rows=30)])
        figures.append(ComparisonRow(f"site-{k:03d}", "global", "roc_auc_score", 0.8, 0.7, 0.9))
        differences.append(
            DifferenceRow(f"site-{k:03d}", "global", "local-only", "roc_auc_score", k / 1000 - 0.05, -0.1, 0.1)
        )
    run.comparison(figures, differences)
    page = overview(run.run)
    assert not page.exception
    assert "no interval (95 % CI, widened for 100 sites) lies above 0.005" in words(page)
    assert "of 100 sites, those with the largest and smallest gain" in words(page)
    assert "show 24 of 100 sites, those with the largest and smallest gain" in words(overview(run.run, SITES))


def test_of_many_sites_the_links_lead_to_those_that_the_forest_plot_draws(shown: str, store):
    series = store.begin_series(study="many", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task="binary")
    figures, differences = [ComparisonRow(None, "global", AUC, 0.8, 0.79, 0.81)], []
    for k in range(30):
        run.sites([SiteRow(f"site-{k:02d}", rows=100, holdout_rows=30)])
        figures += [ComparisonRow(f"site-{k:02d}", arm, AUC, 0.8, 0.7, 0.9) for arm in ("global", "local-only")]
        # The last ten cannot be judged, and stand at the end of the order.
        if k < 20:
            differences.append(DifferenceRow(f"site-{k:02d}", "global", "local-only", AUC, k / 1000, -0.1, 0.1))
    run.comparison(figures, differences)
    run.finish(status="completed")
    page = overview(run.run)
    labels = [link.proto.label.replace("\\", "") for link in page.get("page_link")]
    ends = [f"site-{k:02d}" for k in (19, 18, 17, 16, 3, 2, 1, 0)]
    assert [label for label in labels if label.startswith("site-")] == ends
    # The first chart of the page is the forest plot.
    forest_plot = page.get("vega_lite_chart")[0].proto.spec
    assert [site for k in range(30) if (site := f"site-{k:02d}") in forest_plot] == sorted(ends)
    # Nor is such a site drawn on the page Sites before one with a gain.
    page = overview(run.run, SITES)
    assert "show 20 of 30 sites" in words(page)
    for chart in page.get("vega_lite_chart")[-2:]:
        assert "site-19" in chart.proto.spec and "site-20" not in chart.proto.spec
