"""The pages as the people of one site see them: their own verdict first, and why nothing is said of all sites."""

import io

import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from flfed.records.dashboard import page_files
from flfed.records.reports.report import report
from flfed.records.statistics.verdict import number
from flfed.records.store.entries import ComparisonRow, EventRow, SiteRow
from flfed.records.store.reader import RunReader
from tests.browser import ROOT

pytestmark = pytest.mark.usefixtures("shown")

AUC = "roc_auc_score"


def page(name: str, run: str, site: str) -> AppTest:
    """Return the parts of a page as the people of `site` see them."""

    def script(name: str, run: str, site: str) -> None:
        from importlib import import_module

        import streamlit as st

        from flfed.records.dashboard import page_files
        from flfed.records.dashboard.refresh import Opened
        from flfed.records.store.reader import RunReader
        from flfed.records.store.visibility import Viewer

        with RunReader.open(only=site) as reader:
            runs = reader.runs_of(run)
        st.navigation([st.Page(file, url_path=name) for name, file in page_files().items()])  # for links
        import_module(f"flfed.records.dashboard.pages.{name}").parts(Opened(Viewer("site", site), runs, run))

    shown = AppTest.from_function(script, args=(name, run, site), default_timeout=60).run()
    assert not shown.exception
    return shown


def said(shown: AppTest) -> str:
    parts = (shown.markdown, shown.caption, shown.info, shown.error, shown.warning)
    return "\n".join(part.value for kind in parts for part in kind)


@pytest.mark.parametrize("name", ["p20_overview", "p30_sites"])
@pytest.mark.parametrize("site", ["hungary", "long-beach"])
def test_a_sites_people_read_their_own_verdict_first(heart, name, site):
    shown = page(name, heart, site)
    figures = {"hungary": ["0.871", "0.874", "0.873"], "long-beach": ["0.662", "0.600", "0.711"]}[site]
    chart = shown.get("vega_lite_chart")[0]
    drawn = pa.ipc.open_stream(io.BytesIO(chart.proto.data.data)).read_pandas()
    assert list(map(number, drawn["value"])) == figures
    text = said(shown)
    assert f"No clear improvement at {site}" in text
    for wrong in ("not compared", "Nothing was compared", "All sites", "no site was refused", "sites (", "of 1 sites"):
        assert wrong not in text, wrong


@pytest.mark.parametrize("name", ["p20_overview", "p30_sites"])
def test_a_site_that_was_refused_is_told_so(heart, name):
    shown = page(name, heart, "basel")
    assert [info.value for info in shown.info] == [
        "basel did not take part in this run: its policy does not allow the data set heart-disease."
    ]
    assert len(shown.metric) == 0


@pytest.fixture
def sums_only(store) -> str:
    """A run in which site c shares sums only."""
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task="binary")
    for site in ("a", "b", "c"):
        run.sites([SiteRow(site, rows=100, shared_as="aggregate-only" if site == "c" else "named")])
    run.summary("table-1", {"rows": [{"Characteristic": "Rows", "All sites": "300", "a": "100"}], "note": ""})
    run.round(1)
    run.comparison([ComparisonRow(None, "global", AUC, 0.8), ComparisonRow("a", "global", AUC, 0.7)], [])
    run.finish(status="completed")
    return run.run


@pytest.mark.parametrize("name", ["p20_overview", "p30_sites"])
def test_a_site_in_sums_only_is_told_that_the_record_has_none_of_its_own(sums_only, name):
    shown = page(name, sums_only, "c")
    assert [info.value for info in shown.info] == [
        "c shares its figures only in sums over all sites: the record has none of its own."
    ]
    assert "0.8" not in said(shown)


SUMMED = {
    "rows": "holdout", "sites": 3, "holdout-rows": 61, "points": [], "auc-bounds": [0.7213, 0.7291],
    "figures": {"log_loss": {"global": 0.4321}, AUC: {"global": 0.7252}},
}  # fmt: skip


@pytest.mark.parametrize("compared", [True, False])
def test_the_figures_of_sites_in_sums_only_are_one_line_for_who_sees_all_and_none_for_one_site(store, compared):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task="binary")
    for site in "abcd":
        run.sites([SiteRow(site, rows=100, shared_as="named" if compared and site == "a" else "aggregate-only")])
    run.summary("sums-only", SUMMED)
    # Where all sites share figures in sums only, there is nothing else.
    figures = [ComparisonRow(None, "global", AUC, 0.8), ComparisonRow("a", "global", AUC, 0.7)] if compared else []
    run.comparison(figures, [])
    run.finish(status="completed")
    opened = AppTest.from_file(ROOT / "app.py", default_timeout=60).run()
    opened.switch_page(page_files()["sites"])
    opened.query_params["run"] = run.run
    shown = said(opened.run()).replace("\\", "")
    assert not opened.exception and "3 sites together, which share no figures of their own, on 61 test rows:" in shown
    of_auc = "AUC (from counts, so between 0.721 and 0.729): shared model 0.725. The figures came as one sum"
    assert (of_auc if compared else "log loss: shared model 0.432") in shown
    for site in "ab":
        assert "3 sites together" not in said(page("p30_sites", run.run, site))
        with RunReader.open(only=site) as reader:
            assert "sums-only" not in report(reader, run.run)


def test_the_data_of_a_site_in_sums_only_say_so(sums_only):
    text = said(page("p60_data", sums_only, "c"))
    assert text.count("shares only sums over all sites") == 3
    assert "300" not in text


def test_what_was_set_aside_is_that_of_the_site(heart):
    assert "the delta has 3 values" in str([table.value for table in page("p20_overview", heart, "hungary").table])
    shown = page("p20_overview", heart, "switzerland")
    assert "Nothing of switzerland was rejected or refused." in said(shown)
    assert [list(table.value.columns) for table in shown.table] == [["Basis", "In this run"]]


@pytest.mark.parametrize("name", ["p20_overview", "p30_sites"])
def test_that_a_column_may_give_the_answer_away_stands_where_figures_are_read_but_not_for_one_site(heart, name):
    opened = AppTest.from_file(ROOT / "app.py", default_timeout=60).run()
    opened.switch_page(page_files()[name.partition("_")[2]])
    opened.query_params["run"] = heart
    opened.run()
    (notice,) = [block.value for block in opened.warning]
    assert "Before you rely on these figures: a column may reveal the outcome (slope)" in notice.replace("\\", "")
    assert [block.value for block in page(name, heart, "hungary").warning] == []


def test_one_sites_people_are_not_told_to_go_on_with_a_run_that_stopped(store, monkeypatch):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=9, primary=AUC, task="binary")
    run.sites([SiteRow("a")])
    run.finish(status="stopped", reason="only 1 of 3 sites answered")

    def script(run: str, only: str | None) -> None:
        from flfed.records.dashboard.panels import overview
        from flfed.records.store.reader import RunReader

        with RunReader.open(only=only) as reader:
            overview.head("Sites", reader.runs_of(run), run, only=only)

    told = {
        only: AppTest.from_function(script, args=(run.run, only), default_timeout=60).run().warning[0].value
        for only in (None, "a")
    }
    assert ["flfed study resume" in told[only] for only in (None, "a")] == [True, False]
    assert ["1 of 3" in told[only] for only in (None, "a")] == [True, False]


@pytest.mark.parametrize("found", [["slope"], []])
def test_what_was_looked_for_in_all_rows_is_not_told_and_nothing_untrue_is(store, heart, found):
    run = store.added_to(heart)
    run.events([EventRow(None, None, "leak", f"column {name}: AUC 0.98") for name in found])
    run.summary("leaks", {"warnings": [f"column {name}: AUC 0.98" for name in found]})
    text = said(page("p60_data", heart, "hungary"))
    assert "This check covers the rows of all sites together. Its result is not shown to people of one site." in text
    for wrong in ("slope", "0.98", "not checked", "No leak was found"):
        assert wrong not in text, wrong


def test_why_there_is_no_table_1_is_asked_of_the_coordinator(store):
    series = store.begin_series(study="s", study_sha256="", study_text="")
    run = store.begin_run(series, engine="inprocess", path="", seed=1, rounds_planned=1, primary=AUC, task="binary")
    run.sites([SiteRow("a")])
    run.events([EventRow(None, None, "note", "no Table 1: the sums of b over 77777 rows are lost", "no-table-1")])
    run.finish(status="completed")
    text = said(page("p60_data", run.run, "a"))
    assert "No Table 1: ask the coordinator why." in text
    assert "77777" not in text and "earlier version" not in text


def test_two_runs_side_by_side_are_compared_at_the_site_alone(store, heart, write):
    other = write(store, store.begin_series(study="again", study_sha256="", study_text=""), shift=0.01)

    def script(a: str, b: str) -> None:
        from flfed.records.dashboard.panels.compare import side_by_side

        side_by_side([a, b], "hungary")

    shown = AppTest.from_function(script, args=(heart, other.run), default_timeout=60).run()
    assert not shown.exception
    tables = str([table.value.to_dict() for table in shown.table])
    assert "0.871" in tables and "0.881" in tables  # of hungary: 0.871, and 0.01 more
    assert "AUC of the shared model, with 95 % CI, hungary" in said(shown)
    assert "long-beach" not in tables + said(shown)
    assert "'Sites'" not in tables
    assert "0.896" not in tables + said(shown)
